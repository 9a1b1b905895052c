"""What a question may name: the columns of its unit, and of the series, study and patient that the unit belongs to.

A value flows down freely: a patient's sex is also the sex of each of their series. Going up needs an aggregate, so a question about
patients cannot name a column of series. Where several tables have a column of the same name, the unit's own comes first.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from pictures_spark.cohort.model import Order, Pick
from pictures_spark.schema import Column, table

ZONE = "deidentified"
UNITS = ("patient", "study", "series", "image")
# What reads a person out of a header or a register, although the column lies in a table of scans.
PERSONAL = frozenset({"age_years", "before_birth", "after_death"})
AGE = "age_at"
# The column an age was computed at by publish; ages are never computed from a date here.
AGE_COLUMN, AGE_DATE = "age_years", "scan_date"
UNKNOWN = "unknown"
_PROVENANCE = ("release", "run_id")

Kind = Literal["text", "choice", "set", "number", "whole", "flag", "date", "id", "list"]
_ANY = ("eq", "ne", "in", "is_missing")
_ORDERED = ("eq", "ne", "in", "lt", "le", "gt", "ge", "between", "is_missing")
OPERATORS: dict[Kind, tuple[str, ...]] = {
    "text": _ANY,
    "choice": _ANY,
    "set": _ANY,
    "number": _ORDERED,
    "whole": _ORDERED,
    "date": _ORDERED,
    "flag": ("eq", "ne", "is_missing"),
    "id": ("is_missing",),
    "list": ("is_missing",),
}


@dataclass(frozen=True)
class Field:
    """A column that a question about some unit may name."""

    table: str
    column: Column

    @property
    def name(self) -> str:
        """Name in the table."""
        return self.column.name

    @property
    def kind(self) -> Kind:
        """What sort of value it has; decides which operators and which texts make sense."""
        if self.column.deid == "pseudonym":
            return "id"
        if self.column.type == "string":
            return "choice" if self.column.vocabulary else "text"
        kinds: dict[str, Kind] = {
            "long": "whole",
            "double": "number",
            "boolean": "flag",
            "date": "date",
            "array<string>": "set",
            "array<double>": "list",
        }
        return kinds[self.column.type]

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The closed list a value must be from. ``unknown`` is no value but a missing one, so it is left out."""
        allowed = self.column.allowed
        return tuple(v for v in allowed if v != UNKNOWN) if allowed is not None else None

    @property
    def has_unknown(self) -> bool:
        """Whether ``unknown`` is how the column writes a missing value."""
        return UNKNOWN in (self.column.allowed or ())

    @property
    def empty_is_missing(self) -> bool:
        """Whether an empty set says that it could not be told (a closed list) rather than that there is nothing in it (flags, findings)."""
        return self.kind == "set" and self.column.vocabulary is not None and not self.column.empty_is_value

    @property
    def personal(self) -> bool:
        """Whether it is about a person, so that it asks for somebody alive and resident unless the question says otherwise."""
        return self.table == "patient" or self.name in PERSONAL


def levels(unit: str) -> tuple[str, ...]:
    """Tables whose values a unit has, its own first."""
    return UNITS[UNITS.index(unit) :: -1]


@cache
def fields(unit: str) -> dict[str, Field]:
    """Every column a question about this unit may name, with ``age_at`` where the unit has an age."""
    found: dict[str, Field] = {}
    for name in levels(unit):
        for column in table(ZONE, name).columns:
            if column.name not in _PROVENANCE and column.type != "timestamp_ntz":
                found.setdefault(column.name, Field(name, column))
    if AGE_COLUMN in found:
        found[AGE] = found[AGE_COLUMN]
    return found


def below(unit: str, name: str) -> str | None:
    """The table below the unit that has a column of this name, which only an aggregate could bring up; None where none has."""
    lower = UNITS[UNITS.index(unit) + 1 :]
    return next((t for t in lower if name in table(ZONE, t).by_name and name not in _PROVENANCE), None)


def key(unit: str) -> str:
    """The column that identifies a unit."""
    return f"{unit}_id"


def label(field: Field) -> str:
    """The column in words, as a page or a sentence shows it."""
    return field.column.label or field.name.replace("_", " ")


def pick_order(unit: str, pick: Pick) -> tuple[Order, ...]:
    """The order of a pick with the unit's own id at its end, so that it is total."""
    own = key(unit)
    return pick.order if any(order.column == own for order in pick.order) else (*pick.order, Order(own))
