"""What somebody may have written into a compressed frame beside the image: comments, application segments, bytes behind its end.

What enters: the fragments of encapsulated pixel data (PS3.5 A.4). What leaves: the same bytes, or, where a codestream holds what is no
part of the image, the fragments without it. Codestreams are walked by their markers (ISO 10918-1 B.1, 14495-1 C.1, 15444-1 A) and never
decoded. Pure; executors.
"""

import re
import struct

# Application segments that say how colours are coded, by their first letters; without them a decoder shows other colours.
_COLOUR_SEGMENTS = {0xE0: (b"JFIF\0", b"JFXX\0"), 0xE8: (b"mrfx", b"SPIFF\0"), 0xEE: (b"Adobe",)}
_LENGTHS_OF_COLOUR_SEGMENTS = {0xE0: 16, 0xE8: 34, 0xEE: 14}
# What encoders write of themselves.
_ENCODER = re.compile(
    rb"(?:\0\x01)?(?:Kakadu|OpenJPEG|Created by OpenJPEG|JasPer|LEAD Technologies|Aware|Pegasus|AccuSoft|LuraWave|Lavc)[\x20-\x7e]{0,32}\0*"
)
_ENCODER_NUMBERS = re.compile(rb"[0-9]{5,}")
_SOI, _SOC, _EOI = b"\xff\xd8", b"\xff\x4f", b"\xff\xd9"


def without_comments(value: memoryview, frames: int) -> "tuple[memoryview | bytes, bool]":
    """(fragments without what is no part of the image, whether that changes anything).

    The basic offset table is first; where fragments change it is made anew, or left empty where there was none.

    Raises
    ------
    ValueError
        The bytes are no fragments.
    """
    fragments = _fragments(value)
    if not fragments:
        raise ValueError("pixel data without fragments")
    table, *images = fragments
    cleaned = [_clean(fragment, whole=len(images) == frames) for fragment in images]
    if all(made is None for made in cleaned):
        return value, False
    written = [bytes(fragment) if made is None else made for fragment, made in zip(images, cleaned, strict=True)]
    offsets = _offsets(images, written, bytes(table))
    parts = [struct.pack("<HHI", 0xFFFE, 0xE000, len(offsets)), offsets]
    for fragment in written:
        padded = fragment + b"\0" * (len(fragment) % 2)
        parts += [struct.pack("<HHI", 0xFFFE, 0xE000, len(padded)), padded]
    return b"".join(parts), True


def _fragments(value: memoryview) -> list[memoryview]:
    fragments = []
    position = 0
    while position + 8 <= len(value):
        group, number, length = struct.unpack_from("<HHI", value, position)
        if (group, number) != (0xFFFE, 0xE000):
            break
        fragments.append(value[position + 8 : position + 8 + length])
        position += 8 + length
    return fragments


def _offsets(before: list[memoryview], after: list[bytes], table: bytes) -> bytes:
    """The offset table for fragments of other lengths."""
    if not table or len(table) % 4:
        return b""
    places, old, new = {}, 0, 0
    for was, made in zip(before, after, strict=True):
        places[old] = new
        old += 8 + len(was)
        new += 8 + len(made) + len(made) % 2
    wanted = struct.unpack(f"<{len(table) // 4}I", table)
    return struct.pack(f"<{len(wanted)}I", *(places[offset] for offset in wanted)) if all(o in places for o in wanted) else b""


def _clean(fragment: memoryview, whole: bool) -> bytes | None:
    """A fragment without comments and, where it is a ``whole`` frame, without what follows its end; None where nothing is left out."""
    start = bytes(fragment[:2])
    if start == _SOI:
        spans = _jpeg_spans(fragment)
    elif start == _SOC:
        spans = _jpeg_2000_spans(fragment)
    else:
        return None
    end = _end(fragment) if whole else len(fragment)
    if not spans and end == len(fragment):
        return None
    parts, position = [], 0
    for first, last in spans:
        parts.append(bytes(fragment[position:first]))
        position = last
    parts.append(bytes(fragment[position:end]))
    return b"".join(parts)


def _end(fragment: memoryview) -> int:
    """Behind the end of image marker, and a padding byte."""
    length = len(fragment)
    if _EOI in (bytes(fragment[-2:]), bytes(fragment[-3:-1])):
        return length
    found = bytes(fragment).rfind(_EOI)
    return length if found < 0 else found + 2


def _jpeg_spans(fragment: memoryview) -> list[tuple[int, int]]:
    """Where comments and application segments lie, up to the first scan."""
    spans = []
    position = 2
    while position + 4 <= len(fragment) and fragment[position] == 0xFF:
        marker = fragment[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        end = position + 2 + int.from_bytes(fragment[position + 2 : position + 4], "big")
        if marker == 0xDA or end > len(fragment):
            break
        body = bytes(fragment[position + 4 : end])
        if marker == 0xFE:
            if not _by_encoder(body):
                spans.append((position, end))
        elif 0xE0 <= marker <= 0xEF:
            colour = body.startswith(_COLOUR_SEGMENTS.get(marker, ())) and len(body) <= _LENGTHS_OF_COLOUR_SEGMENTS[marker]
            if not colour:
                spans.append((position, end))
        position = end
    return spans


def _jpeg_2000_spans(fragment: memoryview) -> list[tuple[int, int]]:
    """Where comments lie in the main header."""
    spans = []
    position = 2
    while position + 4 <= len(fragment) and fragment[position] == 0xFF:
        marker = fragment[position + 1]
        if marker in (0x90, 0x93):
            break
        end = position + 2 + int.from_bytes(fragment[position + 2 : position + 4], "big")
        if marker == 0x64 and not _by_encoder(bytes(fragment[position + 4 : end])):
            spans.append((position, end))
        position = end
    return spans


def _by_encoder(comment: bytes) -> bool:
    return _ENCODER.fullmatch(comment) is not None and _ENCODER_NUMBERS.search(comment) is None
