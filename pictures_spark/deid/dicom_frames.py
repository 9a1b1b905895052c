"""What somebody may have written into a compressed frame beside the image: comments, application segments, bytes behind its end.

What enters: the fragments of encapsulated pixel data (PS3.5 A.4). What leaves: the same bytes, or, where a codestream holds what is no
part of the image, the fragments without it. Codestreams are walked by their markers (ISO 10918-1 B.1, 14495-1 C.1, 15444-1 A, PS3.5 G) and
never decoded. Pure; executors.
"""

import re
import struct
from itertools import pairwise
from typing import NamedTuple

# Application segments that say how colours are coded, as a whole: a few letters more would be a place for a name. Of JFIF the version,
# units and density, without a thumbnail; of Adobe numbers; of SPIFF a header of small numbers, and the end of its directory.
_COLOUR_SEGMENTS = {
    0xE0: re.compile(rb"JFIF\0\x01[\0-\x09][\0-\x02](?:\0.){2}\0\0", re.DOTALL),
    0xE8: re.compile(rb"mrfx[\0-\x0f]|SPIFF\0[\0-\x0f]{4}\0\0..\0\0..[\0-\x20]{4}\0\0..\0\0..|\0\0\0\x01\xff\xd8", re.DOTALL),
    0xEE: re.compile(rb"Adobe[^A-Zabcf-z]{5,7}"),
}
# What takes the place of one that holds more: without it a decoder might show other colours.
_PLAIN_JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
# What encoders write of themselves: their name and a version.
_ENCODER = re.compile(
    rb"(?:\0\x01)?(?:Created by |Creator: )?(?:GDCM/)?(?:Kakadu|OpenJPEG|JasPer|LEAD Technologies|Aware|Pegasus|AccuSoft|LuraWave|Lavc)"
    rb"[-, ]?(?:Inc\.?|[Vv]ersion|[Vv]er|v)?[-. ]?[0-9.]{0,12}\0*"
)
_ENCODER_NUMBERS = re.compile(rb"[0-9]{5,}")
# The next marker behind a scan: neither stuffing nor a restart (JPEG), nor a stuffed bit (JPEG-LS).
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_SOI, _SOC, _EOI = b"\xff\xd8", b"\xff\x4f", b"\xff\xd9"
_JP2, _JPEG_XL = b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x0cJXL "
_RLE_HEADER = struct.Struct("<16I")
# So many letters at the end of a run-length segment are looked at closer.
_TAIL = 16


class _Edit(NamedTuple):
    """Bytes of a codestream, and what takes their place."""

    start: int
    end: int
    by: bytes = b""


def without_comments(value: memoryview, frames: int, run_length: int = 0) -> "tuple[memoryview | bytes, bool]":
    """(fragments without what is no part of the image, whether that changes anything).

    Parameters
    ----------
    value : the fragments; the basic offset table is first. Where fragments change it is made anew, or left empty where there was none.
    frames : how many the header says.
    run_length : pixels of a frame where the fragments are run-length coded, else 0.

    Raises
    ------
    ValueError
        The bytes are no fragments, or of a form that cannot be walked.
    """
    fragments = _fragments(value)
    if not fragments:
        raise ValueError("pixel data without fragments")
    table, *images = fragments
    starts = _starts(table, images)
    streams: list[memoryview | bytes] = list(images)
    if len(images) > max(frames, 1) and bytes(images[0][:2]) in (_SOI, _SOC) and not run_length:
        # A frame in several fragments is cleaned as a whole, and becomes one.
        streams = _joined(images, starts if len(starts) == frames else [], frames)
    if run_length:
        streams = streams[: max(frames, 1)]
    cleaned = [_run_length(stream, run_length) if run_length else _clean(stream) for stream in streams]
    if all(made is None for made in cleaned) and sum(map(len, streams)) == sum(map(len, images)) and (starts or not table):
        return value, False
    written = [bytes(stream) if made is None else made for stream, made in zip(streams, cleaned, strict=True)]
    offsets = _offsets(written) if len(table) and len(written) == frames else b""
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


