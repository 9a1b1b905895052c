"""Text beside the image itself: overlays, unused bits, icons, curves and graphic annotations of a data set. Pure; runs in the child.

Overlays (PS3.3 C.9.2), icons (C.7.6.1.1.6) and bits above High Bit are pictures and are read as such; curves (retired, group 50xx) and
graphic annotations (C.10.5) hold their text as text. What cannot be decoded counts as text: nobody has looked at it.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless

from pictures_spark.pixels.codestream import precision_of
from pictures_spark.pixels.decode import Image
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.window import to_8bit

PIXEL, OVERLAY, ICON, CURVE, GRAPHIC = "pixel", "overlay", "icon", "curve", "graphic"
_TEXT_VRS = frozenset(("CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_LARGEST = 1 << 26


@dataclass(frozen=True)
class Picture:
    """A plane as an 8-bit picture, or None where it cannot be decoded; it covers these frames, and starts at this row and column."""

    plane: str
    frame_from: int
    frame_to: int
    pixels: np.ndarray | None
    top: int = 0
    left: int = 0


@dataclass(frozen=True)
class Written:
    """A text that a header element holds, and the rectangle it is shown in, where that is told in pixels."""

    plane: str
    text: str
    sides: tuple[int, int, int, int] = (0, 0, 0, 0)


def pictures(image: Image) -> Iterator[Picture]:
    """The planes of an image that are pictures; empty ones are left out."""
    dataset, last = image.dataset, image.frame_count - 1
    declared: set[int] = set()
    for group in range(0x6000, 0x6100, 2):
        if (group, 0x0010) not in dataset:
            continue
        if (group, 0x3000) in dataset:
            yield from _overlay(dataset, group, last)
        else:
            declared.add(_number(dataset, group, 0x0102))
    yield from _unused_bits(image, declared)
    for item in dataset.get("IconImageSequence") or []:
        yield Picture(ICON, 0, last, _icon(item))


def written(dataset: Dataset) -> list[Written]:
    """Texts of curves and graphic annotations."""
    curves = [element for element in dataset if 0x5000 <= element.tag.group <= 0x50FE and element.VR in _TEXT_VRS]
    found = [Written(CURVE, str(element.value).strip()) for element in curves]
    for annotation in dataset.get("GraphicAnnotationSequence") or []:
        for item in annotation.get("TextObjectSequence") or []:
            found.append(Written(GRAPHIC, str(item.get("UnformattedTextValue", "")).strip(), _rectangle(item)))
    return [one for one in found if one.text]


def _rectangle(item: Dataset) -> tuple[int, int, int, int]:
    """Columns and rows of a text's bounding box, from 0; nothing where it is not told in pixels of the image."""
    corners = item.get("BoundingBoxTopLeftHandCorner"), item.get("BoundingBoxBottomRightHandCorner")
    if item.get("BoundingBoxAnnotationUnits") != "PIXEL" or None in corners:
        return 0, 0, 0, 0
    try:
        (left, top), (right, bottom) = ([round(float(n)) for n in corner] for corner in corners)
    except (TypeError, ValueError, OverflowError):
        return 0, 0, 0, 0
    return max(0, left - 1), max(0, top - 1), max(0, right), max(0, bottom)


def _number(dataset: Dataset, group: int, element: int, otherwise: int = 0) -> int:
    try:
        return int(dataset[group, element].value)
    except (KeyError, TypeError, ValueError):
        return otherwise


def _overlay(dataset: Dataset, group: int, last: int) -> Iterator[Picture]:
    """The frames of an overlay with data of its own, one bit a pixel."""
    rows, columns = _number(dataset, group, 0x0010), _number(dataset, group, 0x0011)
    count, first = _number(dataset, group, 0x0015, 1), max(1, _number(dataset, group, 0x0051, 1)) - 1
    data = dataset[group, 0x3000].value or b""
    many = (group, 0x0015) in dataset
    if min(rows, columns, count) < 1 or rows * columns * count > min(_LARGEST, 8 * len(data)):
        yield Picture(OVERLAY, 0, last, None)
        return
    try:
        top, left = (int(n) - 1 for n in dataset[group, 0x0050].value)
    except (KeyError, TypeError, ValueError):
        top = left = 0
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: rows * columns * count].reshape(count, rows, columns)
    for number, frame in enumerate(bits):
        if frame.any():
            frames = (min(first + number, last),) * 2 if many else (0, last)
            yield Picture(OVERLAY, *frames, frame * np.uint8(255), top, left)


