"""kill -9 of the driver or of a worker, then the same command: tables and documents equal those of an undisturbed run (make chaos)."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from houses import only_chaos, settings
from small_archive import House, fill

from pictures_spark.keys import init_key
from pictures_spark.zones import Zones

pytestmark = [pytest.mark.spark, pytest.mark.chaos, only_chaos]
SCRIPT = Path(__file__).parent.parent / "support" / "killed.py"
CATALOGUE = {"quarantine_limit": 0.5, "batch_bytes": 1 << 20}
# After the plan; between all commits of the first batch; between Delta and MongoDB; the same in the second batch, which has no faults;
# before the run is marked as finished; before its report.
STEPS = [
    *("header_span", "header_series", "header_instance", "documents", "quarantine", "object"),
    *("header_span", "header_series", "header_instance", "documents", "object"),
    *("run", "report"),
]
SEED = int(os.environ.get("PICTURES_CHAOS_SEED", "20150625"))
KILLS = int(os.environ.get("PICTURES_CHAOS_KILLS", "20"))


def start(house, *step):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(house.config.path), *step],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finish(house):
    begun = time.monotonic()
    assert start(house).wait() == 0
    return time.monotonic() - begun


def build(folder, spark, like=None):
    house = House(settings(folder, catalogue=CATALOGUE), spark)
    house.archive.mkdir()
    fill(house.archive)
    if like is None:
        init_key(Zones(house.config, "identifiable"), "k1")
    else:
        shutil.copytree(like.config.home / "identifiable" / "keys", house.config.home / "identifiable" / "keys")
    return house


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, _session):
    house = build(tmp_path_factory.mktemp("undisturbed"), _session)
    house.took = finish(house)
    return house


def assert_equal(house, undisturbed):
    for name in ("object", "header_series", "header_instance", "quarantine"):
        assert house.lasting(name) == undisturbed.lasting(name), name
    keys = [(row["sop_uid"], row["content_sha256"]) for row in house.rows("header_instance")]
    assert len(keys) == len(set(keys))
    assert {k: set(v) for k, v in house.documents().items()} == {k: set(v) for k, v in undisturbed.documents().items()}


def test_killed_before_every_step(undisturbed, tmp_path):
    house = build(tmp_path / "house", undisturbed.spark, undisturbed)
    for step in STEPS:
        assert start(house, step).wait() == -signal.SIGKILL, step
    finish(house)
    assert_equal(house, undisturbed)


def workers(pid):
    """Python processes that the driver's JVM has started."""
    found, children = [], {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(words[1]), []).append((int(folder.name), (folder / "cmdline").read_bytes()))
        except (OSError, ValueError, IndexError):
            continue
    todo = [pid]
    while todo:
        for child, command in children.get(todo.pop(), []):
            todo.append(child)
            if b"pyspark.daemon" in command or b"pyspark.worker" in command:
                found.append(child)
    return sorted(found)


def test_killed_at_random_moments(undisturbed, tmp_path):
    """Half of the kills hit the driver, half a worker where there is one. The seed is printed."""
    chance = random.Random(SEED)
    print(f"seed {SEED}: PICTURES_CHAOS_SEED")
    hits = {"driver": 0, "worker": 0, "too late": 0}
    number = 0
    while sum(hits.values()) - hits["too late"] < KILLS:
        number += 1
        house = build(tmp_path / f"house{number}", undisturbed.spark, undisturbed)
        for _ in range(4):
            process = start(house)
            at = chance.uniform(0.1, 0.95) * undisturbed.took
            wish = chance.choice(["driver", "worker"])
            try:
                process.wait(timeout=at)
            except subprocess.TimeoutExpired:
                there = workers(process.pid) if wish == "worker" else []
                if there:
                    hits["worker"] += 1
                    os.kill(chance.choice(there), signal.SIGKILL)
                    process.wait()
                else:
                    hits["driver"] += 1
                    process.kill()
                    process.wait()
                print(f"  {at:.1f} s of {undisturbed.took:.1f}: {wish if there or wish == 'driver' else 'driver, no worker'}", flush=True)
            else:
                hits["too late"] += 1
                break
        finish(house)
        assert_equal(house, undisturbed)
    print(hits)
