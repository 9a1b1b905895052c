"""The job on a small archive whose catalogue is written by hand."""

import hashlib
import json
from datetime import datetime

import faulty_child
import numpy as np
import pytest
from houses import only_chaos, settings
from instances import dicom_bytes, instance
from planted import anatomy, burn

from pictures_spark import tables
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError, QuarantineLimitError
from pictures_spark.job import Job, run_job
from pictures_spark.pixels import audit, layouts
from pictures_spark.pixels import job as pixels
from pictures_spark.pixels.features import applicable, computed
from pictures_spark.pixels.groups import Found, Result
from pictures_spark.pixels.text import Box, engine_version
from pictures_spark.report import Report
from pictures_spark.schema import table
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark
SHAPE = (64, 96)
NAME = "MACTAVISH"
HEADER = {"patient_name": "MACTAVISH^MORAG", "conflict": False, "template_id": "t", "differences": "{}", "has_pixels": True, "run_id": "c"}


@pytest.fixture
def house(tmp_path):
    return settings(tmp_path / "house", pixels={"quarantine_limit": 1.0})


class Archive:
    """DICOM files, and the rows that the catalogue would have written for them."""

    def __init__(self, spark, config):
        self.spark, self.zones = spark, Zones(config, "identifiable")
        self.root = self.zones.path("archive")
        self.root.mkdir(parents=True, exist_ok=True)
        self.headers, self.objects = [], []

    def add(self, name, data, series, number=1, modality="CT", **header):
        sha = hashlib.sha256(data).hexdigest()
        (self.root / name).write_bytes(data)
        row = {"sop_uid": f"1.2.{name}", "content_sha256": sha, "object_id": f"o-{name}", "series_uid": series, "instance_number": number}
        shape = {"rows": SHAPE[0], "columns": SHAPE[1], "samples_per_pixel": 1, "modality": modality}
        self.headers.append({**HEADER, **row, **shape, **header})
        at = {"object_id": f"o-{name}", "locator": f"secret/{name}", "path": name, "kind": "dicom", "sha256": sha, "status": "catalogued"}
        self.objects.append({**at, "length": len(data), "size": len(data), "compression": "none", "run_id": "c"})

    def write(self):
        for name, rows in (("header_instance", self.headers), ("object", self.objects)):
            declared_table = table("identifiable", name)
            full = [tuple(row.get(column) for column in declared_table.names) for row in rows]
            tables.replace(self.spark.createDataFrame(full, declared_table.spark_type()), self.zones, "identifiable", name)

    def read(self, name):
        return tables.read(self.spark, self.zones, "identifiable", name).collect()

    def version(self, name):
        return tables.version(self.spark, self.zones, "identifiable", name)


def image(frame, **header):
    return dicom_bytes(instance(frame, **header))


def slices(count, text=None):
    frames = [anatomy(2, SHAPE) + np.random.default_rng(n).integers(-9, 9, SHAPE).astype(np.int16) for n in range(count)]
    return [burn(frame, text, (40, 6)) if text else frame for frame in frames]


def go(config):
    return run_job("pixels", config, "identifiable", pixels.run)


def verdicts(archive):
    """Each instance's verdict; there must be exactly one per instance."""
    found = {}
    for row in archive.read("pixel_text"):
        found.setdefault(row.sop_uid, set()).add((row.verdict, row.engine_version))
    assert all(len(which) == 1 for which in found.values())
    return {name.removeprefix("1.2."): next(iter(which))[0] for name, which in found.items()}


def assert_keys_unique(archive):
    for name in ("pixel_text", "pixel_feature"):
        key = table("identifiable", name).key
        keys = [tuple(row[column] for column in key) for row in archive.read(name)]
        assert len(keys) == len(set(keys))


