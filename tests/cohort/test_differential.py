"""Two readings of the same question: the naive interpreter and the compiled SQL must say the same, unit by unit and step by step."""

from collections import Counter
from dataclasses import replace

import duckdb
import pytest
from cohort_cases import cases, codes_of, dense_tables, full, into_duckdb, into_spark, tables_for
from cohort_interpreter import interpret
from hypothesis import HealthCheck, Phase, given, settings
from sqlglot import exp

from pictures_spark.cohort import duck, yaml_face
from pictures_spark.cohort.attrition import Answer, Level, content_hash
from pictures_spark.cohort.compile import compiled

# Generated tables are large draws for Hypothesis, and the health checks measure a machine that others use.
QUICK = settings(suppress_health_check=list(HealthCheck), max_examples=100)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def expected_rows(rows):
    """(unit, patient, index date, bits that hold, bits that are unknown, how far it got) as the interpreter says."""
    found = []
    for row in rows:
        holds = 1 + sum(2 << i for i, said in enumerate(row["answers"]) if said is True)
        unknowns = sum(2 << i for i, said in enumerate(row["answers"]) if said is None)
        found.append((row["unit_id"], row["patient_id"], row["unit"]["index"], holds, unknowns, row["passed"]))
    return sorted(found)


def expected_answer(question, plan, rows):
    """The attrition, counted row by row from the interpreter's answers."""
    policies = ["exclude", *(step.unknown for step in question.steps), "exclude"]
    levels, left = [], rows
    for index, step in enumerate(plan.steps):
        answers = [row["answers"][index - 1] for row in left] if index else []
        kept = [r for r, a in zip(left, answers, strict=True) if a or (a is None and policies[index - 1] != "exclude")] if index else left
        people = {row["patient_id"] for row in kept} - {None}
        levels.append(Level(index, step.id, step.sentence, len(kept), answers.count(False), answers.count(None), len(people)))
        left = kept
    return Answer(tuple(levels), content_hash(row["unit_id"] for row in left))


def differential(connection, case, mutate=lambda flags: flags):
    """Ask both, compare everything; returns how much of the universe the cohort is."""
    question, codes, tables = case
    plan = compiled(question, codes)
    plan = replace(plan, flags=mutate(plan.flags))
    into_duckdb(connection, tables, plan.tables)
    answer = duck.answer(connection, plan)
    rows = interpret(question, codes, full(tables))
    assert sorted(connection.execute("SELECT * FROM flags").fetchall()) == expected_rows(rows)
    assert answer == expected_answer(question, plan, rows)
    return "empty" if not answer.members else "full" if answer.members == answer.seen else "between"


def test_the_embedded_reader_says_what_the_interpreter_says(connection):
    sizes = Counter()

    @QUICK
    @given(case=cases())
    def agree(case):
        sizes[differential(connection, case)] += 1

    agree()
    print(dict(sizes))
    # Cohorts that are empty or everything would agree by accident.
    assert sizes["between"] >= sizes.total() * 0.3


def in_steps(change):
    """A mutation of the comparisons that answer steps, leaving the plumbing alone."""

    def mutate(flags):
        flags = flags.copy()
        for cte in flags.args["with_"].expressions:
            if cte.alias not in ("judged", "residence_days", "residence_opens", "residence_islands", "spell"):
                cte.set("this", cte.this.transform(change))
        return flags

    return mutate


def less_for_at_most(node):
    return exp.LT(this=node.this, expression=node.expression) if isinstance(node, exp.LTE) else node


def window_one_day_off(node):
    shifted = isinstance(node, exp.Add | exp.Sub) and node.this.name == "index_day" and node.expression.is_int
    return type(node)(this=node.this, expression=exp.Literal.number(int(node.expression.name) + 1)) if shifted else node


def missing_counts_as_no(node):
    answer = isinstance(node, exp.Alias) and node.alias.startswith("step_")
    return exp.alias_(exp.Coalesce(this=node.this, expressions=[exp.false()]), node.alias) if answer else node


def everything_is_observed(flags):
    flags = flags.copy()
    for cte in flags.args["with_"].expressions:
        if cte.alias.startswith("observed"):
            cte.set("this", exp.select("unit_id").from_("unit"))
    return flags


def same_day_events_count_twice(node):
    if isinstance(node, exp.Count) and isinstance(node.this, exp.Distinct):
        return exp.Count(this=node.this.expressions[0])
    if isinstance(node, exp.Select) and node.args.get("distinct") and "day" in node.named_selects:
        node.set("distinct", None)
    return node


def systems_mixed(node):
    return exp.true() if isinstance(node, exp.EQ) and node.this.name == "system" else node


def without_tie_keys(flags):
    flags = flags.copy()
    for window in flags.find_all(exp.Window):
        if isinstance(window.this, exp.RowNumber) and len(window.args["order"].expressions) > 2:
            window.args["order"].set("expressions", window.args["order"].expressions[:2])
    return flags


def missing_first(flags):
    return flags.transform(
        lambda node: (
            exp.Ordered(this=exp.Neg(this=node.this)) if isinstance(node, exp.Ordered) and isinstance(node.this, exp.Case) else node
        )
    )


def unknown_kept(flags):
    """The policy of every step is lost: unknown passes."""
    return flags.transform(
        lambda node: (
            exp.Coalesce(this=node.this, expressions=[exp.true()])
            if isinstance(node, exp.Coalesce) and node.this.name.startswith("step_")
            else node
        )
    )


