"""Freezing with Spark: both engines agree or nothing is frozen, twice is once, and a cohort that was interrupted is finished."""

import hashlib
import json
from dataclasses import replace

import pytest
from cohort_delta import publish
from on_drug import QUESTION, TABLES, hexed, published

from pictures_spark import audit, tables
from pictures_spark.cli import main
from pictures_spark.cohort import commands, duck
from pictures_spark.cohort import spark as spark_side
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.members import frozen
from pictures_spark.errors import ChecksFailedError, ConfigError, ZoneViolationError
from pictures_spark.job import run_job
from pictures_spark.readers import ANALYST, Reader
from pictures_spark.zones import Zones

EXACT = Reader("coordinator", exact=True, purpose="test")
pytestmark = pytest.mark.spark

WRITTEN = ("cohort_member", "cohort_flag", "cohort_attrition", "cohort_level", "cohort_breakdown", "cohort_run")


def freeze(config, tmp_path, text=QUESTION, role="deidentified", reader=EXACT):
    path = tmp_path / "question.yaml"
    path.write_text(text)
    return run_job("select", config, role, lambda job: commands.freeze(job, path, reader))


def written(spark, config):
    zones = Zones(config, "deidentified")
    return {name: tables.version(spark, zones, "deidentified", name) for name in WRITTEN}


