"""How time and memory of header reading grow: ten times the instances, the same job.

    python benchmarks/headers_growth.py [--n 100000] [--folder .cache/benchmarks]

``ratio`` = at 100,000 instances / at 10,000: of seconds, and of the largest resident memory of a Python worker at the end of its tasks.
Each number of instances has a session of its own, whose workers have read nothing else.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import archive
import pyarrow as pa
from headers import STORED, full, manifest, noop
from measure import ROUNDS, line, local_session


def memory(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The most memory that the worker has held, in KB, after reading all it was given."""
    for _ in full(batches):
        pass
    yield pa.RecordBatch.from_pydict({"kb": pa.array([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss], pa.int64())})


def measured(paths: list[str]) -> tuple[float, float]:
    """Median seconds of the job, and the largest worker's MB."""
    spark = local_session()
    try:
        frame = manifest(spark, paths)
        seconds = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            noop(frame.mapInArrow(full, STORED))
            seconds.append(time.perf_counter() - start)
        (most,) = frame.mapInArrow(memory, "kb bigint").agg({"kb": "max"}).collect()
        return statistics.median(seconds[1:]), most[0] / 1024
    finally:
        spark.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="the larger number of instances")
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"), help="where the archive is made and kept")
    given = parser.parse_args()
    paths = archive.write(given.folder.resolve() / f"small-{given.n}", given.n)
    few = measured(paths[: given.n // 10])
    many = measured(paths)
    peer = f"the same job at {given.n // 10:,} instances"
    print(line("headers_growth_time", many[0], few[0], peer, "s", given.n))
    print(line("headers_growth_memory", many[1], few[1], peer, "MB per worker", given.n))


if __name__ == "__main__":
    main()