def test_every_image_ends_with_one_verdict_whatever_it_does(spark, house, monkeypatch, capfd):
    monkeypatch.setattr(pixels, "COMMAND", (faulty_child.__file__,))
    archive = Archive(spark, house)
    for number, frame in enumerate(slices(5, NAME)):
        archive.add(f"ct{number}", image(frame), "S1", number)
    for name in ("crash.dcm", "bomb.dcm"):
        archive.add(name, image(slices(1)[0], StudyID=name), "S1", 9)
    archive.add("us", image(slices(1, NAME)[0]), "S2", modality="US")
    archive.add("mr", image(slices(1)[0]), "S3", modality="MR")
    archive.add("short", image(slices(1)[0])[:-900], "S3", modality="MR", number=2)
    archive.add("sr", b"a report", "S4", has_pixels=False)
    archive.add("gone", b"it was here", "S5")
    archive.objects[-1]["status"] = "vanished"
    archive.write()

    report = go(house)
    assert report.counts == {"seen": 11, "written": 7, "unchanged": 0, "quarantined": 3, "skipped_vanished": 1}
    assert report.quarantined == {"crashed": 1, "out_of_memory": 1, "undecodable": 1}
    assert (report.details["frames"], report.details["text_instances"]) == (7, 6)
    good = {**{f"ct{n}": "text" for n in range(5)}, "us": "text", "mr": "clean"}
    assert verdicts(archive) == {**good, **dict.fromkeys(("crash.dcm", "bomb.dcm", "short"), "not_determined")}
    texts = archive.read("pixel_text")
    assert {row.rule for row in texts if row.sop_uid == "1.2.ct3"} >= {"projection"}
    assert {word for row in texts for word in row.matches or ()} == {"name"}
    assert [(r.x0, r.plane, r.kind, r.rule) for r in texts if r.sop_uid == "1.2.mr"] == [(None, None, None, "frame")]
    features = archive.read("pixel_feature")
    # Seven of CT, two of MR, one of US, each with what applies to it.
    assert len(features) == 7 * len(applicable("CT")) + 2 * len(applicable("MR")) + len(applicable("US"))
    (mean,) = [r.value for r in features if (r.sop_uid, r.feature, r.version) == ("1.2.mr", "intensity_mean", "2")]
    assert mean == pytest.approx(slices(1)[0].mean())
    assert {(r.status, r.reason) for r in features if r.sop_uid == "1.2.short"} == {("failed", "undecodable")}
    assert {(q.object_id, q.locator, q.reason) for q in archive.read("quarantine")} == {
        ("o-crash.dcm", "secret/crash.dcm", "crashed"),
        ("o-bomb.dcm", "secret/bomb.dcm", "out_of_memory"),
        ("o-short", "secret/short", "undecodable"),
    }
    assert_keys_unique(archive)
    assert "secret" not in "".join(capfd.readouterr())

    check_audit(archive, house)
    check_layouts(archive, house)

    # Again: nothing to do, nothing written; what failed is still counted, and is too much for the usual limit.
    before = [archive.version(name) for name in ("pixel_text", "pixel_feature", "pixel_plan", "quarantine")]
    strict = settings(house.path.parent, pixels={"quarantine_limit": 0.2})
    with pytest.raises(QuarantineLimitError):
        go(strict)
    reports = [path for path in strict.path.parent.glob("reports/pixels-*.json") if "audit" not in path.name and "layouts" not in path.name]
    again = next(json.loads(path.read_text()) for path in reports if report.run_id not in path.name)
    assert again["counts"] == {"seen": 11, "written": 0, "unchanged": 7, "quarantined": 3, "skipped_vanished": 1}
    assert again["quarantined"] == {"crashed": 1, "out_of_memory": 1, "undecodable": 1}
    assert [archive.version(name) for name in ("pixel_text", "pixel_feature", "pixel_plan", "quarantine")] == before


def test_of_the_same_words_each_patient_is_told_only_their_own():
    row = {"sop_uid": "1", "content_sha256": "c", "series_uid": "s", "object_id": "o", "locator": "l", "want_text": True, "pattern": False}
    told = {"patient_id_raw": "0104501236", "accession_number": None, "patient_birth_date": None, "study_date": None}
    # One screen, read once.
    screen = Result(1, texts=[Found(0, 0, Box(0, 0, 9, 9, 0.9, NAME), "frame")])
    flags = [pixels._record({**row, **told, "patient_name": name}, screen)["texts"][0]["matches"] for name in ("MACTAVISH^MORAG", "DOE^JO")]
    assert flags == [["name"], []]


