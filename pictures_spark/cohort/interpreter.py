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
    Test,
    Where,
    Window,
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

    def rows(self, name: str) -> Sequence[Row]:
        """The rows of a table."""
        return self.tables.get(name, ())

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
                for row in self.rows("residence")
                if row["patient_id"] == person
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
        where, level = ("study_tag", "study") if self.unit == "study" else ("tag", "series")
        for row in self.world.rows(where):
            if row[f"{level}_id"] == self.own(level) and row["keyword"] == keyword:
                numbers = None if row["min"] is None else (row["min"], row["max"])
                return row["values"] or None if row["vr"] == "CS" else numbers
        return None

    def _feature(self, name: str) -> float | None:
        feature, _, rest = name.partition("@")
        version, _, aggregate = rest.partition(".")
        values = [
            row["value"]
            for row in self.world.rows("image_feature")
            if (row["feature"], row["version"], row["level"], row["status"]) == (feature, version, "image", "ok")
            and (row["id"] if self.unit == "image" else row["series_id"]) == self.own(self.unit)
            and row["value"] is not None
        ]
        return (max if aggregate == "max" else min)(values, default=None)


@dataclass
class Judged:
    """What is said of one unit: the population's answer, each step's, the pick's and the sample's, and how many were survived."""

    one: One
    answers: list[Said]
    passed: int


def interpret(question: Question, codes: Mapping[str, Codes], tables: Mapping[str, Sequence[Row]] | World) -> list[Judged]:
    """Ask a checked question, with its resolved code lists, of tables; one answer per unit."""
    world = tables if isinstance(tables, World) else World(tables)
    policies = ["exclude", *(step.unknown for step in question.steps)]
    found: list[Judged] = []
    for one in _units(question, world):
        answers = [_population(question, one), *(_answer(step.predicate, one, codes) for step in question.steps)]
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
    if question.sample is not None:
        _sample(question.sample, found, last)
    return found


def _units(question: Question, world: World) -> list[One]:
    found = []
    for row in world.rows(question.unit):
        if question.unit == "patient" and row["merged_into"] is not None:
            continue  # no person of its own
        if question.unit == "image":
            twins = [other["locator_id"] for other in world.rows("image") if other["image_id"] == row["image_id"]]
            if row["locator_id"] != min(twins):
                continue
        one = _one(question.unit, row, None, world)
        index = one.value(question.index) if isinstance(question.index, str) else question.index
        found.append(_one(question.unit, row, index, world))
    return found


def _one(unit: str, row: Row, index: date | None, world: World) -> One:
    above: dict[str, Row | None] = {unit: row}
    for parent in _PARENTS[unit]:
        above[parent] = world.parents[parent].get(row[f"{parent}_id"])
    return One(unit, above, index, world)


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


def _answer(predicate: Predicate, one: One, codes: Mapping[str, Codes]) -> Said:
    match predicate:
        case Where(tests):
            return _tests(tests, one)
        case AllOf(parts):
            return _all([_answer(part, one, codes) for part in parts])
        case AnyOf(parts):
            return _any([_answer(part, one, codes) for part in parts])
        case NoneOf(parts):
            return _not(_any([_answer(part, one, codes) for part in parts]))
        case Has(events):
            return _has(events, one, codes)
        case Lacks(events):
            return _not(_has(events, one, codes))
        case First(events):
            return _first(events, one, codes)
        case Last(events):
            return _last(events, one, codes)
        case Chain():
            return _chain(predicate, one, codes)
        case Cover(events):
            return _observed(events, one)
        case Related():
            return _related(predicate, one)


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
        case "matches":
            return re.search(wanted[0].replace("$", r"\Z"), value, re.ASCII) is not None


# Events


def _days(events: Events, one: One, codes: Mapping[str, Codes]) -> set[int]:
    """Every day on which the person has such an event."""
    return {
        row["date"].toordinal()
        for row in one.world.rows("event")
        if row["patient_id"] == one.person
        and row["kind"] in events.kinds
        and (not events.codes or any(_in_list(row, codes[name]) for name in events.codes))
        and (not events.main or row["position"] == 0)
        and (not events.sources or row["source"] in events.sources)
    }


