"""Text boxes are filled in every kind of pixel data, and every sample outside them is what it was."""

import struct
from io import BytesIO

import numpy as np
import pytest
from instances import dicom_bytes, instance, item, pydicom_file
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from pictures_spark.deid.act import Deidentifier, WithheldError, deidentify
from pictures_spark.deid.dicom_identity import Box, make_identity
from pictures_spark.deid.plan import compile_plan, load_plan
from pictures_spark.deid.verify import verify
from pictures_spark.errors import ConfigError

PLAN = load_plan("default")


def blanked(data, *boxes):
    """The result's bytes, after the check."""
    identity = make_identity(b"k" * 32, "p", 180, verdict="text", boxes=boxes)
    result = deidentify(data, PLAN, identity)
    assert verify(data, result.data, PLAN.policy, identity) == []
    assert result.boxes_blanked == len(boxes)
    return result.data


def frames(data):
    """Decoded samples without any colour conversion: (frames, rows, columns[, samples])."""
    dataset = dcmread(BytesIO(data), force=True)
    syntax = dataset.file_meta.TransferSyntaxUID
    array, about = get_decoder(syntax).as_array(dataset, raw=True)
    return array if int(about["number_of_frames"]) > 1 else array[np.newaxis]


REAL = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPGExtended.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_rle_32bit.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
    "examples_jpeg2k.dcm",
    "image_dfl.dcm",
]


@pytest.mark.parametrize("name", REAL)
def test_real_files_change_inside_the_box_only(name):
    data = pydicom_file(name)
    before = frames(data)
    rows, columns = before.shape[1:3]
    y0, y1, x0, x1 = 0, max(rows // 3, 1), 2 * (columns // 8), 2 * (columns // 4) or columns
    last = len(before) - 1
    result = blanked(data, Box(last, last, x0, y0, x1, y1))
    made, source = dcmread(BytesIO(result)), dcmread(BytesIO(data))
    after = frames(result)
    if made.PhotometricInterpretation == "RGB" != source.PhotometricInterpretation:
        assert source.file_meta.TransferSyntaxUID.is_encapsulated
        before = source.pixel_array.reshape(before.shape)
    else:
        assert made.PhotometricInterpretation == source.PhotometricInterpretation
    assert after.shape == before.shape
    assert after.dtype.itemsize == before.dtype.itemsize
    inside = np.zeros(before.shape[:3], bool)
    inside[last, y0:y1, x0:x1] = True
    assert (after[~inside] == before[~inside]).all()
    assert len(np.unique(after[inside], axis=0)) == 1
    syntax = source.file_meta.TransferSyntaxUID
    same = {RLELossless: source.BitsAllocated <= 16, JPEGLSLossless: True, JPEG2000Lossless: source.SamplesPerPixel == 1}
    assert made.file_meta.TransferSyntaxUID == (syntax if same.get(syntax) else ExplicitVRLittleEndian)
    # What a viewer shows outside the box is the same too.
    shown, was = made.pixel_array.reshape(before.shape), source.pixel_array.reshape(before.shape)
    assert (shown[~inside] == was[~inside]).all()


def test_text_of_frames_that_decoders_refuse_as_they_are_is_blanked():
    """JPEG, 12 bit, whose scan says that it ends at coefficient 0."""
    data = pydicom_file("JPEG-lossy.dcm")
    made = dcmread(BytesIO(blanked(data, Box(0, 0, 100, 100, 300, 200))))
    assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert len(np.unique(made.pixel_array[100:200, 100:300])) == 1
    assert len(np.unique(made.pixel_array)) > 100


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPGExtended.dcm", "examples_jpeg2k.dcm"])
def test_without_boxes_the_encapsulated_bytes_are_copied(name):
    data = pydicom_file(name)
    made = dcmread(BytesIO(deidentify(data, PLAN, make_identity(b"k" * 32, "p", 180, verdict="clean")).data))
    source = dcmread(BytesIO(data))
    assert made.PixelData == source.PixelData
    assert made.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID


def test_rle_frames_that_are_not_hit_are_copied_untouched():
    data = pydicom_file("SC_rgb_rle_16bit_2frame.dcm")
    made = dcmread(BytesIO(blanked(data, Box(1, 1, 0, 0, 5, 5))))
    before = list(generate_frames(dcmread(BytesIO(data)).PixelData, number_of_frames=2))
    after = list(generate_frames(made.PixelData, number_of_frames=2))
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    ("pixels", "header", "fill"),
    [
        (np.array([[5, 9], [7, 8]], np.uint8), {}, 5),
        (np.array([[5, 9], [7, 8]], np.uint8), {"PhotometricInterpretation": "MONOCHROME1"}, 9),
        (np.array([[-5, 9], [7, 8]], np.int16), {}, -5),
        (np.array([[-5, 9], [7, 8]], np.int16), {"PixelPaddingValue": -2000}, -2000),
        (np.array([[-5, 9], [7, 8]], np.int16), {"PhotometricInterpretation": "MONOCHROME1"}, 9),
        (np.array([[5, 9], [7, 8]], np.uint32), {}, 5),
        (
            np.array([[0, 1], [2, 1]], np.uint8),
            {
                "PhotometricInterpretation": "PALETTE COLOR",
                **{f"{c}PaletteColorLookupTableDescriptor": [3, 0, 16] for c in ("Red", "Green", "Blue")},
                **{f"{c}PaletteColorLookupTableData": np.array([900, 500, 10], "<u2").tobytes() for c in ("Red", "Green", "Blue")},
            },
            2,
        ),
    ],
)
def test_fill_reads_as_background(pixels, header, fill):
    made = frames(blanked(dicom_bytes(instance(pixels, **header)), Box(0, 0, 1, 0, 2, 2)))
    assert made[0].tolist() == [[pixels[0, 0], fill], [pixels[1, 0], fill]]


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(("photometric", "dark"), [("RGB", [0, 0, 0]), ("YBR_FULL", [0, 128, 128])])
def test_colour_is_filled_with_black(planar, photometric, dark):
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) + 1
    source = instance(pixels, SamplesPerPixel=3, PhotometricInterpretation=photometric, PlanarConfiguration=planar)
    if planar:
        source.PixelData = np.moveaxis(pixels[0], -1, 0).tobytes()
    made = frames(blanked(dicom_bytes(source), Box(0, 0, 2, 1, 4, 3)))[0]
    assert made[1, 2].tolist() == dark
    expected = pixels[0].copy()
    expected[1:3, 2:4] = dark
    assert (made == expected).all()


