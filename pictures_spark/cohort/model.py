"""A cohort question as a graph of frozen nodes: what is asked, apart from how it was written down and how it is answered.

Two words carry the design. A *unit* is one row of the table the question is about: a patient, a study, a series or an image. A *step* is
a predicate on one unit: it says yes, no or unknown, and never looks at another step. So the order of steps changes the attrition and
nothing else, and any step can be switched off without asking the others again. Only pick, match, sample and split act on the survivors, in
that order, after all steps. What is shown of the members (outputs) and counted of them (breakdowns) changes nothing about who they are.

Nodes hold values already typed by the tables of schemas/deidentified. They are not checked when they are made, so that every fault of a
question can be reported at once: `pictures_spark.cohort.check` does that for all faces alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from typing import Literal

Unit = Literal["patient", "study", "series", "image"]
Population = Literal["all", "linked", "alive_and_resident"]
Unknown = Literal["exclude", "include", "report"]
Expand = Literal["prefix", "exact"]
Operator = Literal["eq", "ne", "in", "lt", "le", "gt", "ge", "between", "matches", "is_missing"]
Anchor = Literal["index", "start_of_stay", "end_of_stay"]
Take = Literal["nearest", "earliest", "latest"]
Value = str | int | float | bool | date


@dataclass(frozen=True)
class CodeList:
    """A named list of codes, given here (``codes``) or in a CSV file (``file``), never both."""

    name: str
    system: str
    codes: tuple[str, ...] | None = None
    file: str | None = None
    expand: Expand = "prefix"


@dataclass(frozen=True)
class Test:
    """One comparison of one column with values: two for ``between``, one or more for ``in`` and ``ne``, else one.

    A missing column value makes the answer unknown, but for ``is_missing``. A column that is a set is equal to a value it contains. A
    column that is a span of numbers (a header tag that may vary inside a series) must be compared so with all of its numbers.
    ``column`` may also be a header tag, ``tag.SliceThickness``, or a pixel feature, ``feature.intensity_mean@1``.
    """

    __test__ = False  # not a test of pytest's

    column: str
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Where:
    """Yes where every test says yes, no where any says no, else unknown.

    Tests of one column are brought together, so that equal conditions are equal nodes however they were put.
    """

    tests: tuple[Test, ...]

    def __post_init__(self) -> None:
        columns = list(dict.fromkeys(test.column for test in self.tests))
        object.__setattr__(self, "tests", tuple(sorted(self.tests, key=lambda test: columns.index(test.column))))


@dataclass(frozen=True)
class Window:
    """Whole days relative to the index date, both ends included; None is where the record source begins or ends (``ever``).

    With ``unit`` hour the numbers are hours of the clock from the index date's time of day to the other's, to the second. A day whose time
    is not known may be any time of that day: whether it lies in the window is unknown only where that decides.
    """

    low: int | None
    high: int | None
    unit: Literal["day", "hour"] = "day"


EVER = Window(None, None)


@dataclass(frozen=True)
class Events:
    """Events of the unit's person: of these kinds, in any of these code lists (any code where there is none), in this window.

    ``main`` leaves out events whose code is not known to stand in the first position of its record. ``sources`` are the only record
    sources that count, also for what is observed; any where there is none.

    ``anchor`` is the day that the window counts from: the index date, or the first or last day of the hospital stay that contains it (of
    several the one that began last, then that of the last stay_id). Where there is none, no day is in the window and none is observed.

    ``where`` are conditions on the event's own columns. A number that was recorded with a comparator, such as ``>60``, is missing here.
    Where a condition is unknown, the event may be one of these or not; for an index date, a follow-up and a risk set it is none.
    """

    kinds: tuple[str, ...]
    codes: tuple[str, ...]
    window: Window
    at_least: int = 1
    main: bool = False
    sources: tuple[str, ...] = ()
    anchor: Anchor = "index"
    where: Where | None = None
    apart: int | None = None


@dataclass(frozen=True)
class Has:
    """Yes where events lie on at least so many different days; no where they do not and the window is observed; else unknown.

    With ``apart`` there must also be so many days between the first and the last of them.

    Also unknown where events of which a condition is unknown would make them enough.
    """

    events: Events


@dataclass(frozen=True)
class Lacks:
    """The opposite of `Has`: unknown where that is unknown."""

    events: Events


@dataclass(frozen=True)
class First:
    """Yes where the person's first such event since the source's start lies in the window, no where it lies before it.

    Without an event up to the window's end: no where the window is observed, else unknown. Also unknown where events of which a condition
    is unknown decide.
    """

    events: Events


@dataclass(frozen=True)
class Last:
    """Yes where the person's last such event until the source's end lies in the window, no where it lies after it.

    Without an event from the window's start on: no where the window is observed, else unknown. Also unknown where events of which a
    condition is unknown decide.
    """

    events: Events


@dataclass(frozen=True)
class Chain:
    """Yes where at least so many event days follow one another, each so many days after the one before.

    ``gap`` holds for the days between each event day in the window and the next. ``within`` is the most days there may be between the
    first and the last of the chain. No where there is no such chain and the window is observed, else unknown.
    """

    events: Events
    gap: Window
    within: int | None = None


@dataclass(frozen=True)
class Cover:
    """Yes where an event of these kinds in the window would be known of, so far as the person lived, else no; never unknown."""

    events: Events


@dataclass(frozen=True)
class Related:
    """Other series, or other studies, of the unit's study or patient: yes where at least so many meet every condition.

    The unit itself, and the study or series that it belongs to, are no other. ``where`` are conditions on them, ``window`` the days from
    the unit's index date to their scan date, ``same`` columns that must be equal in both and ``differ`` those that must not, ``ratio``
    conditions on how many times the unit's own number theirs is (unknown where its own is not above 0), ``count`` what is counted, and
    ``within`` the most days there may be between the first and the last of those counted, ``apart`` the fewest. ``related`` asks the same
    of each of them: other series or studies than it. ``among`` leaves only those that a frozen cohort has; all of the release where there
    is none.

    One of which a condition is unknown may meet it or not: the answer is unknown where that decides. It is also unknown where nobody
    knows the unit's study or patient.
    """

    unit: Literal["study", "series"]
    of: Literal["study", "patient"]
    where: Where | None = None
    window: Window = EVER
    same: tuple[str, ...] = ()
    at_least: int = 1
    count: Literal["study", "series"] = "series"
    within: int | None = None
    apart: int | None = None
    related: "Related | None" = None
    among: "Member | None" = None
    differ: tuple[str, ...] = ()
    ratio: Where | None = None


@dataclass(frozen=True)
class Gap:
    """Whether the days (or hours) from one date column to another lie in the window; ``index`` is the index date.

    Unknown where one is missing.
    """

    start: str
    end: str
    window: Window = EVER


@dataclass(frozen=True)
class Stay:
    """Yes where the person has a hospital stay that holds each of these events, and begins and ends in these windows.

    ``days`` is how many there may be from its first to its last day, and ``at_least`` how many such stays there must be.
    The windows of the events themselves do not count. A stay that has no last day may end in a window or not. Without such a stay: no where
    the window that it begins in is observed, for admissions and for the events, else unknown.
    """

    holds: tuple[Events, ...]
    begins: Window = EVER
    ends: Window = EVER
    days: Window = EVER
    at_least: int = 1


@dataclass(frozen=True)
class Nearest:
    """One event, or one other scan, of those in the window: yes where it is there and meets the conditions of ``then``.

    The nearest to the day that the window counts from, of two as near the earlier; or the earliest or latest of them; ties end by event_id,
    series_id or study_id. In a window of hours it goes by the second, and one whose time is not known may be it. Where one of which a
    condition (or the day) is unknown may be it, the answer is unknown. Where there is none: no for scans, and for events where the window
    is observed; else unknown. Of `Events`, ``at_least`` does not count; of `Related` only unit, of, where, window, same, differ and ratio
    do.
    """

    among: "Events | Related"
    take: Take = "nearest"
    then: Where | None = None


@dataclass(frozen=True)
class Change:
    """Two measurements of the person in the window, the later on a later day: yes where what they make meets the conditions of ``then``.

    A measurement is an event that has a ``value_std``. ``then`` is about ``change``, the later value less the earlier, and ``ratio``, how
    many times the earlier the later is (missing where the earlier is not above 0). ``gap`` is the days from the earlier to the later, or
    the hours, in which case they may be of one day but not of one second; of one day and value, and without a time, they are one. With
    ``take: any`` any two may be it; with ``ends`` they are the first and the last in the window, of those of one day the one whose
    event_id comes first.

    Where it depends on a value, a time or a condition that is unknown, the answer is unknown. Where no two are such: no where the window
    is observed, else unknown; two that are taken as ``ends`` and are not such are no.
    """

    events: Events
    then: Where
    gap: Window = EVER
    take: Literal["any", "ends"] = "any"


@dataclass(frozen=True)
class Finding:
    """What reports say: yes where one says so, no where there is one that does not, unknown where there is none.

    Reports of the unit's study or, with ``of: patient``, of the person, signed in the window. A report that was cancelled is none. None for
    ``certainty`` is either; ``subject`` is whom the report speaks of.
    """

    finding: str
    of: Literal["study", "patient"] = "study"
    polarity: str = "affirmed"
    certainty: str | None = None
    subject: str = "patient"
    window: Window = EVER


@dataclass(frozen=True)
class Member:
    """Yes where the unit's patient, study, series or image (``level``) is that of a member of a saved cohort; unknown where it has none."""

    cohort: str
    level: Unit


