"""``pictures publish``: from the identifiable zone to the de-identified tables, as one release.

What enters: header, object, pixel, record and crosswalk tables at the Delta versions found at the start. What leaves: the de-identified
tables (TABLES.md), each replaced as a whole, and last one row of ``release`` that pins their versions. A run that is killed on the way
leaves the former release as it was: its versions stay readable, and a reader asks by release.

The order of work: build the frames (`tables_images`, `tables_people`, `tables_reports`), take a census of the strings in them, count by it
what was withheld and why, look in it for identifiers (`tables_check`), and only then write. Executors do the work; the driver sees counts.

Counts: ``seen`` = header instances + record events + reports; ``written`` = rows of image, event and report; the rest is skipped by a named
rule (``skipped_unlinked`` events and reports of people the crosswalk does not know, ``skipped_no_series`` instances without a study or
series UID, ``skipped_vanished`` instances that no readable archive object holds any more). Details: rows per table, and per column how many
rows had a value withheld.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pictures_spark import audit, tables
from pictures_spark.deid import tables_images as from_images
from pictures_spark.deid import tables_people as from_people
from pictures_spark.deid import tables_reports as from_reports
from pictures_spark.deid.tables_check import COUNTED, census, counts, only_pseudonyms, refuse
from pictures_spark.deid.tables_check import findings as leaks
from pictures_spark.errors import InputError
from pictures_spark.job import Job
from pictures_spark.linkage import history
from pictures_spark.report import utc_now
from pictures_spark.schema import table

INPUTS = (
    "header_instance",
    "header_series",
    "object",
    "crosswalk",
    "person_merge",
    "person",
    "person_residence",
    "record_event",
    "record_report",
    "record_report_finding",
    "source_cover",
    "pixel_feature",
    "pixel_text",
)
# Writes at the same time: most of a small Delta write is waiting for its log, and a large one fills the cluster by itself.
_WRITERS = 3
_Result = TypeVar("_Result")


def run(job: Job) -> None:
    """Publish a release, or find that the last one still tells what the inputs, settings and code say.

    Raises
    ------
    InputError
        There is nothing to publish, or the crosswalk is older than what it must link, or of another key.
    ChecksFailedError
        A string that would be published looks like an identifier, or rows were lost on the way; nothing is released.
    """
    versions = dict(zip(INPUTS, _together(lambda name: job.version("identifiable", name), INPUTS), strict=True))
    if versions["header_instance"] is None and versions["record_event"] is None:
        raise InputError("publish: neither headers nor record events are there; run `pictures catalogue` and `pictures records` first")
    key_id = job.config["keys"]["key_id"]
    fingerprint = job.input_fingerprint(**versions, key_id=key_id)
    releases = job.read("deidentified", "release").select("release", "fingerprint", "run_counts", "published").collect()
    last = max(releases, key=lambda row: (row["published"], row["release"]), default=None)
    if last is not None and last["fingerprint"] == fingerprint:
        _unchanged(job, last["release"], json.loads(last["run_counts"]))
        return

    job.say("reading")
    inputs = dict(zip(INPUTS, _together(lambda name: job.read("identifiable", name, versions[name]), INPUTS), strict=True))
    # Links that have ended are for those who look back.
    inputs |= {name: history.current(inputs[name]) for name in ("crosswalk", "person_merge")}
    key = job.key("deidentified")
    people = _settled(from_people.people(inputs))
    commons = _settled(from_images.common_elements(inputs["header_series"]))
    everything = _settled(from_images.safe_images(inputs, commons, key))
    images = everything.where(F.col("skip").isNull())
    studies = _settled(from_images.link_studies(images))
    tags = _settled(from_images.tag(images, commons))
    duplicates = from_images.copies(images, studies, inputs["pixel_feature"])
    series = _settled(from_images.series(images, tags, studies, people, duplicates))
    study_tags = _settled(from_images.study_tag(tags, series, studies))
    events = from_people.event(inputs, people, key)
    linked = events.where(F.col("skip").isNull())
    reports = _settled(from_reports.report(inputs, studies, key))
    linked_reports = reports.where(F.col("skip").isNull())
    findings = _settled(from_reports.report_finding(inputs, linked_reports))
    recorded = linked.select("patient_id").unionByName(linked_reports.select("patient_id"))
    patients = _settled(from_people.patient(people, studies, recorded, inputs["person_merge"]))
    settings = job.config["records"]
    frames = {
        "patient": patients,
        "residence": from_people.residence(inputs, patients, people),
        "source_cover": from_people.source_cover(inputs),
        "study": from_images.study(
            studies, study_tags, series, people, settings["site"], from_reports.study_findings(linked_reports, findings)
        ),
        "series": series,
        "image": from_images.image(images, studies, series),
        "tag": from_images.tag_rows(tags),
        "study_tag": from_images.tag_rows(study_tags, "study_tag"),
        "image_feature": from_images.image_feature(images, inputs["pixel_feature"]),
        "burned_in_text": from_images.burned_in_text(images, inputs["pixel_text"]),
        "event": events,
        "stay": from_people.stay(linked),
        "report": reports.drop("report_key"),
        "report_finding": findings.drop("report_date"),
    }

    job.say("looking for identifiers")
    strings = census({**frames, "header": everything}, [_withheld_tags(tags)])
    counted = counts(strings)
    other_keys = inputs["crosswalk"].where(F.col("patient_id").isNotNull() & (F.col("key_id") != key_id)).limit(1).count()
    if counted.pop("not_linked_yet", 0) or other_keys:
        raise InputError("publish: the crosswalk does not cover these headers and records under this key; run `pictures link` first")
    refuse(leaks(strings, inputs, {settings["site"], *settings["sources"]}))

    job.say("writing")
    frames |= {"event": linked, "report": linked_reports.drop("report_key")}
    release = _next_name(job, [row["release"] for row in releases])
    written = dict(zip(frames, _together(lambda name: _write(job, name, frames[name], release), frames), strict=True))

    rows = {name: count for name, (_, count) in written.items()}
    skipped = {name: n for name, n in sorted(counted.items()) if name.startswith("skipped_")}
    withheld = {name: n for name, n in sorted(counted.items()) if name.startswith("withheld_")}
    job.report.counts = {
        "seen": sum(counted.get(name, 0) for name in ("images", "events", "reports")),
        "written": rows["image"] + rows["event"] + rows["report"],
        **skipped,
    }
    job.report.balance()
    # Contents of instances whose SOP UID was found with other content too: all are published.
    conflicts = counted.get("conflicts", 0)
    job.report.details = {"release": release, **{f"rows_{name}": n for name, n in rows.items()}, "conflicts": conflicts, **withheld}
    job.report.tables = {name: version for name, (version, _) in written.items()}
    _release(job, release, fingerprint, rows, withheld)
    job.report.details["audit"] = str(audit.record(job.zones, "publish", release=release, counts=rows))


def _together(work: Callable[[str], _Result], names: Iterable[str]) -> list[_Result]:
    """Results of ``work`` in the order of ``names``, a few at a time."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        return list(pool.map(work, names))


