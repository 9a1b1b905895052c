"""What a job says at its end: a JSON file and one printed table. Counts must balance."""

import json
import sys
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pictures_spark.errors import ChecksFailedError


def utc_now() -> datetime:
    """Now, UTC and zone-less, to the second."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@dataclass
class Report:
    """Report of one run (DESIGN section 4). No value in it may be an identifier or a path of the archive.

    ``counts`` holds ``seen``, ``written``, ``unchanged``, ``quarantined`` and ``skipped_<rule>``; `balance` checks that they add up.
    ``extra`` counts (tables, boxes, people) go to ``details`` and take no part in the balance.
    """

    job: str
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started: str = field(default_factory=lambda: utc_now().isoformat())
    ended: str | None = None
    status: str = "running"
    counts: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, int | None] = field(default_factory=dict)
    details: dict[str, int | float | str] = field(default_factory=dict)
    message: str | None = None

    def balance(self) -> None:
        """Check seen = written + unchanged + quarantined + every skipped rule.

        Raises
        ------
        ChecksFailedError
            They do not add up: something was lost or counted twice.
        """
        parts = {k: v for k, v in self.counts.items() if k != "seen"}
        total = sum(parts.values())
        if self.counts.get("seen", 0) != total:
            said = " + ".join(f"{k} {v}" for k, v in sorted(parts.items()))
            raise ChecksFailedError(f"{self.job}: counts do not balance: seen {self.counts.get('seen', 0)} but {said} = {total}")
        if sum(self.quarantined.values()) != self.counts.get("quarantined", 0):
            raise ChecksFailedError(f"{self.job}: quarantine reasons do not add up to the quarantined count")

    def finish(self, status: str, folder: Path, message: str | None = None) -> Path:
        """Close the report and write ``<job>-<run_id>.json``."""
        self.ended = utc_now().isoformat()
        self.status = status
        self.message = message
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.job}-{self.run_id}.json"
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def lines(self) -> list[str]:
        """The printed table."""
        rows = [(name.replace("_", " "), f"{count:,}") for name, count in self.counts.items()]
        rows += [(f"  {reason}", f"{count:,}") for reason, count in sorted(self.quarantined.items())]
        rows += [
            (name.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else value) for name, value in self.details.items()
        ]
        rows += [(name.replace("_", " "), f"{rate:,.1f}") for name, rate in self.rates.items()]
        return [f"{self.job}: {self.status} (run {self.run_id})", *aligned(rows)]


def aligned(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns, names left and values right."""
    left = max((len(name) for name, _ in rows), default=0)
    right = max((len(value) for _, value in rows), default=0)
    return [f"  {name:<{left}}  {value:>{right}}" for name, value in rows]


def progress(text: str) -> None:
    """One line of progress on standard error."""
    print(f"  .. {text}", file=sys.stderr, flush=True)
