"""Zip, tar and gzip files as sequences of members, and any object read back by its place.

A kind is told by content, never by name. Every member has an offset and a length in its file, so that reading it later is one range read
(for gzip: in the unpacked stream, which has to be unpacked up to there). Member names are only names: nothing is ever unpacked to a disk.
Runs on executors; cost and memory are bounded whatever a container claims.
"""

import gzip
import hashlib
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, cast

from pictures_spark.dicom.scan import KEPT_BYTES, ScanError, looks_like_dicom
from pictures_spark.remote import ChangedError, RemoteFile, store
from pictures_spark.resources import load_schema
from pictures_spark.roots import Root, root_of

HEAD_BYTES = 1024
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b\x08"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06")
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# A header of a tar: name, numbers (mode, owner, group, size, time), checksum, kind, magic, numbers of devices, prefix of the name.
_TAR_HEADER = struct.Struct("100s48s8sc100x8s64x16s155s12x")
_TAR_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 (?:(?:[0-7]{7}[\0 ]){2}|\0{16})")
_METHODS = {zipfile.ZIP_STORED: "none", zipfile.ZIP_DEFLATED: "deflate"}
# What the standard library's readers raise on a damaged container.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, ValueError, OverflowError, NotImplementedError, RecursionError),
)


class ObjectChangedError(Exception):
    """The file no longer holds the object that was catalogued at this place; catalogue the archive again."""


class Member(NamedTuple):
    """One entry of a container, or a whole file, which has no name in one.

    ``offset`` and ``length`` say where its packed bytes are, ``size`` how long it is unpacked, ``compression`` how it is packed: ``none``,
    ``deflate``, or ``gzip`` where the whole container is packed and offset and length count in the unpacked stream. ``fault`` is set where
    it cannot be read; ``special`` is True for links, devices and pipes, which hold no bytes of their own.
    """

    name: str | None
    offset: int | None
    length: int | None
    compression: str | None
    size: int
    crc: int | None = None
    fault: ScanError | None = None
    special: bool = False