MUTANTS = {
    "less for at most": in_steps(less_for_at_most),
    "window one day off": in_steps(window_one_day_off),
    "missing counts as no": in_steps(missing_counts_as_no),
    "everything is observed": everything_is_observed,
    "same-day events count twice": in_steps(same_day_events_count_twice),
    "coding systems mixed": in_steps(systems_mixed),
    "ties without a last key": without_tie_keys,
    "missing values first": missing_first,
    "unknown kept": unknown_kept,
}


# Everything that an engine could read in its own way, in one question: Spark is slow to start, not to think.
RICH = """
cohort: 1
id: rich
unit: series
population: linked
codelists:
  strokes: {system: icd10, codes: [I61, I639]}
  stroke_itself: {system: icd10, codes: [I61], expand: exact}
  drug: {system: bnf, codes: [2.8.2]}
steps:
  - {id: texts, where: {scan_time: [plain, "it's", 'back\\slash', "per%cent"]}, unknown: report}
  - {id: sets, where: {body_region: {ne: [HEAD]}, conflict_flags: [plain, "it's"]}, unknown: include}
  - {id: numbers, where: {slice_thickness_max: {gt: -1, le: 1.5}, echo_time: {between: [-1, 1.5000000000000002]}}, unknown: include}
  - {id: wholes, where: {age_at: {ge: 65}, image_count: {ne: 80}}, unknown: report}
  - {id: flags, where: {after_death: false, kvp: {is_missing: false}}, unknown: include}
  - {id: dates, where: {study_date: {between: [2010-02-05, 2010-03-10]}, death_date: {is_missing: true}}, unknown: include}
  - {id: choices, where: {contrast: {ne: "no"}, sex: {ne: [M]}}, unknown: include}
  - {id: has_some, has: {event: [diagnosis, death_cause], codes: [strokes, stroke_itself], window: [-20d, 5d]}, unknown: report}
  - {id: has_two, has: {event: diagnosis, window: [-20d, ever], at_least: 2}, unknown: include}
  - {id: has_none, lacks: {event: dispensing, codes: drug, ever: true}, unknown: include}
  - {id: first_one, first: {event: diagnosis, codes: strokes, ever: true, window: [-9d, 9d]}, unknown: include}
pick: {one_per: study, order: [-slice_thickness_max, scan_time]}
"""


# Each way of asking for events, and ties among survivors: questions to be asked of dense tables.
EVENTS = """
cohort: 1
id: events
unit: series
population: all
codelists:
  strokes: {system: icd10, codes: [I61, I639]}
  drug: {system: bnf, codes: [0208020]}
steps:
  - {id: coded, has: {event: diagnosis, codes: strokes, window: [-3d, 3d]}, unknown: exclude}
  - {id: twice, has: {event: [diagnosis, death_cause], window: [-8d, 0d], at_least: 2}, unknown: report}
  - {id: none_yet, lacks: {event: dispensing, codes: drug, window: [-9d, -1d]}, unknown: include}
  - {id: never, lacks: {event: procedure, ever: true}, unknown: report}
  - {id: first_ever, first: {event: diagnosis, codes: strokes, ever: true, window: [0d, 9d]}, unknown: include}
  - {id: first_open, first: {event: diagnosis, ever: true, window: [-5d, ever]}, unknown: include}
"""
TIES = """
cohort: 1
id: ties
unit: series
population: all
steps:
  - {id: any, where: {scan_date: {is_missing: false}}}
pick: {one_per: patient, order: [slice_thickness_max, -image_count]}
"""


def dense_cases(count):
    """Two questions, in turn, of ever other dense tables."""
    questions = [yaml_face.from_yaml(text) for text in (EVENTS, TIES)]
    return ((question, codes_of(question), dense_tables(seed)) for seed in range(count) for question in questions)


def test_dense_events_are_read_alike(connection):
    for case in dense_cases(15):
        differential(connection, case)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_compiler_is_caught(connection, mutant):
    plans = [compiled(question, codes).flags for question, codes, _ in dense_cases(1)]
    assert any(MUTANTS[mutant](flags) != flags for flags in plans), "nothing was broken"

    def agree():
        for case in dense_cases(15):
            differential(connection, case, MUTANTS[mutant])

    with pytest.raises(AssertionError):
        agree()


@pytest.mark.spark
@pytest.mark.parametrize("kind", ["rich", "any"])
def test_spark_says_what_the_embedded_reader_says(spark, connection, kind):
    rich = yaml_face.from_yaml(RICH)
    asked = tables_for(rich).map(lambda tables: (rich, codes_of(rich), tables)) if kind == "rich" else cases()

    @settings(QUICK, phases=[Phase.generate], max_examples=2 if kind == "rich" else 4)
    @given(case=asked)
    def agree(case):
        question, codes, tables = case
        plan = compiled(question, codes)
        into_duckdb(connection, tables, plan.tables)
        into_spark(spark, tables, plan.tables)
        found = [tuple(row) for row in spark.sql(plan.sql("spark")).collect()]
        assert sorted(found, key=str) == sorted(connection.execute(plan.sql("duckdb")).fetchall(), key=str)

    agree()


def test_the_rich_question_is_read_alike(connection):
    rich = yaml_face.from_yaml(RICH)

    @settings(QUICK, max_examples=8)
    @given(tables=tables_for(rich))
    def agree(tables):
        differential(connection, (rich, codes_of(rich), tables))

    agree()
