"""What a compressed frame says of its own size, whether it is all there, and one thing that decoders refuse; without decoding it. Pure."""

import struct

from pydicom import Dataset

_J2K = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"
_ITEM = b"\xfe\xff\x00\xe0"
_LAST_COEFFICIENT = 63
# JPEG baseline and extended.
_SEQUENTIAL = frozenset(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"))
# Boxes of a JP2 file may come before its codestream.
_LOOK = 4096
# Markers without a length: TEM, RSTn, SOI; and frame headers SOF0-15 and SOF55 (JPEG-LS), without DHT, JPG and DAC.
_ALONE = {0x01, *range(0xD0, 0xD9)}
_FRAME_HEADERS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}


def size_of(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream claims; None where it does not say (ISO/IEC 10918-1, 14495-1, 15444-1).

    Examples
    --------
    >>> size_of(bytes.fromhex("ffd8ffc0000b080003000401011100"))
    (3, 4)
    """
    at = frame.find(_J2K, 0, _LOOK)
    try:
        if at >= 0:
            width, height, left, top = struct.unpack_from(">4I", frame, at + 8)
            return (height - top, width - left)
        header = _frame_header(frame)
        rows, columns = struct.unpack_from(">2H", frame, header + 5) if header else (0, 0)
        # No rows: told after the first scan.
        return (rows, columns) if rows else None
    except (struct.error, IndexError):
        return None


def precision_of(frame: bytes) -> int | None:
    """Bits of a sample in a JPEG, JPEG-LS or JPEG 2000 codestream, of its deepest component; None where it does not say.

    Examples
    --------
    >>> precision_of(bytes.fromhex("ffd8ffc00008100003000401011100"))
    16
    """
    at = frame.find(_J2K, 0, _LOOK)
    try:
        if at >= 0:
            (count,) = struct.unpack_from(">H", frame, at + 40)
            # The highest bit says whether it is signed.
            return max((frame[at + 42 + 3 * component] & 0x7F) + 1 for component in range(max(1, count)))
        header = _frame_header(frame)
        return frame[header + 4] if header else None
    except (struct.error, IndexError):
        return None


def is_cut(frame: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 codestream lacks the marker that ends it; decoders fill up what is not there without a word.

    Examples
    --------
    >>> is_cut(bytes.fromhex("ffd8ffc0")), is_cut(bytes.fromhex("ffd8ffd900"))
    (True, False)
    """
    known = frame[:2] == b"\xff\xd8" or frame.find(_J2K, 0, _LOOK) >= 0
    # After it there may be padding.
    return known and not frame.rstrip(b"\0\xff").endswith(_END)


def mended(encapsulated: bytes) -> bytes:
    """Encapsulated JPEG frames with scan headers as they have to be; the same bytes where they are.

    A sequential scan ends at coefficient 63 (ISO/IEC 10918-1 B.2.3). Encoders of 12-bit frames were in use that say 0, and decoders then
    refuse the frame. Nothing changes its length, so offset tables hold.
    """
    made: bytearray | None = None
    at = 0
    while encapsulated[at : at + 4] == _ITEM and at + 8 <= len(encapsulated):
        (length,) = struct.unpack_from("<I", encapsulated, at + 4)
        place = _no_selection(memoryview(encapsulated)[at + 8 : at + 8 + length])
        if place is not None:
            made = made or bytearray(encapsulated)
            made[at + 8 + place] = _LAST_COEFFICIENT
        at += 8 + length
    return encapsulated if made is None else bytes(made)


def mend(dataset: Dataset, syntax: str) -> None:
    """See that the frames of a data set in this transfer syntax, where they are JPEG, decode: as `mended`."""
    if syntax in _SEQUENTIAL and "PixelData" in dataset:
        dataset.PixelData = mended(dataset.PixelData)


def _no_selection(frame: memoryview) -> int | None:
    """Where the first scan of a sequential frame says that it ends at coefficient 0."""
    at, is_sequential = 2, False
    try:
        if frame[:2] != b"\xff\xd8":
            return None
        while frame[at] == 0xFF:
            marker = frame[at + 1]
            (length,) = struct.unpack_from(">H", frame, at + 2)
            if marker == 0xDA:
                place = at + length
                return place if is_sequential and (frame[place - 1], frame[place]) == (0, 0) else None
            is_sequential |= marker in (0xC0, 0xC1)
            at += 2 + length
    except (struct.error, IndexError):
        pass
    return None


def _frame_header(frame: bytes) -> int | None:
    """Where the marker of the frame header of a JPEG or JPEG-LS codestream is; None where there is none before the first scan."""
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAME_HEADERS:
            return at
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker == 0xDA:
            return None
        else:
            at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None
