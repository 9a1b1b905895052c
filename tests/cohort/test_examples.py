"""The questions of examples/cohorts, asked of planted people: both readings agree, and whoever was planted for a question is found by it,
while whoever only nearly fits is not."""

import duckdb
import pyarrow as pa
import pytest
from cohort_cases import asked_of_spark, expected_rows, for_few_rows, full, into_duckdb, into_spark

from pictures_spark.cohort import commands, duck
from pictures_spark.cohort.compile import DIALECTS, Saved, compiled
from pictures_spark.cohort.interpreter import World, count, interpret, show
from pictures_spark.cohort.model import saved_cohorts
from pictures_spark.resources import schemas_dir
from pictures_spark.synthetic import nation_tables, published
from pictures_spark.synthetic.draws import Draws
from pictures_spark.synthetic.questions import cases

EXAMPLES = sorted((schemas_dir().parent / "examples" / "cohorts").glob("*.yaml"))
# The planted cases that an example of the same number answers.
NUMBERED = {path.stem.partition("-")[0].lstrip("0"): path for path in EXAMPLES if path.stem[0].isdigit()}


@pytest.fixture(scope="module")
def planted():
    """The planted people, and nobody else, in memory; with the frozen cohorts that an example refers to: examples too."""
    found = {}
    for name, piece in nation_tables.pieces(Draws(11), 0):
        found.setdefault(name, []).append(piece if name.startswith("truth/") else published.filled(name, piece))
    rows = {name: pa.concat_tables(pieces).to_pylist() for name, pieces in found.items()}
    names = sorted({name for path in EXAMPLES for name in saved_cohorts(commands.load(path).question)})
    saved = {}
    for name in names:
        asked = commands.load(EXAMPLES[0].parent / f"{name}.yaml")
        of = interpret(asked.question, asked.codes, World(full(rows)), {})
        saved[name] = frozenset(row.one.id for row in of if row.passed == compiled(asked.question, asked.codes).last)
        assert asked.question.unit == "series"
    rows["cohort_member"] = [{"cohort_run_id": name, "unit_id": unit_id} for name, ids in saved.items() for unit_id in ids]
    with duckdb.connect(config={"threads": 1}) as connection:
        into_duckdb(connection, rows)
        yield connection, World(full(rows)), saved, rows["truth/questions"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_answered_alike_by_both_readings_and_by_the_key(planted, path):
    connection, world, saved, key = planted
    asked = commands.load(path)
    question = asked.question
    plan = compiled(question, asked.codes, {name: Saved(name, "series") for name in saved})
    assert all(plan.sql(dialect) for dialect in DIALECTS)
    answer = duck.answer(connection, plan)
    rows = interpret(question, asked.codes, world, {name: ("series", ids) for name, ids in saved.items()})
    found = connection.execute("SELECT * FROM flags").fetchall()
    assert sorted(row[:6] for row in found) == expected_rows(rows)
    assert [{cell.values: cell.counts for cell in cells} for cells in answer.cells] == count(
        question, rows, show(question, asked.codes, rows)
    )
    if plan.columns:
        assert duck.shown(connection, plan, members=False) == show(question, asked.codes, rows)
    numbers = {number for number, numbered in NUMBERED.items() if numbered == path}
    judged = {row["uid"]: row["answer"] == "yes" for row in key if row["question"] in numbers}
    members = {row[0] for row in found if row[5] == plan.last}
    assert members & judged.keys() == {uid for uid, inside in judged.items() if inside}


def test_every_question_that_people_were_planted_for_is_an_example():
    assert {case.question for case in cases()} <= set(NUMBERED)


def test_examples_say_in_prose_what_they_ask():
    for path in EXAMPLES:
        head = [line for line in path.read_text().splitlines() if line.startswith("# ")]
        assert len(" ".join(head)) > 60, path.name


@pytest.mark.spark
def test_spark_answers_the_examples_as_the_embedded_reader_does(spark, planted):
    connection, world, saved, _ = planted
    into_spark(spark, dict(world.tables))
    with for_few_rows(spark):
        for path in EXAMPLES:
            asked = commands.load(path)
            asked_of_spark(spark, connection, compiled(asked.question, asked.codes, {name: Saved(name, "series") for name in saved}))
