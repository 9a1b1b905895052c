"""Attrition and breakdowns as they may be shown to whoever does not see exact counts: the same tables, through the disclosure gate.

Enters: for each person how many units got how far. Leaves: numbers that the gate told, and what follows from them. Differences between
steps are differences of numbers that were told, never counts of their own, so a step that a few persons tell apart shows ``<10``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pictures_spark.cohort import gate
from pictures_spark.cohort.attrition import UNITS
from pictures_spark.cohort.compile import Plan
from pictures_spark.cohort.gate import Cell, Gate, Keys, Numbers

Mask = npt.NDArray[np.bool_]
_BLANK = "-"


@dataclass(frozen=True)
class People:
    """Units by person; one row per person, way through the steps, and values of breakdowns.

    ``persons`` are keyed names, ``linked`` says that they are known people, ``passed`` and ``unknowns`` are as in the plan's rows,
    ``n`` is how many units, ``values`` has a column for each breakdown.
    """

    persons: Keys
    linked: Mask
    passed: Numbers
    unknowns: Numbers
    n: Numbers
    values: tuple[npt.NDArray[np.object_], ...] = ()

    @cached_property
    def _each(self) -> tuple[Keys, npt.NDArray[np.intp]]:
        """Every person once, and which of them a row is of."""
        return np.unique(self.persons, return_inverse=True)

    def cell(self, wanted: Mask) -> Cell:
        """The persons of some rows, with their units."""
        persons, place = self._each
        return gate.cell(persons, np.bincount(place[wanted], weights=self.n[wanted], minlength=len(persons)))


@dataclass(frozen=True)
class Row:
    """One line of the attrition, as it may be shown; None is a number that may not."""

    step_id: str
    kept: int | None
    failed: int | None
    unknown: int | None
    patients: int | None


def rows(told: Gate, plan: Plan, people: People) -> tuple[Row, ...]:
    """The attrition through the gate."""
    most = gate.heaviest(people.cell(people.passed >= 0).adds)

    def units(wanted: Mask) -> int | None:
        found = people.cell(wanted)
        return told.people(found) if plan.unit == "patient" else told.units(plan.unit, found, most)

    found: list[Row] = []
    for index, step in enumerate(plan.steps):
        kept = units(people.passed >= index)
        patients = told.people(people.cell((people.passed >= index) & people.linked)) if kept is not None else None
        if not found:
            found.append(Row(step.id, kept, None, None, patients))
            continue
        before = found[-1]
        # Two draws may put a later step above an earlier one, or units below their patients: neither is possible, and both are known.
        kept, patients = _at_most(kept, before.kept), _at_most(patients, before.patients)
        if kept is not None and patients is not None:
            kept = _at_most(max(kept, patients), before.kept)
        unknown = units((people.passed >= index - 1) & ((people.unknowns & (1 << index)) != 0))
        removed = _removed(before.kept, kept)
        unknown = _at_most(unknown, removed) if step.unknown == "exclude" else _at_most(unknown, kept)
        failed = removed if step.unknown != "exclude" else _removed(removed, unknown or 0)
        found.append(Row(step.id, kept, failed, unknown, patients))
    return tuple(found)


def _at_most(value: int | None, limit: int | None) -> int | None:
    return min(value, limit) if value is not None and limit is not None else None


def _removed(before: int | None, after: int | None) -> int | None:
    """What was taken away, where it is enough to be told."""
    if before is None or after is None or before - after < gate.policy().minimum:
        return None
    return before - after


def lines(unit: str, found: Sequence[Row]) -> list[str]:
    """The printed table."""
    width = max(len(row.step_id) for row in found)
    table = [f"  {'step':<{width}}  {UNITS[unit]:>12}  {'no':>12}  {'unknown':>12}  {'patients':>12}"]
    for row in found:
        first = row is found[0]
        failed, unknown = (_BLANK if first else gate.told(value) for value in (row.failed, row.unknown))
        table.append(f"  {row.step_id:<{width}}  {gate.told(row.kept):>12}  {failed:>12}  {unknown:>12}  {gate.told(row.patients):>12}")
    return [*table, "", note()]


def note() -> str:
    """What every reader of gated numbers is told."""
    policy = gate.policy()
    return (
        f"  Numbers are moved a little and rounded to {policy.rounding} (policy {policy.name}). {policy.hidden} is fewer than "
        f"{policy.minimum}, or too near to that to be told."
    )


def crossed(told: Gate | None, plan: Plan, people: People, labels: Sequence[str]) -> list[str]:
    """Persons of the cohort by the values of one or two breakdowns, as a printed table.

    Through the gate and after secondary suppression, with the totals of the numbers shown; exact where there is no gate. A person who has
    units of several values is in several cells. A value that few people of the release have has no line.
    """

    def count(found: Cell) -> int | None:
        return told.people(found) if told is not None else len(found.persons)

    members = people.passed == plan.last
    # Through the gate, lines are for values of the whole release and not of the members: that a value is among them tells of somebody.
    everybody = np.ones(len(members), bool)
    keys = [
        [
            value
            for value in sorted({str(value) for value in column[members if told is None else everybody]})
            if count(people.cell(column == value))
        ]
        for column in people.values
    ]
    down, across = keys[0], keys[1] if len(keys) > 1 else [""]
    told_of: list[list[int | None]] = []
    for value in down:
        in_row = members & (people.values[0] == value)
        told_of.append([count(people.cell(in_row & (people.values[1] == other) if len(keys) > 1 else in_row)) for other in across])
    table = gate.protected(told_of) if told is not None else told_of
    width = max([len(labels[0]), 5, *map(len, down)])
    heads = [*across, "total"] if len(keys) > 1 else ["people"]
    columns = [max(12, len(head)) for head in heads]

    def line(name: str, numbers: Sequence[str]) -> str:
        return "  " + "  ".join([f"{name:<{width}}", *(f"{number:>{size}}" for number, size in zip(numbers, columns, strict=True))])

    def cells(row: Sequence[int | None]) -> list[str]:
        return [gate.told(value) for value in ([*row, gate.total(row)] if len(keys) > 1 else row)]

    total = [gate.total([row[j] for row in table]) for j in range(len(across))]
    title = " by ".join(labels)
    body = [line(value, cells(row)) for value, row in zip(down, table, strict=True)]
    notes = ["", note()] if told is not None else []
    return [f"  people by {title}", line(labels[0], heads), *body, line("total", cells(total)), *notes]


def audited(found: Sequence[Row]) -> dict[str, int | None]:
    """What was shown of the end of the attrition, for the audit chain."""
    return {"units": found[-1].kept, "patients": found[-1].patients}
