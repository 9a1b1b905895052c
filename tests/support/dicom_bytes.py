"""DICOM files byte by byte, of what pydicom would refuse to write, and readers that make long objects as they are asked for."""

import io
import struct
import warnings

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

OPEN = 0xFFFFFFFF
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
# What follows any header here: an empty pixel data element.
PIXELS = 0x7FE00010


class Encoder:
    """Writes elements and items in one transfer syntax."""

    def __init__(self, syntax=ExplicitVRLittleEndian):
        self.syntax = syntax
        self.implicit, self.order = syntax == ImplicitVRLittleEndian, ">" if syntax == ExplicitVRBigEndian else "<"

    def tag(self, tag):
        return struct.pack(f"{self.order}HH", tag >> 16, tag & 0xFFFF)

    def head(self, tag, vr, length):
        if self.implicit:
            return self.tag(tag) + struct.pack(f"{self.order}L", length)
        if vr in LONG:
            return self.tag(tag) + vr + b"\0\0" + struct.pack(f"{self.order}L", length)
        return self.tag(tag) + vr + struct.pack(f"{self.order}H", length)

    def element(self, tag, vr, value):
        return self.head(tag, vr, len(value)) + value

    def mark(self, number, length=0):
        """An item (E000), its end (E00D) or a sequence's end (E0DD)."""
        return self.tag(0xFFFE0000 | number) + struct.pack(f"{self.order}L", length)

    def item(self, content, is_open=False):
        return self.mark(0xE000, OPEN) + content + self.mark(0xE00D) if is_open else self.mark(0xE000, len(content)) + content

    def sequence(self, tag, items, is_open=False):
        body = b"".join(items)
        return self.head(tag, b"SQ", OPEN) + body + self.mark(0xE0DD) if is_open else self.element(tag, b"SQ", body)

    def start(self):
        """File meta information and the three UIDs; further elements must sort behind them."""
        data_set = Dataset()
        data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
        return written(data_set, self.syntax)

    def pixels(self):
        return self.head(PIXELS, b"OW", 0)


def written(data_set, syntax=ExplicitVRLittleEndian):
    """A data set as a file."""
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data_set.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue()


class Stream:
    """Bytes made as they are asked for, once and in order: pieces, each as it is or as (bytes, how many times)."""

    def __init__(self, *pieces):
        self.pieces = [(piece, 1) if isinstance(piece, bytes) else piece for piece in pieces]
        self.size = sum(len(piece) * times for piece, times in self.pieces)
        self._at = 0
        self._left = b""
        self._coming = (piece for piece, times in self.pieces for _ in range(times))

    def pull(self, length):
        """Up to so many of the next bytes; none at the end."""
        while len(self._left) < length:
            piece = next(self._coming, None)
            if piece is None:
                break
            self._left += piece
        found, self._left = self._left[:length], self._left[length:]
        self._at += len(found)
        return found

    def read_at(self, offset, length):
        assert offset == self._at, "bytes are asked for twice, or out of order"
        return self.pull(length)


class Unsized(Stream):
    """A stream that does not know its length."""

    def __init__(self, *pieces):
        super().__init__(*pieces)
        self.size = None