def check_audit(archive, config):
    """The one clean image is shown to people, who say what they see."""
    report = run_job("pixels-audit", config, "identifiable", lambda job: audit.draw(job, 3))
    assert report.counts == {"seen": 1, "written": 1, "quarantined": 0}
    folder = archive.zones.path("identifiable", "audit")
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"audit.csv": 0o600, "sheet-1.png": 0o600}
    listed = folder / "audit.csv"
    assert "o-mr,MR" in listed.read_text()
    with pytest.raises(InputError, match=r"1 images of audit/.* have neither yes nor no"):
        run_job("pixels-audit", config, "identifiable", audit.read)
    listed.write_text(listed.read_text().rstrip() + "no\n")
    assert run_job("pixels-audit", config, "identifiable", audit.read).details["text_seen"] == 0


def check_layouts(archive, config):
    """One series of CT and one of ultrasound have text at places of their own: too few to propose a rule."""
    report = run_job("pixels-layouts", config, "identifiable", layouts.run)
    found = archive.read("text_layout")
    assert {(row.modality, row.series, row.proposed) for row in found} == {("CT", 1, False), ("US", 1, False)}
    assert report.counts == {"seen": len(found), "written": 0, "quarantined": 0, "skipped_rare": len(found)}


@pytest.mark.chaos
@only_chaos
def test_a_run_stopped_between_its_writes_is_finished_by_the_next(spark, house, monkeypatch):
    archive = Archive(spark, house)
    for number, frame in enumerate(slices(4)):
        archive.add(f"ct{number}", image(frame), "S1", number)
    archive.add("short", image(slices(1)[0])[:-900], "S1", 8)
    archive.write()
    append = tables.append

    def stop(df, zones, zone, name, txn=None):
        if name == "pixel_text":
            raise KeyboardInterrupt
        append(df, zones, zone, name, txn)

    fewer = {name: entry for name, entry in computed().items() if name != "intensity_p95@2"}
    with monkeypatch.context() as patched:
        patched.setattr(tables, "append", stop)
        patched.setattr(pixels, "computed", lambda: fewer)
        with pytest.raises(KeyboardInterrupt):
            go(house)
    missing = len(computed()) - len(fewer)
    assert len(archive.read("pixel_feature")) == 5 * (len(applicable("CT")) - missing)
    assert archive.read("pixel_text") == []
    assert go(house).counts == {"seen": 5, "written": 4, "unchanged": 0, "quarantined": 1}
    good = {f"ct{n}": "clean" for n in range(4)}
    assert verdicts(archive) == {**good, "short": "not_determined"}
    assert len(archive.read("pixel_feature")) == 5 * len(applicable("CT"))
    # Another run wrote most features; this one only what was missing, and the verdicts.
    mine = [row for row in archive.read("pixel_feature") if row.run_id == archive.read("pixel_text")[0].run_id]
    assert {(row.feature, row.version) for row in mine} == {("intensity_p95", "2")}
    assert_keys_unique(archive)

    held = (
        "o-ct0",
        "secret/ct0",
        "pixels",
        "timeout",
        None,
        datetime(2020, 1, 1),
        datetime(2020, 1, 1),
        1,
        None,
        None,
        None,
        None,
        "earlier",
    )
    rows = spark.createDataFrame([held], table("identifiable", "quarantine").spark_type())
    tables.append(rows, archive.zones, "identifiable", "quarantine")

    # Another engine: its verdicts take the place of the old ones; features are not computed again.
    archive.add("ct9", image(slices(1, NAME)[0]), "S2", 9)
    archive.write()
    other = f"{engine_version()} next"
    monkeypatch.setattr(pixels, "engine_version", lambda: other)
    assert go(house).counts == {"seen": 6, "written": 5, "unchanged": 0, "quarantined": 1}
    assert {row.engine_version for row in archive.read("pixel_text")} == {other}
    assert [row.object_id for row in archive.read("quarantine")] == ["o-short"]
    assert verdicts(archive) == {**good, "short": "not_determined", "ct9": "text"}
    assert len(archive.read("pixel_feature")) == 5 * len(applicable("CT")) + len(applicable("CT"))
    assert_keys_unique(archive)


