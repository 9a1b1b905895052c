"""The header of a DICOM object: bytes in, one header record out.

Pure: no files, no Spark, no clock. Only the bytes before the pixel data are asked for, in a window that grows, each once and in order.
Runs on executors. Whatever the bytes are, the outcome is a :class:`HeaderRecord` or a :class:`ScanError` with a reason code; never another
exception, and never a message that quotes a value.

The top level is walked here, so that a long value goes by in pieces, hashed and not kept; what a kept value means is left to pydicom.
"""

import base64
import hashlib
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache, cached_property, lru_cache
from typing import Any, Protocol, cast

import orjson
import pydicom.config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filereader import ENCODED_VR
from pydicom.hooks import hooks
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STR_VR

from pictures_spark.remote import ChangedError
from pictures_spark.resources import load_schema
from pictures_spark.schema import Column, table

Elements = dict[str, dict[str, Any]]

DEFAULT_MAX_HEADER_BYTES = 16 << 20
# Of an object, what readers keep for a second look.
KEPT_BYTES = 4 << 20
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
_CHARACTER_SET = BaseTag(0x00080005)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_INTEGER = re.compile(r"-?[0-9]{1,18}")
# No two parts of it can match the same text, or a long value would take for ever; what it takes for blanks, float() does too.
_DECIMAL = re.compile(r"[ \t-\r]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t-\r]*")
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
    """An object's bytes by range. ``read_at`` gives fewer bytes than asked for only where the object ends.

    ``scan`` asks for every range once, in order and without gaps, so that a reader may forget what it gave, or only go forward.
    """

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


