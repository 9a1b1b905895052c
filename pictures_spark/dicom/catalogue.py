"""The catalogue job: every object of the archive to `object`, every header to `header_*` and MongoDB, whatever is broken to quarantine.

Identifiable zone. The driver lists the archive and keeps the plan; executors open the files, and only they read them. What is new or
changed by size and by etag or modification time is planned durably, then read in batches of about ``batch_bytes``. Within a batch the
tables are written by key, each write doing nothing where it was done before, and `object` last: its rows say that the batch is done. So a
run that was killed anywhere is finished by the next one, under its own run id, to the same tables. A file's own row comes from its plan
row, and the two are counted against each other.

What a batch writes is a shelf: a number that its rows bear and that file statistics know. A batch opens those files of a table only whose
shelves may hold what it has: for objects the plan says so, for headers the table header_span does.
"""

import gc
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pictures_spark import tables
from pictures_spark.config import Config
from pictures_spark.dicom import mongodb as documents
from pictures_spark.dicom import parity, storing
from pictures_spark.dicom.imported import IS_IMPORTED
from pictures_spark.dicom.inventory import Found, check_root, chunks, is_there, list_archive, locator, read_files
from pictures_spark.dicom.planning import batches, cost, latest_speed, path_of, planning, stretches
from pictures_spark.dicom.readings import Reading, Readings, evenness, timed
from pictures_spark.dicom.shelves import Shelves, Span, covering
from pictures_spark.dicom.storing import SERIES, Storing
from pictures_spark.dicom.structures import Header, Headers
from pictures_spark.errors import ChecksFailedError, InputError
from pictures_spark.job import WAIVER, Job
from pictures_spark.keys import KeyRef, fingerprint, pseudonym
from pictures_spark.mongo import mongodb
from pictures_spark.report import Report, aligned, utc_now
from pictures_spark.resources import load_schema
from pictures_spark.roots import Listed, Root
from pictures_spark.schema import table
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame, Row
    from pyspark.sql.types import StructType

_ZONE = "identifiable"
_LISTING = "path string, file_size bigint, file_mtime_ns bigint, file_etag string"
# Rows of one Arrow batch from a worker: a header's own part of 1 KB each makes them a few MB.
_ROWS = 4096


def run(job: Job, limit: int | None = None) -> None:
    """Catalogue the archive of ``job``.

    Parameters
    ----------
    limit : files that this run plans at most; the next run plans the rest.

    Raises
    ------
    InputError
        The archive is not there, or is empty though objects of it are known, or its storage fails while it is read; MongoDB does not take
        the documents.
    NotPermittedError
        The key is missing, too open, or damaged.
    ChecksFailedError
        Rows do not add up to the plan, or documents to instances.
    QuarantineLimitError
        More than ``quarantine_limit`` of the objects are in quarantine.
    """
    root = _archive(job)
    # Executors read the key themselves; that it is there is found out before anything is planned.
    job.key("object").bytes()
    with ExitStack() as stack:
        catalogue = Catalogue(job, root, stack)
        for run_id in catalogue.unfinished():
            job.say(f"going on with run {run_id}, which did not finish")
            catalogue.execute(run_id, resumed=True)
        listing = list_archive(root)
        job.say(f"{len(listing):,} files listed")
        if catalogue.plan(listing, limit):
            catalogue.execute(job.run_id)
        if catalogue.runs:
            catalogue.follow_moved_contents()
            catalogue.check_documents()
        catalogue.report(listing)
        inputs = fingerprint("catalogue", *("|".join(map(str, listed)) for listed in listing))
        for run_id in catalogue.runs:
            _under(job, run_id).done(inputs)
    job.check_quarantine_limit()


def preview(job: Job, limit: int | None = None) -> list[tuple[str, str]]:
    """What `run` would do, as (what, how much); nothing is written.

    Raises
    ------
    InputError
        As `run`.
    """
    root = _archive(job)
    with ExitStack() as stack:
        catalogue = Catalogue(job, root, stack)
        left = catalogue.unfinished()
        listing = list_archive(root)
        changes = catalogue.changes(listing)
    planned, later = within_limit(changes, limit)
    sizes = _sizes(planned)
    numbers = batches(sizes, job.config["catalogue"]["batch_bytes"])
    lines = [("files listed", f"{len(listing):,}")]
    if left:
        lines.append(("runs to go on with first", f"{len(left):,}"))
    for change in ("new", "changed", "retry", "vanished"):
        lines.append((f"files {change}", f"{sum(row['change'] == change for row in planned):,}"))
    lines += [("left for the next run", f"{len(later):,}"), ("bytes", f"{sum(sizes):,}")]
    lines.append(("batches", f"{len(set(numbers)):,}"))
    speed, source = _speed(job)
    costs = sum(cost(row["file_size"]) for row in planned if row["change"] != "vanished")
    return [*lines, ("minutes", f"{costs / speed / 60:,.1f}"), ("minutes are reckoned from", source)]


def print_preview(config: Config, limit: int | None = None) -> None:
    """Print what a run on these settings would do."""
    job = Job("catalogue", config, Zones(config, "identifiable"), Report("catalogue"))
    print("\n".join(["catalogue: dry run, nothing is written", *aligned(preview(job, limit))]))


