"""Header documents in MongoDB, in the shape that SmiServices sites query, written by the MongoDB Spark connector.

`document` and `series_document` are pure: a header in, one document out. `documents` makes them on executors; `write` lets executors send
them. Delta is the system of record: a document is replaced as a whole under its ``_id``, so writing it again changes nothing.
"""

import base64
import hashlib
import re
import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import orjson
from pydicom.datadict import dictionary_has_tag, dictionary_VR, get_private_entry, keyword_for_tag, repeater_has_tag

from pictures_spark.dicom.scan import Elements, finite_or_text
from pictures_spark.dicom.templates import rebuild
from pictures_spark.errors import InputError
from pictures_spark.resources import load_schema
from pictures_spark.session import settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Document = dict[str, Any]
PRODUCER = "pictures catalogue"
SERIES_COLLECTION = "series"
# What `documents` gives: ``keys`` (each after its tag) are on the first row of a shape in a task, null on its others.
_DOCUMENTS = "collection string, document_id string, text string, known boolean, shape string, heavy boolean, keys array<string>"
_TAG_DIGITS = 8
_SESSION = {
    # Keys hold private creators, free text of a header: the plans in Spark's event log must not name the columns that are made of them.
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.debug.maxToStringFields": "0",
    # Workers take documents in batches of this many, or of so many bytes where they are large.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(32 << 20),
}
# A batch of rows that a worker gives back is closed once its texts are this long.
BATCH_BYTES = 8 << 20
# The connector holds this many documents before it sends them. Heavy ones, longer than _HEAVY bytes of JSON, go by themselves, fewer at a
# time: either way a task holds some 128 MB.
_HEAVY = 256 << 10
_SENT, _SENT_HEAVY = 512, 8
_IDS = 500


def document(elements: Elements, document_id: str, conflict: bool, locator: str, size: int | None, run_id: str) -> Document:
    """The document of an instance.

    ``_id``, SMI's ``header``, ``conflict: true`` where the SOP UID has other contents too, then the data set's elements by tag. See `body`
    for keys and values. No message was ever sent, so the message fields, which SMI's own tools cannot do without, say nothing: a GUID
    made of run and key, process and time 0, no parents. Nothing in the document changes when a run is repeated.
    """
    return {key: value for _, key, value in _fields(elements, _image_header(document_id, conflict, locator, size, run_id))}


def series_document(elements: Elements, series_uid: str, locator: str, images: int) -> Document:
    """The document of a series: its UID as ``_id``, ``header``, and the elements of its first file, by locator.

    ``header`` holds DirectoryPath, the folder of that file, and ImagesInSeries, SOP instances of the series.
    """
    return {key: value for _, key, value in _fields(elements, _series_header(series_uid, locator, images))}


def body(elements: Elements) -> Document:
    """The elements of a data set or of an item, as DicomTypeTranslation writes them.

    Keys are keywords; ``(gggg,eeee)-Keyword`` for repeating groups and unknown tags; ``(gggg,eeee:CREATOR)-Keyword`` for private ones; a
    ``.`` becomes ``_``. File meta information and group lengths are left out. String values are one string, joined by a backslash, DS, IS
    and AT included; binary numbers are an array, of one number too; an empty value is null, and so is that of OB, OW, OV and UN; a
    sequence is an array of documents. Private and unknown elements, and those whose VR the dictionary leaves open, are ``{vr, val}``.

    Examples
    --------
    >>> body({"00080060": {"vr": "CS", "Value": ["CT"]}, "00280010": {"vr": "US", "Value": [512]}, "00180050": {"vr": "DS"}})
    {'Modality': 'CT', 'Rows': [512], 'SliceThickness': None}
    """
    return {key: value for _, key, value in _elements(elements)}


def collection(modality: str | None) -> str:
    """Name of the collection of a modality."""
    rules = load_schema("dicom/mongodb.yaml")
    return f"image_{modality if modality in rules['modalities'] else rules['other']}"