def _settled(frame: DataFrame) -> DataFrame:
    """The frame, computed now and kept on the executors' disks: what is built on it is planned without what it was built from.

    Without this every later plan would hold the whole way from the headers, and Spark would plan for longer than it works (measured on the
    demo: 4 times as long). A lost executor ends the run; the next one starts afresh, because nothing was written.
    """
    return frame.localCheckpoint(eager=True)


def _unchanged(job: Job, release: str, before: Mapping[str, int]) -> None:
    skipped = {name: n for name, n in before.items() if name.startswith("skipped_")}
    job.report.counts = {"seen": before["seen"], "unchanged": before["written"], **skipped}
    job.report.details = {"release": release}


def _withheld_tags(tags: DataFrame) -> DataFrame:
    """How many images had a value withheld, per tag, as entries of the census."""
    names = F.concat(F.lit("withheld_tag."), F.col("keyword"))
    rows = tags.groupBy(names.alias("value")).agg(F.sum("n_withheld").alias("n"))
    return rows.select(F.lit("tag").alias("table"), F.lit(COUNTED).alias("column"), "value", "n")


def _next_name(job: Job, names: list[str]) -> str:
    prefix = job.config["publish"]["release"]
    numbers = [int(end) for start, _, end in (name.rpartition("-") for name in names) if start == prefix and end.isdigit()]
    return f"{prefix}-{max(numbers, default=0) + 1:04d}"


def _write(job: Job, name: str, frame: DataFrame, release: str) -> tuple[int, int]:
    """Replace a table; its new version and how many rows went in."""
    declared = table("deidentified", name)
    stamped = frame.drop("counted", "skip").withColumns({"release": F.lit(release), "run_id": F.lit(job.run_id)})
    tables.replace(only_pseudonyms(stamped, declared), job.zones, "deidentified", name)
    return tables.last_write(job.spark, job.zones, "deidentified", name)


def _release(job: Job, release: str, fingerprint: str, rows: Mapping[str, int], withheld: Mapping[str, int]) -> None:
    row = (
        fingerprint,
        utc_now(),
        json.dumps(job.report.tables, sort_keys=True),
        json.dumps(dict(rows), sort_keys=True),
        json.dumps({**job.report.counts, **withheld}, sort_keys=True),
        job.config["keys"]["key_id"],
        release,
        job.run_id,
    )
    df = job.spark.createDataFrame([row], table("deidentified", "release").spark_type())
    tables.append(df, job.zones, "deidentified", "release", txn=job.run_id)
