"""One Spark session per run, the settings of the tests, and nothing outside the test's own folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from houses import settings
from xdist.scheduler import LoadScopeScheduling

from pictures_spark.config import Config

# The same examples on every run and machine: main stays green or red for a reason. No deadline: two cores are shared with Spark.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("suite")


class _ByFile(LoadScopeScheduling):
    """Gives a worker all tests of a file, and of whole jobs all files, because they share a house."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "jobs" if file.startswith("tests/jobs/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Share the files among the workers."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: whole jobs, then what needs Spark."""
    items.sort(key=lambda item: (item.path.parent.name != "jobs", item.get_closest_marker("spark") is None))


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
    """The shared Spark session, without what an earlier test left in its cache."""
    yield _session
    _session.catalog.clearCache()


@pytest.fixture(scope="module")
def _server() -> Iterator[Any]:
    import s3

    with s3.running() as server:
        yield server


@pytest.fixture
def server(_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An S3 server without objects, and the keys to it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return _server.fresh()
