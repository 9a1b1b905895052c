"""Read a DICOM file into elements whose values are still its bytes (PS3.5 section 7, PS3.10 section 7).

What enters: the bytes of a file. What leaves: a :class:`Source`, whose top-level elements are found but not parsed, so that what a series
repeats is looked at once, and :class:`Node` trees for those that are asked for. Pure; executors. Files with a preamble are walked here,
big endian ones after they were turned into little endian ones; what they may lack or other files are, pydicom settles (`Source.nodes`),
and its result is brought to the same form.
"""

import struct
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset, dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import RawDataElement

IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG, RLE = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
)
_ENCAPSULATED = "1.2.840.10008.1.2.4."
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_VRS = frozenset(
    (
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FL",
        b"FD",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
        b"ST",
        b"TM",
        b"UI",
        b"UL",
        b"US",
    )
)
_VRS = {name: name.decode() for name in _LONG_VRS | _SHORT_VRS}
_WORD = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 2, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8, "SV": 8, "UV": 8}
_NUMBER = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_MAX_DEPTH = 32
_MAX_INFLATED = 1 << 31
# What an explicit element starts with -> its tag, its VR, whether its length has four bytes. Of files, so it must not grow for ever.
_HEADS: dict[bytes, tuple[int, str, bool]] = {}
_MOST_HEADS = 1 << 15
_HEAD = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
_IMPLICIT_HEAD = struct.Struct("<HHI").unpack_from
_BIG_TAG, _PUT_TAG = struct.Struct(">HH").unpack_from, struct.Struct("<HH").pack_into


class MalformedError(Exception):
    """The bytes are not those of a plain little endian data set."""


class Node(NamedTuple):
    """An element: its tag, its VR (``UN`` or ``US or SS`` where the file leaves it open), and its bytes, little endian, or its items."""

    tag: int
    vr: str
    value: "bytes | list[dict[int, Node]]"


class Place(NamedTuple):
    """Where a top-level element lies: its tag, where it starts, where its value starts, where it ends; an undefined length is -1."""

    tag: int
    vr: str
    start: int
    value: int
    end: int
    undefined: bool


class Source(NamedTuple):
    """A file: ``places`` of its top-level elements in ``data``, or ``nodes`` where pydicom had to read it. Pixels are apart.

    ``data`` is what was read, inflated and little endian; ``syntax`` is what the file was in.
    """

    data: bytes
    syntax: str
    media_class: str
    implicit: bool
    places: dict[int, Place]
    nodes: dict[int, Node] | None
    pixels: tuple[int, ...]

    def raw(self, tag: int) -> bytes:
        """The bytes of a top-level value, none where it is not there or a sequence."""
        if self.nodes is not None:
            node = self.nodes.get(tag)
            return node.value if node is not None and isinstance(node.value, bytes) else b""
        place = self.places.get(tag)
        return b"" if place is None else self.data[place.value : place.end]

    def number(self, tag: int, default: int = 0) -> int:
        """A top-level US or IS value."""
        raw = self.raw(tag)
        if not raw:
            return default
        return int.from_bytes(raw[:2], "little") if tag != 0x00280008 else int(raw.split(b"\\")[0].strip(b" \0") or b"0")

    def text(self, tag: int) -> str:
        """A top-level text value, without padding."""
        return self.raw(tag).decode("latin-1").strip(" \0")

    def node(self, tag: int) -> Node:
        """A top-level element, parsed.

        Raises
        ------
        MalformedError
            A sequence in it cannot be walked to its end.
        """
        if self.nodes is not None:
            return self.nodes[tag]
        place = self.places[tag]
        try:
            return _node(self.data, place, self.implicit, 0)
        except (struct.error, IndexError):
            raise MalformedError from None


def read(data: bytes) -> Source:
    """Find the elements of a file.

    Raises
    ------
    Exception
        Whatever pydicom raises on what is no DICOM.
    """
    try:
        return _read(data)
    except (MalformedError, struct.error, IndexError, zlib.error):
        return by_pydicom(data)


def items_of(value: bytes) -> list[dict[int, Node]]:
    """The items of a sequence that was written as UN: implicit VR little endian (PS3.5 6.2.2).

    Raises
    ------
    MalformedError
        The bytes are no items.
    """
    try:
        items, end = _items(value, 0, len(value), True, 0)
    except (struct.error, IndexError):
        raise MalformedError from None
    if end != len(value):
        raise MalformedError
    return items


