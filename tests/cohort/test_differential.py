"""Two readings of the same question: the reference interpreter and the compiled SQL must say the same, unit by unit and step by step."""

import dataclasses
from collections import Counter
from dataclasses import replace
from typing import get_args

import duckdb
import pytest
from cohort_cases import (
    NODES,
    SAVED_RUNS,
    asked_of_spark,
    codes_of,
    dense_tables,
    expected_rows,
    for_few_rows,
    full,
    into_duckdb,
    into_spark,
    questions,
    saved_of,
)
from houses import CHAOS
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sqlglot import exp

from pictures_spark.cohort import duck, model, yaml_face
from pictures_spark.cohort.attrition import Answer, Level, content_hash
from pictures_spark.cohort.compile import compiled
from pictures_spark.cohort.interpreter import World, count, interpret, show

# Generated questions are large draws for Hypothesis, and the health checks measure a machine that others use.
QUICK = settings(suppress_health_check=list(HealthCheck), max_examples=100, database=None, phases=[Phase.generate])
# Each set of tables is asked so many questions: reading them in takes longer than asking.
EACH = 16
# Two thousand different questions in every run, and as many others in make chaos. Each part is a test of its own, so that they run at once.
SHARDS = 8 if CHAOS else 4
OF_SHARD = 33 * EACH


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def expected_answer(question, plan, rows):
    """The attrition, counted row by row from the interpreter's answers."""
    policies = ["exclude", *(step.unknown for step in question.steps), *["exclude"] * 4]
    levels, left = [], rows
    for index, step in enumerate(plan.steps):
        answers = [row.answers[index - 1] for row in left] if index else []
        kept = [r for r, a in zip(left, answers, strict=True) if a or (a is None and policies[index - 1] != "exclude")] if index else left
        people = {row.one.person for row in kept} - {None}
        levels.append(Level(index, step.id, step.sentence, len(kept), answers.count(False), answers.count(None), len(people)))
        left = kept
    return Answer(tuple(levels), content_hash(row.one.id for row in left))


def differential(connection, question, tables, mutate=None):
    """Ask both of tables that the connection has, compare everything; returns how much of the universe the cohort is."""
    codes = codes_of(question)
    plan = compiled(question, codes, SAVED_RUNS)
    if mutate is not None:
        plan = replace(plan, flags=mutate(plan.flags.copy()), shown=mutate(plan.shown.copy()) if plan.shown is not None else None)
    world = tables if isinstance(tables, World) else World(tables)
    saved = saved_of(world.tables)
    rows = interpret(question, codes, world, saved)
    members = sum(row.passed == plan.last for row in rows)
    if mutate is not None:
        answer = duck.answer(connection, plan)
        assert replace(answer, cells=()) == expected_answer(question, plan, rows)
    elif plan.shown is not None:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE flags AS {plan.sql('duckdb')}")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE rows_shown AS {plan.shown.sql('duckdb')}")
        plan = replace(plan, shown=exp.select("*").from_("rows_shown"))
    asked = plan.sql("duckdb") if mutate is None and plan.shown is None else "SELECT * FROM flags"
    found = connection.execute(asked).fetchall()
    assert sorted(row[:6] for row in found) == expected_rows(rows)
    if question.split is not None:
        assert {row[0]: row[6] for row in found} == {row.one.id: row.part for row in rows}
    if plan.pairs is not None:
        pairs = connection.execute(plan.pairs.sql("duckdb")).fetchall()
        wanted = [(row.one.id, control, place) for row in rows for place, control in enumerate(row.controls, start=1)]
        assert sorted(pairs) == sorted(wanted)
    if plan.shown is not None:
        assert duck.shown(connection, plan, members=False) == (show(question, codes, rows, saved) if plan.columns else {})
        assert [dict(counted) for counted in duck.counted(connection, plan)] == count(question, rows, show(question, codes, rows, saved))
    return "empty" if not members else "full" if members == len(rows) else "between"


