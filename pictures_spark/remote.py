"""Stores: roots that are no mounted folder, listed page by page and read by ranges.

Each range is asked for in the version that was listed, so what is read is of one version or refused. A :class:`RemoteFile` turns ranges
into a file for zip, tar and gzip readers, with few round trips and bounded memory. What goes wrong is an ``OSError`` whose text names no
object; a store that cannot be used at all is one sentence. S3 goes through s3fs, HDFS through fsspec and Arrow.
"""

import asyncio
import errno
import io
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pictures_spark.errors import ConfigError, InputError
from pictures_spark.roots import Listed, Root

# The first range of a file of which only the header is wanted, and the first one after a jump.
HEAD_RANGE = 64 << 10
# A zip's directory lies at the end: the first read near it fetches this much, which is the directory of some 10,000 members.
_TAIL = 1 << 20
# Ranges that are fetched before they are needed, once a file is read forward.
_AHEAD = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ChangedError(OSError):
    """The object is not, or no longer, what was listed."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "the file is not as it was when it was listed")


class Part(NamedTuple):
    """Bytes of an object, the length of the whole, and the store's mark of the version that they are of."""

    data: bytes
    size: int
    etag: str | None


class Store(Protocol):
    """A root that is no mounted folder."""

    def check(self) -> None:
        """Make sure that the root can be listed.

        Raises
        ------
        InputError
            It is not there, or does not answer.
        ConfigError
            It does not let us in.
        """

    def listing(self) -> Iterator[Listed]:
        """Every object below the root, in no order. A folder that cannot be listed stands for itself, with size 0."""

    def get(self, path: str, offset: int, length: int | None, of: Listed | None = None) -> Part:
        """A range of an object in one round trip; shorter where the object ends, to its end where ``length`` is None.

        Raises
        ------
        ChangedError
            The object is not what was listed, where ``of`` says what was.
        TimeoutError
            The store did not answer in time, however often it was asked.
        OSError
            It is not there, may not be read, or the store failed.
        """


def store(root: Root) -> Store:
    """The store of a remote root; one per process and root, made at first need.

    Raises
    ------
    ConfigError
        The package that reads it is not installed, or the credentials file is not there.
    InputError
        The HDFS cannot be reached.
    """
    # A connection does not survive a fork, and Spark's workers are forks.
    return _store(root, os.getpid())


@lru_cache(maxsize=8)
def _store(root: Root, process: int) -> Store:
    try:
        return S3Store(root) if root.scheme == "s3" else HdfsStore.at(root)
    except ImportError:
        raise ConfigError(
            f"an archive of scheme {root.scheme} needs packages that are not installed: pip install 'pictures-spark[remote]'"
        ) from None