def collections() -> list[str]:
    """Names of all image collections."""
    rules = load_schema("dicom/mongodb.yaml")
    return [f"image_{modality}" for modality in [*rules["modalities"], rules["other"]]]


def file_path(locator: str) -> str:
    """A locator as SMI names a file: relative to the archive root, ``!`` and the member where it is in a container; nothing is escaped.

    Examples
    --------
    >>> file_path("2015/50%25%21.zip!IM/1"), file_path("a%21b")
    ('2015/50%!.zip!IM/1', 'a!b')
    """
    path, mark, member = locator.partition("!")
    return path.replace("%21", "!").replace("%25", "%") + mark + member


def surely_fits(length: int) -> bool:
    """Whether the document of any instance is one that MongoDB takes, if its elements' JSON is at most so long."""
    rules = load_schema("dicom/mongodb.yaml")
    # An element takes at least 22 bytes of JSON, and no value more than 13 bytes in BSON per byte of JSON: one digit in a long array.
    return bool(length <= 22 * rules["document_keys"] and length * 13 < rules["document_bytes"])


def fits(text: str) -> bool:
    """Whether the document of an instance is one that MongoDB takes. ``text`` is its elements' JSON."""
    if surely_fits(len(text)):
        return True
    import bson

    rules = load_schema("dicom/mongodb.yaml")
    limit: int = rules["document_bytes"]
    if len(orjson.loads(text)) > rules["document_keys"]:
        return False
    longest = document(orjson.loads(text), "1" * 81, True, "", 0, "")
    return len(bson.encode(longest)) + len(text.encode()) // 1000 + 4096 < limit