@dataclass(frozen=True)
class AllOf:
    """Yes where every part says yes, no where any says no, else unknown."""

    parts: tuple["Predicate", ...]


@dataclass(frozen=True)
class AnyOf:
    """Yes where any part says yes, no where every one says no, else unknown."""

    parts: tuple["Predicate", ...]


@dataclass(frozen=True)
class NoneOf:
    """The opposite of `AnyOf`: unknown where that is unknown."""

    parts: tuple["Predicate", ...]


EventPredicate = Has | Lacks | First | Last | Chain | Cover
Nest = AllOf | AnyOf | NoneOf
Predicate = Where | EventPredicate | Change | Stay | Nearest | Related | Gap | Finding | Member | Nest


@dataclass(frozen=True)
class Step:
    """A named predicate, and what happens to a unit whose answer is unknown."""

    id: str
    predicate: Predicate
    unknown: Unknown = "exclude"


@dataclass(frozen=True)
class Order:
    """One sort key of a pick. Missing values come last in either direction."""

    column: str
    descending: bool = False


@dataclass(frozen=True)
class Pick:
    """Keep the first survivor of each patient or study, or image of each series. The unit's own id ends the order, so there are no ties."""

    one_per: Literal["patient", "study", "series"]
    order: tuple[Order, ...]


