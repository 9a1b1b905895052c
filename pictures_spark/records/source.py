"""A record source as declared in schemas/records/: columns, keys and what a row becomes, checked as a whole before anything is read.

Pure; driver. `pictures_spark.records.judging` is what a source does with rows.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pictures_spark.errors import ConfigError
from pictures_spark.linkage import identity
from pictures_spark.records import codes, dates
from pictures_spark.resources import load_schema, schemas_dir
from pictures_spark.schema import table, vocabulary

TYPES = ("text", "date", "datetime", "time", "number", "integer", "map", "code", "codes", "identity", "measure", "comparator", "unit")
PERSON = "person"
EVENTS = "record_event"
# Columns of record_<source> beside those of the file.
OWN_COLUMNS = (
    *("person_id", "row_key", "row_number", "content_hash", "fault", "fault_column", "nulled", "month", "file_sha256"),
    *("read_fault", "run_id"),
)


@dataclass(frozen=True)
class SourceColumn:
    """A column of an extract; fields as in schemas/README.md, "Record sources"."""

    name: str
    type: str
    meaning: str
    needs: Literal["value", "column"] | None = None
    on_error: Literal["null"] | None = None
    formats: tuple[str, ...] = ()
    not_before: str | None = None
    range: tuple[float, float] | None = None
    values: dict[str, str | None] | None = None
    pattern: str | None = None
    systems: tuple[str, ...] = ()
    scheme: str | None = None
    width: int = 0
    count: int = 1

    @property
    def field(self) -> str:
        """Its name in record_<source>: snake_case of the name in the file."""
        return snake_case(self.name)


@dataclass(frozen=True)
class EventSpec:
    """What a row becomes in record_event: one event per code, or one in all; in rows where every column of ``when`` has a listed text.

    ``first_position`` is the position of its first code: the codes of several entries of one kind are numbered on. ``uncoded``: a row
    without a ``code`` is an event too.
    """

    kind: str
    date: tuple[str, ...]
    time: str | None = None
    end_date: str | None = None
    codes: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    measure: str | None = None
    value: str | None = None
    comparator: str | None = None
    unit: str | None = None
    status: str | None = None
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()
    first_position: int = 0
    uncoded: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the events are made of."""
        single = (self.time, self.end_date, self.measure, self.value, self.comparator, self.unit, self.status)
        conditions = [name for name, _ in self.when]
        return (*self.date, *self.codes, *self.code, *conditions, *[name for name in single if name is not None])


@dataclass(frozen=True)
class TableSpec:
    """What the rows become in a table of their own; of several rows with one key the latest gives the table's row.

    Attributes
    ----------
    columns : table column -> source column, or ``person``.
    one_per : the key, in the table's columns.
    latest_by : source column that says which row is the latest; ties go to the row that was loaded last.
    current : ``{column, of, open}``: in each group ``of`` exactly one row has ``column`` true: one whose ``open`` is empty, else the
        latest. Where a value of ``of`` is itself the key of a row that has another value, that one takes its place: merges are followed
        to their end.
    """

    table: str
    columns: dict[str, str]
    one_per: tuple[str, ...]
    latest_by: str
    current: dict[str, str] | None = None


@dataclass(frozen=True)
class Source:
    """A record source.

    Where the columns of ``stay_key`` are all filled they name a stay; sources with the same ``stays`` number their stays together.
    """

    name: str
    meaning: str
    row_key: tuple[str, ...]
    person_columns: tuple[str, ...]
    scheme: str
    columns: tuple[SourceColumn, ...]
    events: tuple[EventSpec, ...]
    tables: tuple[TableSpec, ...]
    stay_key: tuple[str, ...] = ()
    stays: str = ""
    earliest_date: str | None = None

    @property
    def table(self) -> str:
        """Name of the table of its raw rows."""
        return f"record_{self.name}"

    @property
    def kinds(self) -> list[str]:
        """Event kinds it can hold, sorted."""
        return sorted({event.kind for event in self.events})

    def column(self, name: str) -> SourceColumn:
        """One of its columns."""
        return next(column for column in self.columns if column.name == name)


