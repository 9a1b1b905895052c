"""Features against values worked by hand, the published phantom, an independent slow reference, and what must not change them."""

import hashlib
import math
import struct
import zlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
import slow_features as slow
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from instances import by_gdcm, dicom_bytes, instance, item, pydicom_file
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from rle import encode_pixel_data

from pictures_spark.errors import ConfigError
from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import TEXT, applicable, computed, declared, features, named, roll_up
from pictures_spark.pixels.measures import intensity as first_order
from pictures_spark.pixels.measures.intensity import Distribution
from pictures_spark.resources import load_schema

LIMIT = 10_000_000
RNG = np.random.default_rng(5)
SIGNED = RNG.integers(-1024, 3000, (12, 9)).astype(np.int16)
PLACE = {"PixelSpacing": ["2", "2"], "SliceThickness": "1", "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"]}
CT = {"RescaleSlope": "1", "RescaleIntercept": "0", **PLACE}


def measured(dataset, syntax=ExplicitVRLittleEndian, names=None):
    """Values by name, or by name@version where two versions differ in what they mean; reasons in place of values that are not there."""
    found = {}
    for f in features(decode(dicom_bytes(dataset, syntax), LIMIT), names=names):
        said = f.reason if f.status == "failed" else f.value if f.value_text is None else f.value_text
        found[f.feature] = found[f"{f.feature}@{f.version}"] = said
    return found


def assert_same(found, expected, close=1e-9):
    for name, value in expected.items():
        if isinstance(value, str):
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=close, abs=close), name


# --- the registry


def test_every_entry_is_complete_and_every_source_of_it_exists():
    seen = set()
    whole = load_schema("pixels/reasons.yaml")["image"]
    for name, entry in declared().items():
        assert name not in seen, name
        seen.add(name)
        assert entry["level"] in ("image", "series"), name
        assert entry["meaning"], name
        assert entry["source"], name
        assert entry["cost"] >= 0, name
        assert entry.get("rollup") in (None, "mean", "median", "min", "max", "sum"), name
        assert entry["publish"] == ("rollup" in entry), f"{name}: what is published has a series value, what is not has none"
    assert set(computed()) == {name for name, entry in declared().items() if entry["from"] != TEXT}
    assert not set(load_schema("pixels/reasons.yaml")["feature"]) & set(whole)
    assert set(measured(instance())) >= {name.partition("@")[0] for name in applicable("CT")}


def test_a_name_means_its_newest_version():
    assert named(["intensity_mean", "phash@1", "intensity_mean@1", "phash"]) == ["intensity_mean@2", "phash@1", "intensity_mean@1"]


@pytest.mark.parametrize("wrong", ["intensity_mea", "intensity_mean@9", "text_area", ""])
def test_a_feature_that_is_not_computed_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match="no such feature is computed from pixels"):
        named(["phash", wrong])


def test_a_feature_is_asked_of_its_modalities_only():
    assert "body_area@1" in applicable("CT")
    assert "body_area@1" not in applicable("MR")
    assert applicable(None) == applicable("US")
    assert "body_area@1" not in measured(instance(Modality="MR"))


# --- the table: feature, image, value by hand. One row adds a feature.