class Kept:
    """A reader that keeps the first ``KEPT_BYTES`` it has read of another one, so that a second look costs no second read.

    What comes after goes by: it is read anew, or where the other reader only goes forward, only once.
    """

    def __init__(self, reader: ByteReader, prefix: bytes = b"") -> None:
        self._reader = reader
        self._prefix = prefix

    @property
    def size(self) -> int | None:
        """Length in bytes, where known."""
        return self._reader.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset``."""
        kept, end = len(self._prefix), offset + length
        if end <= kept:
            return self._prefix[offset:end]
        if offset > kept:
            return self._reader.read_at(offset, length)
        more = self._reader.read_at(kept, end - kept)
        found = self._prefix[offset:] + more
        self._prefix += more[: KEPT_BYTES - kept]
        return found


@dataclass(frozen=True)
class HeaderRecord:
    """What a header says.

    Attributes
    ----------
    kind : ``dicom``, or ``dicomdir`` for a media directory, of which only the file meta information is read.
    text : `elements` as packed JSON (`pack`).
    elements : every element before the pixel data, file meta information included, in the DICOM JSON model (PS3.18 F.2), by tag in
        ascending order. DS and IS are numbers where the number's own text is what the file holds, else the text (PS3.18 F.2.3 allows
        both), so nothing is rounded. A value longer than ``bulk_bytes``, or a sequence longer than ``bulk_sequence_bytes``, is
        ``BulkDataURI: sha256:<hex>?length=<bytes>``, of its raw bytes without a closing delimiter; a functional groups sequence keeps
        beside it ``Value``, one item per frame, with only what schemas/derive/functional_groups.yaml names. A value that does not fit
        its VR is kept as text, or as UN with its bytes; non-finite FL and FD are ``NaN``, ``Infinity``, ``-Infinity``.
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
    max_header_bytes : a header of which more than this is to be kept is refused; values too long to be kept do not count.

    Raises
    ------
    ScanError
        ``not_dicom``; ``truncated`` (ends inside the header); ``bad_syntax``; ``missing_uid`` (SOP, series or study);
        ``too_large`` (bytes kept, or ``max_elements``, ``max_values``, ``max_inflated_bytes`` of schemas/dicom/header.yaml);
        ``unreadable``, ``timeout`` or ``changed`` (the reader failed).

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
    """An object's bytes from its start on, fetched by steps that grow, so that only header bytes are fetched; what was read is forgotten.

    ``limit`` bounds what is kept of the header (`keep`), ``end`` is where reading must stop before the object's own end, ``taken`` is the
    value that what is read belongs to.
    """

    def __init__(self, reader: ByteReader, limit: int) -> None:
        self.reader = reader
        self.limit = limit
        self.end: int | None = None
        self.taken: _Taken | None = None
        self.fetched = 0
        self.kept = 0
        self.elements = 0
        self.heads = 0
        self._buffer = b""
        self._at = 0

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self.fetched - len(self._buffer) + self._at

    def peek(self, length: int) -> bytes:
        """The next bytes without going on; fewer where the object ends."""
        if self._at + length > len(self._buffer):
            self._fill(length)
        return self._buffer[self._at : self._at + length]

    def read(self, length: int) -> bytes:
        """The next bytes, all of them."""
        if self._at + length > len(self._buffer) or self.end is not None:
            self.check_room(length)
        chunk = self.peek(length)
        if len(chunk) < length:
            raise ScanError("truncated", "the object ends inside its header")
        self._at += length
        if self.taken is not None:
            self.taken.add(chunk)
        return chunk

    def pass_by(self, length: int) -> None:
        """Read the next bytes piece by piece, for what they are taken by alone."""
        self.check_room(length)
        while length:
            piece = min(length, max(len(self._buffer) - self._at, rules()["windows"][-1]))
            self.read(piece)
            length -= piece

    def check_room(self, length: int) -> None:
        """Refuse a length that cannot be, before anything of it is fetched."""
        if self.end is not None and self.position + length > self.end:
            raise ScanError("bad_syntax", "an item is longer than its sequence")
        if self.reader.size is not None and self.position + length > self.reader.size:
            raise ScanError("truncated", "a value runs past the end of the object")

    def keep(self, length: int) -> None:
        """Count an element of which ``length`` bytes are kept."""
        self.kept += length
        self.elements += 1
        if self.kept > self.limit:
            raise ScanError("too_large", "more than max_header_bytes of the header are to be kept")
        if self.elements > rules()["max_elements"]:
            raise ScanError("too_large", "the header has too many elements")

    def count_head(self, heads: int = 1) -> None:
        """Count heads of elements met, kept or not."""
        self.heads += heads
        if self.heads > rules()["max_heads"]:
            raise ScanError("too_large", "the header has too many elements")

    def _fill(self, length: int) -> None:
        left = self._buffer[self._at :]
        missing = length - len(left)
        steps: list[int] = rules()["windows"]
        step = next((step - self.fetched for step in steps if step > self.fetched), steps[-1])
        try:
            more = self.reader.read_at(self.fetched, max(missing, step))
        except OSError as error:
            raise refusal(error) from None
        self.fetched += len(more)
        self._buffer, self._at = left + more, 0


class _Taken:
    """The bytes of one value as they go by: kept up to a limit, beyond it only hashed."""

    def __init__(self, limit: int, inner: "_Taken | None" = None) -> None:
        self.length = 0
        self.inner = inner  # takes the same bytes: those of one item
        self._limit = limit
        self._kept = bytearray()
        self._digest: Any = None

    def add(self, data: bytes) -> None:
        """The next bytes."""
        self.length += len(data)
        if self.inner is not None:
            self.inner.add(data)
        if self._digest is not None:
            self._digest.update(data)
            return
        self._kept += data
        if self.length > self._limit:
            self._digest = hashlib.sha256(self._kept)
            self._kept = bytearray()

    @property
    def value(self) -> bytes | None:
        """The value; None where it is longer than the limit."""
        return bytes(self._kept) if self._digest is None else None

    @property
    def uri(self) -> str:
        """What stands for a value that is not kept."""
        return _bulk_uri(self._digest.hexdigest(), self.length)


