"""Every job starts by spark-submit too, and finds the finished house unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from houses import CHAOS

from pictures_spark import cli, demo

pytestmark = pytest.mark.spark
ROOT = Path(__file__).parents[2]


def submit(job, *arguments):
    env = {**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    env.pop("PYSPARK_GATEWAY_PORT", None)
    program = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    command = [str(program), str(ROOT / "jobs" / f"{job}.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


ARGUMENTS = {"select": [str(demo.question())], "extract": [demo.COHORT, "--project", demo.PROJECT]}
JOBS = [job.name for job in cli.JOBS] + list(ARGUMENTS)


# Each submission starts a JVM of its own, some 10 s: two in the suite, all in make chaos.
@pytest.mark.chaos
@pytest.mark.parametrize("job", JOBS if CHAOS else ["select"])
def test_a_job_by_spark_submit_finds_the_house_unchanged(house, job):
    before = set((house.home / "reports").glob(f"{job}-*.json"))
    done = submit(job, *ARGUMENTS.get(job, []), "--conf-file", str(house.config.path))
    assert done.returncode == 0, done.stdout[-2000:]
    (new,) = set((house.home / "reports").glob(f"{job}-*.json")) - before
    report = json.loads(new.read_text())
    assert report["status"] == "ok"
    assert report["counts"].get("written", 0) == 0


def test_bad_usage_by_spark_submit_is_one_sentence_and_exit_code_10(house):
    done = submit("synth", "--conf-file", "nowhere.yaml")
    assert done.returncode == 10
    # spark-submit passes on what a Python job says, on either stream, by its own standard output.
    assert "settings file nowhere.yaml does not exist" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*.py")))
def test_every_job_file_is_thin(job):
    lines = (ROOT / "jobs" / f"{job}.py").read_text().splitlines()
    assert len(lines) < 60
