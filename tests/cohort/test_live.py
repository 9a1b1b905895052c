"""A release held in memory says what the plan says, however the question was edited before."""

import threading
from dataclasses import replace

import duckdb
import pytest
from cohort_cases import SAVED_RUNS, codes_of, dense_tables, into_duckdb, questions, rows
from cohort_delta import publish
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pictures_spark.cohort import compile, duck, live
from pictures_spark.cohort.attrition import content_hash
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.model import EVER, Events, Has, Lacks, Nearest, Order, Pick, Question, Step, Test, Where, Window, asked_events
from pictures_spark.errors import InputError
from pictures_spark.zones import Zones

SERIES = """
    series_id | study_id | patient_id | scan_date | modality
    s1        | t1       | p1         | +10       | CT
    s2        | t1       | p1         | +10       | CT
    s3        | t2       | p2         | +10       | MR
"""
QUICK = settings(suppress_health_check=list(HealthCheck), max_examples=8, database=None, phases=[Phase.generate])


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    """Events come into memory in several stretches, as those of a nation do."""
    monkeypatch.setattr(live, "_SORTED", 5)


EACH = 12


def released(connection, tables):
    """The tables held, and under their own names beside them for the plan."""
    into_duckdb(connection, tables)
    for name in compile.TABLES:
        connection.execute(f"CREATE TABLE memory.main.given AS FROM {compile.PREFIX}{name}")
        connection.unregister(f"{compile.PREFIX}{name}")
        connection.execute(f"ALTER TABLE memory.main.given RENAME TO {compile.PREFIX}{name}")
    return live.held(connection, duck.Release("r1", {}))


def asked_both_ways(connection, held, question):
    """What the plan answers, after checking that the held release answers the same."""
    codes = codes_of(question)
    connection.execute("USE memory.main")
    expected = duck.answer(connection, compile.compiled(question, codes, SAVED_RUNS))
    connection.execute("USE live.main")
    try:
        found = held.ask(question, codes, saved=SAVED_RUNS)
    except QuestionError:
        # The plan alone refuses nothing: that a window touches no cover is asked apart.
        return None
    assert found.levels == expected.levels
    ids = held.ids(found)
    assert ids == sorted(ids)
    assert content_hash(ids) == expected.content_sha256
    return expected


@seed(5)
@QUICK
@given(asked=st.lists(questions(), min_size=EACH, max_size=EACH, unique=True), number=st.integers(0, 9999))
def test_generated_questions_are_answered_as_the_plan_answers_them(asked, number):
    with duckdb.connect(config={"threads": 1}) as connection:
        held = released(connection, dense_tables(number))
        answers = [asked_both_ways(connection, held, question) for question in asked]
        assert sum(answer is not None for answer in answers) >= EACH // 2


@seed(6)
@QUICK
@given(question=questions(), others=st.lists(questions(), min_size=3, max_size=3), number=st.integers(0, 9999))
def test_edits_are_answered_from_what_is_known(question, others, number):
    """Steps taken out, put in another order, kept or not where unknown: nothing that was asked before may show."""
    with duckdb.connect(config={"threads": 1}) as connection:
        held = released(connection, dense_tables(number))
        for other in others:
            asked_both_ways(connection, held, other)
        for steps in (question.steps, question.steps[1:], question.steps[::-1], question.steps[:1]):
            if steps:
                for policy in ("exclude", "include"):
                    edited = replace(question, steps=tuple(replace(step, unknown=policy) for step in steps))
                    used = {name for _, events in asked_events(edited) for name in events.codes}
                    lists = tuple(one for one in question.codelists if one.name in used)
                    asked_both_ways(connection, held, replace(edited, codelists=lists))
        asked_both_ways(connection, held, question)


