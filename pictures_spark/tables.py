"""Read, append, merge and replace Delta tables by their declaration in schemas/.

The writer refuses any column that is not declared and, outside the identifiable zone, any value outside a column's vocabulary or range:
the check is part of the write's own plan (``raise_error``), so it costs no second pass. Runs on the driver; work is Spark's.
"""

import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pictures_spark.errors import ChecksFailedError, InputError
from pictures_spark.schema import Column, Table, table
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

    from pictures_spark.datafiles import DataFile


def exists(spark: "SparkSession", zones: Zones, zone: str, name: str) -> bool:
    """Whether a table has been written."""
    from delta.tables import DeltaTable

    return DeltaTable.isDeltaTable(spark, zones.table(zone, name))


def read(spark: "SparkSession", zones: Zones, zone: str, name: str, version: int | None = None) -> "DataFrame":
    """A table, at a Delta version where one is given; an empty frame of the declared type where it was never written."""
    declared = table(zone, name)
    if not exists(spark, zones, zone, name):
        if version is not None:
            raise InputError(f"table {zone}.{name} has no version {version}: it was never written")
        return spark.createDataFrame([], declared.spark_type())
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return reader.load(zones.table(zone, name))


def version(spark: "SparkSession", zones: Zones, zone: str, name: str) -> int | None:
    """The table's newest Delta version; None where it was never written."""
    if not exists(spark, zones, zone, name):
        return None
    return int(_snapshot(spark, zones.table(zone, name)).version())


def last_write(spark: "SparkSession", zones: Zones, zone: str, name: str) -> tuple[int, int]:
    """Newest version of a table and how many rows the commit that made it wrote, as Delta's log says; no data is read."""
    snapshot = _snapshot(spark, zones.table(zone, name))
    log = snapshot.deltaLog()
    jvm = spark._jvm
    commit = jvm.org.apache.hadoop.fs.Path(log.logPath(), f"{snapshot.version():020d}.json")  # type: ignore[union-attr]
    stream = commit.getFileSystem(log.newDeltaHadoopConf()).open(commit)
    try:
        # Of a commit's actions this one comes first; the others may be as many as the table has files.
        first = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(stream, "UTF-8")).readLine()  # type: ignore[union-attr]
    finally:
        stream.close()
    return int(snapshot.version()), int(json.loads(first)["commitInfo"]["operationMetrics"]["numOutputRows"])


def _snapshot(spark: "SparkSession", location: str) -> Any:
    """The JVM's view of a Delta table as it is now. Its log is listed; the history, which says the same, is a Spark job each time."""
    from delta.tables import DeltaTable

    none = spark._jvm.scala.Option.empty()  # type: ignore[union-attr]
    return DeltaTable.forPath(spark, location)._jdt.deltaLog().update(False, none, none)


def replace(df: "DataFrame", zones: Zones, zone: str, name: str) -> None:
    """Replace the content of a table; earlier versions stay readable."""
    declared = table(zone, name)
    rows = checked(df, declared)
    if declared.layout is not None and declared.layout.order:
        rows = rows.sortWithinPartitions(*declared.layout.order)
    _write(
        rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true"),
        zones.table(zone, name, "write"),
        declared,
    )


def refresh(df: "DataFrame", zones: Zones, zone: str, name: str) -> dict[str, int]:
    """Make a table's content that of a frame of all its rows, and leave it untouched where it is that already.

    A row that is equal but for ``run_id`` keeps the ``run_id`` of the run that first wrote it.

    Returns
    -------
    rows ``written`` (new or changed), ``unchanged`` and ``removed``.
    """
    from pyspark.sql import functions as F

    declared = table(zone, name)
    if not exists(df.sparkSession, zones, zone, name):
        replace(df, zones, zone, name)
        return {"written": last_write(df.sparkSession, zones, zone, name)[1], "unchanged": 0, "removed": 0}
    others = [n for n in declared.names if n not in declared.key and n != "run_id"]
    old = read(df.sparkSession, zones, zone, name).select(
        *[F.col(k).alias(f"k_{k}") for k in declared.key], F.struct(*others).alias("old"), F.col("run_id").alias("old_run")
    )
    new = checked(df, declared).persist()
    try:
        on = reduce(lambda left, right: left & right, [F.col(k).eqNullSafe(F.col(f"k_{k}")) for k in declared.key])
        equal = F.struct(*others).eqNullSafe(F.col("old"))
        pairs = new.join(old, on, "full").withColumn("state", F.when(F.col("run_id").isNull(), "removed").when(equal, "unchanged"))
        counts = {row["state"] or "written": int(row["count"]) for row in pairs.groupBy("state").count().collect()}
        result = {state: counts.get(state, 0) for state in ("written", "unchanged", "removed")}
        if result["written"] or result["removed"]:
            kept = F.when(F.col("state") == "unchanged", F.col("old_run")).otherwise(F.col("run_id"))
            rows = pairs.where(~F.coalesce(F.col("state") == "removed", F.lit(False))).withColumn("run_id", kept).select(*declared.names)
            replace(rows, zones, zone, name)
    finally:
        new.unpersist()
    return result


