"""Codes and units in one form: schemas/codes.yaml and schemas/units.yaml, in Python and as Spark expressions.

Pure; expressions run on executors and broadcast nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple

from pictures_spark.errors import ConfigError
from pictures_spark.records import steps
from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    from pyspark.sql import Column


_SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)
_BETWEEN = "\x1f"


class Code(NamedTuple):
    """A code in the form that events carry."""

    system: str
    code: str
    root: str | None


class CodeColumns(NamedTuple):
    """The same as Spark columns; all null where the text is empty or has the shape of none of the systems."""

    system: "Column"
    code: "Column"
    root: "Column"


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


def candidates(systems: Sequence[str], text: "Column") -> "list[Column]":
    """A text as a code of each system, empty where it has not its shape; to be columns of their own first, for `express`."""
    from pyspark.sql import functions as F

    found = []
    for name in systems:
        rules = system(name)
        group = 1 if re.compile(rules["pattern"]).groups else 0
        found.append(F.regexp_extract(steps.express(rules["steps"], text), steps.whole(rules["pattern"]), group))
    return found


def express(systems: Sequence[str], codes: "Sequence[Column]") -> CodeColumns:
    """`normalise` as Spark columns, from `candidates`."""
    from pyspark.sql import functions as F

    named = list(zip(systems, codes, strict=True))
    roots = {name: F.substring(code, 1, system(name)["root"]) if "root" in system(name) else _none("string") for name, code in named}
    return CodeColumns(_first_of(named, {name: F.lit(name) for name in systems}), _first_of(named, dict(named)), _first_of(named, roots))


def _first_of(named: "list[tuple[str, Column]]", values: "dict[str, Column]") -> "Column":
    """The value of the first system that has a code."""
    from pyspark.sql import functions as F

    (first, code), *more = named
    return reduce(lambda case, entry: case.when(entry[1] != "", values[entry[0]]), more, F.when(code != "", values[first]))


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


def unit_key(text: "Column") -> "Column":
    """What `express_unit` compares; to be a column of its own first."""
    from pyspark.sql import functions as F

    return F.translate(text, ascii_uppercase + " ", ascii_lowercase)


def express_unit(key: "Column") -> tuple["Column", "Column"]:
    """(unit_std, factor) of a `unit_key`; null where it is not listed."""
    from pyspark.sql import functions as F

    def listed(texts: list[str]) -> "Column":
        # One literal, which the optimiser makes a constant; a literal per spelling would be a hundred.
        return F.split(F.lit(_BETWEEN.join(texts)), _BETWEEN)

    spellings = listed(list(units()))
    std = F.map_from_arrays(spellings, listed([unit.std for unit in units().values()]))
    factor = F.map_from_arrays(spellings, listed([repr(unit.factor) for unit in units().values()]))
    return F.try_element_at(std, key), F.try_element_at(factor, key).try_cast("double")


def _none(type_: str) -> "Column":
    from pyspark.sql import functions as F

    return F.lit(None).cast(type_)
