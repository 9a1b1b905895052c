"""Decoding: what pydicom and a second decoder say, and a refusal for every way of being wrong."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from instances import dicom_bytes, instance, pydicom_file, pydicom_files
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, get_decoder, get_encoder
from pydicom.uid import MPEG2MPML, JPEGLSLossless, RLELossless

from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.resources import load_schema

LIMIT = 500_000_000
# Broken, or beyond every decoder that is installed, pydicom's included.
UNDECODABLE = {
    "JPEG-lossy.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "MR_truncated.dcm",
    "badVR.dcm",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
}
LOSSLESS = {"1.2.840.10008.1.2.5", *(f"1.2.840.10008.1.2.4.{n}" for n in ("57", "70", "80", "90", "201", "202"))}


def with_pixels():
    found = []
    for path in pydicom_files():
        try:
            dataset = pydicom.dcmread(path, force=True)
            if "PixelData" in dataset:
                found.append(path)
        except Exception:  # noqa: BLE001 - what is no DICOM at all is not what is tested here
            continue
    return found


def decoded(data):
    image = decode(data, LIMIT)
    return image, np.stack(list(image.frames()))


@pytest.mark.filterwarnings("ignore")
def test_every_file_of_the_wheel_decodes_to_what_pydicom_gives_or_is_known_not_to():
    wrong, refused = [], set()
    paths = with_pixels()
    assert len(paths) > 80
    for path in paths:
        try:
            image, frames = decoded(path.read_bytes())
        except PixelFault as fault:
            refused.add((path.name, fault.reason))
            continue
        reference = pydicom.dcmread(path, force=True).pixel_array
        reference = reference[None] if image.frame_count == 1 else reference
        if frames.shape != reference.shape or not np.array_equal(frames, reference):
            wrong.append(path.name)
        assert frames.dtype.isnative
    assert wrong == []
    assert refused == {(name, "undecodable") for name in UNDECODABLE}


@pytest.mark.filterwarnings("ignore")
def test_lossless_syntaxes_agree_with_a_second_decoder():
    compared = set()
    for path in with_pixels():
        if path.name in UNDECODABLE:
            continue
        dataset = pydicom.dcmread(path, force=True)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        if syntax not in LOSSLESS:
            continue
        _, ours = decoded(path.read_bytes())
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        for plugin in set(decoder.available_plugins) - {load_schema("pixels/decoders.yaml")["syntaxes"][syntax][0]}:
            try:
                theirs, _ = decoder.as_array(dataset, decoding_plugin=plugin)
            except RuntimeError:  # a plugin need not do every depth
                continue
            assert np.array_equal(ours.squeeze(), theirs.squeeze()), (path.name, plugin)
            compared.add(syntax)
    assert len(compared) >= 3


def test_every_pinned_plugin_is_installed():
    for syntax, plugins in load_schema("pixels/decoders.yaml")["syntaxes"].items():
        if plugins not in (["native"], ["stored"], ["deflated"]):
            assert set(plugins) <= set(get_decoder(syntax).available_plugins), syntax


def test_frames_by_index_are_those_of_the_whole():
    image, frames = decoded(pydicom_file("rtdose_rle.dcm"))
    picked = list(image.frames([14, 0, 7]))
    assert [np.array_equal(a, frames[i]) for a, i in zip(picked, (14, 0, 7), strict=True)] == [True] * 3


def test_multi_frame_with_an_empty_offset_table():
    frames = [np.full((4, 4), n, np.uint8) for n in (3, 7)]
    image = instance(np.stack(frames), NumberOfFrames="2")
    rle = [get_encoder(RLELossless).encode(image, index=n, encoding_plugin="pydicom") for n in (0, 1)]
    image.PixelData = encapsulate(rle, has_bot=False)
    image["PixelData"].VR = "OB"
    _, found = decoded(dicom_bytes(image, RLELossless))
    assert np.array_equal(found, np.stack(frames))


def test_palette_becomes_colour_and_monochrome1_is_known():
    path = next(path for path in pydicom_files() if path.name == "examples_palette.dcm")
    image, frames = decoded(path.read_bytes())
    assert image.palette
    assert np.array_equal(image.colours(frames[0]), apply_color_lut(frames[0], pydicom.dcmread(path)))
    grey = decode(dicom_bytes(instance(PhotometricInterpretation="MONOCHROME1")), LIMIT)
    frame = next(grey.frames())
    assert grey.inverted
    assert grey.colours(frame) is frame


def test_a_data_set_without_file_meta_is_read_as_it_is_encoded():
    dataset = instance()
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    _, frames = decoded(buffer.getvalue())
    assert np.array_equal(frames[0], np.arange(64).reshape(8, 8))


REFUSED = [
    ("nothing", lambda: b"", "undecodable"),
    ("text", lambda: b"not an image at all " * 100, "undecodable"),
    ("no_rows", lambda: dicom_bytes(instance(Rows=None)), "undecodable"),
    ("no_samples", lambda: dicom_bytes(instance(Rows=0)), "undecodable"),
    ("short", lambda: dicom_bytes(instance(Rows=9)), "undecodable"),
    ("fifty_gigabytes", lambda: dicom_bytes(instance(Rows=65535, Columns=65535, NumberOfFrames="6")), "too_large"),
    ("mpeg", lambda: dicom_bytes(_encapsulated(b"\0\0\1\xb3" * 20), MPEG2MPML), "unsupported_syntax"),
    ("private_syntax", lambda: _private(dicom_bytes(_encapsulated(b"\0" * 80), JPEGLSLossless)), "unsupported_syntax"),
    ("garbage_codestream", lambda: dicom_bytes(_encapsulated(bytes(range(256))), JPEGLSLossless), "undecodable"),
]


def _encapsulated(fragment):
    image = instance(PixelData=encapsulate([fragment]))
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    return image


def _private(data):
    return data.replace(JPEGLSLossless.encode(), b"1.2.826.0.1.3680043.21")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refusals(make, reason):
    with pytest.raises(PixelFault) as caught:
        decoded(make())
    assert caught.value.reason == reason
    assert "Quillfeather" not in caught.value.detail
    assert "3680043" not in caught.value.detail
