"""Headers at the speed of the disk: the structure of a device's headers is learned once, and each header is then read by its differences.

The headers that one device writes are nearly the same bytes. A :class:`Structure` is what they share: runs of bytes that are equal in
every header seen, and between them *slots*, elements whose value differs. To read a header is to compare the runs and to cut out the slots'
bytes. What those mean is asked later, of many headers at a time (:mod:`pictures_spark.dicom.storing`) or of one; values of a plain kind are
converted by :mod:`pictures_spark.dicom.values`, any other one by :mod:`pictures_spark.dicom.scan`, which stays the one place where the
meaning of a value is decided. What fits no structure is read by ``scan`` as a whole, and teaches one.

Pure: bytes in, records out; no Spark. A :class:`Headers` belongs to one thread.

What is read is always what ``scan`` reads: a structure is checked against it when it is learned and each time it gains slots, and the tests
compare both on every file available and on generated ones.
"""

import hashlib
import itertools
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from io import BytesIO
from typing import Any, cast

import orjson
import pyarrow as pa
from pydicom.datadict import private_dictionary_VR, tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from pictures_spark.dicom.layout import (
    OPEN,
    PIXELS,
    SHORT,
    UNDEFINED,
    WIDTHS,
    Element,
    NotPlainError,
    creator_of,
    end_of_items,
    is_creator,
    walk,
)
from pictures_spark.dicom.scan import (
    DEFAULT_MAX_HEADER_BYTES,
    ByteReader,
    BytesReader,
    HeaderRecord,
    Kept,
    column_value,
    columns_from,
    element_json,
    promoted,
    quiet,
    rules,
    scan,
)
from pictures_spark.dicom.templates import as_lines
from pictures_spark.dicom.values import BINARY, NUMBERS, TEXT, Pieces, many, packed, plain_json

# Elements that decide how others are read: a header in which one of them differs has another structure.
_DECIDING = frozenset((0x00020002, 0x00020010, 0x00080005, 0x00280103))
# A UID that is surely one; any other text is for `scan` to judge.
_UID = re.compile(rb"[0-9.]+\0?")
# What a task keeps, at most: some 32 structures x 30 slots x 512 values x 0.5 KB = 250 MB, a tenth of that where series are alike.
MAX_STRUCTURES = 32
MAX_VALUES = 512
MAX_VALUE_BYTES = 1024

# Bytes of a structure's mark, and how far from its place in the sample it is looked for.
_MARK = 24
_SHIFT = 128

# So many values that were not met before, and fewer, are converted one by one; and so is each value of so few headers.
FEW = 16
FEW_HEADERS = 64
_ARROW = {
    "string": pa.string(),
    "date": pa.date32(),
    "double": pa.float64(),
    "long": pa.int64(),
    "array<string>": pa.list_(pa.string()),
    "array<double>": pa.list_(pa.float64()),
}

# A slot's value: its JSON member ``"TAG":{...}``, then the promoted columns of `Slot.columns`, in that order.
Value = tuple[Any, ...]
# A run of the structure: what unpacks it, the constants in it, its length, and how the slot behind it says its length (None: the end).
_Run = tuple[Callable[..., tuple[bytes, ...]], tuple[bytes, ...], int, int | None]
# The same of a whole header: its length up to where the pixel data's value starts, and where the last constant does.
_Whole = tuple[Callable[..., tuple[bytes, ...]], tuple[bytes, ...], int, int]


