"""What makes a question one that can be asked: names, values, ranges, windows, and that its parts fit together.

Works on the graph, so that every face is checked alike. Each fault is one sentence with a remedy; all are found at once.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from pictures_spark.cohort import domain
from pictures_spark.cohort.codelists import systems
from pictures_spark.cohort.domain import OPERATORS, Field
from pictures_spark.cohort.faults import nearest
from pictures_spark.cohort.model import (
    EVER,
    AllOf,
    AnyOf,
    Chain,
    Cover,
    Events,
    First,
    Last,
    NoneOf,
    Pick,
    Predicate,
    Question,
    Related,
    Sample,
    Test,
    Value,
    Where,
    Window,
    event_steps,
    leaves,
)
from pictures_spark.cohort.pattern import PatternError, canonical
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary


def default_population(question: Question) -> Any:
    """``all`` where no step is about a person or a record, else ``alive_and_resident`` (DESIGN section 6)."""
    for leaf in (leaf for step in question.steps for leaf in leaves(step.predicate)):
        match leaf:
            case Where(tests):
                personal = _personal(question.unit, tests)
            case Related(unit, _, where):
                personal = where is not None and _personal(unit, where.tests)
            case _:
                personal = True
        if personal:
            return "alive_and_resident"
    return "all"


def _personal(unit: str, tests: tuple[Test, ...]) -> bool:
    fields = domain.fields(unit) if unit in domain.UNITS else {}
    return any(test.column in fields and fields[test.column].personal for test in tests)


def faults(question: Question, whole: bool = True) -> list[str]:
    """Everything that is wrong with a question apart from its code lists' content and the published tables.

    ``whole`` is False where a face could not read all of it: what may only seem to be missing is then not reported.
    """
    found = [*_names(question), *_codelists(question)]
    if whole:
        found += _missing(question)
    if question.unit in domain.UNITS:
        found += [*_index(question), *_steps(question)]
        found += _pick(question, question.pick) if question.pick is not None else []
        found += _sample(question, question.sample) if question.sample is not None else []
    return list(dict.fromkeys(found))


def not_held(question: Question, held: Iterable[str]) -> list[str]:
    """Event kinds that no published source can hold: such a question would be answered with nobody, or everybody."""
    kinds = set(held)
    return [
        f"step {step.id}: no published record source can hold events of kind {kind}, so nothing can be said about them"
        for _, step, events in event_steps(question)
        for kind in events.kinds
        if kind not in kinds
    ]


def untouched(step_id: str, unit: str) -> str:
    """The fault of a step whose window overlaps the cover of its sources for no unit."""
    return f"step {step_id}: its window overlaps what the record sources cover for no {unit} at all; check the window and the index"


def _properties() -> dict[str, Any]:
    properties: dict[str, Any] = load_schema("cohort.yaml")["properties"]
    return properties


def _one_of(where: str, value: str, allowed: Iterable[str]) -> Iterator[str]:
    allowed = list(allowed)
    if value not in allowed:
        yield f"{where}: unknown value {value!r}{nearest(value, allowed)}"


def _missing(question: Question) -> Iterator[str]:
    if not question.steps:
        yield "steps: there must be at least one step"
    used = {name for _, _, events in event_steps(question) for name in events.codes}
    yield from (f"code list {codelist.name}: no step uses it" for codelist in question.codelists if codelist.name not in used)


def _names(question: Question) -> Iterator[str]:
    step = load_schema("cohort.yaml")["$defs"]["step"]["properties"]
    if question.id and not re.fullmatch(_properties()["id"]["pattern"], question.id):
        yield f"id: {question.id[:40]!r} must be lower-case letters, digits, - and _, beginning with one of the first two, at most 63"
    if question.unit:
        yield from _one_of("unit", question.unit, domain.UNITS)
    yield from _one_of("population", question.population, _properties()["population"]["enum"])
    if len(question.steps) > _properties()["steps"]["maxItems"]:
        yield f"steps: {len(question.steps)} steps are more than the {_properties()['steps']['maxItems']} a question may have"
    ids = [s.id for s in question.steps]
    yield from (f"step {name}: the id is used twice" for name in dict.fromkeys(n for n in ids if n and ids.count(n) > 1))
    for name in ids:
        if name in step["id"]["not"]["enum"]:
            yield f"step {name}: the attrition has a line of that name already; choose another id"
        elif name and not re.fullmatch(step["id"]["pattern"], name):
            yield f"step {name[:40]}: the id must be lower-case letters, digits and _, starting with a letter, at most 41 characters"
    for s in question.steps:
        yield from _one_of(f"step {s.id}: unknown", s.unknown, step["unknown"]["enum"])


def _codelists(question: Question) -> Iterator[str]:
    pattern = _properties()["codelists"]["propertyNames"]["pattern"]
    names = [codelist.name for codelist in question.codelists]
    for _, step, events in event_steps(question):
        for name in events.codes:
            if name not in names:
                yield f"step {step.id}: there is no code list {name!r}{nearest(name, names) or '; declare it under codelists'}"
    for codelist in question.codelists:
        if not re.fullmatch(pattern, codelist.name):
            yield f"code list {codelist.name[:40]}: the name must be lower-case letters, digits, - and _, starting with a letter"
        yield from _one_of(f"code list {codelist.name}: expand", codelist.expand, ("prefix", "exact"))


def _index(question: Question) -> Iterator[str]:
    fields, index = domain.fields(question.unit), question.index
    dates = [name for name, field in fields.items() if field.kind == "date"]
    if isinstance(index, str):
        if index not in dates:
            yield f"index: {index!r} is not a date column of {question.unit}{nearest(index, dates)}"
    elif index is None and question.unit != "patient":
        yield f"index: a cohort of {question.unit} units needs one, such as scan_date"
    elif index is None:
        bounded = list(dict.fromkeys(step.id for step in question.steps if any(_window(leaf) != EVER for leaf in leaves(step.predicate))))
        who = [f"step {name}" for name in bounded] + (
            ["population alive_and_resident"] if question.population == "alive_and_resident" else []
        )
        if who:
            yield f"index: a cohort of patients has no date of its own, which {', '.join(who)} needs; give one date, such as 2016-01-01"


def _window(predicate: Predicate) -> Window:
    match predicate:
        case Where() | AllOf() | AnyOf() | NoneOf():
            return EVER
        case Related():
            return predicate.window
        case _:
            return predicate.events.window


def _steps(question: Question) -> Iterator[str]:
    for step in question.steps:
        yield from _predicate(question, step.predicate, f"step {step.id}")


def _predicate(question: Question, predicate: Predicate, where: str) -> Iterator[str]:
    match predicate:
        case Where():
            yield from _where(question.unit, question.index, predicate, where)
        case Related():
            yield from _related(question, predicate, f"{where}: related")
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            yield from (fault for part in parts for fault in _predicate(question, part, where))
            yield from (f"{where}: names a condition twice" for n, part in enumerate(parts) if part in parts[:n])
        case _:
            yield from _events(question, predicate, predicate.events, where)


def _related(question: Question, related: Related, where: str) -> Iterator[str]:
    properties = load_schema("cohort.yaml")["$defs"]["related"]["properties"]
    wrong = [
        *_one_of(f"{where}: unit", related.unit, properties["unit"]["enum"]),
        *_one_of(f"{where}: of", related.of, properties["of"]["enum"]),
        *(_one_of(f"{where}: count", related.count, properties["count"]["enum"]) if related.count != related.unit else ()),
    ]
    if wrong:
        yield from wrong
        return
    if related.of == "study" and related.unit == "study":
        yield f"{where}: a study has no other studies in it; ask with of: patient"
    if related.of not in domain.levels(question.unit):
        yield f"{where}: a {question.unit} is not part of one {related.of}; ask with of: {question.unit}"
    if related.unit == "study" and related.count == "series":
        yield f"{where}: count: series goes with unit: series only"
    if related.where is not None:
        yield from _where(related.unit, domain.AGE_DATE, related.where, where)
    mine, other = domain.fields(question.unit), domain.fields(related.unit)
    yield from (f"{where}: same names {n} twice" for n in dict.fromkeys(n for n in related.same if related.same.count(n) > 1))
    for name in related.same:
        if name not in mine or name not in other:
            unit = question.unit if name not in mine else related.unit
            yield f"{where}: same: {_unknown_column(unit, name)}"
        elif mine[name].kind in ("set", "list", "span"):
            yield f"{where}: same: {name} has several values, which are never compared as one"
    yield from _window_order(related.window, where, "window")
    if related.at_least < 1:
        yield f"{where}: at_least must be 1 or more"
    if related.within is not None and related.at_least == 1:
        yield f"{where}: within needs at_least: 2 or more, as one alone lies within any time"


def _window_order(window: Window, where: str, what: str) -> Iterator[str]:
    if window.low is not None and window.high is not None and window.low > window.high:
        yield f"{where}: {what} [{window.low}d, {window.high}d] is reversed; the earlier day comes first"


def _where(unit: str, index: str | date | None, where: Where, place: str) -> Iterator[str]:
    fields = domain.fields(unit)
    by_column: dict[str, list[Test]] = {}
    for test in where.tests:
        by_column.setdefault(test.column, []).append(test)
    for column, tests in by_column.items():
        if column not in fields:
            yield f"{place}: {_unknown_column(unit, column)}"
            continue
        operators = [test.operator for test in tests]
        yield from (f"{place}: {column} has {o} twice" for o in dict.fromkeys(operators) if operators.count(o) > 1)
        wrong = [text for test in tests for text in _test(index, test, fields[column])]
        yield from (f"{place}: {text}" for text in wrong or _contradiction(column, tests))


def _unknown_column(unit: str, column: str) -> str:
    lower = domain.below(unit, column)
    if lower is not None:
        return (
            f"{column} is a column of {lower}: going up from {lower} to {unit} needs an aggregate, which is not available yet; "
            f"ask with unit: {lower} and pick one per {unit}"
        )
    return f"unknown column {column!r}{nearest(column, domain.fields(unit)) or f' of {unit}; docs/data-dictionary.md lists the columns'}"


def _test(index: str | date | None, test: Test, field: Field) -> Iterator[str]:
    column = test.column
    if column == domain.AGE and index != domain.AGE_DATE:
        yield f"{column}: ages were computed on {domain.AGE_DATE}, so it needs index: {domain.AGE_DATE}"
    allowed = OPERATORS[field.kind]
    if test.operator not in allowed:
        what = {
            "id": "an id: it can only be asked whether it is there",
            "list": "a list of numbers, which can only be missing or not",
            "span": "numbers that may vary inside a series",
        }
        yield f"{column}: {test.operator} does not go with {what.get(field.kind, f'a {field.kind}')}; use {', '.join(allowed)}"
        return
    wanted = 2 if test.operator == "between" else 1
    if len(test.values) != wanted and (test.operator not in ("in", "ne") or not test.values):
        yield f"{column}: {test.operator} takes {'two values, the smaller first' if wanted == 2 else 'one value'}, not {len(test.values)}"
        return
    if test.operator == "is_missing":
        return
    if test.operator == "matches":
        try:
            canonical(str(test.values[0]))
        except PatternError as error:
            yield f"{column}: the pattern {str(test.values[0])[:40]!r} {error}"
        return
    for value in test.values:
        if not _typed(value, field):
            yield f"{column}: {value!r} is not a {field.kind}"
        elif field.has_unknown and value == domain.UNKNOWN:
            yield f"{column}: unknown is no value but a missing one; ask {{is_missing: true}}, or say unknown: include for the step"
        elif field.choices is not None and value not in field.choices:
            yield f"{column}: unknown value {value!r}{nearest(str(value), field.choices)}"
    if len(test.values) != len(set(test.values)) and test.operator != "between":
        yield f"{column}: {test.operator} names a value twice"


def _typed(value: Value, field: Field) -> bool:
    match field.kind:
        case "number" | "span":
            return isinstance(value, float)
        case "whole":
            return isinstance(value, int) and not isinstance(value, bool)
        case "flag":
            return isinstance(value, bool)
        case "date":
            return isinstance(value, date)
        case _:
            return isinstance(value, str)


def _contradiction(column: str, tests: list[Test]) -> Iterator[str]:
    """A range that no value lies in."""
    missing = [test.values[0] for test in tests if test.operator == "is_missing"]
    if True in missing and len(tests) > 1:
        yield f"{column}: it cannot be missing and have a value"
    lows: list[tuple[Any, bool]] = []
    highs: list[tuple[Any, bool]] = []
    for test in tests:
        values = test.values
        if any(isinstance(v, str) for v in values) or test.operator in ("ne", "is_missing"):
            continue
        if test.operator in ("eq", "ge", "gt"):
            lows.append((values[0], test.operator == "gt"))
        if test.operator in ("eq", "le", "lt"):
            highs.append((values[0], test.operator == "lt"))
        if test.operator in ("between", "in"):
            low, high = (values[0], values[-1]) if test.operator == "between" else (min(values), max(values))
            lows.append((low, False))
            highs.append((high, False))
    if lows and highs:
        low, low_open = max(lows)
        high, high_open = min(highs, key=lambda h: (h[0], not h[1]))
        if low > high or (low == high and (low_open or high_open)):
            yield f"{column}: nothing lies between {low} and {high}; the smaller end comes first"


def _events(question: Question, predicate: Predicate, events: Events, where: str) -> Iterator[str]:
    if not events.kinds:
        yield f"{where}: event must name a kind of event"
    for kind in events.kinds:
        yield from _one_of(f"{where}: event", kind, vocabulary("event_kind"))
    for what, names in (("event", events.kinds), ("codes", events.codes)):
        yield from (f"{where}: {what} names {n} twice" for n in dict.fromkeys(n for n in names if names.count(n) > 1))
    by_name = {codelist.name: codelist for codelist in question.codelists}
    for name in events.codes:
        system = by_name[name].system if name in by_name else None
        known = set(events.kinds) <= set(vocabulary("event_kind"))
        if known and system in systems() and not set(events.kinds) & set(systems()[system]["kinds"]):
            label = systems()[system]["label"]
            yield f"{where}: {' or '.join(events.kinds)} events are never coded in {label}, which code list {name} is in"
    yield from (f"{where}: source names {n} twice" for n in dict.fromkeys(n for n in events.sources if events.sources.count(n) > 1))
    yield from (f"{where}: {n[:40]!r} is no name of a record source" for n in events.sources if not re.fullmatch(_name(), n))
    low, high = events.window.low, events.window.high
    yield from _window_order(events.window, where, "window")
    if events.at_least < 1:
        yield f"{where}: at_least must be 1 or more"
    if isinstance(predicate, First | Last) and events.window == EVER:
        word = type(predicate).__name__.lower()
        yield f"{where}: {word} needs a window for the {word} event to lie in"
    if isinstance(predicate, Cover) and events != Events(events.kinds, (), events.window, sources=events.sources):
        yield f"{where}: cover asks for observed time alone; leave out codes, at_least and position"
    if isinstance(predicate, Chain):
        yield from _chain(predicate, where)
    if low is not None and high is not None and low <= high and events.at_least > high - low + 1:
        yield f"{where}: at_least {events.at_least} different days do not fit in a window of {high - low + 1}"


def _chain(chain: Chain, where: str) -> Iterator[str]:
    events, gap, within = chain.events, chain.gap, chain.within
    if events.at_least < 2:
        yield f"{where}: a chain is of two events or more: say at_least: 2"
    if gap == EVER and within is None:
        yield f"{where}: chain needs gap, such as [1d, 90d], or within, such as 365d; ask with has where the days between do not matter"
    yield from _window_order(gap, where, "gap")
    if (gap.low is not None and gap.low < 1) or (gap.high is not None and gap.high < 1):
        yield f"{where}: gap is of days from one event day to the next, which is 1d at least"
    if within is not None and within < max(gap.low or 1, 1) * (events.at_least - 1):
        yield f"{where}: {events.at_least} days do not fit within {within} days"


def _name() -> str:
    pattern: str = load_schema("patterns.yaml")["name"]
    return pattern


def _pick(question: Question, pick: Pick) -> Iterator[str]:
    allowed = [unit for unit in ("patient", "study") if unit in domain.levels(question.unit)[1:]]
    if not allowed:
        yield "pick: a cohort of patients has one of each already"
    else:
        yield from _one_of("pick: one_per", pick.one_per, allowed)
    fields = domain.fields(question.unit)
    if not pick.order:
        yield "pick: order must say which one comes first"
    columns = [order.column for order in pick.order]
    yield from (f"pick: order names {n} twice" for n in dict.fromkeys(n for n in columns if columns.count(n) > 1))
    for column in columns:
        if column not in fields:
            yield f"pick: {_unknown_column(question.unit, column)}"
        elif fields[column].kind in ("set", "list", "span") or (fields[column].kind == "id" and column != domain.key(question.unit)):
            yield f"pick: {column} has no order; only the unit's own id, {domain.key(question.unit)}, may end it"


def _sample(question: Question, sample: Sample) -> Iterator[str]:
    fields = domain.fields(question.unit)
    if sample.size < 1:
        yield "sample: size must be 1 or more"
    if not re.fullmatch(load_schema("cohort.yaml")["$defs"]["sample"]["properties"]["seed"]["pattern"], sample.seed):
        yield f"sample: seed {sample.seed[:40]!r} must be letters, digits, - and _, at most 40"
    yield from (f"sample: strata names {n} twice" for n in dict.fromkeys(n for n in sample.strata if sample.strata.count(n) > 1))
    for column in sample.strata:
        if column not in fields:
            yield f"sample: {_unknown_column(question.unit, column)}"
        elif fields[column].kind in ("set", "list", "span", "id", "number"):
            yield f"sample: {column} makes no strata; use a column of single words, whole numbers, dates or flags"
