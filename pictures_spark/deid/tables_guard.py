"""The border: a value crosses only inside its column's vocabulary, range and pattern; what does not is null, and counted.

Twice the same rule: `Border` for the passes in Python (headers), `guard` for Spark expressions (records). Both stop exactly what the writer
(`pictures_spark.tables.accepts`) would refuse, so that a value withheld here is never one that stops the write.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pictures_spark.deid.derive import plain_number
from pictures_spark.schema import Column as Declared
from pictures_spark.schema import Table
from pictures_spark.tables import accepts


class Border:
    """The limits of one declared column, for values in Python. Missing values pass as missing and are not counted."""

    def __init__(self, table: str, column: Declared) -> None:
        self.name = f"withheld_{table}.{column.name}"
        self._allowed = frozenset(column.allowed) if column.allowed is not None else None
        self._range = column.range
        self._shape = re.compile(column.shape) if column.shape is not None else None

    def accepts(self, value: Any) -> bool:
        """Whether a value lies inside all limits."""
        if self._allowed is not None and value not in self._allowed:
            return False
        if self._range is not None and not self._range[0] <= value <= self._range[1]:
            return False
        return self._shape is None or self._shape.fullmatch(value) is not None

    def one(self, value: Any, withheld: list[str]) -> Any:
        """The value, or None where it may not cross; its column's name is then added to ``withheld``."""
        if value is None or self.accepts(value):
            return plain_number(value) if isinstance(value, float) else value
        withheld.append(self.name)
        return None

    def whole(self, values: Sequence[Any] | None, withheld: list[str]) -> list[Any] | None:
        """A tuple of values crosses whole or not at all, because half a position is no position."""
        if not values:
            return None
        if all(value is not None and self.accepts(value) for value in values):
            return list(values)
        withheld.append(self.name)
        return None

    def each(self, values: Iterable[Any], withheld: list[str]) -> list[Any]:
        """Those of independent values that may cross."""
        found = [value for value in values if value is not None]
        kept = [plain_number(value) if isinstance(value, float) else value for value in found if self.accepts(value)]
        if len(kept) < len(found):
            withheld.append(self.name)
        return kept


@dataclass(frozen=True)
class Guarded:
    """A value as it may cross, and whether it was withheld, as Spark expressions."""

    value: Column
    withheld: Column


def guard(column: Declared, value: Column) -> Guarded:
    """One value of a record table; an array crosses whole or not at all."""
    outside = F.exists(value, lambda v: ~accepts(column, v)) if column.type.startswith("array") else ~accepts(column, value)
    return Guarded(F.when(F.coalesce(~outside, F.lit(True)), value), F.coalesce(outside, F.lit(False)))


def copied(declared: Table, source: DataFrame, leave: tuple[str, ...] = ()) -> dict[str, Guarded]:
    """Guards of the columns that a table shares with its source by name, but for those in ``leave``."""
    return {c.name: guard(c, F.col(c.name)) for c in declared.columns if c.name in source.columns and c.name not in leave}


def withheld_names(table: str, guards: Mapping[str, Guarded]) -> Column:
    """Array of ``withheld_<table>.<column>`` for the columns of a row that were withheld."""
    return F.array_compact(F.array(*[F.when(g.withheld, F.lit(f"withheld_{table}.{name}")) for name, g in guards.items()]))
