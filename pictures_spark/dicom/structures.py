"""Headers at the speed of the disk: the structure of a device's headers is learned once, and each header is then read by its differences.

The headers that one device writes are nearly the same bytes. A :class:`Structure` is what they share: runs of bytes that are equal in every
header seen, each compared in one step, and between them *slots*, elements whose value differs. A slot's value is looked up among those
seen before (raw bytes -> JSON); a new one of a plain kind is converted here, any other one by :mod:`pictures_spark.dicom.scan`, which
stays the one place where a value's meaning is decided. What fits no structure is read by ``scan`` as a whole, and teaches one.

Pure: bytes in, records out; no Spark. A :class:`Headers` belongs to one task and is not shared between threads.

What is read is always what ``scan`` reads: a structure is checked against it when it is learned and each time it gains slots, and the tests
compare both on every file available and on generated ones.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple, cast

import orjson
from pydicom.datadict import private_dictionary_VR, tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from pictures_spark.dicom.scan import (
    DEFAULT_MAX_HEADER_BYTES,
    ByteReader,
    BytesReader,
    HeaderRecord,
    column_value,
    columns_from,
    element_json,
    finite_or_text,
    number_strings,
    promoted,
    public_vr,
    quiet,
    rules,
    scan,
)

# How an element says its length: 2 bytes after a VR, 4 bytes after a VR and two reserved ones, 4 bytes without a VR, or not at all.
_SHORT, _LONG, _IMPLICIT, _OPEN = range(4)
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_KNOWN_VRS = _LONG_VRS | frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI")
    + (b"UL", b"US")
)
_TEXT = frozenset(["AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UT"])
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW"])
# Text that means the same in every character set, and that JSON needs no escapes for.
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_PIXELS = b"\xe0\x7f\x10\x00"
# Elements that decide how others are read: a header in which one of them differs has another structure.
_DECIDING = frozenset((0x00020002, 0x00020010, 0x00080005, 0x00280103))
# Transfer syntax -> whether its VR is implicit.
_SYNTAXES: dict[str, bool] = {ImplicitVRLittleEndian: True, ExplicitVRLittleEndian: False, RLELossless: False}
# Encapsulated pixels of any compression come behind an explicit VR little endian header (PS3.5 A.4).
_ENCAPSULATED = "1.2.840.10008.1.2.4."

# The columns whose values headers of one series share.
SERIES = ("study_uid", "series_uid", "modality")
# What a task keeps, at most: some 32 structures x 30 slots x 512 values x 0.5 KB = 250 MB, a tenth of that where series are alike.
MAX_STRUCTURES = 32
MAX_VALUES = 512
MAX_VALUE_BYTES = 1024


class _NotPlain(Exception):
    """A header that no structure is learned from."""


class _Element(NamedTuple):
    """Where a top-level element lies in a header's bytes."""

    tag: int
    vr: bytes
    form: int
    start: int
    value: int
    end: int


class _Slot(NamedTuple):
    """What is done with a slot's value: ``as_text``, its columns are its text as it stands."""

    tag: str
    vr: str
    prefix: bytes
    columns: tuple[str, ...]
    required: bool
    as_text: bool


class Value(NamedTuple):
    """A slot's value: its JSON member ``"TAG":{...}``, and the typed columns that come from it alone."""

    member: bytes
    columns: dict[str, Any]


