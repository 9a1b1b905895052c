"""Freezing with Spark: both engines agree or nothing is frozen, twice is once, and a cohort that was interrupted is finished."""

import hashlib
import json
from dataclasses import replace

import pytest
from cohort_cases import rows
from cohort_delta import publish

from pictures_spark import tables
from pictures_spark.cohort import commands, duck
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.members import frozen
from pictures_spark.errors import ChecksFailedError, ConfigError, ZoneViolationError
from pictures_spark.job import run_job
from pictures_spark.schema import table
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark

TABLES = {
    "patient": """
        patient_id | death_date
        p1         |
        p2         | +5
    """,
    "residence": """
        patient_id | from_date | to_date
        p1         | -900      |
        p2         | -900      |
    """,
    "source_cover": """
        source | site | from_date | to_date | lag_days | kinds
        pis    | demo | -200      | +300    | 0        | dispensing
    """,
    "event": """
        event_id | patient_id | source | kind       | system | code    | date
        e1       | p1         | pis    | dispensing | bnf    | 0208020 | +9
    """,
    "series": """
        series_id | study_id | patient_id | scan_date | modality | age_years | image_count | frame_count | n_objects
        s1        | t1       | p1         | +10       | CT       | 70        | 5           | 5           | 5
        s2        | t1       | p1         | +10       | CT       | 70        | 9           | 9           | 9
        s3        | t2       | p2         | +10       | CT       | 70        | 5           | 5           | 5
        s4        | t2       | p2         | +4        | CT       | 70        | 5           | 5           | 5
        s5        | t3       |            | +10       | CT       |           | 5           | 5           | 5
        s6        | t1       | p1         | +10       | MR       | 70        | 5           | 5           | 5
    """,
}
QUESTION = """
cohort: 1
id: on-drug
unit: series
codelists: {drug: {system: bnf, codes: [0208020]}}
steps:
  - {id: ct, where: {modality: CT}}
  - {id: age, where: {age_at: {between: [65, 80]}}, unknown: include}
  - {id: thickness, where: {slice_thickness_max: {le: 1.5}}, unknown: report}
  - {id: on_drug, has: {event: dispensing, codes: drug, window: [-90d, -1d]}}
pick: {one_per: patient, order: [scan_date, -image_count]}
"""


def hexed(name):
    """A pseudonym, as the writer wants them."""
    return hashlib.md5(name.encode()).hexdigest()


def published(config, more=""):
    """Publish the tables with pseudonyms in the place of ids, and a release of them."""
    made = {name: rows(name, text + (more if name == "series" else "")) for name, text in TABLES.items()}
    for name, found in made.items():
        keyed = [column.name for column in table("deidentified", name).columns if column.deid == "pseudonym"]
        for row in found:
            row |= {column: hexed(row[column]) for column in keyed if row.get(column)} | {"release": "r1", "run_id": "run"}
    publish(Zones(config, "publisher").path("deidentified", mode="write"), made)


def freeze(config, tmp_path, text=QUESTION, role="deidentified"):
    path = tmp_path / "question.yaml"
    path.write_text(text)
    return run_job("select", config, role, lambda job: commands.freeze(job, path))


def written(spark, config):
    zones = Zones(config, "deidentified")
    return {name: tables.version(spark, zones, "deidentified", name) for name in ("cohort_member", "cohort_attrition", "cohort_run")}


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
    monkeypatch.undo()
    assert written(spark, config) == {"cohort_member": None, "cohort_attrition": None, "cohort_run": None}

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
    class Reader:
        zones = Zones(config, "extractor", "demo")

        @staticmethod
        def read(zone, name):
            return tables.read(spark, Reader.zones, zone, name)

    run, members = frozen(Reader, "on-drug")
    (member,) = members.collect()
    # Bits of start, population, ct, age, on_drug and pick; thickness is unknown, and reported as such.
    assert (member.unit_id, member.patient_id, member.steps) == (hexed("s2"), hexed("p1"), 0b1101111)
    manifest = json.loads(run.manifest)
    assert manifest["table_versions"]["series"] == 0
    assert manifest["codelists"]["drug"]["codes"] == ["0208020"]
    assert manifest["counts"] == {"seen": 6, "members": 1, "patients": 1}
    assert run.content_sha256 == hashlib.sha256(f"{hexed('s2')}\n".encode()).hexdigest()
    assert set(manifest["sql"]) == {"duckdb", "spark"}
    lines = Reader.read("deidentified", "cohort_attrition").orderBy("step_index").collect()
    assert [(x.step_id, x.kept, x.failed, x.unknown) for x in lines] == [
        ("start", 6, 0, 0),
        ("population", 4, 2, 0),
        ("ct", 3, 1, 0),
        ("age", 3, 0, 0),
        ("thickness", 3, 0, 3),
        ("on_drug", 2, 1, 0),
        ("pick", 1, 1, 0),
    ]

    # Again: nothing is written, and the report still adds up.
    before = written(spark, config)
    again = freeze(config, tmp_path, "# the same question\n" + QUESTION)
    assert (again.counts["written"], again.counts["unchanged"], again.counts["seen"]) == (0, 1, 6)
    assert written(spark, config) == before

    # The same id asked otherwise, then as before: the freeze that was asked for last is made newest, without new members.
    other_run = freeze(config, tmp_path, QUESTION.replace("[-90d, -1d]", "[-80d, -1d]")).details["cohort_run_id"]
    assert frozen(Reader, "on-drug")[0].cohort_run_id == other_run
    members_before = written(spark, config)["cohort_member"]
    freeze(config, tmp_path)
    assert frozen(Reader, "on-drug")[0].cohort_run_id == run.cohort_run_id
    assert written(spark, config)["cohort_member"] == members_before

    with pytest.raises(ConfigError, match=r"no cohort 'of-drug' is frozen \(there is on-drug\)"):
        frozen(Reader, "of-drug")
    with pytest.raises(ZoneViolationError):
        freeze(config, tmp_path, QUESTION.replace("on-drug", "other"), role="counter")


def test_a_key_that_is_not_unique_is_refused(spark, config, tmp_path):
    published(config, more=TABLES["series"].strip().splitlines()[1])
    with pytest.raises(ChecksFailedError, match="1 more rows than ids of series units: a key is not unique"):
        freeze(config, tmp_path, "{cohort: 1, id: x, unit: series, steps: [{id: ct, where: {modality: CT}}]}")
    assert written(spark, config)["cohort_member"] is None


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
    commands.run("count", str(tmp_path / "question.yaml"), config)
    assert "  modality  series  patients  studies  images\n  CT             2         1        1      14\n" in capsys.readouterr().out
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