def _starts(table: memoryview, images: list[memoryview]) -> list[int]:
    """Which fragment each frame starts with, by the offset table; none where that is no such table."""
    if not table or len(table) % 4:
        return []
    places, position = {}, 0
    for number, image in enumerate(images):
        places[position] = number
        position += 8 + len(image)
    wanted = struct.unpack(f"<{len(table) // 4}I", table)
    if wanted[0] or any(a >= b for a, b in pairwise(wanted)) or any(offset not in places for offset in wanted):
        return []
    return [places[offset] for offset in wanted]


def _joined(images: list[memoryview], starts: list[int], frames: int) -> "list[memoryview | bytes]":
    """The frames' codestreams; what belongs to no frame is left out.

    Raises
    ------
    ValueError
        It cannot be told where frames start.
    """
    if not starts:
        starts = [0] if frames <= 1 else [number for number, image in enumerate(images) if bytes(image[:2]) in (_SOI, _SOC)]
    if len(starts) != max(frames, 1):
        raise ValueError("fragments do not match the frames")
    ends = [*starts[1:], len(images)]
    return [b"".join(images[start:end]) for start, end in zip(starts, ends, strict=True)]


def _offsets(written: list[bytes]) -> bytes:
    """The offset table for frames of one fragment each."""
    offsets, position = [], 0
    for fragment in written:
        offsets.append(position)
        position += 8 + len(fragment) + len(fragment) % 2
    return struct.pack(f"<{len(offsets)}I", *offsets) if position < 1 << 32 else b""


def _clean(stream: "memoryview | bytes") -> bytes | None:
    """A codestream without comments and what follows its end; None where nothing is left out.

    Raises
    ------
    ValueError
        A container of boxes without a codestream.
    """
    start = bytes(stream[:12])
    if start[:2] == _SOI:
        edits, end = _jpeg(stream)
    elif start[:2] == _SOC:
        edits, end = _jpeg_2000(stream)
    elif start == _JP2 or start[:8] == _JPEG_XL:
        inner = _codestream(stream, (b"jp2c", b"jxlc"))
        return _clean(inner) or bytes(inner)
    else:
        return None
    # Fragments are padded to an even length, with whatever byte.
    if not edits and (end + 1 >= len(stream) or not any(stream[end:])):
        return None
    parts, position = [], 0
    for edit in edits:
        parts += [bytes(stream[position : edit.start]), edit.by]
        position = edit.end
    parts.append(bytes(stream[position:end]))
    return b"".join(parts)


def _jpeg(stream: "memoryview | bytes") -> tuple[list[_Edit], int]:
    """(comments and application segments, where the image ends); the end of the bytes where it has no end marker."""
    edits: list[_Edit] = []
    position = 2
    while position + 2 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            return edits, position + 2
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if end > len(stream) or end < position + 4:
            break
        body = bytes(stream[position + 4 : end]) if marker >= 0xE0 else b""
        if marker == 0xFE:
            if not _by_encoder(body):
                edits.append(_Edit(position, end))
        elif 0xE0 <= marker <= 0xEF:
            colour = _COLOUR_SEGMENTS.get(marker)
            if colour is None or not colour.fullmatch(body):
                edits.append(_Edit(position, end, _in_place_of(marker, body)))
        elif marker == 0xDA:
            found = _MARKER.search(stream, end)
            if found is None:
                break
            end = found.start()
        position = end
    return edits, len(stream)


def _in_place_of(marker: int, body: bytes) -> bytes:
    """What an application segment with something in it that may not stay becomes: its colours alone."""
    if marker == 0xE0 and body.startswith(b"JFIF\0"):
        return _PLAIN_JFIF
    if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12 and body[11] <= 2:
        return b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + body[11:12]
    return b""