def _in_list(row: Row, codelist: Codes) -> bool:
    if row["code"] is None or row["system"] != codelist.system:
        return False
    if codelist.expand == "exact":
        return row["code"] in codelist.codes
    return any(row["code"].startswith(code) for code in codelist.codes)


def _ends(window: Window, one: One) -> tuple[int | None, int | None] | None:
    """First and last day of a window, None for an end that is open; None where it refers to an index date that is missing."""
    if one.index is None:
        return (None, None) if window.low is None and window.high is None else None
    day = one.index.toordinal()
    return None if window.low is None else day + window.low, None if window.high is None else day + window.high


def _inside(window: Window, one: One, day: int) -> bool:
    ends = _ends(window, one)
    return ends is not None and (ends[0] is None or day >= ends[0]) and (ends[1] is None or day <= ends[1])


def _observed(events: Events, one: One) -> bool:
    """Whether an event in the window would be known of: each of its days that the person lived is covered, and lived where records are."""
    ends, person, world = _ends(events.window, one), one.person, one.world
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


def _has(events: Events, one: One, codes: Mapping[str, Codes]) -> Said:
    days = [day for day in _days(events, one, codes) if _inside(events.window, one, day)]
    if len(days) >= events.at_least:
        return True
    return False if _observed(events, one) else None


def _first(events: Events, one: One, codes: Mapping[str, Codes]) -> Said:
    days, ends = _days(events, one, codes), _ends(events.window, one)
    if days and ends is not None:
        if _inside(events.window, one, min(days)):
            return True
        if ends[0] is not None and min(days) < ends[0]:
            return False
    return False if _observed(events, one) else None


def _last(events: Events, one: One, codes: Mapping[str, Codes]) -> Said:
    days, ends = _days(events, one, codes), _ends(events.window, one)
    if days and ends is not None:
        if _inside(events.window, one, max(days)):
            return True
        if ends[1] is not None and max(days) > ends[1]:
            return False
    return False if _observed(events, one) else None


def _chain(chain: Chain, one: One, codes: Mapping[str, Codes]) -> Said:
    events, gap = chain.events, chain.gap
    days = sorted(day for day in _days(events, one, codes) if _inside(events.window, one, day))
    for start in range(len(days) - events.at_least + 1):
        link = days[start : start + events.at_least]
        gaps = [later - earlier for earlier, later in pairwise(link)]
        apart = all((gap.low is None or g >= gap.low) and (gap.high is None or g <= gap.high) for g in gaps)
        if apart and (chain.within is None or link[-1] - link[0] <= chain.within):
            return True
    return False if _observed(events, one) else None


# Other scans


def _related(related: Related, one: One) -> Said:
    group = one.own(related.of)
    if group is None:
        return None
    certain: list[tuple[str, int | None]] = []
    possible: list[tuple[str, int | None]] = []
    for row in one.world.rows(related.unit):
        other = _one(related.unit, row, row["scan_date"], one.world)
        if other.own(related.of) != group or _belongs(one, other):
            continue
        said = _fits(related, one, other)
        counted = other.own(related.count)
        if said is not False and counted is not None:
            day = None if other.index is None else other.index.toordinal()
            possible.append((counted, day))
            if said:
                certain.append((counted, day))
    if _most(certain, related.within) >= related.at_least:
        return True
    return False if _most(possible, related.within) < related.at_least else None


def _belongs(one: One, other: One) -> bool:
    return (other.unit == one.unit or other.unit in _PARENTS[one.unit]) and one.own(other.unit) == other.id


def _fits(related: Related, one: One, other: One) -> Said:
    said = [_tests(related.where.tests, other)] if related.where is not None else []
    for name in related.same:
        mine, its = one.value(name), other.value(name)
        said.append(None if mine is None or its is None else mine == its)
    if related.window.low is not None or related.window.high is not None:
        if one.index is None or other.index is None:
            said.append(None)
        else:
            said.append(_inside(related.window, one, other.index.toordinal()))
    if related.within is not None and other.index is None:
        said.append(None)
    return _all(said)


def _most(found: list[tuple[str, int | None]], within: int | None) -> int:
    """The most different ones among them that may lie within so many days of one another."""
    every = len({name for name, _ in found})
    if within is None or any(day is None for _, day in found):
        return every
    return max((len({n for n, d in found if d is not None and 0 <= d - day <= within}) for _, day in found if day is not None), default=0)


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
