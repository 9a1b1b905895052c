"""`pictures pixels --layouts`: where devices write, as proposals with their evidence. Spark transform, driver; identifiable zone.

Boxes whose left, top and bottom edges fall into the same cells of a grid are one place, for the length of a line depends on what it says.
"""

from typing import TYPE_CHECKING

from pictures_spark import tables
from pictures_spark.job import Job
from pictures_spark.pixels import plan
from pictures_spark.pixels.groups import NOT_DETERMINED
from pictures_spark.pixels.planes import PIXEL
from pictures_spark.pixels.text import rules

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

ZONE = "identifiable"
# Columns of header_instance, and what the attributes are called.
_KEYWORDS = {
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "manufacturer_model_name": "ManufacturerModelName",
    "rows": "Rows",
    "columns": "Columns",
}
_DEVICE = list(_KEYWORDS)
# What has a meaning in a regular expression.
_SPECIAL = r"([\\.^$|?*+()\[\]{}])"


def run(job: Job) -> None:
    """Write table text_layout anew. Counts: seen = places; written = those that are proposed; skipped_rare = the others."""
    from pyspark.sql import functions as F

    rows = layouts(job.read(ZONE, "pixel_text"), job.read(ZONE, "header_instance"))
    tables.replace(rows.withColumn("run_id", F.lit(job.run_id)), job.zones, ZONE, "text_layout")
    (found,) = job.read(ZONE, "text_layout").agg(F.count("*").alias("all"), F.count_if("proposed").alias("proposed")).collect()
    seen, proposed = found["all"], found["proposed"]
    job.report.counts = {"seen": seen, "written": proposed, "quarantined": 0, "skipped_rare": seen - proposed}
    job.report.tables["text_layout"] = job.version(ZONE, "text_layout")


def layouts(texts: "DataFrame", headers: "DataFrame") -> "DataFrame":
    """Rows of text_layout, without run_id.

    Parameters
    ----------
    texts, headers : tables pixel_text and header_instance.
    """
    from pyspark.sql import functions as F

    rule = rules()["layout"]
    named = [F.coalesce(name, F.lit("")).alias(name) for name in _DEVICE[:3]]
    devices = headers.where("rows IS NOT NULL AND columns IS NOT NULL").select(*plan.INSTANCE, *named, "rows", "columns")
    known = texts.where(F.col("verdict") != NOT_DETERMINED).join(devices, plan.INSTANCE)
    of_device = known.groupBy(*_DEVICE).agg(F.countDistinct("series_uid").alias("series_of_device"))
    cells = [F.floor(F.col(side) / rule["grid"]).alias(f"cell_{side}") for side in ("x0", "y0", "y1")]
    boxes = known.where((F.col("plane") == PIXEL) & F.col("x0").isNotNull()).select("*", *cells)
    image = F.struct(*plan.INSTANCE)
    places = boxes.groupBy(*_DEVICE, "cell_x0", "cell_y0", "cell_y1").agg(
        F.min("x0").alias("x0"),
        F.min("y0").alias("y0"),
        F.max("x1").alias("x1"),
        F.max("y1").alias("y1"),
        F.countDistinct("series_uid").alias("series"),
        F.countDistinct(image).alias("images"),
        F.countDistinct(F.when(F.size(F.coalesce("matches", F.array())) > 0, image)).alias("own_words"),
    )
    enough = (F.col("series") >= rule["least_series"]) & (F.col("series") >= rule["least_share"] * F.col("series_of_device"))
    evidence = ("x0", "y0", "x1", "y1", "series", "series_of_device", "images", "own_words")
    return places.join(of_device, _DEVICE).select(*_DEVICE, *evidence, enough.alias("proposed"), _rule().alias("rule"))


def _rule() -> "Column":
    """A place as an entry of ``pixels.rectangles`` (`pictures_spark.deid.dicom_rectangles`), in JSON, which is YAML too."""
    from pyspark.sql import functions as F

    exactly = [F.regexp_replace(F.col(column).cast("string"), _SPECIAL, r"\\$1").alias(name) for column, name in _KEYWORDS.items()]
    return F.to_json(F.struct(F.struct(*exactly).alias("match"), F.array("x0", "y0", "x1", "y1").alias("box")))
