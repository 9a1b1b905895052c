"""Header documents of SmiServices as a source: `elements_of` reads a document, `run` makes object and header rows of a database of them.

A document says less than a file does. Value representations come from the dictionary where the document has none; values that it leaves out
are marked with `LEFT_OUT`; there is no file meta information, no hash of the file and no modification time. So the object's ``status`` is
``imported``, its ``sha256`` null, and ``content_sha256`` of the instance is `MARK` and the hash of what the document says. `catalogue` puts
the file's own rows in their place as soon as it reads the file.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag, tag_for_keyword
from pydicom.valuerep import VR

from pictures_spark import tables
from pictures_spark.dicom import mongodb as documents
from pictures_spark.dicom import parity
from pictures_spark.dicom.inventory import locator
from pictures_spark.dicom.scan import Elements, ScanError, column_value, number_strings, pack, promoted
from pictures_spark.dicom.storing import split_series, split_type
from pictures_spark.dicom.templates import as_lines
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError
from pictures_spark.job import Job
from pictures_spark.keys import KeyRef, pseudonym
from pictures_spark.mongo import mongodb
from pictures_spark.resources import load_schema
from pictures_spark.schema import table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

MARK = "document:"
LEFT_OUT = "urn:pictures:left-out-of-the-document"
# Rows of header_instance that were made of documents.
IS_IMPORTED = f"content_sha256 LIKE '{MARK}%'"
_ZONE = "identifiable"
_PLACED = re.compile(r"\(([0-9a-fA-F]{4}),([0-9a-fA-F]{4})(?::.*)?\)-[^)]*", re.DOTALL)
_IN_CONTAINER = re.compile(r"(.+?\.(?:zip|tar|tgz|gz))!(.+)", re.DOTALL | re.IGNORECASE)
_ONE_TEXT = ("LT", "ST", "UT", "UR")
_DEPTH = 64


@dataclass(frozen=True)
class Imported:
    """What a document says: where its file is, and its header."""

    path: str
    member: str | None
    size: int | None
    elements: Elements
    columns: dict[str, Any]
    has_pixels: bool


def imported(document: Mapping[str, Any]) -> Imported:
    """The object and header of an image document.

    Raises
    ------
    ScanError
        ``no_path``: its header names no file below the archive root; ``unknown_key``: a key that is no element; ``bad_value``: a value that
        does not have the form of its element; ``missing_uid``: no SOP, study or series UID.
    """
    header = document.get("header")
    name = header.get("DicomFilePath") if isinstance(header, Mapping) else None
    size = header.get("DicomFileSize") if isinstance(header, Mapping) else None
    if not isinstance(name, str) or not name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ScanError("no_path", "the document's header does not name a file below the archive root")
    elements = elements_of({key: value for key, value in document.items() if key not in ("_id", "header", "conflict")})
    columns = {column.name: column_value(column.name, elements) for column in promoted()}
    if None in (columns["sop_uid"], columns["study_uid"], columns["series_uid"]):
        raise ScanError("missing_uid", "no SOP, study or series instance UID")
    inside = _IN_CONTAINER.fullmatch(name)
    path, member = inside.groups() if inside else (name, None)
    whole = int(size) if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None
    has_pixels = any(tag in elements for tag in load_schema("dicom/header.yaml")["pixel_elements"])
    return Imported(path, member, whole, elements, columns, has_pixels)


def elements_of(document: Mapping[str, Any], depth: int = 0) -> Elements:
    """The elements of a document or of an item of one, in the DICOM JSON model: what `mongodb.body` is made of, as far as it tells.

    Raises
    ------
    ScanError
        As `imported`.

    Examples
    --------
    >>> elements_of({"Modality": "CT", "Rows": [512], "ICCProfile": None})["00080060"]
    {'vr': 'CS', 'Value': ['CT']}
    """
    if depth > _DEPTH:
        raise ScanError("bad_value", "sequences are nested too deeply")
    found: Elements = {}
    for key, value in document.items():
        tag = _tag(key)
        if isinstance(value, Mapping):
            vr, value = value.get("vr"), value.get("val")
        else:
            vr = _dictionary_vr(int(tag, 16), value)
        if not isinstance(vr, str) or vr not in VR.__members__:
            raise ScanError("bad_value", "a value whose representation is not said or not known")
        try:
            found[tag] = _element(vr, value, depth)
        except (TypeError, ValueError, OverflowError, struct.error):
            raise ScanError("bad_value", "a value that does not have the form of its element") from None
    return dict(sorted(found.items()))


def _tag(key: str) -> str:
    placed = _PLACED.fullmatch(key)
    if placed:
        return f"{placed[1]}{placed[2]}".upper()
    tag = tag_for_keyword(key)
    if tag is None:
        raise ScanError("unknown_key", "a key that is neither a DICOM keyword nor a tag")
    return f"{tag:08X}"


def _dictionary_vr(tag: int, value: Any) -> str | None:
    """VR of an element whose document does not say it; where the dictionary leaves it open, nothing but an empty value can be told."""
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) or repeater_has_tag(tag) else ""
    return vr if vr and " or " not in vr else "UN" if value is None else None


def _element(vr: str, value: Any, depth: int) -> dict[str, Any]:
    rules = load_schema("dicom/mongodb.yaml")
    if value is None:
        return {"vr": vr, "BulkDataURI": LEFT_OUT} if vr in rules["left_out"] else {"vr": vr}
    if vr in rules["left_out"]:
        raise TypeError(vr)
    if vr == "SQ":
        return {"vr": vr, "Value": [elements_of(_mapping(item), depth + 1) for item in value]}
    if vr in rules["numbers"]:
        numbers = [_number(vr, one) for one in (value if isinstance(value, list) else [value])]
        code = rules["numbers"][vr]
        if vr in ("OD", "OF", "OL"):
            packed = struct.pack(f"<{len(numbers)}{code}", *map(float if code in "fd" else int, numbers))
            return {"vr": vr, "InlineBinary": base64.b64encode(packed).decode()}
        return {"vr": vr, "Value": numbers}
    if not isinstance(value, str):
        raise TypeError(vr)
    if not value:
        return {"vr": vr}
    return _text(vr, value)


def _text(vr: str, value: str) -> dict[str, Any]:
    if vr in ("DS", "IS") and value.isascii():
        return number_strings(vr, value.encode())
    if vr in _ONE_TEXT:
        return {"vr": vr, "Value": [value]}
    parts = value.split("\\")
    if vr == "PN":
        groups = ("Alphabetic", "Ideographic", "Phonetic")
        names = [{group: text for group, text in zip(groups, part.split("="), strict=False) if text} for part in parts]
        return {"vr": vr, "Value": [name or None for name in names]}
    return {"vr": vr, "Value": [part or None for part in parts]}


def _number(vr: str, value: Any) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(vr)
    if vr in ("FD", "FL", "OD", "OF"):
        number = float(value)
        return value if isinstance(value, str) and vr[0] == "F" else number
    whole = int(value)
    if whole != value and not isinstance(value, str):
        raise ValueError(vr)
    # SmiServices writes what BSON has no unsigned number for as a signed one.
    return whole + 2**64 if vr == "UV" and whole < 0 else whole


def _mapping(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise TypeError("item")
    return item


def run(job: Job, database: str) -> None:
    """Import the image collections of ``database`` on the MongoDB of the settings; again: nothing changes.

    Instances that a file has already told of are left as they are. Documents of equal elements are one instance.

    Raises
    ------
    ConfigError
        It is our own database, or no name of one.
    InputError
        It has no image collection, or MongoDB does not answer.
    ChecksFailedError
        Not as many documents were read as there are.
    QuarantineLimitError
        Too many documents cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", database):
        raise ConfigError("mongo import: that is no name of a database: letters, digits, - and _, at most 63")
    if database == job.config["mongodb"]["database"]:
        raise ConfigError("mongo import: that is the database that our own documents are in; give that of SmiServices")
    with mongodb(job.config, job.zones) as uri:
        names = sorted(documents.counts(uri, database).keys() & set(documents.collections()))
        if not names:
            raise InputError("mongo import: there is no image collection in that database")
        _import(job, uri, database, names)
        # What was imported, and what a run that was killed left undone.
        parity.restore(job, uri)
    job.check_quarantine_limit("catalogue")


