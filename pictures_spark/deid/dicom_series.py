"""What the instances of a series share, de-identified once: a template of constant bytes, and slots whose values differ.

What enters: files of one person that were de-identified element by element. What leaves: for further files like them, the same result by
comparing the constant runs, treating the slots, and putting the de-identified pieces together. A file that differs in anything but the
slots is refused, and its difference becomes a slot. Pure; executors.

A value that decides how others are read or treated is never a slot: who the person is, character set, class, what describes the pixels.
"""

import struct
from collections.abc import Callable, Container
from typing import NamedTuple

from pictures_spark.deid.dicom_frames import without_comments
from pictures_spark.deid.dicom_read import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    RLE,
    MalformedError,
    Place,
    Source,
    end_of_fragments,
    end_of_sequence,
    meta_places,
)

_PIXEL_DATA, _SOP_INSTANCE, _META_LENGTH, _META_INSTANCE = 0x7FE00010, 0x00080018, 0x00020000, 0x00020003
# Class, character set, study, series, and what describes the pixels; palettes and what describes them.
_CONSTANT = frozenset(
    (0x00080005, 0x00080016, 0x0020000D, 0x0020000E, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100)
    + (0x00280101, 0x00280102, 0x00280103, *range(0x00281101, 0x00281105), *range(0x00281201, 0x00281205))
)
_SAYING_VRS = frozenset(("PN", "DA"))
_UNDEFINED = 0xFFFFFFFF
_LENGTH = struct.Struct("<I").unpack_from
MAX_SLOTS = 64


class _Slot(NamedTuple):
    """An element whose value differs: bytes of its head before the length, width of the length, whether it is delimited instead."""

    tag: int
    head: int
    width: int
    undefined: bool


class Template:
    """Constant runs and slots of headers, and the de-identified pieces between the slots.

    Parameters
    ----------
    source : a file that was de-identified, with places.
    slots : tags of the elements that differ.
    made : its top-level elements, de-identified and encoded, by tag; with the statements, without pixels.
    treat : (element as bytes, its place in them, whether its VR is implicit) -> its de-identified bytes, or None where only the long way
        can tell.
    """

    def __init__(
        self, source: Source, slots: frozenset[int], made: dict[int, bytes], treat: Callable[[bytes, Place, bool], bytes | None]
    ) -> None:
        self.source = source
        self.slots = slots
        self.made = made
        self.treat = treat
        self._implicit = source.implicit
        self.frames = source.number(0x00280008, 1) or 1
        self._run_length = source.number(0x00280010) * source.number(0x00280011) if source.syntax == RLE else 0
        places = [*meta_places(source.data), *source.places.values()]
        self._places: dict[int, Place] = {}
        self._runs: list[tuple[bytes, _Slot]] = []
        position = 128
        for place in places:
            if place.tag in slots or place.tag in (_META_LENGTH, _META_INSTANCE, _PIXEL_DATA):
                wide = place.value - place.start == 12 or (self._implicit and place.tag >> 16 != 2)
                width = 4 if wide else 2
                head = place.value - width - place.start
                self._runs.append((source.data[position : place.start + head], _Slot(place.tag, head, width, place.undefined)))
                position = place.end
                self._places[place.tag] = place._replace(start=0, value=place.value - place.start)
        self._pieces: list[bytes | int] = []
        constant: list[bytes] = []
        for tag in sorted({*made, *slots}):
            if tag in slots:
                self._pieces += [b"".join(constant), tag]
                constant = []
            else:
                constant.append(made[tag])
        self._pieces.append(b"".join(constant))
        place = source.places[_PIXEL_DATA]
        self._native = source.syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
        self._pixel_vr = b"OW" if source.number(0x00280100) > 8 else b"OB"

    def read(self, data: bytes, native_length: int) -> "tuple[dict[int, bytes], list[bytes | memoryview]] | None":
        """(the slots' bytes by tag, pixel element in pieces) of a file like the template's; None where it is not like it."""
        raws: dict[int, bytes] = {}
        position = 128
        for run, slot in self._runs:
            if not data.startswith(run, position):
                return None
            start = position + len(run) - slot.head
            position += len(run)
            if slot.tag == _PIXEL_DATA:
                return raws, self._pixels(data, position, native_length)
            length = int.from_bytes(data[position : position + slot.width], "little")
            position += slot.width
            if slot.undefined:
                if length != _UNDEFINED:
                    return None
                position = end_of_sequence(data, position, self._implicit)
            elif length == _UNDEFINED:
                return None
            else:
                position += length
            raws[slot.tag] = data[start:position]
        return None

    def _pixels(self, data: bytes, position: int, native_length: int) -> "list[bytes | memoryview]":
        (length,) = _LENGTH(data, position)
        position += 4
        view = memoryview(data)
        if self._native == (length == _UNDEFINED):
            raise ValueError("pixel data and transfer syntax disagree")
        if self._native:
            value: bytes | memoryview = view[position : position + min(length, native_length)]
            if len(value) % 2:
                value = bytes(value) + b"\0"
            return [b"\xe0\x7f\x10\x00" + self._pixel_vr + b"\0\0" + struct.pack("<I", len(value)), value]
        value, changed = without_comments(view[position : end_of_fragments(data, position)], self.frames, self._run_length)
        if changed:
            raise MalformedError  # what goes with it is for the long way
        return [b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", value, b"\xfe\xff\xdd\xe0\0\0\0\0"]

    def pieces(self, raws: dict[int, bytes]) -> list[bytes] | None:
        """The de-identified header, in pieces."""
        parts = []
        for piece in self._pieces:
            if isinstance(piece, bytes):
                parts.append(piece)
            else:
                treated = self.treat(raws[piece], self._places[piece], self._implicit)
                if treated is None:
                    return None
                parts.append(treated)
        return parts


def differences(a: Source, b: Source, saying: Container[int]) -> frozenset[int] | None:
    """Tags of the elements whose bytes differ; None where a template cannot have slots for them, or the files are not alike.

    ``saying`` are tags of elements that say who the person is.
    """
    if a.syntax != b.syntax or len(a.pixels) != 1 or a.pixels != b.pixels or a.pixels[0] != _PIXEL_DATA or len(a.places) != len(b.places):
        return None
    if _meta(a) != _meta(b):
        return None
    found = set()
    for one, other in zip(a.places.values(), b.places.values(), strict=True):
        if (one.tag, one.vr, one.undefined, one.value - one.start) != (other.tag, other.vr, other.undefined, other.value - other.start):
            return None
        if one.tag == _PIXEL_DATA:
            continue
        if a.data[one.start : one.end] == b.data[other.start : other.end]:
            continue
        if one.tag in _CONSTANT or one.tag in saying or one.vr in _SAYING_VRS or _is_creator(one):
            return None
        found.add(one.tag)
    return frozenset(found) if len(found) <= MAX_SLOTS else None


def _meta(source: Source) -> list[bytes]:
    """File meta information without what names the instance."""
    return [source.data[p.start : p.end] for p in meta_places(source.data) if p.tag not in (_META_LENGTH, _META_INSTANCE)]


def _is_creator(place: Place) -> bool:
    return bool(place.tag >> 16 & 1) and place.tag & 0xFFFF <= 0xFF