class Slot:
    """An element whose value differs from header to header, and the values of it that were met."""

    def __init__(self, structure: "Structure", index: int) -> None:
        element = structure.elements[index]
        self.tag = f"{element.tag:08X}"
        self.vr = structure.true_vr(element)
        self.columns = tuple(column for column in promoted() if columns_from()[column.name][0] == self.tag)
        self.types = [column.type for column in self.columns]
        self._structure = structure
        self._element = element
        self.prefix = f'"{self.tag}":'.encode()
        self._values: dict[bytes, Value] = {}

    def value(self, raw: bytes) -> Value:
        """A value; for what can hold items, only one that `is_sound`."""
        value = self._values.get(raw)
        if value is None:
            text = plain_json(self.vr, raw)
            element = self._structure.by_scan(self._element, raw) if text is None else orjson.loads(text) if self.columns else {}
            member = self.prefix + (packed(element) if text is None else text)
            value = (member, *(column_value(column.name, {self.tag: element}) for column in self.columns))
            if len(raw) <= MAX_VALUE_BYTES:
                if len(self._values) >= MAX_VALUES:
                    self._values.clear()
                self._values[raw] = value
        return value

    def is_sound(self, raw: bytes) -> bool:
        """Whether ``scan`` does not refuse a header for this value, nor keep it in another form for its length."""
        if len(raw) > rules()["bulk_bytes"]:
            return False
        try:
            self.value(raw)
        except Exception:  # noqa: BLE001 - whatever it is, `scan` is asked about the whole header, and gives the reason
            return False
        return True

    def arrays(self, raws: pa.BinaryArray) -> tuple[Pieces, list[pa.Array]]:
        """The values of many headers: their members in pieces, then one array for each of `columns`."""
        if len(raws) <= FEW_HEADERS:
            texts, *columns = zip(*map(self.value, raws.to_pylist()), strict=True)
            return [pa.array(texts, pa.string())], self._typed(columns)
        found = raws.dictionary_encode()
        values = found.dictionary.to_pylist()
        is_new = len(values) > FEW and len(values) - sum(map(self._values.__contains__, values)) > FEW
        quick = many(self.vr, found.dictionary, self.types) if is_new else None
        if quick is None:
            texts, *columns = zip(*map(self.value, values), strict=True)
            typed = self._typed(columns)
            pieces: Pieces = [texts[0].decode()] if len(values) == 1 else [pa.array(texts, pa.string())]
        else:
            pieces, typed = [self.prefix.decode(), *quick[0]], quick[1]
        if len(values) < len(raws):
            pieces = [piece if isinstance(piece, str) else piece.take(found.indices) for piece in pieces]
            typed = [column.take(found.indices) for column in typed]
        return pieces, typed

    def _typed(self, columns: Sequence[Sequence[Any]]) -> list[pa.Array]:
        return [pa.array(column, _ARROW[type_]) for column, type_ in zip(columns, self.types, strict=True)]


def arrays_of(slots: Sequence[Slot], raws: Sequence[pa.BinaryArray]) -> list[tuple[Pieces, list[pa.Array]]]:
    """`Slot.arrays` of the same element in several structures, converted together where its values are plain."""
    first = slots[0]
    found = pa.concat_arrays(raws).dictionary_encode()
    quick = many(first.vr, found.dictionary, first.types) if len(slots) > 1 else None
    if quick is None:
        return [slot.arrays(values) for slot, values in zip(slots, raws, strict=True)]
    pieces = [piece if isinstance(piece, str) else piece.take(found.indices) for piece in (first.prefix.decode(), *quick[0])]
    typed = [column.take(found.indices) for column in quick[1]]
    places = itertools.pairwise(itertools.accumulate(map(len, raws), initial=0))
    return [([piece if isinstance(piece, str) else piece[a:b] for piece in pieces], [column[a:b] for column in typed]) for a, b in places]


@dataclass(eq=False, slots=True)
class Layout:
    """How long the slots' values are in some of a structure's headers; ``run``, once it has come twice, is the whole of such a header."""

    lengths: tuple[int, ...]
    run: _Whole | None = None

    def read(self, data: bytes) -> Sequence[bytes] | None:
        """The slots' bytes of a header that is the run; None where it is not."""
        if self.run is None:
            return None
        unpack, constants, length, last = self.run
        # What comes last is mostly elsewhere if any length is another.
        if len(data) >= length and data.startswith(constants[-1], last):
            parts = unpack(data)
            if parts[0::2] == constants:
                return parts[1::2]
        return None