class _Inflated:
    """A reader over the deflated data set that starts at a window's position (PS3.5 A.5); goes only forward."""

    size = None

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > rules()["max_inflated_bytes"] + rules()["windows"][-1]:
            raise ScanError("too_large", "the deflated data set is longer than any real header")
        data = bytearray()
        while len(data) < length and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = self._window.peek(1 << 14)
                self._window.read(len(packed))
            try:
                data += self._inflate.decompress(packed, length - len(data))
            except zlib.error:
                raise ScanError("bad_syntax", "the deflated data set cannot be inflated") from None
            if not packed and len(data) < length and not self._inflate.eof:
                raise ScanError("truncated", "the deflated data set ends early")
        return bytes(data)


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
    head = window.peek(132)
    if head[128:] == b"DICM":
        window.read(132)
    elif not _looks_like_data_set(head):
        raise ScanError("not_dicom", "neither the DICM mark nor a data set at the start" if head else "the object is empty")

    budget = _Budget()
    elements = _part(window, False, True, lambda tag: tag >> 16 != 2, budget)
    if _text(elements, "MediaStorageSOPClassUID") == rules()["dicomdir_sop_class"]:
        return HeaderRecord("dicomdir", pack(elements), {}, False)

    elements |= _part(window, True, True, lambda tag: tag >> 16 != 0, budget)
    syntax = _text(elements, "TransferSyntaxUID") or _guess_syntax(window)
    if syntax == DeflatedExplicitVRLittleEndian:
        # What is kept of it is counted as a header of its own: the file meta information is short.
        window = _Window(_Inflated(window), window.limit)
    has_pixels = False

    def at_pixels(tag: int) -> bool:
        nonlocal has_pixels
        has_pixels = tag in _pixel_tags()
        return has_pixels

    elements |= _part(window, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian, at_pixels, budget)
    missing = [keyword for keyword in rules()["required"] if not _text(elements, keyword)]
    if missing:
        raise ScanError("missing_uid", f"no {', '.join(missing)}")
    columns = {column.name: _typed(column, elements) for column in promoted()}
    columns["transfer_syntax_uid"] = columns["transfer_syntax_uid"] or str(syntax)
    return HeaderRecord("dicom", pack(elements), columns, has_pixels)


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
    first = window.peek(6)
    if first[4:6] not in ENCODED_VR:
        return ImplicitVRLittleEndian
    # Groups of a data set's start are below 0x0400 when read in the right byte order.
    return ExplicitVRLittleEndian if struct.unpack("<H", first[:2])[0] < 0x0400 else ExplicitVRBigEndian


@dataclass
class _Budget:
    """What has been converted of a header so far; a hostile one would have no end."""

    elements: int = 0
    values: int = 0

    def spend(self, values: int) -> None:
        """Count one element of so many values."""
        self.elements += 1
        self.values += values
        if self.elements > rules()["max_elements"]:
            raise ScanError("too_large", "the header has too many elements")
        if self.values > rules()["max_values"]:
            raise ScanError("too_large", "the header has too many values")


def _part(window: _Window, implicit: bool, little: bool, stop: "Callable[[int], bool]", budget: _Budget) -> Elements:
    """The elements of one part of an object, of which some may be too long to be kept, up to the one to stop at or the object's end."""
    data_set, long_ones = _walk(window, _implicit_here(window, implicit), little, stop)
    elements = _data_set_json(data_set, 0, budget)
    for tag, element in long_ones.items():
        elements[f"{tag:08X}"] = {"vr": _vr_of(data_set, element.head), **element.said}
    return dict(sorted(elements.items()))


@dataclass
class _Long:
    """An element that is not kept: what its VR is told from, and the rest of its JSON."""

    head: RawDataElement
    said: dict[str, Any]


