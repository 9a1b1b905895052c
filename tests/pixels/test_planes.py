"""Text planted in each plane of an image is found, in that plane; planes without text raise no alarm."""

import hashlib
import struct
from io import BytesIO

import numpy as np
import pydicom
import pytest
from instances import by_gdcm, dicom_bytes, instance, item
from planted import anatomy, burn, inked
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.examine import Examiner, Locator
from pictures_spark.pixels.groups import Instance, examine_group
from pictures_spark.pixels.planes import pictures
from pictures_spark.pixels.window import to_8bit
from pictures_spark.pixels.words import matches

SHAPE = (128, 160)
NAME, AT = "MACTAVISH", (40, 20)
INK = inked(SHAPE, NAME, AT, height=16)


def examined(dataset, syntax=ExplicitVRLittleEndian):
    data = dicom_bytes(dataset, syntax)
    looks = Examiner(lambda at: data, 10**8)
    locator = Locator("", None, None, None, hashlib.sha256(data).hexdigest())
    (result,) = examine_group([Instance(locator, True, ())], looks, False)
    return result


def plain(frames=1):
    """An image of 12 bits without text."""
    made = np.stack([anatomy(seed, SHAPE) + 1024 for seed in range(frames)]).clip(0, 4095).astype(np.uint16)
    return made if frames > 1 else made[0]


def with_overlay(mask, position=None, **more):
    pixels = plain()
    values = {"BitsStored": 12, "HighBit": 11, **more}
    if position is not None:
        pixels = pixels | mask.astype(np.uint16) << position
    made = instance(pixels, **values)
    made.add_new(0x60000010, "US", SHAPE[0])
    made.add_new(0x60000011, "US", SHAPE[1])
    made.add_new(0x60000040, "CS", "G")
    made.add_new(0x60000050, "SS", [1, 1])
    made.add_new(0x60000100, "US", 1 if position is None else 16)
    made.add_new(0x60000102, "US", position or 0)
    if position is None:
        made.add_new(0x60003000, "OW", np.packbits(mask.ravel(), bitorder="little").tobytes())
    return made


def planes(result):
    return {(text.plane, text.box.text) for text in result.texts}


def covers(result, plane):
    left = INK.copy()
    for text in result.texts:
        if text.plane == plane:
            left[text.box.y0 : text.box.y1, text.box.x0 : text.box.x1] = False
    return not left.any()


def test_text_in_the_pixels_is_found_there():
    result = examined(instance(burn(anatomy(0, SHAPE), NAME, AT, height=16)))
    assert planes(result) == {("pixel", NAME)}


def test_an_image_without_text_in_any_plane_is_clean():
    assert examined(with_overlay(np.zeros(SHAPE, bool))).verdict == "clean"


@pytest.mark.parametrize("position", [None, 12, 15], ids=["plane", "high bit", "highest bit"])
def test_text_in_an_overlay_is_found(position):
    result = examined(with_overlay(INK, position))
    assert result.verdict == "text"
    assert planes(result) == {("overlay", NAME)}
    assert covers(result, "overlay")


def test_an_overlay_lies_where_its_origin_says():
    made = with_overlay(INK)
    made[0x60000050].value = [11, 21]
    boxes = [text.box for text in examined(made).texts]
    assert min(box.y0 for box in boxes) >= AT[0] - 10
    assert min(box.x0 for box in boxes) >= AT[1]


def test_text_in_unused_bits_that_nothing_declares_counts_as_text_of_the_pixels():
    pixels = plain() | INK.astype(np.uint16) << 13
    assert planes(examined(instance(pixels, BitsStored=12, HighBit=11))) == {("pixel", NAME)}


def test_the_sign_of_a_value_is_no_overlay():
    signed = anatomy(0, SHAPE)
    assert signed.min() < 0
    image = decode(dicom_bytes(instance(signed, BitsStored=12, HighBit=11)), 10**8)
    assert list(pictures(image)) == []


def test_text_in_an_icon_is_found():
    icon = to_8bit(burn(anatomy(0, (64, 96)), NAME, (20, 4), height=12))
    values = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 64, "Columns": 96, "BitsAllocated": 8}
    made = instance(plain(), IconImageSequence=[item(**values, BitsStored=8, HighBit=7, PixelRepresentation=0, PixelData=icon.tobytes())])
    result = examined(made)
    assert {text.plane for text in result.texts} == {"icon"}
    assert any(matches(text.box.text, {"name": [NAME]}) for text in result.texts)


