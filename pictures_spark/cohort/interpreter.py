"""The cohort language read naively: rows as dictionaries, one unit and one day at a time, and no SQL.

The reference that the engines are held against. Written from the meaning of the language (docstrings of `pictures_spark.cohort.model`,
DESIGN section 6) and not from the compiler, so that where the two agree they are probably both right. Slow on purpose: whether a window
is observed is asked of each of its days. For a few hundred rows, on the driver; nothing is read or written.

Tables are lists of dictionaries by table name, each row with every declared column.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any

from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.model import (
    MATCH_ROUNDS,
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
    Where,
    Window,
    events_of,
)
from pictures_spark.schema import table

Row = dict[str, Any]
Said = bool | None
_PARENTS = {"patient": (), "study": ("patient",), "series": ("study", "patient"), "image": ("series", "study", "patient")}


class World:
    """The tables, each date column also as a number of days, so that days can be counted."""

    def __init__(self, tables: Mapping[str, Sequence[Row]]) -> None:
        self.tables = tables
        self._alive: dict[tuple[str, int], bool] = {}
        self._resident: dict[tuple[str, int], bool] = {}
        self._by_person: dict[str, dict[str, list[Row]]] = {}

    def rows(self, name: str) -> Sequence[Row]:
        """The rows of a table."""
        return self.tables.get(name, ())

    def of(self, name: str, person: str | None) -> Sequence[Row]:
        """The rows of a person."""
        if name not in self._by_person:
            found: dict[str, list[Row]] = {}
            for row in self.rows(name):
                found.setdefault(row["patient_id"], []).append(row)
            self._by_person[name] = found
        return self._by_person[name].get(person, []) if person is not None else []

    @cached_property
    def people(self) -> dict[str, Row]:
        """Each person's row."""
        return {row["patient_id"]: row for row in self.rows("patient")}

    @cached_property
    def parents(self) -> dict[str, dict[str, Row]]:
        """Rows of studies, series and patients by their id."""
        return {unit: {row[f"{unit}_id"]: row for row in reversed(self.rows(unit))} for unit in _PARENTS}

    def alive(self, person: str, day: int) -> bool:
        """From the month of birth, whose day is not known, to the day of death; always where neither is known."""
        if (person, day) not in self._alive:
            row = self.people.get(person, {})
            born, died = row.get("birth_month"), row.get("death_date")
            begun = born is None or day >= date(int(born[:4]), int(born[5:]), 1).toordinal()
            self._alive[person, day] = begun and (died is None or day <= died.toordinal())
        return self._alive[person, day]

    def resident(self, person: str, day: int) -> bool:
        """Whether the person lives where the records are kept."""
        if (person, day) not in self._resident:
            self._resident[person, day] = any(
                row["from_date"].toordinal() <= day and (row["to_date"] is None or day <= row["to_date"].toordinal())
                for row in self.of("residence", person)
            )
        return self._resident[person, day]

    def covers(self, events: Events) -> list[tuple[int, int]]:
        """First and last day of each source that can hold such an event; late rows may be missing in the last ``lag_days``."""
        return [
            (row["from_date"].toordinal(), row["to_date"].toordinal() - (row["lag_days"] or 0))
            for row in self.rows("source_cover")
            if set(row["kinds"]) & set(events.kinds) and (not events.sources or row["source"] in events.sources)
        ]


@dataclass(frozen=True)
class One:
    """One unit: its row, and the rows of what it belongs to, None where an id leads nowhere."""

    unit: str
    rows: Mapping[str, Row | None]
    index: date | None
    world: World
    time: str | None = None

    @property
    def id(self) -> str:
        """The unit's own id."""
        return self.own(self.unit) or ""

    @property
    def person(self) -> str | None:
        """Whose it is."""
        return self.own("patient")

    def own(self, level: str) -> str | None:
        """The id of the unit, or of what it belongs to, as its own row says."""
        row = self.rows[self.unit]
        assert row is not None
        found: str | None = row[f"{level}_id"]
        return found

    def value(self, name: str) -> Any:
        """A value of the unit or of what it belongs to, None in every way of being missing."""
        if name.startswith("tag."):
            return self._tag(name.removeprefix("tag."))
        if name.startswith("feature."):
            return self._feature(name.removeprefix("feature."))
        if name == "text_verdict":
            return self._verdict()
        if name in ("health_board", "simd_quintile"):
            return self._lived().get(name)
        name, _, part = name.partition(".")
        if part:
            return _part(self.value(name), part)
        if name == "age_at":
            name = "age_years"
        for level, row in self.rows.items():
            declared = table("deidentified", level).by_name
            if name in declared:
                value = row[name] if row is not None else None
                closed = declared[name].vocabulary is not None and not declared[name].empty_is_value
                return None if closed and value in ("unknown", []) else value
        raise KeyError(name)

    def _tag(self, keyword: str) -> Any:
        """Of a code string the list of its values, of a number the smallest and the largest; None where there is none."""
        if keyword in ("SeriesDescription", "ProtocolName", "StudyDescription"):
            level = "study" if self.unit == "study" else "series"
            rows = [row for row in self.world.rows("description") if row[f"{level}_id"] == self.own(level)]
            return sorted({row["text"] for row in rows if row["keyword"] == keyword}) or None
        where, level = ("study_tag", "study") if self.unit == "study" else ("tag", "series")
        for row in self.world.rows(where):
            if row[f"{level}_id"] == self.own(level) and row["keyword"] == keyword:
                numbers = None if row["min"] is None else (row["min"], row["max"])
                return row["values"] or None if row["vr"] == "CS" else numbers
        return None

    def _lived(self) -> Row:
        """The residence that began last on or before the index date, if it contains it."""
        rows = [row for row in self.world.of("residence", self.person) if self.index is not None and row["from_date"] <= self.index]
        newest = max(rows, key=lambda row: (row["from_date"], row["to_date"] or date.max), default=None)
        lasts = newest is not None and (newest["to_date"] is None or self.index is None or self.index <= newest["to_date"])
        return newest if newest is not None and lasts else {}

    def _verdict(self) -> str | None:
        """Text where any image has some, else not determined where any is, else clean where any is."""
        said = {row["verdict"] for row in self.world.rows("burned_in_text") if row[f"{self.unit}_id"] == self.own(self.unit)}
        return next((verdict for verdict in ("text", "not_determined", "clean") if verdict in said), None)

    def _feature(self, name: str) -> float | None:
        feature, _, rest = name.partition("@")
        version, _, aggregate = rest.partition(".")
        level = "image" if aggregate or self.unit == "image" else "series"
        values = [
            row["value"]
            for row in self.world.rows("image_feature")
            if (row["feature"], row["version"], row["level"], row["status"]) == (feature, version, level, "ok")
            and (row["series_id"] if aggregate else row["id"]) == self.own(self.unit)
            and row["value"] is not None
        ]
        return (max if aggregate == "max" else min)(values, default=None)