def _walk(window: _Window, implicit: bool, little: bool, stop: "Callable[[int], bool] | None") -> tuple[Dataset, dict[BaseTag, _Long]]:
    """The elements of a data set as their bytes, and those that are too long for it. Of elements with one tag the last one counts."""
    raws: dict[BaseTag, RawDataElement] = {}
    long_ones: dict[BaseTag, _Long] = {}
    order = "<" if little else ">"
    while True:
        head = window.peek(8)
        if len(head) < 8:
            if head:
                raise ScanError("truncated", "the object ends inside its header")
            break
        group, number = struct.unpack(f"{order}HH", head[:4])
        tag = BaseTag(group << 16 | number)
        if stop is not None and stop(tag):
            break
        if tag == _ITEM_END:
            raise ScanError("bad_syntax", "an item ends where none has begun")
        vr, length = _head(window, implicit, order)
        taken = _Taken(rules()["bulk_bytes"])
        facts: _Facts | None = None
        if length == _UNDEFINED:
            vr = _open_vr(window, tag, vr, order)
        known = public_vr(tag) if vr in (None, "UN") else vr
        if known == "SQ" or (length == _UNDEFINED and vr == "SQ"):
            taken = _Taken(rules()["bulk_sequence_bytes"])
            facts = _Facts(window, little) if tag in _functional_groups() else None
        if length != _UNDEFINED and length <= rules()[("bulk_sequence_bytes" if known == "SQ" else "bulk_bytes")]:
            value: bytes | None = window.read(length)
        else:
            window.taken = taken
            _take(window, vr, length, implicit, order, facts)
            window.taken = None
            value = taken.value
        window.keep(len(value) if value is not None else facts.kept if facts else 0)
        raws.pop(tag, None)
        long_ones.pop(tag, None)
        size = length if length != _UNDEFINED else taken.length
        raw = RawDataElement(tag, vr, size, value, 0, implicit, little)
        if value is not None:
            raws[tag] = raw
        else:
            long_ones[tag] = _Long(raw, _long_json(taken, facts))
    data_set = Dataset(cast("Any", raws))
    data_set.set_original_encoding(implicit, little, _encoding(raws.get(_CHARACTER_SET)))
    return data_set, long_ones


def _head(window: _Window, implicit: bool, order: str) -> tuple[str | None, int]:
    """VR, None where it has none, and length of the element at the window's position (PS3.5 7.1)."""
    head = window.read(8)
    window.count_head()
    vr = head[4:6]
    if implicit or (vr not in ENCODED_VR and not b"AA" <= vr <= b"ZZ"):  # some writers change to implicit VR where they should not
        return None, _number(head[4:], order)
    name = vr.decode("latin-1")
    return name, _number(window.read(4) if name in _LONG_VRS else head[6:], order)


def _number(data: bytes, order: str) -> int:
    return int.from_bytes(data, "little" if order == "<" else "big")


def _implicit_here(window: _Window, otherwise: bool) -> bool:
    """Whether the data set at the window's position has no VRs: its first element tells, whatever the transfer syntax says."""
    first = window.peek(6)
    return otherwise if len(first) < 6 else not (0x41 <= first[4] <= 0x5A and 0x41 <= first[5] <= 0x5A)


def _open_vr(window: _Window, tag: int, vr: str | None, order: str) -> str | None:
    """The VR of a value of undefined length: SQ where it is a sequence in all but name (PS3.5 6.2.2)."""
    if vr == "UN":
        return "SQ"
    if vr is None:
        vr = public_vr(tag)
        if vr is None and window.peek(4) == struct.pack(f"{order}HH", 0xFFFE, 0xE000):
            return "SQ"
    return vr


def _take(window: _Window, vr: str | None, length: int, implicit: bool, order: str, facts: "_Facts | None") -> None:
    """Pass one value by, with the facts of its items where these are wanted; its delimiter is not taken."""
    if length == _UNDEFINED:
        if vr == "SQ":
            _take_items(window, implicit, order, facts)
        else:
            _find_delimiter(window, order)
        window.taken = None
        window.read(8)
        return
    end = window.position + length
    if facts is not None:
        window.check_room(length)
        window.end = end
        try:
            _take_items(window, implicit, order, facts)
        except ScanError as error:
            if error.reason != "bad_syntax":
                raise
            facts.spoil()
        window.end = cast("_Taken", window.taken).inner = None
    window.pass_by(end - window.position)