@dataclass(eq=False)
class Structure:
    """What the headers of one shape share.

    Attributes
    ----------
    slots : by place among ``elements``; the length of a slot's value where that is equal in all headers, else None.
    constants : JSON members of what is equal in all headers, one a line.
    between : the JSON text of a header without its slots: what comes before each of these, and behind the last.
    columns : typed columns of the sample; those that depend on a slot are other in other headers.
    paired : typed columns that come from several elements, and the slots among these.
    mark : bytes that tell this structure from the others, and the places between which to look for them.
    """

    implicit: bool
    elements: list[Element]
    sample: bytes
    lengths: dict[int, int | None]
    slots: list[Slot] = field(default_factory=list)
    constants: str = ""
    between: list[str] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    paired: dict[str, tuple[int, ...]] = field(default_factory=dict)
    mark: tuple[bytes, int, int] = (b"", 0, 0)
    _runs: list[_Run] = field(default_factory=list)
    _varying: list[tuple[int, int]] = field(default_factory=list)
    _last: Layout | None = None
    _layouts: dict[tuple[int, ...], Layout] = field(default_factory=dict)
    _shared: dict[bytes, bytes] = field(default_factory=dict)
    _uids: list[int] = field(default_factory=list)
    _sound: set[bytes] = field(default_factory=set)
    _open: list[int] = field(default_factory=list)
    _nested: list[int] = field(default_factory=list)
    _context: dict[int, bytes] = field(default_factory=dict)
    _pairs: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def base_id(self) -> str:
        """SHA-256 of `constants`, hex."""
        return hashlib.sha256(self.constants.encode()).hexdigest()

    @property
    def _behind(self) -> int:
        """Bytes between the tag of the pixel data and its value."""
        return 4 if self.implicit else 8

    def read(self, data: bytes) -> "tuple[Layout, bytes] | None":
        """The slots' bytes in a header of this structure, one after the other, and how long each is.

        None where the bytes are of another structure, or end too early.
        """
        # Mostly the slots are as long as those of the header before, or as those of an earlier one.
        layout = self._last
        found = layout.read(data) if layout else None
        if found is None:
            layout = self._layouts.get(self._lengths(data))
            found = layout.read(data) if layout else None
        if found is None:
            found = self._by_runs(data)
            if found is None:
                return None
            layout = self._layout_of(found)
        sound = self._sound
        for place in self._uids:
            uid = found[place]
            if uid not in sound:
                if not _UID.fullmatch(uid):
                    return None
                if len(sound) >= MAX_VALUES:
                    sound.clear()
                sound.add(uid)
        for place in self._open:
            if _ends_early(found[place], self.implicit):
                return None
        for place in self._nested:
            if not self.slots[place].is_sound(found[place]):
                return None
        self._last = layout
        return cast("Layout", layout), b"".join(found)

    def _lengths(self, data: bytes) -> tuple[int, ...]:
        """Lengths of the slots whose length varies, if the bytes are of this structure; without looking at the constants between."""
        lengths: list[int] = []
        position = 0
        try:
            for gap, form in self._varying:
                position += gap
                if form == SHORT:
                    length = data[position] + 256 * data[position + 1]
                    position += 2 + length
                elif form == OPEN:
                    length = end_of_items(data, position, self.implicit) - position
                    position += length
                else:
                    length = int.from_bytes(data[position : position + 4], "little")
                    position += 4 + length
                lengths.append(length)
        except (struct.error, IndexError, NotPlainError):
            return ()
        return tuple(lengths)

    def _layout_of(self, raws: Sequence[bytes]) -> Layout:
        """The layout of slots' values, remembered; what comes twice is likely to come again."""
        lengths = tuple(map(len, raws))
        varying = tuple(length for place, length in zip(sorted(self.lengths), lengths, strict=True) if self.lengths[place] is None)
        layout = self._layouts.get(varying)
        if layout is None:
            if len(self._layouts) >= MAX_VALUES:
                self._layouts.clear()
                self._shared.clear()
            layout = self._layouts[varying] = Layout(lengths)
        elif layout.run is None:
            layout.run = self._one_run(raws)
        return layout

    def _by_runs(self, data: bytes) -> list[bytes] | None:
        """The slots' bytes, whatever their lengths."""
        found: list[bytes] = []
        position = 0
        try:
            for unpack, constants, length, form in self._runs:
                parts = unpack(data, position)
                if parts[0::2] != constants:
                    return None
                found += parts[1::2]
                position += length
                if form is None:
                    break
                if form == SHORT:
                    end = position + 2 + data[position] + 256 * data[position + 1]
                    position += 2
                elif form == OPEN:
                    end = end_of_items(data, position, self.implicit)
                else:
                    size = int.from_bytes(data[position : position + 4], "little")
                    if size == UNDEFINED:
                        return None
                    position += 4
                    end = position + size
                found.append(data[position:end])
                position = end
        except (struct.error, IndexError, NotPlainError):
            return None
        # Of the pixel data element, its VR and length must be there too, or the object is cut off.
        if len(data) < position + self._behind:
            return None
        return found

    def _one_run(self, raws: Sequence[bytes]) -> _Whole:
        """A run of the whole header, for slots of the lengths of these."""
        parts: list[bytes] = []
        position = 0
        for index, raw in zip(sorted(self.lengths), raws, strict=True):
            element = self.elements[index]
            before = self.sample[position : element.value]
            if element.form != OPEN:
                width = WIDTHS[element.form]
                before = before[:-width] + len(raw).to_bytes(width, "little")
            # Layouts share what is equal in them: together they would not fit the processor's caches.
            parts += [self._shared.setdefault(before, before), raw]
            position = element.end
        end = self.sample[position : self.elements[-1].end] + PIXELS
        unpack, constants, length, _ = _run([*parts, self._shared.setdefault(end, end)], None)
        return unpack, constants, length + self._behind, length - len(constants[-1])

    def typed(self, raws: list[bytes]) -> dict[str, Any]:
        """The promoted columns of a header."""
        columns = self.columns.copy()
        for slot, raw in zip(self.slots, raws, strict=True):
            if slot.columns:
                columns.update(zip((column.name for column in slot.columns), slot.value(raw)[1:], strict=True))
        for name in self.paired:
            columns[name] = self.pair(name, raws)
        return columns

    def pair(self, name: str, raws: Sequence[bytes]) -> Any:
        """A column that comes from several elements, of which a slot is one."""
        members = b",".join(self.slots[place].value(raws[place])[0] for place in self.paired[name])
        if (name, members) not in self._pairs:
            if len(self._pairs) >= MAX_VALUES:
                self._pairs.clear()
            self._pairs[name, members] = column_value(name, self._constants(name) | orjson.loads(b"{" + members + b"}"))
        return self._pairs[name, members]

    def text(self, raws: list[bytes]) -> str:
        """The packed JSON of a header."""
        members = [slot.value(raw)[0].decode() for slot, raw in zip(self.slots, raws, strict=True)]
        return "".join(itertools.chain.from_iterable(zip(self.between, [*members, ""], strict=True)))

    def by_scan(self, element: Element, raw: bytes) -> dict[str, Any]:
        """An element's JSON as ``scan`` gives it, read with the character set, Pixel Representation and private creator it stands under."""
        before = self.sample[element.start : element.value]
        if element.form == SHORT:
            whole = before[:-2] + struct.pack("<H", len(raw)) + raw
        elif element.form == OPEN:
            whole = before + raw
        else:
            whole = before[:-4] + struct.pack("<I", len(raw)) + raw
        under = (0x00080005, 0x00280103, creator_of(element.tag))
        parts = [(tag, data) for tag, data in self._context.items() if tag != element.tag and tag in under]
        stream = b"".join(data for _, data in sorted([*parts, (element.tag, whole)]))
        implicit = self.implicit and element.tag >> 16 != 2
        with quiet():
            return element_json(read_dataset(BytesIO(stream), implicit, True), Tag(element.tag), 0)

    def true_vr(self, element: Element) -> str:
        """The VR of a slot: of a private element without one, that of its creator's dictionary; UN where nobody knows it."""
        if element.vr != b"UN":
            return element.vr.decode()
        creator = next((self.sample[e.value : e.end] for e in self.elements if e.tag == creator_of(element.tag)), b"")
        try:
            return private_dictionary_VR(element.tag, creator.decode("latin-1").rstrip(" \0"))
        except KeyError:
            return "UN"

    def build(self, record: HeaderRecord) -> None:
        """Make the program from elements, sample and slots; ``record`` is the sample as ``scan`` reads it."""
        sample, elements = self.sample, self.elements
        self._context = {e.tag: sample[e.start : e.end] for e in elements if e.tag in (0x00080005, 0x00280103) or is_creator(e.tag)}
        self.columns = dict(record.columns)
        self.slots = [Slot(self, index) for index in sorted(self.lengths)]
        tags = {slot.tag: place for place, slot in enumerate(self.slots)}
        self.constants = "\n".join(line for line in as_lines(record.text) if line[1:9] not in tags)
        self.between = [""]
        for number, line in enumerate(sorted([*self.constants.split("\n"), *(f'"{tag}"' for tag in tags)])):
            self.between[-1] += "," if number else "{"
            if line[1:9] in tags:
                self.between.append("")
            else:
                self.between[-1] += line
        self.between[-1] += "}"
        for name, sources in columns_from().items():
            places = tuple(tags[tag] for tag in sources if tag in tags)
            if len(sources) > 1 and places:
                self.paired[name] = places
        self._uids = [place for place, slot in enumerate(self.slots) if slot.tag in _required()]
        self._open = [place for place, index in enumerate(sorted(self.lengths)) if elements[index].form == OPEN]
        # What can hold items can be refused, and must be so while the header is read.
        self._nested = [place for place, slot in enumerate(self.slots) if slot.vr in ("SQ", "UN")]
        self._runs, self._varying = [], []
        position, behind, parts = 0, 0, list[bytes]()
        for index in sorted(self.lengths):
            element, length = elements[index], self.lengths[index]
            if length is not None:
                parts += [sample[position : element.value], sample[element.value : element.end]]
            else:
                parts.append(sample[position : element.value - WIDTHS[element.form]])
                self._runs.append(_run(parts, element.form))
                self._varying.append((element.value - WIDTHS[element.form] - behind, element.form))
                behind, parts = element.end, []
            position = element.end
        self._runs.append(_run([*parts, sample[position : elements[-1].end] + PIXELS], None))

    def set_apart(self, others: "Sequence[Structure]") -> None:
        """Choose a mark: constant bytes that the samples of the others do not have, where there are such."""
        start = 0
        for index in [*sorted(self.lengths), len(self.elements)]:
            end = self.elements[index].start if index < len(self.elements) else len(self.sample)
            for at in range(start, end - _MARK + 1, _MARK):
                mark = self.sample[at : at + _MARK]
                if not any(mark in other.sample for other in others):
                    self.mark = (mark, max(0, at - _SHIFT), at + _MARK + _SHIFT)
                    return
            start = self.elements[index].end if index < len(self.elements) else 0
        self.mark = (b"", 0, 0)

    def _constants(self, name: str) -> dict[str, Any]:
        tags = {int(tag, 16) for tag in columns_from()[name]}
        there = [element for place, element in enumerate(self.elements) if element.tag in tags and place not in self.lengths]
        return {f"{element.tag:08X}": self.by_scan(element, self.sample[element.value : element.end]) for element in there}


