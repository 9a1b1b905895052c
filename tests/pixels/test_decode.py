"""Decoding: what pydicom and a second decoder say, and a refusal for every way of being wrong."""

import struct
from base64 import b64decode
from io import BytesIO

import numpy as np
import pydicom
import pytest
from instances import dicom_bytes, instance, pydicom_file, pydicom_files
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_color_lut, get_decoder, get_encoder
from pydicom.uid import HTJ2K as HTJ2K_LOSSY
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pictures_spark.pixels.codestream import mended
from pictures_spark.pixels.decode import Image, decode
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.resources import load_schema

LIMIT = 500_000_000
# Broken, or beyond every decoder that is installed, pydicom's included.
UNDECODABLE = {
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "MR_truncated.dcm",
    "badVR.dcm",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
}
# Beyond pydicom as it is: a sequential scan that says that it ends at coefficient 0.
MENDED = "JPEG-lossy.dcm"
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
        source = pydicom.dcmread(path, force=True)
        if path.name == MENDED:
            source.PixelData = mended(source.PixelData)
        reference = source.pixel_array
        reference = reference[None] if image.frame_count == 1 else reference
        if frames.shape != reference.shape or not np.array_equal(frames, reference):
            wrong.append(path.name)
        assert frames.dtype.isnative
    assert wrong == []
    assert refused == {(name, "undecodable") for name in UNDECODABLE}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["JPGExtended.dcm", "SC_rgb_jpeg_dcmtk.dcm", "examples_ybr_color.dcm"])
def test_a_sequential_scan_that_says_no_end_decodes_as_if_it_did(name):
    data = pydicom_file(name)
    _, expected = decoded(data)
    spoilt, scans, at = bytearray(data), 0, 0
    while (at := data.find(b"\xff\xda", at)) >= 0:
        count = data[at + 4]
        if data[at + 2 : at + 4] == bytes([0, 6 + 2 * count]) and data[at + 5 + 2 * count : at + 8 + 2 * count] == b"\x00\x3f\x00":
            spoilt[at + 6 + 2 * count] = 0
            scans += 1
        at += 2
    assert scans == len(expected)
    _, found = decoded(bytes(spoilt))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("columns", [512, 510])
def test_run_length_coded_bits_decode_to_the_bits(columns):
    """Segmentations: eight pixels to a byte, each frame from a byte of its own, one segment (PS3.5 annex G)."""
    dataset = pydicom.dcmread(BytesIO(pydicom_file("liver_1frame.dcm")))
    expected = dataset.pixel_array[:, :columns].copy()
    packed = np.packbits(expected, bitorder="little").tobytes()
    runs = b"".join(bytes([len(part) - 1]) + part for part in (packed[at : at + 128] for at in range(0, len(packed), 128)))
    coded = struct.pack("<16I", 1, 64, *[0] * 14) + runs + b"\0" * (len(runs) % 2)
    dataset.Columns, dataset.PixelData = columns, encapsulate([coded])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    buffer = BytesIO()
    dataset.save_as(buffer)
    _, found = decoded(buffer.getvalue())
    assert expected.any()
    assert np.array_equal(found[0], expected)
    # Cut short: refused, not filled up.
    dataset.PixelData = encapsulate([coded[:100]])
    buffer = BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(PixelFault, match="cut short"):
        decoded(buffer.getvalue())


def test_only_a_sequential_scan_is_mended():
    sound = pydicom.dcmread(BytesIO(pydicom_file("JPGExtended.dcm"))).PixelData
    assert mended(sound) is sound
    spoilt = pydicom.dcmread(BytesIO(pydicom_file(MENDED))).PixelData
    assert sum(a != b for a, b in zip(mended(spoilt), spoilt, strict=True)) == 1
    assert mended(spoilt.replace(b"\xff\xc1", b"\xff\xc2", 1)) == spoilt.replace(b"\xff\xc1", b"\xff\xc2", 1)
    for end in range(0, 700, 7):
        assert len(mended(spoilt[:end])) == len(spoilt[:end])


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