@dataclass(eq=False)
class Structure:
    """What the headers of one shape share.

    Attributes
    ----------
    members : JSON members in tag order; constant stretches at even places, one slot at each odd place.
    columns : typed columns of the sample; those that depend on a slot are other in other headers.
    paired : typed columns that come from several elements, and the slots among these.
    """

    implicit: bool
    elements: list[_Element]
    sample: bytes
    slots: frozenset[int]
    members: list[bytes] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    paired: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _key: tuple[int | None, ...] = ()
    _program: list[tuple[bytes, int, int, dict[bytes, Value], int]] = field(default_factory=list)
    _last: bytes = b""
    _slots: "dict[int, _Slot]" = field(default_factory=dict)
    _context: dict[int, bytes] = field(default_factory=dict)
    _pairs: dict[Any, Any] = field(default_factory=dict)

    def read(self, data: bytes) -> "list[Value] | None":
        """The slots' values of a header of this structure; None where the bytes are of another one, or end too early."""
        found = []
        position, available = 0, len(data)
        for constant, length, form, values, index in self._program:
            end = position + length
            if data[position:end] != constant:
                return None
            if form == _SHORT:
                position = end + 2
                if position > available:
                    return None
                size = data[end] + 256 * data[end + 1]
                end = position + size
            elif form == _OPEN:
                position = end
                try:
                    end = _end_of_items(data, position, self.implicit)
                except (IndexError, struct.error, _NotPlain):
                    return None
                size = end - position
            else:
                position = end + 4
                size = int.from_bytes(data[end:position], "little")
                if size == _UNDEFINED:
                    return None
                end = position + size
            raw = data[position:end]
            position = end
            value = values.get(raw)
            if value is None:
                if len(raw) != size:
                    return None
                value = self._new_value(index, raw)
                if value is None:
                    return None
                if size <= MAX_VALUE_BYTES:
                    if len(values) >= MAX_VALUES:
                        values.clear()
                    values[raw] = value
            found.append(value)
        # Of the pixel data element, its VR and length must be there too, or the object is cut off.
        whole = data.startswith(self._last, position) and len(data) >= position + len(self._last) + (4 if self.implicit else 8)
        return found if whole else None

    def typed(self, values: list[Value]) -> dict[str, Any]:
        """The promoted columns of a header."""
        columns = self.columns.copy()
        for value in values:
            if value.columns:
                columns.update(value.columns)
        for name in self.paired:
            columns[name] = self.pair(name, values)
        return columns

    def pair(self, name: str, values: list[Value]) -> Any:
        """A column that comes from several elements, of which a slot is one."""
        members = b",".join(values[place].member for place in self.paired[name])
        if (name, members) not in self._pairs:
            if len(self._pairs) >= MAX_VALUES:
                self._pairs.clear()
            self._pairs[name, members] = column_value(name, self._constants(name) | orjson.loads(b"{" + members + b"}"))
        return self._pairs[name, members]

    def key(self, values: list[Value]) -> tuple[Any, ...]:
        """The columns ``SERIES`` of a header."""
        return tuple(
            self.columns[name] if place is None else values[place].columns[name] for name, place in zip(SERIES, self._key, strict=True)
        )

    def text(self, values: list[Value]) -> str:
        """The packed JSON of a header."""
        members = self.members.copy()
        members[1::2] = [value.member for value in values]
        return joined(members)

    def _constants(self, name: str) -> dict[str, Any]:
        tags = {int(tag, 16) for tag in columns_from()[name]}
        places = [place for place, element in enumerate(self.elements) if element.tag in tags and place not in self.slots]
        return {f"{self.elements[place].tag:08X}": _by_scan(self, self.elements[place], self._raw(place)) for place in places}

    def _raw(self, place: int) -> bytes:
        element = self.elements[place]
        return self.sample[element.value : element.end]

    def _new_value(self, index: int, raw: bytes) -> Value | None:
        slot = self._slots[index]
        text = _plain_json(slot.vr, raw)
        if text is None:
            text = _packed(_by_scan(self, self.elements[index], raw))
        elif slot.as_text:
            value = raw.rstrip(b" \0").strip().decode() or None
            return None if slot.required and value is None else Value(slot.prefix + text, dict.fromkeys(slot.columns, value))
        if not (slot.columns or slot.required):
            return Value(slot.prefix + text, {})
        elements = {slot.tag: orjson.loads(text)}
        if slot.required and not str((elements[slot.tag].get("Value") or [""])[0] or "").strip():
            return None
        return Value(slot.prefix + text, {name: column_value(name, elements) for name in slot.columns})

    def _slot(self, index: int) -> "_Slot":
        element = self.elements[index]
        tag, vr = f"{element.tag:08X}", self._true_vr(element)
        columns = tuple(name for name in _columns_of(tag) if name not in self.paired)
        types = {column.type for column in promoted() if column.name in columns}
        as_text = bool(columns) and types == {"string"} and vr in _TEXT and vr != "TM"
        return _Slot(tag, vr, f'"{tag}":'.encode(), columns, tag in _required(), as_text)

    def _true_vr(self, element: _Element) -> str:
        """The VR of a slot: of a private element without one, that of its creator's dictionary; UN where nobody knows it."""
        if element.vr != b"UN":
            return element.vr.decode()
        creator = next((self.sample[e.value : e.end] for e in self.elements if e.tag == _creator(element.tag)), b"")
        try:
            return private_dictionary_VR(element.tag, creator.decode("latin-1").rstrip(" \0"))
        except KeyError:
            return "UN"

    def build(self, record: HeaderRecord) -> None:
        """Make the program from elements, sample and slots; ``record`` is the sample as ``scan`` reads it."""
        constants = orjson.loads(record.text)
        self._program, self.members = [], []
        self._context = {
            e.tag: self.sample[e.start : e.end] for e in self.elements if e.tag in (0x00080005, 0x00280103) or _is_creator(e.tag)
        }
        stretch: list[bytes] = []
        position = 0
        for index, element in enumerate(self.elements):
            tag = f"{element.tag:08X}"
            if index not in self.slots:
                stretch.append(b'"' + tag.encode() + b'":' + orjson.dumps(constants[tag]))
                continue
            width = {_SHORT: 2, _LONG: 4, _IMPLICIT: 4, _OPEN: 0}[element.form]
            self._program.append((self.sample[position : element.value - width], element.value - width - position, element.form, {}, index))
            position = element.end
            self.members += [b",".join(stretch), b""]
            stretch = []
        self.members.append(b",".join(stretch))
        self._last = self.sample[position : self.elements[-1].end] + _PIXELS
        slots = {f"{self.elements[index].tag:08X}": place for place, index in enumerate(sorted(self.slots))}
        self.columns, self.paired, self._pairs = dict(record.columns), {}, {}
        self._key = tuple(slots.get(columns_from()[name][0]) for name in SERIES)
        for name, tags in columns_from().items():
            places = tuple(slots[tag] for tag in tags if tag in slots)
            if len(tags) > 1 and places:
                self.paired[name] = places
        self._slots = {index: self._slot(index) for index in self.slots}