@pytest.mark.parametrize("rows", [64, 4000], ids=["16 bit", "cut short"])
def test_an_icon_that_cannot_be_decoded_is_not_clean(rows):
    made = instance(plain(), IconImageSequence=[item(Rows=rows, Columns=96, BitsAllocated=16, PixelData=b"\0" * 64)])
    assert planes(examined(made)) == {("icon", "")}


def test_an_overlay_that_cannot_be_decoded_is_not_clean():
    made = with_overlay(INK)
    made[0x60003000].value = b"\0\0"
    assert planes(examined(made)) == {("overlay", "")}


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_text_in_unused_bits_of_run_lengths_is_found(declared):
    words = plain() | INK.astype(np.uint16) << 13
    made = with_overlay(INK, 13) if declared else instance(words, BitsStored=12, HighBit=11)
    made.PixelData = encapsulate([run_lengths(words)])
    made["PixelData"].is_undefined_length = True
    assert ("overlay" if declared else "pixel", NAME) in planes(examined(made, RLELossless))
    # Cut short: nobody can tell what lies there.
    made.PixelData = encapsulate([run_lengths(words)[:100]])
    (untold,) = pictures(decode(dicom_bytes(made, RLELossless), 10**8))
    assert (untold.plane, untold.pixels) == ("overlay" if declared else "pixel", None)


def run_lengths(words):
    """A frame of 16-bit words with all their bits, which pydicom's own encoder leaves out (PS3.5 annex G)."""
    planes = [(words >> shift).astype(np.uint8) for shift in (8, 0)]
    coded = []
    for plane in planes:
        rows = b"".join(rle_encode_row(row) for row in plane)
        coded.append(rows + b"\0" * (len(rows) % 2))
    starts = [64, 64 + len(coded[0])]
    return struct.pack("<16I", 2, *starts, *[0] * 13) + b"".join(coded)


def rle_encode_row(row):
    """Literal runs of at most 128 bytes."""
    pieces = [row[at : at + 128].tobytes() for at in range(0, len(row), 128)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def compressed(words, syntax, **values):
    """Words of 16 bits, all of which the codestream holds, and a header that says something else of them."""
    whole = instance(words)
    if syntax == JPEGLosslessSV1:
        made = pydicom.dcmread(BytesIO(by_gdcm(whole, "JPEGLosslessProcess14_1")))
    else:
        dicom_bytes(whole)
        whole.compress(syntax, generate_instance_uid=False)
        made = whole
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("high", "position"), [(11, 13), (11, 15), (15, 1)], ids=["above", "highest", "below"])
def test_text_in_unused_bits_of_lossless_codestreams_is_found(syntax, signed, high, position):
    words = plain() << (high - 11) | INK.astype(np.uint16) << position
    made = compressed(words, syntax, BitsStored=12, HighBit=high, PixelRepresentation=signed)
    result = examined(made, syntax)
    assert ("pixel", NAME) in planes(result)
    assert covers(result, "pixel")


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize(("bits", "again"), [(12, False), (16, True)], ids=["12 bits", "16 bits"])
def test_only_codestreams_with_bits_to_spare_are_decoded_again(syntax, bits, again):
    made = instance(plain(2), NumberOfFrames=2, BitsStored=bits, HighBit=bits - 1)
    dicom_bytes(made)
    made.compress(syntax, generate_instance_uid=False)
    made.BitsStored, made.HighBit = 12, 11
    decoded = []
    image = decode(dicom_bytes(made, syntax), 10**8, lambda: decoded.append(True))
    # 12 bits were stored, so there is nothing in the others.
    assert list(pictures(image)) == []
    # Of the last frame nobody says that it is done with.
    assert bool(decoded) == again


