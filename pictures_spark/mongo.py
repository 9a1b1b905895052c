"""Where header documents live: a real MongoDB by URI, or the embedded server for one machine.

The embedded server is ``nx-27017``, MongoDB's wire protocol on SQLite. It is a child process on a free loopback port with its files in the
identifiable zone, and ends with the job, even when the job is killed.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pictures_spark.config import Config
from pictures_spark.errors import ConfigError, InputError
from pictures_spark.zones import Zones


@contextmanager
def mongodb(config: Config, zones: Zones) -> Iterator[str]:
    """The URI of the header store while the block runs. Keep it out of logs: it may hold credentials.

    Raises
    ------
    ConfigError
        Mode ``uri`` without a URI where the settings say it is.
    InputError
        The embedded server does not start.
    """
    settings = config["mongodb"]
    if settings["mode"] == "uri":
        yield _uri(settings)
        return
    data = zones.path("identifiable", "mongodb", mode="write")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = _free_port()
    server = subprocess.Popen(
        [
            *[str(Path(sys.executable).parent / "nx-27017"), "--data-dir", str(data), "--port", str(port)],
            # Its log quotes commands, and commands hold headers.
            *["--log-file", os.devnull, "--pid-file", str(data / "server.pid")],
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=data,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    try:
        _wait(server, port)
        # On this machine it answers at once, or has died.
        yield f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=5000"
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _uri(settings: dict[str, str]) -> str:
    name, file = settings.get("uri_env"), settings.get("uri_file")
    uri = os.environ.get(name, "") if name else ""
    if not uri and file and Path(file).is_file():
        uri = Path(file).read_text(encoding="utf-8").strip()
    if not uri:
        raise ConfigError(f"mongodb: no URI in environment variable {name} or file {file}; put it there or use mode embedded")
    return uri


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _wait(server: subprocess.Popen, port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise InputError("the embedded MongoDB server did not start; run `pictures doctor`, or give a MongoDB by URI")