def source_names() -> list[str]:
    """Every declared source, by name."""
    return sorted(path.stem for path in (schemas_dir() / "records").glob("*.yaml"))


@cache
def source(name: str) -> Source:
    """A source of schemas/records/.

    Raises
    ------
    ConfigError
        No source of that name is declared, or its declaration is faulty: all faults at once.
    """
    if name not in source_names():
        raise ConfigError(f"record source {name!r} is not declared: add schemas/records/{name}.yaml; there are {', '.join(source_names())}")
    return source_from(load_schema(f"records/{name}.yaml"))


def source_from(raw: dict[str, Any]) -> Source:
    """A source from its declaration.

    Raises
    ------
    ConfigError
        The declaration is faulty: all faults at once.
    """
    where = f"record source {raw.get('source', '?')}"
    known = {"source", "meaning", "row_key", "person", "stay_key", "stays", "earliest_date", "columns", "emits"}
    faults = [f"unknown field {name}" for name in sorted(set(raw) - known)]
    faults += [f"needs {name}" for name in ("source", "meaning", "row_key", "person", "columns", "emits") if name not in raw]
    if faults:
        raise ConfigError(f"{where}: {'; '.join(faults)}")
    columns, faults = _columns(raw["columns"])
    emits = [dict(entry) for entry in raw["emits"]]
    try:
        found = Source(
            name=raw["source"],
            meaning=raw["meaning"],
            row_key=tuple(raw["row_key"]),
            person_columns=tuple(raw["person"]["columns"]),
            scheme=raw["person"]["scheme"],
            columns=columns,
            events=_numbered([event for e in emits if e.get("table", EVENTS) == EVENTS for event in _events(e)], columns),
            tables=tuple(TableSpec(**{**e, "one_per": tuple(e["one_per"])}) for e in emits if e.get("table", EVENTS) != EVENTS),
            stay_key=tuple(raw.get("stay_key", ())),
            stays=raw.get("stays", raw["source"]),
            earliest_date=raw.get("earliest_date"),
        )
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{where}: an entry of emits or person is not well formed ({error})") from None
    faults += _faults(found)
    if faults:
        raise ConfigError(f"{where}: {'; '.join(faults)}")
    return found


def _columns(entries: list[dict[str, Any]]) -> tuple[tuple[SourceColumn, ...], list[str]]:
    columns, faults = [], []
    for entry in entries:
        values = dict(entry)
        low, high = values.pop("repeat", (0, 0))
        for listed in ("formats", "systems", "range"):
            if listed in values:
                values[listed] = tuple(values[listed])
        try:
            column = SourceColumn(**values)
        except TypeError:
            unknown = sorted(set(values) - set(SourceColumn.__dataclass_fields__))
            faults.append(
                f"column {entry.get('name', '?')}: {'unknown field ' + ', '.join(unknown) if unknown else 'needs name, type, meaning'}"
            )
            continue
        if "{n}" in column.name:
            columns += [SourceColumn(**{**values, "name": column.name.replace("{n}", str(n))}) for n in range(low, high + 1)]
        else:
            columns.append(column)
    return tuple(columns), faults


def _events(entry: dict[str, Any]) -> list[EventSpec]:
    """An entry of emits: one, or one for each number of its ``repeat``, which stands for ``{n}`` in its names."""
    values = {key: value for key, value in entry.items() if key not in ("table", "repeat")}
    for listed in ("date", "codes", "code"):
        if listed in values:
            values[listed] = tuple(name for text in values[listed] for name in _expand(text))
    if "when" in values:
        values["when"] = tuple((name, tuple(texts)) for name, texts in values["when"].items())
    if "repeat" not in entry:
        return [EventSpec(**values)]
    low, high = entry["repeat"]
    return [EventSpec(**{key: _filled(value, n) for key, value in values.items()}) for n in range(low, high + 1)]


