"""Job ``synth``: the synthetic archive, the record extracts and the truth about them.

Enters: the settings ``synth`` and the cover of ``records.sources``, and the data below schemas/synthetic/. Leaves: zones archive and
extracts; ``extracts/truth/`` holds the answers. No Spark; driver only.
The same seed, settings, pinned packages and zlib give the same bytes.

``extracts/truth/synth.json`` lists every file that was made. A second run compares with it and rewrites only what is missing or was
changed; other settings replace the files of the list and leave all others alone. Zones that hold files but no list are not ours: refused.
"""

import csv
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pictures_spark.errors import ConfigError
from pictures_spark.job import Job
from pictures_spark.resources import schemas_dir
from pictures_spark.synthetic import truth
from pictures_spark.synthetic.archive import MTIME, files, place
from pictures_spark.synthetic.people import population
from pictures_spark.synthetic.records import COLUMNS, Days, Row, extracts
from pictures_spark.synthetic.reports import reports
from pictures_spark.synthetic.samples import sample_facts
from pictures_spark.synthetic.scans import studies

STAMP = ("truth", "synth.json")
# Packages whose version could change a byte of what is made.
MAKERS = ("numpy", "pillow", "pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle")


@dataclass(frozen=True)
class Made:
    """One file to be: zone, path below its root, and the function that makes its bytes."""

    zone: str
    path: str
    build: Callable[[], bytes]

    @property
    def name(self) -> str:
        """Key in the list of files."""
        return f"{self.zone}/{self.path}"


def run(job: Job) -> None:
    """Make the archive and the extracts, or find them unchanged.

    Raises
    ------
    ConfigError
        The settings contradict each other, or a zone holds files that this job did not make.
    """
    settings, cover = job.config["synth"], _cover(job)
    if settings["imaged"] > settings["people"]:
        raise ConfigError("synth.imaged is larger than synth.people: lower it, or raise synth.people")
    stamp = _read_stamp(job)
    wanted = _fingerprint(settings, cover)
    known: dict[str, Any] = stamp["files"]
    finished = stamp["complete"] and stamp["fingerprint"] == wanted
    if finished and all(_intact(job, name, size) for name, size in known.items()):
        _report(job, stamp["details"], written=0, unchanged=len(known), removed=0)
        return
    made, details = plan(settings, cover)
    # From here on the list names what there was and what will be, so that a run that stops half-way can be finished or replaced.
    _write_stamp(
        job, {"complete": False, "fingerprint": wanted, "details": details, "files": {**known, **{item.name: -1 for item in made}}}
    )
    written, sizes = 0, {}
    for item in made:
        if not (finished and _intact(job, item.name, known.get(item.name, -1))):
            content = item.build()
            written += _write(job.zones.path(item.zone, *item.path.split("/"), mode="write"), content)
            sizes[item.name] = len(content)
        else:
            sizes[item.name] = known[item.name]
    removed = [name for name in known if name not in sizes]
    for name in removed:
        zone, _, path = name.partition("/")
        _remove(job.zones.path(zone, *path.split("/"), mode="write"), job.zones.path(zone))
    _write_stamp(job, {"complete": True, "fingerprint": wanted, "details": details, "files": sizes})
    _report(job, details, written=written, unchanged=len(sizes) - written, removed=len(removed))


