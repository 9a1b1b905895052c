"""What the instances of a series share, de-identified once: a template of constant bytes, and slots whose values differ.

What enters: files of one person that were de-identified element by element. What leaves: for further files like them, the same result by
comparing the constant runs, treating the slots, and putting the de-identified pieces together. A file that differs in anything but the
slots is refused, and its difference becomes a slot. Pure; executors.

A value that decides how others are read or treated is never a slot: who the person is, character set, class, what describes the pixels.
"""

import re
import struct
from collections.abc import Callable, Set
from typing import NamedTuple, Protocol

from pictures_spark.deid.dicom_frames import without_comments
from pictures_spark.deid.dicom_read import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    RLE,
    Place,
    Source,
    end_of_fragments,
    end_of_sequence,
    meta_places,
)
from pictures_spark.deid.dicom_write import element_head, encode_value

_PIXEL_DATA, _SOP_INSTANCE, _META_LENGTH, _META_INSTANCE = 0x7FE00010, 0x00080018, 0x00020000, 0x00020003
# Class, character set, study, series, and what describes the pixels; palettes and what describes them.
_CONSTANT = frozenset(
    (0x00080005, 0x00080016, 0x0020000D, 0x0020000E, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100)
    + (0x00280101, 0x00280102, 0x00280103, *range(0x00281101, 0x00281105), *range(0x00281201, 0x00281205))
)
# What differs from image to image anyway: instance, times, numbers, positions, windows, smallest and largest values, tube current.
_OFTEN = frozenset(
    (_SOP_INSTANCE, 0x00080032, 0x00080033, 0x00181151, 0x00181152, 0x00200012, 0x00200013, 0x00200032, 0x00201041, 0x00280106, 0x00280107)
    + (0x00281050, 0x00281051)
)
_SAYING_VRS = frozenset(("PN", "DA"))
_UNDEFINED = 0xFFFFFFFF
_LENGTH = struct.Struct("<I").unpack_from
MAX_SLOTS, MAX_PLAIN = 64, 4096
_SHORT = 1 << 16


class LongWayError(Exception):
    """A file is like others, but what becomes of it cannot be told from them."""


class Slot(Protocol):
    """What becomes of the elements of a slot."""

    def __call__(self, raw: bytes, value: int) -> bytes | None:
        """The de-identified bytes of an element whose value starts at ``value``; None where only the long way can tell."""


class _Step(NamedTuple):
    """A constant run of the source up to a slot's length, and what to do with the slot.

    The last ``head`` bytes of the run are the slot's own, and ``width`` bytes of length follow; it may be of ``undefined`` length instead.
    ``made`` is the de-identified constant before the slot. An element whose value matches ``plain`` stays as it is, behind ``explicit``
    instead of its own head if that is not empty; where ``treat`` is None, any other is left out.
    """

    run: bytes
    size: int
    tag: int
    head: int
    width: int
    undefined: bool
    made: bytes
    plain: "re.Pattern[bytes] | None"
    explicit: bytes
    treat: Slot | None


