"""Overlays that may stay: marks drawn over an image, in planes with data of their own (PS3.3 C.9.2).

What enters: a file and how its person's identifiers look in bytes. What leaves: the elements of its overlays that make them visible, built
anew; their names and comments go. Only for images of which text recognition has read the overlays and found no text in them, under a
policy with option *graphics* (PS3.15 E.3.3 Clean Graphics). Pure; executors.
"""

import struct
from collections.abc import Callable, Iterator

from pictures_spark.deid.dicom_read import EXPLICIT_BIG, Source
from pictures_spark.deid.dicom_write import Element, text

# Repeating groups of overlays (PS3.5 7.6), and what stays of each, by element.
GROUPS = range(0x6000, 0x6020, 2)
_ROWS, _COLUMNS, _FRAMES, _TYPE, _ORIGIN = 0x0010, 0x0011, 0x0015, 0x0040, 0x0050
_FIRST_FRAME, _BITS, _POSITION, _DATA = 0x0051, 0x0100, 0x0102, 0x3000
STAYING = frozenset((_ROWS, _COLUMNS, _FRAMES, _TYPE, _ORIGIN, _FIRST_FRAME, _BITS, _POSITION, _DATA))


def overlays(source: Source, in_bytes: Callable[[bytes], bool]) -> Iterator[Element]:
    """The elements of the overlays that stay; ``in_bytes`` tells whether bytes hold an identifier.

    An overlay goes where its elements make no sense, and with all others where the file is one that text recognition may have read
    otherwise: big endian, or of a form that only pydicom reads.
    """
    if source.nodes is not None or source.syntax == EXPLICIT_BIG:
        return
    for group in GROUPS:
        if (group << 16 | _DATA) in source.places:
            yield from _overlay(source, group << 16, in_bytes)


def _overlay(source: Source, group: int, in_bytes: Callable[[bytes], bool]) -> list[Element]:
    rows, columns = source.number(group | _ROWS), source.number(group | _COLUMNS)
    many = source.raw(group | _FRAMES).strip(b" \0")
    if not (many or b"1").isdigit() or len(many) > 6 or source.number(group | _BITS, 1) != 1 or source.number(group | _POSITION):
        return []
    bits = rows * columns * int(many or b"1")
    place = source.places[group | _DATA]
    data = source.raw(group | _DATA)
    if place.undefined or not bits or bits > 8 * len(data):
        return []
    # What follows the last pixel is no part of the overlay and could be anything.
    whole, rest = divmod(bits, 8)
    data = data[:whole] + (bytes([data[whole] & ((1 << rest) - 1)]) if rest else b"")
    if in_bytes(data):
        return []
    origin = source.raw(group | _ORIGIN)
    made = [
        Element(group | _ROWS, "US", struct.pack("<H", rows)),
        Element(group | _COLUMNS, "US", struct.pack("<H", columns)),
        text(group | _TYPE, "CS", "R" if source.raw(group | _TYPE).strip(b" \0") == b"R" else "G"),
        Element(group | _ORIGIN, "SS", origin if len(origin) == 4 else struct.pack("<2h", 1, 1)),
        Element(group | _BITS, "US", struct.pack("<H", 1)),
        Element(group | _POSITION, "US", struct.pack("<H", 0)),
        Element(group | _DATA, "OW", data + bytes(len(data) % 2)),
    ]
    if many:
        made.append(text(group | _FRAMES, "IS", str(int(many))))
    if len(first := source.raw(group | _FIRST_FRAME)) == 2:
        made.append(Element(group | _FIRST_FRAME, "US", first))
    return made