def _part(value: Any, part: str) -> Any:
    """A part of a date, a time of day or a whole number; None of what is missing."""
    if value is None:
        return None
    match part:
        case "year":
            return value.year
        case "month":
            return value.isoformat()[:7]
        case "month_of_year":
            return value.month
        case "weekday":
            return ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")[value.weekday()]
        case "hour":
            second = _second(value)
            return None if second is None else second // 3600
        case _:
            width = {"decade": 10, "five": 5}[part]
            return value // width * width


@dataclass
class Judged:
    """What is said of one unit: the population's answer, each step's and the last acts', and how many were survived.

    ``part`` is that of a split, ``controls`` those of a case.
    """

    one: One
    answers: list[Said]
    passed: int
    part: str | None = None
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lists:
    """What a question's names stand for: code lists and, by cohort, the saved members' units and the ids of these."""

    codes: Mapping[str, Codes]
    saved: Mapping[str, tuple[str, frozenset[str]]]

    def __getitem__(self, name: str) -> Codes:
        return self.codes[name]


def interpret(
    question: Question,
    codes: Mapping[str, Codes],
    tables: Mapping[str, Sequence[Row]] | World,
    saved: Mapping[str, tuple[str, frozenset[str]]] | None = None,
) -> list[Judged]:
    """Ask a checked question, with its resolved code lists, of tables; one answer per unit.

    ``saved`` are the cohorts that it refers to: unit and ids of the members.
    """
    world = tables if isinstance(tables, World) else World(tables)
    policies = ["exclude", *(step.unknown for step in question.steps)]
    lists = Lists(codes, saved or {})
    found: list[Judged] = []
    for one in _units(question, world, lists):
        answers = [_population(question, one), *(_answer(step.predicate, one, lists) for step in question.steps)]
        passed = 0
        for said, policy in zip(answers, policies, strict=True):
            if said is False or (said is None and policy == "exclude"):
                break
            passed += 1
        found.append(Judged(one, answers, passed))
    last = 1 + len(question.steps)
    if question.pick is not None:
        _pick(question.pick, found, last)
        last += 1
    if question.match is not None:
        _match(question.match, found, last, lists)
        last += 1
    if question.sample is not None:
        _sample(question.sample, found, last)
        last += 1
    if question.split is not None:
        _split(question.split, found, last)
    return found


def show(
    question: Question,
    codes: Mapping[str, Codes],
    rows: Sequence[Judged],
    saved: Mapping[str, tuple[str, frozenset[str]]] | None = None,
) -> dict[str, tuple[Any, ...]]:
    """What the outputs show of each unit, in their order, by unit id."""
    lists = Lists(codes, saved or {})
    return {row.one.id: tuple(value for output in question.outputs for value in _shown(output, row.one, lists)) for row in rows}


def count(
    question: Question, rows: Sequence[Judged], shown: Mapping[str, tuple[Any, ...]] | None = None
) -> list[dict[tuple[Any, ...], tuple[int, ...]]]:
    """Of each breakdown the counts of members: units and, where these belong to them, patients and studies; of series also images.

    ``shown`` is what `show` gives, where a breakdown is by an output.
    """
    last = len(rows[0].answers) if rows else 0
    names = [name for output in question.outputs for name in _columns(output)]
    found: list[dict[tuple[Any, ...], tuple[int, ...]]] = []
    for breakdown in question.breakdowns:
        cells: dict[tuple[Any, ...], list[One]] = {}
        for row in rows:
            if row.passed == last:
                own = dict(zip(names, (shown or {}).get(row.one.id, ()), strict=False))
                values = tuple(own[name] if name in own else row.one.value(name) for name in breakdown.by)
                cells.setdefault(values, []).append(row.one)
        levels = [level for level in ("patient", "study") if level in _PARENTS[question.unit]]
        counts = {key: [len({one.own(level) for one in ones} - {None}) for level in levels] for key, ones in cells.items()}
        if question.unit == "series":
            counts = {key: [*counts[key], sum(one.value("image_count") or 0 for one in ones)] for key, ones in cells.items()}
        found.append({key: (len(ones), *counts[key]) for key, ones in cells.items()})
    return found


