"""Attrition and breakdowns as they may be shown to whoever does not see exact counts: the same tables, through the disclosure gate.

Enters: for each person how many units got how far. Leaves: numbers that the gate told, and what follows from them. Differences between
steps are differences of numbers that were told, never counts of their own, so a step that a few persons tell apart shows ``<10``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    def cell(self, wanted: Mask | npt.NDArray[np.intp]) -> Cell:
        """The persons of some rows, with their units."""
        persons, place = self._each
        places, n = place[wanted], self.n[wanted]
        if 8 * len(places) < len(place):
            some, places = np.unique(places, return_inverse=True)
            persons = persons[some]
        return gate.cell(persons, np.bincount(places, weights=n, minlength=len(persons)))

    def by_value(self, column: int, wanted: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[np.intp]]:
        """Of some rows those of each value, in the order of the values."""
        values, place = np.unique(self.values[column][wanted].astype(str), return_inverse=True)
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(len(values) + 1))
        return {str(value): wanted[order[ends[i] : ends[i + 1]]] for i, value in enumerate(values)}


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
    return table


def note() -> str:
    """What every reader of gated numbers is told."""
    policy = gate.policy()
    return (
        f"  Numbers are moved a little and rounded to {policy.rounding} (policy {policy.name}). {policy.hidden} is fewer than "
        f"{policy.minimum}, or too near to that to be told."
    )


def crossed(told: Gate | None, plan: Plan, people: People, labels: Sequence[str]) -> list[str]:
    """People of the cohort by the values of breakdowns, as a printed table; the last of several goes across.

    Through the gate and after secondary suppression, with the totals of the numbers shown; exact where there is no gate. A person who has
    units of several values is in several cells. A value that few people of the release have has no line.
    """

    def count(rows: npt.NDArray[np.intp]) -> int | None:
        found = people.cell(rows)
        return told.people(found) if told is not None else len(found.persons)

    if len(people.values) > 2:
        first = np.array([" / ".join(map(str, values)) for values in zip(*people.values[:-1], strict=True)], object)
        people = replace(people, values=(first, people.values[-1]))
    members = np.flatnonzero(people.passed == plan.last)
    # Through the gate, lines are for values of the whole release and not of the members: that a value is among them tells of somebody.
    listed = members if told is None else np.arange(len(people.passed))
    names = [[value for value, rows in people.by_value(i, listed).items() if count(rows)] for i in range(len(people.values))]
    down, across = names[0], names[1] if len(names) > 1 else [""]
    nobody = members[:0]
    told_of: list[list[int | None]] = []
    found = people.by_value(0, members)
    for value in down:
        rows = found.get(value, nobody)
        inside = people.by_value(1, rows) if len(names) > 1 else {"": rows}
        told_of.append([count(inside.get(other, nobody)) for other in across])
    table = gate.protected(told_of) if told is not None else told_of
    first_label = " / ".join(labels[: max(1, len(labels) - 1)])
    width = max([len(first_label), 5, *map(len, down)])
    heads = [*across, "total"] if len(names) > 1 else ["people"]
    columns = [max(12, len(head)) for head in heads]

    def line(name: str, numbers: Sequence[str]) -> str:
        return "  " + "  ".join([f"{name:<{width}}", *(f"{number:>{size}}" for number, size in zip(numbers, columns, strict=True))])

    def cells(row: Sequence[int | None]) -> list[str]:
        return [gate.told(value) for value in ([*row, gate.total(row)] if len(names) > 1 else row)]

    total = [gate.total([row[j] for row in table]) for j in range(len(across))]
    body = [line(value, cells(row)) for value, row in zip(down, table, strict=True)]
    return [f"  people by {' by '.join(labels)}", line(first_label, heads), *body, line("total", cells(total))]


def audited(found: Sequence[Row]) -> dict[str, int | None]:
    """What was shown of the end of the attrition, for the audit chain."""
    return {"units": found[-1].kept, "patients": found[-1].patients}