def test_hours_count_from_each_scans_own_time_and_days_beside_them_from_its_day():
    steps = (
        Step("hours", Has(Events(("attendance",), (), Window(-30, 30, "hour"))), "include"),
        Step("days", Has(Events(("diagnosis",), (), Window(-20, 20))), "include"),
        Step("none", Lacks(Events(("lab",), (), Window(-30, 30, "hour"))), "include"),
    )
    question = Question("q", "series", "scan_date", "alive_and_resident", (), steps)
    said = []
    for number in range(4):
        with duckdb.connect(config={"threads": 1}) as connection:
            held = released(connection, dense_tables(number))
            for some in (steps, steps[:1], steps[2:]):
                for population in ("all", "alive_and_resident"):
                    answer = asked_both_ways(connection, held, replace(question, population=population, steps=some))
                    said += [] if answer is None else [level for level in answer.levels if level.step_id == "hours"]
    assert all(any(getattr(level, how) for level in said) for how in ("kept", "failed", "unknown"))


@pytest.fixture
def held():
    with duckdb.connect(config={"threads": 1}) as connection:
        yield released(connection, dense_tables(7))


def test_a_condition_is_asked_of_the_tables_once(held, series_question):
    held.ask(series_question, {})
    known = dict(held._answers)
    more = replace(series_question, steps=(*series_question.steps, Step("more", Where((Test("modality", "eq", ("MR",)),)))))
    held.ask(more, {})
    assert {key: answers is held._answers[key] for key, answers in known.items()} == dict.fromkeys(known, True)
    assert len(held._answers) == len(known) + 1


@pytest.fixture
def series_question():
    return Question("q", "series", "scan_date", "linked", (), (Step("ct", Where((Test("modality", "eq", ("CT",)),))),))


@pytest.mark.parametrize("column", ["modality", "body_region", "sex", "site"])
@pytest.mark.parametrize("among", [False, True])
def test_a_facet_counts_what_sql_counts(held, series_question, column, among):
    found = held.ask(series_question, {}) if among else None
    values = {}
    table = held.connection.execute(
        "SELECT s.series_id, s.patient_id, s.modality, s.body_region, p.sex, t.site FROM memory.main.deidentified_series AS s "
        "LEFT JOIN memory.main.deidentified_patient AS p USING (patient_id) LEFT JOIN memory.main.deidentified_study AS t USING (study_id)"
    ).fetchall()
    ids = set(held.ids(found)) if found else {row[0] for row in table}
    for series_id, patient_id, *cells in table:
        if series_id in ids:
            cell = cells[["modality", "body_region", "sex", "site"].index(column)]
            for value in cell if cell and isinstance(cell, list) else [None if cell == [] else cell]:
                values.setdefault(value, []).append(patient_id)
    expected = {value: (len(people), len(set(people) - {None})) for value, people in values.items()}
    assert {value: (units, people) for value, units, people in held.facet("series", column, found)} == expected


def test_a_question_that_is_cancelled_leaves_the_release_usable(held, series_question):
    # An interrupt before the question starts may be lost, as it may in use: it is sent until the question has ended.
    done = threading.Event()

    def interrupt():
        while not done.wait(0.0005):
            held.cancel()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for number in range(200):
            test = Test("image_count", "ge", (number,))
            try:
                held.ask(replace(series_question, steps=(Step("n", Where((test,))),)), {})
            except live.CancelledError:
                break
        else:
            pytest.fail("no question was cancelled")
    finally:
        done.set()
        thread.join()
    asked_both_ways(held.connection, held, series_question)


