"""Blank text in the pixels of one image, and leave every other pixel as it was.

What enters: a parsed data set and boxes. What leaves: the pixel elements to write, the transfer syntax they are in, and the header
elements that follow from it. Executors only. Three ways (PS3.5 section 8):

* nothing to blank: encapsulated bytes are copied (without what somebody wrote beside the image, `deid.dicom_frames`), native ones
  brought to little endian and cut to the length the header implies;
* native, RLE, and JPEG-LS and JPEG 2000 in their lossless forms: only frames with boxes are changed, and encoded again, without loss, in
  the same syntax; the others are copied;
* any other compressed syntax: every frame is decoded once to Explicit VR Little Endian. No lossy encoding happens a second time.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.pixels.encoders import JPEG2000LosslessEncoder, JPEGLSLosslessEncoder, RLELosslessEncoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from pictures_spark.deid.dicom_frames import without_comments
from pictures_spark.deid.dicom_identity import Box
from pictures_spark.deid.dicom_read import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, RLE, Source, read
from pictures_spark.deid.dicom_write import EXPLICIT_LITTLE, Element, encoded_parts, text
from pictures_spark.pixels.codestream import mend

PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
_SAMPLES_PER_PIXEL, _PHOTOMETRIC, _PLANAR = 0x00280002, 0x00280004, 0x00280006
_BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT, _REPRESENTATION, _LOSSY = 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00282110
_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_UNDEFINED_LENGTH = 0xFFFFFFFF
NATIVE = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG))
_ENCODERS = {RLELossless: RLELosslessEncoder, JPEGLSLossless: JPEGLSLosslessEncoder, JPEG2000Lossless: JPEG2000LosslessEncoder}


class NotCleanableError(Exception):
    """The pixels hold text but cannot be decoded to blank it."""


@dataclass(frozen=True)
class Pixels:
    """Pixel elements as they are written; ``header`` replaces elements of the data set, ``blanked`` counts boxes that were filled;
    ``as_they_were`` where the bytes were copied and nothing goes with them."""

    transfer_syntax: str
    elements: list[Element]
    header: dict[int, Element] = field(default_factory=dict)
    blanked: int = 0
    as_they_were: bool = False

    def parts(self) -> list[bytes]:
        """The pixel elements as bytes, in pieces, so that the pixels are copied once only."""
        return [part for element in sorted(self.elements, key=lambda e: e.tag) for part in encoded_parts(element)]


@dataclass(frozen=True)
class _Shape:
    """What the samples of a frame mean."""

    frames: int
    rows: int
    columns: int
    samples: int
    bits: int
    stored: int
    signed: bool
    photometric: str
    planar: bool
    dtype: np.dtype


def copy_pixels(source: Source) -> Pixels | None:
    """The pixels as they are, never decoded; None where `treat_pixels` is needed: an overlay in the pixel words, or pydicom read it.

    Raises
    ------
    ValueError
        Pixel data and transfer syntax disagree, or the elements that describe the pixels make no sense.
    """
    if source.nodes is not None or _overlay_without_data(source.places):
        return None
    place = source.places[source.pixels[0]]
    native = source.syntax in NATIVE
    if native == place.undefined:
        raise ValueError("pixel data and transfer syntax disagree")
    view = memoryview(source.data)[place.value : place.end]
    if not native:
        frames = source.number(0x00280008, 1) or 1
        run_length = source.number(0x00280010) * source.number(0x00280011) if source.syntax == RLE else 0
        value, changed = without_comments(view, frames, run_length)
        tables = [] if changed else offset_tables(source, frames)
        elements = [Element(PIXEL_DATA, "OB", value, encapsulated=True), *tables]  # type: ignore[arg-type]
        return Pixels(source.syntax, elements, as_they_were=not changed and not tables)
    # What follows the last frame is no part of the image and could be anything.
    view = view[: native_length(source)]
    bits = source.number(_BITS_ALLOCATED)
    vr = {FLOAT_PIXELS: "OF", DOUBLE_PIXELS: "OD"}.get(place.tag, "OW" if bits > 8 else "OB")
    return Pixels(EXPLICIT_LITTLE, [Element(place.tag, vr, view)], as_they_were=source.syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE))  # type: ignore[arg-type]


def treat_file(data: bytes, boxes: Sequence[Box], frames: int = 1) -> Pixels:
    """The pixels of a file without the text in ``boxes``, as `treat_pixels` makes them; ``frames`` is for those who limit its time."""
    source = read(data)
    dataset = dcmread(BytesIO(data), force=True)
    return treat_pixels(dataset, dataset.get_item(source.pixels[0]), offset_tables(source, source.number(0x00280008, 1) or 1), boxes)


def offset_tables(source: Source, frames: int) -> list[Element]:
    """The extended offset tables, where both are there and tell of each frame (PS3.3 C.7.6.3.1.8); none otherwise."""
    found = [Element(tag, "OV", source.raw(tag)) for tag in OFFSET_TABLES]
    if not found[0].value:
        return []
    numbers = [struct.unpack(f"<{frames}Q", table.value) if len(table.value) == 8 * frames else () for table in found]  # type: ignore[arg-type]
    return found if all(numbers) and max(map(max, numbers)) < len(source.data) else []


def native_length(source: Source) -> int:
    """Bytes that the header says native pixels take."""
    bits = {FLOAT_PIXELS: 32, DOUBLE_PIXELS: 64}.get(source.pixels[0]) or source.number(_BITS_ALLOCATED)
    samples = source.number(_SAMPLES_PER_PIXEL, 1) or 1
    values = (source.number(0x00280008, 1) or 1) * source.number(0x00280010) * source.number(0x00280011) * samples
    if source.text(_PHOTOMETRIC) == "YBR_FULL_422":
        values = values // 3 * 2
    return values // 8 + (values % 8 > 0) if bits == 1 else values * (bits // 8)


def treat_pixels(dataset: Dataset, pixels: Any, offset_tables: Sequence[Element], boxes: Sequence[Box]) -> Pixels:
    """The pixels of a data set without the text in ``boxes``.

    Parameters
    ----------
    dataset : the parsed instance; its transfer syntax is taken from the file meta information.
    pixels : the raw pixel element, as read.
    offset_tables : the extended offset table elements, kept where the encapsulated bytes are copied.
    boxes : where text is; an edge beyond the frame is clipped.

    Raises
    ------
    NotCleanableError
        There are boxes, or overlays inside the pixel words, and the pixels cannot be decoded or a box names no frame of the image.
    ValueError, AttributeError, TypeError
        The elements that describe the pixels are missing or contradict each other.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    encapsulated = syntax is not None and syntax.is_encapsulated
    if encapsulated != (pixels.length == _UNDEFINED_LENGTH):
        raise ValueError("pixel data and transfer syntax disagree")
    # An overlay kept in unused bits of the pixel words (retired, PS3.5 8.1.2) would survive the removal of its description.
    mask = _has_embedded_overlay(dataset)
    work = boxes or mask
    if not encapsulated:
        return _native(dataset, pixels, boxes, mask)
    if not work:
        run_length = int(dataset.Rows) * int(dataset.Columns) if syntax == RLELossless else 0
        value, changed = without_comments(memoryview(pixels.value), int(dataset.get("NumberOfFrames", 1) or 1), run_length)
        return Pixels(str(syntax), [Element(PIXEL_DATA, "OB", bytes(value), encapsulated=True), *([] if changed else offset_tables)])
    try:
        if _has_encoder(dataset, str(syntax)):
            return _same_syntax(dataset, str(syntax), pixels, boxes, mask)
        return _decoded(dataset, str(syntax), boxes, mask)
    except (NotCleanableError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - decoders raise anything (a panic of Rust's is no Exception), and messages quote values
        raise NotCleanableError(type(error).__name__) from None


def _native(dataset: Dataset, pixels: Any, boxes: Sequence[Box], mask: bool) -> Pixels:
    shape = _shape(dataset, int(pixels.tag))
    value = bytes(pixels.value or b"")
    if not pixels.is_little_endian:
        unit = shape.bits // 8 if shape.bits > 8 else (2 if pixels.VR == "OW" else 1)
        if unit > 1:
            value = np.frombuffer(value[: len(value) // unit * unit], dtype=f">u{unit}").astype(f"<u{unit}").tobytes()
    expected = get_expected_length(dataset)
    # What follows the last frame is no part of the image and could be anything.
    value = value[:expected]
    if boxes or mask:
        if len(value) < expected:
            raise NotCleanableError("fewer pixels than the header says")
        value = _clean_native(dataset, shape, value, boxes, mask)
    vr = {FLOAT_PIXELS: "OF", DOUBLE_PIXELS: "OD"}.get(int(pixels.tag), "OW" if shape.bits > 8 else "OB")
    return Pixels(EXPLICIT_LITTLE, [Element(int(pixels.tag), vr, value)], blanked=len(boxes))


def _clean_native(dataset: Dataset, shape: _Shape, value: bytes, boxes: Sequence[Box], mask: bool) -> bytes:
    frames: np.ndarray
    if shape.bits == 1:
        packed = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")
        count = shape.frames * shape.rows * shape.columns
        frames = packed[:count].reshape(shape.frames, shape.rows, shape.columns)
        _fill_all(dataset, shape, frames, boxes, mask)
        return np.packbits(packed, bitorder="little").tobytes()
    samples = np.frombuffer(bytearray(value), dtype=shape.dtype)
    if shape.photometric == "YBR_FULL_422":
        # Two pixels share their colour, stored as Y Y Cb Cr (PS3.3 C.7.6.3.1.2): boxes are widened to whole pairs.
        if shape.columns % 2:
            raise NotCleanableError("odd number of columns in 4:2:2")
        pairs = samples.reshape(shape.frames, shape.rows, shape.columns // 2, 4)
        dark = np.array([0, 0, _middle(shape), _middle(shape)], dtype=shape.dtype)
        for box in boxes:
            for frame in _frames_of(box, shape.frames):
                y0, y1, x0, x1 = _clip(box, shape)
                pairs[frame, y0:y1, x0 // 2 : (x1 + 1) // 2] = dark
        return samples.tobytes()
    if shape.samples == 1:
        frames = samples.reshape(shape.frames, shape.rows, shape.columns)
    elif shape.planar:
        frames = np.moveaxis(samples.reshape(shape.frames, shape.samples, shape.rows, shape.columns), 1, -1)
    else:
        frames = samples.reshape(shape.frames, shape.rows, shape.columns, shape.samples)
    _fill_all(dataset, shape, frames, boxes, mask)
    return samples.tobytes()


def _has_encoder(dataset: Dataset, syntax: str) -> bool:
    """Whether frames can be encoded again in their own syntax such that they decode to the same samples."""
    colour, bits = int(dataset.get("SamplesPerPixel", 1)) > 1, int(dataset.BitsAllocated)
    if syntax == RLELossless:
        # The encoder knows no run-length form of colour with more than 16 bits per sample.
        return not colour or bits <= 16
    # Of colour the transformation would have to be the source's own; and a signed or odd depth may be declared otherwise in the codestream.
    plain = not colour and bits in (8, 16) and int(dataset.get("HighBit", 0)) == int(dataset.get("BitsStored", 0)) - 1
    return syntax in _ENCODERS and plain and _ENCODERS[syntax].is_available  # type: ignore[index]


def _same_syntax(dataset: Dataset, syntax: str, pixels: Any, boxes: Sequence[Box], mask: bool) -> Pixels:
    shape = _shape(dataset, PIXEL_DATA)
    frames = list(generate_frames(pixels.value, number_of_frames=shape.frames))
    if len(frames) != shape.frames:
        raise NotCleanableError("frames do not match the header")
    hit = {frame for box in boxes for frame in _frames_of(box, shape.frames)}
    decoder = get_decoder(syntax)
    for index in sorted(range(shape.frames) if mask else hit):
        frame, about = decoder.as_array(dataset, index=index, raw=True)
        if syntax != RLELossless and (frame.dtype != shape.dtype or int(about["bits_stored"]) != shape.stored):
            # What the codestream says of its samples is not what the header says.
            return _decoded(dataset, syntax, boxes, mask)
        _fill_all(dataset, shape, frame[np.newaxis], [b for b in boxes if b.frame_from <= index <= b.frame_to], mask, relative=True)
        frames[index] = _ENCODERS[syntax].encode(  # type: ignore[index]
            frame,
            rows=shape.rows,
            columns=shape.columns,
            number_of_frames=1,
            samples_per_pixel=shape.samples,
            bits_allocated=shape.bits,
            bits_stored=about["bits_stored"],
            pixel_representation=about["pixel_representation"],
            photometric_interpretation=shape.photometric,
            planar_configuration=0,
        )
    value, _ = without_comments(memoryview(encapsulate(frames)), shape.frames, shape.rows * shape.columns if syntax == RLELossless else 0)
    return Pixels(syntax, [Element(PIXEL_DATA, "OB", bytes(value), encapsulated=True)], blanked=len(boxes))


def _decoded(dataset: Dataset, syntax: str, boxes: Sequence[Box], mask: bool) -> Pixels:
    decoder = get_decoder(syntax)
    mend(dataset, syntax)
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    written: list[bytes] = []
    for index in range(count):
        frame, about = decoder.as_array(dataset, index=index, raw=True)
        photometric = str(about["photometric_interpretation"])
        if frame.ndim == 3 and photometric.startswith(("YBR_FULL", "YBR_PARTIAL")):
            # The decoder has given every pixel its own colour, over the full range whatever the header says (ITU-T T.871). Native samples
            # have to be RGB in ultrasound and visible light (PS3.3 C.8.5.6.1.2, C.8.12.1.1.1), and every viewer shows that.
            photometric = "YBR_FULL"
            if frame.dtype == np.uint8:
                frame, photometric = convert_color_space(frame, photometric, "RGB"), "RGB"
        shape = _Shape(
            frames=count,
            rows=int(about["rows"]),
            columns=int(about["columns"]),
            samples=int(about["samples_per_pixel"]),
            bits=frame.dtype.itemsize * 8,
            stored=int(about["bits_stored"]),
            signed=frame.dtype.kind == "i",
            photometric=photometric,
            planar=False,
            dtype=frame.dtype,
        )
        _fill_all(dataset, shape, frame[np.newaxis], [b for b in boxes if b.frame_from <= index <= b.frame_to], mask, relative=True)
        written.append(frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes())
    for box in boxes:
        _frames_of(box, count)
    header = {
        _PHOTOMETRIC: text(_PHOTOMETRIC, "CS", shape.photometric),
        _SAMPLES_PER_PIXEL: _number(_SAMPLES_PER_PIXEL, shape.samples),
        _BITS_ALLOCATED: _number(_BITS_ALLOCATED, shape.bits),
        _BITS_STORED: _number(_BITS_STORED, shape.stored),
        _HIGH_BIT: _number(_HIGH_BIT, shape.stored - 1),
        _REPRESENTATION: _number(_REPRESENTATION, int(shape.signed)),
    }
    if shape.samples > 1:
        header[_PLANAR] = _number(_PLANAR, 0)
    if syntax in _LOSSY_SYNTAXES:
        header[_LOSSY] = text(_LOSSY, "CS", "01")  # what was lost stays lost (PS3.3 C.7.6.1.1.5)
    element = Element(PIXEL_DATA, "OW" if shape.bits > 8 else "OB", b"".join(written))
    return Pixels(EXPLICIT_LITTLE, [element], header, blanked=len(boxes))


def _number(tag: int, value: int) -> Element:
    return Element(tag, "US", value.to_bytes(2, "little"))


def _fill_all(dataset: Dataset, shape: _Shape, frames: np.ndarray, boxes: Sequence[Box], mask: bool, relative: bool = False) -> None:
    """Clear unused bits where ``mask`` says so, then fill the boxes; ``relative``: the array holds just the one frame they are for."""
    if mask:
        _clear_unused_bits(dataset, shape, frames)
    for box in boxes:
        y0, y1, x0, x1 = _clip(box, shape)
        for index in (0,) if relative else _frames_of(box, shape.frames):
            frames[index, y0:y1, x0:x1] = _fill_value(dataset, shape, frames[index])


def _clear_unused_bits(dataset: Dataset, shape: _Shape, frames: np.ndarray) -> None:
    if shape.dtype.kind not in "iu" or int(dataset.get("HighBit", shape.stored - 1)) != shape.stored - 1:
        raise NotCleanableError("overlay inside the pixel words in an unusual place")
    unused = shape.bits - shape.stored
    # Shifting up and down again in the samples' own type clears the bits, and repeats the sign where there is one.
    np.left_shift(frames, unused, out=frames)
    np.right_shift(frames, unused, out=frames)


def _fill_value(dataset: Dataset, shape: _Shape, frame: np.ndarray) -> Any:
    """What reads as background: the declared padding value, else the darkest value of the frame (black in colour)."""
    if shape.samples > 1:
        if shape.photometric.startswith("YBR"):
            return np.array([0, _middle(shape), _middle(shape)][: shape.samples], dtype=shape.dtype)
        return 0
    if shape.photometric == "PALETTE COLOR":
        return _darkest_index(dataset, shape)
    if shape.photometric.startswith("MONOCHROME"):
        padding = _padding(dataset, shape)
        if padding is not None:
            return padding
    return frame.max() if shape.photometric == "MONOCHROME1" else frame.min()


def _padding(dataset: Dataset, shape: _Shape) -> int | None:
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int) or shape.dtype.kind not in "iu" or shape.bits == 1:
        return None
    if shape.signed and value >= 1 << (shape.bits - 1):
        value -= 1 << shape.bits
    limits = np.iinfo(shape.dtype)
    return value if limits.min <= value <= limits.max else None


def _darkest_index(dataset: Dataset, shape: _Shape) -> int:
    """Index of the darkest colour of the palette; the first one where the palette is segmented or damaged."""
    first, total = 0, None
    for colour in ("Red", "Green", "Blue"):
        described = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
        data = dataset.get(f"{colour}PaletteColorLookupTableData")
        if described is None or not data:
            return 0
        entries, first, bits = (int(n) for n in described)
        entries = entries or 65536
        table = np.frombuffer(data, dtype=np.uint8 if bits == 8 and len(data) < 2 * entries else "<u2")[:entries].astype(np.int64)
        total = table if total is None else total[: len(table)] + table[: len(total)]
    index = first + int(np.argmin(total)) if total is not None and len(total) else 0
    limits = np.iinfo(shape.dtype)
    return index if limits.min <= index <= limits.max else 0


def _middle(shape: _Shape) -> int:
    return 1 << (shape.stored - 1)


def _frames_of(box: Box, count: int) -> range:
    if not 0 <= box.frame_from <= box.frame_to < count:
        raise NotCleanableError("a box names a frame that the image does not have")
    return range(box.frame_from, box.frame_to + 1)


def _clip(box: Box, shape: _Shape) -> tuple[int, int, int, int]:
    y0, y1 = max(box.y0, 0), min(box.y1, shape.rows)
    x0, x1 = max(box.x0, 0), min(box.x1, shape.columns)
    if y0 >= y1 or x0 >= x1:
        raise NotCleanableError("a box lies outside the frame")
    return y0, y1, x0, x1


def _shape(dataset: Dataset, tag: int) -> _Shape:
    bits, signed = int(dataset.BitsAllocated), bool(dataset.get("PixelRepresentation", 0))
    if tag in (FLOAT_PIXELS, DOUBLE_PIXELS):
        dtype = np.dtype("<f4" if tag == FLOAT_PIXELS else "<f8")
        bits = dtype.itemsize * 8
    elif bits in (1, 8, 16, 32, 64):
        dtype = np.dtype(f"<{'i' if signed and bits > 1 else 'u'}{max(bits // 8, 1)}")
    else:
        raise NotCleanableError("an unusual number of bits")
    return _Shape(
        frames=int(dataset.get("NumberOfFrames", 1) or 1),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=int(dataset.get("SamplesPerPixel", 1) or 1),
        bits=bits,
        stored=int(dataset.get("BitsStored", bits) or bits),
        signed=signed,
        photometric=str(dataset.PhotometricInterpretation),
        planar=bool(dataset.get("PlanarConfiguration", 0)),
        dtype=dtype,
    )


def _has_embedded_overlay(dataset: Dataset) -> bool:
    """Whether an overlay plane (60xx) is declared to lie in the pixel words: it has no data of its own."""
    return _overlay_without_data(frozenset(map(int, dataset.keys())))


def _overlay_without_data(tags: Collection[int]) -> bool:
    planes = [tag for tag in tags if tag >> 24 == 0x60]
    return any(tag & 0xFFFF == 0x0010 and tag & 0xFFFF0000 | 0x3000 not in tags for tag in planes)
