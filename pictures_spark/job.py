"""What every job has: settings, zones of its role, a Spark session, keys, a report - and one way to start and end.

The heart of a job is a function ``run(job)`` in the package; `run_job` opens the :class:`Job`, calls it, checks the counts, writes the
report and turns any error into one sentence and an exit code.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pictures_spark import __version__, tables
from pictures_spark.config import Config
from pictures_spark.errors import PicturesError, QuarantineLimitError
from pictures_spark.keys import KeyRef, fingerprint, key_ref
from pictures_spark.report import Report, progress, utc_now
from pictures_spark.resources import code_fingerprint
from pictures_spark.session import open_session
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Columns of quarantine that say that a row was waived, by whom and why.
WAIVER = ("waived_at", "waived_by", "waived_because")


@dataclass
class Job:
    """A run of one job under one role."""

    name: str
    config: Config
    zones: Zones
    report: Report
    clock: float = field(default_factory=time.monotonic)

    @property
    def run_id(self) -> str:
        """Identifier of this run; a column of every row it writes."""
        return self.report.run_id

    @cached_property
    def spark(self) -> "SparkSession":
        """The process's Spark session, started on first use."""
        return open_session(self.config, self.zones)

    def key(self, purpose: str) -> KeyRef:
        """Reference to a derived key; see `pictures_spark.keys`."""
        return key_ref(self.zones, self.config["keys"]["key_id"], purpose)

    def say(self, text: str) -> None:
        """One line of progress."""
        progress(f"{self.name}: {text}")

    def read(self, zone: str, name: str, version: int | None = None) -> "DataFrame":
        """A table of a zone; empty with the declared columns where it was never written."""
        return tables.read(self.spark, self.zones, zone, name, version)

    def version(self, zone: str, name: str) -> int | None:
        """Newest Delta version of a table."""
        return tables.version(self.spark, self.zones, zone, name)

    def input_fingerprint(self, **inputs: object) -> str:
        """Fingerprint of what a run's result depends on: the given inputs, the job's settings and the code."""
        parts = [f"{k}={v}" for k, v in sorted(inputs.items())]
        return fingerprint(self.name, code_fingerprint(), repr(self.config.values.get(self.name)), *parts)

    def already_done(self, fingerprint: str) -> bool:
        """Whether the last finished run of this job (identifiable zone) had the same fingerprint."""
        rows = self.read("identifiable", "run").where(f"job = '{self.name}'")
        last = rows.orderBy(rows.ended.desc(), rows.run_id.desc()).select("fingerprint").first()
        return last is not None and last[0] == fingerprint

    def done(self, fingerprint: str) -> None:
        """Record this run as finished (identifiable zone)."""
        import json

        row = (self.name, fingerprint, utc_now(), json.dumps(self.report.counts, sort_keys=True), self.run_id)
        from pictures_spark.schema import table

        df = self.spark.createDataFrame([row], table("identifiable", "run").spark_type())
        tables.append(df, self.zones, "identifiable", "run", txn=self.run_id)

    def quarantine(self, df: "DataFrame", new: str | None = None) -> None:
        """Merge rows (object_id, locator, reason, detail) into quarantine.

        A row seen again keeps its first date and its waiver, and counts one more attempt. ``detail`` must hold no value from the input.
        Where ``new`` names the write, none of the objects was ever known, and the rows are appended, once.
        """
        from pyspark.sql import functions as F

        now = F.lit(utc_now())
        rows = df.select(
            "object_id",
            "locator",
            F.lit(self.name).alias("job"),
            "reason",
            F.col("detail").cast("string").alias("detail"),
            now.alias("first_seen"),
            now.alias("last_seen"),
            F.lit(1).cast("long").alias("attempts"),
            F.lit(None).cast("boolean").alias("retry"),
            F.lit(None).cast("timestamp_ntz").alias("waived_at"),
            F.lit(None).cast("string").alias("waived_by"),
            F.lit(None).cast("string").alias("waived_because"),
            F.lit(self.run_id).alias("run_id"),
        )
        if new is not None:
            tables.append(rows, self.zones, "identifiable", "quarantine", txn=new)
        else:
            tables.merge(rows, self.zones, "identifiable", "quarantine", keep=("first_seen", *WAIVER), add=("attempts",))

    def release(self, object_ids: "DataFrame") -> None:
        """Take objects (column object_id) out of this job's quarantine that are not faulty any more, or not there."""
        held = self.read("identifiable", "quarantine").where(f"job = '{self.name}'").join(object_ids, "object_id", "left_semi")
        if not held.isEmpty():
            tables.remove(held.select("job", "object_id"), self.zones, "identifiable", "quarantine")

    def check_quarantine_limit(self, section: str | None = None) -> None:
        """End with exit code 20 where more than the declared share of what was seen is in quarantine and not waived.

        The share is that of the job's ``section`` of the settings.
        """
        limit = self.config[section or self.name]["quarantine_limit"]
        seen, bad = self.report.counts.get("seen", 0), self.report.counts.get("quarantined", 0)
        if seen and bad / seen > limit:
            held = self.read("identifiable", "quarantine").where(f"job = '{self.name}' AND waived_at IS NOT NULL")
            bad -= held.count()
            if bad / seen <= limit:
                return
            raise QuarantineLimitError(
                f"{self.name}: {bad} of {seen} inputs are in quarantine and not waived, above the limit of {limit:.0%}; "
                "see `pictures quarantine list`, then mend the input, waive what cannot be mended, or raise quarantine_limit"
            )


def run_job(
    name: str,
    config: Config,
    role: str,
    heart: Callable[[Job], None],
    project: str | None = None,
) -> Report:
    """Run a job's heart and close its report, printed and written to the settings' ``reports`` folder.

    Raises
    ------
    PicturesError
        Whatever stopped the job; the report then says ``failed`` and why.
    """
    report = Report(name, versions={"pictures_spark": __version__})
    folder = Path(config.location(config["reports"]))
    job = Job(name, config, Zones(config, role, project), report)
    try:
        heart(job)
        report.balance()
    except PicturesError as error:
        report.finish("failed", folder, str(error))
        raise
    except BaseException as error:
        # The class only: a message from deep inside could quote an input value.
        report.finish("failed", folder, f"unexpected {type(error).__name__}")
        raise
    report.details["seconds"] = round(time.monotonic() - job.clock, 1)
    report.finish("ok", folder)
    print("\n".join(report.lines()), file=sys.stdout, flush=True)
    return report
