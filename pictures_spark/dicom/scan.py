"""The header of a DICOM object: bytes in, one header record out.

Pure: no files, no Spark, no clock. Only the bytes before the pixel data are asked for, in a window that grows. Runs on executors.
Whatever the bytes are, the outcome is a :class:`HeaderRecord` or a :class:`ScanError` with a reason code; never another exception, and
never a message that quotes a value.
"""

import base64
import hashlib
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from typing import Any, Protocol, cast

import orjson
import pydicom.config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import ENCODED_VR, read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import STR_VR

from pictures_spark.remote import ChangedError
from pictures_spark.resources import load_schema
from pictures_spark.schema import Column, table

Elements = dict[str, dict[str, Any]]

DEFAULT_MAX_HEADER_BYTES = 64 << 20
_UNDEFINED = 0xFFFFFFFF
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
# Bytes in a word of the value representations whose byte order follows the transfer syntax.
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
# Item and Sequence Delimitation Item in either byte order, or an empty sequence.
_STARTS_OF_ITEMS = (b"", b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00", b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")


class ScanError(Exception):
    """An object that could not be read as DICOM: a reason code, and a detail without any value from the object."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def refusal(error: OSError) -> ScanError:
    """What is said of an object whose bytes cannot be had: ``changed``, ``timeout`` or ``unreadable``, and never its name."""
    reason = "changed" if isinstance(error, ChangedError) else "timeout" if isinstance(error, TimeoutError) else "unreadable"
    return ScanError(reason, error.strerror or type(error).__name__)


class ByteReader(Protocol):
    """Random access to an object's bytes. ``read_at`` gives fewer bytes than asked for only where the object ends."""

    @property
    def size(self) -> int | None:
        """Length of the object in bytes; None where it is not known beforehand."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset``."""


@dataclass(frozen=True)
class BytesReader:
    """A reader over bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset``."""
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class HeaderRecord:
    """What a header says.

    Attributes
    ----------
    kind : ``dicom``, or ``dicomdir`` for a media directory, of which only the file meta information is read.
    text : `elements` as packed JSON (`pack`).
    elements : every element before the pixel data, file meta information included, in the DICOM JSON model (PS3.18 F.2), by tag in
        ascending order. DS and IS are numbers where the number's own text is what the file holds, else the text (PS3.18 F.2.3 allows
        both), so nothing is rounded. A value longer than ``bulk_bytes`` is ``BulkDataURI: sha256:<hex>?length=<bytes>``; a value that
        does not fit its VR is kept as text, or as UN with its bytes; non-finite FL and FD are ``NaN``, ``Infinity``, ``-Infinity``.
    columns : the typed columns that schemas/identifiable/header_instance.yaml takes from an element. None where the element is absent,
        empty or not of the type; a number column is also None where the element holds several values.
    has_pixels : whether a pixel data element follows.
    """

    kind: str
    text: str
    columns: dict[str, Any]
    has_pixels: bool

    @cached_property
    def elements(self) -> Elements:
        """See above."""
        return cast("Elements", orjson.loads(self.text))


def scan(source: bytes | ByteReader, max_header_bytes: int = DEFAULT_MAX_HEADER_BYTES) -> HeaderRecord:
    """Read the header of one object.

    Preamble, file meta information and transfer syntax may be missing where the first bytes look like a data set.

    Parameters
    ----------
    source : the object's bytes, or a reader that fetches ranges of them.
    max_header_bytes : a longer header is refused.

    Raises
    ------
    ScanError
        ``not_dicom``; ``truncated`` (ends inside the header); ``bad_syntax``; ``missing_uid`` (SOP, series or study);
        ``too_large``; ``unreadable``, ``timeout`` or ``changed`` (the reader failed).

    Examples
    --------
    >>> scan(b"GIF89a, not an image of ours")
    Traceback (most recent call last):
        ...
    pictures_spark.dicom.scan.ScanError: not_dicom: neither the DICM mark nor a data set at the start
    """
    window = _Window(BytesReader(source) if isinstance(source, bytes) else source, max_header_bytes)
    try:
        with quiet():
            return _scan(window)
    except ScanError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever a broken header leads to; the class is all that may be told
        if window.failure is not None:
            raise window.failure from None
        if window.ended:
            raise ScanError("truncated", "the object ends inside its header") from None
        raise ScanError("bad_syntax", f"the header cannot be parsed ({type(error).__name__})") from None


def looks_like_dicom(head: bytes) -> bool:
    """Whether an object's first bytes (132 or more, where it has them) are DICOM, with or without preamble."""
    return head[128:132] == b"DICM" or _looks_like_data_set(head)