def documents(rows: "DataFrame") -> "DataFrame":
    """Documents for `write`.

    Parameters
    ----------
    rows : columns elements (the template's), differences, document_id, conflict, modality, locator, size, run_id; known: whether MongoDB
        may have the document already; images: null for an instance, for a series the number of its instances.
    """

    def convert(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        seen: set[str] = set()

        def sendable() -> Iterator[tuple[Any, ...]]:
            for batch in batches:
                for row in batch.to_pylist():
                    name, document_id, fields = made(row)
                    text = orjson.dumps({key: value for _, key, value in fields}).decode()
                    keys = [f"{tag}{key}" for tag, key, _ in fields]
                    heavy = len(text) > _HEAVY
                    shape = hashlib.blake2b("\0".join((name, str(heavy), *keys)).encode(), digest_size=16).hexdigest()
                    yield name, document_id, text, row["known"], shape, heavy, None if shape in seen else keys
                    seen.add(shape)

        types = {"known": pa.bool_(), "heavy": pa.bool_(), "keys": pa.list_(pa.string())}
        yield from batched(sendable(), [column.split()[0] for column in _DOCUMENTS.split(", ")], types)

    return rows.mapInArrow(convert, _DOCUMENTS)


def write(found: "DataFrame", uri: str, database: str) -> None:
    """Replace or insert documents by ``_id``; one that is in another image collection still is deleted there afterwards.

    The connector takes rows, so documents are written as frames with a column per key; ``convertJson`` makes every JSON text the value it
    says, and a column that is null in a row is a key that its document does not have. Documents with much the same keys share a frame, see
    `frames`. MongoDB has confirmed every document as journaled by a majority when this returns. What the driver holds grows with the
    number of different keys, what a task holds with a batch.

    Parameters
    ----------
    found : `documents`.

    Raises
    ------
    InputError
        MongoDB does not take the documents.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    session = found.sparkSession
    options = {
        "connection.uri": uri,
        "database": database,
        "convertJson": "any",
        "ignoreNullValues": "true",
        "operationType": "replace",
        "upsertDocument": "true",
        "idFieldList": "_id",
        "ordered": "false",
        "writeConcern.w": "majority",
        "writeConcern.journal": "true",
    }
    # On disk: the columns of a frame are known only once all documents are, and they are made twice as slowly as read back.
    found = found.persist(StorageLevel.DISK_ONLY)
    try:
        with settings(session, _SESSION):
            shapes = found.where("keys IS NOT NULL").select("collection", "heavy", "shape", "keys").dropDuplicates(["shape"])
            groups = frames(shapes.orderBy("collection", "heavy", "shape").toLocalIterator(), load_schema("dicom/mongodb.yaml")["columns"])
            numbers = [(shape, number) for number, frame in enumerate(groups) for shape in frame.shapes]
            if not numbers:
                return
            numbered = found.join(F.broadcast(session.createDataFrame(numbers, "shape string, number int")), "shape")
            for number, frame in enumerate(groups):
                wide = _widen(numbered.where(F.col("number") == number).select("text"), sorted(frame.keys.values()))
                writer = wide.write.format("mongodb").mode("append").options(**options)
                writer = writer.option("maxBatchSize", _SENT_HEAVY if frame.heavy else _SENT)
                with answering():
                    writer.option("collection", frame.collection).save()
            # After the insert, so that a document is never nowhere; whoever repeats the write repeats this.
            known = found.where("known").select("collection", "document_id")
            if not known.isEmpty():
                remove(_elsewhere(known), uri, database)
    finally:
        found.unpersist()


@dataclass
class Frame:
    """Documents that are written together: a column per key.

    Attributes
    ----------
    keys : each key after its tag, under the key in lower case: Spark does not tell columns apart by case.
    """

    collection: str
    heavy: bool
    keys: dict[str, str]
    shapes: list[str] = field(default_factory=list)


def frames(shapes: "Iterable[Sequence[Any]]", limit: int) -> list[Frame]:
    """Put shapes, (collection, heavy, shape, keys), into few frames of at most ``limit`` columns, like with like.

    A shape joins the frame that grows least by it; one with more keys than ``limit`` has a frame of its own.

    Examples
    --------
    >>> [sorted(f.keys) for f in frames([("c", False, "1", ["a", "b"]), ("c", False, "2", ["b", "c"]), ("c", False, "3", ["B", "d"])], 3)]
    [['a', 'b', 'c'], ['b', 'd']]
    """
    made: dict[tuple[str, bool], list[Frame]] = {}
    for collection_, heavy, shape, keys in shapes:
        mine = {key.lower(): key for key in keys}
        own = made.setdefault((collection_, heavy), [])
        growths = [(len(mine.keys() - frame.keys.keys()), number) for number, frame in enumerate(own)]
        room = (
            own[number]
            for growth, number in sorted(growths)
            if growth + len(own[number].keys) <= limit
            and all(own[number].keys[lower] == mine[lower] for lower in mine.keys() & own[number].keys.keys())
        )
        frame = next(room, None)
        if frame is None:
            frame = Frame(collection_, heavy, {})
            own.append(frame)
        frame.keys |= mine
        frame.shapes.append(shape)
    return [frame for own in made.values() for frame in own]


def remove(found: "DataFrame", uri: str, database: str) -> int:
    """Delete documents, (collection, document_id), from where they are; executors do. Returns how many there were.

    Raises
    ------
    InputError
        MongoDB does not answer.
    """

    def delete(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        from pymongo import MongoClient, WriteConcern

        deleted = 0
        with MongoClient[Document](uri) as client:
            store, there = client[database], set(client[database].list_collection_names())
            for batch in batches:
                ids: dict[str, list[str]] = {}
                for row in batch.to_pylist():
                    ids.setdefault(row["collection"], []).append(row["document_id"])
                for name in sorted(ids.keys() & there):
                    target = store.get_collection(name, write_concern=WriteConcern(w="majority", j=True))
                    for start in range(0, len(ids[name]), _IDS):
                        deleted += target.delete_many({"_id": {"$in": ids[name][start : start + _IDS]}}).deleted_count
        yield pa.RecordBatch.from_pydict({"deleted": [deleted]})

    with answering():
        return sum(row.deleted for row in found.mapInArrow(delete, "deleted bigint").collect())


def counts(uri: str, database: str, exact: bool = False) -> dict[str, int]:
    """Documents in each of our collections that is there, as MongoDB's own book-keeping says, or counted one by one.

    Raises
    ------
    InputError
        MongoDB does not answer.
    """
    import pymongo

    with answering(), pymongo.MongoClient[Document](uri) as client:
        there = set(client[database].list_collection_names())
        names = [name for name in (*collections(), SERIES_COLLECTION) if name in there]
        if exact:
            return {name: client[database][name].count_documents({}) for name in names}
        return {name: client[database][name].estimated_document_count() for name in names}


def batched(
    rows: Iterable[Sequence[Any]], names: Sequence[str], types: "dict[str, pa.DataType] | None" = None
) -> "Iterator[pa.RecordBatch]":
    """Rows, whose third value is a long text, as record batches of bounded size. Columns are strings where ``types`` does not say."""
    import pyarrow as pa

    schema = pa.schema([(name, (types or {}).get(name, pa.string())) for name in names])
    chunk: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row[2] or "") + 256
        if size > BATCH_BYTES:
            yield _record_batch(chunk, schema)
            chunk, size = [], 0
    if chunk:
        yield _record_batch(chunk, schema)


def _record_batch(chunk: list[Sequence[Any]], schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    columns = zip(*chunk, strict=True)
    arrays = [pa.array(list(column), field_.type) for column, field_ in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _elsewhere(known: "DataFrame") -> "DataFrame":
    """Each document in every image collection but its own."""
    from pyspark.sql import functions as F

    own = F.col("collection").isin(collections())
    others = known.where(own).withColumn("other", F.explode(F.array(*map(F.lit, collections()))))
    return others.where("other <> collection").select(F.col("other").alias("collection"), "document_id")


@contextmanager
def answering() -> Iterator[None]:
    """Say what goes wrong with MongoDB in one sentence: a driver's own message can quote a document or the URI."""
    from py4j.protocol import Py4JError
    from pymongo.errors import PyMongoError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException, PyMongoError):
        raise InputError(
            "MongoDB did not answer, or did not take the header documents: see that it is up, then run the same command, which goes on"
        ) from None


