"""What keeps a child that decodes untrusted bytes to itself: it dies with its parent, prints nothing, and has so much memory.

Called by children as they start.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pictures_spark.pixels import wire

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask the kernel (Linux) to end this process when its parent ends, and end now where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Move the two pipes where no library prints, and point 0, 1 and 2 at nothing."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb", buffering=0)


def limit_memory(growth: int) -> None:
    """Allow the address space to grow by so many bytes from here; libraries and models are loaded and do not count."""
    with Path("/proc/self/statm").open() as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + growth, now + growth))
    # A core file would hold the pixels and names of a patient.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer_all(requests: BinaryIO, answers: BinaryIO, answer: Callable[[dict[str, Any], dict[str, np.ndarray]], bytes]) -> None:
    """Say that the child is ready, and answer requests until there are no more."""
    answers.write(wire.pack({"ready": True}))
    while len(length := requests.read(wire.LENGTH.size)) == wire.LENGTH.size:
        answers.write(answer(*wire.unpack(requests.read(wire.LENGTH.unpack(length)[0]))))
