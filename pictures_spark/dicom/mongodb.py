"""Header documents in MongoDB, in the shape that SmiServices sites query, written by the MongoDB Spark connector.

`document` is pure: a header in, one document out. `documents` makes them on executors; `write` lets executors send them. Delta is the
system of record: a document is replaced as a whole under its ``_id``, so writing it again changes nothing.
"""

import base64
import itertools
import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import orjson
from pydicom.datadict import dictionary_has_tag, dictionary_VR, get_private_entry, keyword_for_tag, repeater_has_tag

from pictures_spark.dicom.scan import Elements, finite_or_text
from pictures_spark.dicom.templates import rebuild
from pictures_spark.errors import InputError
from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from pictures_spark.dicom.structures import Header

Document = dict[str, Any]
PRODUCER = "pictures catalogue"
_DOCUMENTS = "collection string, fields map<string,string>"
_TAG_DIGITS = 8
# Keys hold private creators, free text of a header: the plans in Spark's event log must not name the columns that are made of them.
_NAMELESS_PLANS = {"spark.sql.ui.explainMode": "simple", "spark.sql.debug.maxToStringFields": "0"}
# Rows of one Arrow batch from a worker: documents of 20 KB each make them a few MB.
_ROWS = 256


def document(elements: Elements, document_id: str, conflict: bool, locator: str, size: int | None, run_id: str) -> Document:
    """The document of an instance.

    ``_id``, SMI's ``header`` (the message fields that there is no message for are left out; nothing in it changes when a run is repeated),
    ``conflict: true`` where the SOP UID has other contents too, then the data set's elements by tag. See `body` for keys and values.
    """
    return {key: value for _, key, value in _fields(elements, document_id, conflict, locator, size, run_id)}


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


def fits(header: "Header") -> bool:
    """Whether the document of an instance is one that MongoDB takes."""
    limit: int = load_schema("dicom/mongodb.yaml")["document_bytes"]
    # No value takes more than 13 bytes in BSON per byte of JSON: a number of one digit in a long array.
    if header.length * 13 < limit:
        return True
    import bson

    text = header.text
    longest = document(orjson.loads(text), "1" * 81, True, "", 0, "")
    return len(bson.encode(longest)) + len(text.encode()) // 1000 + 4096 < limit


def documents(rows: "DataFrame") -> "DataFrame":
    """Documents of instances, as (collection, fields): each field's JSON under its key, which its tag comes before.

    Parameters
    ----------
    rows : columns elements (the template's), differences, document_id, conflict, modality, locator, size, run_id.
    """

    def convert(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        schema = pa.schema([("collection", pa.string()), ("fields", pa.map_(pa.string(), pa.string()))])
        found = (_sendable(row) for batch in batches for row in batch.to_pylist())
        while chunk := list(itertools.islice(found, _ROWS)):
            yield pa.RecordBatch.from_pylist(chunk, schema)

    return rows.mapInArrow(convert, _DOCUMENTS)


def write(found: "DataFrame", uri: str, database: str) -> None:
    """Replace or insert documents by ``_id``.

    The connector takes rows, so each collection is written as a frame with a column per key that occurs in it; ``convertJson`` makes every
    JSON text the value it says, and a column that is null in a row is a key that its document does not have.

    Raises
    ------
    InputError
        MongoDB does not take the documents.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    session = found.sparkSession
    before = {name: session.conf.get(name) for name in _NAMELESS_PLANS}
    for name, value in _NAMELESS_PLANS.items():
        session.conf.set(name, value)
    found = found.persist()
    keys: dict[str, list[str]] = {}
    for name, field in found.select("collection", F.explode(F.map_keys("fields"))).distinct().collect():
        keys.setdefault(name, []).append(field)
    options = {
        "connection.uri": uri,
        "database": database,
        "convertJson": "any",
        "ignoreNullValues": "true",
        "operationType": "replace",
        "upsertDocument": "true",
        "idFieldList": "_id",
    }
    try:
        for name in sorted(keys):
            wide = _widen(found.where(F.col("collection") == name), sorted(keys[name]))
            wide.write.format("mongodb").mode("append").options(**options).option("collection", name).save()
    except (Py4JError, PySparkException):
        # The driver's own message can quote a document.
        raise InputError("MongoDB did not take the header documents: see that it is up, then run the same command, which goes on") from None
    finally:
        for name, old in before.items():
            session.conf.set(name, cast("str", old))
        found.unpersist()


def _widen(found: "DataFrame", fields: list[str]) -> "DataFrame":
    """Documents as a frame with a column per key, by tag. In Python: a projection of a thousand map look-ups takes Spark a minute."""
    from pyspark.sql.types import StringType, StructField, StructType

    names = [field[_TAG_DIGITS:] for field in fields]

    def convert(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            rows = [dict(row) for row in batch.column("fields").to_pylist()]
            columns = [pa.array([row.get(field) for row in rows], pa.string()) for field in fields]
            yield pa.RecordBatch.from_arrays(columns, names)

    return found.select("fields").mapInArrow(convert, StructType([StructField(name, StringType()) for name in names]))


def count(uri: str, database: str) -> int:
    """Documents in all image collections."""
    import pymongo

    with pymongo.MongoClient[Document](uri) as client:
        there = set(client[database].list_collection_names())
        return sum(client[database][name].count_documents({}) for name in collections() if name in there)


def _sendable(row: dict[str, Any]) -> dict[str, Any]:
    elements = rebuild(row["elements"], row["differences"])
    fields = _fields(elements, *(row[name] for name in ("document_id", "conflict", "locator", "size", "run_id")))
    return {
        "collection": collection(row["modality"]),
        "fields": [(f"{tag}{key}", orjson.dumps(value).decode()) for tag, key, value in fields],
    }


def _fields(
    elements: Elements, document_id: str, conflict: bool, locator: str, size: int | None, run_id: str
) -> Iterator[tuple[str, str, Any]]:
    """(tag, key, value) of a document's top level; tags that sort before any other stand for what is no element."""
    yield "!" * 7 + "0", "_id", document_id
    message = {"MessageGuid": run_id, "ProducerExecutableName": PRODUCER, "Parents": []}
    yield "!" * 7 + "1", "header", {"DicomFilePath": locator, "DicomFileSize": size, "MessageHeader": message}
    if conflict:
        yield "!" * 7 + "2", "conflict", True
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
