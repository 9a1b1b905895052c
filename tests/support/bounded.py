"""Run something in a process of its own under limits on processor time and memory, and say what it cost."""

import json
import os
import resource
from dataclasses import dataclass

# Twice what each case takes alone: two cores slow each other.
CPU_SECONDS = 10
MB = 200


@dataclass(frozen=True)
class Cost:
    """``outcome``, what was returned or, where the limits ended it, ``killed``; processor seconds; the most MB over the start."""

    outcome: object
    cpu: float
    mb: float


def cost(work, seconds=CPU_SECONDS):
    """Run ``work()``, which returns something that JSON can hold, in a fork of this process.

    A fork has what the caller made ready, so that only ``work`` is measured. It is ended at twice the processor ``seconds`` that it may
    take, or with a MemoryError far beyond the memory that is: then the test fails, and the machine does not suffer.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CPU, (2 * seconds, 2 * seconds))
            resource.setrlimit(resource.RLIMIT_AS, (2 * (_now("VmSize") + (MB << 20)),) * 2)
            _forget_peak()
            before = _now("VmRSS")
            said = json.dumps(work())
            with os.fdopen(writing, "w") as out:
                json.dump([said, (_now("VmHWM") - before) / (1 << 20)], out)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, state, used = os.wait4(pid, 0)
    cpu = used.ru_utime + used.ru_stime
    if state or not text:
        return Cost("killed", cpu, float("inf"))
    said, mb = json.loads(text)
    return Cost(json.loads(said), cpu, mb)


def _now(name):
    with open("/proc/self/status") as lines:  # noqa: PTH123 - a pseudo-file
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) << 10


def _forget_peak():
    """Let VmHWM begin anew (proc(5), clear_refs)."""
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")