def _filled(value: Any, number: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_filled(item, number) for item in value)
    return value.replace("{n}", str(number)) if isinstance(value, str) else value


def _numbered(events: list[EventSpec], columns: tuple[SourceColumn, ...]) -> tuple[EventSpec, ...]:
    """Events of which those of one kind have positions that follow each other."""
    counts = {column.name: column.count for column in columns}
    used: dict[str, int] = {}
    numbered = []
    for event in events:
        numbered.append(replace(event, first_position=used.get(event.kind, 0)))
        used[event.kind] = used.get(event.kind, 0) + sum(counts.get(name, 1) for name in event.codes)
    return tuple(numbered)


def _expand(text: str) -> list[str]:
    """``CAUSE_{0-2}`` as its names."""
    found = re.search(r"\{(\d+)-(\d+)\}", text)
    if not found:
        return [text]
    return [text.replace(found[0], str(n)) for n in range(int(found[1]), int(found[2]) + 1)]


def _faults(found: Source) -> list[str]:
    names = [column.name for column in found.columns]
    by_name = {column.name: column for column in found.columns}
    faults = [f"column {name} is declared twice" for name in sorted({n for n in names if names.count(n) > 1})]
    fields = [column.field for column in found.columns]
    faults += [f"{field} would name two columns of {found.table}" for field in sorted({f for f in fields if fields.count(f) > 1})]
    faults += [f"column name {field} is taken" for field in fields if field in OWN_COLUMNS]
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", found.name) or (schemas_dir() / "identifiable" / f"{found.table}.yaml").is_file():
        faults.append(f"the name {found.name} cannot be used: small letters, digits and _, and no table record_{found.name} of our own")
    for column in found.columns:
        faults += [f"column {column.name}: {fault}" for fault in _column_faults(column, by_name)]
    uses = [("row_key", name) for name in found.row_key if name != PERSON] + [("stay_key", name) for name in found.stay_key]
    uses += [("person", name) for name in found.person_columns]
    kinds = vocabulary("event_kind")
    seen: dict[str, bool] = {}
    for event in found.events:
        if event.kind not in kinds:
            faults.append(f"kind {event.kind!r} is not in the vocabulary event_kind")
        # Without a list of codes an event has no position.
        if event.kind in seen and not (event.codes and seen[event.kind]):
            faults.append(f"kind {event.kind} is emitted twice: the events of a row are told apart by kind and position")
        seen[event.kind] = bool(event.codes)
        if event.uncoded and not event.code:
            faults.append(f"{event.kind}: uncoded goes with code")
        uses += [(f"{event.kind} when", name) for name, _ in event.when]
        wanted = {
            "time": ((event.time,), ("time",)),
            "date": (event.date, ("date", "datetime")),
            "end_date": ((event.end_date,), ("date", "datetime")),
            "codes": (event.codes, ("code", "codes")),
            "code": (event.code, ("code",)),
            "measure": ((event.measure,), ("measure",)),
            "value": ((event.value,), ("number", "integer")),
            "comparator": ((event.comparator,), ("comparator",)),
            "unit": ((event.unit,), ("unit",)),
            "status": ((event.status,), ("map",)),
        }
        for use, (columns, types) in wanted.items():
            given = [name for name in columns if name is not None]
            uses += [(f"{event.kind} {use}", name) for name in given]
            faults += [
                f"{event.kind} {use}: column {name} is not of type {' or '.join(types)}"
                for name in given
                if name in by_name and by_name[name].type not in types
            ]
    for spec in found.tables:
        uses += [(spec.table, name) for name in (*spec.columns.values(), spec.latest_by) if name != PERSON]
        declared = table("identifiable", spec.table)
        faults += [f"{spec.table}: column {name} is not declared" for name in spec.columns if name not in declared.by_name]
        if set(spec.one_per) | {"scheme"} < set(declared.key):
            faults.append(f"{spec.table}: one_per must hold the table's key")
        if spec.current:
            uses.append((f"{spec.table} current", spec.current["open"]))
    faults += [f"{use}: column {name} is not declared" for use, name in uses if name not in by_name]
    if not found.events and not found.tables:
        faults.append("nothing is emitted")
    return faults