def _columns(output: Output) -> list[str]:
    """Names of what an output shows."""
    match output.of:
        case Nearest():
            return [f"{output.id}_{name}" for name in output.give]
        case FollowUp():
            return [f"{output.id}_{name}" for name in ("days", "event", "end")]
        case _:
            return [output.id]


def _units(question: Question, world: World, lists: Lists) -> list[One]:
    found = []
    for row in world.rows(question.unit):
        if question.unit == "patient" and row["merged_into"] is not None:
            continue  # no person of its own
        if question.unit == "image":
            twins = [other["locator_id"] for other in world.rows("image") if other["image_id"] == row["image_id"]]
            if row["locator_id"] != min(twins):
                continue
        one = _one(question.unit, row, None, world)
        index: Any = question.index
        time = None
        if isinstance(index, str):
            time = one.value(_CLOCKS[index]) if index in _CLOCKS and question.unit in _CLOCKED[index] else None
            index = one.value(index)
        if isinstance(index, IndexEvent):
            which = min if index.which == "first" else max
            rows = [row for row in _such(index.events, one, lists) if _says(index.events.where, row)]
            index = which((row["date"] for row in rows), default=None)
            times = [row["time"] for row in rows if row["date"] == index]
            time = None if any(_second(one) is None for one in times) else which(times, default=None)
        found.append(_one(question.unit, row, index, world, time))
    return found


def _one(unit: str, row: Row, index: date | None, world: World, time: str | None = None) -> One:
    above: dict[str, Row | None] = {unit: row}
    for parent in _PARENTS[unit]:
        above[parent] = world.parents[parent].get(row[f"{parent}_id"])
    return One(unit, above, index, world, time)


def _population(question: Question, one: One) -> Said:
    if question.population == "all":
        return True
    if one.person is None:
        return False
    if question.population == "linked":
        return True
    if one.index is None:
        return None
    day = one.index.toordinal()
    return one.world.alive(one.person, day) and one.world.resident(one.person, day)


def _all(answers: Iterable[Said]) -> Said:
    said = list(answers)
    return False if False in said else None if None in said else True


def _not(said: Said) -> Said:
    return None if said is None else not said


def _any(answers: Iterable[Said]) -> Said:
    return _not(_all(_not(said) for said in answers))


def _answer(predicate: Predicate, one: One, lists: Lists) -> Said:
    match predicate:
        case Where(tests):
            return _tests(tests, one)
        case AllOf(parts):
            return _all([_answer(part, one, lists) for part in parts])
        case AnyOf(parts):
            return _any([_answer(part, one, lists) for part in parts])
        case NoneOf(parts):
            return _not(_any([_answer(part, one, lists) for part in parts]))
        case Has(events):
            return _has(events, one, lists)
        case Lacks(events):
            return _not(_has(events, one, lists))
        case First(events):
            return _first(events, one, lists)
        case Last(events):
            return _last(events, one, lists)
        case Chain():
            return _chain(predicate, one, lists)
        case Cover(events):
            return _observed(events, one)
        case Stay():
            return _stay(predicate, one, lists)
        case Change():
            return _change(predicate, one, lists)
        case Nearest():
            return _nearest(predicate, one, lists)
        case Related():
            return _related(predicate, one, lists)
        case Gap():
            if predicate.window.unit == "hour":
                return _hours(predicate.window, _moment_of(predicate.start, one), _moment_of(predicate.end, one))
            days = _apart(predicate, one)
            return None if days is None else _in(predicate.window, days)
        case Finding():
            return _finding(predicate, one)
        case Member():
            return _member(predicate, one, lists)


# Values


def _tests(tests: Sequence[Test], one: One) -> Said:
    return _all([_test(test, one.value(test.column)) for test in tests])


def _test(test: Test, value: Any) -> Said:
    wanted: Any = test.values
    if test.operator == "is_missing":
        return (value is None) == wanted[0]
    if value is None:
        return None
    if isinstance(value, tuple):
        # Numbers that vary: every one of them must be so.
        return all(_test(test, end) for end in value)
    match test.operator:
        case "eq" | "in":
            return any(w in value for w in wanted) if isinstance(value, list) else value in wanted
        case "ne":
            return not any(w in value for w in wanted) if isinstance(value, list) else value not in wanted
        case "lt":
            return bool(value < wanted[0])
        case "le":
            return bool(value <= wanted[0])
        case "gt":
            return bool(value > wanted[0])
        case "ge":
            return bool(value >= wanted[0])
        case "between":
            return bool(wanted[0] <= value <= wanted[1])
        case "matches" if isinstance(value, list):
            return any(_test(test, one) for one in value)
        case "matches":
            return re.search(wanted[0].replace("$", r"\Z"), value, re.ASCII) is not None


# Events


def _such(events: Events, one: One, lists: Lists) -> list[Row]:
    """The person's events of the kinds, codes, positions and sources that are asked for."""
    return [
        row
        for row in one.world.of("event", one.person)
        if row["kind"] in events.kinds
        and (not events.codes or any(_in_list(row, lists[name]) for name in events.codes))
        and (not events.main or row["position"] == 0)
        and (not events.sources or row["source"] in events.sources)
    ]