def finite_or_text(value: Any) -> Any:
    """A float that JSON has no number for as its name, ``NaN``, ``Infinity`` or ``-Infinity``; anything else as it is."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def pack(elements: Elements) -> str:
    """The stored text of elements: JSON, by tag in ascending order, without spaces."""
    return orjson.dumps(elements, option=orjson.OPT_SORT_KEYS).decode()


@cache
def columns_from() -> dict[str, tuple[str, ...]]:
    """Promoted column -> the tags that it is taken from, the one to fall back on last."""
    found: dict[str, tuple[str, ...]] = {}
    for column in promoted():
        keyword = cast("str", column.dicom)
        fallback = rules()["fallbacks"].get(keyword)
        found[column.name] = (_key(keyword), _key(fallback)) if fallback else (_key(keyword),)
    return found


def column_value(name: str, elements: Elements) -> Any:
    """A promoted column's value, from the elements of `columns_from`."""
    return _typed(table("identifiable", "header_instance").by_name[name], elements)


def promoted() -> tuple[Column, ...]:
    """The columns of header_instance that are taken from an element."""
    return tuple(column for column in table("identifiable", "header_instance").columns if column.dicom)


class _Window:
    """The file-like that pydicom reads: a prefix of the object that grows by steps, so that only header bytes are fetched."""

    def __init__(self, reader: ByteReader, limit: int) -> None:
        self.reader = reader
        self.limit = limit
        self.position = 0
        self.ended = False  # a read met the end of the object
        self.partial = False  # ... in the middle of what it asked for
        # pydicom turns any exception inside an item into its own, so the first failure is kept here.
        self.failure: ScanError | None = None
        self._data = bytearray()
        self._complete = False

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (self.position if whence == 1 else 0)
        return self.position

    def read(self, length: int) -> bytes:
        end = self.position + length
        self._fill(end)
        chunk = bytes(self._data[self.position : end])
        if len(chunk) < length:
            self.ended = True
            self.partial = bool(chunk)
        self.position += len(chunk)
        return chunk

    def _fill(self, end: int) -> None:
        while len(self._data) < end and not self._complete:
            if end > self.limit:
                size = self.reader.size
                if size is not None and end > size:
                    self._fail("truncated", "a value runs past the end of the object")
                self._fail("too_large", "the header is longer than max_header_bytes")
            target = min(max(end, self._step()), self.limit)
            missing = target - len(self._data)
            try:
                more = self.reader.read_at(len(self._data), missing)
            except OSError as error:
                self.failure = refusal(error)
                raise self.failure from None
            except ScanError as error:
                self.failure = error
                raise
            self._data += more
            self._complete = len(more) < missing

    def _step(self) -> int:
        steps: list[int] = rules()["windows"]
        return next((step for step in steps if step > len(self._data)), 2 * len(self._data))

    def _fail(self, reason: str, detail: str) -> None:
        self.failure = ScanError(reason, detail)
        raise self.failure


class _Inflated:
    """A reader over the deflated data set that starts at a window's position (PS3.5 A.5)."""

    size = None

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._data = bytearray()

    def read_at(self, offset: int, length: int) -> bytes:
        while len(self._data) < offset + length and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._window.read(1 << 14)
            if not packed:
                raise ScanError("truncated", "the deflated data set ends early")
            try:
                self._data += self._inflate.decompress(packed, 1 << 16)
            except zlib.error:
                raise ScanError("bad_syntax", "the deflated data set cannot be inflated") from None
        return bytes(self._data[offset : offset + length])


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom without its warnings and log lines, which quote values."""
    logger = pydicom.config.logger
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@cache
def rules() -> dict[str, Any]:
    """schemas/dicom/header.yaml."""
    return cast("dict[str, Any]", load_schema("dicom/header.yaml"))


@cache
def _pixel_tags() -> frozenset[int]:
    return frozenset(int(tag, 16) for tag in rules()["pixel_elements"])


def _scan(window: _Window) -> HeaderRecord:
    head = window.read(132)
    window.ended = window.partial = False
    if head[128:] == b"DICM":
        window.seek(132)
    elif _looks_like_data_set(head):
        window.seek(0)
    else:
        raise ScanError("not_dicom", "neither the DICM mark nor a data set at the start" if head else "the object is empty")

    meta = read_dataset(cast("Any", window), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    _check_complete(window, meta)
    elements = _data_set_json(meta, 0)
    if _text(elements, "MediaStorageSOPClassUID") == rules()["dicomdir_sop_class"]:
        return HeaderRecord("dicomdir", pack(elements), {}, False)

    command = read_dataset(cast("Any", window), True, True, stop_when=lambda tag, vr, length: tag >> 16 != 0)
    syntax = _text(elements, "TransferSyntaxUID") or _guess_syntax(window)
    if syntax == DeflatedExplicitVRLittleEndian:
        window = _Window(_Inflated(window), window.limit)
    stopped = False

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal stopped
        stopped = tag in _pixel_tags()
        return stopped

    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    data_set = read_dataset(cast("Any", window), implicit, little, stop_when=at_pixels)
    if not stopped:
        _check_complete(window, data_set)
    elements |= _data_set_json(command, 0) | _data_set_json(data_set, 0)
    missing = [keyword for keyword in rules()["required"] if not _text(elements, keyword)]
    if missing:
        raise ScanError("missing_uid", f"no {', '.join(missing)}")
    columns = {column.name: _typed(column, elements) for column in promoted()}
    columns["transfer_syntax_uid"] = columns["transfer_syntax_uid"] or str(syntax)
    return HeaderRecord("dicom", pack(elements), columns, stopped)


def _looks_like_data_set(head: bytes) -> bool:
    """A first element of group 0002 or 0008 with a known VR, or, in implicit VR, a known element of modest length."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group in (0x0002, 0x0008) and head[4:6] in ENCODED_VR:
            return True
        if order == "<" and group == 0x0008:
            (length,) = struct.unpack("<I", head[4:8])
            return public_vr(group << 16 | element) is not None and length <= 1024
    return False


