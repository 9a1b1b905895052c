"""One small house, built once by the demo itself; the tests of whole jobs look at what it left."""

import contextlib
import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from houses import settings

from pictures_spark import demo, tables
from pictures_spark.config import Config
from pictures_spark.report import Report
from pictures_spark.zones import Zones


@dataclass
class House:
    """What the demo made: its settings, what each job reported and everything it printed."""

    config: Config
    reports: dict[str, Report]
    printed: str
    spark: Any

    @property
    def home(self) -> Path:
        """Root of all zones."""
        return self.config.home

    def read(self, zone: str, name: str) -> list[Any]:
        """All rows of a table."""
        role = "identifiable" if zone == "identifiable" else "counter"
        return tables.read(self.spark, Zones(self.config, role), zone, name).collect()

    def truth(self, name: str) -> list[dict[str, str]]:
        """Rows of one of the generator's answer files."""
        with (self.home / "extracts" / "truth" / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))


@pytest.fixture(scope="session")
def house(_session: Any, tmp_path_factory: pytest.TempPathFactory) -> House:
    config = settings(tmp_path_factory.mktemp("house"), synth={"people": 120, "imaged": 36, "max_frames": 140})
    # A key of the test's own: with the same pseudonyms on every run, a number that occurs in one by chance does so always or never.
    key = Zones(config, "identifiable").path("identifiable", "keys", f"{config['keys']['key_id']}.key")
    key.parent.mkdir(parents=True, mode=0o700)
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            reports = demo.run(config)
        except Exception:
            print(err.getvalue()[-4000:], file=sys.__stderr__)
            raise
    return House(config, {report.job: report for report in reports}, out.getvalue() + err.getvalue(), _session)
