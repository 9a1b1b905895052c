"""Attrition: how many units and patients were left after each step, and why the others were not.

Counts are exact here, and `lines` prints them for roles that a Safe Haven trusts with that. Everybody else sees what
`pictures_spark.cohort.shown` makes of them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pictures_spark.cohort.compile import Plan

UNITS = {"patient": "patients", "study": "studies", "series": "series", "image": "images"}


@dataclass(frozen=True)
class Level:
    """One line. ``unknown`` counts every unknown answer among those that reached the step, whether or not it was kept."""

    index: int
    step_id: str
    sentence: str
    kept: int
    failed: int
    unknown: int
    kept_patients: int


@dataclass(frozen=True)
class Cell:
    """Members of one combination of values: how many units and, where these belong to them, patients and studies; of series also images."""

    values: tuple[Any, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What an engine says to a plan: the attrition, a hash of the sorted unit ids of the members, and the cells of each breakdown."""

    levels: tuple[Level, ...]
    content_sha256: str
    cells: tuple[tuple["Cell", ...], ...] = ()

    @property
    def seen(self) -> int:
        """Units the question started from."""
        return self.levels[0].kept

    @property
    def members(self) -> int:
        """Units in the cohort."""
        return self.levels[-1].kept

    @property
    def patients(self) -> int:
        """Distinct linked patients in the cohort."""
        return self.levels[-1].kept_patients


def levels(plan: Plan, units: Iterable[Sequence[int]], patients: Iterable[Sequence[int]]) -> tuple[Level, ...]:
    """The attrition of a plan.

    Parameters
    ----------
    units : for each value of ``passed``: the value, how many units have it, and for each step from 1 how many of them are unknown.
    patients : for each value: the value, and how many linked patients have it as the furthest of their units.
    """
    units, patients = list(units), list(patients)
    found: list[Level] = []
    for index, step in enumerate(plan.steps):
        kept = sum(row[1] for row in units if row[0] >= index)
        kept_patients = sum(row[1] for row in patients if row[0] >= index)
        # Those who reached a step are those who survived the one before it.
        unknown = sum(row[1 + index] for row in units if row[0] >= index - 1) if index else 0
        removed = found[-1].kept - kept if index else 0
        failed = removed - unknown if step.unknown == "exclude" else removed
        found.append(Level(index, step.id, step.sentence, kept, failed, unknown, kept_patients))
    return tuple(found)


def content_hash(unit_ids: Iterable[str]) -> str:
    """SHA-256 over the unit ids in order of their code points, one a line, hex."""
    digest = hashlib.sha256()
    for unit_id in sorted(unit_ids):
        digest.update(f"{unit_id}\n".encode())
    return digest.hexdigest()


def skipped(found: Sequence[Level]) -> dict[str, int]:
    """Units that each step removed, as a report counts them."""
    return {f"skipped_{now.step_id}": before.kept - now.kept for before, now in pairwise(found)}


def lines(unit: str, found: Sequence[Level]) -> list[str]:
    """The printed table: what each step left, and how many it did not leave because the answer was no, or was unknown."""
    width = max(len(level.step_id) for level in found)
    rows = [f"  {'step':<{width}}  {UNITS[unit]:>12}  {'no':>12}  {'unknown':>12}  {'patients':>12}"]
    rows += [
        f"  {level.step_id:<{width}}  {level.kept:>12,}  {level.failed:>12,}  {level.unknown:>12,}  {level.kept_patients:>12,}"
        for level in found
    ]
    return rows


def cell_lines(unit: str, by: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """A printed breakdown: a line per combination of values, with the counts of members."""
    levels = {"patient": [], "study": ["patients"], "series": ["patients", "studies", "images"], "image": ["patients", "studies"]}[unit]
    head = [*by, {"patient": "patients", "study": "studies", "series": "series", "image": "images"}[unit], *levels]
    rows = [["-" if value is None else str(value) for value in cell.values] + [f"{count:,}" for count in cell.counts] for cell in cells]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [cell.ljust(width) if i < len(by) else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return "  " + "  ".join(padded).rstrip()

    return [line(row) for row in [head, *rows]]
