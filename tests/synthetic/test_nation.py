"""The nation: whatever the batches the same rows; every value as declared; planted answers found by the cohort language."""

import csv
from datetime import date, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.cohort import commands
from pictures_spark.cohort.compile import PREFIX
from pictures_spark.deid import derive
from pictures_spark.deid.tables_guard import Border
from pictures_spark.schema import table, tables
from pictures_spark.synthetic import nation_tables, published, scanning
from pictures_spark.synthetic.draws import Draws, completed_years
from pictures_spark.synthetic.questions import COLUMNS, cases, planted
from pictures_spark.synthetic.told import told

PEOPLE = 400


def gathered(draws, count, batch):
    found = {}
    for name, piece in nation_tables.pieces(draws, count, batch):
        found.setdefault(name, []).append(piece if name.startswith("truth/") else published.filled(name, piece))
    return {name: pa.concat_tables(pieces).combine_chunks() for name, pieces in found.items()}


@pytest.fixture(scope="module")
def nation():
    return gathered(Draws(11), PEOPLE, PEOPLE)


def rows_of(found):
    return {tuple(map(str, row.values())) for row in found.to_pylist()}


def test_the_batches_change_nothing(nation):
    again = gathered(Draws(11), PEOPLE, 173)
    assert again.keys() == nation.keys()
    for name, found in nation.items():
        if name == "source_cover":
            continue
        assert again[name].num_rows == found.num_rows, name
        assert rows_of(again[name]) == rows_of(found), name


def test_another_seed_gives_other_people(nation):
    other = gathered(Draws(12), 50, 50)
    assert not set(other["patient"]["patient_id"].to_pylist()) & set(nation["patient"]["patient_id"].to_pylist())


def test_every_value_is_one_that_the_writer_takes(nation):
    for name, found in nation.items():
        if name.startswith("truth/"):
            continue
        for column in table("deidentified", name).columns:
            if column.name in ("release", "run_id"):
                continue
            values = found.column(column.name)
            if not column.nullable:
                assert values.null_count == 0, (name, column.name)
            border = Border(name, column)
            flat = values.combine_chunks().flatten() if column.type.startswith("array") else values
            for value in set(flat.to_pylist()) - {None}:
                assert border.accepts(value), (name, column.name, value)


def test_keys_are_unique_and_every_reference_leads_somewhere(nation):
    for name, found in nation.items():
        if not name.startswith("truth/"):
            key = found.select(list(table("deidentified", name).key)).to_pylist()
            assert len({tuple(row.values()) for row in key}) == len(key), name
    ids = {name: set(nation[name][f"{name}_id"].to_pylist()) for name in ("patient", "study", "series", "stay")}
    for name in ("residence", "event", "stay", "study", "series"):
        assert set(nation[name]["patient_id"].to_pylist()) - {None} <= ids["patient"], name
    assert set(nation["series"]["study_id"].to_pylist()) == ids["study"]
    assert set(nation["event"]["stay_id"].to_pylist()) - {None} == ids["stay"]
    assert set(nation["image_feature"]["series_id"].to_pylist()) <= ids["series"]
    assert set(nation["series"]["dup_of"].to_pylist()) - {None} <= ids["series"]
    for name in ("report", "report_finding"):
        assert set(nation[name]["study_id"].to_pylist()) <= ids["study"]
        assert set(nation[name]["patient_id"].to_pylist()) <= ids["patient"]
    units = {name: ids[name] for name in ("patient", "study", "series")}
    for row in nation["truth/questions"].to_pylist():
        assert row["uid"] in units[row["unit"]], row
    assert set(nation["truth/traps"]["uid"].to_pylist()) <= ids["study"]


def test_drawn_events_lie_within_residence_and_life_and_every_source_has_some(nation):
    planted_ids = set(planted(Draws(11)).ids.to_pylist())
    connection = duckdb.connect()
    for name in ("event", "residence", "patient"):
        connection.register(name, nation[name])
    outside = connection.execute(
        """SELECT DISTINCT patient_id FROM event WHERE NOT EXISTS (SELECT 1 FROM residence r WHERE r.patient_id = event.patient_id
           AND event.date >= r.from_date AND event.date <= coalesce(r.to_date, DATE '9999-12-31'))"""
    ).fetchall()
    assert {row[0] for row in outside} <= planted_ids
    late = connection.execute("SELECT patient_id FROM event JOIN patient USING (patient_id) WHERE date > death_date").fetchall()
    assert {row[0] for row in late} <= planted_ids
    sources = {row[0] for row in connection.execute("SELECT DISTINCT source FROM event").fetchall()}
    assert sources == set(nation["source_cover"]["source"].to_pylist())