def _import(job: Job, uri: str, database: str, names: list[str]) -> None:
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    reader = _reader(uri, database, job.key("object"))
    found = parity.read_ranges(job, uri, database, names).mapInArrow(reader, _found_type()).persist(StorageLevel.DISK_ONLY)
    try:
        with documents.answering():
            reasons = {row.reason: row["count"] for row in found.groupBy("reason").count().collect()}
            there = sum(documents.counts(uri, database, exact=True)[name] for name in names)
        read = sum(reasons.values())
        if read != there:
            raise ChecksFailedError(f"{job.name}: {read:,} documents were read and {there:,} are there: see that nobody writes to them")
        usable = reasons.pop(None, 0)
        if reasons:
            bad = found.where("reason IS NOT NULL")
            job.quarantine(bad.select(F.col("source_id").alias("object_id"), F.col("source").alias("locator"), "reason", "detail"))
        job.release(found.where("reason IS NULL").select(F.col("source_id").alias("object_id")))
        from_files = job.read(_ZONE, "header_instance").where(f"NOT {IS_IMPORTED}").select("sop_uid").distinct()
        good = found.where("reason IS NULL").join(from_files, "sop_uid", "left_anti").persist(StorageLevel.DISK_ONLY)
        considered = good.count()
        written = _write(job, good)
        good.unpersist()
    finally:
        found.unpersist()
    job.report.quarantined = reasons
    job.report.counts = {
        "seen": read,
        "written": written,
        "unchanged": considered - written,
        "skipped_known_from_file": usable - considered,
        "quarantined": sum(reasons.values()),
    }