def disc(size=64, radius=20, inside=40, outside=-1000):
    y, x = np.ogrid[:size, :size]
    return np.where((y - size // 2) ** 2 + (x - size // 2) ** 2 <= radius**2, inside, outside).astype(np.int16)


def block(inside=40, outside=-1000, size=64, low=16, high=48):
    made = np.full((size, size), outside, np.int16)
    made[low:high, low:high] = inside
    return made


def parts(**shares):
    """A body of 32 x 32 pixels, its rows filled from the top with 32 x share rows of a value each; the rest is 40 HU."""
    made = block()
    row = 16
    for value, rows in shares.values():
        made[row : row + rows, 16:48] = value
        row += rows
    return made


def lungs(low):
    made = block(size=64, low=4, high=60)
    made[10:40, 10:25] = -800
    made[10:40, 35:50] = -800
    made[10 : 10 + low, 10:25] = -980
    return made


GREY = np.arange(64, dtype=np.uint16).reshape(8, 8)
RAMP = np.tile(np.arange(64, dtype=np.uint16) * 10, (64, 1))
TWO = np.array([[0, 0, 0, 4]], np.uint16)
COLOUR = np.zeros((1, 4, 4, 3), np.uint8)
COLOUR[0, :2] = (200, 10, 10)
COLOUR[0, 2:] = (90, 90, 92)
RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "Modality": "US"}
PADDED = np.array([[-2000, 0], [10, 20]], np.int16)
PAD = {"PixelPaddingValue": -2000}
HEAD = {**CT, "BodyPartExamined": "HEAD"}
LIVER = {**CT, "BodyPartExamined": "ABDOMEN", "PixelSpacing": ["6", "6"]}

TABLE = [
    ("intensity_mean@1", PADDED, PAD, (-2000 + 30) / 4),
    ("intensity_mean@2", PADDED, PAD, 10),
    ("intensity_p05@1", GREY, {}, 63 * 0.05),
    ("intensity_p05@2", PADDED, PAD, 1),
    ("intensity_p50@1", GREY, {}, 31.5),
    ("intensity_p50@2", PADDED, PAD, 10),
    ("intensity_p95@1", GREY, {}, 63 * 0.95),
    ("intensity_p95@2", PADDED, PAD, 19),
    ("intensity_variance", TWO, {}, 3),
    ("intensity_skewness", TWO, {}, 2 / math.sqrt(3)),
    ("intensity_kurtosis", TWO, {}, (3 * 1 + 81) / 4 / 9 - 3),
    ("intensity_min", PADDED, PAD, 0),
    ("intensity_p10", GREY, {}, 6.3),
    ("intensity_p90", GREY, {}, 56.7),
    ("intensity_max", PADDED, PAD, 20),
    ("intensity_iqr", GREY, {}, 31.5),
    ("intensity_entropy", GREY, {}, 6),
    ("intensity_entropy", TWO, {}, 2 - 0.75 * math.log2(3)),
    ("intensity_uniformity", TWO, {}, (9 + 1) / 16),
    ("unique_values", PADDED, PAD, 3),
    ("pixel_sha256", GREY, {}, hashlib.sha256(b"<u2|1x8x8|" + GREY.tobytes()).hexdigest()),
    ("phash", np.zeros((8, 8), np.uint16), {}, "0" * 16),
    ("air_fraction", parts(a=(-1000, 0)), CT, 0),
    ("lung_fraction", lungs(0), CT, 2 * 30 * 15 / 56**2),
    ("fat_fraction", parts(a=(-100, 8)), CT, 8 / 32),
    ("soft_fraction", parts(a=(-100, 8)), CT, 24 / 32),
    ("bone_fraction", parts(a=(800, 4), b=(3000, 2)), CT, 4 / 32),
    ("metal_fraction", parts(a=(800, 4), b=(3000, 2)), CT, 2 / 32),
    ("laa950_fraction", lungs(6), CT, 6 / 60),
    ("body_area", block(), CT, 32 * 32 * 4 / 100),
    ("body_left", block(), CT, 16),
    ("body_top", block(), CT, 16),
    ("body_right", block(), CT, 48),
    ("body_bottom", block(), CT, 48),
    ("body_truncation", block(low=0, high=32), CT, (32 + 31) / (4 * 31)),
    ("body_truncation", block(), CT, 0),
    ("foreground_fraction", block(), CT, 0.25),
    ("constant_border_fraction", block(), CT, 0.75),
    ("constant_border_fraction", block(low=0, high=64), CT, 1),
    ("noise_sigma", RAMP, {}, 0),
    ("noise_sigma", block(), CT, 0),
    ("sharpness", RAMP, {}, 0),
    ("blank", PADDED, {**PAD, "PixelPaddingRangeLimit": 10}, 1),
    ("blank", GREY, {}, 0),
    ("saturated_fraction", np.full((2, 2), 4095, np.uint16) - TWO.reshape(2, 2), {"BitsStored": 12, "HighBit": 11}, 0.75),
    ("colour_fraction", COLOUR, RGB, 0.5),
    ("colour_fraction", GREY, {}, 0),
    ("soft_tissue_p99", disc(), CT, 40),
    ("vessel_fraction", disc(inside=200), CT, 1),
    ("contrast_evidence", disc(), CT, 0),
    ("contrast_evidence", disc(inside=200), CT, 2),
    ("contrast_evidence", disc(inside=200), {**CT, "ContrastBolusAgent": "Iohexol"}, 3),
    ("contrast_evidence", disc(), {**CT, "SeriesDescription": "Venous phase post contrast"}, 1),
    ("contrast_evidence", disc(), {**CT, "ContrastBolusAgent": "Iohexol", "SeriesDescription": "without contrast"}, 0),
    ("liver_mean", disc(inside=55), LIVER, 55),
    ("face_risk", disc(), HEAD, 3),
    ("face_risk", disc(), {**HEAD, "SliceThickness": "5"}, 2),
    ("face_risk", block(low=0, high=40), HEAD, 2),
    ("face_risk", disc(), {**CT, "BodyPartExamined": "KNEE"}, 0),
    ("face_risk", disc(), CT, 2),
]


def test_the_table_has_every_computed_feature():
    assert {name.partition("@")[0] for name, *_ in TABLE} == {name.partition("@")[0] for name in computed()}


@pytest.mark.parametrize(("name", "pixels", "header", "expected"), TABLE, ids=[f"{n}-{row[0]}" for n, row in enumerate(TABLE)])
def test_features_by_hand(name, pixels, header, expected):
    found = measured(instance(pixels, **header))
    assert found[name] == pytest.approx(expected, rel=1e-6, abs=1e-6) if not isinstance(expected, str) else found[name] == expected


MISSING = [
    ("intensity_mean", GREY, {"RescaleSlope": "0", "RescaleIntercept": "0"}, "no_rescale"),
    ("intensity_mean", PADDED, {**PAD, "PixelPaddingRangeLimit": 30}, "only_padding"),
    ("air_fraction", block(), PLACE, "no_rescale"),
    ("air_fraction", block(), {**CT, "RescaleType": "US"}, "not_hu"),
    ("air_fraction", block(), {**CT, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "not_hu"),
    ("air_fraction", block(inside=-1000), CT, "no_body"),
    ("body_area", block(), {**CT, "PixelSpacing": None}, "no_spacing"),
    ("body_area", block(), {**CT, "PixelSpacing": ["0", "1"]}, "no_spacing"),
    ("laa950_fraction", block(), CT, "no_lung"),
    ("soft_tissue_p99", np.where(np.indices((64, 64)).sum(0) % 16 < 8, 0, 900).astype(np.int16), CT, "no_even_tissue"),
    ("noise_sigma", np.full((20, 20), 7, np.uint16), {}, "blank"),
    ("noise_sigma", GREY, {}, "no_foreground"),
    ("sharpness", block(), CT, "blank"),
    ("foreground_fraction", np.full((4, 4), 7, np.uint16), {}, "blank"),
    ("liver_mean", disc(), CT, "not_abdomen"),
    ("liver_mean", disc(), {**LIVER, "ImageOrientationPatient": None}, "no_geometry"),
    ("liver_mean", disc(), {**LIVER, "ImageOrientationPatient": ["1", "0", "0", "0", "0", "-1"]}, "not_axial"),
    ("liver_mean", disc(inside=400), LIVER, "no_liver"),
    ("face_risk", disc(), {**HEAD, "SliceThickness": None}, "no_spacing"),
    ("face_risk", disc(), {**HEAD, "ImageOrientationPatient": None}, "no_geometry"),
]


@pytest.mark.parametrize(("name", "pixels", "header", "reason"), MISSING, ids=[f"{n}-{row[0]}" for n, row in enumerate(MISSING)])
def test_what_is_missing_has_a_reason(name, pixels, header, reason):
    given_ct = {"PixelSpacing": None, "SliceThickness": None, "ImageOrientationPatient": None}
    made = instance(pixels, **{k: v for k, v in header.items() if v is not None or k not in given_ct})
    assert measured(made)[name] == reason


def test_a_feature_that_fails_leaves_the_others():
    found = measured(instance(RescaleSlope="0", RescaleIntercept="0"))
    assert (found["intensity_mean"], found["air_fraction"], found["foreground_fraction"]) == ("no_rescale", "no_rescale", 0.5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 300)])
