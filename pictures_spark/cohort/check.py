"""What makes a question one that can be asked: names, values, ranges, windows, and that its parts fit together.

Works on the graph, so that every face is checked alike. Each fault is one sentence with a remedy; all are found at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
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
    Test,
    Value,
    Where,
    Window,
    asked_events,
    asked_members,
    in_hours,
    leaves,
    saved_cohorts,
)
from pictures_spark.cohort.pattern import PatternError, canonical
from pictures_spark.records.source import source, source_names
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary


def default_population(question: Question) -> Any:
    """``all`` where no step, nor the index or the match, is about a person or a record, else ``alive_and_resident`` (DESIGN section 6)."""
    match = question.match
    matched = [*match.exact, *(name for name, _ in match.caliper)] if match is not None else []
    at_risk = match is not None and match.risk_set is not None
    if at_risk or _personal(question.unit, matched) or isinstance(question.index, IndexEvent):
        return "alive_and_resident"
    for leaf in (leaf for step in question.steps for leaf in leaves(step.predicate)):
        match leaf:
            case Where(tests):
                personal = _personal(question.unit, [test.column for test in tests])
            case Related() | Nearest(Related()):
                personal = _personal_related(leaf if isinstance(leaf, Related) else leaf.among)
            case Gap(start, end):
                personal = _personal(question.unit, (start, end))
            case Member():
                personal = False
            case _:
                personal = True
        if personal:
            return "alive_and_resident"
    return "all"


def _personal_related(related: Any) -> bool:
    columns = [test.column for test in related.where.tests] if related.where is not None else []
    nested = related.related is not None and _personal_related(related.related)
    return nested or _personal(related.unit, columns)


def _personal(unit: str, columns: Iterable[str]) -> bool:
    fields = domain.fields(unit) if unit in domain.UNITS else {}
    return any(column in fields and fields[column].personal for column in columns)


def faults(question: Question, whole: bool = True) -> list[str]:
    """Everything that is wrong with a question apart from its code lists' content and the published tables.

    ``whole`` is False where a face could not read all of it: what may only seem to be missing is then not reported.
    """
    found = [*_names(question), *_codelists(question)]
    if whole:
        found += _missing(question)
    if question.unit in domain.UNITS:
        found += [*_index(question, whole), *_steps(question)]
        found += _pick(question, question.pick) if question.pick is not None else []
        found += _match(question, question.match) if question.match is not None else []
        found += _sample(question, question.sample) if question.sample is not None else []
        found += _split(question, question.split) if question.split is not None else []
        found += [*_outputs(question), *_breakdowns(question)]
    return list(dict.fromkeys(found))


def not_held(question: Question, held: Iterable[str]) -> list[str]:
    """Event kinds that no published source can hold: such a question would be answered with nobody, or everybody."""
    kinds = set(held)
    return [
        f"{where}: no published record source can hold events of kind {kind}, so nothing can be said about them{_needed(kind)}"
        for where, events in asked_events(question)
        for kind in events.kinds
        if kind not in kinds
    ]


def untouched(step_id: str, unit: str) -> str:
    """The fault of a step whose window overlaps the cover of its sources for no unit."""
    return f"step {step_id}: its window overlaps what the record sources cover for no {unit} at all; check the window and the index"


def _needed(kind: str) -> str:
    """Which record source would have to be loaded."""
    names = [name for name in source_names() if kind in source(name).kinds]
    return f"; {' or '.join(names)} would have to be loaded" if names else "; no record source that is declared has them"


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
    used = {name for _, events in asked_events(question) for name in events.codes}
    yield from (f"code list {codelist.name}: nothing uses it" for codelist in question.codelists if codelist.name not in used)


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


def _too_many(word: str, number: int) -> Iterator[str]:
    most = _properties()[word]["maxItems"]
    if number > most:
        yield f"{word}: {number} are more than the {most} a question may have"


def _codelists(question: Question) -> Iterator[str]:
    pattern = _properties()["codelists"]["propertyNames"]["pattern"]
    names = [codelist.name for codelist in question.codelists]
    for where, events in asked_events(question):
        for name in events.codes:
            if name not in names:
                declare = "; declare it under codelists, such as {my_list: {system: icd10, codes: [I63]}}, and name that list here"
                yield f"{where}: there is no code list {name!r}{nearest(name, names) or declare}"
    for codelist in question.codelists:
        if not re.fullmatch(pattern, codelist.name):
            yield f"code list {codelist.name[:40]}: the name must be lower-case letters, digits, - and _, starting with a letter"
        yield from _one_of(f"code list {codelist.name}: expand", codelist.expand, ("prefix", "exact"))


def _index(question: Question, whole: bool) -> Iterator[str]:
    fields, index = domain.fields(question.unit), question.index
    dates = [name for name, field in fields.items() if field.kind == "date"]
    if isinstance(index, IndexEvent):
        events = index.events
        if events != Events(events.kinds, events.codes, EVER, main=events.main, sources=events.sources, where=events.where):
            yield "index: it is the day of an event at any time; leave out everything but event, codes, position, source and where"
        yield from _events(question, index, events, f"index: {index.which}")
    elif isinstance(index, str):
        if index not in dates:
            written = "; a date is written year first, such as 2016-01-31" if index[:1].isdigit() else nearest(index, dates)
            yield f"index: {index!r} is not a date column of {question.unit}{written}"
    elif index is None and not whole:
        return  # one that could not be read may be there
    elif index is None and question.unit != "patient":
        yield f"index: a cohort of {question.unit} units needs one, such as scan_date"
    elif index is None:
        bounded = [f"step {step.id}" for step in question.steps if any(_needs_index(question, leaf) for leaf in leaves(step.predicate))]
        bounded += [f"output {output.id}" for output in question.outputs if _shows_index(output)]
        lived = [name for breakdown in question.breakdowns for name in breakdown.by if name in domain.LIVED]
        lived += [name for name in question.match.exact if name in domain.LIVED] if question.match is not None else []
        lived += [name for name in question.sample.strata if name in domain.LIVED] if question.sample is not None else []
        who = [*dict.fromkeys(bounded), *dict.fromkeys(lived)]
        who += ["population alive_and_resident"] if question.population == "alive_and_resident" else []
        who += ["match with a risk set"] if question.match is not None and question.match.risk_set is not None else []
        who += ["split at a date"] if question.split is not None and question.split.at is not None else []
        if who:
            yield f"index: a cohort of patients has no date of its own, which {', '.join(who)} needs; give one date, such as 2016-01-01"


def _needs_index(question: Question, leaf: Predicate) -> bool:
    match leaf:
        case Where(tests):
            return any(test.column in domain.LIVED for test in tests)
        case Nearest():
            return True
        case Gap(start, end):
            return domain.INDEX in (start, end)
        case Stay(_, begins, ends):
            return begins != EVER or ends != EVER
        case _:
            return _window(leaf) != EVER


def _shows_index(output: Output) -> bool:
    match output.of:
        case str(name):
            return name in domain.LIVED
        case Gap(start, end):
            return domain.INDEX in (start, end)
        case _:
            return True


def _window(predicate: Predicate) -> Window:
    match predicate:
        case Related() | Finding():
            return predicate.window
        case Nearest(among):
            return among.window
        case Stay(_, begins):
            return begins
        case Has(events) | Lacks(events) | First(events) | Last(events) | Cover(events):
            return events.window
        case Chain() | Change():
            return predicate.events.window
        case _:
            return EVER


def _steps(question: Question) -> Iterator[str]:
    for step in question.steps:
        yield from _predicate(question, step.predicate, f"step {step.id}")


def _predicate(question: Question, predicate: Predicate, where: str) -> Iterator[str]:
    match predicate:
        case Where():
            yield from _where(question.index, predicate, where, domain.fields(question.unit), question.unit)
        case Related():
            yield from _related(question.unit, predicate, f"{where}: related")
            yield from _hours(question, predicate, f"{where}: related")
        case Gap():
            yield from _hours(question, predicate, f"{where}: gap")
            yield from _gap(question, predicate, f"{where}: gap")
            yield from _window_order(predicate.window, f"{where}: gap", "days")
            if predicate.window == EVER:
                yield f"{where}: gap needs days, such as [-1d, 1d]"
        case Stay():
            yield from _stay(question, predicate, f"{where}: stay")
        case Change():
            yield from _change(question, predicate, f"{where}: change")
        case Nearest():
            yield from _nearest(question, predicate, f"{where}: nearest")
        case Finding():
            yield from _finding(question, predicate, f"{where}: report")
            yield from _hours(question, predicate, f"{where}: report")
        case Member():
            yield from _member(question.unit, predicate, f"{where}: in")
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            yield from (fault for part in parts for fault in _predicate(question, part, where))
            yield from (f"{where}: names a condition twice" for n, part in enumerate(parts) if part in parts[:n])
        case _:
            yield from _events(question, predicate, predicate.events, where)


def _gap(question: Question, gap: Gap, where: str) -> Iterator[str]:
    dates = [domain.INDEX, *(name for name, field in domain.fields(question.unit).items() if field.kind == "date")]
    for name in (gap.start, gap.end):
        if name not in dates:
            yield f"{where}: {name!r} is neither index nor a date column of {question.unit}{nearest(name, dates)}"
    if gap.start == gap.end:
        yield f"{where}: from and to are the same date"


def _stay(question: Question, stay: Stay, where: str) -> Iterator[str]:
    yield from _hours(question, stay, where)
    yield from _window_order(stay.begins, where, "begins")
    yield from _window_order(stay.ends, where, "ends")
    yield from _window_order(stay.days, where, "days")
    if (stay.days.low is not None and stay.days.low < 0) or (stay.days.high is not None and stay.days.high < 0):
        yield f"{where}: days is how long it lasts, from 0d on"
    if stay.at_least < 1:
        yield f"{where}: at_least must be 1 or more"
    if not stay.holds:
        yield f"{where}: has must name the events of the stay"
    for number, events in enumerate(stay.holds, start=1):
        place = f"{where}: has {number}"
        if events != Events(events.kinds, events.codes, EVER, main=events.main, sources=events.sources, where=events.where):
            yield f"{place}: an event of a stay has no window or number of its own; leave out all but event, codes, position, source, where"
        yield from _events(question, stay, events, place)
    yield from (f"{where}: names an event twice" for n, events in enumerate(stay.holds) if events in stay.holds[:n])


def _nearest(question: Question, asked: Nearest, where: str) -> Iterator[str]:
    yield from _one_of(f"{where}: take", asked.take, load_schema("cohort.yaml")["$defs"]["nearest"]["properties"]["take"]["enum"])
    among = asked.among
    if isinstance(among, Events):
        yield from _events(question, asked, among, where)
        if asked.then is not None:
            yield from _where(None, asked.then, f"{where}: then", domain.event_fields())
        return
    wrong = list(_related(question.unit, among, where))
    yield from wrong
    yield from _hours(question, asked, where)
    plain = replace(Related(among.unit, among.of), where=among.where, window=among.window, same=among.same, differ=among.differ)
    plain = replace(plain, ratio=among.ratio, count=among.count, among=among.among)
    if among != plain or among.count != among.unit:
        yield f"{where}: it is one of them: leave out at_least, count, within, apart and related"
    if asked.then is not None and not wrong:
        yield from _where(domain.AGE_DATE, asked.then, f"{where}: then", domain.fields(among.unit), among.unit)


def _change(question: Question, asked: Change, where: str) -> Iterator[str]:
    events, gap = asked.events, asked.gap
    yield from _one_of(f"{where}: take", asked.take, load_schema("cohort.yaml")["$defs"]["change"]["properties"]["take"]["enum"])
    yield from _events(question, asked, events, where)
    valued, known = domain.valued_kinds(), vocabulary("event_kind")
    for kind in (kind for kind in events.kinds if kind in known and kind not in valued):
        yield f"{where}: no record source gives {kind} events a number, only {_listed(valued)}"
    if events.at_least != 1:
        yield f"{where}: a change is of two measurements: at_least does not go with change"
    yield from _window_order(gap, where, "gap")
    least = 0 if gap.unit == "hour" else 1
    if any(end is not None and end < least for end in (gap.low, gap.high)):
        yield f"{where}: gap is from the earlier to the later, so {least}{gap.unit[0]} at least"
    if asked.take == "ends" and "hour" in (gap.unit, events.window.unit):
        yield f"{where}: the first and the last of a window go by days; give window and gap in days, or leave out take"
    yield from _where(None, asked.then, f"{where}: then", domain.changes())


def _finding(question: Question, asked: Finding, where: str) -> Iterator[str]:
    yield from _one_of(f"{where}: finding", asked.finding, vocabulary("finding"))
    yield from _one_of(f"{where}: polarity", asked.polarity, vocabulary("polarity"))
    yield from _one_of(f"{where}: subject", asked.subject, vocabulary("finding_subject"))
    if asked.certainty is not None:
        yield from _one_of(f"{where}: certainty", asked.certainty, vocabulary("certainty"))
    if asked.of not in ("study", "patient"):
        yield from _one_of(f"{where}: of", asked.of, ("study", "patient"))
    elif asked.of not in domain.levels(question.unit):
        yield f"{where}: a {question.unit} is not part of one study; ask with of: patient"
    yield from _window_order(asked.window, where, "window")


def _member(unit: str, asked: Member, where: str) -> Iterator[str]:
    if not re.fullmatch(_properties()["id"]["pattern"], asked.cohort):
        yield f"{where}: {asked.cohort[:40]!r} is no name of a cohort"
    yield from _one_of(f"{where}: level", asked.level, domain.levels(unit))


def not_saved(question: Question, units: Mapping[str, str], releases: Mapping[str, str], release: str) -> list[str]:
    """What is wrong with the saved cohorts that a question refers to: unknown ones, those of other releases, and levels that they lack.

    Parameters
    ----------
    units, releases : of every saved cohort, by name.
    release : that which the question is asked of.
    """
    found = []
    for name in saved_cohorts(question):
        if name not in units:
            found.append(f"no cohort {name!r} is frozen{nearest(name, units)}; freeze it first")
        elif releases[name] != release:
            found.append(
                f"cohort {name} was frozen on release {releases[name]}, and this question is asked of {release}: people and scans of two "
                f"releases are not compared; freeze it again"
            )
    match = question.match
    if match is not None and match.cases in units and match.level not in domain.levels(units[match.cases]):
        unit = units[match.cases]
        found.append(f"match: cohort {match.cases} is of {unit} units, which have no {match.level}; ask with level: {unit}")
    for where, member in asked_members(question):
        if member.cohort in units and member.level not in domain.levels(units[member.cohort]):
            unit = units[member.cohort]
            found.append(f"{where}: cohort {member.cohort} is of {unit} units, which have no {member.level}; ask with level: {unit}")
    return found


def _related(unit: str, related: Related, where: str) -> Iterator[str]:
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
    if related.of not in domain.levels(unit):
        yield f"{where}: a {unit} is not part of one {related.of}; ask with of: {unit}"
    if related.unit == "study" and related.count == "series":
        yield f"{where}: count: series goes with unit: series only"
    if related.where is not None:
        yield from _where(domain.AGE_DATE, related.where, where, domain.fields(related.unit), related.unit)
    mine, other = domain.fields(unit), domain.fields(related.unit)
    yield from (f"{where}: same names {n} twice" for n in dict.fromkeys(n for n in related.same if related.same.count(n) > 1))
    yield from (f"{where}: {n} cannot be the same and differ" for n in related.differ if n in related.same)
    yield from (f"{where}: differ names {n} twice" for n in dict.fromkeys(n for n in related.differ if related.differ.count(n) > 1))
    for word, name in (*(("same", name) for name in related.same), *(("differ", name) for name in related.differ)):
        if name not in mine or name not in other:
            yield f"{where}: {word}: {_unknown_column(unit if name not in mine else related.unit, name)}"
        elif mine[name].kind in ("set", "list", "span"):
            yield f"{where}: {word}: {name} has several values, which are never compared as one"
    if related.ratio is not None:
        yield from _ratio(unit, related, related.ratio, f"{where}: ratio")
    yield from _window_order(related.window, where, "window")
    if related.at_least < 1:
        yield f"{where}: at_least must be 1 or more"
    if related.within is not None and related.at_least == 1:
        yield f"{where}: within needs at_least: 2 or more, as one alone lies within any time"
    if related.apart is not None and related.at_least == 1:
        yield f"{where}: apart needs at_least: 2 or more, as one alone is not apart from another"
    if related.apart is not None and related.within is not None:
        yield f"{where}: has both within and apart; use one of them"
    if related.among is not None:
        yield from _member(related.unit, related.among, f"{where}: among")
    if related.related is not None:
        if related.related.related is not None:
            yield f"{where}: related may be nested once only"
        yield from _related(related.unit, related.related, f"{where}: related")


def _ratio(unit: str, related: Related, ratio: Where, where: str) -> Iterator[str]:
    mine, other = domain.fields(unit), domain.fields(related.unit)
    names = list(dict.fromkeys(test.column for test in ratio.tests))
    for name in names:
        if name not in mine or name not in other:
            yield f"{where}: {_unknown_column(unit if name not in mine else related.unit, name)}"
        elif mine[name].kind not in ("number", "whole"):
            yield f"{where}: {name} is no number"
    yield from _where(None, ratio, where, dict.fromkeys(names, domain.ratio()))


def _window_order(window: Window, where: str, what: str) -> Iterator[str]:
    if window.low is not None and window.high is not None and window.low > window.high:
        unit = window.unit[0]
        yield f"{where}: {what} [{window.low}{unit}, {window.high}{unit}] is reversed; the earlier {window.unit} comes first"


def _hours(question: Question, node: Any, where: str) -> Iterator[str]:
    """Faults of windows of hours: they need a time of day on both sides."""
    if not in_hours(node):
        return
    match node:
        case Has(events) | Lacks(events) | Nearest(Events() as events) | Change(events):
            if events.anchor != "index" and events.window.unit == "hour":
                yield f"{where}: hours do not count from a hospital stay, which has no time of day; give the window in days"
            timed = domain.timed_kinds()
            known = vocabulary("event_kind")
            for kind in (kind for kind in events.kinds if kind in known and kind not in timed):
                yield f"{where}: no record source says at what time of day {kind} events happen, only {_listed(timed)}; give days"
            if not in_hours(events):
                return  # only the time from the one to the other does
        case Related() | Nearest(Related()):
            related = node if isinstance(node, Related) else node.among
            assert isinstance(related, Related)
            if related.unit in domain.UNITS and domain.clock(related.unit, domain.AGE_DATE) is None:
                yield f"{where}: the scan date of a {related.unit} has no time of day; ask with unit: series, or give days"
            if not in_hours(related.window):
                return  # only what is nested in it does, and that from the other scan
        case Gap(start, end):
            for name in (start, end):
                if name != domain.INDEX and name in domain.fields(question.unit) and domain.clock(question.unit, name) is None:
                    yield f"{where}: {name} of a {question.unit} has no time of day; give days"
            if domain.INDEX not in (start, end):
                return
        case Stay() | Finding() | FollowUp() | First() | Last() | Chain() | Cover():
            yield f"{where}: hours go with has, lacks, change, nearest, related and gap alone; give whole days, such as [0d, 1d]"
            return
        case _:
            return
    index = question.index
    if isinstance(index, str) and domain.clock(question.unit, index) is not None:
        return
    if isinstance(index, IndexEvent):
        if set(index.events.kinds) <= set(domain.timed_kinds()):
            return
        has_none = f"{' or '.join(index.events.kinds)} events have no time of day"
    else:
        has_none = "there is none" if index is None else f"{index} of a {question.unit} has no time of day"
    yield (
        f"{where}: hours count from the index date's time of day, and {has_none}; use index: scan_date of series or images, "
        f"index: study_date of studies, or the day of an event of kind {_listed(domain.timed_kinds())}"
    )


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _where(
    index: str | date | IndexEvent | None, where: Where, place: str, fields: Mapping[str, Field], unit: str | None = None
) -> Iterator[str]:
    """Faults of conditions on columns: of a unit, else of an event."""
    by_column: dict[str, list[Test]] = {}
    for test in where.tests:
        by_column.setdefault(test.column, []).append(test)
    for column, tests in by_column.items():
        if column not in fields:
            known = f"unknown column {column!r}{nearest(column, fields)}" if unit is None else _unknown_column(unit, column)
            if column == domain.GAP and place.endswith(": then"):
                known = "gap is not a condition of then: say how far it may be by window, such as [-90d, 90d]"
            yield f"{place}: {known}"
            continue
        operators = [test.operator for test in tests]
        yield from (f"{place}: {column} has {o} twice" for o in dict.fromkeys(operators) if operators.count(o) > 1)
        wrong = [text for test in tests for text in _test(index, test, fields[column])]
        yield from (f"{place}: {text}" for text in wrong or _contradiction(column, tests, fields[column]))


def _unknown_column(unit: str, column: str) -> str:
    name, _, part = column.partition(".")
    fields = domain.fields(unit)
    if part and name in fields:
        return f"{column}: {_no_part(part, name)}" if part in domain.PARTS else f"unknown column {column!r}{nearest(column, fields)}"
    if name == domain.AGE and unit == "patient":
        return (
            f"{column}: a patient has an age at a scan or an event: ask with unit: study, or {{age_years: {{ge: 16}}}} in an event's where"
        )
    lower = domain.below(unit, name)
    if lower is not None:
        where = f"{{{name}: ...}}"
        asked = f"ask related: {{unit: {lower}, of: {unit}, where: {where}}}, or the whole question " if lower != "image" else "ask "
        return f"{column} is a column of {lower}, of which a {unit} may have several: {asked}with unit: {lower}"
    whole = [name for name, field in fields.items() if field.part is None]
    return f"unknown column {column!r}{nearest(column, whole) or f' of {unit}; docs/data-dictionary.md lists the columns'}"


def _test(index: str | date | IndexEvent | None, test: Test, field: Field) -> Iterator[str]:
    column = test.column
    if _is_age(column) and index != domain.AGE_DATE:
        yield f"{column}: ages were computed on {domain.AGE_DATE}, so it needs index: {domain.AGE_DATE}"
    allowed = OPERATORS[field.kind]
    if test.operator not in allowed:
        what = {
            "id": "an id: it can only be asked whether it is there",
            "list": "a list of numbers, which can only be missing or not",
            "span": "numbers that may vary inside a series",
        }
        parts = [f"{column}.{part}" for part, about in domain.PARTS.items() if about.of == "time" and field.column.pattern == "time"]
        instead = f", or ask of {', '.join(parts)}" if parts else ""
        yield f"{column}: {test.operator} does not go with {what.get(field.kind, f'a {field.kind}')}; use {', '.join(allowed)}{instead}"
        return
    wanted = 2 if test.operator == "between" else 1
    if len(test.values) != wanted and (test.operator not in ("in", "ne") or not test.values):
        yield f"{column}: {test.operator} takes {'two values, the smaller first' if wanted == 2 else 'one value'}, not {len(test.values)}"
        return
    if test.operator == "is_missing":
        return
    if test.operator == "matches":
        try:
            if not isinstance(test.values[0], str):
                raise PatternError("is no text")
            canonical(test.values[0])
        except PatternError as error:
            yield f"{column}: the pattern {str(test.values[0])[:40]!r} {error}"
        return
    for value in test.values:
        if not _typed(value, field):
            yield f"{column}: {value!r} is not a {field.kind}"
        elif field.has_unknown and value == domain.UNKNOWN:
            yield f"{column}: unknown is no value but a missing one; ask {{is_missing: true}}, or say unknown: include for the step"
        elif field.part == "weekday" and value not in domain.WEEKDAYS:
            yield f"{column}: {value!r} is no day of the week; there is {', '.join(domain.WEEKDAYS)}"
        elif (field.part == "month" or field.column.pattern == "month") and not re.fullmatch(_MONTH, str(value)):
            yield f"{column}: {value!r} is not a month such as 2016-01{_of_any_year(column)}"
        elif field.choices is not None and value not in field.choices:
            yield f"{column}: unknown value {value!r}{nearest(str(value), field.choices)}"
        elif impossible(test.operator, value, field) and test.operator not in ("in", "between"):
            low, high = field.range or (None, None)
            yield f"{column}: {test.operator} {value} is met by nothing: it lies between {low:g} and {high:g}{_unit_of(field)}"
    if len(test.values) != len(set(test.values)) and test.operator != "between":
        yield f"{column}: {test.operator} names a value twice"


def _of_any_year(column: str) -> str:
    part = f"{column.partition('.')[0]}.month_of_year"
    return f"; a month of any year is {part}, 1 to 12" if column.endswith(".month") else ""


def _is_age(name: str) -> bool:
    """Whether a column is the age on the index date, or a part of it."""
    return name.partition(".")[0] == domain.AGE


def _no_part(part: str, column: str) -> str:
    of = {"date": "date", "time": "time of day", "whole": "whole number"}[domain.PARTS[part].of]
    return f"{part} is of a {of}, which {column} is not"


def impossible(operator: str, value: Value, field: Field) -> bool:
    """Whether no number that the column may hold compares so."""
    span = field.range
    if span is None or isinstance(value, str | bool | date):
        return False
    match operator:
        case "eq":
            return not span[0] <= value <= span[1]
        case "lt":
            return value <= span[0]
        case "le":
            return value < span[0]
        case "gt":
            return value >= span[1]
        case "ge":
            return value > span[1]
        case _:
            return False


def _unit_of(field: Field) -> str:
    return f" {field.column.unit}" if field.column.unit else ""


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


def _contradiction(column: str, tests: list[Test], field: Field) -> Iterator[str]:
    """Conditions that no value meets."""
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
            return
    chosen = [set(test.values) for test in tests if test.operator in ("eq", "in")]
    barred = {value for test in tests if test.operator == "ne" for value in test.values}
    if chosen and field.kind not in ("set", "span") and not set.intersection(*chosen) - barred:
        yield f"{column}: no value is one of these and none of those"


def _events(question: Question, predicate: Predicate | IndexEvent | FollowUp, events: Events, where: str) -> Iterator[str]:
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
    if not isinstance(predicate, Stay):
        yield from _hours(question, predicate, where)
    if events.at_least < 1:
        yield f"{where}: at_least must be 1 or more"
    yield from _anchored(question, predicate, events, where)
    yield from _apart(predicate, events, where)
    if isinstance(predicate, First | Last) and events.window == EVER:
        word = type(predicate).__name__.lower()
        yield f"{where}: {word} needs a window for the {word} event to lie in"
    if isinstance(predicate, Cover) and events != Events(events.kinds, (), events.window, sources=events.sources):
        yield f"{where}: cover asks for observed time alone; leave out codes, at_least and position"
    if isinstance(predicate, Chain):
        yield from _chain(predicate, where)
    if low is not None and high is not None and low <= high:
        # Hours touch one day more than they last.
        days = high - low + 1 if events.window.unit == "day" else (high - low + 23) // 24 + 1
        if events.at_least > days:
            yield f"{where}: at_least {events.at_least} different days do not fit in a window of {days}"


def _anchored(question: Question, predicate: Predicate | IndexEvent | FollowUp, events: Events, where: str) -> Iterator[str]:
    """Faults of the conditions of events, and of the day that their window counts from."""
    anchors = load_schema("cohort.yaml")["$defs"]["event"]["properties"]["from"]["enum"]
    yield from _one_of(f"{where}: from", events.anchor, ("index", *anchors))
    if events.anchor != "index" and events.window == EVER:
        yield f"{where}: from goes with a window, such as [0d, 90d]"
    dead = question.index.events.kinds if isinstance(question.index, IndexEvent) and question.index.events is not events else ()
    if (question.index == "death_date" or (dead and set(dead) <= _DEATHS)) and events.anchor == "index" and (events.window.low or 0) > 0:
        yield f"{where}: the window begins after the person's death, when nothing is recorded"
    if events.where is not None:
        if isinstance(predicate, Chain | Cover):
            yield f"{where}: where does not go with {type(predicate).__name__.lower()}"
        yield from _where(None, events.where, where, domain.event_fields())
    if isinstance(predicate, Nearest) and events.at_least != 1:
        yield f"{where}: the nearest event is one event: at_least does not go with nearest"


def _apart(predicate: Any, events: Events, where: str) -> Iterator[str]:
    if events.apart is None:
        return
    if not isinstance(predicate, Has | Lacks):
        yield f"{where}: apart goes with has and lacks alone"
    if events.at_least < 2:
        yield f"{where}: apart needs at_least: 2 or more, as one alone is not apart from another"
    low, high = events.window.low, events.window.high
    if low is not None and high is not None and low <= high:
        days = high - low if events.window.unit == "day" else (high - low + 23) // 24
        if events.apart > days:
            yield f"{where}: days that lie {events.apart} days apart do not fit in a window of {days + 1}"


_DEATHS = {"death", "death_cause"}
_MONTH = "[0-9]{4}-(0[1-9]|1[0-2])"


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
    allowed = [unit for unit in ("patient", "study", "series") if unit in domain.levels(question.unit)[1:]]
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


def _match(question: Question, match: Match) -> Iterator[str]:
    fields = domain.fields(question.unit)
    if not re.fullmatch(_properties()["id"]["pattern"], match.cases):
        yield f"match: cases: {match.cases[:40]!r} is no name of a cohort"
    yield from _one_of("match: level", match.level, domain.levels(question.unit))
    if match.ratio < 1 or match.at_least < 1:
        yield "match: ratio and at_least must be 1 or more"
    elif match.at_least > match.ratio:
        yield f"match: at_least {match.at_least} is more than the {match.ratio} controls that a case may have"
    if not re.fullmatch(load_schema("cohort.yaml")["$defs"]["match"]["properties"]["seed"]["pattern"], match.seed):
        yield f"match: seed {match.seed[:40]!r} must be letters, digits, - and _, at most 40"
    names = [*match.exact, *(name for name, _ in match.caliper)]
    yield from (f"match: names {n} twice" for n in dict.fromkeys(n for n in names if names.count(n) > 1))
    for name in names:
        if name not in fields:
            yield f"match: {_unknown_column(question.unit, name)}"
        elif _is_age(name) and question.index != domain.AGE_DATE:
            yield f"match: {name}: ages were computed on {domain.AGE_DATE}, so it needs index: {domain.AGE_DATE}"
    for name in match.exact:
        if name in fields and fields[name].kind in ("set", "list", "span"):
            yield f"match: exact: {name} has several values, which are never compared as one"
    for name, most in match.caliper:
        if name in fields and fields[name].kind not in ("number", "whole", "date"):
            yield f"match: caliper: {name} is no number or date; name it under exact"
        if most < 0:
            yield f"match: caliper: {name} must be 0 or more"
    events = match.risk_set
    if events is not None:
        if events != Events(events.kinds, events.codes, EVER, main=events.main, sources=events.sources, where=events.where):
            yield "match: risk_set: it is about any time up to the index date; leave out all but event, codes, position, source and where"
        yield from _events(question, Has(events), events, "match: risk_set")


def _split(question: Question, split: Split) -> Iterator[str]:
    definition = load_schema("cohort.yaml")["$defs"]["split"]["properties"]
    if (split.seed is None) == (split.at is None):
        yield "split: needs either seed, to split at random, or at, to split at a date"
        return
    names = list(split.parts)
    yield from (f"split: parts names {n} twice" for n in dict.fromkeys(n for n in names if names.count(n) > 1))
    yield from (f"split: part {n[:40]!r} must be lower-case letters, digits and _, starting with a letter" for n in names if not _is_id(n))
    if split.at is not None and (len(names) != 2 or split.percent):
        yield "split: at a date there are two parts without percentages, such as [train, test]"
    if split.seed is not None:
        if not re.fullmatch(definition["seed"]["pattern"], split.seed):
            yield f"split: seed {split.seed[:40]!r} must be letters, digits, - and _, at most 40"
        if len(names) < 2 or len(split.percent) != len(names) or sum(split.percent) != 100 or min(split.percent, default=0) < 1:
            yield "split: parts must be two or more, each with its percentage, which add up to 100"


def _is_id(name: str) -> bool:
    return re.fullmatch(load_schema("cohort.yaml")["$defs"]["step"]["properties"]["id"]["pattern"], name) is not None


# Columns that the rows of an output have already.
_TAKEN = frozenset({"unit_id", "patient_id", "study_id", "image_count", "index_date", "part"})


def output_columns(output: Output) -> tuple[str, ...]:
    """Names of the columns that an output shows."""
    match output.of:
        case Nearest():
            return tuple(f"{output.id}_{name}" for name in output.give)
        case FollowUp():
            return tuple(f"{output.id}_{name}" for name in domain.FOLLOWED)
        case _:
            return (output.id,)


def _outputs(question: Question) -> Iterator[str]:
    yield from _too_many("output", len(question.outputs))
    names = [name for output in question.outputs for name in output_columns(output)]
    ids = [output.id for output in question.outputs]
    yield from (f"output {n}: the id is used twice" for n in dict.fromkeys(n for n in ids if n and ids.count(n) > 1))
    if len(ids) == len(set(ids)):
        twice = dict.fromkeys(n for n in names if names.count(n) > 1 or n in _TAKEN or n.startswith("by_"))
        yield from (f"output: there is another column {n}; choose another id" for n in twice)
    for output in question.outputs:
        where = f"output {output.id}"
        if output.id and not _is_id(output.id):
            yield f"output {output.id[:40]}: the id must be lower-case letters, digits and _, starting with a letter, at most 41 characters"
        yield from _output(question, output, where)


def _output(question: Question, output: Output, where: str) -> Iterator[str]:
    if output.give and not isinstance(output.of, Nearest):
        yield f"{where}: give goes with nearest only"
    match output.of:
        case str(name):
            fields = domain.fields(question.unit)
            if name not in fields:
                yield f"{where}: {_unknown_column(question.unit, name)}"
            elif fields[name].part is not None:
                yield f"{where}: {name}: a part of a column is not shown; show {name.partition('.')[0]}, or count by {name}"
            elif name not in domain.shown(question.unit):
                yield f"{where}: {name} has several values, which are never shown as one"
            elif _is_age(name) and question.index != domain.AGE_DATE:
                yield f"{where}: ages were computed on {domain.AGE_DATE}, so it needs index: {domain.AGE_DATE}"
        case Gap() as gap:
            yield from _gap(question, gap, f"{where}: gap")
        case Nearest() as asked:
            yield from _nearest(question, asked, f"{where}: nearest")
            if asked.then is not None:
                yield f"{where}: then is a condition; what is shown is named by give"
            unit = "event" if isinstance(asked.among, Events) else asked.among.unit
            names = [domain.GAP, *(domain.shown(unit) if unit in ("event", *domain.UNITS) else ())]
            if not output.give:
                yield f"{where}: give must say what is shown of it, such as [gap]"
            yield from (f"{where}: give names {n} twice" for n in dict.fromkeys(n for n in output.give if output.give.count(n) > 1))
            yield from (f"{where}: give: unknown column {n!r}{nearest(n, names)}" for n in output.give if n not in names)
        case FollowUp(outcome, until):
            yield from _events(question, output.of, outcome, f"{where}: follow_up")
            if outcome != Events(
                outcome.kinds, outcome.codes, outcome.window, main=outcome.main, sources=outcome.sources, where=outcome.where
            ):
                yield f"{where}: follow_up: at_least and from do not go with it"
            if outcome.window.low is None or outcome.window.low < 0:
                yield f"{where}: follow_up: the window begins on the index date or later, such as [1d, ever]"
            if until is not None and isinstance(question.index, date) and until < question.index:
                yield f"{where}: follow_up ends before the index date"


def _breakdowns(question: Question) -> Iterator[str]:
    yield from _too_many("count", len(question.breakdowns))
    names, outputs = domain.grouped(question.unit), _grouped_outputs(question)
    for breakdown in question.breakdowns:
        by = breakdown.by
        if not by:
            yield "count: by must name a column"
        yield from (f"count: by names {n} twice" for n in dict.fromkeys(n for n in by if by.count(n) > 1))
        for name in by:
            if name in names and _is_age(name) and question.index != domain.AGE_DATE:
                yield f"count: {name}: ages were computed on {domain.AGE_DATE}, so it needs index: {domain.AGE_DATE}"
            if name not in names and name not in outputs:
                shown = {column for output in question.outputs for column in output_columns(output)}
                yield f"count: {_no_group(question.unit, name) if name not in shown else f'{name} makes no groups; it has too many values'}"
    yield from ("count: names a breakdown twice" for n, breakdown in enumerate(question.breakdowns) if breakdown in question.breakdowns[:n])


def _grouped_outputs(question: Question) -> set[str]:
    """Columns that outputs show which have few values."""
    found: set[str] = set()
    for output in question.outputs:
        match output.of:
            case Nearest(among):
                unit = "event" if isinstance(among, Events) else among.unit
                fields = domain.shown(unit) if unit in ("event", *domain.UNITS) else {}
                found |= {f"{output.id}_{name}" for name in output.give if name in fields and domain.groups(fields[name])}
            case FollowUp():
                found |= {f"{output.id}_event", f"{output.id}_end"}
            case str(name):
                found |= {output.id} if name in domain.grouped(question.unit) else set()
    return found


def _no_group(unit: str, name: str) -> str:
    column, _, part = name.partition(".")
    fields = domain.fields(unit)
    if column not in fields and name not in fields:
        return _unknown_column(unit, name)
    if part in domain.PARTS:
        return f"{name}: {_no_part(part, column)}"
    return f"{name} makes no groups; use a column of single words, whole numbers, dates or flags"
