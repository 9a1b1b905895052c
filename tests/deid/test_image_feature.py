"""Roll-ups of features to series, and the share of an image that is text."""

import pytest

from pictures_spark.deid.tables_images import _of_series, _text_area
from pictures_spark.pixels.features import roll_up

pytestmark = pytest.mark.spark
RULES = ("mean", "median", "min", "max", "sum")
PUBLISHED = {f"{rule}_of@1": {"rollup": rule} for rule in RULES}
VALUES = [3.0, 1.0, 8.0, 8.5]


def test_series_have_the_roll_up_of_the_images_that_have_a_value(spark):
    rows = [("s", f"{rule}_of", "1", v, "HU", "ok", None) for rule in RULES for v in VALUES]
    rows += [("s", f"{rule}_of", "1", None, "HU", "failed", "no_body") for rule in RULES]
    rows += [("none", "mean_of", "1", None, "HU", "failed", why) for why in ("not_hu", "no_body", "no_body")]
    frame = spark.createDataFrame(
        rows, "series_id string, feature string, version string, value double, unit string, status string, reason string"
    )
    found = {(r.series_id, r.feature): r for r in _of_series(frame, PUBLISHED).collect()}
    for rule in RULES:
        row = found["s", f"{rule}_of"]
        assert (row.value, row.status, row.reason, row.unit, row.level, row.id) == (roll_up(rule, VALUES), "ok", None, "HU", "series", "s")
    assert (found["none", "mean_of"].value, found["none", "mean_of"].status, found["none", "mean_of"].reason) == (None, "failed", "no_body")


def test_text_area_is_the_share_of_samples_in_boxes(spark):
    images = spark.createDataFrame(
        [("a", "c", 2, 10, 20), ("clean", "c", 1, 10, 20), ("unsure", "c", 1, 10, 20), ("no size", "c", 1, None, 20)],
        "sop_uid string, content_sha256 string, image__frames long, image__rows long, image__columns long",
    )
    columns = "sop_uid string, content_sha256 string, plane string, frame_from long, frame_to long, x0 long, y0 long, x1 long, y1 long, "
    texts = spark.createDataFrame(
        [
            ("a", "c", "pixel", 0, 1, 0, 0, 10, 5, "text"),
            ("a", "c", "pixel", 0, 0, 5, 0, 15, 5, "text"),
            ("a", "c", "overlay", 0, 0, 0, 0, 20, 10, "text"),
            ("clean", "c", None, None, None, None, None, None, None, "clean"),
            ("unsure", "c", None, None, None, None, None, None, None, "not_determined"),
            ("no size", "c", None, None, None, None, None, None, None, "clean"),
        ],
        columns + "verdict string",
    )
    entry = {"name": "text_area", "version": "1", "unit": "share"}
    found = {r.sop_uid: (r.value, r.status, r.reason) for r in _text_area(images, texts, entry).collect()}
    assert found == {
        "a": ((75 + 50) / 400, "ok", None),
        "clean": (0.0, "ok", None),
        "unsure": (None, "failed", "text_not_determined"),
        "no size": (None, "failed", "text_not_determined"),
    }
