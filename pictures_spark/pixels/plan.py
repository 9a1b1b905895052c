"""Which instances have to be examined, in which groups, tasks and batches. Spark transforms, driver; identifiable zone.

Work is split by estimated seconds (schemas/pixels/work.yaml), never by file count. Groups are formed within a series and do not depend
on how many tasks there are, so neither do results.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pictures_spark.pixels.text import rules
from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

INSTANCE = ["sop_uid", "content_sha256"]


def unexamined(
    headers: "DataFrame", texts: "DataFrame", values: "DataFrame", wanted: Mapping[str, Mapping[str, Any]], engine: str | None
) -> "DataFrame":
    """Instances with pixels that lack a verdict of this engine or a wanted feature that applies to their modality.

    Parameters
    ----------
    headers : table header_instance, or a part of it.
    texts, values : tables pixel_text and pixel_feature.
    wanted : entries of schemas/features.yaml by ``name@version``.
    engine : None where text is not looked for.

    Returns
    -------
    The header rows with want_text, want_features, supersedes (a verdict of another engine is there). An instance whose pixels could not be
    examined has a verdict (not_determined) and failed features, and so is not tried again.
    """
    from pyspark.sql import functions as F

    verdicts = texts.groupBy(*INSTANCE).agg(F.max(F.col("engine_version") == F.lit(engine)).alias("has_text"))
    name = F.concat_ws("@", "feature", "version")
    have = values.where(name.isin(list(wanted))).groupBy(*INSTANCE).agg(F.collect_set(name).alias("have"))
    every = F.array_compact(
        F.array(
            *[F.when(F.col("modality").isin(entry["applies"]), key) if "applies" in entry else F.lit(key) for key, entry in wanted.items()]
        )
    )
    return (
        headers.where("has_pixels")
        .join(verdicts, INSTANCE, "left")
        .join(have, INSTANCE, "left")
        .withColumn("want_text", F.lit(False) if engine is None else ~F.coalesce("has_text", F.lit(False)))
        .withColumn("supersedes", F.col("has_text").isNotNull() & F.col("want_text"))
        .withColumn("want_features", F.when(F.col("have").isNull(), every).otherwise(F.array_except(every, "have")))
        .where(F.col("want_text") | (F.size("want_features") > 0))
        .drop("has_text", "have")
    )


def located(instances: "DataFrame", objects: "DataFrame") -> "DataFrame":
    """Instances with the place of an object that holds their content: the first found, or an equal one where that has vanished.

    Where no object is left, object_id and path are null.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    readable = objects.where("kind = 'dicom' AND status = 'catalogued'").select(
        F.col("sha256").alias("content_sha256"),
        F.col("object_id").alias("at"),
        "locator",
        "path",
        "offset",
        "length",
        "compression",
    )
    best = Window.partitionBy(*INSTANCE).orderBy((F.col("at") != F.col("object_id")).cast("int"), "at")
    return (
        instances.join(readable, "content_sha256", "left")
        .withColumn("rank", F.row_number().over(best))
        .where("rank = 1")
        .drop("rank", "object_id")
        .withColumnRenamed("at", "object_id")
    )