class Content:
    """An object's bytes as one forward pass: the first ``KEPT_BYTES`` at random, what comes after only forward, the rest only hashed.

    A :class:`~pictures_spark.dicom.scan.ByteReader`: `read_at` pulls as far as it is asked; `finish` goes on to the end. So every byte is
    read and unpacked once, and memory is that of the first bytes however long the header is.
    """

    def __init__(self, pull: Callable[[int], bytes], size: int | None, crc: int | None = None) -> None:
        self.size = size
        self._pull = pull
        self._crc_wanted = crc
        self._crc = 0
        # Begun when it is known that all bytes are asked for, or before bytes go by that are not kept.
        self._digest: Any = None
        self._kept = bytearray()
        self._length = 0

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset``; fewer where the object ends.

        Raises
        ------
        OSError
            Bytes that went by and are not kept.
        """
        end = offset + length
        if end > len(self._kept) and max(offset, len(self._kept)) < self._length:
            raise OSError("bytes of a member that have gone by")
        found = bytes(self._kept[offset:end])
        while self._length < end:
            at = self._length
            chunk = self._next((offset if at < offset else end) - at)
            if not chunk:
                break
            if self._digest is None and at + len(chunk) > KEPT_BYTES:
                self._begin()
                self._count(chunk)
            self._kept += chunk[: max(0, KEPT_BYTES - at)]
            if at >= offset:
                found += chunk
        return found

    def finish(self) -> tuple[str, int]:
        """SHA-256 (hex) and length of the whole object.

        Raises
        ------
        ScanError
            ``archive_corrupt``: a member's length or checksum is not what its container says.
        """
        if self._digest is None:
            self._begin()
        while self._next(_CHUNK):
            pass
        if self.size is not None and self._length != self.size:
            raise ScanError("archive_corrupt", "a member is not as long as its container says")
        if self._crc_wanted is not None and self._crc != self._crc_wanted:
            raise ScanError("archive_corrupt", "a member's checksum is not what its container says")
        return self._digest.hexdigest(), self._length

    def _next(self, length: int) -> bytes:
        try:
            chunk = self._pull(min(length, _CHUNK))
        except _DAMAGE:
            raise ScanError("archive_corrupt", "a member cannot be unpacked") from None
        self._length += len(chunk)
        if self.size is not None and self._length > self.size:
            raise ScanError("archive_corrupt", "a member is longer than its container says")
        if self._digest is not None:
            self._count(chunk)
        return chunk

    def _begin(self) -> None:
        self._digest = hashlib.sha256()
        self._count(self._kept)

    def _count(self, chunk: bytes | bytearray) -> None:
        self._digest.update(chunk)
        if self._crc_wanted is not None:
            self._crc = zlib.crc32(chunk, self._crc)


def sniff(head: bytes) -> str:
    """What an object is, from its first ``HEAD_BYTES`` bytes: ``dicom``, ``zip``, ``tar``, ``gzip`` or ``other``.

    A gzip file has to be unpacked to tell more; a DICOMDIR is ``dicom`` here, and told by its header.

    Examples
    --------
    >>> sniff(bytes(128) + b"DICM"), sniff(b"PK\\x03\\x04..."), sniff(b"hello")
    ('dicom', 'zip', 'other')
    """
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_ZIP):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(_GZIP):
        return "gzip"
    return "dicom" if looks_like_dicom(head) else "other"


def open_file(root: str, path: str) -> BinaryIO:
    """Open a regular file below ``root``; never waits on a pipe.

    Raises
    ------
    ScanError
        ``link_outside_root``: a symbolic link leads out of the root. ``not_a_file``: a pipe, a socket, a device or a folder.
    OSError
        The file is not there, or may not be read.
    """
    full = os.path.join(root, path)  # noqa: PTH118 - pathlib would normalise a name such as "a//b"
    special = ScanError("not_a_file", "a pipe, a socket, a device or a folder")
    # Asked before opening too, because opening alone moves some devices.
    mode = os.lstat(full).st_mode
    # Of a file that is no link itself, only the folders on the way can be; the next file mostly is in the same one.
    inside = _is_inside(root, full) if stat.S_ISLNK(mode) or ".." in path else _is_folder_inside(root, os.path.dirname(full))  # noqa: PTH120
    if not inside:
        raise ScanError("link_outside_root", "a symbolic link leads out of the archive")
    if not stat.S_ISREG(os.stat(full).st_mode if stat.S_ISLNK(mode) else mode):  # noqa: PTH116
        raise special
    handle = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if stat.S_ISLNK(mode) else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise special
    return os.fdopen(handle, "rb")


def open_plain(root: str, path: str) -> int | None:
    """A handle of a regular file below ``root`` that no link leads to; None for any other, which is for `open_file` to judge.

    Raises
    ------
    OSError
        The file is not there, or may not be read.
    """
    if path.startswith("/") or ".." in path:
        return None
    full = f"{root}/{path}"
    if not stat.S_ISREG(os.lstat(full).st_mode) or not _is_folder_inside(root, full.rpartition("/")[0]):
        return None
    return os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def _is_inside(root: str, full: str) -> bool:
    real_root = os.path.realpath(root)
    return os.path.commonpath([real_root, os.path.realpath(full)]) == real_root


@lru_cache(maxsize=16)
def _is_folder_inside(root: str, folder: str) -> bool:
    return _is_inside(root, folder)


def size_of(file: BinaryIO) -> int:
    """Length of an open file in bytes: of a store, as it was listed; of a folder, as it is now."""
    return file.size if isinstance(file, RemoteFile) else os.fstat(file.fileno()).st_size


def file_content(file: BinaryIO) -> Content:
    """A whole open file."""
    file.seek(0)
    return Content(file.read, size_of(file))


def zip_members(file: BinaryIO) -> Iterator[tuple[Member, Content | None]]:
    """Members of a zip in the order in which they lie in the file, each with its content where it can be read.

    Raises
    ------
    ScanError
        ``archive_corrupt``: the directory at the end of the file cannot be read. ``too_large``: it is longer than the limit.
    """
    try:
        with zipfile.ZipFile(cast("BinaryIO", _Limited(file, load_schema("dicom/containers.yaml")["zip_directory_bytes"]))) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except _DAMAGE:
        raise ScanError("archive_corrupt", "the directory of the zip cannot be read") from None
    entries.sort(key=lambda entry: entry.header_offset)
    shared = _overlapping(entries)
    for entry in entries:
        member = _zip_member(file, entry, entry.header_offset in shared)
        yield member, None if member.fault else _ranged(file, member)


def tar_members(file: BinaryIO, packed: bool = False) -> Iterator[tuple[Member, Content | None]]:
    """Members of a tar, or of a gzipped tar where ``packed``, in one forward pass, each with its content where it can be read.

    A content must be read before the next member is asked for. Hard and symbolic links are ``special``: they are never followed.

    Raises
    ------
    ScanError
        ``archive_corrupt``, after the members that come before the damage.
    """
    limit = load_schema("dicom/containers.yaml")["member_bytes"]
    damage: list[str] = []
    file.seek(0)
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
    end = None if packed else size_of(file)
    try:
        # Stream mode for gzip: a seek backwards would unpack from the start again.
        with tarfile.open(fileobj=stream, mode="r|" if packed else "r:", tarinfo=_tarinfo(damage)) as archive:
            position = -1
            while True:
                plain = None if packed or position < 0 or archive.pax_headers else _plain_entry(file, archive.offset)
                if plain is not None:
                    archive.offset = plain.offset_data + -(-plain.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                elif not packed and position >= 0:
                    # Somewhere else than at the next header, or tarfile would not see that the file ends before it.
                    file.seek(0)
                entry = plain or archive.next()
                if entry is None:
                    break
                if entry.offset_data <= position or entry.size < 0:
                    raise ScanError("archive_corrupt", "the tar does not go forward")
                position = entry.offset_data
                if entry.isdir():
                    continue
                member = _tar_member(entry, packed, limit, end)
                if member.fault or member.special:
                    yield member, None
                elif packed:
                    body = cast("BinaryIO", archive.extractfile(entry))
                    yield member, Content(body.read, entry.size)
                else:
                    yield member, _ranged(file, member)
                # tarfile would keep every header until the end.
                archive.members.clear()  # type: ignore[attr-defined]
    except _DAMAGE:
        raise ScanError("archive_corrupt", "the tar cannot be read to its end") from None
    if damage:
        raise ScanError("archive_corrupt", "the tar has a damaged header")


def gzip_content(file: BinaryIO) -> Content:
    """The unpacked content of a gzip file, no longer than the limit for a member."""
    limit: int = load_schema("dicom/containers.yaml")["member_bytes"]
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file)

    def pull(length: int) -> bytes:
        if stream.tell() > limit:
            raise ScanError("too_large", "unpacks to more than the limit for a member")
        return stream.read(length)

    return Content(pull, None)


def read_object(
    root: Root | str, path: str, offset: int | None, length: int | None, compression: str | None, sha256: str | None = None
) -> bytes:
    """The bytes of one catalogued object, from columns of table ``object``: one range read, but for ``gzip``. Runs on executors.

    Parameters
    ----------
    root : root of the archive zone.
    path : the file below it.
    offset, length, compression : where and how the object is packed in the file; None for the whole file.
    sha256 : where given, the content must have this hash.

    Raises
    ------
    ObjectChangedError
        The file is not a file any more, is too short, does not unpack, or has other content.
    OSError
        The file is not there, or cannot be read.
    ValueError
        The compression is not one of ``none``, ``deflate``, ``gzip``.
    """
    if compression not in (None, "none", "deflate", "gzip"):
        raise ValueError("compression is not one of none, deflate, gzip")
    where = root_of(root)
    try:
        if where.scheme == "file":
            with open_file(where.location, path) as file:
                data = _read(file, offset or 0, length, compression)
        elif compression == "gzip":
            with RemoteFile(store(where), path, None, where.range_bytes, where.range_bytes) as remote:
                data = _read(cast("BinaryIO", remote), offset or 0, length, compression)
        elif length == 0:
            data = b""
        else:
            data = _unpacked(store(where).get(path, offset or 0, length).data, length, compression)
    except (ScanError, ChangedError, *_DAMAGE):
        raise ObjectChangedError("the object cannot be unpacked where it was catalogued") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ObjectChangedError("the object's content is not what was catalogued")
    return data


def _read(file: BinaryIO, offset: int, length: int | None, compression: str | None) -> bytes:
    if compression == "gzip":
        stream = gzip.GzipFile(fileobj=file)
        stream.seek(offset)
        data = stream.read(-1 if length is None else length)
        compression = "none"
    else:
        file.seek(offset)
        data = file.read(-1 if length is None else length)
    return _unpacked(data, length, compression)


def _unpacked(data: bytes, length: int | None, compression: str | None) -> bytes:
    if length is not None and len(data) < length:
        raise ObjectChangedError("the file is too short for the object that was catalogued in it")
    if compression == "deflate":
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflate.decompress(data, load_schema("dicom/containers.yaml")["member_bytes"])
        if not inflate.eof:
            raise ObjectChangedError("the object does not unpack to its end")
    return data


class _Limited:
    """A zip file for the reader of its directory, which asks for that in one read, as long as the zip says it is."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file, self._limit = file, limit

    def read(self, length: int = -1) -> bytes:
        """Bytes from the position, no more than the limit."""
        if length > self._limit:
            raise ScanError("too_large", "the directory of the zip is longer than any real one")
        return self._file.read(length)