def append(df: "DataFrame", zones: Zones, zone: str, name: str, txn: str | None = None) -> None:
    """Append rows, exactly once per ``txn``: a second append under the same name adds nothing.

    ``txn`` becomes Delta's ``txnAppId`` with version 1. Delta silently skips every version <= the last one of an app id, so the name must
    be new for other rows (run + batch), and the caller counts the rows against its plan.
    """
    declared = table(zone, name)
    writer = checked(df, declared).write.format("delta").mode("append")
    if not exists(df.sparkSession, zones, zone, name):
        writer = writer.options(**_layout(declared))
    if txn is not None:
        writer = writer.option("txnAppId", f"{name}-{txn}").option("txnVersion", 1)
    _write(writer, zones.table(zone, name, "write"), declared)


def mounted(spark: "SparkSession", zones: Zones, zone: str, name: str) -> bool:
    """Whether a table lies on a mounted path, where workers can write its files themselves (`pictures_spark.datafiles`)."""
    location = spark._jvm.org.apache.hadoop.fs.Path(zones.table(zone, name))  # type: ignore[union-attr]
    return str(location.getFileSystem(spark._jsc.hadoopConfiguration()).getScheme()) == "file"


def commit(spark: "SparkSession", zones: Zones, zone: str, name: str, files: "list[DataFile]") -> None:
    """Append files that workers have written into a table's folder: all of them or none.

    Raises
    ------
    ChecksFailedError
        The table has other columns than are declared.
    """
    declared = table(zone, name)
    if not exists(spark, zones, zone, name):
        append(spark.createDataFrame([], declared.spark_type()), zones, zone, name)
    wanted = [(field.name, field.dataType) for field in declared.spark_type().fields]
    if [(field.name, field.dataType) for field in read(spark, zones, zone, name).schema.fields] != wanted:
        raise ChecksFailedError(f"table {zone}.{name} was written with other columns than are declared; it must be made anew")
    jvm: Any = spark._jvm
    now = int(time.time() * 1000)
    actions = [
        jvm.org.apache.spark.sql.delta.actions.Action.fromJson(
            json.dumps(
                {
                    "add": {
                        "path": file.name,
                        "partitionValues": {},
                        "size": file.size,
                        "modificationTime": now,
                        "dataChange": True,
                        "stats": file.statistics,
                    }
                }
            )
        )
        for file in files
    ]
    none = jvm.scala.Option.empty()
    written = jvm.org.apache.spark.sql.delta.DeltaOperations.Write(jvm.org.apache.spark.sql.SaveMode.Append, *[none] * 8)
    log = _snapshot(spark, zones.table(zone, name, "write")).deltaLog()
    log.startTransaction(none, none).commit(jvm.PythonUtils.toSeq(actions), written)


def _layout(declared: Table) -> dict[str, str]:
    """What the first write of a table with a layout says of it; `pictures_spark.maintain` adds the clustering.

    Deletion vectors let a change of few rows mark them and write the new ones, instead of writing whole files anew.
    """
    if declared.layout is None:
        return {}
    statistics = {"delta.dataSkippingStatsColumns": ",".join(declared.layout.statistics)} if declared.layout.statistics else {}
    return {"delta.enableDeletionVectors": "true", **statistics}


def within(column: str, numbers: Iterable[int], limit: int = 200) -> "SparkColumn":
    """Condition that holds for rows whose ``column`` is among ``numbers``, and for few others; file statistics skip on it.

    A row without a number always meets it. The plan of a query shows the numbers, so they must tell nothing.
    """
    from pyspark.sql import functions as F

    value = F.col(column)
    return reduce(lambda left, right: left | right, [value.between(*span) for span in spans(numbers, limit)], value.isNull())


