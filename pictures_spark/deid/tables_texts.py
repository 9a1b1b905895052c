"""Texts of headers that are published as they are, because many people on several devices have them: table description.

What enters: the images and series as `tables_images` makes them, and the identifiable tables that hold names and numbers. What leaves: one
row per series, attribute and text; those that may not cross have a ``skip`` and a name in ``counted`` (``rare``: too few people or devices;
``named``: somebody's name or number, or what reads like one). Executors; the distinct common texts, a few thousand, are broadcast.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pictures_spark.deid.dicom_scrub import Scrub, known_word
from pictures_spark.deid.tables_check import secrets
from pictures_spark.resources import load_schema


def description(images: DataFrame, studies: DataFrame, series: DataFrame, inputs: Mapping[str, DataFrame]) -> DataFrame:
    """Rows of table description, with ``counted`` and ``skip``.

    Missing: a scan that is linked to nobody counts as no person; a series without a station as a device of its maker and model.
    """
    rule = load_schema("derive/common_texts.yaml")
    said = images.select("series_id", F.explode("said").alias("one")).select("series_id", "one.*").distinct()
    device = F.coalesce("station_id", F.concat_ws(" ", "manufacturer_norm", "model_norm")).alias("device")
    placed = said.join(series.select("series_id", "study_id", device), "series_id").join(
        studies.select("study_id", "patient_id"), "study_id"
    )
    counts = placed.groupBy("text").agg(F.countDistinct("patient_id").alias("patients"), F.countDistinct("device").alias("devices"))
    common = counts.where((F.col("patients") >= rule["patients"]) & (F.col("devices") >= rule["devices"])).select("text")
    # Asked for twice: by the words of names, and by the join that decides.
    judged = common.mapInArrow(_judge, "text string, innocent boolean, words array<string>").localCheckpoint()
    words = judged.select("text", F.explode(F.array_append("words", F.replace("text", F.lit(" "), F.lit("")))).alias("same"))
    named = secrets(inputs, rule["shortest_name"]).join(F.broadcast(words), "same").select("text").distinct()
    # What the last look (`tables_check`) would take for an identifier must not come so far as to stop the release.
    shapes = load_schema("derive/leak_check.yaml")["patterns"].values()
    looks = reduce(lambda one, other: one | other, [F.col("text").rlike(shape) for shape in shapes])
    fine = judged.where(F.col("innocent") & ~looks).select("text").join(named, "text", "left_anti").withColumn("fine", F.lit(True))
    known = placed.join(F.broadcast(judged.select("text", F.lit(True).alias("common"))), "text", "left")
    known = known.join(F.broadcast(fine), "text", "left")
    skip = F.when(F.col("fine"), None).when(F.col("common"), "withheld_description.named").otherwise("withheld_description.rare")
    columns = ("series_id", "study_id", "keyword", "text")
    return known.select(*columns, F.array_compact(F.array(skip)).alias("counted"), skip.alias("skip"))


def _judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """text -> whether nothing in it reads like an identifier, and the words of it that could be a name or number."""
    scrub = Scrub((), ())
    for batch in batches:
        rows = []
        for text in batch.column(0).to_pylist():
            words = [word for word in text.split() if len(word) > 1 and not known_word(word)]
            rows.append({"text": text, "innocent": len(text) <= 64 and not scrub.spans(text), "words": words})
        yield pa.RecordBatch.from_pylist(
            rows, pa.schema([("text", pa.string()), ("innocent", pa.bool_()), ("words", pa.list_(pa.string()))])
        )
