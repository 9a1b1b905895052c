"""The YAML face: nothing is lost on the way, and nothing is taken for what it is not."""

import copy
import random
from dataclasses import replace

import jsonschema
import pytest
import yaml
from cohort_cases import questions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictures_spark.cohort import sentence
from pictures_spark.cohort.codelists import resolve
from pictures_spark.cohort.commands import load
from pictures_spark.cohort.compile import DIALECTS, Saved, compiled
from pictures_spark.cohort.model import CodeList, Step, Test, Where, saved_cohorts
from pictures_spark.cohort.yaml_face import from_yaml, read, to_yaml
from pictures_spark.resources import load_schema, schemas_dir

SCHEMA = jsonschema.Draft202012Validator(load_schema("cohort.yaml"))
EXAMPLES = sorted((schemas_dir().parent / "examples" / "cohorts").glob("*.yaml"))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(question=questions())
def test_a_question_survives_yaml_and_fits_its_json_schema(question):
    text = to_yaml(question)
    assert from_yaml(text) == question
    assert to_yaml(from_yaml(text)) == text
    # An editor reads YAML with types; the same text must still be a question there.
    tree = yaml.safe_load(text)
    assert [e.message for e in SCHEMA.iter_errors(_as_text(tree))] == []


def _as_text(tree):
    """Dates as an editor's JSON shows them."""
    if isinstance(tree, dict):
        return {key: _as_text(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_as_text(item) for item in tree]
    return tree if isinstance(tree, str | int | float | bool) else str(tree)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_any_text_survives_as_a_value(text):
    question = from_yaml("{cohort: 1, id: x, unit: series, steps: [{id: s, where: {scan_time: '10'}}]}")
    question = replace(question, steps=(Step("s", Where((Test("scan_time", "eq", (text,)),))),))
    assert from_yaml(to_yaml(question)) == question


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_survives_as_a_value(number):
    question = from_yaml("{cohort: 1, id: x, unit: series, steps: [{id: s, where: {kvp: 120}}]}")
    question = replace(question, steps=(Step("s", Where((Test("kvp", "ne", (number,)),))),))
    assert from_yaml(to_yaml(question)) == question


def only_test(condition):
    (step,) = from_yaml(f"{{cohort: 1, id: x, unit: series, population: all, steps: [{{id: s, where: {{{condition}}}}}]}}").steps
    (test,) = step.predicate.tests
    return test


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("contrast: no", "no"),
        ("contrast: yes", "yes"),
        ("scan_time: 10:20:30", "10:20:30"),
        ("scan_time: 1e3", "1e3"),
        ("scan_time: null", "null"),
        ("scan_time: ~", "~"),
        ("scan_time: 0x1f", "0x1f"),
        ("birth_month: 1950-01", "1950-01"),
        ("kvp: 1e3", 1000.0),
        ("kvp: 120", 120.0),
        ("image_count: 007", 7),
        ("age_at: 65", 65),
        ("after_death: true", True),
    ],
)
def test_a_scalar_is_what_its_column_says(condition, value):
    (found,) = only_test(condition).values
    assert (found, type(found)) == (value, type(value))


def test_a_code_keeps_its_zero_and_is_written_so_that_every_reader_does():
    text = """
        cohort: 1
        id: 0206010
        unit: series
        codelists: {nitrates: {system: bnf, codes: [0206010, 2.6]}}
        steps: [{id: drug, has: {event: dispensing, codes: nitrates, ever: true}}]
    """
    question = from_yaml(text)
    assert question.id == "0206010"
    assert question.codelists == (CodeList("nitrates", "bnf", ("0206010", "2.6")),)
    assert yaml.safe_load(to_yaml(question))["codelists"]["nitrates"]["codes"] == ["0206010", "2.6"]
    assert yaml.safe_load(to_yaml(question))["id"] == "0206010"


@pytest.mark.parametrize(
    ("steps", "population"),
    [
        ("{id: a, where: {modality: CT}}", "all"),
        ("{id: a, where: {study_date: {ge: 2015-01-01}}}", "all"),
        ("{id: a, where: {age_at: {ge: 65}}}", "alive_and_resident"),
        ("{id: a, where: {sex: F}}", "alive_and_resident"),
        ("{id: a, where: {modality: CT}}, {id: b, lacks: {event: death, ever: true}}", "alive_and_resident"),
    ],
)
def test_the_population_is_everybody_unless_a_step_is_about_a_person_or_a_record(steps, population):
    question = from_yaml(f"{{cohort: 1, id: x, unit: series, steps: [{steps}]}}")
    assert question.population == population
    assert f"population: {population}\n" in to_yaml(question)