def _widen(found: "DataFrame", fields: list[str]) -> "DataFrame":
    """Documents as a frame with a column per key, by tag. In Python: a projection of a thousand map look-ups takes Spark a minute."""
    from pyspark.sql.types import StringType, StructField, StructType

    names = [name[_TAG_DIGITS:] for name in fields]

    def convert(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        places = {name: place for place, name in enumerate(names)}
        for batch in batches:
            rows = batch.column("text").to_pylist()
            columns: list[list[str | None]] = [[None] * len(rows) for _ in names]
            for number, text in enumerate(rows):
                for key, value in orjson.loads(text).items():
                    columns[places[key]][number] = orjson.dumps(value).decode()
            yield pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], names)

    return found.mapInArrow(convert, StructType([StructField(name, StringType()) for name in names]))


def made(row: dict[str, Any]) -> tuple[str, str, list[tuple[str, str, Any]]]:
    """Collection, ``_id`` and (tag, key, value) of the document of a row of `documents`; see there."""
    elements = rebuild(row["elements"], row["differences"])
    if row["images"] is None:
        name = collection(row["modality"])
        header = _image_header(*(row[part] for part in ("document_id", "conflict", "locator", "size", "run_id")))
    else:
        name = SERIES_COLLECTION
        header = _series_header(row["document_id"], row["locator"], row["images"])
    return name, row["document_id"], list(_fields(elements, header))


def _image_header(document_id: str, conflict: bool, locator: str, size: int | None, run_id: str) -> Document:
    message = {
        "MessageGuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{document_id}")),
        "ProducerProcessID": 0,
        "ProducerExecutableName": PRODUCER,
        "Parents": "",
        "OriginalPublishTimestamp": 0,
    }
    header = {"DicomFilePath": file_path(locator), "DicomFileSize": size, "MessageHeader": message}
    return {"_id": document_id, "header": header} | ({"conflict": True} if conflict else {})


