"""One Spark session per run, the settings of the tests, and nothing outside the test's own folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from pictures_spark.config import Config, load_config
from pictures_spark.resources import conf_dir, load_yaml

# The same examples on every run and machine: main stays green or red for a reason. No deadline: two cores are shared with Spark.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("suite")

# Why each setting: the tables are tiny, so what counts is what Spark does per query, not per row.
TEST_SPARK = {
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    # Delta's checkpoint and stats jobs are small; planning them adaptively costs more than it saves.
    "spark.sql.adaptive.enabled": "false",
    # A short-lived JVM spends its time compiling: one collector thread and the first compiler tier start fastest.
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.eventLog.enabled": "true",
}


def settings(home: Path, **sections: Any) -> Config:
    """conf/local.yaml with the tests' Spark settings, its data below ``home``, and sections overridden."""
    values = load_yaml(conf_dir() / "local.yaml")
    values["home"] = str(home)
    values["spark"] = {"master": "local[2]", "conf": TEST_SPARK}
    for name, override in sections.items():
        values[name] = {**values[name], **override} if isinstance(override, dict) else override
    path = home / "conf.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return load_config(path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Settings with empty zones of the test's own."""
    return settings(tmp_path / "house")


@pytest.fixture(scope="session")
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # Made lazily, so that make test-fast never starts a JVM; every job of the run finds it active and shares it.
    from pictures_spark.session import open_session
    from pictures_spark.zones import Zones

    spark = open_session(settings(tmp_path_factory.mktemp("spark")), Zones(settings(tmp_path_factory.mktemp("zones")), "identifiable"))
    yield spark
    spark.stop()


@pytest.fixture
def spark(_session: Any) -> Iterator[Any]:
    """The shared Spark session, without what an earlier test left in its catalogue."""
    yield _session
    _session.catalog.clearCache()
    for table in _session.catalog.listTables():
        if table.isTemporary:
            _session.catalog.dropTempView(table.name)
