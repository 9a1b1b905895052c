"""Write a data set as a DICOM file: Explicit VR Little Endian, nothing but what was given (PS3.5 section 7, PS3.10 section 7).

Our own writer because the result must be the same byte for byte on every run and hold only elements that were decided upon: no
group lengths, no padding, a preamble of zeros, our own file meta information.
"""

import struct
from functools import lru_cache
from typing import NamedTuple, TypeAlias

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
_NULL_PADDED = frozenset(("OB", "OW", "OF", "OD", "OL", "OV", "UI", "UN"))
# Preamble, and the group length of the file meta information up to its value.
_START = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0"
_SHORT_LIMIT = 0xFFFE


class Element(NamedTuple):
    """One element: its bytes, or the items of a sequence. ``encapsulated`` bytes are fragments and are written with a delimiter."""

    tag: int
    vr: str
    value: "bytes | list[Items]"
    encapsulated: bool = False


Items: TypeAlias = list[Element]


def text(tag: int, vr: str, value: str) -> Element:
    """An element of ASCII text."""
    return Element(tag, vr, value.encode("ascii"))


def fits(vr: str, value: bytes) -> bool:
    """Whether a value can be written under its VR: the short form holds less than 64 KiB."""
    return vr in _LONG_VRS or len(value) <= _SHORT_LIMIT


class FileHead:
    """Preamble and file meta information of instances of one class in one transfer syntax."""

    def __init__(self, sop_class: str, transfer_syntax: str, class_uid: str, version_name: str) -> None:
        before = encode([Element(0x00020001, "OB", b"\x00\x01"), text(0x00020002, "UI", sop_class)])
        behind = [text(0x00020010, "UI", transfer_syntax), text(0x00020012, "UI", class_uid), text(0x00020013, "SH", version_name)]
        self._before = before + b"\2\0\3\0UI"
        self._behind = encode(behind)
        self._length = len(self._before) + 2 + len(self._behind)

    def __call__(self, sop_instance: str) -> bytes:
        """The head of an instance."""
        uid = sop_instance.encode("ascii")
        if len(uid) & 1:
            uid += b"\0"
        size = len(uid)
        length = (self._length + size).to_bytes(4, "little")
        return b"".join((_START, length, self._before, size.to_bytes(2, "little"), uid, self._behind))


@lru_cache(256)
def file_head(sop_class: str, transfer_syntax: str, class_uid: str, version_name: str) -> FileHead:
    """The head of files of a class and transfer syntax, as a function of the instance UID."""
    return FileHead(sop_class, transfer_syntax, class_uid, version_name)


def encode(elements: Items) -> bytes:
    """A data set, by tag."""
    return b"".join(part for element in sorted(elements, key=lambda e: e.tag) for part in encoded_parts(element))


def encode_one(element: Element) -> bytes:
    """One element."""
    tag, vr, value, encapsulated = element
    if encapsulated or isinstance(value, list):
        return b"".join(encoded_parts(element))
    return encode_value(tag, vr, value)


def encode_value(tag: int, vr: str, value: bytes) -> bytes:
    """One element that is no sequence."""
    head, width = element_head(tag, vr)
    if len(value) & 1:
        value = bytes(value) + (b"\0" if vr in _NULL_PADDED else b" ")
    return head + len(value).to_bytes(width, "little") + value


@lru_cache(1 << 13)
def element_head(tag: int, vr: str) -> tuple[bytes, int]:
    """An element's bytes before its length, and how many bytes the length has."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return (head + b"\0\0", 4) if vr in _LONG_VRS else (head, 2)


def encoded_parts(element: Element) -> tuple[bytes, ...]:
    """An element as pieces that are to be put together: long values are not copied."""
    tag = struct.pack("<HH", element.tag >> 16, element.tag & 0xFFFF)
    vr = element.vr.encode()
    if element.encapsulated:
        return tag, vr, b"\0\0\xff\xff\xff\xff", element.value, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)  # type: ignore[return-value]
    if isinstance(element.value, list):
        value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in map(encode, element.value))
    else:
        value = element.value
        if len(value) % 2:
            value = bytes(value) + (b"\0" if element.vr in _NULL_PADDED else b" ")
    if element.vr in _LONG_VRS:
        return tag, vr, struct.pack("<HI", 0, len(value)), value
    return tag, vr, struct.pack("<H", len(value)), value
