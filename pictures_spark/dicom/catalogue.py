"""The catalogue job: every object of the archive to `object`, every header to `header_*` and MongoDB, whatever is broken to quarantine.

Identifiable zone. The driver lists the archive and keeps the plan; executors open the files, and only they read them. What is new or
changed by size and by etag or modification time is planned durably, then read in batches of about ``batch_bytes``. Within a batch the
tables are written by key, each write doing nothing where it was done before, and `object` last: its rows say that the batch is done. So a
run that was killed anywhere is finished by the next one, under its own run id, to the same tables. A file's own row comes from its plan
row, and the two are counted against each other.
"""

import gc
import itertools
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from pictures_spark import tables
from pictures_spark.dicom import mongodb as documents
from pictures_spark.dicom import parity, storing
from pictures_spark.dicom.imported import IS_IMPORTED
from pictures_spark.dicom.inventory import Found, check_root, list_archive, locator, read_files
from pictures_spark.dicom.storing import SERIES, Storing
from pictures_spark.dicom.structures import Header, Headers
from pictures_spark.errors import ChecksFailedError, InputError
from pictures_spark.job import Job
from pictures_spark.keys import KeyRef, fingerprint, pseudonym
from pictures_spark.mongo import mongodb
from pictures_spark.report import Report, utc_now
from pictures_spark.roots import Listed, Root
from pictures_spark.schema import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame, Row
    from pyspark.sql.types import StructType

_ZONE = "identifiable"
_LISTING = "path string, file_size bigint, file_mtime_ns bigint, file_etag string"
# Rows of one Arrow batch from a worker: a header of 15 KB each makes them a few MB.
_ROWS = 256


def run(job: Job) -> None:
    """Catalogue the archive of ``job``.

    Raises
    ------
    InputError
        The archive is not there, or is empty though objects of it are known; MongoDB does not take the documents.
    ChecksFailedError
        Rows do not add up to the plan, or documents to instances.
    QuarantineLimitError
        More than ``quarantine_limit`` of the objects are in quarantine.
    """
    root = job.zones.archive()
    check_root(root)
    with ExitStack() as stack:
        catalogue = Catalogue(job, root, stack)
        for run_id in catalogue.unfinished():
            job.say(f"going on with run {run_id}, which did not finish")
            catalogue.execute(run_id, resumed=True)
        listing = list_archive(root)
        job.say(f"{len(listing):,} files listed")
        if catalogue.plan(listing):
            catalogue.execute(job.run_id)
        if catalogue.runs:
            catalogue.follow_moved_contents()
            catalogue.check_documents()
        catalogue.report(listing)
        inputs = fingerprint("catalogue", *("|".join(map(str, listed)) for listed in listing))
        for run_id in catalogue.runs:
            _under(job, run_id).done(inputs)
    job.check_quarantine_limit()


