"""Which images a delivery holds, and what is needed to make each one: locator, identifiers to scrub, boxes to blank.

What enters: a frozen cohort's members, the de-identified tables at the versions of its release, and the identifiable tables. What leaves:
one row per image, for executors only. Spark data frames throughout; no row comes to the driver.
"""

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from pictures_spark.errors import ConfigError
from pictures_spark.keys import KeyRef, pseudonym_udf

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from pictures_spark.job import Job

UNIT_COLUMN = {"patient": "patient_id", "study": "study_id", "series": "series_id", "image": "image_id"}


def images_of(images: "DataFrame", members: "DataFrame", unit: str) -> "DataFrame":
    """One row per image of the members: (image_id, subject_id, modality, scan_date, age_years, locator_id, conflict, ...).

    An image id with several contents is one row with ``conflict`` true. ``subject_id`` is the person, or the study where it is linked to
    nobody. Members without images add nothing; a missing unit id in the image table is no member.

    Raises
    ------
    ConfigError
        The cohort's unit is none of patient, study, series, image.
    """
    if unit not in UNIT_COLUMN:
        raise ConfigError(f"a cohort of unit {unit!r} cannot be extracted; units are {', '.join(UNIT_COLUMN)}")
    wanted = members.select(F.col("unit_id").alias(UNIT_COLUMN[unit])).distinct()
    fields = ["locator_id", "study_id", "series_id", "patient_id", "modality", "scan_date", "age_years"]
    chosen = images.join(wanted, UNIT_COLUMN[unit], "left_semi").groupBy("image_id")
    return chosen.agg(
        F.min(F.struct(*fields)).alias("one"), (F.max("conflict") | (F.countDistinct("locator_id") > 1)).alias("conflict")
    ).select("image_id", "conflict", "one.*", F.coalesce("one.patient_id", "one.study_id").alias("subject_id"))


def located(job: "Job", images: "DataFrame") -> "DataFrame":
    """The images with everything an executor needs: source UIDs, the object that holds the bytes, the person's identifiers, the boxes."""
    contents = _contents(job, job.key("deidentified"))
    found = images.join(contents, "locator_id", "left")
    return (
        found.join(_objects(job), "content_sha256", "left")
        .join(_text(job), ["sop_uid", "content_sha256"], "left")
        .join(_known(job, images), "patient_id", "left")
    )


def _contents(job: "Job", key: KeyRef) -> "DataFrame":
    """Each catalogued content under the opaque name that the de-identified zone knows it by."""

    headers = job.read("identifiable", "header_instance").select("sop_uid", "content_sha256", "study_uid", "series_uid")
    return headers.withColumn("locator_id", pseudonym_udf(key, "locator")(F.concat_ws("|", "sop_uid", "content_sha256")))


def _objects(job: "Job") -> "DataFrame":
    """One place in the archive per content; any copy is as good as another."""
    objects = job.read("identifiable", "object").where("kind = 'dicom' AND status = 'catalogued'")
    place = F.struct("object_id", "path", "offset", "length", "compression", "size")
    return objects.groupBy(F.col("sha256").alias("content_sha256")).agg(F.min(place).alias("place")).select("content_sha256", "place.*")


def _text(job: "Job") -> "DataFrame":
    """The verdict per content, and its boxes in the pixels; text in overlays and icons goes with them."""
    box = F.struct("frame_from", "frame_to", "x0", "y0", "x1", "y1")
    return (
        job.read("identifiable", "pixel_text")
        .groupBy("sop_uid", "content_sha256")
        .agg(
            F.max("verdict").alias("verdict"),
            (F.countDistinct("verdict") > 1).alias("verdicts_differ"),
            F.array_sort(F.collect_list(F.when(F.col("x0").isNotNull() & (F.col("plane") == "pixel"), box))).alias("boxes"),
            F.max(F.col("x0").isNotNull() & (F.col("plane") != "pixel")).alias("text_elsewhere"),
        )
    )


def _known(job: "Job", images: "DataFrame") -> "DataFrame":
    """Every identifier the zone knows of the people in the images. Birth dates are not among them: dates are treated by element.

    Of all links that ever led to a person, and of everybody who has, or in the register now belongs to, one of their numbers: a cohort may
    be older than a merge or an un-merge, and the headers hold what was written then.
    """
    links = job.read("identifiable", "crosswalk").join(images.select("patient_id").distinct(), "patient_id", "left_semi")
    person = job.read("identifiable", "person")
    links = links.select("patient_id", "source_id", "scheme", "person_id", "upi")
    moved = links.select("patient_id", "scheme", "person_id").join(person.select("scheme", "person_id", "upi"), ["scheme", "person_id"])
    upis = links.select("patient_id", "upi").unionByName(moved.select("patient_id", "upi")).where("upi IS NOT NULL").distinct()
    words = F.array("person_id", "upi", "forename", "surname", "postcode", F.regexp_replace("postcode", " ", ""))
    named = upis.join(person, "upi").select("patient_id", F.explode(words).alias("word"))
    written = links.select("patient_id", F.explode(F.array("source_id", "person_id", "upi")).alias("word"))
    every = named.unionByName(written).where(F.length(F.trim("word")) > 0)
    return every.groupBy("patient_id").agg(F.collect_set("word").alias("known"))