def _run(parts: list[bytes], form: int | None) -> _Run:
    """A run of constants (at even places) and slots of fixed length; ``form`` as in `_Run`."""
    unpacking = struct.Struct("".join(f"{len(part)}s" for part in parts))
    return unpacking.unpack_from, tuple(parts[0::2]), unpacking.size, form


def _ends_early(items: bytes, implicit: bool) -> bool:
    """Whether the sequence of undefined length ends before these bytes do."""
    try:
        return end_of_items(items, 0, implicit) != len(items)
    except (struct.error, IndexError, NotPlainError):
        return True


@dataclass(eq=False, slots=True)
class Header:
    """A header as read: ``scan``'s record, or a structure with the slots' bytes, one after the other, and how long each is."""

    record: HeaderRecord | None = None
    structure: Structure | None = None
    layout: Layout | None = None
    slots: bytes = b""

    @property
    def raws(self) -> list[bytes]:
        """The slots' bytes, one by one."""
        ends = list(itertools.accumulate(cast("Layout", self.layout).lengths, initial=0))
        return [self.slots[start:end] for start, end in itertools.pairwise(ends)]

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
        return self.structure.typed(self.raws) if self.structure else cast("HeaderRecord", self.record).columns

    @property
    def text(self) -> str:
        """The packed JSON of all elements."""
        if self.structure is None:
            return cast("HeaderRecord", self.record).text
        return self.structure.text(self.raws)

    @property
    def held(self) -> int:
        """About how many bytes it, or its row with the whole text, takes."""
        return len(self.structure.constants) + len(self.slots) if self.structure else len(cast("HeaderRecord", self.record).text)

    @property
    def length(self) -> int:
        """No less than the length of `text`, without making it."""
        if self.structure is None:
            return len(cast("HeaderRecord", self.record).text)
        # A value's JSON is at most six times as long as its bytes, where each is an escape, and a member of a number 24 characters a byte.
        return len(self.structure.constants) + 24 * len(self.slots) + 64 * len(self.structure.slots)


