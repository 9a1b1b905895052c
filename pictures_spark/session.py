"""The Spark session, one per process.

Delta and the MongoDB connector are on Spark's own class path (`pictures_spark.jars` puts them beside Spark's jars), so the same code runs
from `pictures`, `spark-submit`, a notebook and a worker. Spark's scratch space lies inside the job's own zone, because spilled rows hold
what the zone holds. All times are UTC and zone-less.
"""

import os
import sys
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
    # Parquet footers are read once per file by Delta's statistics; the summary log lines only hide our own.
    "spark.ui.showConsoleProgress": "false",
}


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
    builder = SparkSession.builder.appName("pictures")
    if "SPARK_ENV_LOADED" not in os.environ:  # not under spark-submit, whose --master wins
        builder = builder.master(config["spark"]["master"])
    settings = {**_ALWAYS, **config["spark"]["conf"]}
    java = [
        f"-Djava.io.tmpdir={scratch}",
        # The JVM would leave a file in /tmp for monitoring tools; nothing is written outside our folders.
        "-XX:-UsePerfData",
        f"-Dlog4j2.configurationFile=file:{conf_dir() / 'log4j2.properties'}",
        settings.get("spark.driver.extraJavaOptions", ""),
    ]
    settings["spark.driver.extraJavaOptions"] = " ".join(part for part in java if part)
    if config["spark"]["master"].startswith("local"):
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


def _scratch(zones: Zones) -> Path:
    for zone in ("identifiable", "deidentified", "project", "extracts"):
        if "write" in zones._allowed.get(zone, []):
            path = zones.path(zone, ".scratch", mode="write")
            path.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(path)
            return path
    import tempfile

    return Path(tempfile.gettempdir())