@pytest.mark.parametrize("inside", [0, 60])
def test_odd_shapes_give_a_value_or_a_reason(shape, inside):
    pixels = np.where(np.indices(shape).sum(0) % 2, inside, -1000).astype(np.int16)
    found = features(decode(dicom_bytes(instance(pixels, **LIVER)), LIMIT))
    assert len(found) == len(applicable("CT"))
    assert all((f.status == "ok") == (f.reason is None) for f in found)


# What headers say, right and wrong.
HEADERS = {
    "RescaleSlope": ["1", "0", "-1", "1e300", "1\\2"],
    "RescaleIntercept": ["0", "-1024", "1e308"],
    "PixelSpacing": [["1", "1"], ["0", "1"], ["1"]],
    "SliceThickness": ["1", "", "-1"],
    "ImageOrientationPatient": [["1", "0", "0", "0", "1", "0"], ["0"] * 6, ["1", "0"], ["0", "1", "0", "0", "0", "-1"]],
    "PixelPaddingValue": [0, 65535, [1, 2]],
    "PixelPaddingRangeLimit": [5],
    "BodyPartExamined": ["ABDOMEN", "HEAD", ""],
    "ImageType": [["ORIGINAL", "PRIMARY"], "", "X"],
    "RescaleType": ["HU", "US", ""],
    "BitsStored": [8, 12, 16],
    "PhotometricInterpretation": ["MONOCHROME1", "PALETTE COLOR", "RGB", ""],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.uint32, np.int32])
