"""The job: same seed, same bytes; a second run changes nothing; nothing that is not its own is touched."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from pictures_spark.config import load_config
from pictures_spark.errors import ConfigError, ZoneViolationError
from pictures_spark.job import run_job
from pictures_spark.synthetic import synth

FEW = {"people": 10, "imaged": 5, "max_frames": 50}


def content(house):
    """Every file of both zones with its hash and time."""
    return {
        str(path.relative_to(house.config.home)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime)
        for root in (house.archive, house.extracts)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_counts_are_the_files_that_are_there(made):
    files = [path for root in (made.archive, made.extracts) for path in root.rglob("*") if path.is_file()]
    # The list of files is not in the list.
    assert made.report.counts == {"seen": len(files) - 1, "written": len(files) - 1, "unchanged": 0}
    assert not [path for path in files if path.name.endswith(".part")]


def test_the_same_seed_gives_the_same_bytes_in_another_folder_and_process(made, tmp_path):
    (tmp_path / "conf.yaml").write_text(made.config.path.read_text().replace(str(made.config.home), str(tmp_path)))
    command = [sys.executable, "-m", "pictures_spark.cli", "synth", "--conf-file", str(tmp_path / "conf.yaml")]
    # Another order of hashes and another time zone: neither may matter.
    env = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Pacific/Auckland"}
    subprocess.run(command, check=True, env=env, capture_output=True, timeout=120)
    assert content(dataclasses.replace(made, config=load_config(tmp_path / "conf.yaml"))) == content(made)


@pytest.fixture(scope="module")
def few(make_house, tmp_path_factory):
    return make_house(tmp_path_factory.mktemp("few"), **FEW)


@pytest.fixture
def copied(few, tmp_path):
    """A folder with a copy of a finished archive: what counts is what is in the zones, not where they are."""
    for root in (few.archive, few.extracts):
        shutil.copytree(root, tmp_path / root.name)
    return tmp_path


def test_another_seed_gives_other_people_and_pictures(few, make_house, tmp_path):
    other = make_house(tmp_path, **FEW, seed=2)
    names = [{row["surname"] for row in house.rows("truth/people")} for house in (few, other)]
    assert not names[0] & names[1]
    assert not {row["sop_uid"] for row in few.rows("truth/scans")} & {row["sop_uid"] for row in other.rows("truth/scans")}


def test_a_second_run_changes_nothing(few, copied, make_house):
    again = make_house(copied, **FEW)
    assert content(again) == content(few)
    assert again.report.counts == {"seen": few.report.counts["seen"], "written": 0, "unchanged": few.report.counts["seen"]}


def test_only_what_is_missing_or_was_changed_is_made_again(few, copied, make_house):
    files = sorted(path for path in (copied / "archive").rglob("*") if path.is_file())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"!")
    (copied / "extracts" / "pis.csv").unlink()
    again = make_house(copied, **FEW)
    assert again.report.counts["written"] == 3
    assert content(again) == content(few)


def test_a_run_that_stopped_half_way_is_finished_by_the_next(few, make_house, tmp_path, monkeypatch):
    calls = []

    def write(path, data):
        calls.append(path)
        if len(calls) == 40:
            raise OSError("no space left on device")
        return real(path, data)

    real = synth._write
    monkeypatch.setattr(synth, "_write", write)
    with pytest.raises(OSError, match="no space"):
        make_house(tmp_path, **FEW)
    monkeypatch.setattr(synth, "_write", real)
    assert content(make_house(tmp_path, **FEW)) == content(few)


def test_other_settings_replace_what_earlier_ones_made_and_nothing_else(copied, make_house):
    mine = copied / "archive" / "2015" / "mine.dcm"
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"not made by synth")
    house = make_house(copied, **FEW, seed=2)
    listed = {row["locator"].split("!")[0] for row in house.rows("truth/scans")}
    there = {path.relative_to(house.archive).as_posix() for path in house.archive.rglob("*") if path.is_file()}
    assert {name for name in there if not name.startswith(("pydicom-samples/", "odd/"))} == listed | {"2015/mine.dcm"}
    assert not [folder for folder in house.archive.rglob("*") if folder.is_dir() and not any(folder.iterdir())]


@pytest.mark.parametrize("zone", ["archive", "extracts"])
def test_a_zone_with_files_of_others_is_refused_and_left_alone(make_house, tmp_path, zone):
    foreign = tmp_path / zone / "a" / "b.dcm"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"a real archive")
    with pytest.raises(ConfigError, match=f"zone {zone} holds files that synth did not make"):
        make_house(tmp_path, **FEW)
    assert [path for path in (tmp_path / zone).rglob("*") if path.is_file()] == [foreign]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"people": 10, "imaged": 20}, "synth.imaged is larger than synth.people"),
        ({"people": 100, "imaged": 100, "max_frames": 50}, "synth.max_frames is too small"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make_house, tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        make_house(tmp_path, **changes)
    assert not (tmp_path / "archive").exists()


def test_settings_without_the_cover_of_a_source_are_refused(config):
    del config.values["records"]["sources"]["pis"]
    with pytest.raises(ConfigError, match=r"cover of these sources in records\.sources of the settings file: pis"):
        run_job("synth", config, "synthesiser", synth.run)


@pytest.mark.parametrize("role", ["identifiable", "publisher", "deidentified", "counter"])
def test_no_other_role_may_make_an_archive(config, role):
    with pytest.raises(ZoneViolationError):
        run_job("synth", config, role, synth.run)


def test_the_list_of_files_is_what_is_there(made):
    stamp = json.loads((made.extracts / "truth" / "synth.json").read_text())
    assert stamp["complete"]
    there = {
        f"{zone}/{path.relative_to(root).as_posix()}": path.stat().st_size
        for zone, root in (("archive", made.archive), ("extracts", made.extracts))
        for path in root.rglob("*")
        if path.is_file() and path.name != "synth.json"
    }
    assert stamp["files"] == there


def test_the_report_names_nobody(made):
    report = "\n".join(path.read_text() for path in (made.config.home / "reports").glob("*.json")).lower()
    assert not [row["value"] for row in made.rows("truth/canaries") if len(row["value"]) >= 7 and row["value"].lower() in report]