def predicates(predicate):
    yield type(predicate).__name__
    for part in getattr(predicate, "parts", ()):
        yield from predicates(part)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_generated_questions_are_read_as_the_interpreter_reads_them(connection, shard):
    sizes, kinds, different = Counter(), Counter(), set()

    # Hypothesis likes to draw again what it has drawn, so that without `unique` half of them would be the same.
    @seed(shard)
    @settings(QUICK, max_examples=OF_SHARD // EACH)
    @given(asked=st.lists(questions(), min_size=EACH, max_size=EACH, unique=True), number=st.integers(0, 9999))
    def agree(asked, number):
        different.update(asked)
        tables = dense_tables(number)
        into_duckdb(connection, tables)
        world = World(full(tables))
        for question in asked:
            try:
                sizes[differential(connection, question, world)] += 1
            except AssertionError as error:
                error.add_note(f"of tables {number}:\n{yaml_face.to_yaml(question)}")
                raise
            kinds.update({kind for step in question.steps for kind in predicates(step.predicate)})

    agree()
    print(len(different), dict(sizes), dict(kinds))
    assert len(different) >= 500
    # Cohorts that are empty or everything would agree by accident.
    assert sizes["between"] >= sizes.total() * 0.5
    assert set(kinds) == {kind.__name__ for kind in get_args(model.Predicate)}
    assert min(kinds.values()) >= 10


def test_every_kind_of_node_is_drawn():
    nodes = {value for value in vars(model).values() if isinstance(value, type) and dataclasses.is_dataclass(value)}
    assert nodes - set(NODES) == set()


def in_steps(change):
    """A mutation of the comparisons that answer steps, leaving the plumbing alone."""

    def mutate(flags):
        flags = flags.copy()
        for cte in flags.args["with_"].expressions:
            if cte.alias not in ("judged", "picked", "residence_days", "residence_opens", "residence_islands", "spell"):
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
    for cte in flags.args["with_"].expressions:
        if cte.alias == "observed":
            for column in cte.this.expressions:
                if column.alias.startswith("is_"):
                    column.set("this", exp.Literal.number(1))
    return flags


def same_day_events_count_twice(node):
    if isinstance(node, exp.Count) and isinstance(node.this, exp.Distinct):
        return exp.Count(this=node.this.expressions[0])
    if isinstance(node, exp.Select) and node.args.get("distinct") and "day" in node.named_selects:
        node.set("distinct", None)
    return node


def not_in_with_a_missing_value(node):
    if isinstance(node, exp.Not) and isinstance(node.this, exp.In | exp.EQ):
        found = node.this.expressions if isinstance(node.this, exp.In) else [node.this.expression]
        return exp.Not(this=exp.In(this=node.this.this, expressions=[*found, exp.null()]))
    return node


def itself_is_another(node):
    found = isinstance(node, exp.EQ) and node.expression.name == "other_id"
    return exp.EQ(this=exp.Literal.number(1), expression=exp.Literal.number(2)) if found else node


def gaps_do_not_matter(node):
    return exp.alias_(exp.Literal.number(0), "opens") if isinstance(node, exp.Alias) and node.alias == "opens" else node


def any_for_all(node):
    """The parts of a nested step, each of which has its own condition."""
    nested = isinstance(node, exp.Or) and node.find_ancestor(exp.Alias) and node.find_ancestor(exp.Alias).alias.startswith("step_")
    return exp.And(this=node.this, expression=node.expression) if nested else node


def seed_lost(node):
    return exp.Literal.string("") if isinstance(node, exp.Literal) and node.name.startswith("one:") else node


def one_number_of_a_span(node):
    found = isinstance(node, exp.Column) and node.name.endswith("_most")
    return exp.column(node.name.removesuffix("_most"), node.table) if found else node


def systems_mixed(node):
    return exp.true() if isinstance(node, exp.EQ) and node.this.name == "system" else node


def without_tie_keys(flags):
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


def ties_to_the_later(node):
    """The nearest of two as near, by the sign of its distance."""
    near = isinstance(node, exp.Ordered) and isinstance(node.this, exp.Column) and node.this.name == "gap"
    return exp.Ordered(this=exp.Neg(this=node.this)) if near else node


def outcome_on_the_last_day_lost(flags):
    return flags.transform(
        lambda node: (
            exp.LT(this=node.this, expression=node.expression) if isinstance(node, exp.LTE) and node.this.name.startswith("of_") else node
        )
    )


def follow_up_beyond_cover(flags):
    """Follow-up ends with the cover of one source less."""
    return flags.transform(lambda node: exp.Max(this=node.this) if isinstance(node, exp.Min) and node.find(exp.DateDiff) else node)


def one_event_makes_a_stay(node):
    held = isinstance(node, exp.EQ) and isinstance(node.this, exp.Coalesce) and node.this.this.name == "holds_1"
    return exp.true() if held else node


def a_stay_that_lasts_is_none(node):
    lasting = isinstance(node, exp.Or) and isinstance(node.this, exp.Is) and node.this.find(exp.DateDiff) is not None
    return node.expression if lasting else node


def bounds_are_numbers(node):
    bound = isinstance(node, exp.Case) and any(column.name == "comparator" for column in node.args["ifs"][0].this.find_all(exp.Column))
    return node.args["ifs"][0].args["true"] if bound else node


def cancelled_reports_count(node):
    return exp.false() if isinstance(node, exp.EQ) and node.expression.name == "cancelled" else node


def first_home_for_ever(node):
    return exp.column("until_day") if isinstance(node, exp.Least) and node.this.name == "until_day" else node


def both_sides_of_the_split(node):
    early = isinstance(node, exp.EQ) and node.this.name == "early"
    return exp.false() if early else node


def undated_scans_are_sure(node):
    sure = isinstance(node, exp.Case) and node.find(exp.Sub) and isinstance(node.args["ifs"][0].this, exp.Not)
    return exp.true() if sure and node.args["ifs"][0].args["true"] == exp.true() else node


def one_control_of_two_cases(node):
    free = isinstance(node, exp.Is) and isinstance(node.this, exp.Column) and node.this.table == "taken"
    return exp.true() if free else node


def cases_are_their_own_controls(node):
    others = isinstance(node, exp.Is) and isinstance(node.this, exp.Column) and node.this.table == "of_case"
    return exp.true() if others else node


def risk_sets_of_the_healthy(node):
    later = isinstance(node, exp.GT) and node.this.name == "had_day"
    return exp.false() if later else node


def a_missing_time_is_midnight(node):
    """The last second of a day is its first."""
    last = isinstance(node, exp.Coalesce) and node.expressions[0].name == str(24 * 3600 - 1)
    return exp.Coalesce(this=node.this, expressions=[exp.Literal.number(0)]) if last else node


def hours_of_whole_days(node):
    """The time of day does not count."""
    time = isinstance(node, exp.Substring) and node.this.name in ("scan_time", "series_scan_time", "time")
    return exp.Literal.string("00") if time else node


def a_fall_is_a_rise(node):
    fell = isinstance(node, exp.Sub) and node.this.name == "value_std" and node.expression.name == "value_std"
    return exp.Sub(this=node.expression, expression=node.this) if fell else node


def measured_twice_a_day(node):
    """Two measurements of one day are a change from the one to the other."""
    later = isinstance(node, exp.Sub) and node.this.name == "day" and getattr(node.this, "table", "") == "later"
    return exp.Add(this=node.copy(), expression=exp.Literal.number(1)) if later else node


def the_week_begins_on_sunday(node):
    monday = isinstance(node, exp.Add) and isinstance(node.this, exp.DateDiff) and node.expression.name == "3"
    return exp.Add(this=node.this, expression=exp.Literal.number(4)) if monday else node


def clean_before_text(node):
    if isinstance(node, exp.Case) and len(node.args["ifs"]) == 3 and node.args["ifs"][0].args["true"].name == "text":
        return exp.Case(ifs=[branch.copy() for branch in reversed(node.args["ifs"])], default=exp.null())
    return node


MUTANTS = {
    "ties of the nearest to the later": lambda flags: flags.transform(ties_to_the_later),
    "an outcome on the last day of follow-up is lost": outcome_on_the_last_day_lost,
    "follow-up beyond the cover": follow_up_beyond_cover,
    "one event makes a stay": in_steps(one_event_makes_a_stay),
    "a stay that lasts is none": in_steps(a_stay_that_lasts_is_none),
    "bounds are numbers": in_steps(bounds_are_numbers),
    "cancelled reports count": in_steps(cancelled_reports_count),
    "the first home for ever": lambda flags: flags.transform(first_home_for_ever),
    "a patient on both sides of a split": lambda flags: flags.transform(both_sides_of_the_split),
    "a scan without a day is surely near": in_steps(undated_scans_are_sure),
    "one control of two cases": lambda flags: flags.transform(one_control_of_two_cases),
    "cases are controls of one another": lambda flags: flags.transform(cases_are_their_own_controls),
    "risk sets of those who never had it": lambda flags: flags.transform(risk_sets_of_the_healthy),
    "a missing time is midnight": in_steps(a_missing_time_is_midnight),
    "hours of whole days": lambda flags: flags.transform(hours_of_whole_days),
    "a fall is a rise": in_steps(a_fall_is_a_rise),
    "measured twice a day": in_steps(measured_twice_a_day),
    "the week begins on Sunday": lambda flags: flags.transform(the_week_begins_on_sunday),
    "clean before text": lambda flags: flags.transform(clean_before_text),
    "less for at most": in_steps(less_for_at_most),
    "window one day off": in_steps(window_one_day_off),
    "missing counts as no": in_steps(missing_counts_as_no),
    "NOT IN with a missing value": in_steps(not_in_with_a_missing_value),
    "everything is observed": everything_is_observed,
    "same-day events count twice": in_steps(same_day_events_count_twice),
    "coding systems mixed": in_steps(systems_mixed),
    "a scan is another of itself": in_steps(itself_is_another),
    "gaps of a chain do not matter": in_steps(gaps_do_not_matter),
    "all for any": lambda flags: flags.transform(any_for_all),
    "one number of a span": in_steps(one_number_of_a_span),
    "seed of a sample lost": lambda flags: flags.transform(seed_lost),
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
  - {id: last_one, last: {event: diagnosis, ever: true, window: [-9d, 9d]}, unknown: include}
  - {id: chained, chain: {event: [diagnosis, dispensing], window: [-20d, ever], at_least: 3, gap: [1d, 9d], within: 15d}, unknown: include}
  - id: covered
    any: [{cover: {event: dispensing, window: [-9d, 0d]}}, {none: [{where: {scan_time: {matches: '(?i)^[^a-k]..?.?I|\\\\'}}}]}]
  - id: tags
    where: {tag.SliceThickness: {le: 1.5}, tag.ScanningSequence: {ne: SE}, feature.intensity_mean@1.max: {ge: 1.5}}
    unknown: include
  - id: others
    related: {unit: series, of: patient, where: {image_count: {ge: 65}}, window: [-20d, 20d], same: [frame_of_reference_id],
      at_least: 2, within: 15d}
    unknown: include
  - id: stayed
    stay: {has: [{event: diagnosis, codes: strokes}, {event: procedure}], begins: [-20d, 20d], ends: [0d, ever]}
    unknown: include
  - {id: high, has: {event: diagnosis, window: [0d, 20d], from: start_of_stay, where: {value_std: {gt: 1.5}}}, unknown: include}
  - {id: near, nearest: {event: diagnosis, window: [-20d, 20d], then: {value_std: {le: 1.5}}}, unknown: include}
  - {id: scan, nearest: {unit: series, of: patient, take: latest, then: {tag.SliceThickness: {le: 1.5}}}, unknown: include}
  - {id: text, where: {text_verdict: {ne: text}, simd_quintile: {ne: 1}}, unknown: include}
  - {id: far, related: {unit: series, of: patient, at_least: 2, apart: 9d, related: {unit: series, of: study}}, unknown: include}
  - {id: reported, report: {finding: infarct, of: patient, window: [-20d, 20d]}, unknown: include}
  - {id: was_in, any: [{in: {cohort: old-people, level: patient}}, {in: {cohort: old-series, level: series}}], unknown: include}
  - {id: late, gap: {from: study_date, to: scan_date, days: [-5d, 5d]}, unknown: include}
  - id: hours
    any: [{has: {event: attendance, window: [-30h, 4h]}}, {gap: {from: study_date, to: index, days: [0h, ever]}}]
    unknown: include
  - {id: soon, nearest: {event: lab, window: [-30h, 30h], then: {value_std: {le: 1.5}}}, unknown: include}
  - {id: beside, related: {unit: series, of: patient, window: [-40h, 12h]}, unknown: include}
  - {id: other, related: {unit: series, of: patient, differ: [modality], ratio: {image_count: {ge: 0.5}}}, unknown: include}
  - {id: lasting, has: {event: [diagnosis, dispensing], window: [-20d, 20d], at_least: 2, apart: 9d}, unknown: include}
  - {id: stays, stay: {has: [{event: diagnosis}], begins: [-40d, 40d], days: [1d, ever], at_least: 2}, unknown: include}
  - {id: told, where: {tag.SeriesDescription: {matches: "^[A-Z]2|5"}, description_norm: {matches: "a"}}, unknown: include}
  - id: parts
    where: {scan_date.weekday: {ne: [SUN]}, scan_date.month_of_year: {ge: 2}, scan_date.month: {ne: 2010-04}, study_time.hour: {le: 22}}
    unknown: include
  - {id: rose, change: {event: lab, window: [-40d, 40d], gap: [0h, 300h], then: {change: {gt: 0}}}, unknown: include}
  - {id: fell, change: {event: lab, ever: true, gap: [1d, 20d], then: {ratio: {le: 2}, change: {ne: 0.5}}}, unknown: include}
  - {id: ends, change: {event: lab, where: {date.weekday: {ne: WED}}, ever: true, take: ends, then: {change: {le: 9}}}, unknown: include}
pick: {one_per: study, order: [-slice_thickness_max, scan_date.weekday, scan_time]}
sample: {size: 2, seed: one, strata: [modality, scan_date.year]}
split: {parts: {a: 60, b: 40}, seed: one}
output:
  - {id: dementia, follow_up: {event: [diagnosis, dispensing], codes: [strokes, drug], window: [1d, 30d], until: 2010-03-05}}
  - {id: near, nearest: {event: [diagnosis, dispensing], window: [-20d, 20d], take: earliest}, give: [gap, date, code, value_std]}
  - {id: other, nearest: {unit: series, of: patient}, give: [gap, series_id]}
  - {id: lag, gap: {from: study_date, to: scan_date}}
  - {id: hours, nearest: {event: [attendance, lab], window: [-48h, 48h]}, give: [gap, time]}
  - {id: age, column: age_at}
count:
  - {by: [scan_date.year, age_at.decade, sex, health_board]}
  - {by: [scan_date.month, image_count.five, dementia_end, near_code]}
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
SCANS = """
cohort: 1
id: scans
unit: series
population: all
steps:
  - {id: not_these, where: {modality: {ne: [AR, ASMT]}, tag.SliceThickness: {between: [-1, 1.5]}}, unknown: include}
  - {id: either, any: [{where: {kvp: {ge: 1.5}}}, {where: {image_count: {ge: 65}}}], unknown: report}
  - {id: others, related: {unit: series, of: patient, window: [-9d, 9d], at_least: 2}, unknown: report}
  - id: studies
    related: {unit: series, of: patient, where: {image_count: {ge: 65}}, count: study, at_least: 2, within: 9d}
    unknown: report
  - {id: chained, chain: {event: diagnosis, ever: true, at_least: 3, gap: [1d, 9d]}, unknown: include}
  - {id: runs, chain: {event: [diagnosis, dispensing], window: [-20d, 20d], at_least: 4, within: 15d}, unknown: include}
sample: {size: 2, seed: one}
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


STAYS = """
cohort: 1
id: stays
unit: study
population: all
codelists:
  strokes: {system: icd10, codes: [I61, I639, I64]}
steps:
  - {id: stayed, stay: {has: [{event: diagnosis}, {event: procedure}], begins: [-20d, 20d]}, unknown: report}
  - {id: left, stay: {has: [{event: diagnosis, codes: strokes}], begins: [ever, 0d], ends: [0d, ever]}, unknown: report}
  - {id: discharged, has: {event: dispensing, window: [0d, 9d], from: end_of_stay}, unknown: report}
  - {id: admitted, has: {event: [diagnosis, dispensing], window: [0d, 5d], from: start_of_stay}, unknown: report}
  - {id: high, has: {event: [diagnosis, dispensing], window: [-20d, 20d], where: {value_std: {gt: 1.5}}}, unknown: report}
  - {id: reported, report: {finding: infarct}, unknown: report}
  - {id: poor, where: {simd_quintile: 1}, unknown: report}
  - {id: was_in, none: [{in: {cohort: old-series, level: patient}}], unknown: report}
  - {id: late, gap: {from: study_date, to: scan_date, days: [-5d, 5d]}, unknown: report}
output:
  - {id: dementia, follow_up: {event: [diagnosis, dispensing], window: [1d, ever], until: 2010-03-05}}
  - {id: soon, follow_up: {event: [diagnosis, dispensing, procedure], window: [0d, 3d]}}
  - {id: second, follow_up: {event: [diagnosis, death_cause], window: [0d, ever]}}
  - {id: near, nearest: {event: [diagnosis, dispensing], window: [-20d, 20d]}, give: [gap, code, value_std]}
  - {id: other, nearest: {unit: series, of: patient, take: latest}, give: [gap, series_id]}
"""
HOURS = """
cohort: 1
id: hours
unit: series
population: all
steps:
  - {id: came, has: {event: attendance, window: [-12h, 1h]}, unknown: report}
  - {id: not_tested, lacks: {event: lab, window: [-24h, 24h]}, unknown: report}
  - {id: near, nearest: {event: [attendance, lab], window: [-30h, 30h], then: {value_std: {le: 1.5}}}, unknown: report}
  - {id: again, related: {unit: series, of: patient, window: [0h, 60h]}, unknown: report}
  - {id: begun, gap: {from: study_date, to: index, days: [0h, ever]}, unknown: report}
output:
  - {id: near, nearest: {event: [attendance, lab], window: [-48h, 48h]}, give: [gap, time]}
  - {id: other, nearest: {unit: series, of: patient, window: [-60h, 60h]}, give: [gap, scan_time]}
"""
CHANGED = """
cohort: 1
id: changed
unit: patient
index: 2010-02-20
population: all
steps:
  - {id: rose, change: {event: lab, window: [-20d, 20d], then: {change: {gt: 0}}}, unknown: report}
  - {id: fell, change: {event: lab, window: [-20d, 20d], gap: [1d, 9d], then: {change: {lt: -1}}}, unknown: report}
  - {id: tripled, change: {event: lab, ever: true, gap: [0h, 200h], then: {ratio: {ge: 1.5}}}, unknown: report}
  - {id: in_the_end, change: {event: lab, window: [-20d, 20d], take: ends, then: {change: {ge: 0}}}, unknown: report}
  - {id: sunday, has: {event: lab, ever: true, where: {date.weekday: SUN, time.hour: {ge: 8}}}, unknown: report}
"""
ARRIVED = """
cohort: 1
id: arrived
unit: patient
index: {last: {event: attendance}}
population: all
steps:
  - {id: seen, related: {unit: series, of: patient, window: [0h, 12h]}, unknown: report}
  - {id: tested, has: {event: lab, window: [-12h, 12h]}, unknown: report}
"""
PARTS = """
cohort: 1
id: parts
unit: study
population: all
steps:
  - {id: any, where: {scan_date: {is_missing: false}}}
split: {parts: [train, test], at: 2010-02-20}
count:
  - {by: [scan_date.year, simd_quintile]}
"""
NEAR = """
cohort: 1
id: near
unit: series
population: all
steps:
  - {id: value, nearest: {event: diagnosis, window: [-20d, 20d], then: {value_std: {le: 1.5}}}, unknown: report}
  - {id: scan, nearest: {unit: series, of: patient, window: [-20d, 20d], then: {image_count: {ge: 65}}}, unknown: report}
  - {id: text, where: {text_verdict: text}, unknown: report}
  - {id: far, related: {unit: series, of: patient, at_least: 2, apart: 9d}, unknown: report}
  - id: framed
    related: {unit: series, of: patient, where: {image_count: {ge: 65}}, related: {unit: series, of: study, same: [frame_of_reference_id]}}
    unknown: report
split: {parts: {a: 60, b: 40}, seed: one}
"""


def test_dense_events_are_read_alike_and_attrition_is_counted_from_the_bits(connection):
    for question, tables in dense_cases(2):
        into_duckdb(connection, tables)
        differential(connection, question, full(tables), lambda flags: flags)


# More survivors than the sample takes.
SAMPLED = """
cohort: 1
id: sampled
unit: series
population: all
steps:
  - {id: any, where: {scan_date: {is_missing: false}}}
sample: {size: 2, seed: one}
"""


MATCHED = """
cohort: 1
id: matched
unit: series
population: all
steps:
  - {id: any, where: {scan_date: {is_missing: false}}}
match: {cases: few-series, level: series, ratio: 2, seed: one, caliper: {scan_date: 20d}}
"""
AT_RISK = """
cohort: 1
id: at-risk
unit: study
population: all
steps:
  - {id: any, where: {scan_date: {is_missing: false}}}
match: {cases: few-people, level: patient, ratio: 3, seed: "2", replacement: true, risk_set: {event: diagnosis}}
sample: {size: 3, seed: one}
"""


_DENSE = (EVENTS, SCANS, TIES, SAMPLED, STAYS, NEAR, HOURS, CHANGED, ARRIVED, PARTS, MATCHED, AT_RISK)


def dense_cases(count):
    """The questions, in turn, of ever other dense tables."""
    asked = [yaml_face.from_yaml(text) for text in _DENSE]
    return ((question, dense_tables(number)) for number in range(count) for question in asked)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_compiler_is_caught(connection, mutant):
    mutate = MUTANTS[mutant]

    def is_changed(question):
        plan = compiled(question, codes_of(question), SAVED_RUNS)
        return any(mutate(query.copy()) != query for query in (plan.flags, plan.shown) if query is not None)

    broken = {question for question, _ in dense_cases(1) if is_changed(question)}
    assert broken, "nothing was broken"

    def agree():
        for question, tables in dense_cases(12):
            if question in broken:
                into_duckdb(connection, tables)
                differential(connection, question, full(tables), mutate)

    with pytest.raises(AssertionError):
        agree()


@pytest.mark.parametrize("part", ["decade", "five"])
def test_numbers_below_0_are_counted_in_the_ten_or_five_below(connection, part):
    question = yaml_face.from_yaml(
        f"{{cohort: 1, id: x, unit: image, steps: [{{id: a, where: {{modality: CT}}}}], count: [{{by: instance_number.{part}}}]}}"
    )
    numbers = [-11, -10, -6, -5, -1, 0, 4, 5, 9, 10, None]
    rows = [
        {"image_id": f"i{n}", "locator_id": f"l{n}", "series_id": "s", "study_id": "t", "modality": "CT", "instance_number": number}
        for n, number in enumerate(numbers)
    ]
    into_duckdb(connection, {"image": rows})
    differential(connection, question, full({"image": rows}))


def test_the_rich_question_is_read_alike(connection):
    rich = yaml_face.from_yaml(RICH)
    for number in range(4):
        tables = dense_tables(number)
        into_duckdb(connection, tables)
        differential(connection, rich, full(tables))


CODED = """
cohort: 1
id: coded
unit: series
population: all
codelists:
  many: {system: icd10, codes: [%s]}
steps:
  - {id: some, has: {event: diagnosis, codes: many, ever: true}, unknown: report}
  - {id: none, lacks: {event: diagnosis, codes: many, window: [-20d, 20d]}, unknown: report}
"""


@pytest.mark.parametrize("many", [("I61",), ("I61", "I6", "Z9"), tuple(f"{letter}{n}" for letter in "AIZ" for n in range(10, 99))])
def test_a_scan_of_the_events_that_is_narrowed_to_stretches_of_codes_leaves_none_out(connection, many):
    question = yaml_face.from_yaml(CODED % ", ".join(many))
    ends = ["I60", "I60Z", "I61", "I610", "I61Z", "I62", "I6", "I7", "Z9", "Z999", "Z", "A10", "A0", None, "i61", "\u00cd61"]
    for number in range(3):
        tables = dense_tables(number)
        for at, row in enumerate(tables["event"]):
            row |= {"kind": "diagnosis", "system": "icd10", "code": ends[(at + number) % len(ends)]}
        into_duckdb(connection, tables)
        differential(connection, question, full(tables))


def test_a_plan_that_is_asked_stage_by_stage_says_the_same(connection):
    """As Spark asks it, which would compute a relation again for each that reads it."""
    rich = yaml_face.from_yaml(RICH)
    for question, tables in [(rich, dense_tables(11)), *dense_cases(1)]:
        into_duckdb(connection, tables)
        plan = compiled(question, codes_of(question), SAVED_RUNS)
        given = {}
        for name in plan.stages:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE stage_{name} AS {plan.reading(given, name).sql('duckdb')}")
            given[name] = f"stage_{name}"
        for whole, staged in ((plan.flags, plan.reading(given)), (plan.pairs, plan.paired(given))):
            if whole is not None:
                found, wanted = (connection.execute(query.sql("duckdb")).fetchall() for query in (staged, whole))
                assert sorted(found, key=str) == sorted(wanted, key=str)


@pytest.mark.spark
def test_spark_says_what_the_embedded_reader_says_to_the_rich_question(spark, connection):
    question, tables = yaml_face.from_yaml(RICH), dense_tables(11)
    plan = compiled(question, codes_of(question), SAVED_RUNS)
    into_duckdb(connection, tables, plan.tables)
    into_spark(spark, tables, plan.tables)
    # What is read more than once is computed once, and what comes before it is not computed again.
    assert {"asked", "event", "said", "judged"} <= set(plan.stages)
    asked_of_spark(spark, connection, plan)


@pytest.mark.spark
def test_spark_says_what_the_embedded_reader_says_to_generated_questions(spark, connection):
    asked = Counter()

    @settings(QUICK, max_examples=10)
    @given(questions=st.lists(questions(), min_size=5, max_size=5, unique=True), number=st.integers(0, 99))
    def agree(questions, number):
        tables = dense_tables(number)
        into_duckdb(connection, tables)
        into_spark(spark, tables)
        for question in questions:
            plan = compiled(question, codes_of(question), SAVED_RUNS)
            asked_of_spark(spark, connection, plan)
            asked["questions"] += 1

    with for_few_rows(spark):
        agree()
    assert asked["questions"] >= 50
