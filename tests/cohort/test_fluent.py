"""The Python face: short words for the same graph, and every graph written in them."""

import doctest
from datetime import date

import pytest
from cohort_cases import questions
from hypothesis import HealthCheck, given, settings

import pictures_spark.cohort
from pictures_spark.cohort import commands, fluent, yaml_face
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.fluent import (
    Cohort,
    any_of,
    between,
    day_of,
    events,
    ever,
    first,
    follow_up,
    has,
    le,
    missing,
    ne,
    nearest,
    related,
    to_python,
    where,
)
from pictures_spark.resources import schemas_dir

EXAMPLES = schemas_dir().parent / "examples" / "cohorts"


def made(text):
    """What the text of a call makes."""
    return eval(f"({text}).question()", vars(fluent) | {"date": date})


@settings(max_examples=120, suppress_health_check=list(HealthCheck), database=None)
@given(question=questions())
def test_a_question_survives_python(question):
    assert made(to_python(question)) == question


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_survives_python(path):
    question = commands.load(path).question
    assert made(to_python(question)) == question


def test_a_question_in_python_is_the_one_in_yaml():
    asked = (
        Cohort("14-ct-head-anticoagulant-stroke", "series")
        .codes("anticoagulants", "bnf", ["2.8.2"])
        .codes("stroke", "icd10", ["I61", "I62", "I63", "I64"])
        .step("ct_head", where(modality="CT", body_region="HEAD", contrast="no"))
        .step("thin", where(slice_thickness_max=le(1.5), orientation="AXIAL", image_kind="ORIGINAL"))
        .step("age", where(age_at=between(65, 80)))
        .step("on_drug", has("dispensing", codes="anticoagulants", window=(-90, -1)))
        .step("first_stroke", first(["diagnosis", "death_cause"], codes="stroke", window=(0, 30)))
    )
    assert asked.question() == commands.load(EXAMPLES / "14-ct-head-anticoagulant-stroke.yaml").question
    assert yaml_face.from_yaml(asked.to_yaml()) == asked.question()


def test_numbers_and_days_become_what_their_columns_hold():
    asked = (
        Cohort("x", "series", index="2016-01-01", population="all")
        .step("a", any_of(where(kvp=120, image_count=[3, 4]), where({"tag.SliceThickness": le(1)}, study_date="2015-03-01")))
        .step("b", related("series", "patient", where=where(kvp=ne(80))))
        .step("c", nearest(events("lab", window=(-9, 9), where=where(value_std=le(30))), then=where(value_std=missing(False))))
        .show("f", follow_up("death", window=(1, None), until="2018-12-31"))
        .split(["train", "test"], at="2016-01-01")
    ).question()
    assert asked.index == date(2016, 1, 1)
    assert [type(test.values[0]) for part in asked.steps[0].predicate.parts for test in part.tests] == [float, int, float, date]
    assert asked.steps[1].predicate.where.tests[0].values == (80.0,)
    assert asked.steps[2].predicate.among.where.tests[0].values == (30.0,)
    assert (asked.outputs[0].of.until, asked.split.at) == (date(2018, 12, 31), date(2016, 1, 1))


def test_the_words_are_those_of_the_package():
    assert set(pictures_spark.cohort.__all__) == set(fluent.__all__)
    assert all(getattr(pictures_spark.cohort, name) is getattr(fluent, name) for name in fluent.__all__)
    with pytest.raises(ImportError):
        from pictures_spark.cohort import no_such_word  # noqa: F401


def test_a_cohort_is_not_changed_by_what_is_made_of_it():
    ct = Cohort("x", "patient", index=day_of("first", "diagnosis")).step("a", has("death", window=ever))
    more = ct.step("b", where(sex="F"))
    assert (len(ct.question().steps), len(more.question().steps)) == (1, 2)