class Interrupted:
    """A connection whose statements after so many are interrupted, as by `Live.cancel`."""

    def __init__(self, connection, left):
        self.connection, self.left = connection, left

    def execute(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")
        return self.connection.execute(*arguments)

    def register(self, *arguments):
        return self.connection.register(*arguments)


def test_wherever_a_question_was_cancelled_it_is_answered_when_it_is_asked_again(series_question):
    events = Events(("diagnosis", "dispensing"), (), Window(-20, 20))
    question = replace(
        series_question,
        population="alive_and_resident",
        steps=(*series_question.steps, Step("has", Has(events), unknown="include"), Step("near", Nearest(events), unknown="include")),
        pick=Pick("patient", (Order("scan_date"),)),
    )
    for left in range(200):
        with duckdb.connect(config={"threads": 1}) as connection:
            held = released(connection, dense_tables(7))
            held.connection = Interrupted(connection, left)
            try:
                held.ask(question, {})
            except live.CancelledError:
                held.connection = connection
                assert asked_both_ways(connection, held, question) is not None
            else:
                break
    else:
        pytest.fail("the question never ended")
    assert left > 15


def test_answers_and_windows_of_questions_long_ago_are_let_go(held, series_question, monkeypatch):
    monkeypatch.setattr(live, "_KEPT_WINDOWS", 3)
    monkeypatch.setattr(live, "_KEPT_BYTES", 100)
    for day in [*range(8), *range(8)]:
        step = Step("has", Has(Events(("diagnosis",), (), Window(-day, day))), unknown="include")
        asked_both_ways(held.connection, held, replace(series_question, steps=(step,)))
        assert sum(answers.nbytes for answers, _ in held._answers.values()) <= 100 or len(held._answers) == 1
    tables = held.connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'observed%'").fetchone()
    assert tables == (len(held._windows),)
    assert len(held._windows) <= 3


def test_a_release_is_read_at_its_versions_and_a_new_one_is_seen_when_it_is_opened_again(config, series_question):
    zones = Zones(config, "counter")
    with pytest.raises(InputError, match="nothing is published yet"), live.opened(zones):
        pass
    root = Zones(config, "deidentified").path("deidentified")
    publish(root, {"series": rows("series", SERIES)})
    with live.opened(zones) as held:
        assert held.ask(series_question, {}).levels[-1].kept == 2
        publish(root, {"series": rows("series", SERIES.replace("MR", "CT"))}, release="r2")
        assert held.ask(replace(series_question, population="all"), {}).levels[-1].kept == 2
    with live.opened(zones) as held:
        assert held.ask(replace(series_question, population="all"), {}).levels[-1].kept == 3


def test_too_little_memory_is_said_in_one_sentence(config, monkeypatch):
    zones, connect = Zones(config, "counter"), duckdb.connect
    monkeypatch.setattr(duck.duckdb, "connect", lambda name, config: connect(name, config={**config, "memory_limit": "32MiB"}))
    with (
        pytest.raises(InputError, match=r"do not fit into the 32\.0 MiB of memory .*`pictures cohort freeze`"),
        duck.reader(zones) as connection,
    ):
        connection.execute("CREATE TABLE many AS SELECT range AS number, hash(range) AS other FROM range(10_000_000)")


def test_events_are_packed_stretch_by_stretch(held):
    """No stretch is longer than may be sorted at once unless one code has as many, and none is left out."""
    held._load("event")
    sizes = dict(held.connection.execute("SELECT code_number, events FROM live.event_code").fetchall())
    stretches = list(held._stretches())
    assert len(stretches) > 2
    assert [number for first, last, _ in stretches for number in range(first, last + 1)] == sorted(sizes)
    assert all(first == last or sum(sizes[n] for n in range(first, last + 1)) <= 5 for first, last, _ in stretches)
    known = "SEMI JOIN (SELECT id FROM live.number_patient) AS n ON n.id = e.patient_id"
    counted = held.connection.execute(f"SELECT count(*) FROM memory.main.deidentified_event AS e {known}").fetchone()
    assert held.connection.execute("SELECT count(*) FROM live.deidentified_event").fetchone() == counted


def test_events_that_no_source_can_hold_are_refused(held, series_question):
    held.connection.execute("DELETE FROM memory.main.deidentified_source_cover")
    events = Events(("tumour",), (), EVER)
    with pytest.raises(QuestionError, match=r"question q\.yaml: .*tumour"):
        held.ask(replace(series_question, steps=(Step("tumour", Has(events)),)), {}, "q.yaml")