def _guess_syntax(window: _Window) -> str:
    """The transfer syntax of a data set without one, from its first element."""
    first = window.read(6)
    window.seek(-len(first), 1)
    if first[4:6] not in ENCODED_VR:
        return ImplicitVRLittleEndian
    # Groups of a data set's start are below 0x0400 when read in the right byte order.
    return ExplicitVRLittleEndian if struct.unpack("<H", first[:2])[0] < 0x0400 else ExplicitVRBigEndian


def _check_complete(window: _Window, data_set: Dataset) -> None:
    """Refuse a data set that was cut off: pydicom takes whatever bytes are left as the last value, or ends quietly in a tag."""
    elements = [data_set.get_item(tag) for tag in data_set.keys()]  # noqa: SIM118 - iterating a Dataset would convert its values
    short = any(
        isinstance(raw, RawDataElement) and raw.length not in (0, _UNDEFINED) and len(raw.value or b"") != raw.length for raw in elements
    )
    if short or (window.ended and window.partial):
        raise ScanError("truncated", "the object ends inside its header")


@cache
def public_vr(tag: int) -> str | None:
    """VR of a tag in the DICOM dictionary; None where it is not there."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None


def _data_set_json(data_set: Dataset, depth: int) -> Elements:
    """The DICOM JSON model of a data set; every element is converted on its own, so that one bad value spoils no other."""
    if depth > rules()["max_depth"]:
        raise ScanError("bad_syntax", "sequences are nested too deeply")
    return {f"{tag:08X}": element_json(data_set, tag, depth) for tag in sorted(data_set.keys())}


def element_json(data_set: Dataset, tag: BaseTag, depth: int) -> dict[str, Any]:
    """One element in the DICOM JSON model; see :class:`HeaderRecord`."""
    stored = data_set.get_item(tag)
    raw = stored if isinstance(stored, RawDataElement) else None
    if raw is not None:
        vr = raw.VR if raw.VR and raw.VR != "UN" else public_vr(tag) or "UN"
        value = raw.value or b""
        if len(value) > rules()["bulk_bytes"] and vr != "SQ":
            return {"vr": vr.split(" or ")[-1], "BulkDataURI": f"sha256:{hashlib.sha256(value).hexdigest()}?length={len(value)}"}
        if vr in ("DS", "IS"):
            return number_strings(vr, value)
    try:
        element = data_set[tag]
        if element.VR == "SQ":
            if raw is not None and value[:4] not in _STARTS_OF_ITEMS:  # pydicom would take anything for an item
                return _as_found("UN", value)
            items = [_data_set_json(item, depth + 1) for item in element.value or []]
            return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        if raw is not None and element.VR in ("DS", "IS"):
            return number_strings(element.VR, raw.value or b"")
        return _clean(element.to_json_dict(None, 0), raw is not None and not raw.is_little_endian)
    except (ScanError, RecursionError):
        raise
    except Exception:
        if raw is None:
            raise
        return _as_found(vr, value)


def number_strings(vr: str, value: bytes) -> dict[str, Any]:
    """DS or IS: numbers where their text is the file's text, else the text itself; never an exception."""
    values = [_number_or_text(part.strip(" \0\t\r\n")) for part in value.decode("latin-1").rstrip(" \0").split("\\")]
    return {"vr": vr} if values == [None] else {"vr": vr, "Value": values}


def _number_or_text(text: str) -> int | float | str | None:
    if not text:
        return None
    if _INTEGER.fullmatch(text) and str(int(text)) == text:
        return int(text)
    number = _finite(text)
    return number if number is not None and repr(number) == text else text


