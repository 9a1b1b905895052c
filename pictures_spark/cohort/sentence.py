"""A question in plain English: what a coordinator reads back before it is asked, and what a manifest says for ever."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from pictures_spark.cohort import domain
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.model import (
    EVER,
    AllOf,
    Anchor,
    AnyOf,
    Chain,
    Change,
    Cover,
    Events,
    Finding,
    First,
    FollowUp,
    Gap,
    Has,
    IndexEvent,
    Lacks,
    Last,
    Match,
    Member,
    Nearest,
    NoneOf,
    Output,
    Pick,
    Predicate,
    Question,
    Related,
    Sample,
    Split,
    Stay,
    Step,
    Test,
    Value,
    Where,
    Window,
    asked_events,
    in_hours,
    leaves,
)

_ANCHORS = {"start_of_stay": "the first day of the hospital stay", "end_of_stay": "the last day of the hospital stay"}
_PLURAL = {"patient": "patients", "study": "studies", "series": "series", "image": "images"}
_BOUND = {"lt": "is less than", "le": "is at most", "gt": "is more than", "ge": "is at least"}
_DATE_BOUND = {"lt": "is before", "le": "is on or before", "gt": "is after", "ge": "is on or after"}
# Parts that a sentence says before what they are of; the others follow it in brackets.
_SAID_OF = ("year", "month", "month_of_year", "weekday", "hour")
_WEEKDAYS = dict(zip(domain.WEEKDAYS, ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"), strict=True))
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
            days = f"the person has a {_what(events, codes)} on {events.at_least} days that follow one another".replace(" a a", " an a", 1)
            apart = "" if gap == EVER else f", each {_span(gap)} after the one before"
            close = "" if within is None else f", the last at most {_days(within)} after the first"
            return f"{days}{apart}{close}, {_window(question, events.window)}"
        case Cover(events):
            sources = _sources(events) or " from every record source that can hold one"
            return f"a {_kinds(events)} {_window(question, events.window)} would be known of{sources}".replace("a a", "an a", 1)
        case Stay():
            return _stay(question, predicate, codes)
        case Change():
            return _change(question, predicate, codes)
        case Nearest():
            return _nearest(question, predicate, codes)
        case Gap():
            days = f"{_span_of(predicate.window)}{' by the clock' if predicate.window.unit == 'hour' else ''}"
            return f"from {_date(question, predicate.start)} to {_date(question, predicate.end)} it is {days}"
        case Finding():
            return _finding(question, predicate)
        case Member(cohort, level):
            return f"the {level} is that of a member of the frozen cohort {cohort}"
        case Related():
            return _related(question.unit, predicate, _index(question, predicate.window))
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            head = {AllOf: "all of these hold", AnyOf: "at least one of these holds", NoneOf: "none of these holds"}[type(predicate)]
            lettered = (f"({chr(ord('a') + n)}) {_predicate(question, part, codes)}" for n, part in enumerate(parts))
            return f"{head}: {'; '.join(lettered)}"


def _related(unit: str, related: Related, index: str) -> str:
    least = related.at_least
    other, several = "other " if related.unit in domain.levels(unit) else "", least > 1
    counted = f"{other}{_PLURAL[related.unit] if several or related.unit == 'series' else related.unit}"
    what = f"{'studies' if several else 'study'} with {counted}" if related.count != related.unit else counted
    text = f"the {related.of} has at least {least if several else 'one'} {what}"
    close = "" if related.within is None else f", all within {_days(related.within)} of one another"
    far = "" if related.apart is None else f", the first and the last at least {_days(related.apart)} apart"
    return f"{text}{_of_which(related, index)}{close}{far}"


def _of_which(related: Related, index: str) -> str:
    """The conditions on other scans."""
    conditions = []
    if related.where is not None:
        conditions.append(_tests(related.unit, related.where.tests, "its scan date"))
    if related.same:
        names = [domain.label(domain.fields(related.unit)[name]).lower() for name in related.same]
        conditions.append(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} the same")
    if related.differ:
        names = [domain.label(domain.fields(related.unit)[name]).lower() for name in related.differ]
        conditions.append(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not the same")
    if related.ratio is not None:
        conditions += [_times(related.unit, test) for test in related.ratio.tests]
    if related.window != EVER:
        date = "scan date" if related.window.unit == "day" else "scan time"
        conditions.append(f"its {date} lies {_between(related.window, index).replace('the record source', 'the archive')}")
    if related.among is not None:
        conditions.append(f"the {related.among.level} is that of a member of the frozen cohort {related.among.cohort}")
    if related.related is not None:
        its = f"the former's scan {'date' if related.related.window.unit == 'day' else 'time'}"
        conditions.append(f"for which {_related(related.unit, related.related, its)}")
    if not conditions:
        return ""
    first, *more = conditions
    return ", and ".join([f" whose {first.removeprefix('its ')}" if first.startswith("its ") else f" of which {first}", *more])


def _times(unit: str, test: Test) -> str:
    """A condition on how many times a number is another."""
    return f"{domain.label(domain.fields(unit)[test.column]).lower()} {_so_many(test)} that of the one in question"


def _so_many(test: Test) -> str:
    values = [_value(value) for value in test.values]
    match test.operator:
        case "eq" | "in":
            return f"is {' or '.join(values)} times"
        case "ne":
            return f"is not {' or '.join(values)} times"
        case "between":
            return f"is from {values[0]} to {values[1]} times"
        case "is_missing":
            return f"can{'not' if test.values[0] else ''} be compared with"
        case _:
            return f"{_BOUND[test.operator]} {values[0]} times"


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


def match(question: Question, match: Match, codes: Mapping[str, Codes]) -> str:
    """How cases are given their controls."""
    fields, units = domain.fields(question.unit), _PLURAL[question.unit]
    like = [f"the same {domain.label(fields[name]).lower()}" for name in match.exact]
    for name, most in match.caliper:
        unit = " days" if fields[name].kind == "date" else f" {fields[name].column.unit}" if fields[name].column.unit else ""
        unit = " years" if unit == " year" else unit
        like.append(f"{domain.label(fields[name]).lower()} within {_value(most)}{unit}")
    alike = f" with {' and '.join(like)}" if like else ""
    risk = ""
    if match.risk_set is not None:
        risk = f", alive, resident and without a {_what(match.risk_set, codes)} up to the case's index date".replace("a a", "an a", 1)
    again = "with" if match.replacement else "without"
    return (
        f"Cases are {units} whose {match.level} is in the frozen cohort {match.cases}; each is given up to {match.ratio} of the other "
        f"{units}{alike}{risk}, {again} replacement (seed {match.seed}); cases with fewer than {match.at_least} and controls of none are "
        "left out."
    )


def split(question: Question, split: Split) -> str:
    """How the survivors are split."""
    if split.at is not None:
        first, second = split.parts
        return (
            f"Split at {_value(split.at)}, each patient in one part: {first} are patients with {_PLURAL[question.unit]} before it, "
            f"with those alone; {second} are all others."
        )
    shares = ", ".join(f"{name} {percent} %" for name, percent in zip(split.parts, split.percent, strict=True))
    return f"Split at random, each patient in one part: {shares} (seed {split.seed})."


def lines(question: Question, codes: Mapping[str, Codes]) -> list[str]:
    """The start, the population, each step and the last acts, in the order of the attrition."""
    found = [start(question), population(question), *(step(question, s, codes) for s in question.steps)]
    found += [pick(question, question.pick)] if question.pick is not None else []
    found += [match(question, question.match, codes)] if question.match is not None else []
    found += [sample(question, question.sample)] if question.sample is not None else []
    return found + ([split(question, question.split)] if question.split is not None else [])


def shown(question: Question, codes: Mapping[str, Codes]) -> list[str]:
    """What is shown of each member, and what they are counted by."""
    found = [f"{output.id}: {_output(question, output, codes)}." for output in question.outputs]
    return found + [f"Counted by {' and '.join(_group(question, name) for name in b.by)}." for b in question.breakdowns]


def whole(question: Question, codes: Mapping[str, Codes]) -> str:
    """The question as one paragraph."""
    return " ".join([*index(question, codes), *lines(question, codes)[1:], *shown(question, codes)])


def methods(question: Question, codes: Mapping[str, Codes], release: str | None = None) -> str:
    """The methods paragraph of a paper: what was asked and what its words mean, without any count.

    ``release`` is named where it is known.
    """
    units, steps = _PLURAL[question.unit], question.steps
    told = [f"From {f'release {release} of ' if release else ''}the de-identified tables we took all {units}."]
    told += [f"{said}" for said in index(question, codes)]
    told.append(population(question))
    if steps:
        which = f"every one of {len(steps)} conditions, each judged apart from the others" if len(steps) > 1 else "this condition"
        told.append(f"We kept {units} that met {which}:")
        said = [step(question, one, codes)[:-1] for one in steps]
        told.append("; ".join(f"({n}) {text[0].lower()}{text[1:]}" for n, text in enumerate(said, start=1)) + ".")
    told += lines(question, codes)[2 + len(steps) :]
    told += [text[0].upper() + text[1:] for text in shown(question, codes)]
    told += _meanings(question)
    for name, found in codes.items():
        below = "each with all codes below it" if found.expand == "prefix" else "each alone"
        version = f", version {found.version}" if found.version else ""
        told.append(f"Code list {name.replace('_', ' ')} ({found.label}{version}; {below}): {_shortened(found.codes)}.")
    return " ".join(told)


_MANY = 30


def _shortened(codes: tuple[str, ...]) -> str:
    """The codes of a list, the first and last of a long one with its size."""
    if len(codes) <= _MANY:
        return ", ".join(codes)
    return f"{', '.join(codes[: _MANY // 2])} … {codes[-1]}, {len(codes)} codes in all"


def _meanings(question: Question) -> list[str]:
    """What a reader must know to read the conditions right; only what the question uses."""
    found = []
    conditions = [leaf for step in question.steps for leaf in leaves(step.predicate) if isinstance(leaf, Where)]
    if any(test.column == domain.AGE for where in conditions for test in where.tests):
        found.append("Ages are completed years; a birthday on 29 February is kept on 1 March.")
    asked = asked_events(question)
    if any(events.window.unit == "day" for _, events in asked):
        found.append("Windows are whole days, the first and the last included.")
    if any(in_hours(step.predicate) for step in question.steps):
        found.append(
            "Hours are counted by the clock from one time of day to the other; a time that was not recorded may be any of its day, and the "
            "answer was unknown where that decides."
        )
    if asked:
        found.append(
            "Where no event was found, the answer was no only if every record source that can hold one covered the whole window and the "
            "person lived in the area throughout, and unknown otherwise."
        )
    if question.steps:
        kept = [step.id for step in question.steps if step.unknown != "exclude"]
        policy = f", but for {' and '.join(name.replace('_', ' ') for name in kept)}, where they were kept" if kept else ""
        found.append(f"{_PLURAL[question.unit].capitalize()} for which a condition could not be told were left out{policy}.")
    return found


def index(question: Question, codes: Mapping[str, Codes]) -> list[str]:
    """What the index date is, where a name does not say it."""
    if not isinstance(question.index, IndexEvent):
        return []
    return [f"The index date is the day of the person's {question.index.which} {_what(question.index.events, codes)}."]


def _output(question: Question, output: Output, codes: Mapping[str, Codes]) -> str:
    fields = domain.fields(question.unit)
    match output.of:
        case str(name):
            return domain.label(fields[name]).lower()
        case Gap(start, end):
            return f"days from {_date(question, start)} to {_date(question, end)}"
        case Nearest() as nearest:
            window = nearest.among.window
            gap = f"{window.unit}s from {_index(question, window)}"
            among = domain.taken_fields() if isinstance(nearest.among, Events) else domain.fields(nearest.among.unit)
            names = [gap if name == domain.GAP else domain.label(among[name]).lower() for name in output.give]
            return f"{' and '.join(names)} of {_one_taken(question, nearest, codes)}"
        case FollowUp(outcome, until):
            ends = [
                "death",
                "the end of residence",
                *([_value(until)] if until is not None else []),
                "the end of what the record sources cover",
            ]
            when = _window(question, outcome.window)
            return f"days from {_index(question)} to the first {_what(outcome, codes)} {when}, or to {', '.join(ends[:-1])} or {ends[-1]}"


def _group(question: Question, name: str) -> str:
    if name not in domain.grouped(question.unit):
        return name.replace("_", " ")
    return domain.label(domain.grouped(question.unit)[name]).lower()


def _date(question: Question, name: str) -> str:
    if name == domain.INDEX:
        return _index(question)
    return f"the {domain.label(domain.fields(question.unit)[name]).lower()}"


def _span_of(window: Window) -> str:
    """How many days or hours a difference of dates may be."""
    if window.low is None:
        return f"at most {_days(window.high or 0, window.unit)}"
    if window.high is None:
        return f"at least {_days(window.low, window.unit)}"
    return _days(window.low, window.unit) if window.low == window.high else f"{window.low} to {window.high} {window.unit}s"


def _stay(question: Question, stay: Stay, codes: Mapping[str, Codes]) -> str:
    held = " and ".join(f"a {_what(events, codes)}" for events in stay.holds).replace("a a", "an a")
    when = [f"begins {_window(question, stay.begins)}"] if stay.begins != EVER else []
    when += [f"ends {_window(question, stay.ends)}"] if stay.ends != EVER else []
    when += [f"lasts {_span_of(stay.days)} from its first to its last day"] if stay.days != EVER else []
    number = "a hospital stay" if stay.at_least == 1 else f"at least {stay.at_least} hospital stays"
    which = "which" if stay.at_least == 1 else "each of which"
    return f"the person has {number} with {held}" + (f", {which} {' and '.join(when)}" if when else ", at any time")


def _one_taken(question: Question, nearest: Nearest, codes: Mapping[str, Codes]) -> str:
    among = nearest.among
    if isinstance(among, Events):
        return f"the {nearest.take} {_what(among, codes)} {_window(question, among.window, among.anchor)}"
    what = f"other {'study' if among.unit == 'study' else 'series'} of the same {among.of}"
    return f"the {nearest.take} {what}{_of_which(among, _index(question, among.window))}"


def _nearest(question: Question, nearest: Nearest, codes: Mapping[str, Codes]) -> str:
    one = _one_taken(question, nearest, codes)
    if nearest.then is None:
        return f"there is {one}"
    if isinstance(nearest.among, Events):
        return f"of {one}, {_of_event(nearest.then.tests)}"
    return f"of {one}, {_tests(nearest.among.unit, nearest.then.tests, 'its scan date')}"


def _change(question: Question, change: Change, codes: Mapping[str, Codes]) -> str:
    what, when = _what(change.events, codes), _window(question, change.events.window, change.events.anchor)
    later = "" if change.gap == EVER else f", {_span_of(change.gap)} after the {'other' if change.take == 'any' else 'first'},"
    two = f"of a {what} and a later one{later} both" if change.take == "any" else f"of the first {what} and the last{later}"
    return f"{two} {when}, {' and '.join(map(_changed, change.then.tests))}".replace("of a a", "of an a", 1)


def _changed(test: Test) -> str:
    """A condition on what two measurements make."""
    one = test.values[0]
    if test.column == domain.RATIO:
        return f"the later value {_so_many(test)} the earlier"
    rises, falls = {"ge": "by at least", "gt": "by more than"}, {"le": "by at least", "lt": "by more than"}
    if isinstance(one, float) and test.operator in rises and one >= 0:
        return f"the value rises {rises[test.operator]} {_value(one)}"
    if isinstance(one, float) and test.operator in falls and one <= 0:
        return f"the value falls {falls[test.operator]} {_value(-one)}"
    return _test(test, domain.changes()[test.column], "")


def _of_event(tests: tuple[Test, ...]) -> str:
    fields = domain.event_fields()
    return " and ".join(_test(test, fields[test.column], "its date") for test in tests)


def _conditions(events: Events) -> str:
    return "" if events.where is None else f" of which {_of_event(events.where.tests)}"


def _finding(question: Question, asked: Finding) -> str:
    how = f"{asked.certainty} " if asked.certainty is not None else ""
    whose = "" if asked.subject == "patient" else f" (of {'the family' if asked.subject == 'family' else 'another person'})"
    verb = "affirms" if asked.polarity == "affirmed" else "negates"
    when = "" if asked.window == EVER else f", signed {_window(question, asked.window)}"
    return f"a report of the {asked.of} {verb} {how}{asked.finding.replace('_', ' ')}{whose}{when}"


def _index(question: Question, window: Window = EVER) -> str:
    """What a window counts from: of hours, the time of day."""
    if isinstance(question.index, IndexEvent):
        return "the time of that event" if window.unit == "hour" else "the index date"
    clock = domain.clock(question.unit, question.index) if isinstance(question.index, str) else None
    if clock is not None and window.unit == "hour":
        return f"the {domain.label(clock).lower()}"
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
    name, values = domain.label(field).lower(), test.values
    if field.table in domain.TAG_TABLES:
        name = f"the header's {domain.label(field)}"
    if test.column == domain.AGE:
        name = f"the person's age on {index}"
    elif field.part in _SAID_OF:
        whole = domain.label(replace(field, part=None)).lower()
        name = f"the {domain.PARTS[field.part].said} of {'the time of day' if whole == 'time' else f'the {whole}'}"
    elif field.name.endswith("_count"):
        counted = name.removesuffix(" count")
        name = f"the number of {counted}{'' if counted.endswith('s') else 's'}"
    unit = f" {field.column.unit}" if field.column.unit else ""
    unit = " years" if field.column.unit == "year" else unit
    if field.part == "weekday":
        values = tuple(_WEEKDAYS.get(str(value), value) for value in values)
    some_set = field.kind == "set"
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
    days += "" if events.apart is None else f", the first and the last at least {_days(events.apart)} apart,"
    when = _window(question, events.window, events.anchor)
    return f"a {_what(events, codes)}{days} {when}".replace("a a", "an a", 1)


def _what(events: Events, codes: Mapping[str, Codes]) -> str:
    kinds = f"{'main ' if events.main else ''}{_kinds(events)}"
    coded = f"coded as {' or '.join(_codelist(codes[name]) for name in events.codes)}" if events.codes else "of any kind"
    return f"{kinds} {coded}{_sources(events)}{_conditions(events)}"


def _kinds(events: Events) -> str:
    return " or ".join(kind.replace("death_cause", "cause of death").replace("_", " ") for kind in events.kinds)


def _sources(events: Events) -> str:
    return f" from {' or '.join(events.sources)}" if events.sources else ""


def _codelist(codes: Codes) -> str:
    many = f"{len(codes.codes)} code{'' if len(codes.codes) == 1 else 's'}"
    below = " with all below" if codes.expand == "prefix" else ""
    return f"{codes.name.replace('_', ' ')} ({codes.label}, {many}{below})"


def _window(question: Question, window: Window, anchor: Anchor = "index") -> str:
    return _between(window, _ANCHORS[anchor] if anchor != "index" else _index(question, window))


def _between(window: Window, index: str) -> str:
    if window == EVER:
        return "at any time that the record source covers"
    if window.low is None:
        return f"from the start of the record source to {_day(window.high or 0, index, window.unit)}"
    if window.high is None:
        return f"from {_day(window.low, index, window.unit)} to the end of the record source"
    if window.low == window.high:
        on = "on " if window.unit == "day" else "at "
        return f"{'' if window.low else on}{_day(window.low, index, window.unit)}"
    if window.low * window.high > 0:
        near, far = sorted((abs(window.low), abs(window.high)))
        first, last = (near, far) if window.low > 0 else (far, near)
        return f"from {_days(first, window.unit)} to {_days(last, window.unit)} {'after' if window.low > 0 else 'before'} {index}"
    return f"from {_day(window.low, index, window.unit)} to {_day(window.high, index, window.unit)}"


def _span(gap: Window) -> str:
    if gap.high is None:
        return f"{_days(gap.low or 1)} or more"
    return f"at most {_days(gap.high)}" if gap.low is None else f"{gap.low} to {_days(gap.high)}"


def _day(days: int, index: str, unit: str = "day") -> str:
    return f"{_days(abs(days), unit)} {'after' if days > 0 else 'before'} {index}" if days else index


def _days(days: int, unit: str = "day") -> str:
    return f"{days} {unit}{'' if days == 1 else 's'}"