def plan(settings: dict[str, int], cover: dict[str, Days]) -> tuple[list[Made], dict[str, int]]:
    """Everything that a run makes, before any byte of it exists, and what the report tells of it."""
    seed = settings["seed"]
    sample_dates, sample_identifiers = sample_facts()
    people = population(seed, settings["people"], settings["imaged"], cover["chi"][0], set(sample_dates))
    planned = studies(seed, people, settings["max_frames"])
    placed = place(planned)
    told = reports(seed, planned)
    records = [*extracts(seed, people, cover), told.extract]
    made = [Made("archive", path, build) for path, build in files(placed).items()]
    tables = {f"{extract.source}.csv": (COLUMNS[extract.source], extract.rows) for extract in records}
    tables |= {
        "truth/people.csv": (truth.COLUMNS["people"], truth.people_rows(people)),
        "truth/scans.csv": (truth.COLUMNS["scans"], truth.scan_rows(placed)),
        "truth/canaries.csv": (truth.COLUMNS["canaries"], truth.canary_rows(people, placed, sample_identifiers, told.canaries)),
        "truth/findings.csv": (truth.COLUMNS["findings"], told.truth),
        "truth/faults.csv": (truth.COLUMNS["faults"], truth.fault_rows(records)),
    }
    made += [Made("extracts", path, lambda c=columns, r=rows: _csv(c, r)) for path, (columns, rows) in tables.items()]  # type: ignore[misc]
    details = {
        "people": len(people),
        "studies": len(planned),
        "series": sum(len(study.series) for study in planned),
        "frames": sum(study.frames for study in planned),
        "record_rows": sum(len(extract.rows) for extract in records),
    }
    return made, details


def _csv(columns: list[str], rows: list[Row]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _cover(job: Job) -> dict[str, Days]:
    sources = job.config["records"]["sources"]
    missing = sorted(set(COLUMNS) - set(sources))
    if missing:
        raise ConfigError(f"synth needs the cover of these sources in records.sources of the settings file: {', '.join(missing)}")
    return {name: (date.fromisoformat(sources[name]["from_date"]), date.fromisoformat(sources[name]["to_date"])) for name in COLUMNS}


def _fingerprint(settings: dict[str, int], cover: dict[str, Days]) -> str:
    """Hash of all that the bytes depend on: settings, cover, this package, its data, and the packages that make bytes."""
    parts = (sorted(settings.items()), sorted(cover.items()), [version(name) for name in MAKERS], zlib.ZLIB_RUNTIME_VERSION)
    digest = hashlib.sha256(repr(parts).encode())
    for root in (Path(__file__).parent, schemas_dir() / "synthetic"):
        for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".yaml")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _read_stamp(job: Job) -> dict[str, Any]:
    path = job.zones.path("extracts", *STAMP)
    if path.is_file():
        stamp: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return stamp
    for zone in ("archive", "extracts"):
        if any(found.is_file() for found in job.zones.path(zone).rglob("*")):
            raise ConfigError(f"zone {zone} holds files that synth did not make: point zones.{zone} at an empty folder")
    return {"complete": False, "fingerprint": "", "details": {}, "files": {}}


def _write_stamp(job: Job, stamp: dict[str, Any]) -> None:
    path = job.zones.path("extracts", *STAMP, mode="write")
    _write(path, (json.dumps(stamp, indent=1, sort_keys=True) + "\n").encode())


def _intact(job: Job, name: str, size: int) -> bool:
    """Whether a file has the listed size and the fixed time that every change by others would move."""
    zone, _, path = name.partition("/")
    try:
        stat = job.zones.path(zone, *path.split("/")).stat()
    except OSError:
        return False
    return stat.st_size == size and stat.st_mtime == MTIME


def _write(path: Path, content: bytes) -> bool:
    """Put content in place in one step, with the fixed time; False where it is there already."""
    same = path.is_file() and path.read_bytes() == content
    if not same:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        os.utime(part, (MTIME, MTIME))
        part.replace(path)
    elif path.stat().st_mtime != MTIME:
        os.utime(path, (MTIME, MTIME))
    return not same


def _remove(path: Path, root: Path) -> None:
    """Take away a file of an earlier list, and the folders that it leaves empty."""
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if folder == root or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _report(job: Job, details: dict[str, int], *, written: int, unchanged: int, removed: int) -> None:
    job.report.counts.update(seen=written + unchanged, written=written, unchanged=unchanged)
    job.report.details.update(details)
    if removed:
        job.report.details["removed_of_earlier_settings"] = removed