def test_a_deep_codestream_that_does_not_decode_with_all_its_bits_is_not_clean():
    made = compressed(plain(), JPEG2000Lossless, BitsStored=12, HighBit=11)
    (frame,) = generate_frames(made.PixelData, number_of_frames=1)
    made.PixelData = encapsulate([frame[: len(frame) // 2]])
    made["PixelData"].is_undefined_length = True
    (untold,) = pictures(decode(dicom_bytes(made, JPEG2000Lossless), 10**8))
    assert (untold.plane, untold.pixels) == ("pixel", None)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLosslessSV1, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize(("stored", "high", "signed"), [(12, 15, 0), (10, 13, 0), (12, 15, 1)])
def test_text_in_values_that_do_not_begin_at_the_lowest_bit_is_found(syntax, stored, high, signed):
    value = (plain() >> (12 - stored)).astype(np.int64)
    value[INK] += 1 << (stored - 2)
    value = value.clip(0, (1 << stored) - 1) - (signed << (stored - 1))
    words = ((value & ((1 << stored) - 1)) << (high + 1 - stored)).astype(np.uint16)
    header = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": signed}
    made = instance(words, **header) if syntax == ExplicitVRLittleEndian else compressed(words, syntax, **header)
    result = examined(made, syntax)
    assert ("pixel", NAME) in planes(result)
    assert covers(result, "pixel")


def test_an_overlay_in_the_bits_of_other_compressed_pixels_is_not_clean():
    made = with_overlay(INK, 12)
    dicom_bytes(made)
    made.compress(JPEG2000Lossless)
    assert ("overlay", "") in planes(examined(made, JPEG2000Lossless))


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("kind", ["32 bit", "colour", "colour by plane"])
def test_text_in_unused_bits_of_colours_and_long_words_is_found(kind, declared):
    values = {"BitsStored": 12, "HighBit": 11}
    if kind == "32 bit":
        pixels, position = plain().astype(np.uint32) | INK.astype(np.uint32) << 24, 24
    else:
        values |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": int(kind == "colour by plane")}
        values |= {"Rows": SHAPE[0], "Columns": SHAPE[1]}
        position = 13
        colours = np.stack([plain(), plain() | INK.astype(np.uint16) << position, plain()], axis=2)
        pixels = np.moveaxis(colours, 2, 0) if kind == "colour by plane" else colours
    made = instance(plain(), **values, BitsAllocated=8 * pixels.itemsize, PixelData=np.ascontiguousarray(pixels).tobytes())
    if declared:
        for element, value in ((0x0010, SHAPE[0]), (0x0011, SHAPE[1]), (0x0100, 8 * pixels.itemsize), (0x0102, position)):
            made.add_new(0x60000000 | element, "US", value)
    result = examined(made)
    assert ("overlay" if declared else "pixel", NAME) in planes(result)
    assert covers(result, "overlay" if declared else "pixel")


def test_text_of_curves_and_graphic_annotations_is_found():
    made = instance(
        plain(),
        GraphicAnnotationSequence=[
            item(
                TextObjectSequence=[
                    item(
                        UnformattedTextValue="Morag MacTavish",
                        BoundingBoxAnnotationUnits="PIXEL",
                        BoundingBoxTopLeftHandCorner=[11.0, 21.0],
                        BoundingBoxBottomRightHandCorner=[60.0, 40.0],
                    ),
                    item(UnformattedTextValue="no place"),
                    item(UnformattedTextValue="at all"),
                ]
            )
        ],
    )
    made.add_new(0x50000022, "LO", "ECG of MacTavish")
    result = examined(made)
    found = {(text.plane, text.box.text): text.box.sides for text in result.texts}
    assert found == {
        ("graphic", "Morag MacTavish"): (10, 20, 60, 40),
        ("graphic", "no place | at all"): (0, 0, 0, 0),
        ("curve", "ECG of MacTavish"): (0, 0, 0, 0),
    }


def test_overlays_of_single_frames_hold_for_these():
    mask = np.stack([np.zeros(SHAPE, bool), INK, INK])
    made = with_overlay(mask)
    made.NumberOfFrames = 3
    made.PixelData = plain(3).tobytes()
    made.add_new(0x60000015, "IS", "3")
    result = examined(made)
    assert {(text.frame_from, text.frame_to) for text in result.texts} == {(1, 2)}


def test_text_on_a_bright_banner_beyond_the_percentiles_is_found():
    frame = np.random.default_rng(1).integers(0, 900, (160, 240)).astype(np.uint16)
    mask = inked((160, 240), "MACDONALD", (8, 10), height=16)
    # A narrow banner, as bright as metal, in which the letters are a little brighter.
    frame[6:30, 6:110] = 3200
    frame[mask] = 3900
    frame[100:103, 100:103] = 4095
    result = examined(instance(frame))
    assert "MACDONALD" in {text.box.text for text in result.texts}
