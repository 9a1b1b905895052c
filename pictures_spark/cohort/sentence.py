"""A question in plain English: what a coordinator reads back before it is asked, and what a manifest says for ever."""

from collections.abc import Mapping
from datetime import date

from pictures_spark.cohort import domain
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.model import (
    EVER,
    AllOf,
    AnyOf,
    Chain,
    Cover,
    Events,
    First,
    Has,
    Lacks,
    Last,
    NoneOf,
    Pick,
    Predicate,
    Question,
    Related,
    Sample,
    Step,
    Test,
    Value,
    Where,
    Window,
)

_PLURAL = {"patient": "patients", "study": "studies", "series": "series", "image": "images"}
_BOUND = {"lt": "is less than", "le": "is at most", "gt": "is more than", "ge": "is at least"}
_DATE_BOUND = {"lt": "is before", "le": "is on or before", "gt": "is after", "ge": "is on or after"}
_UNKNOWN = {
    "exclude": "",
    "include": " (kept where unknown, as if it held)",
    "report": " (kept and marked where unknown)",
}


def start(question: Question) -> str:
    """Where the attrition starts."""
    return f"All {_PLURAL[question.unit]} of the release."


def population(question: Question) -> str:
    """The first step."""
    units = _PLURAL[question.unit]
    match question.population:
        case "all":
            return f"All {units}." if question.unit == "patient" else f"All {units}, linked to a person or not."
        case "linked":
            return f"{units.capitalize()} of a known person."
        case _:
            who = "Patients" if question.unit == "patient" else f"{units.capitalize()} of people"
            return f"{who} who are alive and resident where the records are kept, on {_index(question)}."


def step(question: Question, step: Step, codes: Mapping[str, Codes]) -> str:
    """One step as a sentence."""
    text = _predicate(question, step.predicate, codes)
    return f"{text[0].upper()}{text[1:]}{_UNKNOWN[step.unknown]}."


def _predicate(question: Question, predicate: Predicate, codes: Mapping[str, Codes]) -> str:
    match predicate:
        case Where(tests):
            return _tests(question.unit, tests, _index(question))
        case Has(events):
            return f"the person has {_events(question, events, codes)}"
        case Lacks(events):
            return f"the person does not have {_events(question, events, codes)}"
        case First(events):
            return f"the person's first {_what(events, codes)} since the record source began lies {_window(question, events.window)}"
        case Last(events):
            return f"the person's last {_what(events, codes)} until the record source ends lies {_window(question, events.window)}"
        case Chain(events, gap, within):
            days = f"the person has a {_what(events, codes)} on {events.at_least} days in a row".replace(" a a", " an a", 1)
            apart = "" if gap == EVER else f", each {_span(gap)} after the one before"
            close = "" if within is None else f", the last at most {_days(within)} after the first"
            return f"{days}{apart}{close}, {_window(question, events.window)}"
        case Cover(events):
            sources = _sources(events) or " from every record source that can hold one"
            return f"a {_kinds(events)} {_window(question, events.window)} would be known of{sources}".replace("a a", "an a", 1)
        case Related():
            return _related(question, predicate)
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            head = {AllOf: "all of these hold", AnyOf: "at least one of these holds", NoneOf: "none of these holds"}[type(predicate)]
            return f"{head}: {'; '.join(f'({n}) {_predicate(question, part, codes)}' for n, part in enumerate(parts, start=1))}"


def _related(question: Question, related: Related) -> str:
    least = related.at_least
    counted = f"{'other ' if related.unit in domain.levels(question.unit) else ''}{_PLURAL[related.unit]}"
    what = f"studies with {counted}" if related.count != related.unit else counted
    number = "there is at least one of" if least == 1 else f"there are at least {least} of"
    text = f"{number} the {what} of the {'' if question.unit == related.of else 'same '}{related.of}"
    conditions = []
    if related.where is not None:
        conditions.append(_tests(related.unit, related.where.tests, "its scan date"))
    if related.same:
        names = [domain.label(domain.fields(related.unit)[name]).lower() for name in related.same]
        conditions.append(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} the same")
    if related.window != EVER:
        conditions.append(f"the scan date lies {_window(question, related.window).replace('the record source', 'the archive')}")
    where = f" of which {', and '.join(conditions)}" if conditions else ""
    close = "" if related.within is None else f", all within {_days(related.within)} of one another"
    return f"{text}{where}{close}"


def _tests(unit: str, tests: tuple[Test, ...], index: str) -> str:
    fields = domain.fields(unit)
    return " and ".join(_test(test, fields[test.column], index) for test in tests)


def pick(question: Question, pick: Pick) -> str:
    """What is kept of several survivors."""
    fields = domain.fields(question.unit)
    order = []
    for key in domain.pick_order(question.unit, pick):
        ends = ("earliest", "latest") if fields[key.column].kind == "date" else ("smallest", "largest")
        order.append(f"{domain.label(fields[key.column]).lower()} ({ends[key.descending]} first)")
    return f"One {question.unit} per {pick.one_per}: the first by {', then '.join(order)}."


