"""A cohort question as a graph of frozen nodes: what is asked, apart from how it was written down and how it is answered.

Two words carry the design. A *unit* is one row of the table the question is about: a patient, a study, a series or an image. A *step* is
a predicate on one unit: it says yes, no or unknown, and never looks at another step. So the order of steps changes the attrition and
nothing else, and any step can be switched off without asking the others again. Only the pick acts on the survivors, after all steps.

Nodes hold values already typed by the tables of schemas/deidentified. They are not checked when they are made, so that every fault of a
question can be reported at once: `pictures_spark.cohort.check` does that for all faces alike.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

Unit = Literal["patient", "study", "series", "image"]
Population = Literal["all", "linked", "alive_and_resident"]
Unknown = Literal["exclude", "include", "report"]
Expand = Literal["prefix", "exact"]
Operator = Literal["eq", "ne", "in", "lt", "le", "gt", "ge", "between", "is_missing"]
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

    A missing column value makes the answer unknown, but for ``is_missing``. A column that is a set is equal to a value it contains.
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
    """Events of the unit's person: of these kinds, in any of these code lists (any code where there is none), in this window."""

    kinds: tuple[str, ...]
    codes: tuple[str, ...]
    window: Window
    at_least: int = 1


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


Predicate = Where | Has | Lacks | First


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
class Question:
    """A whole question. ``index`` is a date column, one date for every unit, or None where nothing refers to it."""

    id: str
    unit: Unit
    index: str | date | None
    population: Population
    codelists: tuple[CodeList, ...]
    steps: tuple[Step, ...]
    pick: Pick | None = None

    def codelist(self, name: str) -> CodeList:
        """The code list of that name.

        Raises
        ------
        KeyError
            There is none: the question was not checked.
        """
        return {codelist.name: codelist for codelist in self.codelists}[name]


def event_steps(question: Question) -> list[tuple[int, Step, Events]]:
    """The steps that ask for events: position among the steps from 0, step, and its events."""
    return [(i, step, step.predicate.events) for i, step in enumerate(question.steps) if not isinstance(step.predicate, Where)]