def test_whatever_a_header_says_every_feature_has_a_value_or_a_reason(kind):
    rng = np.random.default_rng(7)
    info = np.iinfo(kind)
    for shape in [(1, 1), (2, 3), (7, 50), (40, 40)] * 12:
        header = {name: values[rng.integers(len(values))] for name, values in HEADERS.items() if rng.random() < 0.5}
        pixels = rng.integers(info.min, info.max, shape, kind, endpoint=True) if rng.random() < 0.5 else np.full(shape, 7, kind)
        try:
            data = dicom_bytes(instance(pixels, **header))
        except (OSError, OverflowError, TypeError, ValueError, struct.error):
            continue
        try:
            found = features(decode(data, LIMIT))
        except PixelFault:
            continue
        assert all((f.status == "ok") == (f.reason is None) == (f.value is not None or f.value_text is not None) for f in found), header


# --- the digital phantom of the Image Biomarker Standardisation Initiative

# Its 74 voxels of interest, and the values of the reference manual (chapter 3, tables `Reference values`), to the digits given there.
PHANTOM = Distribution(np.array([1.0, 3.0, 4.0, 6.0]), np.array([50, 1, 16, 7]))
MANUAL = {
    "Q4LE": 2.15,
    "ECT3": 3.05,
    "KE2A": 1.08,
    "IPH6": -0.355,
    "Y12H": 1,
    "1GSF": 1,
    "QG58": 1,
    "8DWT": 4,
    "84IY": 6,
    "SALO": 3,
    "TLU2": 1.27,
    "BJ5W": 0.512,
}


def test_the_phantom_gives_the_published_values():
    by_code = {entry["ibsi"]: entry["function"].removeprefix("intensity.") for entry in declared().values() if "ibsi" in entry}
    assert by_code.keys() == MANUAL.keys()
    for code, value in MANUAL.items():
        assert float(f"{getattr(first_order, by_code[code])(PHANTOM):.3g}") == value, code


def test_six_bins_leave_the_phantom_as_it_is():
    # As the manual says: a fixed bin number of 6 does not alter it.
    assert np.allclose(PHANTOM.shares(6), np.array([50, 0, 1, 16, 0, 7]) / 74)


# --- the slow reference


