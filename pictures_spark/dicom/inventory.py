"""What an archive holds: the files below its root, and the objects in one file.

`list_archive` runs on the driver and only lists. `read_files` runs on executors: files in, one :class:`Found` per object out, and
whatever is wrong with a file is a row too. Each file is opened once, and each byte read once: the header by itself, then all bytes for
the SHA-256 of the object, which tells instances of one UID apart. From a store, the next files are fetched while one is read.
"""

import gzip
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from pictures_spark.dicom.containers import (
    HEAD_BYTES,
    Content,
    Member,
    file_content,
    gzip_content,
    open_file,
    open_plain,
    size_of,
    sniff,
    tar_members,
    zip_members,
)
from pictures_spark.dicom.scan import ScanError, refusal
from pictures_spark.dicom.structures import Header, Headers
from pictures_spark.errors import InputError
from pictures_spark.remote import HEAD_RANGE, RemoteFile, opened, store
from pictures_spark.roots import Listed, Root, root_of

# A file up to this size is read whole, where it is read to its end.
_AT_ONCE = 1 << 20
# Of so much text of headers, or a little more, rows are made at once.
_CHUNK_BYTES = 64 << 20


class Found(NamedTuple):
    """One object of the archive: a file, or a member of a container.

    Fields as in table ``object``; ``round_trips`` says how often a store was asked for the file, on the file's own row.
    """

    member: str | None
    kind: str
    status: str
    offset: int | None = None
    length: int | None = None
    compression: str | None = None
    size: int | None = None
    sha256: str | None = None
    reason: str | None = None
    detail: str | None = None
    header: Header | None = None
    round_trips: int | None = None


def list_archive(root: Root | str) -> list[Listed]:
    """Everything below ``root`` that is no folder, by path.

    Links to folders are listed, not entered, so that nothing is listed twice or for ever. A folder that cannot be listed stands for
    itself, so that it is reported. Bytes of a name that are no UTF-8 are written as escapes; such a file will be found unreadable.
    """
    where = root_of(root)
    if where.scheme != "file":
        return sorted(store(where).listing())
    listed: list[Listed] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(where.location, folder)) as entries:  # noqa: PTH118 - names must stay as they are
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")
                    else:
                        listed.append(_entry(path, entry))
        except OSError:
            listed.append(Listed(_unicode(folder.rstrip("/")), 0, 0))
    return sorted(listed)


def check_root(root: Root) -> None:
    """Make sure that the archive is there, before anything is made of what it holds.

    Raises
    ------
    InputError
        It is not there, or does not answer.
    ConfigError
        Its store does not let us in, or a package to read it with is missing.
    """
    if root.scheme != "file":
        store(root).check()
    elif not Path(root.location).is_dir():
        raise InputError("the archive folder does not exist: see that it is mounted, or mend zones.archive in the settings file")


def is_there(root: Root) -> bool:
    """Whether the archive is there and holds anything: an empty folder is what a mount leaves behind."""
    if root.scheme != "file":
        try:
            store(root).check()
        except InputError:
            return False
        return True
    try:
        return next(Path(root.location).iterdir(), None) is not None
    except OSError:
        return False


def locator(path: str, member: str | None) -> str:
    """The one name of an object: its path, ``!`` and the member where it has one. ``%`` and ``!`` in a path are escaped as in URIs.

    Examples
    --------
    >>> locator("2015/06/25/a.zip", "IM/1"), locator("a!b", None)
    ('2015/06/25/a.zip!IM/1', 'a%21b')
    """
    escaped = path.replace("%", "%25").replace("!", "%21")
    return escaped if member is None else f"{escaped}!{member}"


def read_files(root: Root | str, files: Iterable[Listed], headers: Headers, whole: bool = True) -> Iterator[tuple[Listed, Found]]:
    """The objects in files of the plan, in the files' order, each with its file; see `read_file`."""
    where = root_of(root)
    if where.scheme == "file":
        for file in files:
            plain = _at_once(where.location, file, headers, whole)
            if plain is not None:
                yield file, plain
                continue
            for found in _read(lambda path=file.path: open_file(where.location, path), file, headers, whole):  # type: ignore[misc]
                yield file, _not_a_file(where.location, file.path) if found.reason == "not_a_file" else found
        return
    for file, opening in opened(where, files, where.range_bytes if whole else min(HEAD_RANGE, where.range_bytes)):
        for found in _read(cast("Callable[[], BinaryIO]", opening), file, headers, whole):
            yield file, found


def read_file(root: Root | str, path: str, size: int, mtime_ns: int, headers: Headers, whole: bool = True) -> Iterator[Found]:
    """The objects in one file of the plan, their headers read by ``headers``; a container's own row comes after those of its members.

    With ``whole``, every object is read to its end for its hash; without, only its header is read and ``sha256`` is None.
    A file that is not as it was when listed, before or after reading, is quarantined as ``changed``: the next run lists it anew.
    """
    return (found for _, found in read_files(root, [Listed(path, size, mtime_ns)], headers, whole))


