"""One small synthetic house, made once; how its files are read here shares no code with how they were written."""

import csv
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pydicom
import pytest
from houses import settings

from pictures_spark.config import Config
from pictures_spark.job import run_job
from pictures_spark.report import Report
from pictures_spark.synthetic import synth

SMALL = {"people": 60, "imaged": 45, "max_frames": 170}


@dataclass
class House:
    """Where it is, and what the job said."""

    config: Config
    report: Report

    @property
    def archive(self) -> Path:
        return self.config.home / "archive"

    @property
    def extracts(self) -> Path:
        return self.config.home / "extracts"

    def rows(self, name: str) -> list[dict[str, str]]:
        """Rows of an extract, or of ``truth/…``."""
        with (self.extracts / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))

    @cached_property
    def objects(self) -> dict[str, bytes]:
        """Every object that we made, by locator."""
        return dict(self._objects())

    def _objects(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self.archive.rglob("*")):
            name = path.relative_to(self.archive).as_posix()
            if not path.is_file() or name.startswith(("pydicom-samples/", "odd/")):
                continue
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as container:
                    for member in container.namelist():
                        yield f"{name}!{member}", container.read(member)
            elif path.suffix == ".tar":
                with tarfile.open(path) as container:
                    for member in container.getmembers():
                        handle = container.extractfile(member)
                        assert handle is not None
                        yield f"{name}!{member.name}", handle.read()
            else:
                yield name, path.read_bytes()

    @cached_property
    def datasets(self) -> dict[str, pydicom.Dataset]:
        """The same as pydicom reads them."""
        return {locator: pydicom.dcmread(io.BytesIO(content)) for locator, content in self.objects.items()}


def make(home: Path, **changes: int) -> House:
    """Run the job in a folder."""
    config = settings(home, synth={**SMALL, **changes})
    return House(config, run_job("synth", config, "synthesiser", synth.run))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def make_house() -> Callable[..., House]:
    return make
