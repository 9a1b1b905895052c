"""The embedded reader: DuckDB on the Delta tables of the de-identified zone, at the versions of one release.

Runs on the driver, reads the de-identified zone only, and writes nothing but its own overflow into that zone's scratch folder, where the
role may write there. Tables are read through Delta's log, never as bare Parquet, so deleted rows stay deleted.
"""

import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from pictures_spark.cohort.attrition import Answer, content_hash, levels
from pictures_spark.cohort.compile import PREFIX, Plan
from pictures_spark.errors import InputError, ZoneViolationError
from pictures_spark.schema import DUCKDB_TYPES, table
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONE = "deidentified"


@dataclass(frozen=True)
class Release:
    """What is published: its name and the Delta version of each table that has been written."""

    name: str
    versions: Mapping[str, int]


@contextmanager
def reader(zones: Zones) -> "Iterator[duckdb.DuckDBPyConnection]":
    """A connection that can read the tables of the de-identified zone and no other file."""
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
    connection.execute(f"CREATE OR REPLACE TEMP TABLE flags AS {plan.sql('duckdb')}")
    units = connection.execute(units_sql(plan, "flags")).fetchall()
    patients = connection.execute(patients_sql("flags")).fetchall()
    ids = connection.execute(f"SELECT unit_id FROM flags WHERE passed = {len(plan.steps) - 1}").fetchall()
    return Answer(levels(plan, units, patients), content_hash(row[0] for row in ids))


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