def _write(job: Job, good: "DataFrame") -> int:
    """Rows of what is new, headers first; returns the number of new instances. Each write does nothing where it was done before."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    keys = ["sop_uid", "content_sha256"]
    known = job.read(_ZONE, "header_instance")
    firsts = good.groupBy(*keys).agg(F.min_by(F.struct(*good.columns), "locator").alias("first")).select("first.*")
    by_uid = Window.partitionBy("sop_uid")
    other = known.select("sop_uid").distinct().withColumn("known", F.lit(True))
    later = F.col("known").isNotNull() | (F.row_number().over(by_uid.orderBy("locator", "content_sha256")) > 1)
    further = F.concat_ws("#", "sop_uid", F.substring("content_sha256", len(MARK) + 1, 16))
    new = (
        firsts.join(known.select(*keys), keys, "left_anti")
        .join(other, "sop_uid", "left")
        .withColumn("conflict", F.col("known").isNotNull() | (F.count("*").over(by_uid) > 1))
        .withColumn("document_id", F.when(F.col("document_fits"), F.when(later, further).otherwise(F.col("sop_uid"))))
        .withColumns({name: F.lit(None).cast("long") for name in ("shelf", "object_shelf")})
        .withColumns({name: F.lit(None).cast("string") for name in ("base_id", "base")})
        .withColumn("run_id", F.lit(job.run_id))
    )
    instance, series = table(_ZONE, "header_instance"), table(_ZONE, "header_series")
    made = split_type()
    rows = new.groupBy("series_uid").applyInArrow(split_series(made.fieldNames()), made).persist()
    try:
        count = rows.count()
        if count:
            templates = rows.where("elements IS NOT NULL").select(*series.names)
            have = job.read(_ZONE, "header_series").select("template_id")
            tables.append(templates.join(have, "template_id", "left_anti"), job.zones, _ZONE, "header_series")
            tables.append(rows.select(*instance.names), job.zones, _ZONE, "header_instance")
    finally:
        rows.unpersist()
    everything = job.read(_ZONE, "header_instance").join(good.select("sop_uid").distinct(), "sop_uid", "left_semi")
    several = everything.groupBy("sop_uid").count().where("count > 1").select("sop_uid")
    late = everything.where("NOT conflict").join(several, "sop_uid", "left_semi").withColumn("conflict", F.lit(True))
    if not late.isEmpty():
        tables.merge(late.withColumn("run_id", F.lit(job.run_id)), job.zones, _ZONE, "header_instance")
    objects = good.groupBy("object_id").agg(F.min(F.struct("locator", "path", "member", "size")).alias("one")).select("object_id", "one.*")
    objects = objects.join(job.read(_ZONE, "object").select("object_id"), "object_id", "left_anti")
    now = F.current_timestamp().cast("timestamp_ntz")
    said = {"kind": F.lit("dicom"), "status": F.lit("imported"), "first_seen": now, "last_seen": now, "run_id": F.lit(job.run_id)}
    said |= {"file_size": F.when(F.col("member").isNull(), F.col("size"))}
    declared = table(_ZONE, "object")
    nulls = {f.name: F.lit(None).cast(f.dataType) for f in declared.spark_type().fields if f.name not in {*objects.columns, *said}}
    objects = objects.withColumns({**said, **nulls}).select(*declared.names)
    if not objects.isEmpty():
        tables.append(objects, job.zones, _ZONE, "object")
    return count


def _found_type() -> "StructType":
    """One row per document: where it was found, why it cannot be used, and what it says."""
    from pyspark.sql.types import BooleanType, LongType, StringType, StructField, StructType

    texts = ("source", "source_id", "reason", "detail", "object_id", "locator", "path", "member", "content_sha256", "lines")
    instance = table(_ZONE, "header_instance").spark_type()
    typed = [StructField(column.name, instance[column.name].dataType) for column in promoted()]
    others = [StructField("size", LongType()), StructField("has_pixels", BooleanType()), StructField("document_fits", BooleanType())]
    return StructType([*(StructField(name, StringType()) for name in texts), *others, *typed])


def _reader(uri: str, database: str, key: KeyRef) -> "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]":
    """What executors run over ranges of the source."""

    def read(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        from pyspark.sql.pandas.types import to_arrow_schema

        schema = to_arrow_schema(_found_type())
        secret = key.bytes()
        chunk: list[dict[str, Any]] = []
        size = 0
        for name, document in parity.documents_of(uri, database, batches):
            row = _row(secret, f"mongodb:{database}.{name}/{document['_id']}", document)
            chunk.append(row)
            size += len(row.get("lines", "")) + 1024
            if size > documents.BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(chunk, schema)
                chunk, size = [], 0
        if chunk:
            yield pa.RecordBatch.from_pylist(chunk, schema)

    return read


def _row(secret: bytes, source: str, document: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"source": source, "source_id": pseudonym(secret, "object", source)}
    try:
        one = imported(document)
    except ScanError as error:
        return row | {"reason": error.reason, "detail": error.detail}
    text, place = pack(one.elements), locator(one.path, one.member)
    row |= {"object_id": pseudonym(secret, "object", place), "locator": place, "path": one.path, "member": one.member, "size": one.size}
    row |= {"content_sha256": MARK + hashlib.sha256(text.encode()).hexdigest(), "document_fits": documents.fits(text)}
    row |= {"lines": "\n".join(as_lines(text))}
    return row | {"has_pixels": one.has_pixels} | one.columns


__all__ = ["IS_IMPORTED", "LEFT_OUT", "MARK", "Imported", "elements_of", "imported", "run"]