class Headers:
    """Reads headers one after the other, and learns their structures as it goes.

    Attributes
    ----------
    window : so many of an object's first bytes hold its header, if it is like those before.
    """

    def __init__(self, max_header_bytes: int = DEFAULT_MAX_HEADER_BYTES) -> None:
        self._limit = max_header_bytes
        self._structures: list[Structure] = []
        self._shapes: dict[Any, Structure | None] = {}
        self.window = rules()["windows"][0]

    @classmethod
    def of_process(cls, max_header_bytes: int) -> "Headers":
        """The one of this process and limit, so that a worker's later tasks need not learn again what its earlier ones did."""
        return _of_process(max_header_bytes)

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
            reader = source
            try:
                data = reader.read_at(0, self.window)
            except OSError:
                return Header(scan(reader, self._limit))
        header = self.known(data)
        if header is not None:
            return header
        kept = reader if isinstance(source, bytes) else Kept(reader, data)
        record = scan(kept, self._limit)
        if record.kind == "dicom" and record.has_pixels:
            self._learn(kept, record)
        return Header(record)

    def known(self, data: bytes) -> Header | None:
        """The header at the start of an object's first `window` bytes, where it is of a structure that is known."""
        # First those whose mark is about where it was in their sample: a quick look, which may be wrong either way.
        unmarked = []
        for place, structure in enumerate(self._structures):
            if data.find(*structure.mark) < 0:
                unmarked.append(structure)
                continue
            found = structure.read(data)
            if found is not None:
                if place:
                    self._structures.insert(0, self._structures.pop(place))
                return Header(None, structure, *found)
        for structure in unmarked:
            found = structure.read(data)
            if found is not None:
                return Header(None, structure, *found)
        return None

    def _learn(self, reader: ByteReader, record: HeaderRecord) -> None:
        """Make a structure of a header, or give the one of its shape the slots that it lacks."""
        data = self._walkable(reader)
        if data is None:
            return
        implicit, elements = walk(data)
        shape = (implicit, *((e.tag, e.vr, e.form) for e in elements))
        decided = tuple(data[e.value : e.end] for e in elements if e.tag in _DECIDING or is_creator(e.tag))
        key = (shape, decided)
        known = self._shapes.get(key)
        if key in self._shapes and known is None:
            return
        lengths: dict[int, int | None] = {}
        if known is not None:
            lengths = dict(known.lengths)
            for place, (a, b) in enumerate(zip(known.elements, elements, strict=True)):
                if known.sample[a.value : a.end] != data[b.value : b.end]:
                    fixed = a.end - a.value == b.end - b.value and a.form != OPEN and lengths.get(place, 0) is not None
                    lengths[place] = b.end - b.value if fixed else None
            if lengths == known.lengths:
                # Nothing to learn: the header is of this structure, but for what a structure leaves to `scan`.
                return
        structure = Structure(implicit, elements, data[: elements[-1].end], lengths)
        if len(self._shapes) >= 16 * MAX_STRUCTURES:
            self._shapes.clear()
        if all(_may_differ(elements[place]) for place in lengths) and _is_right(structure, record, data):
            self._shapes[key] = structure
            others = [other for other in self._structures if other is not known][: MAX_STRUCTURES - 1]
            structure.set_apart(others)
            for other in others:
                if other.mark[0] in structure.sample:
                    other.set_apart([structure, *(third for third in others if third is not other)])
            self._structures = [structure, *others]
            # The next object's first read fetches what the longest of these needed, and the pixel data's tag behind it.
            longest = max(len(other.sample) for other in self._structures)
            self.window = -(-(longest + 64) // 4096) * 4096
        else:
            # What was learned before stays; of this shape, nothing more is.
            self._shapes[key] = None

    def _walkable(self, reader: ByteReader) -> bytes | None:
        """A header's bytes up to its pixel data; None where no structure is learned from it."""
        try:
            data = reader.read_at(0, self.window)
            while True:
                try:
                    walk(data)
                    return data
                except (IndexError, struct.error):
                    if len(data) >= min(self._limit, 1 << 20):
                        return None
                    longer = reader.read_at(0, 4 * len(data))
                    if len(longer) == len(data):
                        return None
                    data = longer
        except (NotPlainError, OSError):
            return None


def _is_right(structure: Structure, record: HeaderRecord, data: bytes) -> bool:
    """Whether a new structure reads its own sample as ``scan`` does."""
    structure.build(record)
    found = structure.read(data)
    if found is None:
        return False
    header = Header(None, structure, *found)
    return header.text == record.text and header.columns == record.columns


@cache
def _of_process(max_header_bytes: int) -> Headers:
    return Headers(max_header_bytes)


@cache
def _required() -> frozenset[str]:
    """Tags that an instance cannot do without."""
    return frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in rules()["required"])


def _may_differ(element: Element) -> bool:
    """Whether a value of this element means the same whatever the rest of the header is, its creator and character set apart."""
    if element.tag in _DECIDING or is_creator(element.tag):
        return False
    vr = element.vr.decode()
    if vr in TEXT or vr in NUMBERS or vr in BINARY or vr in ("PN", "DS", "IS", "AT", "US or SS"):
        # Of those that may be one of several, US or SS depends on Pixel Representation only.
        return True
    return vr == "SQ" or (vr == "UN" and bool(element.tag >> 16 & 1))
