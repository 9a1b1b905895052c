"""Tables as declared in schemas/: the one source of Spark types, DuckDB types, documentation and checks."""

from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from pictures_spark.errors import ConfigError
from pictures_spark.resources import load_schema, schemas_dir

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import DataType, StructType

ZONES = ("identifiable", "deidentified", "project")
DEID_ACTIONS = ("keep", "pseudonym", "month", "generalise", "vocabulary", "derived", "drop")
ROLLUPS = ("min", "max", "first", "any", "set", "count")
# Spark DDL -> DuckDB. One row per type a column may have.
DUCKDB_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp_ntz": "TIMESTAMP",
    "array<string>": "VARCHAR[]",
    "array<double>": "DOUBLE[]",
}
_PROVENANCE = {
    "identifiable": [{"name": "run_id", "type": "string", "nullable": False, "meaning": "Run that wrote the row."}],
    "deidentified": [
        {"name": "release", "type": "string", "nullable": False, "deid": "derived", "meaning": "Release the row belongs to."},
        {"name": "run_id", "type": "string", "nullable": False, "deid": "derived", "meaning": "Run that wrote the row."},
    ],
    "project": [],
}


@dataclass(frozen=True)
class Column:
    """One column of a table; fields as explained in schemas/README.md."""

    name: str
    type: str
    meaning: str
    nullable: bool = True
    unit: str | None = None
    dicom: str | None = None
    vocabulary: str | None = None
    range: tuple[float, float] | None = None
    pattern: str | None = None
    rollup: str | None = None
    deid: str | None = None
    label: str | None = None
    empty_is_value: bool = False

    @property
    def allowed(self) -> tuple[str, ...] | None:
        """The closed list of values, where there is one."""
        return vocabulary(self.vocabulary) if self.vocabulary else None

    @property
    def arrow_type(self) -> "pa.DataType":
        """Its type in Arrow."""
        return _arrow_types()[self.type]

    @property
    def shape(self) -> str | None:
        """The regular expression that a whole value must match, where there is one."""
        return load_schema("patterns.yaml")[self.pattern] if self.pattern else None