def _as_found(vr: str, value: bytes) -> dict[str, Any]:
    """A value that does not fit its VR: text as text, anything else as UN with its bytes."""
    if vr in STR_VR:
        text = value.decode("latin-1").rstrip(" \0")
        if vr == "PN":
            return {"vr": vr, "Value": [{"Alphabetic": part} for part in text.split("\\")]}
        return {"vr": vr, "Value": text.split("\\")}
    return {"vr": "UN", "InlineBinary": base64.b64encode(value).decode()}


def _clean(element: dict[str, Any], big_endian: bool) -> dict[str, Any]:
    """pydicom's JSON element with what JSON cannot say made sayable, only plain types, and binary values little-endian (PS3.18 F.2.7)."""
    vr = {"US or SS": "US"}.get(element["vr"], element["vr"].split(" or ")[-1])
    if "InlineBinary" in element:
        width = _WORDS.get(vr, 1) if big_endian else 1
        data = base64.b64decode(element["InlineBinary"])
        swapped = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width)) if width > 1 else data
        return {"vr": vr, "InlineBinary": base64.b64encode(swapped).decode()}
    if "Value" not in element:
        return {"vr": vr}
    values = element["Value"]
    if not all(isinstance(value, str | int | float | dict | None) for value in values):
        raise ValueError("a value that JSON cannot hold")
    return {"vr": vr, "Value": [_plain(value) for value in values]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) or "" for name, part in value.items()}
    if isinstance(value, str):
        # A lone surrogate is no Unicode text and cannot be stored anywhere.
        return str(value).encode("utf-8", "replace").decode() if value else None
    if isinstance(value, float):
        return finite_or_text(float(value))
    return int(value) if value is not None else None


def _text(elements: Elements, keyword: str) -> str | None:
    """First value of a string element; None where absent or empty."""
    values = elements.get(_key(keyword), {}).get("Value") or [None]
    return values[0] if isinstance(values[0], str) and values[0].strip() else None


@cache
def _key(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"{keyword} is no DICOM keyword")
    return f"{tag:08X}"


def _typed(column: Column, elements: Elements) -> Any:
    """A promoted column's value from its element, or from the element it falls back on."""
    keyword = cast("str", column.dicom)
    value = _convert(column, public_vr(int(_key(keyword), 16)), elements.get(_key(keyword)))
    fallback = rules()["fallbacks"].get(keyword)
    if value is None and fallback:
        value = _convert(column, public_vr(int(_key(keyword), 16)), _part_of_date_time(column, elements.get(_key(fallback))))
    return value


def _part_of_date_time(column: Column, element: dict[str, Any] | None) -> dict[str, Any] | None:
    """The date or the time of day in a DT element (PS3.5 6.2); an offset from UTC is left out, as times of day have no zone."""
    values = (element or {}).get("Value") or [None]
    if not isinstance(values[0], str):
        return None
    text = values[0].strip()
    return {"vr": "DA", "Value": [text[:8]]} if column.type == "date" else {"vr": "TM", "Value": [re.split("[+-]", text[8:])[0]]}


def _convert(column: Column, vr: str | None, element: dict[str, Any] | None) -> Any:
    values = (element or {}).get("Value")
    if not values:
        return None
    match column.type:
        case "date":
            return _date(values[0])
        case "string" if vr == "TM":
            return _time(values[0])
        case "string":
            return "\\".join(_as_text(value) for value in values).strip() or None
        case "array<string>":
            return [_as_text(value) for value in values]
        case "double":
            return _finite(values[0]) if len(values) == 1 else None
        case "array<double>":
            numbers = [_finite(value) for value in values]
            return None if None in numbers else numbers
        case "long":
            number = _finite(values[0]) if len(values) == 1 else None
            return int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else None
    raise LookupError(f"column {column.name}: no element converts to {column.type}")


def _as_text(value: Any) -> str:
    if isinstance(value, dict):  # a person name
        return "=".join(value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value)


def _finite(value: Any) -> float | None:
    """A finite number from a JSON number or a decimal string; None for anything else, such as ``1.5mm`` or ``1,5``."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            return None
        value = float(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _date(value: Any) -> date | None:
    """A DA value, ``YYYYMMDD`` or the older ``YYYY.MM.DD``; None where it is no date."""
    match = re.fullmatch(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})", value.strip()) if isinstance(value, str) else None
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None


def _time(value: Any) -> str | None:
    """A TM value as ``HH:MM:SS``: absent parts are zero, fractions are cut, a leap second is the second before it."""
    match = re.fullmatch(r"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:\.[0-9]*)?)?)?", value.strip()) if isinstance(value, str) else None
    if not match:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups())
    return f"{hour:02}:{minute:02}:{min(second, 59):02}" if hour < 24 and minute < 60 and second <= 60 else None