def _speed(job: Job) -> tuple[float, str]:
    """Costs in a second, and what says so: an earlier run, or an assumption."""
    told = latest_speed(Path(job.config.location(job.config["reports"])), job.name)
    if told:
        return told[0], f"run {told[1]}"
    assumed = planning()["assumed_bytes_per_core_second"]
    cores = job.spark.sparkContext.defaultParallelism
    return assumed * cores, f"an assumed {assumed / 1e6:,.0f} MB/s for each of {cores} cores"


def _archive(job: Job) -> Root:
    root = job.zones.archive()
    check_root(root)
    return root


@dataclass
class Catalogue:
    """One invocation of the job: its archive, its MongoDB (started at first need), and the runs it has worked on.

    Attributes
    ----------
    replaced : whether the runs have met files that are not what or where they were.
    shared : shelves that held contents which the runs have met again; None where that is not known of all batches.
    left : new files that the limit leaves for the next run.
    hidden : known files in folders that could not be listed.
    readings : what each task of the reading stage took, by shelf and task.
    seconds, costs : time that the batches took, and what they had to read.
    """

    job: Job
    root: Root
    stack: ExitStack
    runs: list[str] = field(default_factory=list)
    replaced: bool = False
    round_trips: int = 0
    files_fetched: int = 0
    shared: set[int] | None = field(default_factory=set)
    left: int = 0
    hidden: int = 0
    readings: dict[tuple[int, int], Reading] = field(default_factory=dict)
    seconds: float = 0
    costs: int = 0

    @cached_property
    def uri(self) -> str:
        """The header store, until the stack closes."""
        return self.stack.enter_context(mongodb(self.job.config, self.job.zones))

    @cached_property
    def shelves(self) -> dict[str, Shelves]:
        """By kind of UID, which shelves may hold it."""
        rows = self.job.read(_ZONE, "header_span").select("kind", "shelf", "first_uid", "last_uid").collect()
        return {kind: Shelves((row.shelf, row.first_uid, row.last_uid) for row in rows if row.kind == kind) for kind in ("sop", "series")}

    def unfinished(self) -> list[str]:
        """Runs that have a plan but did not finish; there is more than one only where someone wrote the table by hand."""
        plans = self.job.read(_ZONE, "catalogue_plan").select("run_id").distinct()
        left = plans.join(self.job.read(_ZONE, "run").select("run_id"), "run_id", "left_anti")
        return sorted(row.run_id for row in left.collect())

    def changes(self, listing: list[Listed]) -> list[dict[str, Any]]:
        """Files whose state is not that of `object`, in the order of their paths, those that have vanished last.

        The listing is compared with the files' own rows in `object`, which hold the size, etag and modification time of their last
        reading. Where both have an etag, it decides; else the modification time. What is known below a folder that could not be listed has
        not vanished: nobody looked.

        Raises
        ------
        InputError
            Nothing is listed, though objects are known.
        """
        from pyspark.sql import functions as F

        known = self.job.read(_ZONE, "object").where("member IS NULL AND status <> 'imported'")
        known = known.select("path", F.struct("file_size", "file_mtime_ns", "file_etag", "status", "shelf").alias("old"))
        listed = _frame(self.job, listing).withColumn("listed", F.lit(True))
        held = self.job.read(_ZONE, "quarantine").where("job = 'catalogue' AND retry")
        asked = sorted({path_of(row.locator) for row in held.select("locator").collect()})
        again = _frame(self.job, [(path,) for path in asked], "path string").withColumn("asked", F.lit(True))
        gone = F.col("old.status") == "vanished"
        same_version = F.coalesce(F.col("file_etag") == F.col("old.file_etag"), F.col("file_mtime_ns") == F.col("old.file_mtime_ns"))
        same = (F.col("file_size") == F.col("old.file_size")) & same_version & ~gone
        change = (
            F.when(F.col("listed").isNull(), F.when(~gone, "vanished"))
            .when(F.col("old").isNull(), "new")
            .when(~same, "changed")
            .when(F.col("asked"), "retry")
        )
        marks = [F.coalesce(name, f"old.{name}").alias(name) for name in ("file_size", "file_mtime_ns", "file_etag")]
        compared = listed.join(known, "path", "full_outer").join(again, "path", "left")
        compared = compared.select("path", *marks, change.alias("change"), F.col("old.shelf").alias("object_shelf"))
        changes = [row.asDict() for row in compared.where("change IS NOT NULL").collect()]
        if not listing and changes:
            raise InputError("the archive is empty, but its objects are known: see that it is mounted; nothing was changed")
        unlisted = tuple(f"{path}/" if path else "" for path, size, mtime, _ in listing if (size, mtime) == (0, 0))
        seen = [row for row in changes if not (row["change"] == "vanished" and row["path"].startswith(unlisted))]
        self.hidden = len(changes) - len(seen)
        return sorted(seen, key=lambda row: (row["change"] == "vanished", row["path"]))

    def plan(self, listing: list[Listed], limit: int | None = None) -> bool:
        """Write the plan of this run before any of its work; False where there is nothing to do."""
        from pyspark.sql import functions as F

        changes, later = within_limit(self.changes(listing), limit)
        self.left = sum(row["change"] == "new" for row in later)
        if not changes:
            return False
        numbers = batches(_sizes(changes), self.job.config["catalogue"]["batch_bytes"])
        (last,) = self.job.read(_ZONE, "catalogue_plan").agg(F.max("shelf").alias("shelf")).collect()
        first = 0 if last.shelf is None else last.shelf + 1
        run_id = self.job.run_id
        rows = [{**row, "batch": n, "shelf": first + n, "run_id": run_id} for row, n in zip(changes, numbers, strict=True)]
        declared = table(_ZONE, "catalogue_plan").spark_type()
        frame = self.job.spark.createDataFrame(_arrow(rows, declared), declared)
        tables.append(frame, self.job.zones, _ZONE, "catalogue_plan", txn=run_id)
        return True

    def execute(self, run_id: str, resumed: bool = False) -> None:
        """Work through the plan of a run, batch by batch; batches of a resumed run whose rows are there are left out.

        Raises
        ------
        InputError
            The storage of the archive fails.
        ChecksFailedError
            A batch did not write what was planned.
        """
        from pyspark.sql import functions as F

        self.runs.append(run_id)
        plan = self.job.read(_ZONE, "catalogue_plan").where(f"run_id = '{run_id}'")
        groups = plan.groupBy("batch").agg(F.count("*").alias("files"), F.sum("file_size").alias("size")).orderBy("batch").collect()
        for group in groups:
            rows = plan.where(F.col("batch") == group.batch).orderBy("path").collect()
            self.replaced |= any(row.change != "new" for row in rows)
            batch = Batch(self, run_id, rows, resumed)
            if resumed and batch.is_written():
                # What it shared with earlier shelves was known to the run that was stopped.
                self.shared = None
                continue
            self.job.say(f"batch {group.batch + 1} of {len(groups)}: {group.files:,} files, {group.size:,} bytes")
            begun = time.monotonic()
            batch.work()
            self.seconds += time.monotonic() - begun
            self.costs += sum(cost(row.file_size) for row in batch.planned)
            if not batch.is_written():
                raise ChecksFailedError(f"catalogue: batch {group.batch} of run {run_id} has not one row in `object` for each planned file")

    @cached_property
    def has_imports(self) -> bool:
        """Whether rows were made of MongoDB documents of others, before this invocation."""
        return not self.job.read(_ZONE, "object").where("status = 'imported'").isEmpty()

    def supersede_imports(self, found: "DataFrame") -> None:
        """Take away what documents said of objects and instances that are now read from their files, before these are written."""
        if not self.has_imports:
            return
        instances = self.job.read(_ZONE, "header_instance").where(IS_IMPORTED)
        instances = instances.join(found.select("header.sop_uid"), "sop_uid", "left_semi").select("sop_uid", "content_sha256")
        objects = self.job.read(_ZONE, "object").where("status = 'imported'").join(found, "object_id", "left_semi").select("object_id")
        for rows, name in ((instances, "header_instance"), (objects, "object")):
            if not rows.isEmpty():
                tables.remove(rows, self.job.zones, _ZONE, name)

    def follow_moved_contents(self) -> None:
        """Point instances whose object is gone to the first other object that holds the same content, where there is one.

        An instance can have lost its object, or found another one, only where these runs have met a file that is not what or where it was,
        or a content that was known.
        """
        from pyspark.sql import functions as F

        objects = self.job.read(_ZONE, "object")
        instances = self.job.read(_ZONE, "header_instance")
        if not self.replaced and self.shared is not None and not self.shared:
            return
        if self.shared is not None:
            touched = objects.where(F.col("run_id").isin(self.runs)).select("shelf").distinct().collect() if self.replaced else []
            instances = instances.where(tables.within("object_shelf", [row.shelf for row in touched]) | tables.within("shelf", self.shared))
        held = objects.where("kind = 'dicom' AND status = 'catalogued'")
        held = held.select("object_id", "locator", "shelf", F.col("sha256").alias("content_sha256"))
        near = held
        if self.shared is not None:
            places = instances.select("object_shelf").distinct().collect()
            near = held.where(tables.within("shelf", [row.object_shelf for row in places if row.object_shelf is not None]))
        lost = instances.join(near, ["object_id", "content_sha256"], "left_anti").persist()
        try:
            if lost.isEmpty():
                return
            # Few contents are looked for in all of `object`: one scan of a few columns, without a shuffle of its rows.
            wanted = F.broadcast(lost.select("content_sha256").distinct())
            held = held.join(wanted, "content_sha256", "left_semi")
            others = held.groupBy("content_sha256").agg(F.min_by(F.struct("object_id", "shelf"), "locator").alias("other"))
            moved = lost.join(others, "content_sha256")
            moved = moved.withColumns({"object_id": F.col("other.object_id"), "object_shelf": F.col("other.shelf")}).drop("other")
            moved = moved.withColumn("run_id", F.lit(self.runs[-1])).persist()
            shelves = [row.shelf for row in moved.select("shelf").distinct().collect()]
            if shelves:
                # Documents first: once the table says where the content is, nobody would look for documents that say otherwise.
                self.write_documents(moved)
                tables.merge(moved, self.job.zones, _ZONE, "header_instance", shelves=shelves)
            moved.unpersist()
        finally:
            lost.unpersist()

    def write_documents(
        self,
        instances: "DataFrame",
        locators: "DataFrame | None" = None,
        shelves: tuple[list[int], list[int]] | None = None,
    ) -> None:
        """Write the documents of instances to MongoDB; ``locators`` (object_id, locator, size) come before those of `object`.

        ``shelves`` are those of their other objects, and of their templates; all where not given.
        """
        rows = parity.instance_rows(self.job, instances, locators, known=self.has_imports, shelves=shelves)
        documents.write(documents.documents(rows), self.uri, self.job.config["mongodb"]["database"])

    def check_documents(self) -> None:
        """Write the documents of series that the runs have touched; make sure that MongoDB has one for every instance and series.

        Where the numbers differ, MongoDB has lost documents or has others': it is made anew from Delta, which holds everything.

        Raises
        ------
        ChecksFailedError
            The numbers differ even then.
        """
        from pyspark.sql import functions as F

        instances = self.job.read(_ZONE, "header_instance")
        touched = instances.where(F.col("run_id").isin(self.runs)).select("series_uid")
        database: str = self.job.config["mongodb"]["database"]
        # Once a run and not a batch: a series may lie in many batches, and its document is made of all of it.
        documents.write(documents.documents(parity.series_rows(self.job, touched)), self.uri, database)
        with_document = instances.where("document_id IS NOT NULL")
        (wanted,) = with_document.agg(F.count("*").alias("images"), F.count_distinct("series_uid").alias("series")).collect()

        def there(exact: bool) -> tuple[int, int]:
            found = documents.counts(self.uri, database, exact)
            series = found.pop(documents.SERIES_COLLECTION, 0)
            return sum(found.values()), series

        # MongoDB's own count may be off after it was killed; counting one by one reads a whole index.
        if there(exact=False) != tuple(wanted) and there(exact=True) != tuple(wanted):
            self.job.say("MongoDB does not have a document for every instance and series: making it equal to Delta again")
            parity.restore(self.job, self.uri)
            if there(exact=True) != tuple(wanted):
                raise ChecksFailedError(
                    f"{self.job.name}: MongoDB has not one document for each instance and series; see `pictures mongo verify`"
                )
        self.job.report.details |= {"mongodb_documents": wanted.images, "mongodb_series": wanted.series}

    def report(self, listing: list[Listed]) -> None:
        """Count over leaf objects: files that are no container, and members. ``seen`` starts from the listing, the rest from `object`."""
        from pyspark.sql import functions as F

        objects = self.job.read(_ZONE, "object").where("status NOT IN ('vanished', 'imported')")
        groups = objects.groupBy(
            F.col("member").isNotNull().alias("member"),
            "kind",
            "status",
            "reason",
            F.col("run_id").isin(self.runs).alias("now"),
        )
        counts: dict[str, int] = dict.fromkeys(("seen", "written", "unchanged", "quarantined", "skipped_dicomdir", "skipped_no_file"), 0)
        counts["seen"] = len(listing) + self.hidden
        if self.left:
            counts["skipped_over_limit"] = self.left
        reasons: dict[str, int] = {}
        members = containers = 0
        for row in groups.agg(F.count("*").alias("n")).collect():
            members += row.n if row.member else 0
            match row.status:
                case "container":
                    containers += row.n
                case "catalogued":
                    counts["written" if row.now else "unchanged"] += row.n
                case "quarantined":
                    counts["quarantined"] += row.n
                    reasons[row.reason] = reasons.get(row.reason, 0) + row.n
                case _:
                    counts["skipped_dicomdir" if row.kind == "dicomdir" else "skipped_no_file"] += row.n
        counts["seen"] += members - containers
        report = self.job.report
        report.counts, report.quarantined = counts, reasons
        report.details |= {"files": len(listing), "containers": containers, "members": members}
        if self.files_fetched:
            report.details["round_trips"] = self.round_trips
            report.rates["round_trips_per_file"] = round(self.round_trips / self.files_fetched, 2)
        if self.hidden:
            report.details["files_in_folders_not_listed"] = self.hidden
        if reasons:
            waived = self.job.read(_ZONE, "quarantine").where("job = 'catalogue' AND waived_at IS NOT NULL")
            report.details["waived"] = waived.count()
        report.details |= evenness(self.readings.values())
        if self.costs:
            report.rates["cost_bytes_per_second"] = round(self.costs / max(self.seconds, 0.001), 1)
        if self.runs:
            instances = self.job.read(_ZONE, "header_instance")
            (row,) = instances.agg(
                F.count("*").alias("instances"),
                F.count_if("conflict").alias("conflicts"),
                F.count_if(F.col("document_id").isNull()).alias("too_large"),
            ).collect()
            catalogued = objects.where("status = 'catalogued'")
            (held,) = catalogued.agg((F.count("*") - F.count_distinct("sha256")).alias("duplicates")).collect()
            report.details |= {"instances": row.instances, "conflicts": row.conflicts, "duplicates": held.duplicates}
            report.details["mongodb_too_large"] = row.too_large
            written = ("object", "header_series", "header_instance", "quarantine")
            report.tables |= {name: self.job.version(_ZONE, name) for name in written}