@pytest.mark.filterwarnings("ignore")
def test_lossy_syntaxes_are_near_a_second_decoder():
    """Inverse cosine transforms may round differently; JPEG-LS and JPEG 2000 leave nothing to a decoder's taste."""
    compared = 0
    for path in with_pixels():
        dataset = pydicom.dcmread(path, force=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if path.name in UNDECODABLE or syntax is None or syntax in LOSSLESS or not syntax.is_encapsulated:
            continue
        _, ours = decoded(path.read_bytes())
        decoder = get_decoder(syntax)
        for plugin in set(decoder.available_plugins) - {load_schema("pixels/decoders.yaml")["syntaxes"][syntax][0]}:
            try:
                theirs, _ = decoder.as_array(dataset, decoding_plugin=plugin)
            except RuntimeError:
                continue
            allowed = 3 if syntax == JPEGBaseline8Bit else 0
            assert np.abs(ours.squeeze().astype(int) - theirs.squeeze()).max() <= allowed, (path.name, plugin)
            compared += 1
    assert compared > 30


# Codestreams of high-throughput JPEG 2000 written by OpenJPH 0.26: type, bits, base64.
HTJ2K = [
    (
        np.uint8,
        (
            "/0//UQApQAAAAAAKAAAACAAAAAAAAAAAAAAACgAAAAgAAAAAAAAAAAABBwEB/1AACAACAAAAAv9SAAwAAgABAAUEBEAB/1wAEyBIUFBQUFBQUFBQUFBQSEhI"
            "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGgAAf+TwCXLAId0AAAAoAnAJEn+AGI0AMARwBWQBGAFswAACIAEAPkAAAN+tgAFswDAJYBa0ArA"
            "+GBCRAD37b1GBMJrdGDAJQmGCzsi4AfUWZkAgBQA6QB/q6QVvbgA/9k="
        ),
    ),
    (
        np.uint16,
        (
            "/0//UQApQAAAAAAKAAAACAAAAAAAAAAAAAAACgAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI"
            "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAIkAAf+TwAAm+84Eh3QAAACgAAqQriddT/4BYjQAoAAKyAACQNCR0BHoyABCAHdWAP4AQwDAACog"
            "ABdZAACuf/QMXZFcdgBROkovA8tAnuUZ3MCNJtSEUVrPKAPNQJ4hpcNNPpQmjBYAWdkXQD5TALG7AM+e9mxPe/5fnjC/xncA/9k="
        ),
    ),
    (
        np.int16,
        (
            "/0//UQApQAAAAAAKAAAACAAAAAAAAAAAAAAACgAAAAgAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI"
            "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAIkAAf+TwAAm+84Eh3QAAACgAAqQriddT/4BYjQAoAAKyAACQNCR0BHoyABCAHdWAP4AQwDAACog"
            "ABdZAACuf/QMXZFcdgBROkovA8tAnuUZ3MCNJtSEUVrPKAPNQJ4hpcNNPpQmjBYAWdkXQD5TALG7AM+e9mxPe/5fnjC/xncA/9k="
        ),
    ),
]


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K_LOSSY])
@pytest.mark.parametrize(("kind", "code"), HTJ2K, ids=["uint8", "uint16", "int16"])
def test_high_throughput_jpeg_2000(kind, code, syntax):
    """No encoder of it is installed, and no file of it is in pydicom's wheel."""
    info = np.iinfo(kind)
    pixels = np.linspace(info.min, info.max, 80).round().astype(kind).reshape(8, 10)
    pixels[::2] = pixels[::2, ::-1].copy()
    made = instance(pixels)
    made.PixelData = encapsulate([b64decode(code)])
    made["PixelData"].VR = "OB"
    _, found = decoded(dicom_bytes(made, syntax))
    assert found.dtype == kind
    assert np.array_equal(found[0], pixels)


def test_every_pinned_plugin_is_installed():
    for syntax, plugins in load_schema("pixels/decoders.yaml")["syntaxes"].items():
        if plugins not in (["native"], ["stored"], ["deflated"]):
            assert set(plugins) <= set(get_decoder(syntax).available_plugins), syntax


def test_frames_by_index_are_those_of_the_whole():
    image, frames = decoded(pydicom_file("rtdose_rle.dcm"))
    picked = list(image.frames([14, 0, 7]))
    assert [np.array_equal(a, frames[i]) for a, i in zip(picked, (14, 0, 7), strict=True)] == [True] * 3


RNG = np.random.default_rng(11)


def bits(frames):
    """Bit-packed pixel data: frames follow each other without a gap, whatever their size."""
    return np.packbits(frames.astype(np.uint8).ravel(), bitorder="little").tobytes()