def _column_faults(column: SourceColumn, by_name: dict[str, SourceColumn]) -> list[str]:
    faults = []
    if column.type not in TYPES:
        faults.append(f"type {column.type!r} is not one of {', '.join(TYPES)}")
    if column.needs not in (None, "value", "column"):
        faults.append("needs must be value or column")
    if column.on_error not in (None, "null"):
        faults.append('on_error must be "null"')
    if column.on_error and column.needs == "value":
        faults.append("a needed value cannot have on_error")
    if column.not_before is not None and column.not_before not in by_name:
        faults.append(f"not_before: column {column.not_before} is not declared")
    needed = {
        "date": "formats",
        "datetime": "formats",
        "time": "formats",
        "map": "values",
        "code": "systems",
        "codes": "systems",
        "identity": "scheme",
    }
    if column.type in needed and not getattr(column, needed[column.type]):
        faults.append(f"type {column.type} needs {needed[column.type]}")
    try:
        for format_ in column.formats:
            dates.layout(format_, dates.TIME if column.type == "time" else dates.DAY)
        for system in column.systems:
            codes.system(system)
        if column.scheme:
            identity.scheme(column.scheme)
    except ConfigError as error:
        faults.append(str(error))
    if column.type == "codes" and not column.width:
        faults.append("type codes needs width")
    return faults


def snake_case(name: str) -> str:
    """A file's column name as a table's.

    Examples
    --------
    >>> snake_case("PI BNF Item Code"), snake_case("SampleDate"), snake_case("LINK_NO")
    ('pi_bnf_item_code', 'sample_date', 'link_no')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def raw_table(name: str) -> dict[str, Any]:
    """The declaration of ``record_<source>``, in the form of the files of schemas/identifiable/."""
    return raw_table_of(source(name))


def raw_table_of(found: Source) -> dict[str, Any]:
    """The same of a source that may not lie in schemas/."""

    def text(name: str, meaning: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "type": "string", "meaning": meaning, **more}

    own = [
        text("person_id", "Person identifier of the row, normalised; null where it holds none."),
        text("row_key", "Hash of source and row key; null where the row could not be read."),
        {
            "name": "row_number",
            "type": "long",
            "nullable": False,
            "meaning": "Number of the row in its file, 1 is the first after the header.",
        },
        {
            "name": "content_hash",
            "type": "long",
            "nullable": False,
            "meaning": "Hash of all columns: rows of one key that differ are corrections.",
        },
        text("fault", "Reason why the row is in quarantine; null where it is not."),
        text("fault_column", "Column of the file that is at fault, where it is one."),
        {
            "name": "nulled",
            "type": "long",
            "nullable": False,
            "meaning": "Values that were left out because they could not be read and the row stands without.",
        },
        text("month", "Month of the first day that the row tells, YYYY-MM; null where it tells none."),
        text("file_sha256", "Extract file the row came from.", nullable=False),
    ]
    columns = [text(column.field, column.meaning) for column in found.columns]
    meaning = f"Rows of source {found.name} as they came, every column as text. {found.meaning}"
    return {"table": found.table, "meaning": meaning, "key": ["file_sha256", "row_number"], "columns": [*columns, *own]}


def schema_version(name: str) -> str:
    """Hash over all that decides what a row of a source becomes: its declaration, those it refers to and the code that reads them."""
    package = Path(__file__).resolve().parent
    read = [
        f"records/{name}.yaml",
        "codes.yaml",
        "units.yaml",
        *(f"identity/{p.name}" for p in (schemas_dir() / "identity").glob("*.yaml")),
    ]
    files = [*(schemas_dir() / path for path in read), *package.glob("*.py"), Path(identity.__file__)]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