def _zip_member(file: BinaryIO, entry: zipfile.ZipInfo, shared: bool) -> Member:
    compression = _METHODS.get(entry.compress_type)
    offset, fault = None, None
    if entry.flag_bits & 0x1:
        fault = ScanError("member_encrypted", "the member is encrypted")
    elif compression is None:
        fault = ScanError("unreadable", "the member is packed by a method other than stored or deflate")
    elif entry.file_size > load_schema("dicom/containers.yaml")["member_bytes"]:
        fault = ScanError("too_large", "unpacks to more than the limit for a member")
    elif shared:
        fault = ScanError("archive_corrupt", "members of the zip overlap")
    else:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) == _LOCAL_HEADER.size and header.startswith(b"PK\x03\x04"):
            _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            offset = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        else:
            fault = ScanError("archive_corrupt", "the zip's directory points to no member")
    return Member(_name(entry.filename), offset, entry.compress_size, compression, entry.file_size, entry.CRC, fault)


def _overlapping(entries: list[zipfile.ZipInfo]) -> set[int]:
    """Header offsets of members whose bytes belong to another member too: the mark of a zip made to unpack without end."""
    shared, reach, owner = set(), -1, -1
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < reach:
            shared |= {owner, entry.header_offset}
        end = entry.header_offset + _LOCAL_HEADER.size + entry.compress_size
        if end > reach:
            reach, owner = end, entry.header_offset
    return shared


