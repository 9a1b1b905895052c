"""What a decoder does to its process is done to a child: the same results, and a crash costs one image."""

import pytest
from instances import pydicom_file

from pictures_spark.deid.act import Deidentifier, WithheldError
from pictures_spark.deid.dicom_identity import Box, make_identity
from pictures_spark.deid.dicom_supervised import SupervisedPixels
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import Checker
from pictures_spark.pixels.supervise import Limits

PLAN = load_plan("default")
LIMITS = Limits(seconds=60.0, memory_bytes=1 << 31, max_samples=1 << 28)
BOXED = make_identity(b"k" * 32, "p", 180, verdict="text", boxes=(Box(0, 0, 1, 1, 4, 4),))
# Ends its process in the middle of an image, once.
DYING = """
import os, pathlib
from pictures_spark.deid import {module}, pixels_child
real, mark = {module}.{name}, pathlib.Path({mark!r})
def once(*given, **named):
    if mark.exists():
        return real(*given, **named)
    mark.touch()
    os._exit(9)
{module}.{name} = once
pixels_child.serve()
"""


@pytest.fixture(scope="module")
def decoding():
    with SupervisedPixels(LIMITS) as made:
        yield made


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm"]
)
def test_the_same_as_in_this_process(decoding, name):
    data = pydicom_file(name)
    here = Deidentifier(PLAN)(data, BOXED)
    assert Deidentifier(PLAN, decoding.treat)(data, BOXED) == here
    assert decoding._child is not None
    assert Checker(PLAN.policy, decoding.compare)(data, here.data, BOXED) == Checker(PLAN.policy)(data, here.data, BOXED)
    # Nothing was blanked, or something that should not have been.
    clean = make_identity(b"k" * 32, "p", 180, verdict="clean")
    for result, who in ((here.data, clean), (Deidentifier(PLAN)(data, clean).data, BOXED)):
        found = Checker(PLAN.policy, decoding.compare)(data, result, who).findings
        assert found == Checker(PLAN.policy)(data, result, who).findings
        assert {finding.code for finding in found} == {"pixels"} or not name.startswith("MR_")


def test_what_cannot_be_decoded_is_withheld(decoding):
    data = bytearray(pydicom_file("MR_small_jp2klossless.dcm"))
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 4 : start + 60] = bytes(56)
    with pytest.raises(WithheldError, match="pixels_not_cleanable"):
        Deidentifier(PLAN, decoding.treat)(bytes(data), BOXED)


@pytest.mark.parametrize(("module", "name"), [("dicom_pixels", "treat_pixels"), ("verify", "_frames")])
def test_a_decoder_that_ends_its_process_costs_one_image(tmp_path, module, name):
    child = tmp_path / "child.py"
    child.write_text(DYING.format(module=module, name=name, mark=str(tmp_path / "mark")))
    data = pydicom_file("MR_small_RLE.dcm")
    with SupervisedPixels(LIMITS, (str(child),)) as decoding:
        deidentify, check = Deidentifier(PLAN, decoding.treat), Checker(PLAN.policy, decoding.compare)
        if module == "dicom_pixels":
            with pytest.raises(WithheldError, match="pixels_not_cleanable"):
                deidentify(data, BOXED)
        result = deidentify(data, BOXED).data
        if module == "verify":
            assert [finding.code for finding in check(data, result, BOXED).findings] == ["undecodable"]
        assert check(data, result, BOXED).findings == []