def test_a_freeze_is_what_both_engines_say_and_twice_is_once(spark, config, tmp_path, capsys, monkeypatch):
    published(config)

    # An engine that says something else: nothing is frozen.
    true_answer = duck.answer

    def other(connection, plan):
        said = true_answer(connection, plan)
        return replace(said, levels=(*said.levels[:-1], replace(said.levels[-1], kept=99)))

    monkeypatch.setattr(duck, "answer", other)
    with pytest.raises(
        ChecksFailedError, match="the engines disagree at step pick: the embedded reader keeps 99 units of 1 patients, Spark 1"
    ):
        freeze(config, tmp_path)
    # The numbers are for those who may see them.
    with pytest.raises(ChecksFailedError, match=r"^the engines disagree; nothing was frozen: a data manager who freezes it is told where$"):
        freeze(config, tmp_path, reader=ANALYST)
    monkeypatch.undo()
    assert written(spark, config) == dict.fromkeys(WRITTEN)

    # Engines that agree at the unit's own level and on its patients, but not on the studies.
    true_counts = spark_side.counts
    monkeypatch.setattr(
        spark_side, "counts", lambda plan, rows: tuple(replace(x, kept=x.kept + (x.level == "study")) for x in true_counts(plan, rows))
    )
    with pytest.raises(ChecksFailedError, match="the engines disagree at step start on the level study: the embedded reader keeps 3"):
        freeze(config, tmp_path)
    monkeypatch.undo()
    assert written(spark, config) == dict.fromkeys(WRITTEN)

    # A freeze that dies before its last table; the next one finds its rows.
    def dies(*_):
        raise ConfigError("pulled the plug")

    monkeypatch.setattr(commands, "_write_run", dies)
    with pytest.raises(ConfigError, match="pulled the plug"):
        freeze(config, tmp_path)
    monkeypatch.undo()
    capsys.readouterr()
    report = freeze(config, tmp_path)
    assert report.counts == {
        "seen": 6,
        "written": 1,
        "unchanged": 0,
        "skipped_population": 2,
        "skipped_ct": 1,
        "skipped_age": 0,
        "skipped_thickness": 0,
        "skipped_on_drug": 1,
        "skipped_pick": 1,
    }
    said = capsys.readouterr().out
    assert "pick                   1             1             0             1" in said.replace("thickness ", "")

    # Members, attrition and manifest.
    class Frozen:
        zones = Zones(config, "extractor", "demo")

        @staticmethod
        def read(zone, name):
            return tables.read(spark, Frozen.zones, zone, name)

    run, members = frozen(Frozen, "on-drug")
    (member,) = members.collect()
    # Bits of start, population, ct, age, on_drug and pick; thickness is unknown, and reported as such.
    assert (member.unit_id, member.patient_id, member.steps) == (hexed("s2"), hexed("p1"), 0b1101111)
    manifest = json.loads(run.manifest)
    assert manifest["table_versions"]["series"] == 0
    assert manifest["codelists"]["drug"]["codes"] == ["0208020"]
    assert manifest["counts"] == {"seen": 6, "members": 1, "patients": 1}
    assert run.content_sha256 == hashlib.sha256(f"{hexed('s2')}\n".encode()).hexdigest()
    assert set(manifest["sql"]) == {"duckdb", "spark"}
    lines = Frozen.read("deidentified", "cohort_attrition").orderBy("step_index").collect()
    assert [(x.step_id, x.kept, x.failed, x.unknown) for x in lines] == [
        ("start", 6, 0, 0),
        ("population", 4, 2, 0),
        ("ct", 3, 1, 0),
        ("age", 3, 0, 0),
        ("thickness", 3, 0, 3),
        ("on_drug", 2, 1, 0),
        ("pick", 1, 1, 0),
    ]

    # At all levels: s1, s2 and s6 are of one study, s3 and s4 of another, s5 of nobody.
    counted = {(x.step_index, x.level): (x.kept, x.failed, x.unknown) for x in Frozen.read("deidentified", "cohort_level").collect()}
    assert {level: counted[0, level] for level in ("patient", "study", "series", "image")} == {
        "patient": (2, 0, 0),
        "study": (3, 0, 0),
        "series": (6, 0, 0),
        "image": (34, 0, 0),
    }
    assert [counted[index, "study"] for index in range(7)] == [(3, 0, 0), (2, 1, 0), (2, 0, 0), (2, 0, 0), (2, 0, 2), (1, 1, 0), (1, 0, 0)]
    assert [counted[index, "image"] for index in range(7)] == [
        (34, 0, 0),
        (24, 10, 0),
        (19, 5, 0),
        (19, 0, 0),
        (19, 0, 19),
        (14, 5, 0),
        (9, 5, 0),
    ]
    assert [counted[index, "series"] for index in range(7)] == [(x.kept, x.failed, x.unknown) for x in lines]

    # What the members are.
    parts = {(x.breakdown, x.value): (x.units, x.patients) for x in Frozen.read("deidentified", "cohort_breakdown").collect()}
    assert {name: parts[name] for name in parts if name[0] in ("modality", "age_band")} == {
        ("modality", "CT"): (1, 1),
        ("age_band", "70-79"): (1, 1),
    }
    assert sum(units for (name, _), (units, _) in parts.items() if name == "sex") == 1
    assert {manifest[name] for name in ("who", "by", "purpose")} == {audit.account(), "coordinator", "test"}
    assert len(manifest["levels"]) == 7 * 4

    # Every unit's answers are kept: s3 was lost at the population.
    flags = {x.unit_id: x for x in Frozen.read("deidentified", "cohort_flag").collect()}
    assert len(flags) == 6
    assert flags[hexed("s3")].passed == 0
    assert flags[hexed("s2")].passed == 6

    # Again: nothing is written, and the report still adds up.
    before = written(spark, config)
    again = freeze(config, tmp_path, "# the same question\n" + QUESTION)
    assert (again.counts["written"], again.counts["unchanged"], again.counts["seen"]) == (0, 1, 6)
    assert written(spark, config) == before

    # The same id asked otherwise, then as before: the freeze that was asked for last is made newest, without new members.
    other_run = freeze(config, tmp_path, QUESTION.replace("[-90d, -1d]", "[-80d, -1d]")).details["cohort_run_id"]
    assert frozen(Frozen, "on-drug")[0].cohort_run_id == other_run
    members_before = written(spark, config)["cohort_member"]
    freeze(config, tmp_path)
    assert frozen(Frozen, "on-drug")[0].cohort_run_id == run.cohort_run_id
    assert written(spark, config)["cohort_member"] == members_before

    with pytest.raises(ConfigError, match=r"no cohort 'of-drug' is frozen \(there is on-drug\)"):
        frozen(Frozen, "of-drug")
    with pytest.raises(ZoneViolationError):
        freeze(config, tmp_path, QUESTION.replace("on-drug", "other"), role="counter")

    # Whoever may not see exact counts can freeze, and sees none of them, nor does a report of theirs hold any.
    capsys.readouterr()
    report = freeze(config, tmp_path, reader=ANALYST)
    said = capsys.readouterr().out
    assert "pick                 <10           <10           <10           <10" in said.replace("thickness ", "")
    assert report.counts == {}
    assert "patients" not in report.details

    # What was frozen by Spark is repeated by the embedded reader.
    trusted = ["--as", "coordinator", "--purpose", "test", "--conf-file", str(config.path)]
    assert main(["cohort", "replay", run.cohort_run_id, *trusted]) == 0
    assert main(["cohort", "why", "on-drug", hexed("s2"), *trusted]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"the same 1 members of 1 patients, content {run.content_sha256}\nseries {hexed('s2')} is in the cohort on-drug")

    # Each freeze is an event of a chain that holds, and reports say where it was.
    path = Zones(config, "auditor").path("governance", "audit.jsonl")
    events = [event for event in audit.read(path) if event["action"] == "freeze"]
    assert [(event["action"], event["shown"], event.get("again")) for event in events] == [
        ("freeze", "exact", None),  # the one that died after it
        ("freeze", "exact", None),
        ("freeze", "exact", True),
        ("freeze", "exact", None),
        ("freeze", "exact", True),
        ("freeze", "default-1", True),
    ]
    assert audit.verify(path, [audit.parse_head(report.details["audit"])])[1] == []