def _days(events: Events, one: One, lists: Lists) -> set[int]:
    """Every day on which the person surely has such an event."""
    return {row["date"].toordinal() for row in _such(events, one, lists) if _says(events.where, row)}


def _possible_days(events: Events, one: One, lists: Lists) -> set[int]:
    """Every day on which the person may have such an event."""
    return {row["date"].toordinal() for row in _such(events, one, lists) if _says(events.where, row) is not False}


def _says(where: Where | None, row: Row) -> Said:
    """What the conditions on an event say of it."""
    return True if where is None else _all([_test(test, _of_event(row, test.column)) for test in where.tests])


def _of_event(row: Row, column: str) -> Any:
    """A value of an event; a number that is only a bound is no number."""
    column, _, part = column.partition(".")
    if part:
        return _part(_of_event(row, column), part)
    bound = column in ("value", "value_std") and row["comparator"] not in (None, "=")
    return None if bound else row[column]


def _in_list(row: Row, codelist: Codes) -> bool:
    if row["code"] is None or row["system"] != codelist.system:
        return False
    if codelist.expand == "exact":
        return row["code"] in codelist.codes
    return any(row["code"].startswith(code) for code in codelist.codes)


def _anchor(events: Events, one: One) -> date | None:
    """The day that a window counts from."""
    if events.anchor == "index" or one.index is None:
        return one.index
    index = one.index
    stays = [
        row
        for row in one.world.of("stay", one.person)
        if row["start_date"] <= index and (row["end_date"] is None or index <= row["end_date"])
    ]
    stay = max(stays, key=lambda row: (row["start_date"], row["stay_id"]), default=None)
    if stay is None:
        return None
    found: date | None = stay["start_date" if events.anchor == "start_of_stay" else "end_date"]
    return found


def _ends(window: Window, anchor: date | None) -> tuple[int | None, int | None] | None:
    """First and last day of a window, None for an end that is open; None where it refers to a day that is missing."""
    if anchor is None:
        return (None, None) if window.low is None and window.high is None else None
    day = anchor.toordinal()
    return None if window.low is None else day + window.low, None if window.high is None else day + window.high


def _in(window: Window, days: int) -> bool:
    return (window.low is None or days >= window.low) and (window.high is None or days <= window.high)


# Dates that have a time of day, and the units that a question about hours may ask of them.
_CLOCKS = {"scan_date": "scan_time", "study_date": "study_time"}
_CLOCKED = {"scan_date": ("series", "image"), "study_date": ("study", "series", "image")}
Moment = tuple[date | None, str | None]


def _second(time: str | None) -> int | None:
    """Seconds since midnight."""
    found = re.fullmatch("([0-9]{2}):([0-9]{2}):([0-9]{2})", time or "")
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])


def _moment_of(name: str, one: One) -> Moment:
    return (one.index, one.time) if name == "index" else (one.value(name), one.value(_CLOCKS[name]))


def _waits(start: Moment, end: Moment) -> tuple[int, int] | None:
    """The fewest and the most seconds from the one to the other; a time that is not known may be any of its day."""
    if start[0] is None or end[0] is None:
        return None
    apart = 24 * 3600 * (end[0] - start[0]).days
    begins, ends = _second(start[1]), _second(end[1])
    earliest, latest = (0, 24 * 3600 - 1) if begins is None else (begins, begins)
    first, last = (0, 24 * 3600 - 1) if ends is None else (ends, ends)
    return apart + first - latest, apart + last - earliest


def _hours(window: Window, start: Moment, end: Moment) -> Said:
    """Whether hours lie in a window, unknown where only some of the seconds that there may be do."""
    waits = _waits(start, end)
    if waits is None:
        return None
    fewest, most = waits
    low = -(10**12) if window.low is None else 3600 * window.low
    high = 10**12 if window.high is None else 3600 * window.high
    if most < low or fewest > high:
        return False
    return True if low <= fewest and most <= high else None


def _wait(start: Moment, end: Moment) -> int | None:
    """Seconds from the one to the other, where they are known exactly."""
    waits = _waits(start, end)
    return waits[0] if waits is not None and waits[0] == waits[1] else None


def _lies(events: Events, one: One, row: Row) -> Said:
    """Whether an event lies in the window."""
    if events.window.unit == "hour":
        return False if one.index is None else _hours(events.window, (one.index, one.time), (row["date"], row["time"]))
    return _inside(events.window, _anchor(events, one), row["date"].toordinal())


def _touched_days(window: Window, one: One) -> tuple[int | None, int | None] | None:
    """First and last day that a window of hours may reach."""
    if one.index is None:
        return None
    known = _second(one.time)
    begins, ends = (0, 24 * 3600 - 1) if known is None else (known, known)
    day = one.index.toordinal()
    low = None if window.low is None else day + (begins + 3600 * window.low) // (24 * 3600)
    return low, None if window.high is None else day + (ends + 3600 * window.high) // (24 * 3600)


def _inside(window: Window, anchor: date | None, day: int) -> bool:
    ends = _ends(window, anchor)
    return ends is not None and (ends[0] is None or day >= ends[0]) and (ends[1] is None or day <= ends[1])


