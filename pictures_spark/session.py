"""The Spark session, one per process.

Delta and the MongoDB connector are on Spark's own class path (`pictures_spark.jars` puts them beside Spark's jars), so the same code runs
from `pictures`, `spark-submit`, a notebook and a worker. Spark's scratch space lies inside the job's own zone, because spilled rows hold
what the zone holds. All times are UTC and zone-less.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pictures_spark.config import Config
from pictures_spark.resources import conf_dir
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Asked for by format "dicom", which judges filters in the worker.
    "spark.sql.python.filterPushdown.enabled": "true",
    # Row groups are what a reader of Parquet leaves out by their smallest and largest values, and what DuckDB shares among cores: with
    # Spark's 128 MB a file has one.
    "spark.hadoop.parquet.block.size": str(16 << 20),
    # Parquet footers are read once per file by Delta's statistics; the summary log lines only hide our own.
    "spark.ui.showConsoleProgress": "false",
}

# What spark-submit fills in where nobody says --master.
_NOT_GIVEN = "local[*]"


def open_session(config: Config, zones: Zones) -> "SparkSession":
    """The process's Spark session, made on first use with the settings' ``spark`` section."""
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    # Without this a worker would start whichever python3 is first on PATH, without our packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    scratch = _scratch(zones)
    os.environ["SPARK_LAUNCHER_OPTS"] = "-XX:-UsePerfData"
    builder = SparkSession.builder.appName("pictures").master(_master(config))
    settings = {**_ALWAYS, **config["spark"]["conf"]}
    java = [
        f"-Djava.io.tmpdir={scratch}",
        # The JVM would leave a file in /tmp for monitoring tools; nothing is written outside our folders.
        "-XX:-UsePerfData",
        f"-Dlog4j2.configurationFile=file:{conf_dir() / 'log4j2.properties'}",
        settings.get("spark.driver.extraJavaOptions", ""),
    ]
    settings["spark.driver.extraJavaOptions"] = " ".join(part for part in java if part)
    if _master(config).startswith("local"):
        settings.setdefault("spark.local.dir", str(scratch))
        settings.setdefault("spark.sql.warehouse.dir", str(scratch / "warehouse"))
    if settings.get("spark.eventLog.enabled") == "true" and "spark.eventLog.dir" not in settings:
        events = Path(config.location(config["reports"])) / "spark-events"
        events.mkdir(parents=True, exist_ok=True)
        settings["spark.eventLog.dir"] = events.as_uri()
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


@contextmanager
def settings(session: "SparkSession", values: Mapping[str, str]) -> Iterator[None]:
    """Settings of a session that hold meanwhile; afterwards they are what they were."""
    before = {name: session.conf.get(name, None) for name in values}
    for name, value in values.items():
        session.conf.set(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                session.conf.unset(name)
            else:
                session.conf.set(name, old)


def _master(config: Config) -> str:
    """spark-submit's --master where one was given, else the settings'."""
    from pyspark import SparkConf, SparkContext

    if "PYSPARK_GATEWAY_PORT" in os.environ:
        SparkContext._ensure_initialized()
        given = SparkConf().get("spark.master", _NOT_GIVEN)
        if given != _NOT_GIVEN:
            return str(given)
    return str(config["spark"]["master"])


def _scratch(zones: Zones) -> Path:
    # What is spilled is what was read, so the first zone the role may read holds it, even where the job itself may not write there:
    # an extraction must never spill the identifiable zone into the project's.
    for zone in ("identifiable", "deidentified", "project", "extracts"):
        if "read" in zones._allowed.get(zone, []):
            path = zones.path(zone, ".scratch")
            path.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(path)
            return path
    import tempfile

    return Path(tempfile.gettempdir())
