"""``pictures extract <cohort> --project <name>``: deliver a frozen cohort, de-identified, to a project private zone.

What enters: the newest freeze of a cohort, the de-identified tables at the versions of its release, the archive and the identifiable
tables. What leaves: one folder, ``<projects>/<project>/<cohort>/`` (docs of `pictures_spark.delivery.package`). The driver plans and writes
tables and papers; executors read, de-identify, check and write the images.

The delivery is made beside the one that may be there and takes its place at the end, so an analyst never sees half of one. A run that was
killed goes on where it was. The same freeze, policy and key make the same bytes, and images that are already there are not written again.
"""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from pictures_spark import __version__, audit, tables
from pictures_spark.cohort.members import frozen
from pictures_spark.deid.plan import load_plan
from pictures_spark.delivery import package
from pictures_spark.delivery.records import events_of, patients_of
from pictures_spark.delivery.select import images_of, located
from pictures_spark.delivery.write import RESULT_TYPE, Task, writer
from pictures_spark.errors import ConfigError
from pictures_spark.job import Job
from pictures_spark.keys import pseudonym

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

POLICY = "default"
_COHORT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_INPUTS = ("object", "header_instance", "pixel_text", "crosswalk", "person")
_BYTES_PER_PARTITION = 256 << 20


def run(job: Job, cohort_id: str) -> None:
    """Make or renew the delivery of a cohort. The heart of job ``extract``, under role extractor.

    counts: seen = images of the members; written and unchanged = files delivered; skipped_<reason> = withheld, as the manifest says.

    Raises
    ------
    ConfigError
        The cohort's name is not a plain one, or it was never frozen.
    ChecksFailedError
        A table of the delivery holds what its schema does not allow; nothing is delivered.
    """
    if not _COHORT_ID.fullmatch(cohort_id):
        raise ConfigError("a cohort is named by its id: lower-case letters, digits, - and _, starting with a letter or digit")
    freeze, members = frozen(job, cohort_id)
    plan = load_plan(POLICY)
    project = job.key(f"project:{job.zones.project}")
    versions = {name: job.version("identifiable", name) for name in _INPUTS}
    fingerprint = job.input_fingerprint(
        freeze=freeze["cohort_run_id"], policy=plan.fingerprint, key_id=project.key_id, project=job.zones.project, **versions
    )
    delivery = job.zones.path("project", cohort_id, mode="write")
    about = package.read_about(delivery)
    if about is not None and about.get("fingerprint") == fingerprint and package.is_whole(delivery):
        job.say(f"delivery {cohort_id} is there already, and whole")
        _report(job, about, written=0)
        return

    work = job.zones.path("project", ".staging", cohort_id, mode="write")
    staging, journal = work / fingerprint[:16], work / f"{fingerprint[:16]}.journal"
    for folder in (staging, journal):
        folder.mkdir(parents=True, exist_ok=True)
    task = Task(
        archive=job.zones.archive(),
        staging=str(staging),
        journal=str(journal),
        former=str(delivery),
        key=project,
        shift_limit=job.config["extract"]["date_shift_days"],
        policy=POLICY,
    )
    pinned = json.loads(freeze["manifest"])["table_versions"]

    def released(name: str) -> "DataFrame":
        return job.read("deidentified", name, pinned.get(name))

    job.say("choosing the images")
    images = images_of(released("image"), members, freeze["unit"]).persist()
    job.say("writing the images")
    results = _write_images(job, images, task)
    written = sum(results["fresh"].to_pylist())
    manifest = _checked(job, results.drop_columns("fresh"), "image_manifest")
    job.say("writing the records")
    people = members.select("patient_id").unionByName(images.select("patient_id")).where("patient_id IS NOT NULL").distinct().persist()
    shift = task.shift_limit
    events = tables.fetch(events_of(released("event"), people, project, shift), "project", "event")
    patients = tables.fetch(patients_of(released("patient"), people, project, shift), "project", "patient")
    package.write_table(manifest, staging, package.MANIFEST, "image_uid")
    package.write_table(events, staging, package.EVENTS, "event_id")
    package.write_table(patients, staging, package.PATIENTS, "patient_id")
    withheld = package.withheld_reasons(manifest)
    about = {
        "format": 1,
        "delivery": cohort_id,
        "project": job.zones.project,
        "fingerprint": fingerprint,
        # A name of the freeze that no other project's delivery has.
        "freeze": pseudonym(project.bytes(), "freeze", freeze["cohort_run_id"]),
        "policy": plan.name,
        "key_id": project.key_id,
        "pictures_spark": __version__,
        "images": manifest.num_rows - sum(withheld.values()),
        "withheld": withheld,
        "events": events.num_rows,
        "patients": patients.num_rows,
    }
    package.write_papers(staging, about, manifest, events.num_rows, patients.num_rows)
    head = audit.record(
        job.zones,
        "extract",
        project=job.zones.project,
        cohort=cohort_id,
        cohort_run_id=freeze["cohort_run_id"],
        policy=plan.name,
        counts={name: about[name] for name in ("images", "events", "patients")},
    )
    job.report.details["audit"] = str(head)
    _take_its_place(staging, delivery, work)
    images.unpersist()
    people.unpersist()
    _report(job, about, written)


def _write_images(job: Job, images: "DataFrame", task: Task) -> "pa.Table":
    """Write every image and bring the manifest rows (no content) to the driver."""
    rows = located(job, images).persist()
    total = rows.agg(F.sum("size")).first()
    size = int(total[0] or 0) if total is not None else 0
    # Work is split by bytes, into at least as many parts as there are cores.
    parts = max(job.spark.sparkContext.defaultParallelism, size // _BYTES_PER_PARTITION + 1)
    # Images of a series come one after the other: what they share is de-identified once.
    placed = rows.repartition(parts, "image_id").sortWithinPartitions("series_id", "image_id")
    results = placed.mapInArrow(writer(task), RESULT_TYPE).toArrow()
    rows.unpersist()
    return results


def _checked(job: Job, rows: "pa.Table", name: str) -> "pa.Table":
    """Rows that were made on executors, checked against the schema like any other table."""
    return tables.fetch(job.spark.createDataFrame(rows), "project", name)


def _take_its_place(staging: Path, delivery: Path, work: Path) -> None:
    """Put the finished delivery where the former one was. Killed in between, the next run finds the files and finishes."""
    former = work / "former"
    shutil.rmtree(former, ignore_errors=True)
    _remove_unlisted(staging)
    if delivery.exists():
        delivery.rename(former)
    staging.rename(delivery)
    shutil.rmtree(work)
    if not any(work.parent.iterdir()):
        work.parent.rmdir()


def _remove_unlisted(staging: Path) -> None:
    """Remove what a killed run left behind: files that the checksums do not list."""
    listed = {line.split("  ", 1)[1] for line in (staging / package.SUMS).read_text(encoding="utf-8").splitlines()}
    for path in staging.rglob("*"):
        if path.is_file() and str(path.relative_to(staging)) not in listed | {package.SUMS}:
            path.unlink()


def _report(job: Job, about: dict[str, Any], written: int) -> None:
    withheld = {f"skipped_{reason}": count for reason, count in about["withheld"].items()}
    job.report.counts = {
        "seen": about["images"] + sum(withheld.values()),
        "written": written,
        "unchanged": about["images"] - written,
        **withheld,
    }
    job.report.details |= {name: about[name] for name in ("delivery", "project", "patients", "events")}