def _observed(events: Events, one: One) -> bool:
    """Whether an event in the window would be known of: each of its days that the person lived is covered, and lived where records are."""
    ends, person, world = _ends(events.window, _anchor(events, one)), one.person, one.world
    if events.window.unit == "hour":
        ends = _touched_days(events.window, one)
    if ends is None or person is None:
        return False
    covers = world.covers(events)
    begins, finishes = (max(c[0] for c in covers), min(c[1] for c in covers)) if covers else (1, 0)
    if begins > finishes and None in ends:
        return False  # no day is covered by all, so that an open end lies nowhere
    first = begins if ends[0] is None else ends[0]
    last = finishes if ends[1] is None else ends[1]
    if first > last:
        return False
    lived = [day for day in range(first, last + 1) if world.alive(person, day)]
    return all(begins <= day <= finishes and world.resident(person, day) for day in lived)


def _has(events: Events, one: One, lists: Lists) -> Said:
    found = [(row["date"].toordinal(), _all([_says(events.where, row), _lies(events, one, row)])) for row in _such(events, one, lists)]
    found = [(day, said) for day, said in found if said is not False]
    if _enough(events, {day for day, said in found if said}):
        return True
    if _enough(events, {day for day, _ in found}):
        return None
    return False if _observed(events, one) else None


def _enough(events: Events, days: set[int]) -> bool:
    far = events.apart is None or (bool(days) and max(days) - min(days) >= events.apart)
    return len(days) >= events.at_least and far


def _first(events: Events, one: One, lists: Lists) -> Said:
    ends = _ends(events.window, _anchor(events, one))
    if ends is not None:
        low, high = (-1 if ends[0] is None else ends[0]), (date.max.toordinal() if ends[1] is None else ends[1])
        sure, possible = min(_days(events, one, lists), default=None), min(_possible_days(events, one, lists), default=None)
        if sure is not None and sure < low:
            return False
        if sure is not None and possible is not None and low <= possible and sure <= high:
            return True
        if possible is not None and possible <= high:
            return None
    return False if _observed(events, one) else None


def _last(events: Events, one: One, lists: Lists) -> Said:
    ends = _ends(events.window, _anchor(events, one))
    if ends is not None:
        low, high = (-1 if ends[0] is None else ends[0]), (date.max.toordinal() if ends[1] is None else ends[1])
        sure, possible = max(_days(events, one, lists), default=None), max(_possible_days(events, one, lists), default=None)
        if sure is not None and sure > high:
            return False
        if sure is not None and possible is not None and possible <= high and sure >= low:
            return True
        if possible is not None and possible >= low:
            return None
    return False if _observed(events, one) else None


def _chain(chain: Chain, one: One, lists: Lists) -> Said:
    events, gap = chain.events, chain.gap
    days = sorted(day for day in _days(events, one, lists) if _inside(events.window, _anchor(events, one), day))
    for start in range(len(days) - events.at_least + 1):
        link = days[start : start + events.at_least]
        apart = all(_in(gap, later - earlier) for earlier, later in pairwise(link))
        if apart and (chain.within is None or link[-1] - link[0] <= chain.within):
            return True
    return False if _observed(events, one) else None


def _stay(asked: Stay, one: One, lists: Lists) -> Said:
    bounded = asked.ends.low is not None or asked.ends.high is not None
    if one.index is None and (bounded or asked.begins != Window(None, None)):
        return None
    said: list[Said] = []
    for stay in one.world.of("stay", one.person):
        begins = _inside(asked.begins, one.index, stay["start_date"].toordinal())
        open_ended = bounded and stay["end_date"] is None
        ends = None if open_ended else not bounded or _inside(asked.ends, one.index, stay["end_date"].toordinal())
        held = [
            _any([_says(events.where, row) for row in _such(events, one, lists) if row["stay_id"] == stay["stay_id"]])
            for events in asked.holds
        ]
        lasts: Said = True
        if asked.days != Window(None, None):
            lasts = None if stay["end_date"] is None else _in(asked.days, (stay["end_date"] - stay["start_date"]).days)
        said.append(_all([begins, ends, lasts, *held]))
    if said.count(True) >= asked.at_least:
        return True
    if len(said) - said.count(False) >= asked.at_least:
        return None
    events = events_of(asked)
    assert events is not None
    return False if _observed(events, one) else None


def _change(asked: Change, one: One, lists: Lists) -> Said:
    said = [(row, _all([_says(asked.events.where, row), _lies(asked.events, one, row)])) for row in _such(asked.events, one, lists)]
    found = [(row, sure) for row, sure in said if sure is not False]
    pairs = [(earlier, later) for earlier in found for later in found]
    if asked.take == "ends":
        if not found:
            return False if _observed(asked.events, one) else None
        first = min(found, key=lambda row: (row[0]["date"], row[0]["event_id"]))
        last = min(found, key=lambda row: (-row[0]["date"].toordinal(), row[0]["event_id"]))
        if not (first[1] and last[1]):
            return None
        if first[0]["date"] < last[0]["date"]:
            return _changed(asked, first, last)
        pairs = []
    answers = [_changed(asked, earlier, later) for earlier, later in pairs]
    if True in answers:
        return True
    return None if None in answers or not _observed(asked.events, one) else False


