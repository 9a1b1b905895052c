"""What the tasks of the reading stage took, told by the executors that ran them, and how even they were."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from pyspark.accumulators import AccumulatorParam

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import Accumulator

# Seconds, files and bytes of one task.
Reading = tuple[float, int, int]
Reader = Callable[[Iterator["pa.RecordBatch"]], Iterator["pa.RecordBatch"]]


class Readings(AccumulatorParam[dict[tuple[int, int], Reading]]):
    """Brings readings to the driver, by shelf and task; of a task that was tried again, one try."""

    def zero(self, value: dict[tuple[int, int], Reading]) -> dict[tuple[int, int], Reading]:
        """No readings."""
        return {}

    def addInPlace(self, value1: dict[tuple[int, int], Reading], value2: dict[tuple[int, int], Reading]) -> dict[tuple[int, int], Reading]:
        """Both."""
        return {**value1, **value2}


def timed(reader: Reader, shelf: int, readings: "Accumulator[dict[tuple[int, int], Reading]]") -> Reader:
    """The reader of plan rows, which also says how long each task took for how many files and bytes. Runs on executors."""

    def read(plan: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        from pyspark import TaskContext

        begun = time.monotonic()
        taken = [0, 0]

        def counted() -> "Iterator[pa.RecordBatch]":
            for rows in plan:
                taken[0] += rows.num_rows
                taken[1] += sum(rows.column("file_size").to_pylist())
                yield rows

        yield from reader(counted())
        context = TaskContext.get()
        if context is not None and taken[0]:
            readings.add({(shelf, context.partitionId()): (time.monotonic() - begun, taken[0], taken[1])})

    return read


def evenness(readings: Iterable[Reading]) -> dict[str, float | int]:
    """How even the tasks of the reading stage were: the longest and the median one in seconds and in bytes, and longest / median."""
    tasks = list(readings)
    if not tasks:
        return {}
    seconds, sizes = [task[0] for task in tasks], [task[2] for task in tasks]
    longest, median = max(seconds), statistics.median(seconds)
    return {
        "reading_tasks": len(tasks),
        "task_seconds_max": round(longest, 3),
        "task_seconds_median": round(median, 3),
        "task_skew": round(longest / median, 2) if median else 1.0,
        "task_bytes_max": max(sizes),
        "task_bytes_median": int(statistics.median(sizes)),
    }