def test_single_bit_pixels():
    pixels = np.ones((8, 9), np.uint8)
    source = instance(pixels, BitsAllocated=1, BitsStored=1, HighBit=0)
    source.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    source.PixelData += b"\0" * (len(source.PixelData) % 2)
    pixels[0, 0] = 0
    source.PixelData = bytes([source.PixelData[0] & 0xFE]) + source.PixelData[1:]
    made = frames(blanked(dicom_bytes(source), Box(0, 0, 3, 2, 6, 4)))[0]
    pixels[2:4, 3:6] = 0
    assert (made == pixels).all()


@pytest.mark.parametrize("rle", [False, True])
def test_an_overlay_inside_the_pixel_words_is_cleared(rle):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    source = instance(values | 0x8000, BitsStored=12, HighBit=11)
    source.add_new(0x60000010, "US", 8)
    source.add_new(0x60000102, "US", 15)
    if rle:
        source.file_meta = None
        data = dicom_bytes(source)
        loaded = dcmread(BytesIO(data))
        loaded.compress(RLELossless, generate_instance_uid=False)
        buffer = BytesIO()
        loaded.save_as(buffer, enforce_file_format=True)
        data = buffer.getvalue()
    else:
        data = dicom_bytes(source)
    identity = make_identity(b"k" * 32, "p", 180, verdict="clean")
    made = dcmread(BytesIO(deidentify(data, PLAN, identity).data))
    assert (made.pixel_array == values).all()
    assert not [e for e in made if e.tag.group == 0x6000]


def _undecodable():
    source = instance(np.zeros((8, 8), np.uint8))
    source.PixelData = encapsulate([b"not a JPEG stream "])
    source["PixelData"].is_undefined_length = True
    source["PixelData"].VR = "OB"
    return dicom_bytes(source, JPEGBaseline8Bit)


@pytest.mark.parametrize(
    ("data", "box"),
    [
        (_undecodable, Box(0, 0, 0, 0, 4, 4)),
        (lambda: dicom_bytes(instance()), Box(1, 1, 0, 0, 4, 4)),
        (lambda: dicom_bytes(instance()), Box(0, 3, 0, 0, 4, 4)),
        (lambda: dicom_bytes(instance()), Box(0, 0, 50, 50, 60, 60)),
        (lambda: dicom_bytes(instance()), Box(0, 0, 4, 4, 4, 8)),
        (lambda: dicom_bytes(instance(PixelData=bytes(20))), Box(0, 0, 0, 0, 4, 4)),
        (lambda: pydicom_file("MR_truncated.dcm"), Box(0, 0, 0, 0, 4, 4)),
    ],
)
def test_what_cannot_be_cleaned_is_withheld(data, box):
    with pytest.raises(WithheldError) as caught:
        deidentify(data(), PLAN, make_identity(b"k" * 32, "p", 180, verdict="text", boxes=[box]))
    assert caught.value.reason == "pixels_not_cleanable"


