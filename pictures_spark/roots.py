"""Where an archive lies: a mounted folder, or a store that is reached by URI (``file://``, ``hdfs://``, ``s3://``, ``s3a://``).

A :class:`Root` says where and how, and never holds a secret, so it may be sent to executors and child processes; whoever reads finds the
credentials on its own machine. What is read by it: `pictures_spark.remote`, and for folders `pictures_spark.dicom.containers`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast
from urllib.parse import unquote, urlsplit

from pictures_spark.errors import ConfigError
from pictures_spark.resources import load_schema

_S3 = ("s3", "s3a")


class Listed(NamedTuple):
    """A file as it was listed; names as in table ``object``. A store has an etag or, as a file system has, a modification time."""

    path: str
    file_size: int
    file_mtime_ns: int
    file_etag: str | None = None


class Remote(TypedDict, total=False):
    """Settings ``remote``."""

    endpoint: str
    region: str
    credentials_file: str
    profile: str
    threads: int
    range_bytes: int
    timeout_seconds: float
    attempts: int


@dataclass(frozen=True)
class Root:
    """A root, as an absolute path or a URI without a slash at its end, with the settings it is reached by."""

    location: str
    endpoint: str | None
    region: str | None
    credentials_file: str | None
    profile: str | None
    threads: int
    range_bytes: int
    timeout_seconds: float
    attempts: int

    @property
    def scheme(self) -> str:
        """``file``, ``hdfs`` or ``s3``."""
        scheme = self.location.split("://", 1)[0] if "://" in self.location else "file"
        return "s3" if scheme in _S3 else scheme

    @property
    def place(self) -> tuple[str, str]:
        """Bucket or host, and the prefix or path below it without slashes around it."""
        host, _, rest = self.location.split("://", 1)[1].partition("/")
        return host, rest.strip("/")


def root_at(location: str, settings: Remote | None = None, what: str = "zones.archive") -> Root:
    """The root at an absolute path or a URI.

    Parameters
    ----------
    location : path or URI.
    settings : section ``remote`` of the settings, where there is one.
    what : where the location was given, for messages.

    Raises
    ------
    ConfigError
        A scheme that is none of ours; a URI without the bucket, or without the path, that its scheme needs.

    Examples
    --------
    >>> root_at("file:///archive/2015%20a").location, root_at("s3a://scans/raw/").place
    ('/archive/2015 a', ('scans', 'raw'))
    >>> root_at("ftp://host/scans")
    Traceback (most recent call last):
        ...
    pictures_spark.errors.ConfigError: zones.archive: scheme ftp is none of file, hdfs, s3, s3a: give one of these, or a mounted path
    """
    scheme, _, rest = location.partition("://") if "://" in location else ("", "", "")
    if scheme not in ("", "file", "hdfs", *_S3):
        raise ConfigError(f"{what}: scheme {scheme} is none of file, hdfs, s3, s3a: give one of these, or a mounted path")
    if scheme in _S3 and not rest.partition("/")[0]:
        raise ConfigError(f"{what}: a URI of scheme {scheme} needs a bucket, such as {scheme}://bucket/prefix")
    if scheme == "hdfs" and not rest.partition("/")[2].strip("/"):
        raise ConfigError(f"{what}: a URI of scheme hdfs needs a path, such as hdfs://namenode/archive")
    if scheme in ("", "file"):
        location = local_path(location, what)
    known = {**defaults(), **(settings or {})}
    return Root(location if location == "/" else location.rstrip("/"), **cast("Any", known))


def root_of(root: "Root | str") -> Root:
    """A root as it is; a path or a URI with the settings' defaults."""
    return root if isinstance(root, Root) else root_at(root)


def local_path(location: str, what: str = "zones.archive") -> str:
    """The path that a path or a ``file://`` URI means; in a URI, bytes may be written as ``%20``.

    Raises
    ------
    ConfigError
        The URI names another machine, or no path.
    """
    if not location.startswith("file://"):
        return location
    url = urlsplit(location.replace("?", "%3F").replace("#", "%23"))
    if url.netloc not in ("", "localhost") or not url.path:
        raise ConfigError(f"{what}: a file URI needs an absolute path on this machine, such as file:///archive")
    return str(Path(unquote(url.path)))


@cache
def defaults() -> dict[str, Any]:
    """What holds where the settings do not say: every setting of section ``remote``."""
    declared = load_schema("conf.yaml")["properties"]["remote"]["properties"]
    return {name: entry.get("default") for name, entry in declared.items()}
