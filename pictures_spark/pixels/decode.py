"""DICOM bytes -> frames. Pure; runs in the supervised child, because decoders are native code fed with untrusted input.

Frames come one at a time, so that a cine costs the memory of one frame. Which plugin decodes which transfer syntax is data:
schemas/pixels/decoders.yaml.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pictures_spark.pixels.faults import PixelFault
from pictures_spark.resources import load_schema

NATIVE = "native"


@dataclass(frozen=True)
class Image:
    """A DICOM image whose claims were checked; no pixel is decoded yet."""

    dataset: Dataset
    transfer_syntax: str
    frame_count: int
    rows: int
    columns: int
    samples: int

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

        Palette images give their indices; see `colours`.

        Parameters
        ----------
        indices : frames wanted, from 0; all where None.

        Raises
        ------
        PixelFault
            ``undecodable``: a frame does not decode as the header says.
        """
        wanted = range(self.frame_count) if indices is None else indices
        decoder = get_decoder(UID(self.transfer_syntax))
        plugins = load_schema("pixels/decoders.yaml")["syntaxes"][self.transfer_syntax]
        for index in wanted:
            yield self._frame(decoder, plugins, index)

    def _frame(self, decoder: Decoder, plugins: list[str], index: int) -> np.ndarray:
        for plugin in plugins:
            try:
                frame, _ = next(decoder.iter_array(self.dataset, indices=[index], decoding_plugin="" if plugin == NATIVE else plugin))
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - decoders raise anything, and their messages quote the input
                continue
            if frame.shape[:2] == (self.rows, self.columns):
                return np.ascontiguousarray(frame, dtype=frame.dtype.newbyteorder("="))
        raise PixelFault("undecodable", "a frame is missing, cut short or damaged")

    def colours(self, frame: np.ndarray) -> np.ndarray:
        """A palette frame as RGB; any other frame as it is.

        Raises
        ------
        PixelFault
            ``undecodable``: the colour tables are missing or damaged.
        """
        if not self.palette:
            return frame
        try:
            return apply_color_lut(frame, self.dataset)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - as above
            raise PixelFault("undecodable", "the colour tables are missing or damaged") from None


def decode(data: bytes, max_samples: int) -> Image:
    """Parse a DICOM object and check what it claims, before anything is allocated for its pixels.

    Parameters
    ----------
    data : the object's bytes, with or without preamble and file meta.
    max_samples : rows x columns x samples x frames that an image may claim.

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
    if syntax not in load_schema("pixels/decoders.yaml")["syntaxes"]:
        name = UID(syntax).name
        raise PixelFault("unsupported_syntax", name if name != syntax else "not one of the standard's")
    return Image(dataset, syntax, frame_count, rows, columns, samples)


def _transfer_syntax(dataset: Dataset) -> str:
    """The declared transfer syntax; where none is declared, the encoding in which the data set was read."""
    declared = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if declared:
        return str(declared)
    implicit, little = dataset.original_encoding
    guessed = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta = getattr(dataset, "file_meta", None) or pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = guessed
    return str(guessed)