def joined(members: Iterable[bytes]) -> str:
    """A JSON object of members, the empty ones left out."""
    return (b"{" + b",".join(filter(None, members)) + b"}").decode()


def _packed(element: dict[str, Any]) -> bytes:
    return orjson.dumps(element, option=orjson.OPT_SORT_KEYS)


def _by_scan(structure: Structure, element: _Element, raw: bytes) -> dict[str, Any]:
    """An element's JSON as ``scan`` gives it, read with the character set, Pixel Representation and private creator it stands under."""
    before = structure.sample[element.start : element.value]
    if element.form == _SHORT:
        whole = before[:-2] + struct.pack("<H", len(raw)) + raw
    elif element.form == _OPEN:
        whole = before + raw
    else:
        whole = before[:-4] + struct.pack("<I", len(raw)) + raw
    under = (0x00080005, 0x00280103, _creator(element.tag))
    parts = [(tag, data) for tag, data in structure._context.items() if tag != element.tag and tag in under]
    stream = b"".join(data for _, data in sorted([*parts, (element.tag, whole)]))
    implicit = structure.implicit and element.tag >> 16 != 2
    with quiet():
        return element_json(read_dataset(BytesIO(stream), implicit, True), Tag(element.tag), 0)


def _plain_json(vr: str, raw: bytes) -> bytes | None:
    """JSON of a value of a plain kind; None where ``scan`` must say what it is."""
    if len(raw) > rules()["bulk_bytes"] and vr != "SQ":
        digest = hashlib.sha256(raw).hexdigest()
        return f'{{"BulkDataURI":"sha256:{digest}?length={len(raw)}","vr":"{vr}"}}'.encode() if vr in _BINARY or vr == "UN" else None
    if vr in _TEXT or vr == "PN":
        text = raw.rstrip(b" \0")
        if not _PLAIN.fullmatch(text) or (vr == "PN" and b"=" in text):
            return None
        if vr == "AE":
            text = text.strip()
        if not text:
            return f'{{"vr":"{vr}"}}'.encode()
        if vr == "PN":
            return b'{"Value":[{"Alphabetic":"' + text + b'"}],"vr":"PN"}'
        return b'{"Value":["' + text + b'"],"vr":"' + vr.encode() + b'"}'
    if vr in ("DS", "IS"):
        return _packed(number_strings(vr, raw))
    if vr in _NUMBERS:
        width = struct.calcsize("=" + _NUMBERS[vr])
        if not raw or len(raw) % width:
            return None
        numbers = struct.unpack(f"<{len(raw) // width}{_NUMBERS[vr]}", raw)
        return _packed({"vr": vr, "Value": [finite_or_text(number) for number in numbers]})
    if (vr in _BINARY or vr == "UN") and raw:
        return f'{{"InlineBinary":"{base64.b64encode(raw).decode()}","vr":"{vr}"}}'.encode()
    return None