def _changed(asked: Change, earlier: tuple[Row, Said], later: tuple[Row, Said]) -> Said:
    """Whether two events are the measurements that are asked for."""
    (before, sure), (after, surely) = earlier, later
    was, has_become = _of_event(before, "value_std"), _of_event(after, "value_std")
    if asked.gap.unit == "hour":
        moments = [(row["date"], _second(row["time"])) for row in (before, after)]
        if moments[0] == moments[1] and was == has_become:
            return False
        waits = _waits((before["date"], before["time"]), (after["date"], after["time"]))
        assert waits is not None
        in_time = _all([_hours(asked.gap, (before["date"], before["time"]), (after["date"], after["time"])), _positive(*waits)])
    else:
        days = (after["date"] - before["date"]).days
        in_time = days > 0 and _in(asked.gap, days)
    known = was is not None and has_become is not None
    made = {"change": has_become - was if known else None, "ratio": has_become / was if known and was > 0 else None}
    return _all([sure, surely, in_time, *(_test(test, made[test.column]) for test in asked.then.tests)])


def _positive(fewest: int, most: int) -> Said:
    return True if fewest > 0 else False if most <= 0 else None


@dataclass(frozen=True)
class Taken:
    """The one that a `Nearest` takes: days from the index date to it, and its row."""

    gap: int | float
    row: Row | One

    def value(self, name: str) -> Any:
        """A value of it."""
        if name == "gap":
            return self.gap
        return self.row.value(name) if isinstance(self.row, One) else _of_event(self.row, name)


def _candidates(nearest: Nearest, one: One, lists: Lists) -> list[tuple[int | None, str, Said, Row | One]]:
    """Those that may be it: days from the anchor, id, whether it is certain that it is one, and its row."""
    among = nearest.among
    if isinstance(among, Events):
        anchor = _anchor(among, one)
        if among.window.unit == "hour":
            timed = [(row, _all([_says(among.where, row), _lies(among, one, row)])) for row in _such(among, one, lists)]
            waits = [(_wait((one.index, one.time), (row["date"], row["time"])), row, said) for row, said in timed]
            return [(wait, row["event_id"], None if wait is None else said, row) for wait, row, said in waits if said is not False]
        rows = [(row, row["date"].toordinal(), _says(among.where, row)) for row in _such(among, one, lists)]
        return [
            (day - anchor.toordinal(), row["event_id"], said, row)
            for row, day, said in rows
            if anchor is not None and said is not False and _inside(among.window, anchor, day)
        ]
    found: list[tuple[int | None, str, Said, Row | One]] = []
    for other in _others(among, one):
        said = _fits(among, one, other, lists)
        gap = None if one.index is None or other.index is None else (other.index - one.index).days
        if among.window.unit == "hour":
            gap = _wait((one.index, one.time), (other.index, other.time))
        if said is not False:
            found.append((gap, other.id, None if gap is None else said, other))
    return found


def _taken(nearest: Nearest, one: One, lists: Lists) -> tuple[Said, Taken | None]:
    """Whether there is one, and which it is where that is known."""
    found = _candidates(nearest, one, lists)
    if not found:
        if isinstance(nearest.among, Events):
            return (False if _anchor(nearest.among, one) is not None and _observed(nearest.among, one) else None), None
        return (None if one.own(nearest.among.of) is None else False), None

    def place(candidate: tuple[int | None, str, Said, Row | One]) -> tuple[Any, ...]:
        gap, name = candidate[0], candidate[1]
        if gap is None:
            return (0, 0, 0, name)
        first = {"nearest": (abs(gap), gap), "earliest": (gap, 0), "latest": (-gap, 0)}[nearest.take]
        return (1, *first, name)

    gap, _, said, row = min(found, key=place)
    if not said or gap is None:
        return None, None
    return True, Taken(gap / 3600 if nearest.among.window.unit == "hour" else gap, row)


def _nearest(nearest: Nearest, one: One, lists: Lists) -> Said:
    said, taken = _taken(nearest, one, lists)
    if taken is None or nearest.then is None:
        return said
    return _all([_test(test, taken.value(test.column)) for test in nearest.then.tests])


# Other scans


def _others(related: Related, one: One) -> list[One]:
    """The other scans of the unit's study or patient, each with its own scan date as its index."""
    group = one.own(related.of)
    rows = [_one(related.unit, row, row["scan_date"], one.world, row.get("scan_time")) for row in one.world.rows(related.unit)]
    return [other for other in rows if group is not None and other.own(related.of) == group and not _belongs(one, other)]


def _related(related: Related, one: One, lists: Lists) -> Said:
    if one.own(related.of) is None:
        return None
    certain: list[tuple[str, int | None]] = []
    possible: list[tuple[str, int | None]] = []
    for other in _others(related, one):
        said = _fits(related, one, other, lists)
        counted = other.own(related.count)
        if said is not False and counted is not None:
            day = None if other.index is None else other.index.toordinal()
            possible.append((counted, day))
            if said:
                certain.append((counted, day))
    if _most(certain, related.within) >= related.at_least and _far(certain, related.apart):
        return True
    return False if _most(possible, related.within) < related.at_least or not _far(possible, related.apart) else None


def _belongs(one: One, other: One) -> bool:
    return (other.unit == one.unit or other.unit in _PARENTS[one.unit]) and one.own(other.unit) == other.id