def spans(numbers: Iterable[int], limit: int) -> list[tuple[int, int]]:
    """At most ``limit`` closed ranges that hold all ``numbers``: the widest gaps stay between them.

    Examples
    --------
    >>> spans([9, 1, 2, 5], 3), spans([9, 1, 2, 5], 2)
    ([(1, 2), (5, 5), (9, 9)], [(1, 5), (9, 9)])
    """
    ordered = sorted(set(numbers))
    gaps = sorted(((after - before, after) for before, after in pairwise(ordered) if after - before > 1), reverse=True)
    starts = sorted(after for _, after in gaps[: limit - 1])
    found, at = [], 0
    for start in starts:
        end = bisect_left(ordered, start)
        found.append((ordered[at], ordered[end - 1]))
        at = end
    return [*found, (ordered[at], ordered[-1])] if ordered else []


def merge(
    df: "DataFrame",
    zones: Zones,
    zone: str,
    name: str,
    keep: tuple[str, ...] = (),
    add: tuple[str, ...] = (),
    shelves: Iterable[int] | None = None,
) -> None:
    """Insert new keys and update known ones; rows that are equal but for ``run_id`` are left untouched.

    Parameters
    ----------
    keep : columns whose first value stays (``first_seen``).
    add : numeric columns that grow by the new value (``attempts``), once per run.
    shelves : the only shelves that may hold a row with one of these keys; files of others are not opened.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    declared = table(zone, name)
    spark = df.sparkSession
    if not exists(spark, zones, zone, name):
        append(df, zones, zone, name)
        return
    target = DeltaTable.forPath(spark, zones.table(zone, name, "write"))
    on = F.expr(" AND ".join(f"t.`{k}` <=> s.`{k}`" for k in declared.key))
    if shelves is not None:
        on &= within("t.shelf", shelves)
    free = [n for n in declared.names if n not in declared.key and n not in keep]
    # A run that is finished by another invocation under its own id counts once.
    grown = "t.`{n}` + CASE WHEN t.run_id = s.run_id THEN 0 ELSE s.`{n}` END"
    update: dict[str, str | SparkColumn] = {f"`{n}`": (grown.format(n=n) if n in add else f"s.`{n}`") for n in free}
    compared = [n for n in free if n != "run_id" and n not in add]
    changed = " OR ".join([f"NOT (t.`{n}` <=> s.`{n}`)" for n in compared] + (["true"] if add else [])) or "false"
    _run(
        lambda: (
            target.alias("t")
            .merge(checked(df, declared).alias("s"), on)
            .whenMatchedUpdate(condition=changed, set=update)
            .whenNotMatchedInsertAll()
            .execute()
        ),
        declared,
    )


def remove(keys: "DataFrame", zones: Zones, zone: str, name: str) -> None:
    """Delete the rows whose key is among ``keys``, which has the key columns only."""
    from delta.tables import DeltaTable

    declared = table(zone, name)
    target = DeltaTable.forPath(keys.sparkSession, zones.table(zone, name, "write"))
    on = " AND ".join(f"t.`{k}` <=> s.`{k}`" for k in declared.key)
    target.alias("t").merge(keys.distinct().alias("s"), on).whenMatchedDelete().execute()


def supersede(df: "DataFrame", zones: Zones, zone: str, name: str, by: tuple[str, ...]) -> None:
    """Append rows and delete, in the same commit, all older rows whose ``by`` columns equal those of a new row.

    For tables in which one thing (``by``) has several rows that are only right together. Doing it again changes nothing but the version.
    """
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    declared = table(zone, name)
    new = checked(df, declared).withColumn("gone", F.lit(False))
    old = df.select(*by).distinct().withColumn("gone", F.lit(True))
    target = DeltaTable.forPath(df.sparkSession, zones.table(zone, name, "write"))
    same = " AND ".join(f"t.`{column}` <=> s.`{column}`" for column in by)
    _run(
        lambda: (
            target.alias("t")
            .merge(new.unionByName(old, allowMissingColumns=True).alias("s"), f"s.gone AND {same}")
            .whenMatchedDelete()
            .whenNotMatchedInsert(condition="NOT s.gone", values={f"`{n}`": f"s.`{n}`" for n in declared.names})
            .execute()
        ),
        declared,
    )


def fetch(df: "DataFrame", zone: str, name: str) -> "pa.Table":
    """The checked rows of a small table that becomes a file of its own, brought to the driver.

    Raises
    ------
    ChecksFailedError
        As for a write: a column or a value is not as declared.
    """
    declared = table(zone, name)
    rows: list[pa.Table] = []
    _run(lambda: rows.append(checked(df, declared).toArrow()), declared)
    return rows[0]


def checked(df: "DataFrame", declared: Table) -> "DataFrame":
    """The frame with the declared columns in order, cast to their types, with the checks that raise on a bad value.

    Raises
    ------
    ChecksFailedError
        A column is not declared, a declared one is missing, or a type cannot be the declared one.
    """
    from pyspark.sql import functions as F

    found = set(df.columns)
    where = f"table {declared.zone}.{declared.name}"
    extra = sorted(found - set(declared.names))
    if extra:
        raise ChecksFailedError(f"{where} refuses undeclared column {', '.join(extra)}: declare it in schemas/ or leave it out")
    missing = sorted(set(declared.names) - found)
    if missing:
        raise ChecksFailedError(f"{where} needs column {', '.join(missing)}")
    wanted = {f.name: f.dataType for f in declared.spark_type().fields}
    wrong = [
        f"{f.name} is {f.dataType.simpleString()}, not {wanted[f.name].simpleString()}"
        for f in df.schema.fields
        if f.dataType.simpleString() not in (wanted[f.name].simpleString(), "void")
        and not (f.dataType.typeName() in ("integer", "short", "byte") and wanted[f.name].typeName() == "long")
        and not (f.dataType.typeName() == "float" and wanted[f.name].typeName() == "double")
    ]
    if wrong:
        raise ChecksFailedError(f"{where}: {'; '.join(wrong)}")
    columns = []
    for column in declared.columns:
        value = F.col(f"`{column.name}`").cast(wanted[column.name])
        rules = _rules(column, value, strict=declared.zone != "identifiable")
        # One flat CASE per column: nesting them would double the expression with every rule.
        raises = [
            (~F.coalesce(holds, F.lit(False)), F.raise_error(F.lit(f"{where}: column {column.name} has a value that is {says}")))
            for says, holds in rules
        ]
        if raises:
            (first, error), *more = raises
            value = reduce(lambda case, rule: case.when(*rule), more, F.when(first, error.cast(wanted[column.name]))).otherwise(value)
        columns.append(value.alias(column.name, metadata={"comment": column.meaning}))
    return df.select(*columns)


def _rules(column: Column, value: "SparkColumn", strict: bool) -> "list[tuple[str, SparkColumn]]":
    """What must hold of a column: (what is wrong otherwise, condition)."""
    from pyspark.sql import functions as F

    rules = []
    if not column.nullable:
        rules.append(("missing", value.isNotNull()))
    if not strict:
        return rules
    for says, holds in _limits(column):
        every = F.forall(value, holds) if column.type.startswith("array") else holds(value)
        rules.append((says, value.isNull() | every))
    return rules


def _limits(column: Column) -> "list[tuple[str, Callable[[SparkColumn], SparkColumn]]]":
    """What must hold of one value, or of each element of an array: (what is wrong otherwise, condition)."""
    limits: list[tuple[str, Callable[[SparkColumn], SparkColumn]]] = []
    if column.allowed is not None:
        allowed = list(column.allowed)
        limits.append(("outside its vocabulary", lambda v: v.isin(allowed)))
    if column.range is not None:
        low, high = column.range
        limits.append(("outside its range", lambda v: v.between(low, high)))
    if column.shape is not None:
        shape = f"\\A(?:{column.shape})\\z"
        limits.append(("not of its pattern", lambda v: v.rlike(shape)))
    return limits


def accepts(column: Column, value: "SparkColumn") -> "SparkColumn":
    """Whether one value (of an array: one element) lies inside the column's vocabulary, range and pattern; null stays null."""
    from pyspark.sql import functions as F

    return reduce(lambda left, right: left & right, (holds(value) for _, holds in _limits(column)), F.lit(True))


def _write(writer: object, location: str, declared: Table) -> None:
    _run(lambda: writer.save(location), declared)  # type: ignore[attr-defined]


def _run(action: object, declared: Table) -> None:
    try:
        action()  # type: ignore[operator]
    except Exception as error:
        message = _raised(error, f"table {declared.zone}.{declared.name}: column ")
        if message is None:
            raise
        raise ChecksFailedError(message) from None


def _raised(error: Exception, start: str) -> str | None:
    """Our own ``raise_error`` sentence out of Spark's long message, where it is one."""
    text = str(error)
    at = text.find(start)
    if at < 0 or "USER_RAISED_EXCEPTION" not in text:
        return None
    end = min((i for i in (text.find(mark, at) for mark in ("\n", " SQLSTATE")) if i > 0), default=len(text))
    return text[at:end].strip()


def union(frames: "list[DataFrame]") -> "DataFrame":
    """Union by name of one or more frames."""
    return reduce(lambda left, right: left.unionByName(right), frames)