def test_short_forms_mean_the_long_ones():
    short, long = "{cohort: 1, id: x, unit: series, steps: [%s]}", "{steps: [%s], unit: series, index: scan_date, id: x, cohort: '1'}"
    same = [
        ("{id: a, where: {modality: CT}}", "{where: {modality: {eq: CT}}, unknown: exclude, id: a}"),
        ("{id: a, where: {modality: [CT, MR]}}", "{where: {modality: {in: [CT, MR]}}, id: a}"),
        ("{id: a, where: {modality: {ne: CT}}}", "{where: {modality: {ne: [CT]}}, id: a}"),
        ("{id: a, has: {event: death, window: [-9d, 9d]}}", "{id: a, has: {event: [death], window: [-09d, +9d], at_least: 1}}"),
    ]
    for one, other in same:
        assert from_yaml(short % one) == from_yaml(long % other)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_asked(path):
    asked = load(path)
    assert asked.question.id == path.stem
    assert from_yaml(asked.spec) == asked.question
    assert [e.message for e in SCHEMA.iter_errors(yaml.load(path.read_text(), yaml.BaseLoader))] == []


def test_the_question_of_the_coordinators_page_can_be_asked():
    text = (schemas_dir().parent / "docs" / "coordinator.md").read_text(encoding="utf-8")
    assert from_yaml(text.split("```yaml\n")[1].split("```")[0]).steps


@settings(max_examples=200)
@given(
    tree=st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-99, 99),
            st.sampled_from(["ever", "CT", "-9d", "modality", "x", "", "series", "patient", "diagnosis", "2016-01-01"]),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    ["cohort", "id", "unit", "steps", "where", "has", "first", "event", "codes", "window", "pick", "order", "codelists"]
                    + ["one_per", "modality", "between", "index", "population", "unknown", "system", "file", "ever", "at_least"]
                    + [
                        "nearest",
                        "then",
                        "take",
                        "stay",
                        "begins",
                        "related",
                        "of",
                        "among",
                        "gap",
                        "from",
                        "to",
                        "report",
                        "finding",
                        "in",
                    ]
                    + ["cohort", "level", "match", "cases", "caliper", "risk_set", "split", "parts", "at", "seed", "output", "follow_up"]
                    + ["until", "count", "by", "column", "give", "any", "chain", "size", "ratio", "value_std", "sample"]
                ),
                inner,
                max_size=5,
            ),
        ),
        max_leaves=25,
    )
)
def test_any_tree_is_read_or_refused_but_never_breaks_the_reader(tree):
    tree = {"cohort": 1, "id": "x", "unit": "series"} | tree if isinstance(tree, dict) else tree
    question, faults = read(yaml.safe_dump(tree))
    assert question is not None or faults


TREES = [yaml.load(path.read_text(), yaml.BaseLoader) for path in EXAMPLES]


def places(tree, path=()):
    """Where the parts of a tree are."""
    yield path
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(part, (*path, key))


def part_of(tree, path):
    for key in path:
        tree = tree[key]
    return tree


PARTS = [part_of(tree, path) for tree in TREES for path in places(tree)]
KEYS = sorted({key for part in PARTS if isinstance(part, dict) for key in part})
ODD = ["", "x", "-1d", "0", "1e9", [], {}, ["ever", "ever"], "99999999999999999999", "2016-02-30", None]


@pytest.mark.parametrize("seed", range(4))
def test_a_spoiled_example_is_refused_or_asked_but_breaks_nothing(seed):
    chance, asked = random.Random(seed), 0
    for _ in range(80):
        tree = copy.deepcopy(chance.choice(TREES))
        for _ in range(chance.choice([1, 1, 2, 3])):
            path = chance.choice([path for path in places(tree) if path] or [("id",)])
            parent, key = part_of(tree, path[:-1]), path[-1]
            match chance.randint(0, 3):
                case 0:
                    parent[key] = copy.deepcopy(chance.choice(PARTS))
                case 1 if len(parent) > 1:
                    del parent[key]
                case 2 if isinstance(parent, dict):
                    parent[chance.choice(KEYS)] = copy.deepcopy(chance.choice(PARTS))
                case _:
                    parent[key] = copy.deepcopy(chance.choice(ODD))
        question, faults = read(yaml.safe_dump(tree))
        assert question is not None or faults
        if question is None or faults:
            continue
        asked += 1
        assert from_yaml(to_yaml(question)) == question
        codes, wrong = resolve(question, EXAMPLES[0].parent)
        if not wrong:
            plan = compiled(question, codes, {name: Saved("r", "series") for name in saved_cohorts(question)})
            assert all(plan.sql(dialect) for dialect in DIALECTS)
            assert sentence.methods(question, codes)
    assert asked