def test_a_box_over_the_edge_is_clipped():
    made = frames(blanked(dicom_bytes(instance()), Box(0, 0, -3, 6, 100, 100)))[0]
    expected = np.arange(64, dtype=np.uint16).reshape(8, 8)
    expected[6:] = 0
    assert (made == expected).all()


def ruled(**pixels):
    """The default plan with pixels that are always blanked."""
    return compile_plan({**PLAN.policy, "pixels": {**PLAN.policy["pixels"], **pixels}})


RULE = {"match": {"Modality": "US", "Manufacturer": "(?i)acme.*", "Rows": "8"}, "box": [0, 0, 8, 2]}


@pytest.mark.parametrize(
    ("values", "rectangles", "regions", "blank"),
    [
        ({"Manufacturer": "Acme 3000"}, [RULE], "keep", [(0, 2, 0, 8)]),
        ({"Manufacturer": "Other"}, [RULE], "keep", []),
        ({"Manufacturer": "Acme", "Modality": "CT"}, [RULE], "blank", []),
        ({"regions": [(1, 2, 5, 6)]}, [], "keep", []),
        ({"regions": [(1, 2, 5, 6)]}, [], "blank", [(0, 2, 0, 8), (7, 8, 0, 8), (2, 7, 0, 1), (2, 7, 6, 8)]),
        ({"regions": [(1, 2, 3, 6), (3, 4, 7, 7)]}, [], "blank", [(0, 2, 0, 8), (2, 8, 0, 1)]),
        ({"regions": []}, [], "blank", []),
    ],
)
def test_rectangles_of_devices_and_around_the_regions_of_ultrasound(values, rectangles, regions, blank):
    pixels = np.arange(10, 74, dtype=np.uint16).reshape(8, 8)
    places = values.pop("regions", None)
    source = instance(pixels, **{"Modality": "US", **values})
    if places is not None:
        names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        source.SequenceOfUltrasoundRegions = Sequence([item(**dict(zip(names, place, strict=True))) for place in places])
    plan = ruled(rectangles=rectangles, outside_ultrasound_regions=regions)
    identity = make_identity(b"k" * 32, "p", 180, verdict="clean")
    deidentifier = Deidentifier(plan)
    for _ in range(4):  # the template, if there is one, does the same
        data = dicom_bytes(source)
        result = deidentifier(data, identity)
        assert verify(data, result.data, plan.policy, identity) == []
        made = dcmread(BytesIO(result.data)).pixel_array
        expected = pixels.copy()
        for y0, y1, x0, x1 in blank:
            expected[y0:y1, x0:x1] = pixels.min()
        assert (made == expected).all()
        assert result.boxes_blanked == len(blank)
        if blank:
            untouched = deidentify(data, ruled(), identity)
            assert "pixels" in {finding.code for finding in verify(data, untouched.data, plan.policy, identity)}


def test_a_rectangle_does_not_replace_a_verdict():
    data = dicom_bytes(instance(Modality="US", Manufacturer="Acme"))
    with pytest.raises(WithheldError, match="text_not_determined"):
        deidentify(data, ruled(rectangles=[RULE]), make_identity(b"k" * 32, "p", 180, verdict="not_determined"))


@pytest.mark.parametrize(
    "pixels",
    [{"rectangles": [{"box": [0, 0, 1, 1]}]}, {"rectangles": [{"match": {"Modality": "US"}, "box": [4, 0, 1, 1]}]},
     {"rectangles": [{"match": {"NoSuchKeyword": "x"}, "box": [0, 0, 1, 1]}]}, {"outside_ultrasound_regions": "maybe"}, {"other": 1}],
)  # fmt: skip
def test_faulty_rectangles_are_refused(pixels):
    with pytest.raises(ConfigError, match="pixels"):
        ruled(**pixels)


def test_a_decoder_that_panics_costs_one_image_and_not_the_job():
    """A run-length frame that runs over its end: the decoder's panic (Rust's) is no Exception."""
    run = b"\x7f" + bytes(128) + b"\0"
    frame = struct.pack("<16I", 2, 64, 194, *[0] * 13) + run + run
    source = instance(np.zeros((8, 8), np.uint16))
    source.PixelData = encapsulate([frame], has_bot=False)
    source["PixelData"].is_undefined_length = True
    data = dicom_bytes(source, RLELossless)
    boxed = make_identity(b"k" * 32, "p", 180, verdict="text", boxes=(Box(0, 0, 1, 1, 4, 4),))
    with pytest.raises(WithheldError, match="pixels_not_cleanable"):
        deidentify(data, PLAN, boxed)
    clean = make_identity(b"k" * 32, "p", 180, verdict="clean")
    changed = deidentify(data, PLAN, clean).data.replace(frame, frame[:-1] + b"\1")
    assert {finding.code for finding in verify(data, changed, PLAN.policy, clean)} == {"undecodable"}