def _fits(related: Related, one: One, other: One, lists: Lists) -> Said:
    said = [_tests(related.where.tests, other)] if related.where is not None else []
    for name in related.same:
        mine, its = one.value(name), other.value(name)
        said.append(None if mine is None or its is None else mine == its)
    for name in related.differ:
        mine, its = one.value(name), other.value(name)
        said.append(None if mine is None or its is None else mine != its)
    for test in related.ratio.tests if related.ratio is not None else ():
        mine, its = one.value(test.column), other.value(test.column)
        said.append(_test(test, its / mine if mine is not None and its is not None and mine > 0 else None))
    if related.window.low is not None or related.window.high is not None:
        if related.window.unit == "hour":
            said.append(_hours(related.window, (one.index, one.time), (other.index, other.time)))
        elif one.index is None or other.index is None:
            said.append(None)
        else:
            said.append(_inside(related.window, one.index, other.index.toordinal()))
    if (related.within is not None or related.apart is not None) and other.index is None:
        said.append(None)
    if related.related is not None:
        said.append(_related(related.related, other, lists))
    if related.among is not None:
        said.append(_member(related.among, other, lists))
    return _all(said)


def _far(found: list[tuple[str, int | None]], apart: int | None) -> bool:
    """Whether the first and the last of them may lie so many days apart."""
    days = [day for _, day in found if day is not None]
    return apart is None or len(days) < len(found) or (bool(days) and max(days) - min(days) >= apart)


def _most(found: list[tuple[str, int | None]], within: int | None) -> int:
    """The most different ones among them that may lie within so many days of one another."""
    every = len({name for name, _ in found})
    if within is None or any(day is None for _, day in found):
        return every
    return max((len({n for n, d in found if d is not None and 0 <= d - day <= within}) for _, day in found if day is not None), default=0)


def _apart(gap: Gap, one: One) -> int | None:
    start, end = (one.index if name == "index" else one.value(name) for name in (gap.start, gap.end))
    return None if start is None or end is None else (end - start).days


def _finding(asked: Finding, one: One) -> Said:
    reports = [row for row in one.world.rows("report") if row[f"{asked.of}_id"] == one.own(asked.of) and row["status"] != "cancelled"]
    bounded = asked.window.low is not None or asked.window.high is not None
    if one.own(asked.of) is None or (bounded and one.index is None):
        return None
    read = {row["report_id"] for row in reports if _inside(asked.window, one.index, row["report_date"].toordinal())}
    if not read:
        return None
    return any(
        (row["finding"], row["polarity"], row["subject"]) == (asked.finding, asked.polarity, asked.subject)
        and asked.certainty in (None, row["certainty"])
        for row in one.world.rows("report_finding")
        if row["report_id"] in read
    )


def _member(asked: Member, one: One, lists: Lists) -> Said:
    unit, ids = lists.saved[asked.cohort]
    mine = one.own(asked.level)
    members = [row for row in one.world.rows(unit) if row[f"{unit}_id"] in ids]
    return None if mine is None else mine in {row[f"{asked.level}_id"] for row in members}


# Outputs


def _shown(output: Output, one: One, lists: Lists) -> tuple[Any, ...]:
    match output.of:
        case str(name):
            return (one.value(name),)
        case Gap() as gap:
            return (_apart(gap, one),)
        case Nearest() as nearest:
            _, taken = _taken(nearest, one, lists)
            return tuple(None if taken is None else taken.value(name) for name in output.give)
        case FollowUp() as follow_up:
            return _followed(follow_up, one, lists)


def _followed(asked: FollowUp, one: One, lists: Lists) -> tuple[int | None, int | None, str | None]:
    """Day by day from the index date on."""
    outcome, person, world = asked.outcome, one.person, one.world
    at = Events(outcome.kinds, (), Window(0, 0), sources=outcome.sources)
    if person is None or one.index is None or not world.alive(person, one.index.toordinal()) or not _observed(at, one):
        return None, None, None
    if asked.until is not None and asked.until < one.index:
        return None, None, None
    covered = min(cover[1] for cover in world.covers(at))
    days = {day for day in _days(outcome, one, lists) if _inside(outcome.window, one.index, day)}
    died = world.people.get(person, {}).get("death_date")
    day = one.index.toordinal()
    while True:
        gone = day - one.index.toordinal()
        if day in days:
            return gone, 1, "event"
        for end, reason in (
            (died is not None and day == died.toordinal(), "death"),
            (not world.resident(person, day + 1), "transfer_out"),
            (asked.until is not None and day == asked.until.toordinal(), "study_end"),
            (gone == outcome.window.high, "window_end"),
            (day == covered, "cover_end"),
        ):
            if end:
                return gone, 0, reason
        day += 1


# Survivors


def _pick(pick: Pick, found: list[Judged], last: int) -> None:
    """Add the pick's answer to every unit, and let the first survivor of each group pass."""
    chosen: set[str] = set()
    name = f"{pick.one_per}_id"
    survivors = [row for row in found if row.passed == last]
    for group in {row.one.value(name) for row in survivors} - {None}:
        left = [row for row in survivors if row.one.value(name) == group]
        for order in pick.order:
            present = [row for row in left if row.one.value(order.column) is not None]
            if present:
                best = (max if order.descending else min)(row.one.value(order.column) for row in present)
                left = [row for row in present if row.one.value(order.column) == best]
        chosen.add(min(row.one.id for row in left))
    for row in found:
        survived = row.passed == last
        lost = survived and row.one.value(name) is None
        row.answers.append(None if lost else survived and row.one.id in chosen)
        row.passed += survived and row.one.id in chosen


