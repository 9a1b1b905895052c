"""A real S3 server (moto) in a thread: it counts what it is asked, and fails for the keys that a test names."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import boto3
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from pictures_spark.roots import Root, root_at

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class _Quiet(MotoRequestHandler):
    def log_request(self, *arguments: Any) -> None:
        """Say nothing."""


class Server:
    """The server, a bucket of the test's own, and what was asked of it.

    Attributes
    ----------
    asked : how often each (method, key) was asked for; a listing has the key "".
    ranges : the Range header of every GET of a key, in order.
    faults : per key, what is done instead of answering: a WSGI application, or a function that returns None and lets it be answered.
    together : the most GETs of keys that were answered at the same time.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self._lock = threading.Lock()
        self.bucket = ""
        self.faults: dict[str, Callable[..., Any]] = {}
        self.forget()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **KEYS)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.fresh()

    def fresh(self) -> "Server":
        """The server with an empty bucket and nothing asked of it."""
        self.bucket = uuid4().hex
        self.client.create_bucket(Bucket=self.bucket)
        self.faults.clear()
        self.forget()
        return self

    def forget(self) -> None:
        """Count from here."""
        self.asked: Counter[tuple[str, str]] = Counter()
        self.ranges: dict[str, list[str | None]] = {}
        self.together = self._now = 0

    def root(self, prefix: str = "", **settings: Any) -> Root:
        """The bucket as a root; two attempts, so that a failing key costs little."""
        return root_at(f"s3a://{self.bucket}/{prefix}", {"endpoint": self.endpoint, "region": "us-east-1", "attempts": 2, **settings})

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def upload(self, folder: Path, prefix: str = "") -> None:
        """Write every regular file below a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}{path.relative_to(folder)}", path.read_bytes())

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Count a request, and answer it or fail."""
        raw = environ.get("RAW_URI", environ["PATH_INFO"]).partition("?")[0]
        key = unquote(raw.removeprefix(f"/{self.bucket}").removeprefix("/"))
        get = environ["REQUEST_METHOD"] == "GET" and bool(key)
        with self._lock:
            self.asked[environ["REQUEST_METHOD"], key] += 1
            if get:
                self.ranges.setdefault(key, []).append(environ.get("HTTP_RANGE"))
                self._now += 1
                self.together = max(self.together, self._now)
        try:
            fault = self.faults.get(key) if get else None
            answer = fault(environ, start_response) if fault is not None else None
            return list(self._app(environ, start_response)) if answer is None else answer
        finally:
            with self._lock:
                self._now -= get


@contextmanager
def running() -> Iterator[Server]:
    """A server for the block."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()


def unavailable(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """503, as a store answers that is asked too often."""
    start_response("503 Slow Down", [("Content-Type", "application/xml")])
    return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
