"""Settings of the tests: the shipped ones, with data below a folder of the test's own and a Spark that starts fast."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from pictures_spark.config import Config, load_config
from pictures_spark.resources import conf_dir, load_yaml

# Whether jobs are stopped at every boundary (make chaos) or at a few.
CHAOS = os.environ.get("PICTURES_CHAOS") == "1"
only_chaos = pytest.mark.skipif(not CHAOS, reason="takes a minute or more: in make chaos")

# Why each setting: the tables are tiny, so what counts is what Spark does per query, not per row.
TEST_SPARK = {
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    # Delta's checkpoint and stats jobs are small; planning them adaptively costs more than it saves.
    "spark.sql.adaptive.enabled": "false",
    # Queries run once over a few rows: compiling Java for each costs more than interpreting it.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # A short-lived JVM spends its time compiling: one collector thread and the first compiler tier start fastest.
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.eventLog.enabled": "true",
    # Its last block could not be unpacked while Spark writes it: plain text is searched to its end.
    "spark.eventLog.compress": "false",
}


def settings(home: Path, **sections: Any) -> Config:
    """conf/local.yaml with the tests' Spark settings, its data below ``home``, and sections overridden."""
    values = load_yaml(conf_dir() / "local.yaml")
    values["home"] = str(home)
    values["spark"] = {"master": "local[2]", "conf": TEST_SPARK}
    for name, override in sections.items():
        values[name] = {**values.get(name, {}), **override} if isinstance(override, dict) else override
    path = home / "conf.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return load_config(path)