def _match(match: Match, found: list[Judged], last: int, lists: Lists) -> None:
    """Add the match's answer to every unit, and its controls to each case."""
    survivors = [row for row in found if row.passed == last]
    said = {row.one.id: _member(Member(match.cases, match.level), row.one, lists) for row in survivors}
    cases = [row for row in survivors if said[row.one.id]]
    people = {row.one.person for row in cases} - {None}
    others = [row for row in survivors if said[row.one.id] is False and row.one.person not in people]
    ranked = {case.one.id: [other.one.id for other in _ranked(match, case.one, others, lists)] for case in cases}
    chosen: dict[str, list[str]] = {case.one.id: [] for case in cases}
    if match.replacement:
        chosen = {case: controls[: match.ratio] for case, controls in ranked.items()}
    for _ in range(0 if match.replacement else MATCH_ROUNDS):
        taken = {control for controls in chosen.values() for control in controls}
        asked: dict[str, list[str]] = {}
        for case, controls in ranked.items():
            free = [control for control in controls if control not in taken]
            for control in free[: match.ratio - len(chosen[case])]:
                asked.setdefault(control, []).append(case)
        for control, asking in asked.items():
            _, first = min((_hashed(match, case, control), case) for case in asking)
            chosen[first].append(control)
    kept = {case: controls for case, controls in chosen.items() if len(controls) >= match.at_least}
    matched = {*kept, *(control for controls in kept.values() for control in controls)}
    for row in found:
        survived = row.passed == last
        row.answers.append(None if survived and said[row.one.id] is None else survived and row.one.id in matched)
        row.passed += survived and row.one.id in matched
        own = sorted((_hashed(match, row.one.id, control), control) for control in kept.get(row.one.id, []))
        row.controls = tuple(control for _, control in own)


def _hashed(match: Match, case: str, control: str) -> str:
    return hashlib.sha256(f"{match.seed}:{case}:{control}".encode()).hexdigest()


def _ranked(match: Match, case: One, others: list[Judged], lists: Lists) -> list[Judged]:
    """The controls that go with a case, in the order in which it asks them."""
    fits = []
    for other in others:
        pairs = [(case.value(name), other.one.value(name)) for name in match.exact]
        near = [(case.value(name), other.one.value(name), most) for name, most in match.caliper]
        equal = all(mine is not None and mine == its for mine, its in pairs)
        if equal and all(_close(mine, its, most) for mine, its, most in near) and _at_risk(match, case, other.one, lists):
            fits.append(other)
    return sorted(fits, key=lambda other: (_hashed(match, case.id, other.one.id), other.one.id))


def _close(mine: Any, its: Any, most: float) -> bool:
    if mine is None or its is None:
        return False
    apart = mine - its
    return bool(abs(apart.days if isinstance(mine, date) else apart) <= most)


def _at_risk(match: Match, case: One, control: One, lists: Lists) -> bool:
    if match.risk_set is None:
        return True
    if case.index is None or control.person is None:
        return False
    day = case.index.toordinal()
    there = control.world.alive(control.person, day) and control.world.resident(control.person, day)
    return there and all(had > day for had in _days(match.risk_set, control, lists))


def _sample(sample: Sample, found: list[Judged], last: int) -> None:
    """Add the sample's answer to every unit."""
    strata: dict[tuple[Any, ...], list[str]] = {}
    survivors = [row for row in found if row.passed == last]
    for row in survivors:
        strata.setdefault(tuple(row.one.value(column) for column in sample.strata), []).append(row.one.id)

    def place(unit_id: str) -> tuple[str, str]:
        return hashlib.sha256(f"{sample.seed}:{unit_id}".encode()).hexdigest(), unit_id

    chosen = {unit_id for ids in strata.values() for unit_id in sorted(ids, key=place)[: sample.size]}
    for row in found:
        row.answers.append(row.passed == last and row.one.id in chosen)
        row.passed += bool(row.answers[-1])


def _split(split: Split, found: list[Judged], last: int) -> None:
    """Add the split's answer to every unit, and its part."""
    survivors = [row for row in found if row.passed == last]
    early = {row.one.person for row in survivors if split.at is not None and row.one.index is not None and row.one.index < split.at}
    for row in found:
        survived, person = row.passed == last, row.one.person
        if survived and person is not None:
            row.part = _part_of(split, person) if split.at is None else _side(split, split.at, row, person in early)
        row.answers.append(None if survived and _untold(split, row) else row.part is not None)
        row.passed += row.part is not None


def _untold(split: Split, row: Judged) -> bool:
    return row.one.person is None or (split.at is not None and row.one.index is None)


def _side(split: Split, at: date, row: Judged, early: bool) -> str | None:
    if row.one.index is None:
        return None
    before = row.one.index < at
    return (split.parts[0] if before else None) if early else split.parts[1]


def _part_of(split: Split, person: str) -> str:
    """The part in whose share of all hashes the person's lies."""
    place = int(hashlib.sha256(f"{split.seed}:{person}".encode()).hexdigest()[:8], 16)
    so_far = 0
    for name, percent in zip(split.parts, split.percent, strict=True):
        so_far += percent
        if place * 100 < so_far << 32:
            return name
    raise ValueError("the percentages do not add up to 100")