@dataclass
class Batch:
    """One batch of a plan: its files are read by executors once, then written table by table; files that are gone are marked as such."""

    catalogue: Catalogue
    run_id: str
    rows: "list[Row]"
    resumed: bool

    @cached_property
    def planned(self) -> "list[Row]":
        """Files to read."""
        return [row for row in self.rows if row.change != "vanished"]

    @cached_property
    def gone(self) -> "list[Row]":
        """Files that are not there any more."""
        return [row for row in self.rows if row.change == "vanished"]

    @property
    def shelf(self) -> int:
        """The number under which this batch writes what was not known."""
        return int(self.rows[0].shelf)

    @property
    def unknown(self) -> bool:
        """Whether no file of it was ever known."""
        return all(row.change == "new" for row in self.rows)

    @property
    def txn(self) -> str:
        """Name of its writes."""
        return f"{self.run_id}-{self.rows[0].batch}"

    @cached_property
    def places(self) -> dict[str, int]:
        """Shelf of the objects of each file."""
        return {row.path: self.shelf if row.object_shelf is None else row.object_shelf for row in self.rows}

    def is_written(self) -> bool:
        """Whether each file has its own row from this run: the last thing a batch writes."""
        rows = self._objects().where(f"member IS NULL AND run_id = '{self.run_id}'")
        return rows.join(self._paths(), "path", "left_semi").count() == len(self.rows)

    def work(self) -> None:
        """Read the files and write what they hold; doing it again adds nothing.

        Raises
        ------
        InputError
            The storage of the archive fails; nothing of the batch is written then.
        """
        from pyspark import StorageLevel

        # Kept on disk, so that each file is read once though several tables are written from it.
        read = self._read().persist(StorageLevel.DISK_ONLY)
        try:
            if self.planned:
                self._check_storage(read)
            found = self._placed(read)
            if self.planned:
                self.catalogue.supersede_imports(found)
                self._write_headers(found.where("status = 'catalogued'"))
                self._quarantine(found)
            self._write_objects(found)
            if self.catalogue.root.scheme != "file":
                self._count_round_trips(found)
        finally:
            read.unpersist()

    def _objects(self) -> "DataFrame":
        """Rows of `object` that lie where those of the batch's files do."""
        return self.catalogue.job.read(_ZONE, "object").where(tables.within("shelf", set(self.places.values())))

    def _count_round_trips(self, found: "DataFrame") -> None:
        from pyspark.sql import functions as F

        (row,) = found.agg(F.sum("round_trips").alias("trips"), F.count("round_trips").alias("files")).collect()
        self.catalogue.round_trips += row.trips or 0
        self.catalogue.files_fetched += row.files

    def _paths(self) -> "DataFrame":
        return _frame(self.catalogue.job, [(row.path,) for row in self.rows], "path string")

    def _read(self) -> "DataFrame":
        """One row per object in the files of the batch. Runs on executors, in slices of equal cost."""
        job = self.catalogue.job
        cores = job.spark.sparkContext.defaultParallelism
        parts = max(1, min(len(self.planned), planning()["slices_per_core"] * cores))
        slices = stretches([row.file_size for row in self.planned], parts)
        rows = [(row.path, row.file_size, row.file_mtime_ns, row.file_etag, part) for row, part in zip(self.planned, slices, strict=True)]
        plan = _frame(job, rows, f"{_LISTING}, part int")
        reader = _reader(self.catalogue.root, job.key("object"), job.config["catalogue"]["max_header_bytes"])
        readings = job.spark.sparkContext.accumulator({}, Readings())
        self._readings = readings
        return plan.repartitionById(parts, "part").mapInArrow(timed(reader, self.shelf, readings), _found_type())

    def _check_storage(self, read: "DataFrame") -> None:
        """Stop where so many files of a task fail for a reason of the storage that the archive is not to blame."""
        from pyspark.sql import functions as F

        settings = self.catalogue.job.config["catalogue"]
        storage = [code for code, reason in load_schema("quarantine_reasons.yaml")["catalogue"].items() if reason["storage"]]
        tasks = read.where("member IS NULL").groupBy(F.spark_partition_id().alias("task"))
        told = tasks.agg(F.count("*").alias("files"), F.count_if(F.col("reason").isin(storage)).alias("failed")).collect()
        self.catalogue.readings |= self._readings.value
        worst = max((row.failed / row.files for row in told if row.files >= settings["io_failure_minimum"]), default=0.0)
        away = any(row.failed for row in told) and not is_there(self.catalogue.root)
        if worst > settings["io_failure_limit"] or away:
            failed, files = sum(row.failed for row in told), sum(row.files for row in told)
            raise InputError(
                f"catalogue: {failed:,} of {files:,} files of a batch cannot be read: is the mount there? "
                "Nothing of the batch was written; the same command goes on once it is"
            )

    def _placed(self, read: "DataFrame") -> "DataFrame":
        """The objects with the shelf of their file."""
        from pyspark.sql import functions as F

        if self.unknown:
            return read.withColumn("shelf", F.lit(self.shelf).cast("long"))
        places = _frame(self.catalogue.job, sorted(self.places.items()), "path string, shelf bigint")
        return read.join(F.broadcast(places), "path")

    def _quarantine(self, found: "DataFrame") -> None:
        """Faulty objects to quarantine; a waiver was for the object as it was."""
        from pyspark.sql import functions as F

        job = self.catalogue.job
        changed = [(row.path,) for row in self.planned if row.change == "changed"]
        if changed:
            waived = job.read(_ZONE, "quarantine").where("waived_at IS NOT NULL")
            ids = found.join(_frame(job, changed, "path string"), "path", "left_semi").select("object_id")
            other = waived.join(ids, "object_id", "left_semi")
            if not other.isEmpty():
                declared = table(_ZONE, "quarantine")
                none = {name: F.lit(None).cast(declared.by_name[name].type) for name in WAIVER}
                tables.merge(other.withColumns(none), job.zones, _ZONE, "quarantine")
        faulty = found.where("status = 'quarantined'")
        if not faulty.isEmpty():
            _under(job, self.run_id).quarantine(faulty, new=self.txn if self.unknown and not self.resumed else None)

    def _write_headers(self, found: "DataFrame") -> None:
        """New contents to header_series, then header_instance; conflicts flagged on old ones too; documents to MongoDB."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        job = self.catalogue.job
        keys = ["sop_uid", "content_sha256"]
        of_series = found.groupBy(F.col("header.series_uid").alias("series"))
        ranges = of_series.agg(F.min("header.sop_uid").alias("first"), F.max("header.sop_uid").alias("last")).collect()
        if not ranges:
            return
        sops, series = covering((row.first, row.last) for row in ranges), covering((row.series, row.series) for row in ranges)
        shelves = self.catalogue.shelves
        near = shelves["sop"].find(sops)
        known = job.read(_ZONE, "header_instance").where(tables.within("shelf", near))
        all_headers = found.select(
            "object_id", "locator", "size", F.col("shelf").alias("object_shelf"), F.col("sha256").alias("content_sha256"), "header.*"
        )
        # The first object of each content, by locator, whatever the partitions.
        firsts = all_headers.groupBy(*keys).agg(F.min_by(F.struct("*"), "locator").alias("first")).select("first.*")
        by_uid = Window.partitionBy("sop_uid")
        other_content = known.select("sop_uid").distinct().withColumn("known", F.lit(True))
        later = F.col("known").isNotNull() | (F.row_number().over(by_uid.orderBy("locator")) > 1)
        further = F.concat_ws("#", "sop_uid", F.substring("content_sha256", 1, 16))
        new = (
            firsts.join(known.select(*keys), keys, "left_anti")
            .join(other_content, "sop_uid", "left")
            .withColumn("conflict", F.col("known").isNotNull() | (F.count("*").over(by_uid) > 1))
            .withColumn("document_id", F.when(F.col("document_fits"), F.when(later, further).otherwise(F.col("sop_uid"))))
            .withColumns({"shelf": F.lit(self.shelf).cast("long"), "run_id": F.lit(self.run_id)})
        )
        of_base = [F.col(f"header.{name}") for name in ("base_id", *SERIES)]
        bases = found.where("header.base IS NOT NULL").groupBy(*of_base).agg(F.min("header.base").alias("base"))
        both = new.drop("base").unionByName(bases, allowMissingColumns=True)
        split_type = storing.split_type()
        parts = both.groupBy(*SERIES).applyInArrow(storing.split_series(split_type.fieldNames()), split_type)
        parts = parts.persist()
        try:
            digest = F.bit_xor(F.xxhash64(*keys, "template_id"))
            made = parts.agg(F.count("*").alias("rows"), F.bool_or("conflict").alias("conflict"), digest.alias("digest")).collect()[0]
            if made.rows:
                # The same rows have the same name: a driver that was thought dead, and still writes them, adds nothing. Other rows of the
                # same batch, as after a file has failed, have another.
                txn = f"{self.txn}-{made.digest & (2**64 - 1):x}"
                self._append_spans(sops, series, txn)
                self._append_templates(parts, shelves["series"].find(series), txn)
                names = table(_ZONE, "header_instance").names
                tables.append(parts.select(*names), job.zones, _ZONE, "header_instance", txn=txn)
        finally:
            parts.unpersist()
        near = sorted({*near, self.shelf})
        if made.conflict or self.resumed:
            self._flag_conflicts(found, near)
        self._check_headers(found, near, series, made.rows)
        touched = job.read(_ZONE, "header_instance").where(f"run_id = '{self.run_id}'").where(tables.within("shelf", near))
        touched = touched.join(found.select("header.sop_uid").distinct(), "sop_uid", "left_semi")
        # Delta first, then MongoDB, then `object`: a document is made of rows that are there for good, and the batch is not done, and so is
        # repeated, until MongoDB has confirmed all of its documents.
        objects = {*self.places.values()}
        if made.conflict or self.resumed:
            others = touched.select("series_uid", "object_shelf").distinct().collect()
            objects |= {row.object_shelf for row in others if row.object_shelf is not None}
            series = covering([*series, *((row.series_uid, row.series_uid) for row in others)])
        where = (sorted(objects), shelves["series"].find(series))
        self.catalogue.write_documents(touched, found.select("object_id", "locator", "size"), where)

    def _append_spans(self, sops: list[Span], series: list[Span], txn: str) -> None:
        """What this shelf may hold, before it holds it."""
        job, shelves = self.catalogue.job, self.catalogue.shelves
        rows = []
        for kind, ranges in (("sop", sops), ("series", series)):
            shelves[kind].add(self.shelf, ranges)
            rows += [{"shelf": self.shelf, "kind": kind, "first_uid": first, "last_uid": last} for first, last in ranges]
        declared = table(_ZONE, "header_span").spark_type()
        frame = job.spark.createDataFrame(_arrow([{**row, "run_id": self.run_id} for row in rows], declared), declared)
        if self.resumed:
            tables.merge(frame, job.zones, _ZONE, "header_span", shelves=[self.shelf])
        else:
            tables.append(frame, job.zones, _ZONE, "header_span", txn=txn)

    def _check_headers(self, found: "DataFrame", near: list[int], series: list[Span], made: int) -> None:
        """Count the contents that were read against the instances and templates that are there."""
        from pyspark.sql import functions as F

        job = self.catalogue.job
        keys = ["sop_uid", "content_sha256"]
        read = found.select(F.col("header.sop_uid"), F.col("sha256").alias("content_sha256")).distinct()
        instances = job.read(_ZONE, "header_instance").where(tables.within("shelf", near)).select(*keys, "template_id")
        templates = job.read(_ZONE, "header_series").where(tables.within("shelf", self.catalogue.shelves["series"].find(series)))
        joined = read.join(instances, keys, "left").join(templates.select("template_id", "elements"), "template_id", "left")
        (row,) = joined.agg(
            F.count_distinct(*keys).alias("contents"), F.count("template_id").alias("instances"), F.count("elements").alias("whole")
        ).collect()
        if not row.contents == row.instances == row.whole:
            raise ChecksFailedError(
                f"catalogue: a batch of run {self.run_id} read {row.contents} contents, but header_instance has {row.instances} of them "
                f"and header_series the common elements of {row.whole}"
            )
        if self.resumed:
            self.catalogue.shared = None
        elif self.catalogue.shared is not None and row.contents > made:
            self.catalogue.shared |= set(near)

    def _append_templates(self, parts: "DataFrame", near: list[int], txn: str) -> None:
        job = self.catalogue.job
        declared = table(_ZONE, "header_series")
        rows = parts.where("elements IS NOT NULL").select(*declared.names)
        known = job.read(_ZONE, "header_series").where(tables.within("shelf", near)).select("template_id")
        tables.append(rows.join(known, "template_id", "left_anti"), job.zones, _ZONE, "header_series", txn=txn)

    def _flag_conflicts(self, found: "DataFrame", near: list[int]) -> None:
        """Set conflict on every row of a SOP UID that has several contents."""
        from pyspark.sql import functions as F

        job = self.catalogue.job
        rows = job.read(_ZONE, "header_instance").where(tables.within("shelf", near))
        rows = rows.join(found.select("header.sop_uid").distinct(), "sop_uid", "left_semi")
        several = rows.groupBy("sop_uid").agg(F.count("*").alias("n")).where("n > 1").select("sop_uid")
        late = rows.where("NOT conflict").join(several, "sop_uid", "left_semi")
        late = late.withColumn("conflict", F.lit(True)).withColumn("run_id", F.lit(self.run_id)).persist()
        if not late.isEmpty():
            tables.merge(late, job.zones, _ZONE, "header_instance", shelves=near)
        late.unpersist()

    def _write_objects(self, found: "DataFrame") -> None:
        """The rows that say the batch is done; before them, out of quarantine what is not faulty any more.

        Objects of the batch's files that were not found again, vanished files' and members that a container has lost, become vanished in
        the same commit. Their headers stay.
        """
        from pyspark.sql import functions as F

        job = self.catalogue.job
        declared = table(_ZONE, "object")
        now = F.lit(utc_now())
        rows = found.withColumns({"first_seen": now, "last_seen": now, "run_id": F.lit(self.run_id)}).select(*declared.names)
        if self.unknown:
            if self.resumed:
                job.release(found.where("status <> 'quarantined'").select("object_id"))
            tables.append(rows, job.zones, _ZONE, "object", txn=self.txn)
            return
        known = self._objects().where("status <> 'vanished'").join(self._paths(), "path", "left_semi")
        lost = known.join(found.select("object_id"), "object_id", "left_anti")
        lost = lost.withColumns({"status": F.lit("vanished"), "reason": F.lit(None).cast("string"), "run_id": F.lit(self.run_id)})
        both = rows.unionByName(lost.select(*declared.names)).persist()
        try:
            job.release(both.where("status <> 'quarantined'").select("object_id"))
            tables.merge(both, job.zones, _ZONE, "object", keep=("first_seen",), shelves=set(self.places.values()))
        finally:
            both.unpersist()


def within_limit(changes: list[dict[str, Any]], limit: int | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The changes of this run and those left for the next: at most ``limit`` files to read, and all that have vanished."""
    to_read = [row for row in changes if row["change"] != "vanished"]
    if limit is None or len(to_read) <= limit:
        return changes, []
    return [*to_read[:limit], *(row for row in changes if row["change"] == "vanished")], to_read[limit:]