def _take_items(window: _Window, implicit: bool, order: str, facts: "_Facts | None") -> None:
    """Pass the items of a sequence by, up to its delimiter or the window's end; what they are nested in is on a stack of our own.

    Each level of the stack is (inside an item?, implicit VR?).
    """
    taken = cast("_Taken", window.taken)
    levels = [(False, implicit)]
    depth = 1
    unpack = struct.Struct(f"{order}HHL").unpack
    while True:
        in_item, implicit = levels[-1]
        if len(levels) == 1 and window.position == window.end:
            return
        head = window.peek(8)
        if len(head) < 8:
            raise ScanError("truncated", "the object ends inside its header")
        group, number, length = unpack(head)
        tag = group << 16 | number
        if in_item and tag != _ITEM_END:
            vr, length = _head(window, implicit, order)
            if length != _UNDEFINED:
                window.pass_by(length)
            elif _open_vr(window, tag, vr, order) != "SQ":
                _find_delimiter(window, order)
                window.read(8)
            elif depth == rules()["max_depth"]:
                raise ScanError("bad_syntax", "sequences are nested too deeply")
            else:
                depth += 1
                levels.append((False, implicit))
        elif in_item:
            levels.pop()
            if facts is not None and len(levels) == 1:
                facts.end_item(taken, levels[0][1])
            window.read(8)
        elif tag == _SEQUENCE_END:
            if len(levels) == 1:
                return
            levels.pop()
            depth -= 1
            window.read(8)
        elif tag != _ITEM:
            raise ScanError("bad_syntax", "a sequence holds something else than items")
        else:
            window.read(8)
            window.count_head()
            if facts is not None and len(levels) == 1:
                taken.inner = _Taken(rules()["bulk_sequence_bytes"])
            if length == _UNDEFINED:
                levels.append((True, implicit or _implicit_here(window, implicit)))
            else:
                window.pass_by(length)
                if facts is not None and len(levels) == 1:
                    facts.end_item(taken, implicit)


def _find_delimiter(window: _Window, order: str) -> None:
    """Pass a value of undefined length that is no sequence by, up to its delimiter."""
    item, delimiter = (struct.pack(f"{order}HH", 0xFFFE, number) for number in (0xE000, 0xE0DD))
    while window.peek(4) == item:
        length = _number(window.peek(8)[4:], order)
        if length == _UNDEFINED:
            break
        window.read(8)
        window.pass_by(length)
    while True:
        # Mostly it is here; where the value is not made of fragments, it is looked for.
        ahead = window.peek(1 << 13)
        place = ahead.find(delimiter)
        if place >= 0:
            window.read(place)
            return
        if len(ahead) < 1 << 13:
            raise ScanError("truncated", "the object ends inside its header")
        window.read(len(ahead) - 3)


@dataclass
class _Facts:
    """What is kept of the items of a functional groups sequence that is too long: the values that publish unfolds, and how many frames."""

    window: _Window
    little: bool
    items: list[dict[str, Any]] | None = field(default_factory=list)
    kept: int = 0
    _known: dict[Any, tuple[dict[str, Any], int]] = field(default_factory=dict)

    def end_item(self, taken: _Taken, implicit: bool) -> None:
        """The item whose bytes are taken is at its end."""
        inner, taken.inner = taken.inner, None
        if inner is not None and self.items is not None:
            self._add(inner.value, implicit)

    def _add(self, item: bytes | None, implicit: bool) -> None:
        """The next frame; None, one too long to be looked into."""
        found: dict[str, Any] = {}
        elements = self._elements(item, implicit, _functional_group_values()) if item else {}
        for group, raw in elements.items():
            key = (group, raw.VR, raw.is_implicit_VR, raw.value)
            if key not in self._known:
                self._remember(key, raw)
            found[f"{group:08X}"], size = self._known[key]
            self.kept += size
        self.kept += 4
        cast("list[Any]", self.items).append(found)
        if self.kept > self.window.limit:
            self.spoil()

    def spoil(self) -> None:
        """The items cannot be told apart, or are too many, so nothing is said of them."""
        self.items, self.kept = None, 0

    def _remember(self, key: Any, raw: RawDataElement) -> None:
        """Read one functional group: of its first item, the attributes that are unfolded."""
        value = raw.value or b""
        said: dict[str, Any] = {"vr": "SQ"}
        if value[:4] == struct.pack("<HH" if self.little else ">HH", 0xFFFE, 0xE000):
            (length,) = struct.unpack("<L" if self.little else ">L", value[4:8])
            item = value[8:] if length == _UNDEFINED else value[8 : 8 + length]
            wanted = _functional_group_values()[raw.tag]
            data_set = Dataset(cast("Any", self._elements(item, raw.is_implicit_VR, wanted)))
            said["Value"] = [_data_set_json(data_set, 2, _Budget())]
        if len(self._known) >= rules()["remembered_groups"]:
            self._known.clear()
        self._known[key] = said, len(pack(said)) + 12

    def _elements(self, item: bytes, implicit: bool, wanted: Container[BaseTag]) -> dict[BaseTag, RawDataElement]:
        """Those of an item's elements that are wanted; none where the item is broken."""
        window = _Window(BytesReader(item), len(item))
        try:
            data_set, _ = _walk(window, implicit or _implicit_here(window, implicit), self.little, lambda tag: tag == _ITEM_END)
        except ScanError:
            return {}
        finally:
            self.window.count_head(window.heads)
        found = {tag: cast("RawDataElement", data_set.get_item(tag)) for tag in sorted(data_set.keys()) if tag in wanted}
        return {tag: raw for tag, raw in found.items() if len(raw.value or b"") <= rules()["group_bytes"]}


