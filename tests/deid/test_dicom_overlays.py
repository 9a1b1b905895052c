"""Overlays stay only where they were read and hold no text, under a policy with option graphics; and nothing comes with them."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from instances import dicom_bytes, instance, item, pydicom_file
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pictures_spark.deid.act import Deidentifier, deidentify
from pictures_spark.deid.dicom_identity import Box, make_identity
from pictures_spark.deid.explain import explain
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import Checker, verify

PLAN, DETAILED = load_plan("default"), load_plan("detailed")
READ = make_identity(bytes(range(32)), "p", 180, known=["Vandersnoot"], verdict="clean", overlays_clean=True)
MARKS = np.random.default_rng(9).random((3, 8, 9)) < 0.3


def overlaid(marks=MARKS[0], group=0x6000, data=b"", **values):
    """An image with an overlay of these marks, and the names that may hang on one."""
    source = instance(**values)
    for number, vr, value in (
        (0x0010, "US", marks.shape[-2]),
        (0x0011, "US", marks.shape[-1]),
        (0x0022, "LO", "VANDERSNOOT"),
        (0x0040, "CS", "G"),
        (0x0045, "LO", "USER"),
        (0x0050, "SS", [1, -2]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x1500, "LO", "VANDERSNOOT"),
        (0x3000, "OW", np.packbits(marks.ravel(), bitorder="little").tobytes() + data),
        (0x4000, "LT", "VANDERSNOOT"),
    ):
        source.add_new(group << 16 | number, vr, value)
    if marks.ndim == 3:
        source.add_new(group << 16 | 0x0015, "IS", len(marks))
    return source


def overlays(data):
    return sorted(int(element.tag) for element in dcmread(BytesIO(data)).iterall() if element.tag.group >> 8 == 0x60)


def test_an_overlay_without_text_stays():
    data = dicom_bytes(overlaid(data=b"\0"))
    result = deidentify(data, DETAILED, READ).data
    made = dcmread(BytesIO(result))
    assert overlays(result) == [0x60000000 | n for n in (0x10, 0x11, 0x40, 0x50, 0x100, 0x102, 0x3000)]
    assert (made.overlay_array(0x6000) == MARKS[0]).all()
    assert made[0x60000050].value == [1, -2]
    assert verify(data, result, DETAILED.policy, READ) == []
    assert b"VANDERSNOOT" not in result


def test_frames_of_an_overlay_stay():
    data = dicom_bytes(overlaid(MARKS, group=0x601E))
    result = deidentify(data, DETAILED, READ).data
    assert (dcmread(BytesIO(result)).overlay_array(0x601E) == MARKS).all()
    assert verify(data, result, DETAILED.policy, READ) == []


def test_a_real_overlay_stays():
    data = pydicom_file("examples_overlay.dcm")
    result = deidentify(data, DETAILED, READ).data
    before, after = dcmread(BytesIO(data)), dcmread(BytesIO(result))
    assert (before.overlay_array(0x6000) == after.overlay_array(0x6000)).all()
    assert verify(data, result, DETAILED.policy, READ) == []


def test_it_goes_unless_the_policy_and_a_reader_say_otherwise():
    data = dicom_bytes(overlaid())
    for plan, identity in ((PLAN, READ), (DETAILED, replace(READ, overlays_clean=False))):
        result = deidentify(data, plan, identity).data
        assert overlays(result) == []
        kept = deidentify(data, DETAILED, READ).data
        assert {finding.code for finding in verify(data, kept, plan.policy, identity)} >= {"tag"}


def test_what_one_image_may_keep_another_of_the_person_may_not():
    made, check = Deidentifier(DETAILED), Checker(DETAILED.policy)
    for number, identity in enumerate([READ, READ, replace(READ, overlays_clean=False)] * 3):
        data = dicom_bytes(overlaid(MARKS[number % 3], SOPInstanceUID=f"1.2.840.99.{number}"))
        result = made(data, identity).data
        assert bool(overlays(result)) == identity.overlays_clean
        assert result == deidentify(data, DETAILED, identity).data
        assert check(data, result, identity).findings == []
        if not identity.overlays_clean:
            assert check(data, deidentify(data, DETAILED, READ).data, identity).findings


def test_boxes_and_overlays_at_once():
    identity = replace(READ, verdict="text", boxes=(Box(0, 0, 0, 0, 4, 4),))
    data = dicom_bytes(overlaid())
    result = deidentify(data, DETAILED, identity).data
    assert (dcmread(BytesIO(result)).overlay_array(0x6000) == MARKS[0]).all()
    assert verify(data, result, DETAILED.policy, identity) == []


def letters(word):
    """Marks whose bytes are letters."""
    return np.unpackbits(np.frombuffer(word, np.uint8), bitorder="little").reshape(-1, 8)


def nested():
    inner = item()
    for element in overlaid():
        if element.tag.group == 0x6000:
            inner.add(element)
    return instance(ReferencedImageSequence=[inner])


def changed(tag, vr, value):
    source = overlaid()
    source.add_new(tag, vr, value)
    return source


@pytest.mark.parametrize(
    "source",
    [
        overlaid(letters(b"Ms VANDERSNOOT ")),
        nested(),
        overlaid(group=0x6020),
        changed(0x60000010, "US", 80),
        changed(0x60000010, "US", 0),
        changed(0x60000015, "IS", "99999"),
        changed(0x60000100, "US", 16),
        changed(0x60000102, "US", 12),
    ],
)
def test_what_makes_no_sense_or_says_who_goes(source):
    data = dicom_bytes(source)
    result = deidentify(data, DETAILED, READ).data
    assert overlays(result) == []
    assert verify(data, result, DETAILED.policy, READ) == []


def test_what_lies_behind_the_marks_goes():
    result = deidentify(dicom_bytes(overlaid(data=b"OTTOLINE")), DETAILED, READ).data
    assert b"OTTOLINE" not in result
    data = np.packbits(MARKS[0, :3, :5].ravel(), bitorder="little").tobytes()  # 15 of 16 bits
    source = overlaid(MARKS[0, :3, :5])
    source[0x60003000].value = bytes([data[0], data[1] | 0x80])
    made = dcmread(BytesIO(deidentify(dicom_bytes(source), DETAILED, READ).data))
    assert made[0x60003000].value == data


def test_other_encodings():
    implicit = dicom_bytes(overlaid(), ImplicitVRLittleEndian)
    result = deidentify(implicit, DETAILED, READ).data
    assert (dcmread(BytesIO(result)).overlay_array(0x6000) == MARKS[0]).all()
    assert verify(implicit, result, DETAILED.policy, READ) == []
    assert overlays(deidentify(dicom_bytes(overlaid(), ExplicitVRBigEndian), DETAILED, READ).data) == []


def test_it_is_explained():
    assert "keep" in explain(DETAILED, "OverlayData")
    assert "remove" in explain(DETAILED, "6000,4000")
    assert "remove" in explain(PLAN, "OverlayData")
