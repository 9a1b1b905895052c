"""The embedded reader: DuckDB on the Delta tables of the de-identified zone, at the versions of one release.

Runs on the driver, reads the de-identified zone only, and writes nothing but its own overflow into that zone's scratch folder, where the
role may write there. Tables are read through Delta's log, never as bare Parquet, so deleted rows stay deleted.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from pictures_spark.cohort.attrition import Answer, Cell, content_hash, levels
from pictures_spark.cohort.compile import PREFIX, Plan, Saved
from pictures_spark.errors import InputError, ZoneViolationError
from pictures_spark.schema import DUCKDB_TYPES, table
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONE = "deidentified"
# Frozen cohorts are no part of a release; the rows of one never change.
UNPINNED = frozenset({"cohort_member"})
_SAID = "said"
# Levels above a unit that its members are counted at.
LEVELS = {"patient": (), "study": ("patient",), "series": ("patient", "study"), "image": ("patient", "study")}


@dataclass(frozen=True)
class Release:
    """What is published: its name and the Delta version of each table that has been written."""

    name: str
    versions: Mapping[str, int]


@contextmanager
def reader(zones: Zones) -> "Iterator[duckdb.DuckDBPyConnection]":
    """A connection that can read the tables of the de-identified zone and no other file.

    Raises
    ------
    InputError
        What is asked of it does not fit into memory, and the role may not let it overflow into the zone.
    """
    tables = zones.path(ZONE, "tables")
    allowed = [str(tables)]
    settings: dict[str, str | bool | int | float | list[str]] = {
        # No extension is looked for anywhere: the one that is needed is loaded from its wheel, by path.
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_persistent_secrets": "false",
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        connection.load_extension(str(_extension()))
        scratch = _scratch(zones)
        if scratch is not None:
            allowed.append(str(scratch))
        connection.execute("SET temp_directory = $1", [str(scratch) if scratch is not None else ""])
        connection.execute("SET allowed_directories = $1", [allowed])
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    except duckdb.OutOfMemoryException:
        (limit,) = connection.execute("SELECT current_setting('memory_limit')").fetchone() or ("",)
        raise InputError(
            f"the tables that this question needs do not fit into the {limit} of memory that may be used: ask on a machine with more, "
            "or freeze the cohort with `pictures cohort freeze`, which Spark answers"
        ) from None
    finally:
        connection.close()


def _extension() -> Path:
    import duckdb_extension_delta

    folder = Path(duckdb_extension_delta.__file__).parent / "extensions" / f"v{duckdb.__version__}"
    path = folder / "delta.duckdb_extension"
    if not path.is_file():
        raise InputError(f"duckdb {duckdb.__version__} needs the delta extension of the same version: install the pinned requirements")
    return path


def _scratch(zones: Zones) -> Path | None:
    try:
        path = zones.path(ZONE, ".scratch", "duckdb", mode="write")
    except ZoneViolationError:
        return None
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_written(zones: Zones, name: str) -> bool:
    """Whether a table of the de-identified zone has been written."""
    return (zones.path(ZONE, "tables", name) / "_delta_log").is_dir()


def newest_release(connection: duckdb.DuckDBPyConnection, zones: Zones) -> Release | None:
    """The release published last; None where nothing has been published."""
    if not is_written(zones, "release"):
        return None
    rows = latest(connection, zones, "release").order("published DESC, release DESC").limit(1)
    found = rows.project("release, table_versions").fetchone()
    if found is None:
        return None
    versions = {name: int(version) for name, version in json.loads(found[1]).items() if version is not None}
    return Release(found[0], versions)


def latest(connection: duckdb.DuckDBPyConnection, zones: Zones, name: str) -> duckdb.DuckDBPyRelation:
    """A table as it is now, for what is not part of a release (releases and frozen cohorts)."""
    return connection.from_query(f"SELECT * FROM delta_scan({quoted(str(zones.path(ZONE, 'tables', name)))})")


def pin(connection: duckdb.DuckDBPyConnection, zones: Zones, release: Release, names: tuple[str, ...]) -> None:
    """Make the tables of a plan readable under their names with `PREFIX`, at the versions of the release.

    A table that the release does not have is empty.

    Raises
    ------
    InputError
        A version is gone, or a table was written by a version with other columns.
    """
    for name in names:
        declared = table(ZONE, name)
        if name in UNPINNED:
            connection.execute(f"CREATE VIEW {PREFIX}{name} AS {latest(connection, zones, name).sql_query()}")
            continue
        if name not in release.versions:
            empty = ", ".join(f'NULL::{DUCKDB_TYPES[c.type]} AS "{c.name}"' for c in declared.columns)
            connection.execute(f"CREATE VIEW {PREFIX}{name} AS SELECT {empty} WHERE false")
            continue
        version = release.versions[name]
        location = quoted(str(zones.path(ZONE, "tables", name)))
        columns = ", ".join(f'"{c.name}"' for c in declared.columns)
        try:
            connection.execute(f"ATTACH {location} AS pinned_{name} (TYPE delta, VERSION {version}, PIN_SNAPSHOT)")
            connection.execute(f"CREATE VIEW {PREFIX}{name} AS SELECT {columns} FROM pinned_{name}.main.pinned_{name}")
        except duckdb.BinderException:
            raise InputError(
                f"table {name} of release {release.name} lacks columns of this version: run `pictures publish` again"
            ) from None
        except duckdb.Error:
            raise InputError(
                f"version {version} of table {name}, which release {release.name} is made of, cannot be read any more"
            ) from None


def kinds_held(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Event kinds that some published record source can hold. Needs `pin` of source_cover."""
    return {row[0] for row in connection.execute(f"SELECT DISTINCT unnest(kinds) FROM {PREFIX}source_cover").fetchall()}