def test_a_key_that_is_not_unique_is_refused(spark, config, tmp_path):
    published(config, more=TABLES["series"].strip().splitlines()[1])
    with pytest.raises(ChecksFailedError, match="1 more rows than ids of series units: a key is not unique"):
        freeze(config, tmp_path, "{cohort: 1, id: x, unit: series, steps: [{id: ct, where: {modality: CT}}]}")
    assert written(spark, config)["cohort_member"] is None


def test_rows_that_a_deletion_vector_hides_do_not_come_back(spark, config, tmp_path):
    published(config)
    path = tmp_path / "question.yaml"
    path.write_text("{cohort: 1, id: ct, unit: series, steps: [{id: ct, where: {modality: CT}}]}")
    asked = commands.load(path)
    root = Zones(config, "publisher").path("deidentified", mode="write")
    series = root / "tables" / "series"
    spark.sql(f"ALTER TABLE delta.`{series}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    assert commands.count(asked, Zones(config, "counter")).members == 5
    spark.sql(f"DELETE FROM delta.`{series}` WHERE patient_id = '{hexed('p2')}'")
    log = sorted((series / "_delta_log").glob("*.json"))
    assert '"deletionVector":{' in log[-1].read_text()
    # The file still has them, and the release is of the version before.
    assert commands.count(asked, Zones(config, "counter")).members == 5
    now = {folder.name: len(list((folder / "_delta_log").glob("*.json"))) - 1 for folder in (root / "tables").iterdir()}
    publish(root, {}, "r2", now)
    assert commands.count(asked, Zones(config, "counter")).members == 3
    with duck.reader(Zones(config, "counter")) as connection:
        duck.pin(connection, Zones(config, "counter"), duck.newest_release(connection, Zones(config, "counter")), ("series",))
        assert connection.execute(f"SELECT count(*) FROM deidentified_series WHERE patient_id = '{hexed('p2')}'").fetchone() == (0,)


OF_THEM = """
cohort: 1
id: of-them
unit: series
population: linked
steps:
  - {id: was_in, in: {cohort: on-drug, level: patient}}
split: {parts: [before, after], at: 2010-02-11}
output:
  - {id: age, column: age_at}
  - {id: drug, nearest: {event: dispensing, window: [-90d, 90d]}, give: [gap, date]}
count:
  - {by: modality}
"""


CONTROLS = """
cohort: 1
id: controls
unit: series
population: linked
steps:
  - {id: ct, where: {modality: CT}}
match: {cases: on-drug, level: series, ratio: 3, seed: one, caliper: {age_at: 0}}
"""


def test_a_frozen_cohort_can_be_asked_for_and_outputs_are_frozen_with_the_members(spark, config, tmp_path, capsys):
    published(config)
    freeze(config, tmp_path)
    freeze(config, tmp_path, OF_THEM)
    found = tables.read(spark, Zones(config, "deidentified"), "deidentified", "cohort_output").collect()
    s1 = {row.column: row.value for row in found if row.unit_id == hexed("s1")}
    assert s1 == {"part": "after", "age": "70", "drug_gap": "-1", "drug_date": "2010-02-10"}
    assert {row.unit_id for row in found} == {hexed(name) for name in ("s1", "s2", "s6")}
    capsys.readouterr()
    commands.run("count", str(tmp_path / "question.yaml"), config, EXACT)
    assert "  modality  series  patients  studies  images\n  CT             2         1        1      14\n" in capsys.readouterr().out
    # Whoever may not see exact counts sees the same table through the gate: too few people for any line.
    commands.run("count", str(tmp_path / "question.yaml"), config)
    assert "  people by modality\n  modality        people\n  total              <10\n" in capsys.readouterr().out
    freeze(config, tmp_path, CONTROLS)
    found = tables.read(spark, Zones(config, "deidentified"), "deidentified", "cohort_output").where("column LIKE 'control%'").collect()
    assert {row.unit_id for row in found} == {hexed("s2")}
    assert {row.column for row in found} == {"control_1", "control_2"}
    assert {row.value for row in found} == {hexed("s3"), hexed("s4")}
    freeze(config, tmp_path, OF_THEM)
    # Another release: people and scans may be others.
    publish(Zones(config, "publisher").path("deidentified", mode="write"), {}, "r2")
    with pytest.raises(QuestionError, match="cohort on-drug was frozen on release r1, and this question is asked of r2"):
        commands.run("count", str(tmp_path / "question.yaml"), config)
