"""Places where devices write, from boxes and headers."""

import json

import numpy as np
import pytest
from instances import dicom_bytes, instance

from pictures_spark.deid.dicom_read import read
from pictures_spark.deid.dicom_rectangles import rectangles
from pictures_spark.pixels.layouts import layouts
from pictures_spark.schema import table

pytestmark = pytest.mark.spark
HEADER = {
    "object_id": "o",
    "template_id": "t",
    "differences": "{}",
    "conflict": False,
    "has_pixels": True,
    "run_id": "r",
    "rows": 480,
    "columns": 640,
}
TEXT = {"engine_version": "e", "rule": "frame", "verdict": "text", "plane": "pixel", "frame_from": 0, "frame_to": 0, "run_id": "r"}


def frame(spark, name, rows):
    declared = table("identifiable", name)
    return spark.createDataFrame([tuple(row.get(column) for column in declared.names) for row in rows], declared.spark_type())


def source(header):
    pixels = np.zeros((480, 640), np.uint8)
    return read(dicom_bytes(instance(pixels, **header)))


def test_a_place_seen_often_is_proposed_with_its_evidence(spark):
    headers, texts = [], []
    for number in range(8):
        key = {"sop_uid": f"1.{number}", "content_sha256": f"s{number}"}
        maker = {"modality": "US", "manufacturer": "ACME (UK)", "manufacturer_model_name": None if number == 7 else "S1"}
        headers.append({**HEADER, **key, **maker})
        row = {**TEXT, **key, "series_uid": f"S{number}"}
        # The name: of another length on each, once a pixel lower.
        texts.append({**row, "x0": 18, "y0": 4 + number % 2, "x1": 90 + number, "y1": 24, "matches": ["name"] if number < 3 else []})
        if number == 2:
            texts.append({**row, "x0": 300, "y0": 200, "x1": 340, "y1": 220})
            texts.append({**row, "plane": "overlay", "x0": 18, "y0": 4, "x1": 90, "y1": 24})
    headers.append(
        {**HEADER, "sop_uid": "1.9", "content_sha256": "s9", "modality": "US", "manufacturer": "ACME (UK)", "manufacturer_model_name": "S1"}
    )
    texts.append(
        {**TEXT, "sop_uid": "1.9", "content_sha256": "s9", "series_uid": "S9", "verdict": "clean", "frame_from": None, "plane": None}
    )
    found = {
        (r.manufacturer_model_name, r.x0): r
        for r in layouts(frame(spark, "pixel_text", texts), frame(spark, "header_instance", headers)).collect()
    }
    # Put into a policy, it fits the files of that device and no others.
    rule = json.loads(found["S1", 18].rule)
    policy = {"rectangles": [rule], "outside_ultrasound_regions": "keep"}
    of_device = {"Modality": "US", "Manufacturer": "ACME (UK)", "ManufacturerModelName": "S1"}
    assert [(b.x0, b.y0, b.x1, b.y1) for b in rectangles(policy, source(of_device))] == [(18, 4, 96, 24)]
    assert rectangles(policy, source({**of_device, "ManufacturerModelName": "S11"})) == ()
    assert set(found) == {("S1", 18), ("S1", 300), ("", 18)}
    name = found["S1", 18]
    assert (name.x0, name.y0, name.x1, name.y1) == (18, 4, 96, 24)
    assert (name.series, name.series_of_device, name.images, name.own_words, name.proposed) == (7, 8, 7, 3, True)
    assert (found["S1", 300].series, found["S1", 300].proposed) == (1, False)
    assert (found["", 18].series_of_device, found["", 18].proposed) == (1, False)
