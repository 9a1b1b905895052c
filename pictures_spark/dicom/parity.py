"""MongoDB against Delta: which documents there should be, which there are, and what makes the two equal again.

Documents are compared by a hash of their canonical JSON, made on executors on both sides: from Delta by making every document anew, from
MongoDB by reading ranges of ``_id``. The driver sees counts and sums only.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from pictures_spark import tables
from pictures_spark.dicom import mongodb as documents
from pictures_spark.errors import ChecksFailedError, InputError
from pictures_spark.job import Job
from pictures_spark.mongo import mongodb

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

_ZONE = "identifiable"
_SUM = "decimal(38,0)"
# Documents of one range that an executor reads, and the most ranges of a collection.
_RANGE, _RANGES = 20_000, 2_000
# Documents that `rebuild` writes at a time: what they take on local disk is bounded, some 150 GB over the cluster.
_AT_A_TIME = 10_000_000
_READ = {"collection": "string", "document_id": "string", "ours": "boolean", "digest": "bigint"}


@dataclass(frozen=True)
class Side:
    """What one side has in a collection: documents, and the sum of their hashes, which no order changes."""

    documents: int
    digest: int


def instance_rows(
    job: Job,
    instances: "DataFrame",
    places: "DataFrame | None" = None,
    known: bool = False,
    shelves: tuple[list[int], list[int]] | None = None,
) -> "DataFrame":
    """What `mongodb.documents` makes documents of: instances with their elements and places.

    Parameters
    ----------
    instances : rows of header_instance.
    places : object_id, locator and size that come before those of `object`.
    known : whether all of them may have a document already; else only those of a conflict, which are written again, may.
    shelves : of their objects, and of their templates; all where not given.
    """
    from pyspark.sql import functions as F

    objects, templates = job.read(_ZONE, "object"), job.read(_ZONE, "header_series")
    if shelves is not None:
        objects, templates = (frame.where(tables.within("shelf", few)) for frame, few in zip((objects, templates), shelves, strict=True))
    held = objects.select("object_id", "locator", "size")
    if places is not None:
        held = held.join(places, "object_id", "left_anti").unionByName(places)
    templates = templates.select("template_id", "elements")
    rows = instances.where("document_id IS NOT NULL").join(templates, "template_id").join(held, "object_id")
    columns = ("elements", "differences", "document_id", "conflict", "modality", "locator", "size", "run_id")
    known_here = F.lit(True) if known else F.col("conflict")
    return rows.select(*(F.col(name) for name in columns), known_here.alias("known"), F.lit(None).cast("bigint").alias("images"))


def series_rows(job: Job, touched: "DataFrame | None" = None) -> "DataFrame":
    """The same for series: the first file by locator that has a document, and how many instances the series has.

    Computed from all instances of a series, so that neither batches nor partitions make a difference.

    Parameters
    ----------
    touched : series_uid of those wanted; all where it is None.
    """
    from pyspark.sql import functions as F

    instances = job.read(_ZONE, "header_instance")
    if touched is not None:
        instances = instances.join(touched, "series_uid", "left_semi")
    places = job.read(_ZONE, "object").select("object_id", "locator")
    wanted = ("template_id", "differences", "modality", "locator")
    order = F.when(F.col("document_id").isNotNull(), F.struct("locator", "sop_uid", "content_sha256"))
    grouped = instances.join(places, "object_id").groupBy("series_uid")
    firsts = grouped.agg(F.min_by(F.struct(*wanted), order).alias("first"), F.count_distinct("sop_uid").alias("images"))
    templates = job.read(_ZONE, "header_series").select("template_id", "elements")
    rows = firsts.where("first IS NOT NULL").select("series_uid", "first.*", "images").join(templates, "template_id")
    return rows.select(
        "elements",
        "differences",
        F.col("series_uid").alias("document_id"),
        F.lit(False).alias("conflict"),
        "modality",
        "locator",
        F.lit(None).cast("bigint").alias("size"),
        F.lit(None).cast("string").alias("run_id"),
        F.lit(False).alias("known"),
        "images",
    )


def all_rows(job: Job) -> "DataFrame":
    """Rows of every document that there should be."""
    return instance_rows(job, job.read(_ZONE, "header_instance")).unionByName(series_rows(job))


def verify(job: Job) -> None:
    """Compare counts and hashes of every collection; see `check_parity`."""
    with mongodb(job.config, job.zones) as uri:
        check_parity(job, uri)


def check_parity(job: Job, uri: str) -> None:
    """Put both sides of every collection into the report.

    Raises
    ------
    ChecksFailedError
        They differ.
    """
    wanted, there = sides(_expected(job)), sides(_present(job, uri))
    names = sorted(wanted.keys() | there.keys())
    nothing = Side(0, 0)
    differ = [name for name in names if wanted.get(name, nothing) != there.get(name, nothing)]
    job.report.counts = {
        "seen": sum(side.documents for side in there.values()),
        "unchanged": sum(there.get(name, nothing).documents for name in names if name not in differ),
        "skipped_in_collections_that_differ": sum(there.get(name, nothing).documents for name in differ),
    }
    for name in names:
        job.report.details[f"{name}_delta"] = wanted.get(name, nothing).documents
        job.report.details[f"{name}_mongodb"] = there.get(name, nothing).documents
    if differ:
        raise ChecksFailedError(
            f"{job.name}: MongoDB differs from Delta in {len(differ)} of {len(names)} collections ({', '.join(differ)}); "
            "run `pictures mongo rebuild`, which writes what is missing or differs and removes what should not be there"
        )


def rebuild(job: Job) -> None:
    """Make MongoDB what Delta says it should be; see `restore`."""
    with mongodb(job.config, job.zones) as uri:
        counted = restore(job, uri)
    written, unchanged, removed = (counted[state] for state in ("written", "unchanged", "removed"))
    job.report.counts = {"seen": written + unchanged + removed, "written": written, "unchanged": unchanged, "skipped_removed": removed}


def restore(job: Job, uri: str) -> dict[str, int]:
    """Write documents that are missing or differ, and delete those that should not be there, also from the wrong collection.

    Whether MongoDB is empty, damaged or whole: what is right already is not written. Writes come before deletions, and doing it again
    after a kill goes on with what is left.

    Returns
    -------
    documents ``written``, ``unchanged`` and ``removed``.

    Raises
    ------
    InputError
        Documents in our collections that somebody else wrote, so that nothing is deleted that cannot be made again; or MongoDB does not
        answer.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    database: str = job.config["mongodb"]["database"]
    present = _present(job, uri)
    with documents.answering():
        foreign = present.where("NOT ours").count()
    if foreign:
        raise InputError(
            f"{job.name}: {foreign:,} documents in the image and series collections are not ours, and nothing was changed: "
            "name a database of our own in mongodb.database, or take them out first"
        )
    there = present.withColumnRenamed("digest", "found").drop("ours")
    compared = _expected(job).join(there, ["collection", "document_id"], "full_outer")
    state = F.when(F.col("digest").isNull(), "removed").when(F.col("digest").eqNullSafe(F.col("found")), "unchanged").otherwise("written")
    compared = compared.select("collection", "document_id", state.alias("state")).persist(StorageLevel.DISK_ONLY)
    try:
        with documents.answering():
            found = {row.state: row["count"] for row in compared.groupBy("state").count().collect()}
        counted = {name: found.get(name, 0) for name in ("written", "unchanged", "removed")}
        if counted["written"]:
            todo = compared.where("state = 'written'")
            parts = -(-counted["written"] // _AT_A_TIME)
            for part in range(parts):
                job.say(f"part {part + 1} of {parts}: {counted['written']:,} documents are missing or differ")
                mine = todo.where(F.pmod(F.xxhash64("document_id"), F.lit(parts)) == part)
                series = F.col("collection") == documents.SERIES_COLLECTION
                images = mine.where(~series).select("document_id")
                instances = job.read(_ZONE, "header_instance").join(images, "document_id", "left_semi")
                uids = mine.where(series).select(F.col("document_id").alias("series_uid"))
                rows = instance_rows(job, instances).unionByName(series_rows(job, uids))
                # What lies in a wrong collection is known here, and removed below.
                documents.write(documents.documents(rows.withColumn("known", F.lit(False))), uri, database)
        if counted["removed"]:
            job.say(f"{counted['removed']:,} documents should not be there: removing them")
            documents.remove(compared.where("state = 'removed'").select("collection", "document_id"), uri, database)
    finally:
        compared.unpersist()
    return counted


def sides(digests: "DataFrame") -> dict[str, Side]:
    """Counts and sums of hashes by collection."""
    from pyspark.sql import functions as F

    grouped = digests.groupBy("collection").agg(F.count("*").alias("n"), F.sum(F.col("digest").cast(_SUM)).alias("sum"))
    with documents.answering():
        return {row.collection: Side(row.n, int(row.sum)) for row in grouped.collect()}


def digest(document: Mapping[str, Any]) -> int:
    """Hash of a document, signed 64 bit: the same for what was sent and for what MongoDB gives back; the order of keys counts.

    Types of BSON that no document of ours has are hashed as their text.
    """
    text = orjson.dumps(document, default=str, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)


def ranges(ids: list[Any], parts: int) -> list[dict[str, Any]]:
    """Filters that split a collection by ``_id`` into about ``parts``, from a sample of its ids; together they match every document once.

    MongoDB compares only ids of the type of the bound; the last filter takes those of all other types.

    Examples
    --------
    >>> ranges(["a", "b", "c", "d"], 2)
    [{'_id': {'$lt': 'c'}}, {'_id': {'$gte': 'c'}}, {'_id': {'$not': {'$type': 'string'}}}]
    """
    import bson

    kinds = {str: "string", bson.ObjectId: "objectId"}
    kind = kinds.get(type(ids[0])) if ids else None
    same = sorted({one for one in ids if type(one) is type(ids[0])}) if kind else []
    bounds = sorted({same[number * len(same) // parts] for number in range(1, parts)}) if same else []
    if not bounds:
        return [{}]
    inner = [{"_id": {"$gte": low, "$lt": high}} for low, high in itertools.pairwise(bounds)]
    return [{"_id": {"$lt": bounds[0]}}, *inner, {"_id": {"$gte": bounds[-1]}}, {"_id": {"$not": {"$type": kind}}}]


def read_ranges(job: Job, uri: str, database: str, names: list[str]) -> "DataFrame":
    """What executors have to read of collections: (collection, filter), filters as BSON in hexadecimal."""
    import bson
    import pymongo

    found = []
    with documents.answering(), pymongo.MongoClient[dict[str, Any]](uri) as client:
        for name in names:
            number = client[database][name].estimated_document_count()
            parts = max(1, min(_RANGES, number // _RANGE))
            sample = [{"$sample": {"size": 20 * parts}}, {"$project": {"_id": 1}}]
            ids = [one["_id"] for one in client[database][name].aggregate(sample)] if parts > 1 else []
            found += [(name, bson.encode(one).hex()) for one in ranges(ids, parts)]
    return job.spark.createDataFrame(found, "collection string, filter string").repartition(max(1, len(found)))


def documents_of(uri: str, database: str, batches: "Iterator[pa.RecordBatch]") -> Iterator[tuple[str, dict[str, Any]]]:
    """(collection, document) of what `read_ranges` says, on an executor."""
    import bson
    import pymongo

    # What is damaged is read all the same, and differs.
    with pymongo.MongoClient[dict[str, Any]](uri, unicode_decode_error_handler="replace", datetime_conversion="DATETIME_AUTO") as client:
        for batch in batches:
            for row in batch.to_pylist():
                for one in client[database][row["collection"]].find(bson.decode(bytes.fromhex(row["filter"]))):
                    yield row["collection"], one


def _expected(job: Job) -> "DataFrame":
    """(collection, document_id, digest) of every document that there should be."""

    def convert(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        for batch in batches:
            made = map(documents.made, batch.to_pylist())
            rows = [(name, one, digest({key: value for _, key, value in fields})) for name, one, fields in made]
            yield _batch(rows, ("collection", "document_id", "digest"))

    return all_rows(job).mapInArrow(convert, "collection string, document_id string, digest bigint")


def _present(job: Job, uri: str) -> "DataFrame":
    """(collection, document_id, ours, digest) of every document in our collections; the id is null where it is no text."""
    database: str = job.config["mongodb"]["database"]
    with documents.answering():
        names = sorted(documents.counts(uri, database))

    def convert(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        found = ((name, *_identity(one), digest(one)) for name, one in documents_of(uri, database, batches))
        while chunk := list(itertools.islice(found, _RANGE)):
            yield _batch(chunk, tuple(_READ))

    ddl = ", ".join(f"{name} {kind}" for name, kind in _READ.items())
    return read_ranges(job, uri, database, names).mapInArrow(convert, ddl)


def _identity(document: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Its id where that is a text, and whether it can be one of ours: those of SmiServices have ids that MongoDB made."""
    one = document["_id"]
    return (one, True) if isinstance(one, str) else (None, False)


def _batch(rows: list[tuple[Any, ...]], names: tuple[str, ...]) -> "pa.RecordBatch":
    import pyarrow as pa

    kinds = {"digest": pa.int64(), "ours": pa.bool_()}
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.RecordBatch.from_arrays(
        [pa.array(list(column), kinds.get(name, pa.string())) for name, column in zip(names, columns, strict=True)], list(names)
    )
