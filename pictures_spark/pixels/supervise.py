"""The parent's end of the supervised child: one child per Spark task, ended and started again when it hangs or dies.

Runs in executors. The child holds nothing between requests, so a death costs the one request that caused it.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from types import TracebackType
from typing import Any

import numpy as np

from pictures_spark.pixels import wire
from pictures_spark.pixels.examine import Beside, Examined, Locator
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import Feature
from pictures_spark.pixels.heat import Suspect
from pictures_spark.pixels.pattern import Sketch
from pictures_spark.pixels.text import Box
from pictures_spark.roots import Root, root_of

# What the interpreter of the executor is to run.
COMMAND = ("-m", "pictures_spark.pixels.child")
# Starting means loading libraries and models; on a busy machine that takes many times its usual 1.5 s.
_START_SECONDS = 300.0
# An image of many frames may take so many times the limit, as long as none of its frames takes longer than that.
_LONGEST = 60
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one image may cost: settings ``pixels``. ``seconds`` is for each frame."""

    seconds: float
    memory_bytes: int
    max_samples: int


class ChildCannotStartError(RuntimeError):
    """The child ended before it was ready: the installation is at fault, not an image."""

    sentence = "the process that examines images does not start on this machine; run `pictures doctor` there"


class Supervised:
    """`pictures_spark.pixels.examine.Looks`, done in a child under limits. Use as a context manager.

    Parameters
    ----------
    root : the archive's root.
    limits : per request. A request that exceeds them ends as PixelFault ``timeout``, ``out_of_memory`` or ``crashed``.
    command : what the interpreter is to run as the child.
    text : whether text will be looked for; without it the child starts sooner and is smaller.
    """

    def __init__(self, root: Root | str, limits: Limits, command: Sequence[str] = COMMAND, text: bool = True) -> None:
        self._settings = {
            "root": asdict(root_of(root)),
            "memory_bytes": limits.memory_bytes,
            "max_samples": limits.max_samples,
            "text": text,
        }
        self._limits = limits
        self._command = command
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> "Supervised":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def examine(self, locator: Locator, names: Sequence[str], text: str) -> Examined:
        """See `pictures_spark.pixels.examine.Looks`."""
        message, arrays = self._ask({"do": "examine", "locator": asdict(locator), "names": list(names), "text": text})
        whole = None
        if "low" in arrays:
            places = tuple(tuple(Suspect(*place) for place in of_frame) for of_frame in message["places"])
            whole = Sketch(arrays["low"], arrays.get("high", arrays["low"]), places)
        return Examined(
            message["frame_count"],
            [Feature(**feature) for feature in message["features"]],
            whole,
            [[Box(**box) for box in boxes] for boxes in message["boxes"]],
            [Beside(**{**one, "box": Box(**one["box"])}) for one in message["beside"]],
        )

    def read_frames(self, locator: Locator, places: Mapping[int, Sequence[Suspect] | None]) -> dict[int, list[Box]]:
        """See `pictures_spark.pixels.examine.Looks`."""
        asked = [[frame, None if of_frame is None else [astuple(place) for place in of_frame]] for frame, of_frame in places.items()]
        message, _ = self._ask({"do": "read_frames", "locator": asdict(locator), "places": asked})
        return {frame: [Box(**box) for box in boxes] for frame, boxes in message["boxes"]}

    def read_picture(self, picture: np.ndarray) -> list[Box]:
        """See `pictures_spark.pixels.examine.Looks`."""
        message, _ = self._ask({"do": "read_picture"}, {"picture": picture})
        return [Box(**box) for box in message["boxes"]]

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _ask(
        self, request: dict[str, Any], arrays: dict[str, np.ndarray] | None = None, frames: int = 1
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What the child answers; ``frames`` are done before it says anything."""
        child = self._running()
        end = time.monotonic() + _LONGEST * self._limits.seconds
        try:
            seconds = self._limits.seconds * min(max(frames, 1), _LONGEST)
            message, found = wire.unpack(_exchange(child, wire.pack(request, arrays), seconds))
            while "progress" in message:
                left = min(self._limits.seconds, end - time.monotonic())
                message, found = wire.unpack(_exchange(child, b"", left))
        except TimeoutError:
            self.close()
            raise PixelFault("timeout") from None
        except (EOFError, ValueError):
            self.close()
            raise PixelFault("crashed") from None
        if "reason" in message:
            if message["reason"] == "out_of_memory":
                # What is left of its address space may be too little for the next image.
                self.close()
            raise PixelFault(message["reason"], message["more"])
        return message, found

    def _running(self) -> subprocess.Popen:
        if self._child is not None:
            return self._child
        settings = json.dumps({**self._settings, "parent": os.getpid()})
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # The executor's own import path: under spark-submit the package may be in a zip that only this process knows.
        environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        self._child = subprocess.Popen(
            [sys.executable, *self._command, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        try:
            wire.unpack(_exchange(self._child, b"", _START_SECONDS))
        except (TimeoutError, EOFError, ValueError):
            self.close()
            raise ChildCannotStartError(ChildCannotStartError.sentence) from None
        return self._child


def _exchange(child: subprocess.Popen, request: bytes, seconds: float) -> bytes:
    """Send a request and wait for the whole answer.

    Raises
    ------
    TimeoutError
        It took longer.
    EOFError
        The child ended.
    ValueError
        The answer claims to be longer than any answer is.
    """
    deadline = time.monotonic() + seconds
    assert child.stdin is not None
    assert child.stdout is not None
    out, into = child.stdin.fileno(), child.stdout.fileno()
    os.set_blocking(out, False)
    unsent = memoryview(request)
    answer = bytearray()
    wanted = wire.LENGTH.size
    with selectors.DefaultSelector() as ready:
        ready.register(into, selectors.EVENT_READ)
        if unsent:
            ready.register(out, selectors.EVENT_WRITE)
        while len(answer) < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in ready.select(left):
                if key.fd == out:
                    try:
                        unsent = unsent[os.write(out, unsent[:_CHUNK]) :]
                    except BrokenPipeError:
                        raise EOFError from None
                    if not unsent:
                        ready.unregister(out)
                    continue
                part = os.read(into, min(_CHUNK, wanted - len(answer)))
                if not part:
                    raise EOFError
                answer += part
                if len(answer) == wire.LENGTH.size == wanted:
                    (length,) = wire.LENGTH.unpack(answer)
                    if length > wire.LONGEST:
                        raise ValueError
                    wanted += length
    return bytes(answer[wire.LENGTH.size :])