@cache
def _functional_groups() -> frozenset[int]:
    rule = load_schema("derive/functional_groups.yaml")
    return frozenset(int(_key(rule[name]), 16) for name in ("shared", "per_frame"))


@cache
def _functional_group_values() -> dict[BaseTag, frozenset[BaseTag]]:
    """Tag of a functional group -> the tags of its attributes that are unfolded."""
    found: dict[BaseTag, set[BaseTag]] = {}
    for where in load_schema("derive/functional_groups.yaml")["columns"].values():
        found.setdefault(BaseTag(int(_key(where["sequence"]), 16)), set()).add(BaseTag(int(_key(where["attribute"]), 16)))
    return {tag: frozenset(attributes) for tag, attributes in found.items()}


def _long_json(taken: _Taken, facts: _Facts | None) -> dict[str, Any]:
    said: dict[str, Any] = {"BulkDataURI": taken.uri}
    if facts is not None and facts.items:
        said["Value"] = facts.items
    return said


def _bulk_uri(sha256: str, length: int) -> str:
    return f"sha256:{sha256}?length={length}"


def _encoding(raw: RawDataElement | None) -> Any:
    """Python's names of a data set's character sets."""
    if raw is None:
        return default_encoding
    # pydicom keeps all of them with every name that it reads.
    return list(convert_encodings(cast("Any", convert_raw_data_element(raw).value)))[: rules()["max_character_sets"]]


def _vr_of(data_set: Dataset, raw: RawDataElement) -> str:
    """The VR of an element whose value is not converted: its own, or that of the dictionaries."""
    if raw.VR and raw.VR != "UN":
        vr: str = raw.VR
    elif raw.tag.is_private:
        found: dict[str, Any] = {}
        try:
            hooks.raw_element_vr(raw._replace(VR=None), found, ds=data_set)
            vr = found["VR"]
        except Exception:  # noqa: BLE001 - a private creator may be anything
            vr = "UN"
    else:
        vr = public_vr(raw.tag) or "UN"
    return vr.split(" or ")[-1]