@dataclass(frozen=True)
class Match:
    """Give each case its controls, after the pick; who is neither a matched case nor a control of one is lost.

    Survivors whose patient, study, series or image (``level``) is that of a member of the frozen cohort ``cases`` are cases; where they
    have none it is unknown. All others that are not of a person who has a case may be controls. A control goes with a case where the
    columns of ``exact`` are equal and those of ``caliper`` differ by no more than so much (days of dates), none of them missing.

    ``risk_set``: on the case's index date the control's person is alive and resident, and has had no such event up to that day. Its
    window and number do not count.

    Of the controls that go with a case, those are asked first whose SHA-256 of ``<seed>:<case>:<control>`` comes first. With
    ``replacement`` a case has the first ``ratio`` of them. Without, there are `MATCH_ROUNDS` rounds, in which each case that lacks some
    asks as many of those that are free, and one that several ask goes to the first by that hash. A case that has fewer than
    ``at_least`` is lost.
    """

    cases: str
    level: Unit
    ratio: int
    seed: str
    exact: tuple[str, ...] = ()
    caliper: tuple[tuple[str, float], ...] = ()
    replacement: bool = False
    at_least: int = 1
    risk_set: Events | None = None


MATCH_ROUNDS = 4


@dataclass(frozen=True)
class Sample:
    """Keep so many survivors of each stratum, after the pick: those whose SHA-256 of ``<seed>:<unit id>`` comes first.

    A stratum is one combination of values of the columns, a missing value being one of its own. So the sample is the same on every
    engine, and a smaller one of the same seed lies in a larger one.
    """

    size: int
    seed: str
    strata: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Give each survivor to one part, after the sample; who is in none is lost.

    The survivors of one patient are all in one part, and those of nobody in none. With a ``seed`` it is decided by the SHA-256 of
    ``<seed>:<patient id>``: ``percent`` of each part, which add up to 100. With a date (``at``) there are two parts: patients with a
    survivor whose index date lies before it are in the first, with those alone; all others in the second. Unknown without patient or date.
    """

    parts: tuple[str, ...]
    percent: tuple[int, ...] = ()
    seed: str | None = None
    at: date | None = None


@dataclass(frozen=True)
class FollowUp:
    """Days from the index date to the first outcome in the window, or to where follow-up ends without it.

    It ends with the person's death, the last day of the unbroken residence that contains the index date, ``until``, the last day of the
    window, or the last day that every source of the outcome covers. An outcome on that day counts. Nothing is known where the person is
    nobody, or where on the index date they are not alive and resident, the sources do not cover it, or ``until`` is past.
    """

    outcome: Events
    until: date | None = None


@dataclass(frozen=True)
class Output:
    """Something shown of each member: a column, days between two dates, the nearest scan or event, or a follow-up.

    ``give`` says what is shown of the nearest: its columns, or ``gap``, the days (or hours) from the index date to it. A follow-up shows
    ``days``, ``event`` (1 or 0) and ``end`` (event, death, transfer_out, study_end, window_end or cover_end).
    """

    id: str
    of: str | Gap | Nearest | FollowUp
    give: tuple[str, ...] = ()


@dataclass(frozen=True)
class Breakdown:
    """Counts of the members by the values of columns, also of those that an output shows.

    ``scan_date.year`` and ``scan_date.month`` are of a date, ``age_at.decade`` is 60 for 60 to 69, ``age_at.five`` 65 for 65 to 69.
    """

    by: tuple[str, ...]


@dataclass(frozen=True)
class IndexEvent:
    """The index date is the day of the person's first or last such event, at any time; units of people without one have none.

    Where hours count from it, its time is that of the first or last of that day's, which is not known where that of any of them is not.
    """

    which: Literal["first", "last"]
    events: Events


@dataclass(frozen=True)
class Question:
    """A whole question. ``index`` is a date column, one date for every unit, that of an event, or None where nothing refers to it."""

    id: str
    unit: Unit
    index: str | date | IndexEvent | None
    population: Population
    codelists: tuple[CodeList, ...]
    steps: tuple[Step, ...]
    pick: Pick | None = None
    sample: Sample | None = None
    split: Split | None = None
    outputs: tuple[Output, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    match: Match | None = None

    def codelist(self, name: str) -> CodeList:
        """The code list of that name.

        Raises
        ------
        KeyError
            There is none: the question was not checked.
        """
        return {codelist.name: codelist for codelist in self.codelists}[name]


def last_acts(question: Question) -> list[str]:
    """What acts on the survivors after all steps, in its order."""
    return [name for name in ("pick", "match", "sample", "split") if getattr(question, name) is not None]


def leaves(predicate: Predicate) -> Iterator[Predicate]:
    """The predicates that a predicate is made of, in their order; one that is not nested is its own."""
    if isinstance(predicate, AllOf | AnyOf | NoneOf):
        for part in predicate.parts:
            yield from leaves(part)
    else:
        yield predicate


def events_of(predicate: Predicate) -> Events | None:
    """What a predicate asks of events, None where nothing: of a stay all that it holds and its admission, from the day it begins."""
    match predicate:
        case Has(events) | Lacks(events) | First(events) | Last(events) | Cover(events):
            return events
        case Chain() | Change():
            return predicate.events
        case Nearest(Events() as events):
            return events
        case Stay(holds, begins):
            kinds = dict.fromkeys(["admission", *(kind for events in holds for kind in events.kinds)])
            codes = dict.fromkeys(name for events in holds for name in events.codes)
            return Events(tuple(kinds), tuple(codes), begins)
        case _:
            return None


def event_steps(question: Question) -> list[tuple[int, Step, Events]]:
    """What the steps ask of events: position of the step from 0, step, and the events; a nested step may ask several times."""
    asked = [(i, step, events_of(leaf)) for i, step in enumerate(question.steps) for leaf in leaves(step.predicate)]
    return [(i, step, events) for i, step, events in asked if events is not None]


def asked_events(question: Question) -> list[tuple[str, Events]]:
    """What a question asks of events anywhere, each with where: ``step a``, ``output b``, ``index``."""
    found = [(f"step {step.id}", events) for _, step, events in event_steps(question)]
    if isinstance(question.index, IndexEvent):
        found.insert(0, ("index", question.index.events))
    if question.match is not None and question.match.risk_set is not None:
        found.append(("match", question.match.risk_set))
    for output in question.outputs:
        match output.of:
            case Nearest(Events() as events) | FollowUp(events):
                found.append((f"output {output.id}", events))
    return found


def in_hours(node: object) -> bool:
    """Whether a part of a question has a window of hours."""
    match node:
        case Window():
            return node.unit == "hour"
        case tuple():
            return any(in_hours(part) for part in node)
        case _:
            return is_dataclass(node) and any(in_hours(getattr(node, one.name)) for one in fields(node))


def counts_hours_from_index(question: Question) -> bool:
    """Whether hours count from the index date: not those between other dates, nor those from another scan."""
    asked: list[object] = [leaf for step in question.steps for leaf in leaves(step.predicate)]
    asked += [output.of for output in question.outputs]
    return any(_counts_hours(node) for node in asked)


def _counts_hours(node: object) -> bool:
    match node:
        case Gap(start, end, window):
            return window.unit == "hour" and "index" in (start, end)
        case Related() | Nearest(Related()):
            related = node if isinstance(node, Related) else node.among
            return related.window.unit == "hour"
        case Change(events):
            return in_hours(events)
        case _:
            return in_hours(node)


def saved_cohorts(question: Question) -> list[str]:
    """Names of the saved cohorts that a question refers to, each once."""
    cases = [question.match.cases] if question.match is not None else []
    return list(dict.fromkeys([*(member.cohort for _, member in asked_members(question)), *cases]))


def asked_members(question: Question) -> list[tuple[str, Member]]:
    """Where a question asks for members of frozen cohorts, ``step a`` or ``output b``, and what it asks."""
    asked: list[tuple[str, object]] = [(f"step {step.id}", leaf) for step in question.steps for leaf in leaves(step.predicate)]
    asked += [(f"output {output.id}", output.of) for output in question.outputs]
    return [(where, member) for where, node in asked for member in members_in(node)]


def members_in(node: object) -> Iterator[Member]:
    match node:
        case Member():
            yield node
        case Nearest(Related() as related):
            yield from members_in(related)
        case Related():
            yield from members_in(node.among)
            yield from members_in(node.related)