def sample(question: Question, sample: Sample) -> str:
    """How the survivors are sampled."""
    fields = domain.fields(question.unit)
    names = [domain.label(fields[column]).lower() for column in sample.strata]
    each = f" for each {' and '.join(names)}" if names else ""
    return f"A random sample of {sample.size} {_PLURAL[question.unit]}{each} (seed {sample.seed})."


def lines(question: Question, codes: Mapping[str, Codes]) -> list[str]:
    """The start, the population, each step, the pick and the sample, in the order of the attrition."""
    found = [start(question), population(question), *(step(question, s, codes) for s in question.steps)]
    found += [pick(question, question.pick)] if question.pick is not None else []
    return found + ([sample(question, question.sample)] if question.sample is not None else [])


def whole(question: Question, codes: Mapping[str, Codes]) -> str:
    """The question as one paragraph."""
    return " ".join(lines(question, codes)[1:])


def _index(question: Question) -> str:
    if isinstance(question.index, str):
        return f"the {domain.label(domain.fields(question.unit)[question.index]).lower()}"
    return _value(question.index) if question.index is not None else "the index date"


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return f"{value.day} {value:%B %Y}"
    return f"{value:g}" if isinstance(value, float) and value == float(f"{value:g}") else str(value)


def _alternatives(values: tuple[Value, ...]) -> str:
    texts = [_value(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _test(test: Test, field: Field, index: str) -> str:
    name = domain.label(field).lower()
    if field.table in domain.TAG_TABLES:
        name = f"the header's {domain.label(field)}"
    if test.column == domain.AGE:
        name = f"the person's age on {index}"
    elif field.name.endswith("_count"):
        name = f"the number of {name.removesuffix(' count')}"
    unit = f" {field.column.unit}" if field.column.unit else ""
    unit = " years" if field.column.unit == "year" else unit
    some_set = field.kind == "set"
    values = test.values
    match test.operator:
        case "eq" | "in":
            return f"{name} {'includes' if some_set else 'is'} {_alternatives(values)}{unit}"
        case "ne":
            verb = "does not include" if some_set else "is not"
            return f"{name} {verb} {_alternatives(values)}{unit}"
        case "between":
            return f"{name} is from {_value(values[0])} to {_value(values[1])}{unit}"
        case "matches":
            return f"{name} matches the pattern {values[0]}"
        case "is_missing":
            return f"{name} is {'missing' if values[0] else 'not missing'}"
        case _:
            bound = _DATE_BOUND if field.kind == "date" else _BOUND
            return f"{name} {bound[test.operator]} {_value(values[0])}{unit}"


def _events(question: Question, events: Events, codes: Mapping[str, Codes]) -> str:
    days = "" if events.at_least == 1 else f" on at least {events.at_least} different days"
    return f"a {_what(events, codes)}{days} {_window(question, events.window)}".replace("a a", "an a", 1)


def _what(events: Events, codes: Mapping[str, Codes]) -> str:
    kinds = f"{'main ' if events.main else ''}{_kinds(events)}"
    if not events.codes:
        return f"{kinds} of any kind{_sources(events)}"
    return f"{kinds} coded as {' or '.join(_codelist(codes[name]) for name in events.codes)}{_sources(events)}"


def _kinds(events: Events) -> str:
    return " or ".join(kind.replace("death_cause", "cause of death").replace("_", " ") for kind in events.kinds)


def _sources(events: Events) -> str:
    return f" from {' or '.join(events.sources)}" if events.sources else ""


def _codelist(codes: Codes) -> str:
    many = f"{len(codes.codes)} code{'' if len(codes.codes) == 1 else 's'}"
    below = " with all below" if codes.expand == "prefix" else ""
    return f"{codes.name.replace('_', ' ')} ({codes.label}, {many}{below})"


def _window(question: Question, window: Window) -> str:
    if window == EVER:
        return "at any time that the record source covers"
    index = _index(question)
    if window.low is None:
        return f"from the start of the record source to {_day(window.high or 0, index)}"
    if window.high is None:
        return f"from {_day(window.low, index)} to the end of the record source"
    if window.low == window.high:
        return f"{'' if window.low else 'on '}{_day(window.low, index)}"
    if window.low * window.high > 0:
        near, far = sorted((abs(window.low), abs(window.high)))
        first, last = (near, far) if window.low > 0 else (far, near)
        return f"from {_days(first)} to {_days(last)} {'after' if window.low > 0 else 'before'} {index}"
    return f"from {_day(window.low, index)} to {_day(window.high, index)}"


def _span(gap: Window) -> str:
    if gap.high is None:
        return f"{_days(gap.low or 1)} or more"
    return f"at most {_days(gap.high)}" if gap.low is None else f"{gap.low} to {_days(gap.high)}"


def _day(days: int, index: str) -> str:
    return f"{_days(abs(days))} {'after' if days > 0 else 'before'} {index}" if days else index


def _days(days: int) -> str:
    return f"{days} day{'' if days == 1 else 's'}"