def untouched(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[str]:
    """Ids of the event steps whose window overlaps the cover of its sources for no unit at all."""
    if plan.touching is None:
        return []
    result = connection.execute(plan.touching.sql("duckdb"))
    names = [column[0] for column in result.description or ()]
    counts = dict(zip(names, result.fetchone() or (), strict=True))
    return [plan.steps[int(name.removeprefix("step_"))].id for name in names[1:] if counts["units"] and not counts[name]]


def answer(connection: duckdb.DuckDBPyConnection, plan: Plan) -> Answer:
    """Answer a plan whose tables are there under their names with `PREFIX`."""
    said = {_SAID: f"pictures_{_SAID}"} if _SAID in plan.relations else {}
    # Known by its true size: DuckDB guesses that it has more rows than there are units, and would join the many to the few.
    for name, kept in said.items():
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {kept} AS {plan.reading({}, name).sql('duckdb')}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE flags AS {plan.reading(said).sql('duckdb')}")
    for kept in said.values():
        connection.execute(f"DROP TABLE {kept}")
    units = connection.execute(units_sql(plan, "flags")).fetchall()
    patients = connection.execute(patients_sql("flags")).fetchall()
    ids = connection.execute(f"SELECT unit_id FROM flags WHERE passed = {len(plan.steps) - 1}").fetchall()
    cells = tuple(tuple(Cell(*cell) for cell in cells) for cells in counted(connection, plan))
    return Answer(levels(plan.steps, units, patients), content_hash(row[0] for row in ids), cells)


def shown(connection: duckdb.DuckDBPyConnection, plan: Plan, members: bool = True) -> dict[str, tuple[Any, ...]]:
    """What the outputs show of each member, or of every unit, by unit id. Needs `answer`."""
    if plan.shown is None or not plan.columns:
        return {}
    where = f" WHERE unit_id IN (SELECT unit_id FROM flags WHERE passed = {plan.last})" if members else ""
    columns = ", ".join(["unit_id", *plan.columns])
    rows = connection.execute(f"SELECT {columns} FROM ({plan.shown.sql('duckdb')}){where}").fetchall()
    return {row[0]: tuple(row[1:]) for row in rows}


def counted(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[list[tuple[tuple[Any, ...], tuple[int, ...]]]]:
    """Of each breakdown the values of its columns, and counts of members: see `counted_sql`. Needs `answer`."""
    if plan.shown is None or not plan.keys:
        return []
    connection.execute(f"CREATE OR REPLACE TEMP TABLE shown AS {plan.shown.sql('duckdb')}")
    found = []
    for keys in plan.keys:
        rows = connection.execute(counted_sql(plan, keys, "shown", "flags")).fetchall()
        found.append([(tuple(row[: len(keys)]), tuple(row[len(keys) :])) for row in rows])
    return found


def counted_sql(plan: Plan, keys: Sequence[str], shown: str, flags: str) -> str:
    """Members by the values of some columns: units, then patients and studies that they belong to, of series also images; missing last."""
    counts = ["COUNT(*)"] + [f"COUNT(DISTINCT {shown}.{level}_id)" for level in LEVELS[plan.unit]]
    counts += [f"CAST(COALESCE(SUM({shown}.image_count), 0) AS BIGINT)"] if plan.unit == "series" else []
    order = [f"CASE WHEN {key} IS NULL THEN 1 ELSE 0 END, {key}" for key in keys]
    return (
        f"SELECT {', '.join([*keys, *counts])} FROM {shown} JOIN {flags} ON {flags}.unit_id = {shown}.unit_id "
        f"WHERE {flags}.passed = {plan.last} GROUP BY {', '.join(keys)} ORDER BY {', '.join(order)}"
    )


def saved(connection: duckdb.DuckDBPyConnection, zones: Zones) -> dict[str, tuple[Saved, str]]:
    """Every frozen cohort by name: the newest freeze of it, and the release that it was frozen on."""
    if not is_written(zones, "cohort_run"):
        return {}
    rows = latest(connection, zones, "cohort_run").order("frozen, cohort_run_id")
    found = rows.project("cohort_id, cohort_run_id, unit, release").fetchall()
    return {name: (Saved(run_id, unit), release) for name, run_id, unit, release in found}


def units_sql(plan: Plan, flags: str) -> str:
    """How far units got, and how many of them are unknown at each step; the same words on every engine."""
    unknowns = [f"SUM(CASE WHEN (unknowns & {1 << index}) <> 0 THEN 1 ELSE 0 END)" for index in range(1, len(plan.steps))]
    return f"SELECT {', '.join(['passed', 'COUNT(*)', *unknowns])} FROM {flags} GROUP BY passed"


def patients_sql(flags: str) -> str:
    """How far the furthest unit of each linked patient got; the same words on every engine."""
    furthest = f"SELECT patient_id, MAX(passed) AS passed FROM {flags} WHERE patient_id IS NOT NULL GROUP BY patient_id"
    return f"SELECT passed, COUNT(*) FROM ({furthest}) AS furthest GROUP BY passed"


def quoted(value: str) -> str:
    """A text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"