def forms():
    """Name -> (data set, its transfer syntax, what it shows), for every form of uncompressed pixels."""
    masks = RNG.integers(0, 2, (3, 5, 7)).astype(np.uint8)
    one_bit = instance(masks, NumberOfFrames="3", BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0)
    packed = bits(masks)
    one_bit.PixelData = packed + b"\0" * (len(packed) % 2)
    yield "one bit, frames across bytes", one_bit, ExplicitVRLittleEndian, masks
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        info = np.iinfo(kind)
        values = RNG.integers(info.min, info.max, (2, 4, 6), kind, endpoint=True)
        made = instance(values, NumberOfFrames="2", PixelRepresentation=int(info.min < 0))
        yield np.dtype(kind).name, made, ExplicitVRLittleEndian, values
        turned = instance(values, NumberOfFrames="2", PixelRepresentation=int(info.min < 0))
        turned.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
        yield f"{np.dtype(kind).name} big endian", turned, ExplicitVRBigEndian, values
    odd = RNG.integers(0, 256, (2, 3, 5)).astype(np.uint8)
    words = instance(odd, NumberOfFrames="2")
    words["PixelData"].VR = "OW"
    words["PixelData"]._value = np.frombuffer(odd.tobytes(), "<u2").byteswap().tobytes()
    yield "bytes in big endian words", words, ExplicitVRBigEndian, odd
    for keyword, kind in (("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)):
        values = RNG.normal(0, 1e5, (1, 4, 4)).astype(kind)
        made = instance(np.zeros((4, 4), np.uint32), BitsAllocated=8 * np.dtype(kind).itemsize)
        del made.PixelData
        setattr(made, keyword, values.tobytes())
        yield keyword, made, ExplicitVRLittleEndian, values
    colour = RNG.integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    header = {"SamplesPerPixel": 3, "NumberOfFrames": "2"}
    yield (
        "colour by pixel",
        instance(colour, PhotometricInterpretation="RGB", PlanarConfiguration=0, **header),
        ExplicitVRLittleEndian,
        colour,
    )
    planes = instance(colour, PhotometricInterpretation="RGB", PlanarConfiguration=1, **header)
    planes.PixelData = np.moveaxis(colour, 3, 1).tobytes()
    yield "colour by plane", planes, ExplicitVRLittleEndian, colour
    deep = RNG.integers(0, 65536, (1, 4, 6, 3)).astype(np.uint16)
    made = instance(deep, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    yield "deep colour", made, ExplicitVRLittleEndian, deep
    # Grey in YBR: as grey in RGB.
    grey = np.repeat(RNG.integers(0, 256, (2, 4, 6, 1)), 3, axis=3).astype(np.uint8)
    full = grey.copy()
    full[..., 1:] = 128
    yield "YBR_FULL", instance(full, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0, **header), ExplicitVRLittleEndian, grey
    half = instance(full, PhotometricInterpretation="YBR_FULL_422", PlanarConfiguration=0, **header)
    pairs = full[..., 0].reshape(2, 4, 3, 2)
    half.PixelData = np.concatenate([pairs, np.full_like(pairs, 128)], axis=3).tobytes()
    yield "YBR_FULL_422, two frames", half, ExplicitVRLittleEndian, grey


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("made", "syntax", "expected"), [f[1:] for f in forms()], ids=[f[0] for f in forms()])
def test_every_form_of_uncompressed_pixels(made, syntax, expected):
    image, frames = decoded(dicom_bytes(made, syntax))
    assert frames.dtype == expected.dtype
    assert np.array_equal(frames, expected)
    assert all(
        np.array_equal(one, expected[n]) for n, one in zip((len(expected) - 1, 0), image.frames([len(expected) - 1, 0]), strict=True)
    )


def rle_frames(pixels):
    made = instance(pixels, NumberOfFrames=str(len(pixels)))
    return made, [get_encoder(RLELossless).encode(made, index=n, encoding_plugin="pydicom") for n in range(len(pixels))]


def with_fragments(pixels, how):
    """An RLE image of several frames with its fragments and offsets in one of the ways that are met."""
    made, encoded = rle_frames(pixels)
    match how:
        case "offsets":
            made.PixelData = encapsulate(encoded)
        case "no offsets":
            made.PixelData = encapsulate(encoded, has_bot=False)
        case "extended offsets":
            made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = encapsulate_extended(encoded)
        case "two fragments a frame":
            made.PixelData = encapsulate(encoded, fragments_per_frame=2)
        case "one frame of many fragments, no offsets":
            made.PixelData = encapsulate(encoded[:1], fragments_per_frame=5, has_bot=False)
            made.NumberOfFrames = "1"
    made["PixelData"].VR = "OB"
    return dicom_bytes(made, RLELossless)


@pytest.mark.parametrize(
    "how", ["offsets", "no offsets", "extended offsets", "two fragments a frame", "one frame of many fragments, no offsets"]
)
def test_fragments_and_offsets_in_every_way(how):
    pixels = RNG.integers(0, 50, (4, 30, 20)).astype(np.uint16)
    image, found = decoded(with_fragments(pixels, how))
    assert np.array_equal(found, pixels[: image.frame_count])
    last = image.frame_count - 1
    assert np.array_equal(next(image.frames([last])), pixels[last])


@pytest.mark.filterwarnings("ignore")
def test_a_frame_that_is_missing_is_no_other_frame():
    made, encoded = rle_frames(RNG.integers(0, 50, (3, 30, 20)).astype(np.uint16))
    made.PixelData = encapsulate(encoded[:2], has_bot=False)
    made["PixelData"].VR = "OB"
    with pytest.raises(PixelFault) as caught:
        decoded(dicom_bytes(made, RLELossless))
    assert caught.value.reason == "undecodable"


def test_a_frame_that_the_first_plugin_cannot_do_is_done_by_the_next(monkeypatch):
    pixels = RNG.integers(0, 50, (3, 30, 20)).astype(np.uint16)
    data = with_fragments(pixels, "no offsets")
    one_by_one = Image._decoded
    asked = []

    def failing(self, index, plugin):
        asked.append((index, plugin))
        if plugin == "pylibjpeg":
            raise RuntimeError
        return one_by_one(self, index, plugin)

    monkeypatch.setattr(Image, "_decoded", failing)
    assert [np.array_equal(frame, pixels[n]) for n, frame in zip((2, 0), decode(data, LIMIT).frames([2, 0]), strict=True)] == [True, True]
    assert asked == [(2, "pylibjpeg"), (2, "pydicom"), (0, "pylibjpeg"), (0, "pydicom")]


def test_frames_are_told_of_when_they_are_done_with():
    done = []
    frames = decode(pydicom_file("rtdose_rle.dcm"), LIMIT, lambda: done.append(1)).frames()
    next(frames)
    assert done == []
    next(frames)
    assert len(done) == 1
    assert len(list(frames)) + 2 == 15
    assert len(done) == 15


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
    ("jpeg_xl", lambda: _other_syntax(b"1.2.840.10008.1.2.4.110"), "unsupported_syntax"),
    ("four_samples", lambda: dicom_bytes(instance(np.zeros((1, 4, 4, 4), np.uint8), SamplesPerPixel=4)), "undecodable"),
    ("private_syntax", lambda: _private(dicom_bytes(_encapsulated(b"\0" * 80), JPEGLSLossless)), "unsupported_syntax"),
    ("garbage_codestream", lambda: dicom_bytes(_encapsulated(bytes(range(256))), JPEGLSLossless), "undecodable"),
]


def _encapsulated(fragment):
    image = instance(PixelData=encapsulate([fragment]))
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    return image


def _other_syntax(uid):
    """A file of a transfer syntax that pydicom does not write."""
    data = bytearray(dicom_bytes(_encapsulated(b"\0" * 80), JPEGLSLossless))
    start = data.index(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", data, start + 6)
    padded = uid + b"\0" * (len(uid) % 2)
    data[start + 6 : start + 8 + length] = struct.pack("<H", len(padded)) + padded
    # The file meta information says how long it is.
    (whole,) = struct.unpack_from("<I", data, 140)
    struct.pack_into("<I", data, 140, whole + len(padded) - length)
    return bytes(data)


@pytest.mark.parametrize(("uid", "name"), [("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"), (MPEG2MPML, "MPEG2 Main Profile / Main Level")])
def test_what_cannot_be_decoded_is_named(uid, name):
    with pytest.raises(PixelFault, match=name):
        decode(_other_syntax(uid.encode()) if "XL" in name else dicom_bytes(_encapsulated(b"\0" * 80), uid), LIMIT)


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
