"""Laws that hold of every question and all tables, whatever the answer is. Asked of the embedded reader, which answers quickly."""

import random
from dataclasses import fields, is_dataclass, replace
from datetime import date, timedelta
from itertools import pairwise

import duckdb
import pyarrow.parquet as pq
import pytest
from cohort_cases import SAVED_RUNS, TABLES, codes_of, dense_tables, into_arrow, into_duckdb, questions
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from pictures_spark.cohort.compile import PREFIX, compiled
from pictures_spark.cohort.model import NoneOf, Step

QUICK = settings(suppress_health_check=list(HealthCheck), max_examples=16, database=None, phases=[Phase.generate])
NUMBERS = st.integers(0, 9999)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def bare(question, *steps):
    """A question of these steps alone: members are who survives them."""
    used = {"pick": None, "match": None, "sample": None, "split": None, "outputs": (), "breakdowns": ()}
    return replace(question, steps=steps, **used)


def asked(connection, question, tables):
    """Every unit's row of the plan."""
    into_duckdb(connection, tables)
    codes = codes_of_all(question)
    return {row[0]: row for row in connection.execute(compiled(question, codes, SAVED_RUNS).sql("duckdb")).fetchall()}


def codes_of_all(question):
    """Code lists, without those that nothing uses any more."""
    used = _codes((question.steps, question.index, question.match, question.outputs))
    return codes_of(replace(question, codelists=tuple(one for one in question.codelists if one.name in used)))


def _codes(node):
    if is_dataclass(node):
        own = set(getattr(node, "codes", ()) or ())
        return own.union(*(_codes(getattr(node, field.name)) for field in fields(node)))
    return set().union(*(_codes(part) for part in node)) if isinstance(node, tuple) else set()


def members(rows, steps):
    """Units that survived so many steps after the population."""
    return {unit for unit, row in rows.items() if row[5] == 1 + steps}


@QUICK
@given(question=questions(), number=NUMBERS)
def test_a_step_never_adds_and_their_order_changes_the_attrition_alone(connection, question, number):
    tables = dense_tables(number)
    steps = question.steps
    whole = members(asked(connection, bare(question, *steps), tables), len(steps))
    assert whole == members(asked(connection, bare(question, *reversed(steps)), tables), len(steps))
    for step in steps:
        assert whole <= members(asked(connection, bare(question, step), tables), 1)


@QUICK
@given(question=questions(), number=NUMBERS)
def test_with_and_without_a_condition_and_unknown_part_those_without_it(connection, question, number):
    tables = dense_tables(number)
    first = question.steps[0]
    within = asked(connection, bare(question, Step("b", first.predicate)), tables)
    without = asked(connection, bare(question, Step("b", NoneOf((first.predicate,)))), tables)
    bit = 1 << 2
    for unit, (_, _, _, holds, unknowns, *_) in within.items():
        opposite = without[unit]
        # Yes here is no there, and unknown is unknown in both.
        assert bool(unknowns & bit) == bool(opposite[4] & bit)
        assert bool(unknowns & bit) or bool(holds & bit) != bool(opposite[3] & bit)


def shifted(node, days):
    """Tables or a question with every date so many days later."""
    if isinstance(node, date):
        return node + days
    if isinstance(node, dict):
        return {name: shifted(value, days) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(shifted(part, days) for part in node)
    if is_dataclass(node):
        return replace(node, **{field.name: shifted(getattr(node, field.name), days) for field in fields(node)})
    return node


@QUICK
@given(question=questions(), number=NUMBERS, days=st.integers(-400, 400).filter(bool))
def test_when_all_days_move_nothing_changes(connection, question, number, days):
    # A month of birth is no day: it moves with none.
    tables = {
        name: [row | ({"birth_month": "1900-01"} if name == "patient" else {}) for row in rows]
        for name, rows in dense_tables(number).items()
    }
    asked_of = {test.column for test in _tests((*question.steps, question.index))}
    assume("birth_month" not in asked_of)
    # Another day may be another day of the week, and of another month and year.
    assume(not any(column.endswith((".year", ".month", ".month_of_year", ".weekday")) for column in asked_of))
    question = bare(question, *question.steps)
    by = timedelta(days=days)
    before, after = asked(connection, question, tables), asked(connection, shifted(question, by), shifted(tables, by))
    assert {unit: row[3:] for unit, row in before.items()} == {unit: row[3:] for unit, row in after.items()}


def _tests(node):
    if is_dataclass(node):
        return ([node] if hasattr(node, "operator") else []) + [
            test for field in fields(node) for test in _tests(getattr(node, field.name))
        ]
    return [test for part in node for test in _tests(part)] if isinstance(node, tuple) else []


@QUICK
@given(question=questions(), number=NUMBERS)
def test_a_record_that_arrives_twice_and_a_stranger_change_nothing_for_anybody(connection, question, number):
    tables = dense_tables(number)
    question = replace(question, match=None, sample=None, outputs=(), breakdowns=())
    before = asked(connection, question, tables)
    tables["event"] = tables["event"] + [row | {"event_id": f"twice{at}"} for at, row in enumerate(tables["event"])]
    stranger = {"patient_id": "stranger"}
    tables["patient"] = [*tables["patient"], tables["patient"][0] | stranger | {"merged_into": None}]
    for name in ("residence", "event"):
        tables[name] = tables[name] + [
            row | stranger | ({"event_id": f"of{at}"} if name == "event" else {}) for at, row in enumerate(tables[name][:3])
        ]
    own = {"study": {"study_id": "tx"}, "series": {"series_id": "sx", "study_id": "tx"}}
    for name, ids in own.items():
        tables[name] = [*tables[name], tables[name][0] | stranger | ids]
    after = asked(connection, question, tables)
    assert {unit: after[unit] for unit in before} == before
    assert set(after) - set(before) <= {"stranger", "tx", "sx"}


@QUICK
@given(question=questions(), number=NUMBERS)
def test_a_pseudonym_that_was_merged_into_another_is_nobody(connection, question, number):
    tables = dense_tables(number)
    before = asked(connection, question, tables)
    tables["patient"] = [*tables["patient"], tables["patient"][0] | {"patient_id": "old", "merged_into": "p1"}]
    assert asked(connection, question, tables) == before


def test_in_how_many_files_a_table_lies_and_in_which_order_changes_nothing(connection, tmp_path_factory):
    chance = random.Random(3)

    @QUICK
    @given(asked_of=st.lists(questions(), min_size=6, max_size=6, unique=True), number=NUMBERS)
    def agree(asked_of, number):
        tables, folder = dense_tables(number), tmp_path_factory.mktemp("files")
        before = [asked(connection, question, tables) for question in asked_of]
        with duckdb.connect(config={"threads": 2}) as other:
            for name in TABLES:
                rows = into_arrow(name, chance.sample(tables.get(name, []), len(tables.get(name, []))))
                ends = sorted(chance.randint(0, rows.num_rows) for _ in range(3))
                for at, (low, high) in enumerate(pairwise([0, *ends, rows.num_rows])):
                    pq.write_table(rows[low:high], folder / f"{name}-{at}.parquet")
                other.execute(f"CREATE VIEW {PREFIX}{name} AS FROM read_parquet('{folder}/{name}-?.parquet')")
            for question, known in zip(asked_of, before, strict=True):
                found = other.execute(compiled(question, codes_of_all(question), SAVED_RUNS).sql("duckdb")).fetchall()
                assert {row[0]: row for row in found} == known

    agree()
