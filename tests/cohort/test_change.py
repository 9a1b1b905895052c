"""Measurements that change, and scans at weekends and at night: the examples of these against hand-written SQL and people by hand."""

import duckdb
import pyarrow as pa
import pytest
from cohort_cases import full, into_duckdb, rows

from pictures_spark.cohort import commands, duck, yaml_face
from pictures_spark.cohort.codelists import resolve
from pictures_spark.cohort.compile import compiled
from pictures_spark.cohort.interpreter import interpret, show
from pictures_spark.resources import schemas_dir
from pictures_spark.synthetic import nation_tables, published
from pictures_spark.synthetic.draws import Draws

EXAMPLES = schemas_dir().parent / "examples" / "cohorts"
CONTRAST = {
    "series": """
        series_id | patient_id | modality | contrast | scan_date | scan_time
        quick     | p1         | CT       | yes      | +0        | 10:00:00
        slow      | p2         | CT       | yes      | +0        | 10:00:00
        little    | p3         | CT       | yes      | +0        | 10:00:00
        plain     | p4         | CT       | no       | +0        | 10:00:00
        timeless  | p5         | CT       | yes      | +0        | 10:00:00
        once      | p6         | CT       | yes      | +0        | 10:00:00
        unseen    | p7         | CT       | yes      | +0        | 10:00:00
    """,
    "patient": "patient_id\np1\np2\np3\np4\np5\np6\np7",
    "residence": """
        patient_id | from_date | to_date
        p1         | -400      |
        p2         | -400      |
        p3         | -400      |
        p4         | -400      |
        p5         | -400      |
        p6         | -400      |
        p7         | -3        |
    """,
    "source_cover": """
        source | site | from_date | to_date | lag_days | kinds
        labs   | demo | -300      | +300    | 0        | lab
    """,
    "event": """
        event_id | patient_id | kind | system | code  | date | time     | value_std
        e1       | p1         | lab  | read2  | 44J3  | -1   | 09:00:00 | 80
        e2       | p1         | lab  | read2  | 44J3. | +1   | 09:00:00 | 106
        e3       | p2         | lab  | read2  | 44J3  | -1   | 09:00:00 | 80
        e4       | p2         | lab  | read2  | 44J3  | +6   | 09:00:00 | 120
        e5       | p3         | lab  | read2  | 44J3  | -1   | 09:00:00 | 80
        e6       | p3         | lab  | read2  | 44J3  | +1   | 09:00:00 | 105
        e7       | p3         | lab  | read2  | 44I4  | +1   | 10:00:00 | 400
        e8       | p4         | lab  | read2  | 44J3  | -1   | 09:00:00 | 80
        e9       | p4         | lab  | read2  | 44J3  | +1   | 09:00:00 | 200
        e10      | p5         | lab  | read2  | 44J3  | -1   |          | 80
        e11      | p5         | lab  | read2  | 44J3  | +1   | 23:00:00 | 106
        e12      | p6         | lab  | read2  | 44J3  | -1   | 09:00:00 | 80
        e13      | p7         | lab  | read2  | 44J3  | -1   | 09:00:00 | 80
    """,
}
# Of two creatinines in 48 hours, 80 to 106 on p1; in a week, 80 to 120 on p2; of p5 the first may be more than 48 hours before the second.
INJURED = {"quick": True, "slow": True, "little": False, "plain": False, "timeless": None, "once": False, "unseen": None}


def test_creatinine_that_rises_after_contrast():
    asked = commands.load(EXAMPLES / "kidney-injury-after-contrast-ct.yaml")
    tables = {name: rows(name, text) for name, text in CONTRAST.items()}
    read = interpret(asked.question, asked.codes, full(tables))
    injured = {row.one.id: row.answers[2] for row in read}
    assert {name: said for name, said in injured.items() if name != "plain"} == {n: said for n, said in INJURED.items() if n != "plain"}
    plan = compiled(asked.question, asked.codes)
    with duckdb.connect() as connection:
        into_duckdb(connection, tables, plan.tables)
        answer = duck.answer(connection, plan)
        members = {row[0] for row in connection.execute(f"SELECT unit_id FROM flags WHERE passed = {plan.last}").fetchall()}
        assert members == {name for name, said in INJURED.items() if said}
        assert [level.kept for level in answer.levels] == [7, 7, 6, 2]
        shown = duck.shown(connection, plan)
    assert shown == {"quick": (-1, 80.0, 1, 106.0), "slow": (-1, 80.0, 6, 120.0)}
    assert shown.items() <= show(asked.question, asked.codes, read).items()