def test_some_features_of_some_images(spark, house):
    archive = Archive(spark, house)
    archive.add("ct", image(slices(1)[0], RescaleSlope="1", RescaleIntercept="0"), "S1")
    archive.add("short", image(slices(1)[0])[:-900], "S1", 2)
    archive.add("mr", image(slices(1)[0]), "S2", modality="MR")
    archive.write()
    asked = pixels.choice(["intensity_mean@1", "air_fraction"], ["modality=CT,PT"])
    report = run_job("pixels", house, "identifiable", lambda job: pixels.run(job, asked))
    assert report.counts == {"seen": 2, "written": 1, "unchanged": 0, "quarantined": 1}
    found = {(r.sop_uid, r.feature, r.version): (r.status, r.reason) for r in archive.read("pixel_feature")}
    assert found == {
        ("1.2.ct", "intensity_mean", "1"): ("ok", None),
        ("1.2.ct", "air_fraction", "1"): ("ok", None),
        ("1.2.short", "intensity_mean", "1"): ("failed", "undecodable"),
        ("1.2.short", "air_fraction", "1"): ("failed", "undecodable"),
    }
    assert archive.read("pixel_text") == []
    again = run_job("pixels", house, "identifiable", lambda job: pixels.run(job, asked))
    assert again.counts == {"seen": 2, "written": 0, "unchanged": 1, "quarantined": 1}
    # Then everything: what is there is not made again.
    assert go(house).counts == {"seen": 3, "written": 2, "unchanged": 0, "quarantined": 1}
    assert len(archive.read("pixel_feature")) == 2 * len(applicable("CT")) + len(applicable("MR"))
    assert_keys_unique(archive)


REFUSED = [
    (["intensity_men"], [], "did you mean intensity_mean"),
    ([], ["modality"], "must be like modality=CT"),
    ([], ["modalty=CT"], "did you mean modality"),
    ([], ["image_type=ORIGINAL"], "no single-valued column"),
]


@pytest.mark.parametrize(("features", "where", "said"), REFUSED)
def test_a_choice_that_means_nothing_is_refused(features, where, said):
    with pytest.raises(ConfigError, match=said):
        pixels.choice(features, where)


def test_a_child_that_cannot_start_is_said_in_one_sentence(spark, house, monkeypatch):
    monkeypatch.setattr(pixels, "COMMAND", ("-c", "raise SystemExit(1)"))
    archive = Archive(spark, house)
    archive.add("mr", image(slices(1)[0]), "S1")
    archive.write()
    with pytest.raises(ChecksFailedError, match="does not start on this machine; run `pictures doctor` there"):
        go(house)
    assert archive.read("pixel_text") == []


def test_work_is_packed_by_cost_and_groups_stay_whole(spark, house):
    archive = Archive(spark, house)
    for series in range(6):
        for number in range(5):
            archive.add(f"{series}.{number}", b"%d.%d" % (series, number), f"S{series}", number)
    for number in range(160):
        archive.add(f"us{number}", b"us%d" % number, f"U{number // 20}", number, modality="OT", number_of_frames=3)
    archive.add("cine", b"cine", "S0", 9, number_of_frames=400)
    archive.add("sc", b"sc", "S1", 9, sop_class_uid="1.2.840.10008.5.1.4.1.1.7.2")
    archive.add("null", b"null", None, 9)
    archive.write()
    job = Job("pixels", house, archive.zones, Report("pixels"))
    placed = pixels.plan.located(
        pixels.plan.unexamined(
            job.read("identifiable", "header_instance"),
            job.read("identifiable", "pixel_text"),
            job.read("identifiable", "pixel_feature"),
            {"f@1": {}},
            "engine",
        ),
        job.read("identifiable", "object"),
    )
    rows = pixels.plan.packed(pixels.plan.grouped(placed), 2).collect()
    assert len(rows) == 193
    groups, tasks = {}, {}
    for row in rows:
        groups.setdefault(row.group_id, []).append(row)
        tasks[row.task] = tasks.get(row.task, 0) + row.seconds
    assert all(len({(r.batch, r.task, r.pattern) for r in group}) == 1 for group in groups.values())
    assert {len(group) for group in groups.values() if group[0].pattern and group[0].sop_uid != "1.2.cine"} == {5}
    assert {r.sop_uid for r in rows if not r.pattern} == {"1.2.sc", "1.2.null", *(f"1.2.us{n}" for n in range(160))}
    # 120 s of screens and little else, for two cores.
    assert 3 <= len(tasks) <= 6
    assert max(tasks.values()) < 1.5 * sum(tasks.values()) / len(tasks)
    # Order within a group is that of acquisition.
    for group in groups.values():
        assert [r.instance_number for r in sorted(group, key=lambda r: r.sequence)] == sorted(r.instance_number for r in group)