def _sizes(changes: list[dict[str, Any]]) -> list[int]:
    """Bytes to read of each file: none of those that have vanished."""
    return [0 if row["change"] == "vanished" else row["file_size"] for row in changes]


def _under(job: Job, run_id: str) -> Job:
    """The job as it was in another run, so that what it writes bears that run's id."""
    return job if run_id == job.run_id else Job(job.name, job.config, job.zones, Report(job.name, run_id, counts=job.report.counts))


def _frame(job: Job, rows: "list[tuple[Any, ...]] | list[Listed]", ddl: str = _LISTING) -> "DataFrame":
    from pyspark.sql.types import StructType

    schema = cast("StructType", StructType.fromDDL(ddl))
    names = schema.fieldNames()
    return job.spark.createDataFrame(_arrow([dict(zip(names, row, strict=True)) for row in rows], schema), schema)


def _arrow(rows: list[dict[str, Any]], schema: "StructType") -> "pa.Table":
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    return pa.Table.from_pylist(rows, to_arrow_schema(schema))


def _found_type() -> "StructType":
    """Rows that executors give back: `object` without what the driver adds, what is told of reading it, and the header by `Storing`."""
    from pyspark.sql.types import BooleanType, LongType, StringType, StructType

    declared = table(_ZONE, "object").spark_type()
    names = [name for name in declared.fieldNames() if name not in ("first_seen", "last_seen", "shelf", "run_id")]
    header = StructType([*storing.spark_type().fields]).add("document_fits", BooleanType())
    found = StructType([declared[name] for name in names]).add("detail", StringType()).add("round_trips", LongType())
    return _nullable(found.add("header", header))