class S3Store:
    """Objects below a prefix of an S3 bucket. The mark of a version is its ETag: every read is conditional on it."""

    def __init__(self, root: Root) -> None:
        import s3fs
        from aiobotocore.session import AioSession

        self._root = root
        self._connecting = asyncio.Lock()
        self._bucket, prefix = root.place
        self._prefix = f"{prefix}/" if prefix else ""
        session = AioSession(profile=root.profile)
        if root.credentials_file is not None:
            if not Path(root.credentials_file).is_file():
                raise ConfigError("remote.credentials_file: there is no such file on this machine; put it there, or leave the setting out")
            session.set_config_variable("credentials_file", root.credentials_file)
        self._files = s3fs.S3FileSystem(
            endpoint_url=root.endpoint,
            client_kwargs={"region_name": root.region} if root.region else {},
            config_kwargs={
                "connect_timeout": root.timeout_seconds,
                "read_timeout": root.timeout_seconds,
                "retries": {"total_max_attempts": root.attempts, "mode": "standard"},
                "max_pool_connections": root.threads + _AHEAD + 1,
            },
            session=session,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def check(self) -> None:
        """See :class:`Store`."""
        try:
            self._run(self._page)
        except FileNotFoundError:
            raise InputError("the archive's bucket does not exist: mend the archive's URI, or the endpoint of the store") from None
        except PermissionError:
            raise ConfigError(
                "the archive's store does not let us in: give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, "
                "or by a credentials file"
            ) from None
        except OSError as error:
            raise InputError(f"the archive cannot be listed: {error.strerror}; see the endpoint, and the network") from None

    def listing(self) -> Iterator[Listed]:
        """See :class:`Store`. Keys that end in a slash and are empty are folders of a console, and no objects."""
        token: dict[str, str] = {}
        while True:
            page = self._run(self._page, **token)
            for entry in page.get("Contents", ()):
                path, size = entry["Key"][len(self._prefix) :], entry["Size"]
                if size or not entry["Key"].endswith("/"):
                    yield Listed(path, size, _nanoseconds(entry["LastModified"]), entry["ETag"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def get(self, path: str, offset: int, length: int | None, of: Listed | None = None) -> Part:
        """See :class:`Store`."""
        asked: dict[str, str] = {}
        # A range of nothing is an error in S3.
        if of is None or of.file_size:
            asked["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        if of is not None and of.file_etag is not None:
            asked["IfMatch"] = of.file_etag
        part: Part = self._run(self._part, self._prefix + path, offset, length, asked)
        return part

    def _run(self, action: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        """Run a coroutine on the loop of s3fs. A failure comes back as a value, for fsspec would make another of a timeout."""
        from fsspec.asyn import sync

        async def outcome() -> tuple[Any, OSError | None]:
            failure = None
            for _ in range(self._root.attempts):
                try:
                    return await action(*arguments, **named), None
                # Whatever S3 clients raise may quote a key; `_failure` says what may be told.
                except Exception as error:  # noqa: BLE001
                    failure = _failure(error)
                    if not isinstance(error, _broken_off()):
                        break
            return None, failure

        found, failure = sync(self._files.loop, outcome)
        if failure is not None:
            raise failure
        return found

    async def _client(self) -> Any:
        # Several at once would make several.
        async with self._connecting:
            return await self._files.set_session()

    async def _page(self, **token: str) -> Any:
        client = await self._client()
        return await client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **token)

    async def _part(self, key: str, offset: int, length: int | None, asked: dict[str, str]) -> Part:
        client = await self._client()
        answer = await client.get_object(Bucket=self._bucket, Key=key, **asked)
        # The client's own limit is on silence only; a store that drips must end too.
        patience = self._root.timeout_seconds * (1 + answer["ContentLength"] // self._root.range_bytes)
        async with answer["Body"] as body:
            data = await asyncio.wait_for(body.read(), patience)
        total = answer.get("ContentRange", "").rpartition("/")[2]
        return Part(data, int(total) if total.isdigit() else len(data), answer.get("ETag"))


class HdfsStore:
    """Files below a folder of a file system that Arrow knows, HDFS above all. The mark of a version is size and modification time."""

    def __init__(self, files: Any, base: str) -> None:
        self._files = files
        self._base = base

    @classmethod
    def at(cls, root: Root) -> "HdfsStore":
        """The HDFS of a root; without a host, the one of the machine's Hadoop settings."""
        from fsspec.implementations.arrow import HadoopFileSystem

        host, path = root.place
        name, _, port = host.partition(":")
        try:
            files = HadoopFileSystem(name or "default", int(port or (8020 if name else 0)))
        except (OSError, ValueError):
            raise InputError(
                "the archive's HDFS cannot be reached: see host and port, and that HADOOP_HOME, CLASSPATH and JAVA_HOME are set on every "
                "node as Arrow needs them"
            ) from None
        return cls(files, f"/{path}")

    def check(self) -> None:
        """See :class:`Store`."""
        try:
            is_folder = self._files.info(self._base)["type"] == "directory"
        except OSError:
            is_folder = False
        if not is_folder:
            raise InputError("the archive's folder does not exist in this HDFS: mend the archive's URI, or the permissions of this user")

    def listing(self) -> Iterator[Listed]:
        """See :class:`Store`."""
        folders = [self._base]
        while folders:
            folder = folders.pop()
            try:
                entries = self._files.ls(folder, detail=True)
            except OSError:
                yield Listed(folder[len(self._base) + 1 :], 0, 0)
                continue
            for entry in entries:
                if entry["type"] == "directory":
                    folders.append(entry["name"])
                else:
                    yield Listed(entry["name"][len(self._base) + 1 :], *self._mark(entry))

    def get(self, path: str, offset: int, length: int | None, of: Listed | None = None) -> Part:
        """See :class:`Store`."""
        if ".." in path.split("/"):
            raise PermissionError(errno.EACCES, "a path leads out of the archive")
        try:
            with self._files.open(f"{self._base}/{path}", "rb") as file:
                file.seek(offset)
                data = file.read(-1 if length is None else length)
            size, modified = self._mark(self._files.info(f"{self._base}/{path}"))
        except OSError as error:
            raise _told(error) from None
        if of is not None and (size, modified) != (of.file_size, of.file_mtime_ns):
            raise ChangedError
        return Part(data, size, None)

    @staticmethod
    def _mark(entry: dict[str, Any]) -> tuple[int, int]:
        return entry["size"] or 0, _nanoseconds(entry["mtime"]) if entry["mtime"] else 0


class RemoteFile(io.RawIOBase):
    """A file of a store, open for reading.

    Its first range is fetched when it is made; from then on ranges grow while it is read forward, and then some are fetched before they
    are asked for. At most ``2 + _AHEAD`` ranges and the file's end are kept.

    Parameters
    ----------
    source : the store.
    path : the file.
    listed : what was listed; None where the file need not be of any version.
    first : length of the first range.
    largest : length that ranges grow to.
    pool : who fetches ahead; None where nothing is.

    Attributes
    ----------
    size : length of the file in bytes.
    round_trips : how many ranges were asked for.
    """

    def __init__(
        self, source: Store, path: str, listed: Listed | None, first: int, largest: int, pool: ThreadPoolExecutor | None = None
    ) -> None:
        self._store, self._path, self._listed, self._largest, self._pool = source, path, listed, largest, pool
        wanted = first if listed is None else min(first, listed.file_size)
        part = source.get(path, 0, wanted, listed)
        self.size = part.size if listed is None else listed.file_size
        self.round_trips = 1
        self._of = listed if listed is not None else Listed(path, part.size, 0, part.etag) if part.etag is not None else None
        if len(part.data) != min(wanted, self.size) or part.size != self.size:
            raise ChangedError
        self._head = self._current = self._last = (0, part.data)
        self._tail = (self.size, b"")
        self._at = 0
        self._coming: dict[int, Future[Part]] = {}

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from the position; fewer than asked for only where the file ends."""
        end = self.size if size is None or size < 0 else min(self._at + size, self.size)
        pieces = []
        while self._at < end:
            start, data = self._block(end - self._at)
            pieces.append(data[self._at - start : end - start])
            self._at += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give up what is still being fetched."""
        self._forget()
        super().close()

    def _block(self, wanted: int) -> tuple[int, bytes]:
        """(start, bytes) of a range that holds the position, from which so many bytes are wanted."""
        for block in (self._current, self._head, self._tail):
            if block[0] <= self._at < block[0] + len(block[1]):
                self._last = block
                return block
        start, data = self._last
        gap = self._at - (start + len(data))
        near_end = max(self.size - _TAIL, start + len(data))
        if not self._tail[1] and gap > 0 and self._at >= near_end:
            self._last = self._tail = (near_end, self._get(near_end, self.size - near_end))
            return self._tail
        if self._at in self._coming:
            data = self._whole(self._coming.pop(self._at).result(), self._at)
        else:
            self._forget()
            length = 4 * len(data) if 0 <= gap <= self._largest else 0
            length = min(self._largest, max(HEAD_RANGE, wanted, length))
            data = self._get(self._at, min(length, self._stop() - self._at))
        if gap == 0 and len(data) == self._largest:
            self._fetch_ahead(self._at + len(data))
        self._last = self._current = (self._at, data)
        return self._current

    def _stop(self) -> int:
        """Where a range at the position ends at the latest: nothing of the file's end is fetched twice."""
        return self._tail[0] if self._at < self._tail[0] else self.size

    def _fetch_ahead(self, at: int) -> None:
        stop = self._stop()
        while self._pool is not None and at < stop and len(self._coming) < _AHEAD:
            length = min(self._largest, stop - at)
            if at not in self._coming:
                self.round_trips += 1
                self._coming[at] = self._pool.submit(self._store.get, self._path, at, length, self._of)
            at += length

    def _forget(self) -> None:
        for future in self._coming.values():
            self.round_trips -= future.cancel()
        self._coming = {}

    def _get(self, at: int, length: int) -> bytes:
        self.round_trips += 1
        return self._whole(self._store.get(self._path, at, length, self._of), at)

    def _whole(self, part: Part, at: int) -> bytes:
        if part.size != self.size or not part.data or at + len(part.data) > self.size:
            raise ChangedError
        return part.data


def opened(root: Root, listed: Iterable[Listed], first: int) -> Iterator[tuple[Listed, Callable[[], RemoteFile]]]:
    """Files of a store in their order, each with a function that gives the open file or raises why it cannot be had.

    The first ranges of up to ``root.threads`` files are fetched at the same time, each before its turn comes.
    """
    source = store(root)
    pool = ThreadPoolExecutor(root.threads)
    waiting: deque[tuple[Listed, Future[RemoteFile]]] = deque()
    try:
        for one in listed:
            waiting.append((one, pool.submit(RemoteFile, source, one.path, one, first, root.range_bytes, pool)))
            if len(waiting) >= root.threads:
                file, future = waiting.popleft()
                yield file, future.result
        while waiting:
            file, future = waiting.popleft()
            yield file, future.result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _told(error: OSError) -> OSError:
    """The same kind of error, without what it says of the object."""
    kind = next((kind for kind in (FileNotFoundError, PermissionError, TimeoutError) if isinstance(error, kind)), OSError)
    number = error.errno or errno.EIO
    return kind(number, os.strerror(number))


def _broken_off() -> tuple[type[BaseException], ...]:
    """What is raised when an answer breaks off in its body, which the client does not ask for again by itself."""
    from aiohttp import ClientError, ClientPayloadError
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError

    return (ClientError, ClientPayloadError, IncompleteReadError, ResponseStreamingError, asyncio.TimeoutError)


def _failure(error: Exception) -> OSError:
    """What may be told of a failed request."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        match status:
            case 404:
                return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            case 401 | 403:
                return PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            case 412 | 416:
                return ChangedError()
            case _:
                return OSError(errno.EIO, f"the store answered with status {status}")
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError | exceptions.ProfileNotFound):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if isinstance(error, exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError | TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "the store did not answer in time")
    return OSError(errno.EIO, "the store cannot be reached, or does not answer as S3 does")