def test_a_study_has_a_person_unless_a_trap_took_it(nation):
    reasons = {row["id"]: row.get("unlinked") for row in scanning.scanning()["traps"]}
    trapped = {row["uid"]: row["trap"] for row in nation["truth/traps"].to_pylist() if row["trap"] != scanning.ONE_REQUEST}
    assert trapped
    for row in nation["study"].to_pylist():
        wanted = reasons[trapped[row["study_id"]]] if row["study_id"] in trapped else None
        assert row["unlinked_reason"] == wanted
        assert (row["patient_id"] is None) == (wanted is not None)


@given(st.dates(date(1880, 1, 1), date(2030, 1, 1)), st.dates(date(1880, 1, 1), date(2030, 1, 1)))
def test_ages_are_those_that_publish_computes(born, on):
    epoch = date(1970, 1, 1)
    (years,) = completed_years(np.array([(born - epoch).days]), np.array([(on - epoch).days])).tolist()
    assert (years if on >= born else None) == derive.completed_years(born, on)


@settings(max_examples=30)
@given(st.integers(-(2**40), 2**40), st.integers(0, 2**20), st.integers(-5, 5), st.integers(0, 50))
def test_a_draw_depends_on_its_own_index_alone(index, slot, low, more):
    draws, many = Draws(3), np.array([index, 1, 2, index])
    alone = draws.whole("x", np.array([index]), low, low + more, slot)[0]
    assert draws.whole("x", many, low, low + more, np.array([slot, 5, 6, slot])).tolist()[::3] == [alone, alone]
    assert low <= alone <= low + more
    assert draws.names("a", np.array([index]), slot)[0] != draws.names("b", np.array([index]), slot)[0]


def test_draws_are_as_often_as_they_should_be():
    draws, index = Draws(4), np.arange(100_000)
    assert abs(draws.uniform("u", index).mean() - 0.5) < 0.005
    assert np.bincount(draws.choice("c", index, [1, 3])) / 100_000 == pytest.approx([0.25, 0.75], abs=0.01)
    assert len(set(draws.bits("b", index).tolist())) == 100_000


QUESTIONS = {
    "1": """{unit: series, steps: [{id: years, where: {scan_date: {between: [2010-01-01, 2018-12-31]}}}]}""",
    "2": """{unit: series, steps: [{id: thin, where: {modality: CT, slice_thickness_max: {le: 1.5}, orientation: AXIAL,
            image_kind: ORIGINAL, image_count: {ge: 20}}}]}""",
    "3": "{unit: series, steps: [{id: three_tesla, where: {modality: MR, field_tesla: {between: [2.8, 3.2]}}}]}",
    "11": """{unit: series, steps: [{id: slices, where: {modality: MR, frame_count: {between: [24, 24]},
            slice_thickness_max: {between: [5, 5]}}}]}""",
    "13": """{unit: series, population: all, steps: [{id: chest, where: {modality: CT, body_region: CHEST, contrast: "yes"}},
            {id: age, where: {age_at: {between: [55, 65]}}}]}""",
    "14": """{unit: series, codelists: {drug: {system: bnf, codes: ["0208020"]}, stroke: {system: icd10, codes: [I61, I62, I63, I64]}},
            steps: [{id: head, where: {modality: CT, body_region: HEAD, contrast: "no", slice_thickness_max: {le: 1.5}, orientation: AXIAL,
            image_kind: ORIGINAL, age_at: {between: [65, 80]}}}, {id: drug, has: {event: dispensing, codes: drug, window: [-90d, -1d]}},
            {id: stroke, first: {event: [diagnosis, death_cause], codes: stroke, ever: true, window: [0d, 30d]}}]}""",
    "17": """{unit: study, codelists: {lipid: {system: bnf, codes: ["0212000"]}}, steps: [{id: now, has: {event: dispensing, codes: lipid,
            window: [-90d, 0d]}}, {id: before, lacks: {event: dispensing, codes: lipid, window: [-730d, -91d]}}]}""",
    "21": """{unit: study, codelists: {birth: {system: icd10, codes: [O80, O82]}}, steps: [{id: women, where: {sex: F, age_at:
            {between: [15, 49]}}}, {id: delivery, has: {event: delivery, codes: birth, window: [1d, 280d]}}]}""",
    "36b": """{unit: series, steps: [{id: agent, where: {modality: CT, contrast: "yes"}}]}""",
    "43": """{unit: series, steps: [{id: film, where: {modality: DX, dup_of: {is_missing: true}}}]}""",
}