def _nullable(schema: "StructType") -> "StructType":
    from pyspark.sql.types import StructType

    fields = [type(f)(f.name, _nullable(f.dataType) if isinstance(f.dataType, StructType) else f.dataType) for f in schema.fields]
    return StructType(fields)


def _reader(root: Root, key: KeyRef, max_header_bytes: int) -> "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]":
    """What executors run over plan rows."""

    def read(plan: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        from pyspark.sql.pandas.types import to_arrow_schema

        schema = to_arrow_schema(_found_type())
        secret = key.bytes()
        headers, columns = Headers.of_process(max_header_bytes), Storing()
        # Collections of garbage need not look at what is loaded already: a tenth of the time.
        gc.freeze()
        listed = (Listed(*(row[name] for name in Listed._fields)) for batch in plan for row in batch.to_pylist())
        rows = read_files(root, listed, headers)
        for chunk in chunks(rows, _ROWS):
            yield _batch(secret, chunk, schema, columns)

    return read


def _batch(secret: bytes, chunk: list[tuple[Listed, Found]], schema: "pa.Schema", storing: Storing) -> "pa.RecordBatch":
    """Rows of objects and of the headers that they have: first those with a header, as `Storing` orders them, then the others."""
    import pyarrow as pa

    with_header = [(plan, found, found.header) for plan, found in chunk if found.header is not None]
    order, columns = storing.columns([header for _, _, header in with_header])
    ordered = [with_header[index][:2] for index in order]
    ordered += [(plan, found) for plan, found in chunk if found.header is None]
    rows = [_row(secret, plan, found) for plan, found in ordered]
    without = len(chunk) - len(with_header)
    columns["document_fits"] = pa.array([_fits(with_header[index][2]) for index in order], pa.bool_())
    type_ = schema.field("header").type
    parts = [pa.concat_arrays([columns[field.name], pa.nulls(without, field.type)]) for field in type_]
    missing = pa.array([False] * len(with_header) + [True] * without)
    header = pa.StructArray.from_arrays(parts, fields=list(type_), mask=missing)
    arrays = [header if field.name == "header" else pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _fits(header: Header) -> bool:
    return documents.surely_fits(header.length) or documents.fits(header.text)


def _row(secret: bytes, plan: Listed, found: Found) -> dict[str, Any]:
    place = locator(plan.path, found.member)
    row: dict[str, Any] = plan._asdict()
    row |= {"object_id": pseudonym(secret, "object", place), "locator": place}
    row |= {name: getattr(found, name) for name in ("member", "kind", "offset", "length", "compression", "size", "sha256")}
    return row | {name: getattr(found, name) for name in ("status", "reason", "detail", "round_trips")}
