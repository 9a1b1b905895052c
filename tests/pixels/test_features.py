"""Features against NumPy on the whole array, and what must not change them."""

import hashlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import dicom_bytes, instance, item, pydicom_file
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.features import FEATURES, Distribution, declared, features

LIMIT = 10_000_000


def measured(dataset, syntax=ExplicitVRLittleEndian):
    found = features(decode(dicom_bytes(dataset, syntax), LIMIT))
    return {f.feature: f.value if f.value_text is None else f.value_text for f in found}


def by_hand(values):
    p05, p50, p95 = np.percentile(values, [5, 50, 95])
    return {"intensity_mean": values.mean(), "intensity_p05": p05, "intensity_p50": p50, "intensity_p95": p95}


def assert_intensity(found, values):
    for name, expected in by_hand(np.asarray(values, np.float64)).items():
        assert found[name] == pytest.approx(expected, rel=1e-12, abs=1e-9), name


def test_registry_and_declaration_name_the_same_features():
    assert set(FEATURES) == set(declared())


RNG = np.random.default_rng(5)
SIGNED = RNG.integers(-1024, 3000, (12, 9)).astype(np.int16)
CASES = [
    ("unsigned 8", RNG.integers(0, 256, (7, 5)).astype(np.uint8), {}, lambda a: a),
    ("signed 16", SIGNED, {}, lambda a: a),
    ("rescaled", SIGNED, {"RescaleSlope": "0.5", "RescaleIntercept": "-10"}, lambda a: a * 0.5 - 10),
    ("intercept only", SIGNED, {"RescaleIntercept": "-1024"}, lambda a: a - 1024.0),
    ("falling slope", SIGNED, {"RescaleSlope": "-2", "RescaleIntercept": "1"}, lambda a: a * -2.0 + 1),
    ("unsigned 32", RNG.integers(0, 2**31, (6, 6)).astype(np.uint32), {}, lambda a: a),
    ("three frames", RNG.integers(0, 4000, (3, 8, 8)).astype(np.uint16), {"NumberOfFrames": "3"}, lambda a: a),
]


@pytest.mark.parametrize(("pixels", "header", "values"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_intensity_is_what_numpy_says(pixels, header, values):
    assert_intensity(measured(instance(pixels, **header)), values(pixels.astype(np.float64)))


def test_each_frame_of_an_enhanced_image_has_its_own_rescale():
    pixels = np.stack([np.arange(16, dtype=np.uint16).reshape(4, 4)] * 2)
    groups = [item(PixelValueTransformationSequence=[item(RescaleSlope=s, RescaleIntercept="0", RescaleType="US")]) for s in ("1", "10")]
    found = measured(instance(pixels, NumberOfFrames="2", PerFrameFunctionalGroupsSequence=groups))
    assert_intensity(found, np.concatenate([pixels[0], pixels[1] * 10.0]))


def test_shared_rescale_of_an_enhanced_image():
    pixels = np.stack([np.arange(16, dtype=np.uint16).reshape(4, 4)] * 2)
    shared = [item(PixelValueTransformationSequence=[item(RescaleSlope="3", RescaleIntercept="1", RescaleType="US")])]
    assert_intensity(measured(instance(pixels, NumberOfFrames="2", SharedFunctionalGroupsSequence=shared)), pixels * 3.0 + 1)


def test_colour_is_measured_by_its_luma():
    pixels = RNG.integers(0, 256, (1, 6, 7, 3)).astype(np.uint8)
    dataset = instance(pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert_intensity(measured(dataset), pixels.reshape(-1, 3) @ np.array([0.299, 0.587, 0.114]))


def test_a_zero_slope_fails_its_features_and_no_others():
    found = {f.feature: f for f in features(decode(dicom_bytes(instance(RescaleSlope="0", RescaleIntercept="0")), LIMIT))}
    assert (found["intensity_mean"].status, found["intensity_mean"].reason, found["intensity_mean"].value) == ("failed", "no_rescale", None)
    assert found["pixel_sha256"].status == "ok"


def test_pixel_hash_is_that_of_type_shape_and_samples():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert measured(instance(pixels))["pixel_sha256"] == hashlib.sha256(b"<u2|1x3x4|" + pixels.tobytes()).hexdigest()
    assert measured(instance(pixels.T.copy()))["pixel_sha256"] != measured(instance(pixels))["pixel_sha256"]


def test_transfer_syntax_byte_order_and_planes_change_nothing():
    plain = measured(instance(SIGNED))
    turned = instance(SIGNED)
    turned.PixelData = SIGNED.astype(">i2").tobytes()
    assert measured(turned, ExplicitVRBigEndian) == plain
    packed = pydicom.dcmread(BytesIO(dicom_bytes(instance(SIGNED))))
    packed.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    assert measured(packed, RLELossless) == plain
    colour = RNG.integers(0, 256, (1, 6, 7, 3)).astype(np.uint8)
    by_pixel = instance(colour, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    by_plane = instance(colour, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=1)
    by_plane.PixelData = np.moveaxis(colour[0], 2, 0).tobytes()
    assert measured(by_plane) == measured(by_pixel)


def test_the_same_slice_in_five_encodings():
    names = ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm"]
    found = [features(decode(pydicom_file(name), LIMIT)) for name in names]
    assert all(other == found[0] for other in found)
    assert_intensity({f.feature: f.value for f in found[0]}, pydicom.dcmread(pydicom.data.get_testdata_file(names[0])).pixel_array)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=40),
    st.floats(0, 100, allow_nan=False),
)
def test_percentile_is_numpys(values, q):
    distinct, counts = np.unique(np.array(values) + 0.0, return_counts=True)
    assert Distribution(distinct, counts).percentile(q) == pytest.approx(np.percentile(values, q), rel=1e-9, abs=1e-9)