def _read(data: bytes) -> Source:
    if data[128:132] != b"DICM":
        raise MalformedError
    meta: dict[int, bytes] = {}
    position = 132
    while True:
        group, number, vr, length = _HEAD(data, position)
        if group != 2:
            break
        if vr in _LONG_VRS:
            value, length = position + 12, _LENGTH(data, position + 8)[0]
        elif vr in _SHORT_VRS:
            value = position + 8
        else:
            raise MalformedError
        position = value + length
        meta[number] = data[value:position]
    syntax = meta.get(0x10, b"").decode("latin-1").strip(" \0")
    if syntax == DEFLATED:
        inflater = zlib.decompressobj(-15)
        data = data[:position] + inflater.decompress(data[position:], _MAX_INFLATED)
        if inflater.unconsumed_tail:
            raise MalformedError
    elif syntax == EXPLICIT_BIG:
        data = _little(data, position)
    elif syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, RLE) and not syntax.startswith(_ENCAPSULATED):
        raise MalformedError
    implicit = syntax == IMPLICIT_LITTLE
    vr = data[position + 4 : position + 6]
    if not implicit and vr not in _VRS:
        # Some toolkits name a compressed syntax and write implicitly all the same; readers tell by the first element, as pydicom does.
        if vr.isalpha() and vr.isupper():
            raise MalformedError
        implicit = True
    places, pixels = _places(data, position, implicit)
    media_class = meta.get(0x02, b"").decode("latin-1").strip(" \0")
    return Source(data, syntax, media_class, implicit, places, None, pixels)


def _places(data: bytes, position: int, implicit: bool) -> tuple[dict[int, Place], tuple[int, ...]]:
    places: dict[int, Place] = {}
    pixels: tuple[int, ...] = ()
    end = len(data)
    last = -1
    heads, new = _HEADS, tuple.__new__
    while position < end:
        start = position
        if implicit:
            group, number, length = _IMPLICIT_HEAD(data, position)
            tag = group << 16 | number
            if group < 8 or group == 0xFFFE:
                raise MalformedError
            known = DicomDictionary.get(tag)
            vr, value = (known[0] if known else "UN"), position + 8
        else:
            code = data[position : position + 6]
            tag, vr, long = heads.get(code) or _head(code)
            if long:
                value, length = position + 12, _LENGTH(data, position + 8)[0]
            else:
                value, length = position + 8, data[position + 6] | data[position + 7] << 8
        if tag <= last:
            raise MalformedError
        last = tag
        undefined = length == _UNDEFINED
        if tag >= 0x7FE00008 and tag in _PIXELS:
            position = end_of_fragments(data, value) if undefined else value + length
            pixels = (*pixels, tag)
            places[tag] = Place(tag, vr, start, value, min(position, end), undefined)
            if tag == 0x7FE00010:
                # What follows the pixels is padding, signatures and whatever else was put there; none of it stays.
                break
            continue
        position = _items(data, value, end, implicit or vr == "UN", 0)[1] if undefined else value + length
        if position > end:
            raise MalformedError
        places[tag] = new(Place, (tag, vr, start, value, position, undefined))
    return places, pixels


def _head(code: bytes) -> tuple[int, str, bool]:
    """What the first six bytes of an explicit element say of it.

    Raises
    ------
    MalformedError
        They are none of an element of a data set.
    """
    vr = code[4:]
    tag = int.from_bytes(code[:2], "little") << 16 | int.from_bytes(code[2:4], "little")
    if vr not in _VRS or tag >> 16 < 8 or tag >> 16 == 0xFFFE:
        raise MalformedError
    if len(_HEADS) >= _MOST_HEADS:
        _HEADS.clear()
    found = _HEADS[code] = (tag, _VRS[vr], vr in _LONG_VRS)
    return found


def _little(data: bytes, position: int) -> bytes:
    """A big endian file whose data set starts at ``position`` as a little endian one: every element has the same place in both.

    Raises
    ------
    MalformedError, IndexError, struct.error
        The bytes are no plain big endian data set.
    """
    made = bytearray(data)
    _turn(data, made, position, len(data), 0, {})
    return bytes(made)


