"""A job on a real cluster: a master and two workers, each a process of its own, give what one process gives."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest
import yaml
from houses import only_chaos, settings

from pictures_spark import tables
from pictures_spark.doctor import init_keys
from pictures_spark.job import run_job
from pictures_spark.zones import Zones

# Three JVMs on two cores take two minutes.
pytestmark = [pytest.mark.spark, pytest.mark.chaos, only_chaos]

SPARK_HOME = Path(pyspark.__file__).parent
ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture
def cluster(tmp_path):
    """URL of a standalone master with two one-core workers."""
    env = {**os.environ, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    start = [str(SPARK_HOME / "bin" / "spark-class")]
    quiet = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    master = [*start, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    processes = [subprocess.Popen(master, **quiet)]
    wait_for(port)
    for number in range(2):
        worker = [*start, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--webui-port", "0", "--cores", "1"]
        worker += ["--memory", "1g", "--work-dir", str(tmp_path / f"worker{number}"), url]
        processes.append(subprocess.Popen(worker, **quiet))
    yield url
    for process in reversed(processes):
        os.killpg(process.pid, 9)
        process.wait()


def instances(spark, config):
    rows = tables.read(spark, Zones(config, "identifiable"), "identifiable", "header_instance").drop("run_id", "object_id", "template_id")
    return sorted(map(str, rows.collect()))


def test_catalogue_by_spark_submit_on_two_workers_equals_one_process(spark, cluster, tmp_path, monkeypatch):
    from pictures_spark.dicom.catalogue import run as catalogue
    from pictures_spark.synthetic.synth import run as synth

    small = {"people": 20, "imaged": 6, "max_frames": 50}
    alone, spread = settings(tmp_path / "alone", synth=small), settings(tmp_path / "spread", synth=small)
    for config in (alone, spread):
        run_job("synth", config, "synthesiser", synth)
        init_keys(config)
    report = run_job("catalogue", alone, "identifiable", catalogue)

    values = yaml.safe_load(spread.path.read_text())
    values["spark"]["conf"] |= {"spark.executor.memory": "512m", "spark.executor.cores": "1", "spark.default.parallelism": "4"}
    spread.path.write_text(yaml.safe_dump(values))
    env = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    env.pop("PYSPARK_GATEWAY_PORT", None)
    submit = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", cluster, str(ROOT / "jobs" / "catalogue.py")]
    done = subprocess.run([*submit, "--conf-file", str(spread.path)], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]

    (written,) = (spread.home / "reports").glob("catalogue-*.json")
    assert json.loads(written.read_text())["counts"] == report.counts
    assert instances(spark, spread) == instances(spark, alone)
    ran_on = [path for path in tmp_path.glob("worker*/app-*/*") if (path / "stderr").exists()]
    assert len({path.parents[1].name for path in ran_on}) == 2, "both workers took part"