@dataclass(frozen=True)
class Layout:
    """How the files of a table are laid out: one that grows by the batch so that a write reads and rewrites few of them, one that is
    replaced as a whole so that a question reads few of its rows.

    Attributes
    ----------
    cluster : columns that OPTIMIZE brings together in files (Delta's liquid clustering).
    statistics : columns of which Delta keeps each file's smallest and largest value, and by which a query leaves files out.
    order : columns in whose order the rows of each file stand, where the table is replaced as a whole; by the smallest and largest value
        of each row group a query leaves out most of the file.
    """

    cluster: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table of a zone."""

    zone: str
    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    layout: Layout | None = None
    by_name: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    @property
    def own(self) -> tuple[Column, ...]:
        """The columns but for those of provenance, which every table of the zone has."""
        everywhere = {entry["name"] for entry in _PROVENANCE[self.zone]}
        return tuple(column for column in self.columns if column.name not in everywhere)

    def spark_type(self) -> "StructType":
        """The Spark schema, each column with its meaning as comment."""
        from pyspark.sql.types import StructType

        struct = StructType()
        for column in self.columns:
            struct.add(column.name, _spark_type(column.type), column.nullable, {"comment": column.meaning})
        return struct


def _spark_type(type_: str) -> "DataType":
    from pyspark.sql import types as T

    plain = {
        "string": T.StringType(),
        "long": T.LongType(),
        "double": T.DoubleType(),
        "boolean": T.BooleanType(),
        "date": T.DateType(),
        "timestamp_ntz": T.TimestampNTZType(),
    }
    if type_.startswith("array<"):
        return T.ArrayType(plain[type_[len("array<") : -1]])
    return plain[type_]


@cache
def _arrow_types() -> "dict[str, pa.DataType]":
    import pyarrow as pa

    plain = {
        "string": pa.string(),
        "long": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp_ntz": pa.timestamp("us"),
    }
    return plain | {f"array<{name}>": pa.list_(plain[name]) for name in ("string", "double")}


def vocabulary(name: str) -> tuple[str, ...]:
    """Values of a closed list of schemas/vocabularies.yaml.

    Raises
    ------
    ConfigError
        No list of that name is declared.
    """
    lists = load_schema("vocabularies.yaml")
    if name not in lists:
        raise ConfigError(f"vocabulary {name!r} is not declared in schemas/vocabularies.yaml")
    return tuple(lists[name])


@cache
def table(zone: str, name: str) -> Table:
    """The declaration of a table, checked.

    Raises
    ------
    ConfigError
        No such table is declared, or its declaration is faulty (all faults at once).
    """
    if zone in ZONES and (schemas_dir() / zone / f"{name}.yaml").is_file():
        return _build(zone, name, load_schema(f"{zone}/{name}.yaml"))
    if (
        zone == "identifiable"
        and (found := name.removeprefix("record_")) != name
        and (schemas_dir() / "records" / f"{found}.yaml").is_file()
    ):
        from pictures_spark.records.source import raw_table

        return _build(zone, name, raw_table(found))
    raise ConfigError(f"table {zone}.{name} is not declared: add schemas/{zone}/{name}.yaml")


@cache
def tables(zone: str) -> tuple[Table, ...]:
    """Every table declared for a zone, by name; in the identifiable zone also the raw rows of each record source."""
    names = [path.stem for path in (schemas_dir() / zone).glob("*.yaml")]
    if zone == "identifiable":
        names += [f"record_{path.stem}" for path in (schemas_dir() / "records").glob("*.yaml")]
    return tuple(table(zone, name) for name in sorted(names))


def _build(zone: str, name: str, raw: dict[str, Any]) -> Table:
    faults = []
    columns = []
    for entry in [*raw.get("columns", []), *_PROVENANCE[zone]]:
        where = f"{zone}.{name}.{entry.get('name', '?')}"
        unknown = set(entry) - {f.name for f in Column.__dataclass_fields__.values()}
        if unknown:
            faults.append(f"{where}: unknown field {', '.join(sorted(unknown))}")
            continue
        missing = {"name", "type", "meaning"} - set(entry)
        if missing:
            faults.append(f"{where}: needs {', '.join(sorted(missing))}")
            continue
        if entry["type"] not in DUCKDB_TYPES:
            faults.append(f"{where}: type {entry['type']!r} is not one of {', '.join(DUCKDB_TYPES)}")
        if zone != "identifiable" and entry.get("deid") not in DEID_ACTIONS:
            faults.append(f"{where}: needs deid, one of {', '.join(DEID_ACTIONS)}")
        if entry.get("rollup") is not None and entry["rollup"] not in ROLLUPS:
            faults.append(f"{where}: rollup {entry['rollup']!r} is not one of {', '.join(ROLLUPS)}")
        column = Column(**{**entry, **({"range": tuple(entry["range"])} if "range" in entry else {})})
        if column.vocabulary and column.vocabulary not in load_schema("vocabularies.yaml"):
            faults.append(f"{where}: vocabulary {column.vocabulary!r} is not declared")
        if column.pattern and column.pattern not in load_schema("patterns.yaml"):
            faults.append(f"{where}: pattern {column.pattern!r} is not declared")
        columns.append(column)
    names = [column.name for column in columns]
    faults += [f"{zone}.{name}: column {n} is declared twice" for n in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"{zone}.{name}: key column {k} is not declared" for k in raw["key"] if k not in names]
    layout = Layout(**{part: tuple(given) for part, given in raw["layout"].items()}) if "layout" in raw else None
    if layout:
        faults += [f"{zone}.{name}: layout column {c} is not declared" for c in chain(*vars(layout).values()) if c not in names]
    if raw["table"] != name:
        faults.append(f"{zone}.{name}: the file says table: {raw['table']}")
    if faults:
        raise ConfigError("; ".join(faults))
    return Table(zone, name, raw["meaning"], tuple(raw["key"]), tuple(columns), layout)