@pytest.fixture(scope="module")
def nation():
    """Eight hundred people of the nation."""
    found = {}
    for name, piece in nation_tables.pieces(Draws(5), 800):
        if not name.startswith("truth/"):
            found.setdefault(name, []).append(published.filled(name, piece))
    with duckdb.connect(config={"threads": 1}) as connection:
        into_duckdb(connection, {name: pa.concat_tables(pieces).to_pylist() for name, pieces in found.items()})
        yield connection


RISES = """
cohort: 1
id: rises
unit: patient
index: 2015-07-01
population: all
codelists:
  creatinine: {system: read2, codes: [44J3]}
steps:
  - {id: x, change: {event: lab, codes: creatinine, window: [-1000d, 0d], %s}}
"""
PAIRS = """
    WITH lab AS (
        SELECT DISTINCT patient_id, event_id, date, time, CASE WHEN coalesce(comparator, '=') = '=' THEN value_std END AS value
        FROM deidentified_event
        WHERE kind = 'lab' AND system = 'read2' AND starts_with(code, '44J3')
            AND date BETWEEN DATE '2015-07-01' - 1000 AND DATE '2015-07-01'
    )
"""


@pytest.mark.parametrize(
    ("asked", "condition"),
    [
        ("then: {change: {ge: 26}}", "b.date > a.date AND b.value - a.value >= 26"),
        ("gap: [1d, 300d], then: {ratio: {ge: 1.25}}", "b.date - a.date BETWEEN 1 AND 300 AND b.value >= 1.25 * a.value"),
        ("gap: [0h, 7000h], then: {change: {lt: -10}}", "b.at > a.at AND b.at - a.at <= INTERVAL 7000 HOURS AND b.value - a.value < -10"),
        (
            "take: ends, then: {change: {gt: 0}}",
            "b.value > a.value AND b.date > a.date "
            "AND a.event_id = (SELECT event_id FROM lab l WHERE l.patient_id = a.patient_id ORDER BY date, event_id LIMIT 1) "
            "AND b.event_id = (SELECT event_id FROM lab l WHERE l.patient_id = a.patient_id ORDER BY date DESC, event_id LIMIT 1)",
        ),
    ],
)
def test_changes_are_those_that_sql_finds(nation, asked, condition):
    question = yaml_face.from_yaml(RISES % asked)
    codes, faults = resolve(question, EXAMPLES)
    assert faults == []
    plan = compiled(question, codes)
    found = {row[0] for row in nation.execute(plan.sql("duckdb")).fetchall() if row[5] == plan.last}
    timed = f"{PAIRS}, timed AS (SELECT *, date + time::TIME AS at FROM lab)"
    sql = (
        f"{timed} SELECT DISTINCT a.patient_id FROM timed a JOIN timed b USING (patient_id) JOIN deidentified_patient p USING (patient_id) "
    )
    wanted = {row[0] for row in nation.execute(f"{sql} WHERE p.merged_into IS NULL AND {condition}").fetchall()}
    assert found == wanted
    assert 10 < len(found) < 700


def test_scans_out_of_hours_are_those_that_sql_finds(nation):
    asked = commands.load(EXAMPLES / "ct-head-out-of-hours.yaml")
    plan = compiled(asked.question, asked.codes)
    answer = duck.answer(nation, plan)
    head = "FROM deidentified_series WHERE modality = 'CT' AND list_contains(body_region, 'HEAD') AND image_kind = 'ORIGINAL'"
    when = "(isodow(scan_date) >= 6 OR hour(scan_time::TIME) < 9 OR hour(scan_time::TIME) >= 17)"
    by = "year(scan_date), strftime(scan_date, '%a')"
    counted = nation.execute(f"SELECT {by}, count(*) {head} AND {when} GROUP BY ALL").fetchall()
    days = {"Mon": "MON", "Tue": "TUE", "Wed": "WED", "Thu": "THU", "Fri": "FRI", "Sat": "SAT", "Sun": "SUN"}
    assert {cell.values: cell.counts[0] for cell in answer.cells[0]} == {(year, days[day]): n for year, day, n in counted}
    assert answer.levels[-1].kept == sum(n for *_, n in counted) > 0
    missing = nation.execute(f"SELECT count(*) {head} AND scan_time IS NULL AND isodow(scan_date) < 6").fetchone()[0]
    assert answer.levels[-1].unknown == missing
