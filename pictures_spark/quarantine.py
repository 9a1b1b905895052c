"""Quarantine: what could not be used, where it is, and why (identifiable zone, driver only).

Objects are listed and shown; tried again though they have not changed; or waived, so that those that nobody can mend do not stop the job.
Reason codes are declared in schemas/: `reasons` brings them together.
"""

import getpass
from functools import cache
from typing import TYPE_CHECKING

from pictures_spark import tables
from pictures_spark.config import Config
from pictures_spark.errors import ConfigError
from pictures_spark.report import utc_now
from pictures_spark.resources import load_schema
from pictures_spark.session import open_session
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ZONE, _TABLE = "identifiable", "quarantine"


@cache
def reasons() -> tuple[tuple[str, str, str, bool], ...]:
    """Every declared reason: (job, code, meaning, whether the storage may be at fault)."""
    declared = load_schema("quarantine_reasons.yaml")
    found = [(job, code, r["meaning"], r["storage"]) for job, codes in declared.items() for code, r in codes.items()]
    for codes in load_schema("pixels/reasons.yaml").values():
        found += [("pixels", code, meaning, False) for code, meaning in codes.items()]
    for codes in load_schema("record_reasons.yaml").values():
        found += [("records", code, f"{meaning[0].upper()}{meaning[1:]}.", False) for code, meaning in codes.items()]
    return tuple(found)


def print_counts(config: Config) -> None:
    """Print how many objects are held by job and reason, in how many attempts at most, and how many of them are waived or to be retried."""
    from pyspark.sql import functions as F

    rows = _read(config)[1].groupBy("job", "reason")
    counted = rows.agg(
        F.count("*").alias("objects"),
        F.max("attempts").alias("attempts"),
        F.count("waived_at").alias("waived"),
        F.count_if(F.col("retry")).alias("retry"),
    )
    lines: list[tuple[str, ...]] = [("job", "reason", "objects", "waived", "to retry", "most attempts")]
    found = counted.orderBy("job", "reason").collect()
    lines += [(r.job, r.reason, *(f"{n:,}" for n in (r.objects, r.waived, r.retry, r.attempts))) for r in found]
    total = (sum(row.objects for row in found), sum(row.waived for row in found), sum(row.retry for row in found))
    lines.append(("total", "", *(f"{n:,}" for n in total), ""))
    left, middle = (max(len(line[column]) for line in lines) for column in (0, 1))
    print("\n".join(f"  {job:<{left}}  {reason:<{middle}}" + "".join(f"  {n:>13}" for n in rest) for job, reason, *rest in lines))


def show(config: Config, object_id: str) -> None:
    """Print the rows of one object; they may name a path, so this is printed nowhere else.

    Raises
    ------
    ConfigError
        The object is not in quarantine.
    """
    rows = _read(config)[1]
    found = rows.where(rows.object_id == object_id).orderBy("job").collect()
    if not found:
        raise ConfigError(_NO_OBJECT)
    for row in found:
        print("\n".join(f"{name}: {value}" for name, value in row.asDict().items()))


def retry(config: Config, object_id: str | None = None, reason: str | None = None) -> int:
    """Have the next run of catalogue read objects again though they have not changed; all of its objects where none is named.

    Returns
    -------
    How many objects the next run will try, those asked for earlier included.

    Raises
    ------
    ConfigError
        No object of catalogue in quarantine has that id or reason; the other jobs try again by themselves when their input changes.
    """
    from pyspark.sql import functions as F

    zones, rows = _read(config)
    mine = _named(rows.where("job = 'catalogue'"), object_id, reason)
    unasked = mine.where("retry IS NULL").withColumn("retry", F.lit(True))
    tables.merge(unasked, zones, _ZONE, _TABLE)
    asked = _read(config)[1].where("job = 'catalogue' AND retry").count()
    print(f"quarantine: the next `pictures catalogue` tries {asked:,} objects again")
    return asked


def waive(config: Config, object_id: str | None, reason: str | None, because: str) -> int:
    """Let objects stay listed without counting towards the limit, until they change; who, when and why are kept.

    A row that is waived already keeps what it says.

    Returns
    -------
    How many objects were waived now.

    Raises
    ------
    ConfigError
        No object in quarantine has that id or reason, or nothing says why.
    """
    from pyspark.sql import functions as F

    if not because.strip():
        raise ConfigError("--because: say why the objects are waived")
    zones, rows = _read(config)
    found = _named(rows, object_id, reason).where("waived_at IS NULL").persist()
    try:
        count = found.count()
        if count:
            said = {"waived_at": F.lit(utc_now()), "waived_by": F.lit(getpass.getuser()), "waived_because": F.lit(because.strip())}
            tables.merge(found.withColumns(said), zones, _ZONE, _TABLE)
    finally:
        found.unpersist()
    print(f"quarantine: {count:,} objects waived")
    return count


_NO_OBJECT = "no such object_id is in quarantine; `pictures quarantine list` counts what is"


def _read(config: Config) -> tuple[Zones, "DataFrame"]:
    zones = Zones(config, "identifiable")
    return zones, tables.read(open_session(config, zones), zones, _ZONE, _TABLE)


def _named(rows: "DataFrame", object_id: str | None, reason: str | None) -> "DataFrame":
    """Rows of one object or one reason, or all.

    Raises
    ------
    ConfigError
        There is none, or the reason is not declared.
    """
    if reason is not None:
        if reason not in {code for _, code, _, _ in reasons()}:
            raise ConfigError(f"no reason is called {reason!r}; docs/quarantine.md lists them")
        rows = rows.where(rows.reason == reason)
    if object_id is not None:
        rows = rows.where(rows.object_id == object_id)
    if rows.isEmpty():
        raise ConfigError(_NO_OBJECT if object_id is not None else "no object is in quarantine for that; see `pictures quarantine list`")
    return rows
