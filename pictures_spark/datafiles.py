"""Data files of Delta tables that workers write themselves: Arrow in, Parquet out, told to the driver, which commits them together.

Rows that are in Arrow already are written several times faster so than through Spark's rows. A file that is not committed (its task was
lost, or done twice) is no part of the table, and `pictures maintain` removes it. Enters: tables with the declared columns. Runs on
executors; the commit is `pictures_spark.tables.commit`. Only for tables on a mounted path.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pictures_spark.errors import ChecksFailedError
from pictures_spark.schema import Table

# Types of which the smallest and largest value of a file are told, so that a query leaves files out. Texts only where it is asked for: they
# may be long.
_ORDERED = ("long", "date")


@dataclass(frozen=True)
class DataFile:
    """A file that was written, not yet committed.

    Attributes
    ----------
    name : below the table's folder.
    size : bytes.
    rows : how many it has.
    statistics : as Delta's log has them, JSON.
    """

    name: str
    size: int
    rows: int
    statistics: str

    def span(self, column: str) -> tuple[Any, Any]:
        """The smallest and largest value of a column of which they are told; None where it has no value."""
        told = json.loads(self.statistics)
        return told["minValues"].get(column), told["maxValues"].get(column)


def write(parts: Iterable[pa.Table], declared: Table, folder: str, unique: tuple[str, ...] = (), bounds: tuple[str, ...] = ()) -> DataFile:
    """Write tables as one file of a declared table, each as a row group; where they have no rows, there is no file.

    Parameters
    ----------
    parts : tables with at least the declared columns, in any order; more columns are left out.
    folder : the table's folder; made where it is not there.
    unique : columns of which hardly a value comes twice.
    bounds : text columns of which the smallest and largest value is told.

    Raises
    ------
    ChecksFailedError
        A column is missing, or has a missing value that it may not have.
    pyarrow.ArrowException
        A value cannot be of the declared type.
    OSError
        The file cannot be written.
    """
    schema = pa.schema([pa.field(column.name, column.arrow_type) for column in declared.columns])
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{uuid.uuid4()}.parquet"
    repeated = [name for name in schema.names if name not in unique]
    told = _Statistics(declared, bounds)
    with pq.ParquetWriter(path, schema, use_dictionary=repeated, write_statistics=repeated) as writer:
        for part in parts:
            rows = _declared(part, declared, schema)
            told.add(rows)
            writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
    if not told.rows:
        path.unlink()
        return DataFile(path.name, 0, 0, told.as_json())
    return DataFile(path.name, path.stat().st_size, told.rows, told.as_json())


def _declared(part: pa.Table, declared: Table, schema: pa.Schema) -> pa.Table:
    where = f"table {declared.zone}.{declared.name}"
    missing = sorted(set(schema.names) - set(part.column_names))
    if missing:
        raise ChecksFailedError(f"{where} needs column {', '.join(missing)}")
    rows = part.select(schema.names).cast(schema)
    for column in declared.columns:
        if not column.nullable and rows[column.name].null_count:
            raise ChecksFailedError(f"{where}: column {column.name} has a value that is missing")
    return rows


class _Statistics:
    """What is told of a file's columns, gathered part by part."""

    def __init__(self, declared: Table, bounds: tuple[str, ...]) -> None:
        self.rows = 0
        self._nulls = dict.fromkeys(declared.names, 0)
        self._bounded = [column.name for column in declared.columns if column.type in _ORDERED or column.name in bounds]
        self._least: dict[str, Any] = {}
        self._most: dict[str, Any] = {}

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        for name in self._nulls:
            self._nulls[name] += rows[name].null_count
        for name in self._bounded:
            found = pc.min_max(rows[name])
            least, most = found["min"].as_py(), found["max"].as_py()
            if least is not None:
                self._least[name] = min(self._least.get(name, least), least)
                self._most[name] = max(self._most.get(name, most), most)

    def as_json(self) -> str:
        told = {"numRecords": self.rows, "minValues": self._least, "maxValues": self._most, "nullCount": self._nulls, "tightBounds": True}
        return json.dumps(told, default=str)