class Template:
    """Constant runs and slots of headers, and the de-identified pieces between the slots.

    Parameters
    ----------
    source : a file that was de-identified, with places.
    slots : tags of the elements that differ.
    made : its top-level elements, de-identified and encoded, by tag; with the statements, without pixels.
    slot : (tag, place, whether the VR is implicit) -> (what its value looks like where it stays byte for byte, what becomes of it), either
        of which may be None.
    native_length : bytes that native pixels take.
    """

    def __init__(
        self,
        source: Source,
        slots: frozenset[int],
        made: dict[int, bytes],
        slot: "Callable[[int, Place, bool], tuple[re.Pattern[bytes] | None, Slot | None]]",
        native_length: int,
    ) -> None:
        self.slots = slots
        self.frames = source.number(0x00280008, 1) or 1
        self._native_length = native_length
        self._implicit = source.implicit
        self._run_length = source.number(0x00280010) * source.number(0x00280011) if source.syntax == RLE else 0
        self._native = source.syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
        self._pixel_head = b"\xe0\x7f\x10\x00" + (b"OW" if source.number(0x00280100) > 8 else b"OB") + b"\0\0"
        self._steps: list[_Step] = []
        constants = sorted(made.items())
        position = done = 0
        for place in [*meta_places(source.data), *source.places.values()]:
            tag = place.tag
            if tag not in slots and tag not in (_META_LENGTH, _META_INSTANCE, _PIXEL_DATA):
                continue
            wide = place.value - place.start == 12 or (self._implicit and tag >> 16 != 2)
            width = 4 if wide else 2
            head = place.value - width - place.start
            run = source.data[position or 128 : place.start + head]
            position = place.end
            before = done
            while done < len(constants) and constants[done][0] < tag:
                done += 1
            constant = b"".join(value for own, value in constants[before:done] if own not in slots)
            plain, treat = slot(tag, place, self._implicit) if tag in slots else (None, None)
            explicit = element_head(tag, place.vr)[0] if plain is not None and self._implicit else b""
            self._steps.append(_Step(run, len(run), tag, head, width, place.undefined, constant, plain, explicit, treat))
        self._rest = b"".join(value for own, value in constants[done:] if own not in slots)

    def apply(self, data: bytes, instance: Callable[[str], str]) -> "tuple[str, list[bytes | memoryview]] | None":
        """(de-identified instance UID, data set in pieces) of a file like the template's; None where it is not like it.

        ``instance`` maps the instance UID. The UID is empty where the file's is no slot.

        Raises
        ------
        LongWayError
            It is like it, but only the long way can tell what becomes of it.
        MalformedError, ValueError, IndexError, struct.error
            It is like it, but broken.
        """
        position = 128
        uid = ""
        parts: list[bytes | memoryview] = []
        for run, size, tag, head, width, undefined, made, plain, explicit, treat in self._steps:
            if not data.startswith(run, position):
                return None
            position += size
            start = position - head
            if width == 2:
                length = data[position] | data[position + 1] << 8
                position += 2
            else:
                (length,) = _LENGTH(data, position)
                position += 4
            if tag == _PIXEL_DATA:
                parts += (made, self._rest)
                parts += self._pixels(data, position, length)
                return uid, parts
            value = position
            if undefined != (length == _UNDEFINED):
                return None
            position = end_of_sequence(data, value, self._implicit) if undefined else value + length
            if made:
                parts.append(made)
            if plain is not None and not length & 1 and length < MAX_PLAIN and plain.fullmatch(data, value, position) is not None:
                if explicit:
                    parts += (explicit, length.to_bytes(2, "little"), data[value:position])
                else:
                    parts.append(data[start:position])
            elif tag == _SOP_INSTANCE:
                own = data[value:position].decode("latin-1")
                uid = "" if "\\" in own else instance(own)
                if not uid:
                    raise LongWayError
                parts.append(encode_value(_SOP_INSTANCE, "UI", uid.encode("ascii")))
            elif treat is not None:
                treated = treat(data[start:position], value - start)
                if treated is None:
                    raise LongWayError
                parts.append(treated)
        return None

    def _pixels(self, data: bytes, position: int, length: int) -> "tuple[bytes | memoryview, ...]":
        if self._native == (length == _UNDEFINED):
            raise ValueError("pixel data and transfer syntax disagree")
        if self._native:
            end = position + min(length, self._native_length)
            # A short value is copied sooner than looked at.
            value: bytes | memoryview = memoryview(data)[position:end] if end - position > _SHORT else data[position:end]
            if len(value) % 2:
                value = bytes(value) + b"\0"
            return self._pixel_head, len(value).to_bytes(4, "little"), value
        view = memoryview(data)
        value, changed = without_comments(view[position : end_of_fragments(data, position)], self.frames, self._run_length)
        if changed:
            raise LongWayError  # what goes with it
        return b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", value, b"\xfe\xff\xdd\xe0\0\0\0\0"


def differences(a: Source, b: Source, saying: Set[int]) -> frozenset[int] | None:
    """Tags of the elements whose bytes differ, or will; None where a template cannot have slots for them, or the files are not alike.

    ``saying`` are tags of elements that say who the person is.
    """
    if a.syntax != b.syntax or a.pixels != b.pixels or len(a.places) != len(b.places) or _meta(a) != _meta(b):
        return None
    found = set()
    for one, other in zip(a.places.values(), b.places.values(), strict=True):
        if (one.tag, one.vr, one.undefined, one.value - one.start) != (other.tag, other.vr, other.undefined, other.value - other.start):
            return None
        if one.tag != _PIXEL_DATA and a.data[one.start : one.end] != b.data[other.start : other.end]:
            found.add(one.tag)
    slots = may_differ(a, found | _OFTEN, saying)
    return slots if slots is not None and found <= slots and len(found) <= MAX_SLOTS else None


def may_differ(source: Source, tags: Set[int], saying: Set[int]) -> frozenset[int] | None:
    """Those of some elements of a file that a template may have slots for; None where it cannot have a template."""
    instance = source.places.get(_SOP_INSTANCE)
    if source.pixels != (_PIXEL_DATA,) or instance is None or instance.vr != "UI":
        return None
    places = [source.places[tag] for tag in tags if tag in source.places and tag not in _CONSTANT and tag not in saying]
    return frozenset(place.tag for place in places if place.vr not in _SAYING_VRS and not _is_creator(place))


def _meta(source: Source) -> list[bytes]:
    """File meta information without what names the instance."""
    return [source.data[p.start : p.end] for p in meta_places(source.data) if p.tag not in (_META_LENGTH, _META_INSTANCE)]


def _is_creator(place: Place) -> bool:
    return bool(place.tag >> 16 & 1) and place.tag & 0xFFFF <= 0xFF