def test_every_fault_is_told_as_of_any_face():
    with pytest.raises(QuestionError, match=r"2 faults: step b: there is no code list 'stroke'.*; step a: unknown column 'modalty'"):
        Cohort("x", "series").step("a", where(modalty="CT")).step("b", has("diagnosis", codes="stroke", window=ever)).question()


MADE_WRONG = {
    "step('a', where(modality=None))": "step a: values must be several, each a text or a whole number",
    "step('a', where(kvp=ge(float('nan'))))": "step a: values must be several",
    "step('a', where(kvp=ge(float('inf'))))": "step a: values must be several",
    "step('a', where(age_at=ge('65')))": "step a: age_at: '65' is not a whole",
    "step('a', where(scan_date='2016-02-30'))": "step a: scan_date: '2016-02-30' is not a date",
    "step('a', where(modality={'eq': 'CT'}))": "step a: values must be several",
    "step('a', where(scan_time=matches(5)))": "step a: scan_time: the pattern '5' is no text",
    "step('a', where({}))": "step a: where must be a mapping from columns to values, not an empty mapping",
    "step('a', has('lab', window=('a', 'b')))": "2 faults: step a: low must be a whole number or None, not 'a'; step a: high must be",
    "step('a', has('lab', window=(1,)))": "step a: low must be a whole number or None, not \\(1,\\)",
    "step('a', has('lab', window='-90d'))": "step a: low must be a whole number or None, not '-90d'",
    "step('a', has('attendance', window=hours(-4.5, 0)))": "step a: low must be a whole number or None, not -4.5",
    "step('a', has(None, window=ever))": "step a: kinds must be several, each a text, not \\(None,\\)",
    "step('a', has('lab', window=ever, at_least='2'))": "step a: at_least must be a whole number, not '2'",
    "step('a', 'modality=CT')": "step a: predicate must be Where or Has",
    "step('a', any_of())": "step a: any: must be a list of conditions",
    "step('a', any_of(None))": "step a: parts must be several, each Where or Has",
    "step('a', stay(has('lab', window=ever)))": "step a: holds must be several, each Events",
    "step('a', nearest(where(modality='CT')))": "step a: among must be Events or Related",
    "step('a', related('series', 'study', where={'modality': 'CT'}))": "step a: where must be Where or None",
    "step(5, where(modality='CT'))": "id must be a text, not 5",
    "codes('c', 'icd10', []).step('a', has('diagnosis', codes='c', window=ever))": "code list c: is empty",
    "codes('c', 'icd10', 'I63').step('a', has('diagnosis', codes='c', window=ever))": "codes must be several, each a text or None",
    "step('a', where(modality='CT')).pick('patient', 5)": "column must be a text, not 5",
    "step('a', where(modality='CT')).sample('10', 'a')": "size must be a whole number, not '10'",
    "step('a', where(modality='CT')).split({'a': 50.5, 'b': 49.5}, seed='a')": "percent must be several, each a whole number",
    "step('a', where(modality='CT')).split(['a', 'b'], at='x')": "at must be a date or None, not 'x'",
    "step('a', where(modality='CT')).match('c', 'patient', 4, 's', caliper={'age_at': 'two'})": "caliper must be several, each a pair",
    "step('a', where(modality='CT')).show('o', follow_up('death', window=(1, None), until='x'))": "output o: until must be a date or None",
    "step('a', where(modality='CT')).count(5)": "by must be several, each a text, not \\(5,\\)",
}


@pytest.mark.parametrize("call", MADE_WRONG)
def test_what_no_file_could_say_is_told_in_a_sentence(call):
    with pytest.raises(QuestionError, match=MADE_WRONG[call]):
        made(f"Cohort('x', 'series').{call}")


def test_the_examples_of_the_module_run():
    assert doctest.testmod(fluent).failed == 0


def test_the_example_of_the_analysts_page_runs(capsys):
    text = (schemas_dir().parent / "docs" / "analyst.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    exec(code, {})
    assert "cohort: 1\nid: mr-brain-egfr\n" in capsys.readouterr().out