def _turn(data: bytes, made: bytearray, position: int, end: int, depth: int, described: dict[int, int]) -> int:
    """Turn the elements from ``position`` on, up to the end of their item; where that is. ``described`` gets US values at the top."""
    if depth > _MAX_DEPTH:
        raise MalformedError
    while position < end:
        group, number = _BIG_TAG(data, position)
        tag = group << 16 | number
        _PUT_TAG(made, position, group, number)
        if group == 0xFFFE:
            if tag != _ITEM_END or not depth:
                raise MalformedError
            made[position + 4 : position + 8] = data[position + 4 : position + 8][::-1]
            return position + 8
        code = data[position + 4 : position + 6]
        if code in _SHORT_VRS:
            value, length = position + 8, int.from_bytes(data[position + 6 : position + 8], "big")
            made[position + 6 : position + 8] = data[position + 6 : position + 8][::-1]
        elif code in _LONG_VRS:
            value, length = position + 12, int.from_bytes(data[position + 8 : position + 12], "big")
            made[position + 8 : position + 12] = data[position + 8 : position + 12][::-1]
        else:
            raise MalformedError
        if length == _UNDEFINED or code == b"SQ":
            if code != b"SQ":
                raise MalformedError  # what an unknown sequence or compressed pixels would be here, pydicom settles
            position = _turn_items(data, made, value, len(data) if length == _UNDEFINED else value + length, depth + 1)
            continue
        position = value + length
        size = _WORD.get(_VRS[code], 1)
        if tag in _PIXELS:
            size = 1 if depth else _unit(tag, code, described)
            position = min(position, len(data))
        elif position > len(data):
            raise MalformedError
        if size > 1:
            whole = value + (position - value) // size * size
            words = np.frombuffer(data, dtype=f">u{size}", count=(whole - value) // size, offset=value)
            made[value:whole] = words.astype(f"<u{size}").tobytes()
        if not depth and code == b"US" and length == 2:
            described[tag] = int.from_bytes(data[value:position], "big")
        if tag == 0x7FE00010 and not depth:
            return position
    return position


def _turn_items(data: bytes, made: bytearray, position: int, end: int, depth: int) -> int:
    while position < end:
        group, number = _BIG_TAG(data, position)
        length = int.from_bytes(data[position + 4 : position + 8], "big")
        _PUT_TAG(made, position, group, number)
        made[position + 4 : position + 8] = data[position + 4 : position + 8][::-1]
        position += 8
        if (group << 16 | number) == _SEQUENCE_END:
            return position
        if (group << 16 | number) != _ITEM:
            raise MalformedError
        stop = len(data) if length == _UNDEFINED else position + length
        position = _turn(data, made, position, stop, depth, {})
        if length != _UNDEFINED and position != stop:
            raise MalformedError
    return position


def _unit(tag: int, vr: bytes, described: dict[int, int]) -> int:
    """How many bytes the words of pixels have (PS3.5 8.1, 8.2).

    Raises
    ------
    MalformedError
        BitsAllocated is missing or unusual.
    """
    if tag != 0x7FE00010:
        return 4 if tag == 0x7FE00008 else 8
    bits = described.get(0x00280100, 0)
    if bits not in (1, 8, 16, 32, 64):
        raise MalformedError
    return bits // 8 if bits > 8 else 2 if vr == b"OW" else 1


def end_of_fragments(data: bytes, position: int) -> int:
    """Where the fragments end, before their delimiter; the end of the file where it lacks one."""
    while True:
        if position + 8 > len(data):
            return len(data)
        group, number, length = _IMPLICIT_HEAD(data, position)
        if (group, number) != (0xFFFE, 0xE000) or length == _UNDEFINED:
            return position
        position += 8 + length


def end_of_sequence(data: bytes, position: int, implicit: bool) -> int:
    """Where a sequence of undefined length whose items start here ends.

    Raises
    ------
    MalformedError, IndexError, struct.error
        It does not.
    """
    return _items(data, position, len(data), implicit, 0)[1]


def meta_places(data: bytes) -> list[Place]:
    """The elements of the file meta information of a file that `read` could walk."""
    places: list[Place] = []
    position = 132
    while True:
        group, number, vr, length = _HEAD(data, position)
        if group != 2:
            return places
        value = position + 8
        if vr in _LONG_VRS:
            value, length = position + 12, _LENGTH(data, position + 8)[0]
        places.append(Place(group << 16 | number, _VRS[vr], position, value, value + length, False))
        position = value + length


def element_of(raw: bytes, implicit: bool) -> Node:
    """The one element that is encoded here.

    Raises
    ------
    MalformedError, IndexError, struct.error
        The bytes are no element.
    """
    places, _ = _places(raw, 0, implicit)
    (place,) = places.values()
    return _node(raw, place, implicit, 0)


def _node(data: bytes, place: Place, implicit: bool, depth: int) -> Node:
    if place.undefined:
        return Node(place.tag, "SQ", _items(data, place.value, len(data), implicit or place.vr == "UN", depth)[0])
    if place.vr == "SQ":
        items, end = _items(data, place.value, place.end, implicit, depth)
        if end != place.end:
            raise MalformedError
        return Node(place.tag, "SQ", items)
    return Node(place.tag, place.vr, data[place.value : place.end])


def _items(data: bytes, position: int, end: int, implicit: bool, depth: int) -> tuple[list[dict[int, Node]], int]:
    """(items, position behind them): up to the delimiter, or to ``end`` where there is none."""
    if depth > _MAX_DEPTH:
        raise MalformedError
    items: list[dict[int, Node]] = []
    while position < end:
        group, number, length = _IMPLICIT_HEAD(data, position)
        tag = group << 16 | number
        position += 8
        if tag == _SEQUENCE_END:
            return items, position
        if tag != _ITEM:
            raise MalformedError
        stop = len(data) if length == _UNDEFINED else position + length
        if stop > len(data):
            raise MalformedError
        item, position = _item(data, position, stop, implicit, depth)
        if length != _UNDEFINED and position != stop:
            raise MalformedError
        items.append(item)
    return items, position


def _item(data: bytes, position: int, end: int, implicit: bool, depth: int) -> tuple[dict[int, Node], int]:
    nodes: dict[int, Node] = {}
    while position < end:
        group, number, length = _IMPLICIT_HEAD(data, position)
        tag = group << 16 | number
        if tag == _ITEM_END:
            return nodes, position + 8
        if group == 0xFFFE:
            raise MalformedError
        value = position + 8
        if implicit:
            known = DicomDictionary.get(tag)
            vr = known[0] if known else "UN"
        else:
            code = data[position + 4 : position + 6]
            if code in _SHORT_VRS:
                length >>= 16
            elif code in _LONG_VRS:
                value, length = position + 12, _LENGTH(data, position + 8)[0]
            else:
                raise MalformedError
            vr = _VRS[code]
        if length == _UNDEFINED:
            if tag in _PIXELS and vr != "SQ":
                behind = end_of_fragments(data, value)
                nodes[tag] = Node(tag, vr, data[value:behind])
                position = behind + 8
                continue
            items, position = _items(data, value, len(data), implicit or vr == "UN", depth + 1)
            nodes[tag] = Node(tag, "SQ", items)
            continue
        position = value + length
        if position > len(data):
            raise MalformedError
        if vr == "SQ":
            items, behind = _items(data, value, position, implicit, depth + 1)
            if behind != position:
                raise MalformedError
            nodes[tag] = Node(tag, "SQ", items)
        else:
            nodes[tag] = Node(tag, vr, data[value:position])
    return nodes, position


def by_pydicom(data: bytes) -> Source:
    """A file as pydicom reads it, in the same form: for big endian, files without preamble, and damaged ones."""
    dataset = dcmread(BytesIO(data), force=True)
    meta = getattr(dataset, "file_meta", Dataset())
    nodes = _nodes(dataset)
    pixels = tuple(tag for tag in sorted(_PIXELS) if tag in nodes)
    # Not what the file says, but what it is read as: the two may disagree, and it may say nothing.
    syntax = str(meta.get("TransferSyntaxUID", "")) or (IMPLICIT_LITTLE if dataset.original_encoding[0] else EXPLICIT_LITTLE)
    return Source(data, syntax, str(meta.get("MediaStorageSOPClassUID", "")), False, {}, nodes, pixels)


def _nodes(dataset: Dataset) -> dict[int, Node]:
    nodes = {}
    for tag in sorted(map(int, dataset.keys())):
        element: Any = dataset.get_item(tag)
        vr = element.VR or (DicomDictionary[tag][0] if tag in DicomDictionary else "UN")
        if vr == "SQ":
            try:
                nodes[tag] = Node(tag, "SQ", [_nodes(item) for item in dataset[tag].value or []])
            except Exception:  # noqa: BLE001 - a sequence that cannot be parsed is never written either
                continue
        else:
            nodes[tag] = Node(tag, vr, _bytes(element))
    return nodes


def _bytes(element: Any) -> bytes:
    if isinstance(element, RawDataElement):
        value = bytes(element.value or b"")
        size = _WORD.get((element.VR or "UN").split(" or ")[0], 1)
        if not element.is_little_endian and size > 1 and int(element.tag) not in _PIXELS:
            return np.frombuffer(value[: len(value) // size * size], dtype=f">u{size}").astype(f"<u{size}").tobytes()
        return value
    if element.is_empty:
        return b""
    if element.VR in _NUMBER:  # pydicom reads PixelRepresentation at once, to settle ambiguous VRs
        numbers = element.value if element.VM > 1 else [element.value]
        return struct.pack(f"<{len(numbers)}{_NUMBER[element.VR]}", *numbers)
    if element.VR == "CS":  # SpecificCharacterSet likewise
        return "\\".join([element.value] if isinstance(element.value, str) else element.value).encode("latin-1", "replace")
    raise ValueError("an element was converted before it was read")