@dataclass
class Catalogue:
    """One invocation of the job: its archive, its MongoDB (started at first need), the runs it has worked on, and whether these have met
    files that are not what or where they were.
    """

    job: Job
    root: Root
    stack: ExitStack
    runs: list[str] = field(default_factory=list)
    replaced: bool = False
    round_trips: int = 0
    files_fetched: int = 0

    @cached_property
    def uri(self) -> str:
        """The header store, until the stack closes."""
        return self.stack.enter_context(mongodb(self.job.config, self.job.zones))

    def unfinished(self) -> list[str]:
        """Runs that have a plan but did not finish; there is more than one only where someone wrote the table by hand."""
        plans = self.job.read(_ZONE, "catalogue_plan").select("run_id").distinct()
        left = plans.join(self.job.read(_ZONE, "run").select("run_id"), "run_id", "left_anti")
        return sorted(row.run_id for row in left.collect())

    def plan(self, listing: list[Listed]) -> bool:
        """Write the plan of this run before any of its work; False where there is nothing to do.

        The listing is compared with the files' own rows in `object`, which hold the size, etag and modification time of their last
        reading. Where both have an etag, it decides; else the modification time.
        """
        from pyspark.sql import functions as F

        known = self.job.read(_ZONE, "object").where("member IS NULL AND status <> 'imported'")
        known = known.select("path", F.struct("file_size", "file_mtime_ns", "file_etag", "status").alias("old"))
        listed = _frame(self.job, listing).withColumn("listed", F.lit(True))
        gone = F.col("old.status") == "vanished"
        same_version = F.coalesce(F.col("file_etag") == F.col("old.file_etag"), F.col("file_mtime_ns") == F.col("old.file_mtime_ns"))
        same = (F.col("file_size") == F.col("old.file_size")) & same_version & ~gone
        change = (
            F.when(F.col("listed").isNull(), F.when(~gone, "vanished"))
            .when(F.col("old").isNull(), "new")
            .when(~same, "changed")
        )  # fmt: skip
        marks = [F.coalesce(name, f"old.{name}").alias(name) for name in ("file_size", "file_mtime_ns", "file_etag")]
        compared = listed.join(known, "path", "full_outer").select("path", *marks, change.alias("change"))
        changes = [row.asDict() for row in compared.where("change IS NOT NULL").collect()]
        if not listing and changes:
            raise InputError("the archive is empty, but its objects are known: see that it is mounted; nothing was changed")
        if not changes:
            return False
        changes.sort(key=lambda row: (row["change"] == "vanished", row["path"]))
        sizes = [0 if row["change"] == "vanished" else row["file_size"] for row in changes]
        numbers = batches(sizes, self.job.config["catalogue"]["batch_bytes"])
        rows = [{**row, "batch": number, "run_id": self.job.run_id} for row, number in zip(changes, numbers, strict=True)]
        declared = table(_ZONE, "catalogue_plan").spark_type()
        frame = self.job.spark.createDataFrame(_arrow(rows, declared), declared)
        tables.append(frame, self.job.zones, _ZONE, "catalogue_plan", txn=self.job.run_id)
        return True

    def execute(self, run_id: str, resumed: bool = False) -> None:
        """Work through the plan of a run, batch by batch; batches of a resumed run whose rows are there are left out."""
        self.runs.append(run_id)
        plan = self.job.read(_ZONE, "catalogue_plan").where(f"run_id = '{run_id}'").orderBy("batch", "path").collect()
        self.replaced |= any(row.change != "new" for row in plan)
        groups = [list(rows) for _, rows in itertools.groupby(plan, key=lambda row: row.batch)]
        for rows in groups:
            planned = [row for row in rows if row.change != "vanished"]
            batch = Batch(self, run_id, planned, [row for row in rows if row.change == "vanished"], resumed)
            if resumed and batch.is_written():
                continue
            self.job.say(f"batch {rows[0].batch + 1} of {len(groups)}: {len(rows):,} files, {sum(row.file_size for row in rows):,} bytes")
            batch.work()
            if not batch.is_written():
                raise ChecksFailedError(
                    f"catalogue: batch {rows[0].batch} of run {run_id} has not one row in `object` for each planned file"
                )

    def release_from_quarantine(self, object_ids: "DataFrame") -> None:
        """Take objects out of quarantine that are not faulty any more, or not there."""
        held = self.job.read(_ZONE, "quarantine").where("job = 'catalogue'")
        held = held.join(object_ids, "object_id", "left_semi")
        if not held.isEmpty():
            tables.remove(held.select("job", "object_id"), self.job.zones, _ZONE, "quarantine")

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
        """Point instances whose object is gone to the first other object that holds the same content, where there is one."""
        from pyspark.sql import functions as F

        objects = self.job.read(_ZONE, "object")
        if not self.replaced and objects.where("status = 'vanished'").isEmpty():
            return
        held = objects.where("kind = 'dicom' AND status = 'catalogued'")
        held = held.select("object_id", "locator", F.col("sha256").alias("content_sha256"))
        instances = self.job.read(_ZONE, "header_instance")
        lost = instances.join(held, ["object_id", "content_sha256"], "left_anti")
        others = held.groupBy("content_sha256").agg(F.min_by("object_id", "locator").alias("other"))
        moved = lost.join(others, "content_sha256").withColumn("object_id", F.col("other")).drop("other")
        moved = moved.withColumn("run_id", F.lit(self.runs[-1]))
        if not moved.isEmpty():
            # Documents first: once the table says where the content is, nobody would look for documents that say otherwise.
            self.write_documents(moved)
            tables.merge(moved, self.job.zones, _ZONE, "header_instance")

    def write_documents(self, instances: "DataFrame", locators: "DataFrame | None" = None) -> None:
        """Write the documents of instances to MongoDB; ``locators`` (object_id, locator, size) come before those of `object`."""
        rows = parity.instance_rows(self.job, instances, locators, known=self.has_imports)
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
        counts["seen"] = len(listing)
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
    planned: "list[Row]"
    gone: "list[Row]"
    resumed: bool

    def is_written(self) -> bool:
        """Whether each file has its own row from this run: the last thing a batch writes."""
        rows = self.catalogue.job.read(_ZONE, "object").where(f"member IS NULL AND run_id = '{self.run_id}'")
        return rows.join(self._paths(), "path", "left_semi").count() == len(self.planned) + len(self.gone)

    def work(self) -> None:
        """Read the files and write what they hold; doing it again adds nothing."""
        from pyspark import StorageLevel

        job = self.catalogue.job
        # Kept on disk, so that each file is read once though several tables are written from it.
        found = self._read().persist(StorageLevel.DISK_ONLY)
        try:
            if self.planned:
                self.catalogue.supersede_imports(found)
                self._write_headers(found.where("status = 'catalogued'"))
                faulty = found.where("status = 'quarantined'")
                if not faulty.isEmpty():
                    _under(job, self.run_id).quarantine(faulty)
            self._write_objects(found)
            if self.catalogue.root.scheme != "file":
                self._count_round_trips(found)
        finally:
            found.unpersist()

    def _count_round_trips(self, found: "DataFrame") -> None:
        from pyspark.sql import functions as F

        (row,) = found.agg(F.sum("round_trips").alias("trips"), F.count("round_trips").alias("files")).collect()
        self.catalogue.round_trips += row.trips or 0
        self.catalogue.files_fetched += row.files

    def _paths(self) -> "DataFrame":
        return _frame(self.catalogue.job, [(row.path,) for row in (*self.planned, *self.gone)], "path string")

    def _read(self) -> "DataFrame":
        """One row per object in the files of the batch. Runs on executors, in slices of equal bytes."""
        job = self.catalogue.job
        parts = max(1, min(len(self.planned), 4 * job.spark.sparkContext.defaultParallelism))
        slices = stretches([row.file_size for row in self.planned], parts)
        rows = [(row.path, row.file_size, row.file_mtime_ns, row.file_etag, part) for row, part in zip(self.planned, slices, strict=True)]
        plan = _frame(job, rows, f"{_LISTING}, part int")
        reader = _reader(self.catalogue.root, job.key("object"), job.config["catalogue"]["max_header_bytes"])
        return plan.repartitionById(parts, "part").mapInArrow(reader, _found_type())

    def _write_headers(self, found: "DataFrame") -> None:
        """New contents to header_series, then header_instance; conflicts flagged on old ones too; documents to MongoDB."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        job = self.catalogue.job
        keys = ["sop_uid", "content_sha256"]
        known = job.read(_ZONE, "header_instance")
        all_headers = found.select("object_id", "locator", "size", F.col("sha256").alias("content_sha256"), "header.*")
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
            .withColumn("run_id", F.lit(self.run_id))
        )
        of_base = [F.col(f"header.{name}") for name in ("base_id", *SERIES)]
        bases = found.where("header.base IS NOT NULL").groupBy(*of_base).agg(F.min("header.base").alias("base"))
        both = new.drop("base").unionByName(bases, allowMissingColumns=True)
        split_type = _split_type()
        parts = both.groupBy(*SERIES).applyInArrow(storing.split_series(split_type.fieldNames()), split_type)
        parts = parts.persist()
        try:
            (made,) = parts.agg(F.count("*").alias("rows"), F.bool_or("conflict").alias("conflict")).collect()
            if made.rows:
                self._append_templates(parts)
                names = table(_ZONE, "header_instance").names
                tables.append(parts.select(*names), job.zones, _ZONE, "header_instance")
        finally:
            parts.unpersist()
        if made.conflict or self.resumed:
            self._flag_conflicts(found)
        touched = job.read(_ZONE, "header_instance").where(f"run_id = '{self.run_id}'")
        touched = touched.join(found.select("header.sop_uid").distinct(), "sop_uid", "left_semi")
        # Delta first, then MongoDB, then `object`: a document is made of rows that are there for good, and the batch is not done, and so is
        # repeated, until MongoDB has confirmed all of its documents.
        self.catalogue.write_documents(touched, found.select("object_id", "locator", "size"))

    def _append_templates(self, parts: "DataFrame") -> None:
        job = self.catalogue.job
        declared = table(_ZONE, "header_series")
        rows = parts.where("elements IS NOT NULL").select(*declared.names)
        known = job.read(_ZONE, "header_series").select("template_id")
        tables.append(rows.join(known, "template_id", "left_anti"), job.zones, _ZONE, "header_series")

    def _flag_conflicts(self, found: "DataFrame") -> None:
        """Set conflict on every row of a SOP UID that has several contents."""
        from pyspark.sql import functions as F

        job = self.catalogue.job
        rows = job.read(_ZONE, "header_instance").join(found.select("header.sop_uid").distinct(), "sop_uid", "left_semi")
        several = rows.groupBy("sop_uid").agg(F.count("*").alias("n")).where("n > 1").select("sop_uid")
        late = rows.where("NOT conflict").join(several, "sop_uid", "left_semi")
        late = late.withColumn("conflict", F.lit(True)).withColumn("run_id", F.lit(self.run_id)).persist()
        if not late.isEmpty():
            tables.merge(late, job.zones, _ZONE, "header_instance")
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
        if all(row.change == "new" for row in self.planned) and not self.gone:
            self.catalogue.release_from_quarantine(found.where("status <> 'quarantined'").select("object_id"))
            tables.append(rows, job.zones, _ZONE, "object")
            return
        known = job.read(_ZONE, "object").where("status <> 'vanished'").join(self._paths(), "path", "left_semi")
        lost = known.join(found.select("object_id"), "object_id", "left_anti")
        lost = lost.withColumns({"status": F.lit("vanished"), "reason": F.lit(None).cast("string"), "run_id": F.lit(self.run_id)})
        both = rows.unionByName(lost.select(*declared.names)).persist()
        try:
            self.catalogue.release_from_quarantine(both.where("status <> 'quarantined'").select("object_id"))
            tables.merge(both, job.zones, _ZONE, "object", keep=("first_seen",))
        finally:
            both.unpersist()


def batches(sizes: list[int], limit: int) -> list[int]:
    """Batch number of each file, in order: a batch takes files until ``limit`` bytes, and at least one.

    Examples
    --------
    >>> batches([4, 4, 4, 20, 1], 8)
    [0, 0, 1, 2, 3]
    """
    numbers, number, filled = [], 0, 0
    for size in sizes:
        if filled and filled + size > limit:
            number, filled = number + 1, 0
        numbers.append(number)
        filled += size
    return numbers


def stretches(sizes: list[int], parts: int) -> list[int]:
    """Part of each file such that a part is a stretch of neighbours, whose headers are alike, and the parts cost about the same.

    Examples
    --------
    >>> stretches([1, 1, 1, 1], 2), stretches([9 << 20, 1, 1, 1], 2)
    ([0, 0, 1, 1], [0, 1, 1, 1])
    """
    # Opening a file costs about as much as reading this much of it.
    costs = [size + 65536 for size in sizes]
    total, before, chosen = sum(costs), 0, []
    for cost in costs:
        chosen.append(min(parts - 1, (before + cost // 2) * parts // total))
        before += cost
    return chosen


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
    names = [name for name in declared.fieldNames() if name not in ("first_seen", "last_seen", "run_id")]
    header = StructType([*storing.spark_type().fields]).add("document_fits", BooleanType())
    found = StructType([declared[name] for name in names]).add("detail", StringType()).add("round_trips", LongType())
    return _nullable(found.add("header", header))


def _nullable(schema: "StructType") -> "StructType":
    from pyspark.sql.types import StructType

    fields = [type(f)(f.name, _nullable(f.dataType) if isinstance(f.dataType, StructType) else f.dataType) for f in schema.fields]
    return StructType(fields)


def _split_type() -> "StructType":
    """Rows of header_instance, with the template's own columns on the first row of each template."""
    from pyspark.sql.types import LongType, StringType

    return _nullable(table(_ZONE, "header_instance").spark_type()).add("elements", StringType()).add("instance_count", LongType())


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
        while chunk := list(itertools.islice(rows, _ROWS)):
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