def _jpeg_2000(stream: "memoryview | bytes") -> tuple[list[_Edit], int]:
    """(comments of the main header and of the tile-parts' headers, where the image ends)."""
    edits, position = _comments(stream, 2)
    while bytes(stream[position : position + 2]) == b"\xff\x90":
        (length,) = struct.unpack_from(">I", stream, position + 6)
        found, data = _comments(stream, position + 12)
        if not length:  # the last tile-part: up to the end marker, which its data cannot hold
            end = bytes(stream[data:]).find(_EOI)
            return [*edits, *found], len(stream) if end < 0 else data + end + 2
        if found:
            gone = sum(edit.end - edit.start for edit in found)
            edits += [_Edit(position + 6, position + 10, struct.pack(">I", length - gone)), *found]
        position += length
    if bytes(stream[position : position + 2]) == _EOI:
        return edits, position + 2
    return edits, len(stream)


def _comments(stream: "memoryview | bytes", position: int) -> tuple[list[_Edit], int]:
    """(comments of a header that starts here, where the header ends)."""
    edits = []
    while position + 4 <= len(stream) and stream[position] == 0xFF and stream[position + 1] not in (0x90, 0x93, 0xD9):
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if end > len(stream):
            break
        if stream[position + 1] == 0x64 and not _by_encoder(bytes(stream[position + 4 : end])):
            edits.append(_Edit(position, end))
        position = end
    return edits, position


def _codestream(stream: "memoryview | bytes", kinds: tuple[bytes, ...]) -> bytes:
    """The codestream in a file of boxes (ISO 15444-1 I.4)."""
    position = 0
    while position + 8 <= len(stream):
        length, kind = struct.unpack_from(">I4s", stream, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", stream, position + 8)
            head = 16
        end = len(stream) if not length else position + length
        if kind in kinds:
            return bytes(stream[position + head : end])
        if length and length < head:
            break
        position = end
    raise ValueError("a container without a codestream")


def _run_length(stream: "memoryview | bytes", pixels: int) -> bytes | None:
    """A run-length frame without what lies outside its segments; None where nothing does (PS3.5 G.5).

    Only a frame whose end reads like text is walked: others cannot hide any.

    Raises
    ------
    ValueError
        The frame has no header, or its segments do not hold the pixels.
    """
    if len(stream) < 64:
        raise ValueError("a run-length frame without header")
    count, *offsets = _RLE_HEADER.unpack_from(stream, 0)
    if not 1 <= count <= 15 or offsets[0] < 64 or any(a >= b for a, b in pairwise(offsets[:count])):
        raise ValueError("a run-length frame with an unusual header")
    ends = [*offsets[1:count], len(stream)]
    if offsets[0] == 64 and not any(offsets[count:]) and not any(_reads_like_text(stream[max(end - _TAIL, 0) : end]) for end in ends):
        return None
    segments = [bytes(stream[start:end]) for start, end in zip(offsets, ends, strict=False)]
    segments = [segment[: _used(segment, pixels)] for segment in segments]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    made, position = [], 64
    for segment in segments:
        made.append(position)
        position += len(segment)
    result = _RLE_HEADER.pack(count, *made, *[0] * (15 - count)) + b"".join(segments)
    return None if result == bytes(stream) else result


def _reads_like_text(tail: "memoryview | bytes") -> bool:
    return all(byte == 0 or 32 <= byte < 127 for byte in tail) and any(tail)


def _used(segment: bytes, pixels: int) -> int:
    """How many bytes of a segment its pixels take."""
    position, found = 0, 0
    while found < pixels and position < len(segment):
        control = segment[position]
        if control < 128:
            position += control + 2
            found += control + 1
        elif control > 128:
            position += 2
            found += 257 - control
        else:
            position += 1
    return min(position, len(segment))


def _by_encoder(comment: bytes) -> bool:
    return _ENCODER.fullmatch(comment) is not None and _ENCODER_NUMBERS.search(comment) is None
