"""A cohort question as a graph of frozen nodes: what is asked, apart from how it was written down and how it is answered.

Two words carry the design. A *unit* is one row of the table the question is about: a patient, a study, a series or an image. A *step* is
a predicate on one unit: it says yes, no or unknown, and never looks at another step. So the order of steps changes the attrition and
nothing else, and any step can be switched off without asking the others again. Only pick and sample act on the survivors, in that
order, after all steps.

Nodes hold values already typed by the tables of schemas/deidentified. They are not checked when they are made, so that every fault of a
question can be reported at once: `pictures_spark.cohort.check` does that for all faces alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

Unit = Literal["patient", "study", "series", "image"]
Population = Literal["all", "linked", "alive_and_resident"]
Unknown = Literal["exclude", "include", "report"]
Expand = Literal["prefix", "exact"]
Operator = Literal["eq", "ne", "in", "lt", "le", "gt", "ge", "between", "matches", "is_missing"]
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
    """Whole days relative to the index date, both ends included; None is where the record source begins or ends (``ever``)."""

    low: int | None
    high: int | None


EVER = Window(None, None)


@dataclass(frozen=True)
class Events:
    """Events of the unit's person: of these kinds, in any of these code lists (any code where there is none), in this window.

    ``main`` leaves out events whose code is not known to stand in the first position of its record. ``sources`` are the only record
    sources that count, also for what is observed; any where there is none.
    """

    kinds: tuple[str, ...]
    codes: tuple[str, ...]
    window: Window
    at_least: int = 1
    main: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Has:
    """Yes where events lie on at least so many different days; no where they do not and the window is observed; else unknown."""

    events: Events


@dataclass(frozen=True)
class Lacks:
    """The opposite of `Has`: unknown where that is unknown."""

    events: Events


@dataclass(frozen=True)
class First:
    """Yes where the person's first such event since the source's start lies in the window, no where it lies before it.

    Without an event up to the window's end: no where the window is observed, else unknown.
    """

    events: Events


@dataclass(frozen=True)
class Last:
    """Yes where the person's last such event until the source's end lies in the window, no where it lies after it.

    Without an event from the window's start on: no where the window is observed, else unknown.
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
    the unit's index date to their scan date, ``same`` columns that must be equal in both, ``count`` what is counted, and ``within`` the
    most days there may be between the first and the last of those counted.

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
Predicate = Where | EventPredicate | Related | Nest


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
    """Keep the first survivor of each patient or study. The unit's own id ends the order, so there are no ties."""

    one_per: Literal["patient", "study"]
    order: tuple[Order, ...]


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
class Question:
    """A whole question. ``index`` is a date column, one date for every unit, or None where nothing refers to it."""

    id: str
    unit: Unit
    index: str | date | None
    population: Population
    codelists: tuple[CodeList, ...]
    steps: tuple[Step, ...]
    pick: Pick | None = None
    sample: Sample | None = None

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
    return [name for name, act in (("pick", question.pick), ("sample", question.sample)) if act is not None]


def leaves(predicate: Predicate) -> Iterator[Predicate]:
    """The predicates that a predicate is made of, in their order; one that is not nested is its own."""
    if isinstance(predicate, AllOf | AnyOf | NoneOf):
        for part in predicate.parts:
            yield from leaves(part)
    else:
        yield predicate


def event_steps(question: Question) -> list[tuple[int, Step, Events]]:
    """What a question asks of events: position of the step from 0, step, and the events; a nested step may ask several times."""
    return [
        (i, step, leaf.events)
        for i, step in enumerate(question.steps)
        for leaf in leaves(step.predicate)
        if not isinstance(leaf, Where | Related | AllOf | AnyOf | NoneOf)
    ]