def grouped(instances: "DataFrame") -> "DataFrame":
    """Instances with group_id, sequence, pattern, whole and seconds (estimated work).

    A pattern group holds frames of one shape of one series; long ones are cut by estimated time. An image of at least
    ``pattern.min_frames`` frames is a group of its own. Everything else is read frame by frame.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rule, work = rules()["pattern"], load_schema("pixels/work.yaml")
    cost = work["seconds"]
    frames = F.greatest(F.coalesce("number_of_frames", F.lit(1)), F.lit(1))
    screen = F.coalesce(F.col("sop_class_uid").rlike(_any_of(rule["throughout_sop_classes"])), F.lit(False)) | F.coalesce(
        F.col("modality").isin(rule["throughout_modalities"]), F.lit(False)
    )
    alone = F.col("series_uid").isNull() | ~F.coalesce(F.col("modality").isin(rule["modalities"]), F.lit(False)) | screen
    shape = F.concat_ws("x", *[F.coalesce(F.col(c).cast("string"), F.lit("?")) for c in ("rows", "columns", "samples_per_pixel")])
    own = F.concat_ws("|", F.lit("instance"), *INSTANCE)
    rows = (
        instances.withColumn("frames", frames)
        .withColumn(
            "together",
            F.when(alone | (frames >= rule["min_frames"]), own).otherwise(F.concat_ws("|", F.lit("series"), "series_uid", shape)),
        )
        .withColumn("frames_of_whole", F.sum("frames").over(Window.partitionBy("together")))
        .withColumn("pattern", F.col("frames_of_whole") >= rule["min_frames"])
        .withColumn("whole", screen)
    )
    samples = (
        F.col("frames") * F.coalesce("rows", F.lit(512)) * F.coalesce("columns", F.lit(512)) * F.coalesce("samples_per_pixel", F.lit(1))
    )
    share = cost["readings_of_pattern"] * F.col("frames") / F.col("frames_of_whole")
    readings = (
        F.when(~F.col("want_text"), 0.0).when(F.col("pattern"), share).when(F.col("whole"), F.col("frames").cast("double")).otherwise(0.0)
    )
    looks = F.when(F.col("want_text"), samples.cast("double") * cost["look"]).otherwise(0.0)
    seconds = (
        F.lit(cost["instance"])
        + F.coalesce("length", F.lit(0)) * cost["byte"]
        + samples.cast("double") * (F.lit(cost["sample"]) + _seconds_to_decode())
        + readings * cost["reading"]
        + looks
    )
    order = Window.partitionBy("together").orderBy(F.col("instance_number").asc_nulls_last(), *INSTANCE)
    before = F.sum("seconds").over(order.rowsBetween(Window.unboundedPreceding, -1))
    return (
        rows.withColumn("seconds", seconds)
        .withColumn("part", F.floor(F.coalesce(before, F.lit(0.0)) / work["group_seconds"]))
        .withColumn("group_id", F.concat_ws("|", "together", F.col("part").cast("string")))
        .withColumn("sequence", F.row_number().over(order).cast("long"))
        .drop("together", "part", "frames", "frames_of_whole")
    )


def _seconds_to_decode() -> "Column":
    """Of one sample, by transfer syntax; nothing where that hardly counts."""
    from pyspark.sql import functions as F

    speeds = load_schema("pixels/decoders.yaml")["samples_per_second"]
    slow = F.create_map(*[F.lit(value) for syntax, speed in speeds.items() for value in (syntax, 1 / speed)])
    return F.coalesce(F.try_element_at(slow, F.col("transfer_syntax_uid")), F.lit(0.0))


def packed(instances: "DataFrame", cores: int) -> "DataFrame":
    """Groups packed, in order of series, into tasks of similar estimated time, and tasks into batches: columns batch and task.

    Parameters
    ----------
    cores : where there is little to do, tasks are made smaller so that every core has some.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    work = load_schema("pixels/work.yaml")
    groups = instances.groupBy("group_id").agg(F.min("series_uid").alias("first_series"), F.sum("seconds").alias("cost"))
    # One row per group in one sorted pass; a nation's 10^7 groups of three columns fit that.
    everything = Window.partitionBy(F.lit(0)).orderBy(F.col("first_series").asc_nulls_first(), "group_id")
    placed = groups.withColumn("middle", F.sum("cost").over(everything) - F.col("cost") / 2).withColumn(
        "total", F.sum("cost").over(Window.partitionBy(F.lit(0)))
    )
    shared = F.greatest(F.col("total") / (2 * cores), F.lit(float(work["least_task_seconds"])))
    size = F.least(F.lit(float(work["task_seconds"])), shared)
    number = F.floor(F.col("middle") / size)
    return instances.join(
        placed.select(
            "group_id",
            F.floor(number / work["batch_tasks"]).cast("long").alias("batch"),
            (number % work["batch_tasks"]).cast("long").alias("task"),
        ),
        "group_id",
    )


def _any_of(starts: list[str]) -> str:
    """A regular expression for a UID that equals one of these or lies below it."""
    return "^(" + "|".join(start.replace(".", r"\.") for start in starts) + r")(\.|$)"