def chunks(found: Iterator[tuple[Listed, Found]], rows: int) -> Iterator[list[tuple[Listed, Found]]]:
    """The objects in chunks of ``rows``, or fewer where headers are long: many at once cost less each."""
    chunk: list[tuple[Listed, Found]] = []
    held = 0
    for one in found:
        chunk.append(one)
        header = one[1].header
        if header is not None:
            held += header.held
        if len(chunk) >= rows or held > _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _at_once(root: str, listed: Listed, headers: Headers, whole: bool) -> Found | None:
    """A loose file whose header is of a known structure, read at once; None for any other, which is to be looked at closely."""
    size = listed.file_size
    if whole and size > _AT_ONCE:
        return None
    try:
        handle = open_plain(root, listed.path)
        if handle is None:
            return None
        try:
            data = os.pread(handle, size if whole else headers.window, 0)
            now = os.fstat(handle)
        finally:
            os.close(handle)
    except OSError:
        return None
    if (now.st_size, now.st_mtime_ns) != (size, listed.file_mtime_ns) or not stat.S_ISREG(now.st_mode) or (whole and len(data) != size):
        return None
    header = headers.known(data)
    if header is None:
        return None
    sha256 = hashlib.sha256(data).hexdigest() if whole else None
    return Found(None, "dicom", "catalogued", 0, size, "none", size, sha256, header=header)


def _read(opening: Callable[[], BinaryIO], listed: Listed, headers: Headers, whole: bool) -> Iterator[Found]:
    try:
        with opening() as file:
            _check_unchanged(file, listed)
            for found in _objects(file, headers, whole):
                if found.member is None:
                    _check_unchanged(file, listed)
                yield found._replace(round_trips=file.round_trips) if isinstance(file, RemoteFile) and found.member is None else found
    except ScanError as error:
        yield _refused(None, "other", error)
    except OSError as error:
        yield _refused(None, "other", refusal(error))


def _objects(file: BinaryIO, headers: Headers, whole: bool) -> Iterator[Found]:
    head = file.read(HEAD_BYTES)
    kind = sniff(head)
    size = size_of(file)
    if kind == "zip":
        yield from _members("zip", size, zip_members(file), headers, whole)
    elif kind == "tar":
        yield from _members("tar", size, tar_members(file), headers, whole)
    elif kind != "gzip":
        yield _leaf(Member(None, 0, size, "none", size), file_content(file), headers, whole)
    else:
        yield from _gzipped(file, size, headers, whole)


def _gzipped(file: BinaryIO, size: int, headers: Headers, whole: bool) -> Iterator[Found]:
    """A gzipped tar, or one gzipped object."""
    file.seek(0)
    try:
        head = gzip.GzipFile(fileobj=file).read(HEAD_BYTES)
    except (gzip.BadGzipFile, EOFError, ValueError):
        head = b""
    if sniff(head) == "tar":
        yield from _members("tar", size, tar_members(file, packed=True), headers, whole)
    else:
        found = _leaf(Member(None, 0, None, "gzip", 0), gzip_content(file), headers, whole)
        yield found._replace(length=found.size)


def _members(kind: str, size: int, members: Iterator[tuple[Member, Content | None]], headers: Headers, whole: bool) -> Iterator[Found]:
    names: dict[str, int] = {}
    container = Found(None, kind, "container", 0, size, "none", size)
    try:
        for member, content in members:
            named = member._replace(name=_free(member.name or "", names))
            if member.special:
                yield Found(named.name, "other", "ignored")
            elif member.fault or content is None:
                yield _refused(named, "other", member.fault or ScanError("unreadable", "the member has no content"))
            else:
                yield _leaf(named, content, headers, whole)
    except ScanError as error:
        container = container._replace(status="quarantined", reason=error.reason, detail=error.detail)
    yield container


def _leaf(place: Member, content: Content, headers: Headers, whole: bool) -> Found:
    """An object that is no container: its header, and the hash of all its bytes."""
    kind = "other"
    try:
        head = content.read_at(0, HEAD_BYTES)
        if sniff(head) in ("zip", "tar", "gzip"):
            raise ScanError("nested_container", "a container inside a container is not opened")
        kind = "dicom" if sniff(head) == "dicom" else "other"
        record = headers.read(content)
        kind = record.kind
        sha256, size = content.finish() if whole else (None, place.size)
    except ScanError as error:
        return _refused(place, kind, error)
    found = Found(place.name, kind, "catalogued", place.offset, place.length, place.compression, size, sha256, header=record)
    return found if kind == "dicom" else found._replace(status="ignored", header=None)


def _refused(place: Member | None, kind: str, error: ScanError) -> Found:
    found = Found(None, kind, "quarantined", reason=error.reason, detail=error.detail)
    if place is None:
        return found
    return found._replace(member=place.name, offset=place.offset, length=place.length, compression=place.compression, size=place.size)


def _not_a_file(root: str, path: str) -> Found:
    full = os.path.join(root, path)  # noqa: PTH118
    if os.path.isdir(full) and not os.path.islink(full):  # noqa: PTH112, PTH114
        return _refused(None, "other", ScanError("unreadable", "a folder that cannot be listed"))
    return Found(None, "other", "ignored")


def _check_unchanged(file: BinaryIO, listed: Listed) -> None:
    if isinstance(file, RemoteFile):
        return  # every range was asked for in the version that was listed
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (listed.file_size, listed.file_mtime_ns):
        raise ScanError("changed", "the file is not as it was when it was listed")


def _entry(path: str, entry: os.DirEntry[str]) -> Listed:
    try:
        state = entry.stat()
    except OSError:  # a link to nowhere
        state = entry.stat(follow_symlinks=False)
    return Listed(_unicode(path), state.st_size, state.st_mtime_ns)


def _unicode(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _free(name: str, taken: dict[str, int]) -> str:
    """The name, with a number where the container has several members of it."""
    free = name
    while free in taken:
        taken[name] += 1
        free = f"{name}#{taken[name]}"
    taken[free] = 1
    return free
