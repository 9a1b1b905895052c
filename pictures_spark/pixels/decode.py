"""DICOM bytes -> frames. Pure; runs in the supervised child, because decoders are native code fed with untrusted input.

Frames come one at a time, so that a cine costs the memory of one frame. Which plugin decodes which transfer syntax is data:
schemas/pixels/decoders.yaml.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders.rle import _rle_decode_segment
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from pictures_spark.pixels.codestream import is_cut, mend, size_of
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.resources import load_schema

NATIVE = "native"
# Each frame by itself as it would be without compression: as it is (PS3.5 A.4.11), or deflated (PS3.5 A.4.13).
_STORED, _DEFLATED = "stored", "deflated"
_DESCRIPTION = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Image:
    """A DICOM image whose claims were checked; no pixel is decoded yet.

    ``done`` is called whenever whoever asked for frames is done with one.
    """

    dataset: Dataset
    transfer_syntax: str
    frame_count: int
    rows: int
    columns: int
    samples: int
    done: Callable[[], None] = _nothing

    @property
    def palette(self) -> bool:
        """Whether samples are indices into colour tables."""
        return str(self.dataset.get("PhotometricInterpretation")) == "PALETTE COLOR"

    @property
    def inverted(self) -> bool:
        """Whether low values are shown bright (MONOCHROME1)."""
        return str(self.dataset.get("PhotometricInterpretation")) == "MONOCHROME1"

    def frames(self, indices: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """Decode frames in order: (rows, columns) or (rows, columns, 3) arrays in the machine's byte order, colour as RGB.

        Palette images give their indices; see `colours`. Bits that are not stored are cleared. Whole numbers are as wide as Bits Allocated
        says in every transfer syntax: decoders of JPEG-LS and JPEG 2000 give 8 bits where no more than 8 of 16 are stored.

        Parameters
        ----------
        indices : frames wanted, from 0; all where None.

        Raises
        ------
        PixelFault
            ``undecodable``: a frame does not decode as the header says.
        """
        plugins = load_schema("pixels/decoders.yaml")["syntaxes"][self.transfer_syntax]
        for frame in self._every(plugins) if indices is None else (self._one(index, plugins) for index in indices):
            yield frame
            # Not before the next one is asked for.
            self.done()

    def _every(self, plugins: list[str]) -> Iterator[np.ndarray]:
        """All frames; compressed ones in one walk over the fragments, because each look-up of one frame may walk over all of them."""
        begun = 0
        if plugins[0] not in (NATIVE, _STORED, _DEFLATED):
            self._check_claims()
            walk = get_decoder(UID(self.transfer_syntax)).iter_array(self.dataset, decoding_plugin=plugins[0])
            while begun < self.frame_count:
                frame = _or_none(lambda: next(walk)[0])
                if frame is None or not self._has_size(frame):
                    break
                begun += 1
                yield self._as_declared(frame)
        for index in range(begun, self.frame_count):
            yield self._one(index, plugins)

    def _one(self, index: int, plugins: list[str]) -> np.ndarray:
        """One frame, by the first plugin that gives one of the right size."""
        for plugin in plugins:
            frame = _or_none(partial(self._decoded, index, plugin))
            if frame is not None and self._has_size(frame):
                return self._as_declared(frame)
        raise PixelFault("undecodable", "a frame is missing, cut short or damaged")

    def _decoded(self, index: int, plugin: str) -> np.ndarray:
        if plugin in (_STORED, _DEFLATED):
            return self._without_plugin(index, plugin)
        if self.transfer_syntax == RLELossless and int(self.dataset.BitsAllocated) == 1:
            return self._bits_of_runs(index)
        if plugin != NATIVE:
            self._check_claims([index])
        elif int(self.dataset.BitsAllocated) == 1:
            return self._unpacked(index)
        decoder = get_decoder(UID(self.transfer_syntax))
        # A fresh one for each frame: pydicom's forgets how to unpack YBR_FULL_422 after the first.
        return next(decoder.iter_array(self.dataset, indices=[index], decoding_plugin="" if plugin == NATIVE else plugin))[0]

    def _unpacked(self, index: int) -> np.ndarray:
        """A frame of one bit per sample; frames begin anywhere in a byte, where pydicom may miss the last one's end."""
        size = self.rows * self.columns * self.samples
        first, last = index * size, (index + 1) * size
        data = np.frombuffer(self.dataset.PixelData, np.uint8)[first // 8 : -(-last // 8)]
        return np.unpackbits(data, bitorder="little")[first % 8 :][:size].reshape(self.rows, self.columns)

    def _bits_of_runs(self, index: int) -> np.ndarray:
        """A run-length coded frame of one bit per sample, eight of them to a byte (PS3.5 8.1.1, annex G): one segment."""
        frame = get_frame(self.dataset.PixelData, index, number_of_frames=self.frame_count)
        count, first, second = struct.unpack_from("<3I", frame)
        size = self.rows * self.columns
        packed = _rle_decode_segment(frame[first : second if count > 1 else None])
        return np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[:size].reshape(self.rows, self.columns)

    def _without_plugin(self, index: int, packing: str) -> np.ndarray:
        bits = self.rows * self.columns * self.samples * int(self.dataset.BitsAllocated)
        data = get_frame(self.dataset.PixelData, index, number_of_frames=self.frame_count)
        # No more than the frame is claimed to have, whatever else would come out.
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, (bits + 7) // 8) if packing == _DEFLATED else data
        plain = Dataset()
        plain.file_meta = FileMetaDataset()
        plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for keyword in _DESCRIPTION:
            if keyword in self.dataset:
                plain[keyword] = self.dataset[keyword]
        plain.add_new("PixelData", "OW" if int(self.dataset.BitsAllocated) > 8 else "OB", data)
        return next(get_decoder(ExplicitVRLittleEndian).iter_array(plain, indices=[0]))[0]

    def _check_claims(self, indices: Sequence[int] | None = None) -> None:
        """Look at what compressed frames say of themselves, before a decoder allocates what they claim, or fills up what they lack.

        Raises
        ------
        PixelFault
            ``undecodable``: another size than the header's, or no end.
        """
        try:
            data = self.dataset.PixelData
            encoded = (
                generate_frames(data, number_of_frames=self.frame_count)
                if indices is None
                else (get_frame(data, index, number_of_frames=self.frame_count) for index in indices)
            )
            claims = {(size_of(frame), is_cut(frame)) for frame in encoded}
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - the decoder will say what is wrong with the fragments
            return
        if {size for size, _ in claims} - {None, (self.rows, self.columns)}:
            raise PixelFault("undecodable", "a frame claims another size than the header")
        if any(cut for _, cut in claims):
            raise PixelFault("undecodable", "a frame is cut short")

    def _as_declared(self, frame: np.ndarray) -> np.ndarray:
        """A frame in the machine's byte order, its whole numbers no narrower than the header says."""
        kind = frame.dtype.newbyteorder("=")
        declared = int(self.dataset.get("BitsAllocated") or 0) // 8
        if kind.kind in "iu" and kind.itemsize < declared and declared in (2, 4, 8):
            kind = np.dtype(f"{kind.kind}{declared}")
        return np.ascontiguousarray(frame, dtype=kind)

    def _has_size(self, frame: np.ndarray) -> bool:
        return frame.shape == ((self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples))

    def colours(self, frame: np.ndarray) -> np.ndarray:
        """A palette frame as RGB; any other frame as it is.

        Raises
        ------
        PixelFault
            ``undecodable``: the colour tables are missing or damaged.
        """
        if not self.palette:
            return frame
        found = _or_none(lambda: apply_color_lut(frame, self.dataset))
        if found is None:
            raise PixelFault("undecodable", "the colour tables are missing or damaged")
        # Tables may have an alpha channel.
        return found[:, :, :3]


def decode(data: bytes, max_samples: int, done: Callable[[], None] = _nothing) -> Image:
    """Parse a DICOM object and check what it claims, before anything is allocated for its pixels.

    Parameters
    ----------
    data : the object's bytes, with or without preamble and file meta.
    max_samples : rows x columns x samples x frames that an image may claim.
    done : called whenever a frame is done with.

    Raises
    ------
    PixelFault
        ``undecodable`` (no image, or its description is faulty), ``unsupported_syntax``, ``too_large``.
    """
    try:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
        syntax = _transfer_syntax(dataset)
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples = int(dataset.SamplesPerPixel)
        # Number of Frames is 1 where it is absent or empty (PS3.3 C.7.6.6 requires it for multi-frame images only).
        frame_count = int(dataset.get("NumberOfFrames") or 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - parsers raise anything, and their messages quote the input
        raise PixelFault("undecodable", "the description of the pixels is missing or faulty") from None
    if min(rows, columns, samples, frame_count) < 1:
        raise PixelFault("undecodable", "the header claims no samples")
    if rows * columns * samples * frame_count > max_samples:
        raise PixelFault("too_large")
    declared = load_schema("pixels/decoders.yaml")
    if syntax not in declared["syntaxes"]:
        name = declared["refused"].get(syntax) or UID(syntax).name
        raise PixelFault("unsupported_syntax", name if name != syntax else "not one of the standard's")
    if samples not in (1, 3):
        raise PixelFault("undecodable", "neither grey, palette nor three colours")
    mend(dataset, syntax)
    return Image(dataset, syntax, frame_count, rows, columns, samples, done)


def _or_none(way: Callable[[], np.ndarray]) -> np.ndarray | None:
    """What a decoder gives; None where it fails."""
    try:
        return way()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - decoders raise anything, and their messages quote the input
        return None


def _transfer_syntax(dataset: Dataset) -> str:
    """The declared transfer syntax; where none is declared, the encoding in which the data set was read."""
    declared = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if declared:
        return str(declared)
    implicit, little = dataset.original_encoding
    guessed = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = guessed
    return str(guessed)