@pytest.mark.parametrize("number", QUESTIONS)
def test_the_cohort_language_finds_what_was_planted_and_no_near_miss(nation, number, tmp_path):
    path = tmp_path / "question.yaml"
    path.write_text(QUESTIONS[number].replace("{unit", f"{{cohort: 1, id: q{number}, unit", 1))
    plan = commands.load(path).plan()
    connection = duckdb.connect()
    for declared in tables("deidentified"):
        name = declared.name
        found = nation.get(name)
        if found is None:
            found = published.filled(name, pa.table({declared.key[0]: pa.array([], pa.string())})) if declared.key[0] != "release" else None
        if found is not None:
            connection.register(f"{PREFIX}{name}", found)
    answer = {
        row[0] for row in connection.execute(f"SELECT unit_id FROM ({plan.sql('duckdb')}) WHERE passed = {len(plan.steps) - 1}").fetchall()
    }
    key = {row["uid"]: row["answer"] == "yes" for row in nation["truth/questions"].to_pylist() if row["question"] == number}
    assert {True, False} == set(key.values())
    assert answer & key.keys() == {uid for uid, inside in key.items() if inside}


def test_every_question_has_cases_on_both_sides():
    sides = {}
    for case in cases():
        sides.setdefault(case.question, set()).add(case.answer)
    assert {question for question, found in sides.items() if found != {"yes", "no"}} <= {"10"}
    assert len(sides) >= 20


def test_headers_are_told_as_publish_tells_them():
    device = ("SIEMENS", "Skyra", 1)
    found = told(scanning.header("mr_brain_3t_gauss", 0, device, None), 24, 6.0)
    assert (found["field_tesla"], found["body_region"], found["model_norm"]) == (3.0, ["HEAD"], "MAGNETOM_SKYRA")
    assert (found["orientation"], found["is_regular_volume"], found["spacing_positions"]) == ("AXIAL", True, 6.0)
    spoiled = told(scanning.header("ct_head_plain_thin", 0, ("Acme", "X", 1), "thickness_with_unit"))
    assert (spoiled["slice_thickness_max"], spoiled["contrast"], spoiled["manufacturer_norm"]) == (None, "no", "OTHER")


def test_the_key_is_written_as_it_is(tmp_path, nation):
    pieces = [("truth/questions", nation["truth/questions"]), ("patient", nation["patient"])]
    assert [name for name, _ in nation_tables._kept_truth(iter(pieces), tmp_path)] == ["patient"]
    with (tmp_path / "questions.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == nation["truth/questions"].num_rows


def test_studies_of_one_day_that_were_one_request_share_its_accession_number(nation):
    noted = {row["uid"] for row in nation["truth/traps"].to_pylist() if row["trap"] == scanning.ONE_REQUEST}
    requests, same_day = {}, {}
    for row in nation["study"].to_pylist():
        requests.setdefault(row["accession_id"], []).append(row)
        same_day.setdefault((row["patient_id"], row["scan_date"]), set()).add(row["accession_id"])
    shared = [rows for rows in requests.values() if len(rows) > 1]
    assert {row["study_id"] for rows in shared for row in rows} == noted
    assert shared
    for rows in shared:
        assert len({row["scan_date"] for row in rows}) == len({row["patient_id"] for row in rows} - {None}) == 1
    # Most days keep a request for each study.
    assert any(len(several) > 1 for several in same_day.values())


def test_a_trap_is_noted_only_where_it_changed_something():
    draws, count = Draws(2), 4_000
    who = np.arange(count)
    group = nation_tables.people(draws, who)
    ids = draws.names("patient", who)
    wanted = scanning.Scans("ct_head_plain_thin", who, np.full(count, 15_000), np.zeros(count, np.int64))
    found = scanning.made(draws, group, ids, nation_tables.first_board(draws, group), wanted)
    noted = set(found.traps["trap"].to_pylist())
    # A head that is called a head, and a CT's field strength, are no faults.
    assert {"no_body_part", "agent_is_missing", "no_identifier"} <= noted
    assert not noted & {"wrong_body_part", "field_in_gauss"}
    series = {row["study_id"]: row for row in found.tables["series"].to_pylist()}
    study = {row["study_id"]: row for row in found.tables["study"].to_pylist()}
    assert {"study_date_is_late", "thickness_with_comma", "one_slice_is_thicker"} <= noted
    for row in found.traps.to_pylist():
        if row["trap"] in ("thickness_with_unit", "thickness_with_comma"):
            assert series[row["uid"]]["slice_thickness_max"] is None
        if row["trap"] == "one_slice_is_thicker":
            thin, thick, flags = (series[row["uid"]][name] for name in ("slice_thickness_min", "slice_thickness_max", "conflict_flags"))
            assert (thin, thick) == (1, 10)
            assert {"slice_thickness_min", "slice_thickness_max"} <= set(flags)
        if row["trap"] == "study_date_is_late":
            assert study[row["uid"]]["study_date"] - study[row["uid"]]["scan_date"] == timedelta(2)
        if row["trap"] == "agent_is_missing":
            assert series[row["uid"]]["contrast"] == "unknown"