def _tar_member(entry: tarfile.TarInfo, packed: bool, limit: int, end: int | None) -> Member:
    fault = None
    if entry.isreg() and entry.issparse():
        fault = ScanError("unreadable", "the member is stored with holes")
    elif entry.size > limit:
        fault = ScanError("too_large", "unpacks to more than the limit for a member")
    elif entry.isreg() and end is not None and entry.offset_data + entry.size > end:
        fault = ScanError("archive_corrupt", "the tar ends inside the member")
    place = (entry.offset_data, entry.size, "gzip" if packed else "none")
    return Member(_name(entry.name), *place, entry.size, None, fault, special=not entry.isreg())


def _plain_entry(file: BinaryIO, position: int) -> tarfile.TarInfo | None:
    """The header at a position, if it is that of a regular file written as most are; any other is for tarfile, which takes far longer."""
    file.seek(position)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return None
    name, numbers, checksum, kind, magic, devices, prefix = _TAR_HEADER.unpack(block)
    found = _TAR_NUMBERS.fullmatch(numbers + checksum + devices)
    if not found or kind != tarfile.REGTYPE or magic not in (tarfile.POSIX_MAGIC, tarfile.GNU_MAGIC):
        return None
    # The low half of an Adler-32 is 1 + the sum of the bytes, exact up to 257 of them; of the checksum itself, blanks count.
    if 8 * 32 + sum((zlib.adler32(part) & 0xFFFF) - 1 for part in (block[:148], block[156:334], block[334:])) != int(found[2], 8):
        return None
    texts = (text.split(b"\0", 1)[0].decode(tarfile.ENCODING, "surrogateescape") for text in (prefix, name))
    entry = tarfile.TarInfo("/".join(filter(None, texts)))
    entry.size, entry.offset, entry.offset_data = int(found[1], 8), position, position + tarfile.BLOCKSIZE
    return entry


def _tarinfo(damage: list[str]) -> type[tarfile.TarInfo]:
    """Header parser that notes damage: tarfile takes a damaged header after the first for the end of the archive."""
    limit = load_schema("dicom/containers.yaml")["tar_record_bytes"]
    records = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

    class Checked(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            try:
                entry = super().frombuf(buf, encoding, errors)
            except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError):  # type: ignore[attr-defined]
                damage.append("header")
                raise
            if entry.type in records and entry.size > limit:
                raise tarfile.ReadError("a record of the tar is longer than any real one")
            return entry

    return Checked


def _ranged(file: BinaryIO, member: Member) -> Content:
    """A member that lies in the file as it is or deflated. Its position is its own: others may read the file in between."""
    at, left = cast("int", member.offset), cast("int", member.length)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.compression == "deflate" else None
    # A header packs into few bytes: what is read for it grows as more is wanted.
    packed_step = 1 << 13

    def raw(length: int) -> bytes:
        nonlocal at, left
        file.seek(at)
        chunk = file.read(min(length, left))
        at, left = at + len(chunk), left - len(chunk)
        return chunk

    def inflated(length: int) -> bytes:
        nonlocal packed_step
        assert inflate is not None
        while not inflate.eof:
            packed = inflate.unconsumed_tail
            if not packed:
                packed_step = min(2 * packed_step, 1 << 16)
                packed = raw(packed_step)
            chunk = inflate.decompress(packed, length)
            if chunk:
                return chunk
            if not packed:
                raise EOFError
        return b""

    return Content(inflated if inflate else raw, member.size, member.crc)


def _name(name: str) -> str:
    """A member's name as valid Unicode; bytes that are not are written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
