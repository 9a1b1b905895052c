"""Tables of the de-identified zone made directly, without an archive: Arrow batches in, one release out.

Enters: an iterator of (table, Arrow table) pieces, each a few columns of the declared ones; what is left out is null. Leaves: Delta tables
and a row of ``release``, written by Spark with the same checks as publish. Pieces are staged as Parquet below the zone's scratch folder, so
memory holds one piece at a time. Driver makes, executors write.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pictures_spark import tables
from pictures_spark.errors import ChecksFailedError, ConfigError
from pictures_spark.job import Job
from pictures_spark.report import utc_now
from pictures_spark.schema import Column, table

ZONE = "deidentified"
# Key version of ids that no key has made: these people do not exist, or their UIDs are public.
NO_KEY = "none"
Pieces = Iterable[tuple[str, pa.Table]]


def filled(name: str, piece: pa.Table) -> pa.Table:
    """A piece with all declared columns but provenance, in order and of their types; what is not given is null.

    Raises
    ------
    ConfigError
        The piece has a column that the table does not.
    """
    declared = table(ZONE, name).own
    extra = sorted(set(piece.column_names) - {column.name for column in declared})
    if extra:
        raise ConfigError(f"table {ZONE}.{name} has no column {', '.join(extra)}")
    given = set(piece.column_names)
    return pa.table({column.name: _column(piece, column) if column.name in given else _empty(piece, column) for column in declared})


def _column(piece: pa.Table, column: Column) -> pa.ChunkedArray:
    found = piece.column(column.name)
    return found.cast(column.arrow_type) if found.type != column.arrow_type else found


def _empty(piece: pa.Table, column: Column) -> pa.Array:
    return pa.nulls(piece.num_rows, column.arrow_type)


def refuse_others(job: Job, prefix: str) -> None:
    """Refuse to replace what was published from an archive, or by another maker of tables.

    Raises
    ------
    ConfigError
        The zone has releases whose names do not start with ``prefix``.
    """
    if not tables.exists(job.spark, job.zones, ZONE, "release"):
        return
    names = [row[0] for row in job.read(ZONE, "release").select("release").distinct().collect()]
    if any(not name.startswith(f"{prefix}-") for name in names):
        raise ConfigError(
            f"zone {ZONE} holds a release that {job.name} did not make: point zones.{ZONE} of the settings at an empty folder"
        )


def publish(job: Job, pieces: Pieces, prefix: str, fingerprint: str) -> None:
    """Write the pieces as one release, or find that the last one has this fingerprint.

    Every declared name that no piece has is left out of the release, and reads as empty.
    """
    refuse_others(job, prefix)
    releases = job.read(ZONE, "release").select("release", "fingerprint", "counts", "published").collect()
    last = max(releases, key=lambda row: (row["published"], row["release"]), default=None)
    if last is not None and last["fingerprint"] == fingerprint:
        rows: Mapping[str, int] = json.loads(last["counts"])
        job.report.counts = {"seen": sum(rows.values()), "unchanged": sum(rows.values())}
        job.report.details = {"release": last["release"]}
        return
    scratch = job.zones.path(ZONE, ".scratch", job.name, mode="write")
    shutil.rmtree(scratch, ignore_errors=True)
    rows = _stage(job, pieces, scratch)
    release = f"{prefix}-{len(releases) + 1:04d}"
    versions = {name: _write(job, name, scratch / name, release, rows[name]) for name in rows}
    shutil.rmtree(scratch)
    job.report.counts = {"seen": sum(rows.values()), "written": sum(rows.values())}
    job.report.details |= {"release": release, **{f"rows_{name}": count for name, count in rows.items()}}
    job.report.tables = dict(versions)
    row = (
        fingerprint,
        utc_now(),
        json.dumps(versions, sort_keys=True),
        json.dumps(rows, sort_keys=True),
        json.dumps(job.report.counts, sort_keys=True),
        NO_KEY,
        release,
        job.run_id,
    )
    df = job.spark.createDataFrame([row], table(ZONE, "release").spark_type())
    tables.append(df, job.zones, ZONE, "release", txn=job.run_id)


def _stage(job: Job, pieces: Pieces, scratch: Path) -> dict[str, int]:
    """One Parquet file a table and piece."""
    rows: dict[str, int] = {}
    for number, (name, piece) in enumerate(pieces):
        if name not in rows:
            job.say(f"making {name}")
            (scratch / name).mkdir(parents=True)
        rows[name] = rows.get(name, 0) + piece.num_rows
        pq.write_table(filled(name, piece), scratch / name / f"{number:06d}.parquet", compression="lz4")
    return rows


def _write(job: Job, name: str, folder: Path, release: str, rows: int) -> int:
    """Replace a table by its staged pieces; its new version.

    Raises
    ------
    ChecksFailedError
        A value is not as declared, or rows were lost.
    """
    from pyspark.sql import functions as F

    job.say(f"writing {name}: {rows:,} rows")
    staged = job.spark.read.parquet(str(folder)).withColumns({"release": F.lit(release), "run_id": F.lit(job.run_id)})
    tables.replace(staged, job.zones, ZONE, name)
    version, written = tables.last_write(job.spark, job.zones, ZONE, name)
    if written != rows:
        raise ChecksFailedError(f"{job.name}: {rows} rows of {name} were made and {written} written; nothing was released")
    return version