def _series_header(series_uid: str, locator: str, images: int) -> Document:
    folder = str(PurePosixPath(file_path(locator.partition("!")[0])).parent)
    return {"_id": series_uid, "header": {"DirectoryPath": "" if folder == "." else folder, "ImagesInSeries": images}}


def _fields(elements: Elements, header: Document) -> Iterator[tuple[str, str, Any]]:
    """(tag, key, value) of a document's top level; tags that sort before any other stand for what is no element."""
    for number, (key, value) in enumerate(header.items()):
        yield f"{'!' * (_TAG_DIGITS - 1)}{number}", key, value
    yield from _elements(elements)


def _elements(elements: Elements) -> Iterator[tuple[str, str, Any]]:
    for tag, element in elements.items():
        if tag.startswith("0002") or tag.endswith("0000"):
            continue
        key, with_vr = _naming(tag, _creator(elements, tag))
        value = _value(element)
        yield tag, key, {"vr": element["vr"], "val": value} if with_vr else value


def _creator(elements: Elements, tag: str) -> str | None:
    """Private creator of the block an element is in; None where it is not private, or the block has none."""
    if not int(tag[:4], 16) % 2 or int(tag[4:], 16) < 0x1000:
        return None
    values = elements.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or [None]
    return values[0] if isinstance(values[0], str) else None


@cache
def _naming(tag: str, creator: str | None) -> tuple[str, bool]:
    """Key of an element, and whether its value is written with its VR."""
    group, number, whole = int(tag[:4], 16), int(tag[4:], 16), int(tag, 16)
    if dictionary_has_tag(whole):
        keyword, private = keyword_for_tag(whole), False
        # Retired elements can lack a keyword.
        key = keyword or f"({tag[:4]},{tag[4:]})-Unknown".lower().replace("unknown", "Unknown")
        return key, " or " in dictionary_VR(whole)
    private = bool(group % 2)
    keyword = "Unknown"
    if repeater_has_tag(whole):
        keyword = keyword_for_tag(whole) or keyword
    elif private and 0x0010 <= number <= 0x00FF:
        keyword = "PrivateCreator"
    elif creator is not None:
        keyword = _private_keyword(whole, creator)
    place = f"({tag[:4]},{tag[4:]}".lower() + (f":{creator})" if creator is not None else ")")
    # MongoDB's keys have no dots here, as in SMI's documents, and no NUL anywhere.
    key = re.sub(r"[.\x00-\x1f]", "_", f"{place}-{keyword}")
    return key, private or not repeater_has_tag(whole) or " or " in dictionary_VR(whole)


def _private_keyword(tag: int, creator: str) -> str:
    try:
        name = get_private_entry(tag, creator)[2]
    except KeyError:
        return "Unknown"
    return re.sub(r"[^A-Za-z0-9]", "", name) or "Unknown"


def _value(element: dict[str, Any]) -> Any:
    rules, vr = load_schema("dicom/mongodb.yaml"), element["vr"]
    values = element.get("Value") or []
    if vr in rules["left_out"]:
        return None
    if vr in rules["numbers"]:
        numbers = [*values, *_unpacked(element.get("InlineBinary", ""), rules["numbers"][vr])]
        # What BSON has no number for is text.
        return [str(n) if isinstance(n, int) and abs(n) >= 2**63 else finite_or_text(n) for n in numbers] or None
    if vr == "SQ":
        return [body(item) for item in values] or None
    return "\\".join(_text(value) for value in values) if values else None


def _unpacked(encoded: str, code: str) -> list[int | float]:
    """Numbers of an OD, OF or OL value; their bytes are little-endian in the JSON model (PS3.18 F.2.7)."""
    data = base64.b64decode(encoded)
    return list(
        struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data[: len(data) // struct.calcsize(code) * struct.calcsize(code)])
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(cast("str", value.get(part, "")) for part in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value)
