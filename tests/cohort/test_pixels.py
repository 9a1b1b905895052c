"""Questions over pixels, asked of features computed from planted pixels: interpreter and compiled SQL give what was planted."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from cohort_cases import full, into_duckdb
from instances import dicom_bytes, instance

from pictures_spark.cohort import codelists, yaml_face
from pictures_spark.cohort.compile import compiled
from pictures_spark.cohort.interpreter import interpret
from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.features import features
from pictures_spark.synthetic.pictures import PICTURES

CT = {"RescaleSlope": "1", "RescaleIntercept": "0", "BodyPartExamined": "HEAD"}
NAMES = ["contrast_evidence@1", "soft_tissue_p99@1", "blank@1"]
# Series -> what its header came to, and the pixels behind it.
HEADS = {
    "miscoded": ("no", "ct_head_enhanced"),
    "faint": ("yes", "ct_head"),
    "plain": ("no", "ct_head"),
    "enhanced": ("yes", "ct_head_enhanced"),
    "untold": (None, "ct_head_enhanced"),
    "without pixels": ("no", None),
}
MISMATCH = """
cohort: 1
id: contrast-against-pixels
unit: series
steps:
  - id: mismatch
    any:
      - {where: {contrast: "no", feature.soft_tissue_p99@1.max: {ge: 110}}}
      - {where: {contrast: "yes", feature.soft_tissue_p99@1.max: {lt: 110}}}
"""


def measured(series, picture):
    """Rows of image_feature for a series of three slices."""
    for number in range(3):
        pixels = np.clip(PICTURES[picture](f"{series}/{number}", (128, 128), 300 * number), -1024, 3071).astype(np.int16)
        for found in features(decode(dicom_bytes(instance(pixels, **CT)), 10**6), names=NAMES):
            yield {
                "level": "image",
                "id": f"{series} {number}",
                "series_id": series,
                **{name: getattr(found, name) for name in ("feature", "version", "value", "status")},
            }


@pytest.fixture(scope="module")
def tables():
    return {
        "series": [{"series_id": series, "modality": "CT", "contrast": told} for series, (told, _) in HEADS.items()],
        "image_feature": [row for series, (_, picture) in HEADS.items() if picture for row in measured(series, picture)],
    }


def test_contrast_that_header_and_pixels_disagree_on(tables):
    asked = yaml_face.from_yaml(MISMATCH)
    codes, faults = codelists.resolve(asked, Path("/nowhere"))
    assert not faults
    expected = {"miscoded": True, "faint": True, "plain": False, "enhanced": False, "untold": None, "without pixels": None}
    assert {row.one.id: row.answers[-1] for row in interpret(asked, codes, full(tables))} == expected
    plan = compiled(asked, codes)
    with duckdb.connect() as connection:
        into_duckdb(connection, tables, plan.tables)
        found = connection.execute(plan.sql("duckdb")).fetchall()
    bit = len(plan.steps) - 1
    answers = {unit: None if unknown >> bit & 1 else bool(holds >> bit & 1) for unit, _, _, holds, unknown, *_ in found}
    assert answers == expected