@dataclass(eq=False)
class Header:
    """A header as read: ``scan``'s record, or a structure with the slots' values."""

    record: HeaderRecord | None = None
    structure: Structure | None = None
    values: list[Value] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """``dicom`` or ``dicomdir``."""
        return "dicom" if self.structure else cast("HeaderRecord", self.record).kind

    @property
    def has_pixels(self) -> bool:
        """Whether a pixel data element follows."""
        return True if self.structure else cast("HeaderRecord", self.record).has_pixels

    @property
    def columns(self) -> dict[str, Any]:
        """The promoted columns; see :class:`pictures_spark.dicom.scan.HeaderRecord`."""
        return self.structure.typed(self.values) if self.structure else cast("HeaderRecord", self.record).columns

    @property
    def text(self) -> str:
        """The packed JSON of all elements."""
        return self.structure.text(self.values) if self.structure else cast("HeaderRecord", self.record).text


class Headers:
    """Reads headers one after the other, and learns their structures as it goes."""

    def __init__(self, max_header_bytes: int = DEFAULT_MAX_HEADER_BYTES) -> None:
        self._limit = max_header_bytes
        self._structures: list[Structure] = []
        self._shapes: dict[Any, Structure | None] = {}
        self._window = rules()["windows"][0]

    def read(self, source: bytes | ByteReader) -> Header:
        """The header of one object.

        Raises
        ------
        ScanError
            As :func:`pictures_spark.dicom.scan.scan`.
        """
        if isinstance(source, bytes):
            reader: ByteReader = BytesReader(source)
            data = source
        else:
            reader = _Kept(source)
            try:
                data = reader.read_at(0, self._window)
            except OSError:
                return Header(scan(reader, self._limit))
        for place, structure in enumerate(self._structures):
            values = structure.read(data)
            if values is not None:
                if place:
                    self._structures.insert(0, self._structures.pop(place))
                return Header(structure=structure, values=values)
        record = scan(reader, self._limit)
        if record.kind == "dicom" and record.has_pixels:
            self._learn(reader, record)
        return Header(record)

    def _learn(self, reader: ByteReader, record: HeaderRecord) -> None:
        """Make a structure of a header, or give the one of its shape the slots that it lacks."""
        try:
            data = reader.read_at(0, self._window)
            while True:
                try:
                    implicit, elements = _walk(data)
                    break
                except (IndexError, struct.error):
                    if len(data) >= min(self._limit, 1 << 20):
                        return
                    longer = reader.read_at(0, 4 * len(data))
                    if len(longer) == len(data):
                        return
                    data = longer
        except (_NotPlain, OSError):
            return
        shape = (implicit, *((e.tag, e.vr, e.form) for e in elements))
        decided = tuple(data[e.value : e.end] for e in elements if e.tag in _DECIDING or _is_creator(e.tag))
        key = (shape, decided)
        known = self._shapes.get(key)
        if key in self._shapes and known is None:
            return
        sample = data[: elements[-1].end]
        if known is None:
            structure = Structure(implicit, elements, sample, frozenset())
        else:
            differing = {
                i for i, (a, b) in enumerate(zip(known.elements, elements, strict=True))
                if known.sample[a.value : a.end] != data[b.value : b.end]
            }  # fmt: skip
            structure = Structure(implicit, elements, sample, known.slots | differing)
            self._structures = [other for other in self._structures if other is not known]
        if not all(_may_differ(elements[slot]) for slot in structure.slots):
            self._shapes[key] = None
            return
        structure.build(record)
        values = structure.read(data)
        right = values is not None and structure.text(values) == record.text and structure.typed(values) == record.columns
        if len(self._shapes) >= 16 * MAX_STRUCTURES:
            self._shapes.clear()
        self._shapes[key] = structure if right else None
        if right:
            self._structures = [structure, *self._structures[: MAX_STRUCTURES - 1]]
            # The next object's first read fetches what the longest of these needed, and the pixel data's tag behind it.
            longest = max(len(other.sample) for other in self._structures)
            self._window = -(-(longest + 64) // 4096) * 4096


class _Kept:
    """A reader that keeps the prefix it has read, so that a second look costs no second read."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._prefix = b""

    @property
    def size(self) -> int | None:
        """Length in bytes, where known."""
        return self._reader.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset``."""
        end = offset + length
        if offset <= len(self._prefix) < end:
            self._prefix += self._reader.read_at(len(self._prefix), end - len(self._prefix))
        return self._prefix[offset:end] if offset <= len(self._prefix) else self._reader.read_at(offset, length)


@cache
def _required() -> frozenset[str]:
    """Tags that an instance cannot do without."""
    return frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in rules()["required"])


@cache
def _columns_of(tag: str) -> tuple[str, ...]:
    return tuple(name for name, tags in columns_from().items() if tags[0] == tag)


@cache
def _is_creator(tag: int) -> bool:
    return bool(tag >> 16 & 1) and 0x10 <= (tag & 0xFFFF) <= 0xFF