def _unused_bits(image: Image, declared: set[int]) -> Iterator[Picture]:
    """What lies in the bits of samples that are no part of the value: an overlay (retired, PS3.5 8.1.2), declared or not.

    Where such bits lie below the value, decoders give other bits than the value's, and so the value is one of the pictures, too.
    """
    dataset, last = image.dataset, image.frame_count - 1
    allocated, high, stored = (int(dataset.get(name) or 0) for name in ("BitsAllocated", "HighBit", "BitsStored"))
    unused = [*range(high + 1, allocated), *range(0, high + 1 - stored)]
    mask = sum(1 << position for position in unused)
    frames: Iterable[tuple[int, np.ndarray | None]] | None
    if allocated not in (8, 16, 32) or not unused:
        frames = None
    elif image.transfer_syntax == RLELossless:
        frames = enumerate(_run_lengths(image, allocated))
    elif UID(image.transfer_syntax).is_encapsulated:
        frames = _compressed_words(image, allocated, stored)
        if declared:
            # Most encoders leave out what is no part of the value: what was declared is not there to be looked at.
            yield Picture(OVERLAY, 0, last, None)
    else:
        words = _native_words(image, allocated)
        frames = None if words is None else enumerate(words)
    if frames is None:
        if declared:
            yield Picture(OVERLAY, 0, last, None)
        return
    for number, frame in frames:
        if frame is None:
            yield Picture(OVERLAY if declared else PIXEL, number, number, None)
            continue
        # Colours have such bits in each of their samples.
        for sample in frame:
            if 0 < stored <= high:
                yield Picture(PIXEL, number, number, _value(sample, high, stored, image))
            if not (sample & mask).any():
                continue
            sign = (sample >> high) & 1
            for position in unused:
                bits = (sample >> position) & 1
                # Copies of the sign bit are part of a signed value.
                if bits.any() and not (position > high and np.array_equal(bits, sign)):
                    # Nobody takes undeclared bits out: their text is treated as text of the pixels.
                    name = OVERLAY if position in declared else PIXEL
                    yield Picture(name, number, number, bits.astype(np.uint8) * np.uint8(255))


def _value(words: np.ndarray, high: int, stored: int, image: Image) -> np.ndarray:
    """The value in words whose highest bit is not the last one stored, as 8-bit grey."""
    value = ((words >> (high + 1 - stored)) & ((1 << stored) - 1)).astype(np.int64)
    if int(image.dataset.get("PixelRepresentation") or 0):
        value -= (value >> (stored - 1)) << stored
    return to_8bit(value, image.inverted)


def _native_words(image: Image, allocated: int) -> np.ndarray | None:
    """Whole words, (frames, samples, rows, columns); None of what is cut short."""
    dataset = image.dataset
    count = image.frame_count * image.rows * image.columns * image.samples
    data = dataset.get("PixelData") or b""
    if len(data) < count * allocated // 8:
        return None
    order = "<" if dataset.original_encoding[1] is not False else ">"
    words = np.frombuffer(data, f"{order}u{allocated // 8}", count)
    if image.samples > 1 and int(dataset.get("PlanarConfiguration", 0)):
        return words.reshape(image.frame_count, image.samples, image.rows, image.columns)
    return np.moveaxis(words.reshape(image.frame_count, image.rows, image.columns, image.samples), 3, 1)


def _run_lengths(image: Image, allocated: int) -> Iterator[np.ndarray | None]:
    """Whole words of each run-length coded frame, (samples, rows, columns); None where it does not decode.

    pydicom clears what is not stored, so all bits are said to be.
    """
    whole = _all_stored(image.dataset, allocated)
    for index in range(image.frame_count):
        image.done()
        try:
            frame, _ = get_decoder(RLELossless).as_array(whole, index=index, raw=True)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - decoders raise anything, and their messages quote the input
            yield None
            continue
        yield np.moveaxis(frame.reshape(image.rows, image.columns, image.samples), 2, 0)


def _compressed_words(image: Image, allocated: int, stored: int) -> Iterator[tuple[int, np.ndarray | None]]:
    """Whole words, (samples, rows, columns), of frames whose codestream may have more bits than are stored; None where one does not decode.

    The frame itself does not always show these: pydicom clears them in JPEG. Decoding once more costs as much as decoding, so what has no
    such bits is left out.
    """
    deep = [index for index, bits in enumerate(_precisions(image)) if bits is None or bits > stored]
    whole = replace(image, dataset=_all_stored(image.dataset, allocated))
    # All frames in one walk over the fragments.
    frames = whole.frames(None if len(deep) == image.frame_count else deep)
    for done, index in enumerate(deep):
        try:
            frame = next(frames)
        except PixelFault:
            yield from ((left, None) for left in deep[done:])
            return
        shaped = frame.astype(f"u{allocated // 8}").reshape(image.rows, image.columns, image.samples)
        yield index, np.moveaxis(shaped, 2, 0)


def _precisions(image: Image) -> list[int | None]:
    """Bits of a sample in each frame's codestream; None where it does not say."""
    try:
        frames = generate_frames(image.dataset.PixelData, number_of_frames=image.frame_count)
        found = [precision_of(frame) for frame in frames][: image.frame_count]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - decoders have other ways through damaged fragments
        found = []
    return found + [None] * (image.frame_count - len(found))


def _all_stored(dataset: Dataset, allocated: int) -> Dataset:
    """The same data set, with all bits said to be stored."""
    whole = copy(dataset)
    whole.BitsStored, whole.HighBit, whole.PixelRepresentation = allocated, allocated - 1, 0
    return whole


def _icon(item: Dataset) -> np.ndarray | None:
    """An icon as 8-bit grey or RGB; None where it is not native 8-bit."""
    try:
        rows, columns, samples = int(item.Rows), int(item.Columns), int(item.get("SamplesPerPixel", 1))
        value: Any = item.PixelData
        if int(item.BitsAllocated) != 8 or samples not in (1, 3) or len(value) < rows * columns * samples:
            return None
        made = np.frombuffer(value, np.uint8, rows * columns * samples)
    except (AttributeError, TypeError, ValueError):
        return None
    if samples == 1:
        return made.reshape(rows, columns)
    if int(item.get("PlanarConfiguration", 0)):
        return np.ascontiguousarray(np.moveaxis(made.reshape(3, rows, columns), 0, 2))
    return made.reshape(rows, columns, 3)
