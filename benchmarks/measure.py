"""What every benchmark does: run ours and its peer in turn on the same input, warm, and print one JSON line with their medians."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession

ROUNDS = 5
# Rows of an Arrow batch.
CHUNK = 2048


def local_session() -> SparkSession:
    """Spark on two cores of this machine, with Delta, without its web page."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # Workers import functions of one benchmark that another one uses.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    builder = SparkSession.builder.master("local[2]").appName("benchmark")
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "2g",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(CHUNK),
        "spark.sql.python.filterPushdown.enabled": "true",
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def alternate(ours: Callable[[], object], peer: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """Median seconds of both, after one round to warm up."""
    first, second = medians([ours, peer], rounds)
    return first, second


def medians(works: list[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each, in turn, after one round to warm up."""
    for work in works:
        work()
    taken: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        for which, run in enumerate(works):
            start = time.perf_counter()
            run()
            taken[which].append(time.perf_counter() - start)
        told = ", ".join(f"{times[-1]:.2f} s" for times in taken)
        print(f"  .. round {number + 1} of {rounds}: {told}", file=sys.stderr, flush=True)
    return [statistics.median(times) for times in taken]


def line(name: str, ours: float, peer: float, peer_name: str, unit: str, n: int) -> str:
    """One result; ``ratio`` is ours / peer in ``unit``."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    found = {"name": name, "ours": round(ours, 1), "peer": round(peer, 1), "peer_name": peer_name, "ratio": round(ours / peer, 3)}
    return json.dumps({**found, "unit": unit, "n": n, "machine": machine})
