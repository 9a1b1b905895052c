"""Where the elements of a header lie in its bytes: a walk over the top level that converts no value.

Pure. Little endian files with preamble and transfer syntax only, VR implicit or explicit: what other files hold is for
:mod:`pictures_spark.dicom.scan` to say. Runs on executors.
"""

import struct
from functools import cache
from typing import NamedTuple

from pydicom.filereader import ENCODED_VR
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from pictures_spark.dicom.scan import public_vr, rules

# How an element says its length: 2 bytes after a VR, 4 bytes after a VR and two reserved ones, 4 bytes without a VR, or not at all.
SHORT, LONG, IMPLICIT, OPEN = range(4)
# Bytes of an element's length field.
WIDTHS = (2, 4, 4, 0)
UNDEFINED = 0xFFFFFFFF
PIXELS = b"\xe0\x7f\x10\x00"
_LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)
# Without those that only the dictionary has, such as "US or SS".
_KNOWN_VRS = frozenset(vr for vr in ENCODED_VR if len(vr) == 2)
# Transfer syntax -> whether its VR is implicit.
_SYNTAXES: dict[str, bool] = {ImplicitVRLittleEndian: True, ExplicitVRLittleEndian: False, RLELossless: False}
# Encapsulated pixels of any compression come behind an explicit VR little endian header (PS3.5 A.4).
_ENCAPSULATED = "1.2.840.10008.1.2.4."


class NotPlainError(Exception):
    """A header that is not walked: another syntax, an unknown VR, elements out of order."""


class Element(NamedTuple):
    """A top-level element: ``start`` of its tag, ``value`` where its value starts, ``end`` behind it."""

    tag: int
    vr: bytes
    form: int
    start: int
    value: int
    end: int


def walk(data: bytes) -> tuple[bool, list[Element]]:
    """(implicit VR?, the top-level elements) of a header up to its pixel data.

    Raises
    ------
    NotPlainError
        Without preamble or transfer syntax, big endian, deflated, an unknown VR, or out of order.
    IndexError, struct.error
        The bytes end before the pixel data.
    """
    if data[128:132] != b"DICM":
        raise NotPlainError
    elements: list[Element] = []
    position, implicit, known, last = 132, False, False, 0
    while True:
        tag = int.from_bytes(data[position : position + 2], "little") << 16 | int.from_bytes(data[position + 2 : position + 4], "little")
        if tag >> 16 != 2 and not known:
            implicit, known = _is_implicit(data, elements), True
        if data[position : position + 4] == PIXELS:
            return implicit, elements
        element = _element(data, position, tag, implicit)
        if tag <= last or tag >> 16 in (0x7FE0, 0xFFFE):
            raise NotPlainError
        last, position = tag, element.end
        elements.append(element)
        if position > len(data):
            raise IndexError


def end_of_items(data: bytes, position: int, implicit: bool, depth: int = 0) -> int:
    """Where the sequence of undefined length whose items start at ``position`` ends.

    Raises
    ------
    NotPlainError, IndexError, struct.error
        As for `walk`.
    """
    if depth > rules()["max_depth"]:
        raise NotPlainError
    while True:
        head = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8
        if head == b"\xfe\xff\xdd\xe0":
            return position
        if head != b"\xfe\xff\x00\xe0":
            raise NotPlainError
        if length != UNDEFINED:
            position += length
            continue
        while data[position : position + 4] != b"\xfe\xff\x0d\xe0":
            position = _end_of_nested(data, position, implicit, depth)
        position += 8


def is_creator(tag: int) -> bool:
    """Whether an element names the private creator of a block."""
    return bool(tag >> 16 & 1) and 0x10 <= (tag & 0xFFFF) <= 0xFF


def creator_of(tag: int) -> int:
    """Tag of the private creator of a private element's block."""
    return (tag & 0xFFFF0000) | (tag >> 8 & 0xFF)


def _is_implicit(data: bytes, elements: list[Element]) -> bool:
    syntax = next((data[e.value : e.end].rstrip(b"\0 ").decode("latin-1") for e in elements if e.tag == 0x00020010), "")
    if syntax.startswith(_ENCAPSULATED):
        return False
    if syntax not in _SYNTAXES:
        raise NotPlainError
    return _SYNTAXES[syntax]


def _head(data: bytes, position: int, implicit: bool) -> tuple[bytes, int, int, int]:
    """(VR, form, where the value starts, its length) of the element at a position."""
    if implicit:
        tag = int.from_bytes(data[position : position + 2], "little") << 16 | int.from_bytes(data[position + 2 : position + 4], "little")
        return _implicit_vr(tag), IMPLICIT, position + 8, struct.unpack_from("<I", data, position + 4)[0]
    vr = data[position + 4 : position + 6]
    if len(vr) < 2:
        raise IndexError
    if vr not in _KNOWN_VRS:
        raise NotPlainError
    if vr in _LONG_VRS:
        return vr, LONG, position + 12, struct.unpack_from("<I", data, position + 8)[0]
    return vr, SHORT, position + 8, struct.unpack_from("<H", data, position + 6)[0]


def _element(data: bytes, position: int, tag: int, implicit: bool) -> Element:
    """The top-level element at a position."""
    vr, form, value, length = _head(data, position, implicit and tag >> 16 != 2)
    if length != UNDEFINED:
        return Element(tag, vr, form, position, value, value + length)
    if vr != b"SQ":
        raise NotPlainError
    return Element(tag, vr, OPEN, position, value, end_of_items(data, value, implicit))


def _end_of_nested(data: bytes, position: int, implicit: bool, depth: int) -> int:
    """Where a nested element ends."""
    vr, _, value, length = _head(data, position, implicit)
    if length != UNDEFINED:
        return value + length
    if not implicit and vr != b"SQ":
        raise NotPlainError
    return end_of_items(data, value, implicit, depth + 1)


@cache
def _implicit_vr(tag: int) -> bytes:
    return (public_vr(tag) or "UN").encode()