def _creator(tag: int) -> int:
    """Tag of the private creator of a private element's block."""
    return (tag & 0xFFFF0000) | (tag >> 8 & 0xFF)


def _may_differ(element: _Element) -> bool:
    """Whether a value of this element means the same whatever the rest of the header is, its creator and character set apart."""
    if element.tag in _DECIDING or _is_creator(element.tag):
        return False
    vr = element.vr.decode()
    if vr in _TEXT or vr in _NUMBERS or vr in _BINARY or vr in ("PN", "DS", "IS", "AT", "US or SS"):
        # Of those that may be one of several, US or SS depends on Pixel Representation only.
        return True
    return vr == "SQ" or (vr == "UN" and bool(element.tag >> 16 & 1))


def _walk(data: bytes) -> tuple[bool, list[_Element]]:
    """(implicit VR?, the top-level elements) of a header up to its pixel data.

    Raises
    ------
    _NotPlain
        No structure is learned from such a header: without preamble or transfer syntax, big endian, deflated, out of order.
    IndexError, struct.error
        The bytes end before the pixel data.
    """
    if data[128:132] != b"DICM":
        raise _NotPlain
    elements: list[_Element] = []
    position, implicit, known, last = 132, False, False, 0
    while True:
        tag = int.from_bytes(data[position : position + 2], "little") << 16 | int.from_bytes(data[position + 2 : position + 4], "little")
        if tag >> 16 != 2 and not known:
            implicit, known = _is_implicit(data, elements), True
        if data[position : position + 4] == _PIXELS:
            return implicit, elements
        element = _element(data, position, tag, implicit)
        if tag <= last or tag >> 16 in (0x7FE0, 0xFFFE):
            raise _NotPlain
        last, position = tag, element.end
        elements.append(element)
        if position > len(data):
            raise IndexError


def _is_implicit(data: bytes, elements: list[_Element]) -> bool:
    syntax = next((data[e.value : e.end].rstrip(b"\0 ").decode("latin-1") for e in elements if e.tag == 0x00020010), "")
    if syntax.startswith(_ENCAPSULATED):
        return False
    if syntax not in _SYNTAXES:
        raise _NotPlain
    return _SYNTAXES[syntax]


def _head(data: bytes, position: int, implicit: bool) -> tuple[bytes, int, int, int]:
    """(VR, form, where the value starts, its length) of the element at a position."""
    if implicit:
        tag = int.from_bytes(data[position : position + 2], "little") << 16 | int.from_bytes(data[position + 2 : position + 4], "little")
        return _implicit_vr(tag), _IMPLICIT, position + 8, struct.unpack_from("<I", data, position + 4)[0]
    vr = data[position + 4 : position + 6]
    if len(vr) < 2:
        raise IndexError
    if vr not in _KNOWN_VRS:
        raise _NotPlain
    if vr in _LONG_VRS:
        return vr, _LONG, position + 12, struct.unpack_from("<I", data, position + 8)[0]
    return vr, _SHORT, position + 8, struct.unpack_from("<H", data, position + 6)[0]


def _element(data: bytes, position: int, tag: int, implicit: bool) -> _Element:
    """The top-level element at a position."""
    vr, form, value, length = _head(data, position, implicit and tag >> 16 != 2)
    if length != _UNDEFINED:
        return _Element(tag, vr, form, position, value, value + length)
    if vr != b"SQ":
        raise _NotPlain
    return _Element(tag, vr, _OPEN, position, value, _end_of_items(data, value, implicit))


def _end_of_items(data: bytes, position: int, implicit: bool, depth: int = 0) -> int:
    """Where the sequence of undefined length whose items start here ends."""
    if depth > rules()["max_depth"]:
        raise _NotPlain
    while True:
        head = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8
        if head == b"\xfe\xff\xdd\xe0":
            return position
        if head != b"\xfe\xff\x00\xe0":
            raise _NotPlain
        if length != _UNDEFINED:
            position += length
            continue
        while data[position : position + 4] != b"\xfe\xff\x0d\xe0":
            position = _end_of_nested(data, position, implicit, depth)
        position += 8


def _end_of_nested(data: bytes, position: int, implicit: bool, depth: int) -> int:
    """Where a nested element ends."""
    vr, _, value, length = _head(data, position, implicit)
    if length != _UNDEFINED:
        return value + length
    if not implicit and vr != b"SQ":
        raise _NotPlain
    return _end_of_items(data, value, implicit, depth + 1)


@cache
def _implicit_vr(tag: int) -> bytes:
    return (public_vr(tag) or "UN").encode()