def scene(seed, size=(56, 48), pad=False):
    """A CT frame of a body with fat, lungs, bone, a vessel, noise and a table."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: size[0], : size[1]]

    def ellipse(cy, cx, ry, rx):
        return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1

    cy, cx = size[0] / 2 + rng.integers(-9, 9), size[1] / 2 + rng.integers(-9, 9)
    hu = np.full(size, -1000.0)
    hu[ellipse(cy, cx, 24, 22)] = -90
    hu[ellipse(cy, cx, 21, 19)] = rng.integers(20, 70)
    hu[ellipse(cy - 4, cx - 9, 9, 5)] = -850 - rng.integers(0, 120)
    hu[ellipse(cy - 4, cx + 9, 9, 5)] = -820
    hu[ellipse(cy + 14, cx, 3, 3)] = rng.integers(300, 3000)
    hu[ellipse(cy + 5, cx + 2, 4, 6)] = rng.integers(100, 220)
    hu[-2:] = -150
    hu += rng.normal(0, rng.choice([1, 6]), size)
    pixels = np.round(hu).astype(np.int16)
    if pad:
        pixels[ellipse(size[0] / 2, size[1] / 2, size[0] / 2 - 1, size[1] / 2 - 1) == 0] = -2000
    return pixels


@pytest.mark.parametrize("seed", range(8))
def test_ct_features_are_those_of_the_slow_reference(seed):
    pad = seed % 3 == 0
    pixels = scene(seed, pad=pad)
    padding = pixels == -2000 if pad else None
    header = {**CT, **({"PixelPaddingValue": -2000} if pad else {})}
    found = measured(instance(pixels, **header))
    values = pixels.astype(np.float64)
    kept = values if padding is None else values[~padding]
    assert_same(found, slow.intensity(kept))
    assert_same(
        found,
        {f"{name}@1": value for name, value in slow.intensity(values).items() if f"{name}@1" in declared() and f"{name}@2" in declared()},
    )
    assert_same(found, slow.hounsfield(values, (2, 2), padding), 1e-5)
    assert_same(found, slow.quality(values, padding), 1e-4)
    assert_same(found, {"constant_border_fraction": slow.constant_border(pixels), "phash": slow.phash(values)})


@pytest.mark.parametrize("seed", range(4))
def test_the_liver_is_that_of_the_slow_reference(seed):
    pixels = scene(seed)
    flip = seed % 2 == 1
    across = ["-1", "0", "0"] if flip else ["1", "0", "0"]
    header = {**LIVER, "PixelSpacing": ["9", "9"], "ImageOrientationPatient": [*across, "0", "1", "0"]}
    expected = slow.liver(pixels.astype(np.float64), (9, 9), flip)
    found = measured(instance(pixels, **header), names=["liver_mean@1"])
    assert_same(found, {"liver_mean": expected})


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("shape", [(64, 96), (40, 50), (128, 128)])
def test_phash_is_that_of_the_slow_reference(shape, inverted):
    pixels = (RNG.integers(0, 40, shape) + np.hypot(*np.indices(shape)) * 9).astype(np.uint16)
    found = measured(instance(pixels, PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2"), names=["phash@1"])
    assert found["phash"] == slow.phash(pixels, inverted)


def test_alike_images_have_near_hashes_and_others_do_not():
    def bits(pixels):
        return int(measured(instance(pixels), names=["phash@1"])["phash"], 16)

    one, other = scene(1), scene(2)
    noisy = (one.astype(int) * 2 + 300 + RNG.integers(-20, 20, one.shape)).astype(np.int16)
    assert (bits(one) ^ bits(noisy)).bit_count() <= 6
    assert (bits(one) ^ bits(other)).bit_count() > 10


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=40),
    st.floats(0, 100, allow_nan=False),
)
def test_percentile_is_numpys(values, q):
    distinct, counts = np.unique(np.array(values) + 0.0, return_counts=True)
    assert Distribution(distinct, counts).percentile(q) == pytest.approx(np.percentile(values, q), rel=1e-9, abs=1e-9)


@settings(max_examples=40)
@given(st.lists(st.integers(-2000, 4000), min_size=1, max_size=60))
def test_statistics_of_any_values_are_those_of_the_slow_reference(values):
    pixels = np.array([values], np.int16)
    found = measured(instance(pixels), names=[name for name in computed() if name.startswith(("intensity", "unique"))])
    assert_same(found, slow.intensity(values), 1e-7)


@pytest.mark.parametrize("rule", ["mean", "median", "min", "max", "sum"])
def test_roll_ups(rule):
    values = [3.0, 1.0, 8.0, 8.0]
    assert roll_up(rule, values) == {"mean": 5, "median": 5.5, "min": 1, "max": 8, "sum": 20}[rule]


# --- values

CASES = [
    ("unsigned 8", RNG.integers(0, 256, (7, 5)).astype(np.uint8), {}, lambda a: a),
    ("signed 16", SIGNED, {}, lambda a: a),
    ("rescaled", SIGNED, {"RescaleSlope": "0.5", "RescaleIntercept": "-10"}, lambda a: a * 0.5 - 10),
    ("intercept only", SIGNED, {"RescaleIntercept": "-1024"}, lambda a: a - 1024.0),
    ("falling slope", SIGNED, {"RescaleSlope": "-2", "RescaleIntercept": "1"}, lambda a: a * -2.0 + 1),
    ("unsigned 32", RNG.integers(0, 2**31, (6, 6)).astype(np.uint32), {}, lambda a: a),
    ("signed 32", RNG.integers(-(2**31), 2**31, (6, 6)).astype(np.int32), {}, lambda a: a),
    ("three frames", RNG.integers(0, 4000, (3, 8, 8)).astype(np.uint16), {"NumberOfFrames": "3"}, lambda a: a),
]


@pytest.mark.parametrize(("pixels", "header", "values"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_intensity_of_every_kind_of_sample(pixels, header, values):
    assert_same(measured(instance(pixels, **header)), slow.intensity(values(pixels.astype(np.float64))))


def test_each_frame_of_an_enhanced_image_has_its_own_rescale():
    pixels = np.stack([np.arange(16, dtype=np.uint16).reshape(4, 4)] * 2)
    groups = [item(PixelValueTransformationSequence=[item(RescaleSlope=s, RescaleIntercept="0", RescaleType="US")]) for s in ("1", "10")]
    found = measured(instance(pixels, NumberOfFrames="2", PerFrameFunctionalGroupsSequence=groups))
    assert_same(found, slow.intensity(np.concatenate([pixels[0], pixels[1] * 10.0])))


def test_shared_groups_of_an_enhanced_image():
    pixels = np.stack([disc()] * 2)
    measures = item(PixelSpacing=["2", "2"], SliceThickness="1")
    plane = item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])
    rescale = item(RescaleSlope="1", RescaleIntercept="0", RescaleType="HU")
    shared = item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane], PixelValueTransformationSequence=[rescale])
    enhanced = measured(instance(pixels, NumberOfFrames="2", SharedFunctionalGroupsSequence=[shared], BodyPartExamined="HEAD"))
    classic = measured(instance(pixels[0], **HEAD))
    same = {name: value for name, value in classic.items() if name.partition("@")[0] not in ("pixel_sha256",)}
    assert_same(enhanced, same)


def test_a_modality_lut_is_applied_to_pixels_too():
    lut = item(LUTDescriptor=[64, 0, 16], LUTData=(np.arange(64, dtype=np.uint16) * 3).tobytes(), ModalityLUTType="US")
    found = measured(instance(GREY, ModalityLUTSequence=[lut]))
    assert_same(found, slow.intensity(GREY.astype(float) * 3))
    assert measured(instance(block(), ModalityLUTSequence=[lut], **PLACE))["body_area"] == pytest.approx(64 * 64 * 4 / 100)


def test_colour_is_measured_by_its_luma():
    pixels = RNG.integers(0, 256, (1, 40, 40, 3)).astype(np.uint8)
    dataset = instance(pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    luma = (pixels[0] @ np.array([299, 587, 114])) / 1000
    found = measured(dataset)
    assert_same(found, slow.intensity(luma), 1e-7)
    assert_same(found, slow.quality(luma), 1e-4)
    assert found["air_fraction"] == "not_hu"


def palette(pixels, **values):
    """An image of indices into tables of 256 colours."""
    ramp = np.arange(256, dtype=np.uint16) * 257
    tables = {f"{colour}PaletteColorLookupTable": table for colour, table in (("Red", ramp), ("Green", ramp), ("Blue", ramp[::-1]))}
    given = {f"{name}Descriptor": [256, 0, 16] for name in tables} | {f"{name}Data": t.tobytes() for name, t in tables.items()}
    return instance(pixels, **{"PhotometricInterpretation": "PALETTE COLOR", "Modality": "US", **given, **values})


def test_a_palette_is_measured_by_its_colours_and_hashed_by_its_indices():
    pixels = RNG.integers(0, 256, (9, 9)).astype(np.uint8)
    red, blue = pixels.astype(float) * 257, (255 - pixels.astype(float)) * 257
    found = measured(palette(pixels))
    assert_same(found, slow.intensity((red * 886 + blue * 114) / 1000), 1e-7)
    assert found["colour_fraction"] == pytest.approx((abs(red - blue) > 0.06 * 65535).mean())
    assert found["pixel_sha256"] == hashlib.sha256(b"|u1|1x9x9|" + pixels.tobytes()).hexdigest()


def test_a_palette_without_its_tables_is_undecodable():
    with pytest.raises(PixelFault) as caught:
        measured(palette(np.zeros((4, 4), np.uint8), RedPaletteColorLookupTableData=b""))
    assert caught.value.reason == "undecodable"


def test_floats_are_measured_and_what_is_no_number_is_said():
    def made(values):
        dataset = instance(np.zeros((3, 4), np.uint32), Modality="MR")
        del dataset.PixelData
        dataset.FloatPixelData = values.astype("<f4").tobytes()
        return dataset

    values = RNG.normal(0, 100, (3, 4)).astype(np.float32)
    found = measured(made(values))
    assert_same(found, slow.intensity(values))
    assert found["saturated_fraction"] == "no_bit_depth"
    values[1, 1] = np.nan
    found = measured(made(values))
    assert {found[name] for name in ("intensity_mean", "foreground_fraction", "noise_sigma", "blank")} == {"not_finite"}
    assert len(found["pixel_sha256"]) == 64


def test_frames_roll_up_to_their_image():
    frames = np.stack([block(low=16, high=48), block(low=20, high=40), block(inside=-1000)])
    found = measured(instance(frames, NumberOfFrames="3", **CT))
    assert found["body_area"] == pytest.approx((32**2 + 20**2) / 2 * 4 / 100)
    assert (found["body_left"], found["body_right"], found["blank"]) == (16, 48, 0)
    assert found["soft_fraction"] == 1
    assert found["constant_border_fraction"] == pytest.approx(1 - (20 / 64) ** 2)


# --- what must not change a feature


def test_the_hash_tells_shapes_and_types_apart():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    hashes = {measured(instance(p))["pixel_sha256"] for p in (pixels, pixels.T.copy(), pixels.astype(np.int16), pixels[::-1].copy())}
    assert len(hashes) == 4


def encoded(dataset, how):
    """The same image in another encoding: bytes of a file."""
    match how:
        case "implicit":
            return dicom_bytes(dataset, ImplicitVRLittleEndian)
        case "deflated":
            return dicom_bytes(dataset, "1.2.840.10008.1.2.1.99")
        case "big endian":
            swapped = pydicom.dcmread(BytesIO(dicom_bytes(dataset)))
            kind = np.dtype(f"u{swapped.BitsAllocated // 8}")
            turned = np.frombuffer(swapped.PixelData, kind).byteswap().tobytes() if kind.itemsize > 1 else swapped.PixelData
            swapped["PixelData"]._value = turned
            return dicom_bytes(swapped, ExplicitVRBigEndian)
        case "stored" | "deflated frames":
            frames = np.frombuffer(dataset.PixelData, np.uint8).reshape(int(dataset.get("NumberOfFrames", 1)), -1)
            packed = [f.tobytes() if how == "stored" else zlib.compress(f.tobytes(), wbits=-15) for f in frames]
            dataset = pydicom.dcmread(BytesIO(dicom_bytes(dataset)))
            dataset.PixelData = encapsulate([p + b"\0" * (len(p) % 2) for p in packed], has_bot=False)
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            stored = dicom_bytes(dataset, STORED)
            # pydicom does not write a transfer syntax that it has no name for.
            return stored if how == "stored" else stored.replace(STORED.encode(), b"1.2.840.10008.1.2.8.1\0")
        case "rle":
            packed = pydicom.dcmread(BytesIO(dicom_bytes(dataset)))
            count = int(dataset.get("NumberOfFrames", 1))
            size = len(dataset.PixelData) // count
            frames = [dataset.PixelData[n * size : (n + 1) * size] for n in range(count)]
            # pydicom's own way of asking its encoder tears bytes apart where no more than 8 of 16 bits are stored.
            coded = [encode_pixel_data(f, dataset, "<") for f in frames]
            packed.PixelData = encapsulate(coded)
            packed["PixelData"].VR = "OB"
            packed["PixelData"].is_undefined_length = True
            return dicom_bytes(packed, RLELossless)
        case "jpeg lossless" | "jpeg lossless of any order":
            return by_gdcm(dataset, "JPEGLosslessProcess14" + ("_1" if how == "jpeg lossless" else ""))
    syntax, plugin = {
        "jpeg-ls": (JPEGLSLossless, "pyjpegls"),
        "jpeg 2000": (JPEG2000Lossless, "pylibjpeg"),
    }[how]
    packed = pydicom.dcmread(BytesIO(dicom_bytes(dataset)))
    packed.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return dicom_bytes(packed, syntax)


STORED = "1.2.840.10008.1.2.1.98"
WAYS = [
    "implicit",
    "deflated",
    "big endian",
    "stored",
    "deflated frames",
    "rle",
    "jpeg-ls",
    "jpeg 2000",
    "jpeg lossless",
    "jpeg lossless of any order",
]


def can_hold(way, allocated, stored):
    """Whether an encoder that is installed makes such an image.

    JPEG-LS has no samples of one bit (ISO/IEC 14495-1, C.2.4.1.1); of JPEG 2000 with samples of one bit pylibjpeg's encoder writes one in
    300 wrong (all decoders agree on it, and read every one of another encoder), and it has none above 24 bits.
    """
    match way:
        case "jpeg-ls":
            return allocated <= 16 and stored >= 2
        case "jpeg 2000":
            return 2 <= stored <= 24
        case "jpeg lossless" | "jpeg lossless of any order":
            return allocated <= 16
    return True


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25)
@given(st.data())
def test_no_encoding_changes_any_feature(data):
    way = data.draw(st.sampled_from(WAYS))
    kind = data.draw(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]))
    allocated = 8 * np.dtype(kind).itemsize
    stored = data.draw(st.integers(1, allocated))
    assume(can_hold(way, allocated, stored))
    frames = data.draw(st.integers(1, 2))
    shape = data.draw(st.tuples(st.integers(33, 40), st.integers(33, 40)))
    assume(not way.startswith("jpeg lossless") or shape[0] * shape[1] % 2 == 0)
    signed = np.dtype(kind).kind == "i"
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # Slopes with a little noise, from the lowest value to the highest: what is all noise is larger than JPEG-LS's encoder expects.
    slope = np.indices((frames, *shape)).sum(axis=0) / (frames + sum(shape) - 3)
    pixels = np.clip(np.round(low + slope * (high - low)) + rng.integers(-1, 2, slope.shape), low, high).astype(kind)
    header = {**CT, "NumberOfFrames": str(frames), "BitsStored": stored, "HighBit": stored - 1}
    dataset = instance(pixels, **header)
    plain = features(decode(dicom_bytes(dataset), LIMIT))
    assert features(decode(encoded(dataset, way), LIMIT)) == plain, way


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
def test_every_depth_in_every_lossless_syntax_gives_the_same_pixels(kind, way):
    bits = 8 * np.dtype(kind).itemsize
    for stored in range(1, bits + 1):
        if not can_hold(way, bits, stored):
            continue
        low = -(1 << (stored - 1)) if np.dtype(kind).kind == "i" else 0
        pixels = np.linspace(low, low + (1 << stored) - 1, 35 * 36).round().astype(kind).reshape(1, 35, 36)
        dataset = instance(pixels, NumberOfFrames="1", BitsStored=stored, HighBit=stored - 1)
        (frame,) = decode(encoded(dataset, way), LIMIT).frames()
        assert frame.dtype == kind, stored
        assert np.array_equal(frame, pixels[0]), stored


@pytest.mark.filterwarnings("ignore")
def test_rle_that_its_writer_tore_apart_is_refused():
    """pydicom 3.0.2 writes such files where no more than 8 of 16 bits are stored; no reader has them, its own neither."""
    dataset = instance(RNG.integers(0, 256, (33, 37)).astype(np.uint16), BitsStored=8, HighBit=7)
    dataset = pydicom.dcmread(BytesIO(dicom_bytes(dataset)))
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    with pytest.raises(PixelFault) as caught:
        list(decode(dicom_bytes(dataset, RLELossless), LIMIT).frames())
    assert caught.value.reason == "undecodable"


def test_planes_change_nothing():
    colour = RNG.integers(0, 256, (2, 6, 7, 3)).astype(np.uint8)
    header = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "NumberOfFrames": "2"}
    by_pixel = instance(colour, PlanarConfiguration=0, **header)
    by_plane = instance(colour, PlanarConfiguration=1, **header)
    by_plane.PixelData = np.moveaxis(colour, 3, 1).tobytes()
    assert measured(by_plane) == measured(by_pixel)


def test_bits_that_are_not_stored_change_nothing():
    pixels = RNG.integers(0, 4096, (9, 9)).astype(np.uint16)
    overlaid = pixels | (RNG.integers(0, 16, (9, 9)).astype(np.uint16) << 12)
    header = {"BitsStored": 12, "HighBit": 11}
    assert measured(instance(overlaid, **header)) == measured(instance(pixels, **header))
    signed = RNG.integers(-2048, 2048, (9, 9)).astype(np.int16)
    cut = (signed.view(np.uint16) & 0x0FFF).view(np.int16)
    assert measured(instance(cut, **header)) == measured(instance(signed, **header))


def test_the_same_slice_in_five_encodings():
    names = ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm"]
    found = [features(decode(pydicom_file(name), LIMIT)) for name in names]
    assert all(other == found[0] for other in found)
    pixels = pydicom.dcmread(pydicom.data.get_testdata_file(names[0])).pixel_array
    assert_same({f.feature: f.value for f in found[0]}, slow.intensity(pixels))
