"""Report texts to findings, for the job `records`: ``record_report`` in, ``record_report_finding`` out, both in the identifiable zone.

A report is read again where its text or the rules have changed, and only then, so a run that was stopped is made good by the next. Where
neither table nor the rules have changed since the last run, no text is looked at. Texts go to executors in Arrow batches and come back as
words of closed lists; the driver sees counts.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pictures_spark import tables
from pictures_spark.job import Job
from pictures_spark.radiology.findings import findings, nlp_version

if TYPE_CHECKING:
    from pyarrow import RecordBatch

REPORTS, FINDINGS = "record_report", "record_report_finding"
_TOLD = "report_key string, text_hash long, finding string, polarity string, certainty string, subject string"


def read_reports(job: Job) -> None:
    """Bring ``record_report_finding`` up to ``record_report`` and the rules."""
    from pyspark.sql import functions as F

    zone, version = "identifiable", nlp_version()
    if job.already_done(_inputs(job, version)):
        return
    reports = job.read(zone, REPORTS).select("report_key", F.xxhash64("text").alias("text_hash"), "text")
    known = job.read(zone, FINDINGS)
    read = known.where(F.col("nlp_version") == version).select("report_key", "text_hash").distinct()
    new = reports.join(read, ["report_key", "text_hash"], "left_anti")
    told = new.mapInArrow(_findings_of, _TOLD).withColumns({"nlp_version": F.lit(version), "run_id": F.lit(job.run_id)}).persist()
    count = told.select("report_key").distinct().count()
    if count:
        job.say(f"{count:,} reports read")
        if tables.exists(job.spark, job.zones, zone, FINDINGS):
            tables.supersede(told, job.zones, zone, FINDINGS, by=("report_key",))
        else:
            tables.append(told, job.zones, zone, FINDINGS)
        job.report.details["reports_read"] = count
        job.report.details["report_findings"] = told.where("finding IS NOT NULL").count()
    told.unpersist()
    gone = job.read(zone, FINDINGS).join(reports, "report_key", "left_anti")
    if not gone.isEmpty():
        tables.remove(gone.select("report_key", "finding", "subject"), job.zones, zone, FINDINGS)
    job.done(_inputs(job, version))


def _inputs(job: Job, version: str) -> str:
    """Fingerprint of the tables as they are now and the rules."""
    return job.input_fingerprint(rules=version, **{name: job.version("identifiable", name) for name in (REPORTS, FINDINGS)})


def _findings_of(batches: "Iterator[RecordBatch]") -> "Iterator[RecordBatch]":
    import pyarrow as pa

    for batch in batches:
        rows: list[tuple[str, int, str | None, str | None, str | None, str | None]] = []
        for key, text_hash, text in zip(*(batch.column(name).to_pylist() for name in ("report_key", "text_hash", "text")), strict=True):
            told = findings(text)
            rows += [(key, text_hash, *found) for found in told] if told else [(key, text_hash, None, None, None, None)]
        columns = list(zip(*rows, strict=True)) or [()] * 6
        types = (pa.string(), pa.int64(), *[pa.string()] * 4)
        names = [column.split()[0] for column in _TOLD.split(", ")]
        yield pa.RecordBatch.from_arrays([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)
