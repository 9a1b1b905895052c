"""Codes and units in one form: schemas/codes.yaml and schemas/units.yaml. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

from pictures_spark.errors import ConfigError
from pictures_spark.records import steps
from pictures_spark.resources import load_schema

_SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)


class Code(NamedTuple):
    """A code in the form that events carry."""

    system: str
    code: str
    root: str | None


def system(name: str) -> dict[str, Any]:
    """The declaration of a coding system.

    Raises
    ------
    ConfigError
        No system of that name is declared, or with a step that is not one.
    """
    declared = load_schema("codes.yaml")
    if name not in declared:
        raise ConfigError(f"coding system {name!r} is not declared in schemas/codes.yaml; it has {', '.join(declared)}")
    steps.check(declared[name]["steps"], f"schemas/codes.yaml {name}")
    found: dict[str, Any] = declared[name]
    return found


def normalise(systems: Sequence[str], text: str | None) -> Code | None:
    """A code as the first of the systems whose shape it has; None where it has none, or there is no text.

    Examples
    --------
    >>> normalise(["icd10", "icd9"], "g30.9D"), normalise(["icd10", "icd9"], "4340"), normalise(["opcs4"], "stroke")
    (Code(system='icd10', code='G309', root='G30'), Code(system='icd9', code='4340', root='434'), None)
    """
    for name in systems:
        rules = system(name)
        found = re.fullmatch(rules["pattern"], steps.apply(rules["steps"], text or ""))
        if found:
            code = found[1] if found.re.groups else found[0]
            return Code(name, code, code[: rules["root"]] if "root" in rules else None)
    return None


@dataclass(frozen=True)
class Unit:
    """A unit of measurement, with what turns it into its standard."""

    unit: str
    std: str
    factor: float


@cache
def units() -> dict[str, Unit]:
    """Every spelling, in small letters without spaces, and the unit it stands for."""
    found: dict[str, Unit] = {}
    for entry in load_schema("units.yaml"):
        unit = Unit(entry["unit"], entry.get("std", entry["unit"]), float(entry.get("factor", 1)))
        for spelling in {_unit_key(entry["unit"]), *entry["spellings"]}:
            if spelling in found:
                raise ConfigError(f"schemas/units.yaml: {spelling!r} stands for two units, {found[spelling].unit} and {unit.unit}")
            found[spelling] = unit
    return found


def unit_of(text: str | None) -> Unit | None:
    """The unit a text stands for; None where it is not listed, or there is no text.

    Examples
    --------
    >>> unit_of(" umol / l"), unit_of("furlong")
    (Unit(unit='umol/L', std='umol/L', factor=1.0), None)
    """
    return units().get(_unit_key(text or ""))


def _unit_key(text: str) -> str:
    return text.replace(" ", "").translate(_SMALL)
