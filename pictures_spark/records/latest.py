"""Tables that are made of a record source beside events: of the rows with one key the latest, as Spark frames.

Every function is frame in, frame out, nothing read or written. Executors; nothing is broadcast.
"""

from typing import TYPE_CHECKING

from pictures_spark.records.source import TableSpec
from pictures_spark.schema import table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def latest_rows(spec: TableSpec, rows: "DataFrame") -> "DataFrame":
    """Of rows as `pictures_spark.records.judging.table_rows` makes them, those that are the latest of their key.

    ``rows`` also has ``load_order`` and ``row_number``, which break ties.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    one = Window.partitionBy(*spec.one_per).orderBy(*_newest())
    return rows.withColumn("_rank", F.row_number().over(one)).where("_rank = 1").drop("_rank")


def with_current(spec: TableSpec, rows: "DataFrame") -> "DataFrame":
    """`latest_rows` with the column that is true for one row of each group, where the table has one; exactly the table's columns."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if spec.current:
        group = Window.partitionBy(spec.current["of"]).orderBy(F.col("_open").desc(), *_newest(), *spec.one_per)
        rows = rows.withColumn(spec.current["column"], F.row_number().over(group) == 1)
    return rows.select(*[name for name in table("identifiable", spec.table).names if name != "run_id"])


def _newest() -> "list[Column]":
    from pyspark.sql import functions as F

    return [F.col(name).desc() for name in ("_latest", "load_order", "row_number")]