@lru_cache(maxsize=1 << 13)  # a hostile archive has tags without end
def public_vr(tag: int) -> str | None:
    """VR of a tag in the DICOM dictionary; None where it is not there."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None


def _data_set_json(data_set: Dataset, depth: int, budget: _Budget) -> Elements:
    """The DICOM JSON model of a data set; every element is converted on its own, so that one bad value spoils no other."""
    if depth > rules()["max_depth"]:
        raise ScanError("bad_syntax", "sequences are nested too deeply")
    return {f"{tag:08X}": element_json(data_set, tag, depth, budget) for tag in sorted(data_set.keys())}


def element_json(data_set: Dataset, tag: BaseTag, depth: int, budget: _Budget | None = None) -> dict[str, Any]:
    """One element in the DICOM JSON model; see :class:`HeaderRecord`.

    ``data_set`` holds it as raw bytes, so that it may be told how long it is, with its character set, Pixel Representation and private
    creator. ``depth`` is 0 at the top level.
    """
    budget = budget or _Budget()
    stored = data_set.get_item(tag)
    raw = stored if isinstance(stored, RawDataElement) else None
    if raw is not None:
        vr = raw.VR if raw.VR and raw.VR != "UN" else public_vr(tag) or "UN"
        value = raw.value or b""
        if vr == "SQ" and raw.VR == "UN":  # pydicom leaves the longer ones as they are
            raw = raw._replace(VR="SQ")
            data_set[tag] = cast("Any", raw)
        if vr == "SQ" and depth == 0 and len(value) > rules()["bulk_sequence_bytes"]:
            return _long_sequence(raw, value)
        if len(value) > rules()["bulk_bytes"] and vr != "SQ":
            return {"vr": _vr_of(data_set, raw), "BulkDataURI": _bulk_uri(hashlib.sha256(value).hexdigest(), len(value))}
        budget.spend(1 + value.count(b"\\") if vr in STR_VR else 1 + len(value) // 2 if vr not in ("SQ", "OB", "OW", "UN") else 1)
        if vr in ("DS", "IS"):
            return number_strings(vr, value)
    try:
        element = data_set[tag]
        if element.VR == "SQ":
            if raw is not None and value[:4] not in _STARTS_OF_ITEMS:  # pydicom would take anything for an item
                return _as_found("UN", value)
            items = [_data_set_json(item, depth + 1, budget) for item in element.value or []]
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


def _long_sequence(raw: RawDataElement, value: bytes) -> dict[str, Any]:
    """A long sequence that is in memory, as a walk over the object reads it."""
    window = _Window(BytesReader(value), DEFAULT_MAX_HEADER_BYTES)
    taken = _Taken(rules()["bulk_sequence_bytes"])
    facts = _Facts(window, raw.is_little_endian) if raw.tag in _functional_groups() else None
    window.taken = taken
    _take(window, "SQ", len(value), raw.is_implicit_VR, "<" if raw.is_little_endian else ">", facts)
    return {"vr": "SQ", **_long_json(taken, facts)}


def number_strings(vr: str, value: bytes) -> dict[str, Any]:
    """DS or IS: numbers where their text is the file's text, else the text itself; never an exception."""
    values = [number_or_text(part.strip(" \0\t\r\n")) for part in value.decode("latin-1").rstrip(" \0").split("\\")]
    return {"vr": vr} if values == [None] else {"vr": vr, "Value": values}


def number_or_text(text: str) -> int | float | str | None:
    """One value of DS or IS: a number where its text is the number's own, None where it is empty."""
    if not text:
        return None
    if _INTEGER.fullmatch(text) and str(int(text)) == text:
        return int(text)
    number = finite(text)
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
            return date_of(values[0])
        case "string" if vr == "TM":
            return time_of_day(values[0])
        case "string":
            return "\\".join(_as_text(value) for value in values).strip() or None
        case "array<string>":
            return [_as_text(value) for value in values]
        case "double":
            return finite(values[0]) if len(values) == 1 else None
        case "array<double>":
            numbers = [finite(value) for value in values]
            return None if None in numbers else numbers
        case "long":
            number = finite(values[0]) if len(values) == 1 else None
            return int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else None
    raise LookupError(f"column {column.name}: no element converts to {column.type}")


def _as_text(value: Any) -> str:
    if isinstance(value, dict):  # a person name
        return "=".join(value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value)


def finite(value: Any) -> float | None:
    """A finite number from a JSON number or a decimal string; None for anything else, such as ``1.5mm`` or ``1,5``."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            return None
        value = float(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def date_of(value: Any) -> date | None:
    """A DA value, ``YYYYMMDD`` or the older ``YYYY.MM.DD``; None where it is no date."""
    match = re.fullmatch(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})", value.strip()) if isinstance(value, str) else None
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None


def time_of_day(value: Any) -> str | None:
    """A TM value as ``HH:MM:SS``: absent parts are zero, fractions are cut, a leap second is the second before it."""
    match = re.fullmatch(r"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:\.[0-9]*)?)?)?", value.strip()) if isinstance(value, str) else None
    if not match:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups())
    return f"{hour:02}:{minute:02}:{min(second, 59):02}" if hour < 24 and minute < 60 and second <= 60 else None
