"""The same plan on Spark: for the freeze, and for tables too large for one machine. Runs on executors; only counts and ids come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pictures_spark.cohort import tally
from pictures_spark.cohort.attrition import Answer, content_hash
from pictures_spark.cohort.compile import PREFIX, Plan
from pictures_spark.cohort.duck import UNPINNED, ZONE, Release
from pictures_spark.cohort.tally import Count
from pictures_spark.errors import ChecksFailedError, InputError
from pictures_spark.job import Job
from pictures_spark.session import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FLAGS = "pictures_cohort_flags"
# Rows of some hundred bytes that every executor can hold beside its work.
_SENT = 500_000
# Tables of a release that are smaller than this together need no plan that is made anew after each exchange of rows: that costs more than
# it saves, since every new plan is compiled. Of larger ones nobody knows beforehand what a step leaves.
_SMALL_BYTES = 8 << 30
_PLANNED_ONCE = {
    "spark.sql.adaptive.enabled": "false",
    # Rows that were brought together by person are so for every key that the person is part of.
    "spark.sql.requireAllClusterKeysForCoPartition": "false",
}


@contextmanager
def flags(job: Job, plan: Plan, release: Release, tables: tuple[str, ...] | None = None) -> "Iterator[DataFrame]":
    """The plan's rows, one per unit, computed once and kept while they are needed; members' rows have ``passed`` of the last step.

    Meanwhile ``tables``, by default those of the plan, are there under their names with `PREFIX`.

    Raises
    ------
    InputError
        A table version of the release is gone.
    """
    from pyspark.errors import PySparkException

    spark = job.spark
    tables = plan.tables if tables is None else tables
    names = [f"{PREFIX}{name}" for name in tables]
    try:
        for name, view in zip(tables, names, strict=True):
            version = release.versions.get(name)
            try:
                known = version is not None or name in UNPINNED
                frame = job.read(ZONE, name, version) if known else _empty(spark, name)
            except PySparkException:
                raise InputError(
                    f"version {version} of table {name}, which release {release.name} is made of, cannot be read any more"
                ) from None
            frame.createOrReplaceTempView(view)
        with computed(spark, plan) as rows:
            rows.createOrReplaceTempView(_FLAGS)
            yield rows
    finally:
        for view in [*names, _FLAGS]:
            spark.catalog.dropTempView(view)


@contextmanager
def computed(spark: "SparkSession", plan: Plan) -> "Iterator[DataFrame]":
    """The plan's rows, computed now, of tables that are there under their names with `PREFIX`.

    What is read more than once is computed once, and what is joined to all units is sent to them where it is small: they are not sorted for
    it. All of it is cut off from the question: a dozen queries ask these rows, and each would analyse the whole of it again, which for a
    match takes minutes and more memory than a driver has.
    """
    from pyspark.sql import functions as F

    given = _views(plan)
    small = _size(spark, plan) < _SMALL_BYTES
    try:
        with settings(spark, _PLANNED_ONCE if small else {}):
            for at, (name, view) in enumerate(given.items()):
                stage = plan.reading(dict(list(given.items())[:at]), name)
                rows = spark.sql(stage.sql("spark")).localCheckpoint(eager=True)
                if name == "said":
                    # Otherwise both sides of a join of as many rows would be sorted, where to hash the one is enough.
                    rows = F.broadcast(rows) if rows.count() <= _SENT else rows.hint("shuffle_hash") if small else rows
                rows.createOrReplaceTempView(view)
            yield spark.sql(plan.reading(given).sql("spark")).localCheckpoint(eager=True)
    finally:
        for view in given.values():
            spark.catalog.dropTempView(view)


def _size(spark: "SparkSession", plan: Plan) -> int:
    """Bytes on disk of the plan's tables."""
    frames = (spark.table(f"{PREFIX}{name}") for name in plan.tables)
    return sum(int(str(frame._jdf.queryExecution().optimizedPlan().stats().sizeInBytes())) for frame in frames)


def pairs(spark: "SparkSession", plan: Plan) -> "DataFrame | None":
    """The controls of a match, while the plan's rows are `computed`: ``case_id``, ``control_id`` and ``place``."""
    query = plan.paired(_views(plan))
    return spark.sql(query.sql("spark")) if query is not None else None


def _views(plan: Plan) -> dict[str, str]:
    return {name: f"pictures_cohort_{name}" for name in plan.stages}


def answer(plan: Plan, rows: "DataFrame", counted: tuple[Count, ...]) -> Answer:
    """What Spark says to the plan, from the rows of `flags` and what was `counts` of them.

    Raises
    ------
    ChecksFailedError
        A unit has more than one row: a key of the published tables is not unique.
    """
    spark = rows.sparkSession
    # Hashes that all differ are of ids that do; they are a quarter of what would be sent around.
    total, distinct = spark.sql(f"SELECT COUNT(*), COUNT(DISTINCT xxhash64(unit_id)) FROM {_FLAGS}").first() or (0, 0)
    if total != distinct:
        distinct = rows.select("unit_id").distinct().count()
    if total != distinct:
        raise ChecksFailedError(
            f"the published tables have {total - distinct} more rows than ids of {plan.unit} units: a key is not unique; publish again"
        )
    ids = members(plan, rows).select("unit_id").toArrow().column(0).to_pylist()
    return Answer(tally.attrition(plan, counted), content_hash(ids))


def counts(plan: Plan, rows: "DataFrame") -> tuple[Count, ...]:
    """What Spark counts at all levels, from the rows of `flags`."""
    return tally.counts(plan, _FLAGS, lambda sql: rows.sparkSession.sql(sql).collect())


def members(plan: Plan, rows: "DataFrame") -> "DataFrame":
    """The rows of the units that survived every step and the pick."""
    return rows.where(f"passed = {len(plan.steps) - 1}")


def outputs(plan: Plan, rows: "DataFrame") -> "DataFrame":
    """What the outputs show of each member, its part of a split and a case's controls: ``unit_id``, ``column`` and ``value``, a text."""
    from pyspark.sql import functions as F

    shown = members(plan, rows).select("unit_id", *(["part"] if "part" in rows.columns else []))
    if plan.shown is not None and plan.columns:
        shown = shown.join(rows.sparkSession.sql(plan.shown.sql("spark")).select("unit_id", *plan.columns), "unit_id")
    names = [name for name in shown.columns if name != "unit_id"]
    cells = [F.struct(F.lit(name).alias("column"), F.col(name).cast("string").alias("value")) for name in names]
    none = shown.select("unit_id", F.lit(None).cast("string").alias("column"), F.lit(None).cast("string").alias("value")).limit(0)
    found = shown.select("unit_id", F.explode(F.array(*cells)).alias("c")).select("unit_id", "c.column", "c.value") if cells else none
    paired = pairs(rows.sparkSession, plan)
    if paired is None:
        return found
    controls = paired.select(F.col("case_id").alias("unit_id"), F.concat(F.lit("control_"), "place"), "control_id")
    # A sample after the match may have left a case out.
    return found.union(controls.join(members(plan, rows).select("unit_id"), "unit_id", "left_semi"))


def _empty(spark: "SparkSession", name: str) -> "DataFrame":
    from pictures_spark.schema import table

    return spark.createDataFrame([], table(ZONE, name).spark_type())
