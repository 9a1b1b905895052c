"""Values too long to be kept: a length and a hash, in bounded memory, and of functional groups what publish unfolds."""

import hashlib
import io
import math
import tracemalloc
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from dicom_bytes import OPEN, Encoder, Stream, Unsized, written
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pictures_spark.deid.derive_headers import functional_groups
from pictures_spark.dicom.containers import Content
from pictures_spark.dicom.scan import BytesReader, Kept, ScanError, rules, scan
from pictures_spark.resources import load_schema

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
MB = 1 << 20
LONG_OB = 0x00420011
# A sequence that sorts behind the three UIDs.
SEQUENCE = 0x00400275
SHARED, PER_FRAME = 0x52009229, 0x52009230


@contextmanager
def at_most(mb):
    """No more memory than this is ever in use."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mb * MB
    finally:
        tracemalloc.stop()


def uri(*pieces):
    """What stands for a value made of pieces as `Stream` takes them."""
    digest, length = hashlib.sha256(), 0
    for piece, times in ((piece, 1) if isinstance(piece, bytes) else piece for piece in pieces):
        for _ in range(times):
            digest.update(piece)
        length += len(piece) * times
    return f"sha256:{digest.hexdigest()}?length={length}"


def long_value(encoder, size):
    """An element of so many MB, and what stands for its value."""
    value = (b"x" * MB, size)
    return [encoder.head(LONG_OB, b"OB", size * MB), value], uri(value)


def long_sequence(encoder, size, open_sequence, open_items):
    """A sequence of so many MB, and what stands for it."""
    content = encoder.element(0x00080100, b"SH", b"CODE") + encoder.element(LONG_OB, b"OB", b"y" * (MB // 2))
    item = (encoder.item(content, open_items), 2 * size)
    length = OPEN if open_sequence else len(item[0]) * item[1]
    end = [encoder.mark(0xE0DD)] if open_sequence else []
    return [encoder.head(SEQUENCE, b"SQ", length), item, *end], uri(item)


LONG = {
    "a value": lambda encoder, size: long_value(encoder, size),
    "a sequence": lambda encoder, size: long_sequence(encoder, size, False, False),
    "an open sequence": lambda encoder, size: long_sequence(encoder, size, True, False),
    "an open sequence of open items": lambda encoder, size: long_sequence(encoder, size, True, True),
}


@pytest.mark.parametrize(
    ("kind", "size", "reader"),
    [
        ("a value", 450, Stream),
        ("a value", 50, Unsized),
        ("a sequence", 450, Unsized),
        ("an open sequence", 50, Stream),
        ("an open sequence of open items", 450, Unsized),
    ],
)
def test_450_mb_cost_a_few(kind, size, reader):
    encoder = Encoder()
    pieces, expected = LONG[kind](encoder, size)
    with at_most(8):
        record = scan(reader(encoder.start(), *pieces, encoder.pixels()))
    assert record.has_pixels
    assert record.elements[f"{LONG_OB if kind == 'a value' else SEQUENCE:08X}"]["BulkDataURI"] == expected
    assert len(record.text) < 2000


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", LONG)
def test_long_values_are_hashed_in_every_transfer_syntax(kind, syntax):
    encoder = Encoder(syntax)
    pieces, expected = LONG[kind](encoder, 3)
    after = encoder.element(0x60001500, b"LO", b"after")
    record = scan(Stream(encoder.start(), *pieces, after, encoder.pixels()))
    tag = LONG_OB if kind == "a value" else SEQUENCE
    assert record.elements[f"{tag:08X}"]["BulkDataURI"] == expected
    assert record.elements["60001500"]["Value"] == ["after"]


def test_a_member_that_is_read_once_costs_a_few_mb_too():
    encoder = Encoder()
    pieces, expected = long_sequence(encoder, 100, True, True)
    stream = Stream(encoder.start(), *pieces, encoder.pixels(), bytes(1000))
    size = stream.size
    with at_most(20):
        content = Content(stream.pull, size)
        assert content.read_at(0, 1024)[128:132] == b"DICM"
        record = scan(Kept(content))
        sha256, length = content.finish()
    assert record.elements[f"{SEQUENCE:08X}"]["BulkDataURI"] == expected
    whole = hashlib.sha256()
    for piece, times in stream.pieces:
        for _ in range(times):
            whole.update(piece)
    assert (sha256, length) == (whole.hexdigest(), size)


def test_what_has_gone_by_is_not_given_wrongly():
    content = Content(Stream((b"z" * MB, 12)).pull, 12 * MB)
    assert content.read_at(0, 10) == b"z" * 10
    assert len(content.read_at(10, 8 * MB)) == 8 * MB
    assert len(content.read_at(0, 4 * MB)) == 4 * MB
    with pytest.raises(OSError, match="gone by"):
        content.read_at(5 * MB, 10)
    assert content.read_at(11 * MB, 2 * MB) == b"z" * MB
    assert content.finish()[1] == 12 * MB


def test_a_second_look_at_the_start_costs_no_second_read():
    data = bytes(range(256)) * (6 * MB // 256)
    kept = Kept(Stream(data))
    for offset, length in ((0, 100), (100, MB), (50, 2 * MB), (0, 5 * MB)):
        assert kept.read_at(offset, length) == data[offset : offset + length]
    assert kept.read_at(0, 4 * MB) == data[: 4 * MB]
    assert kept.read_at(5 * MB, 2 * MB) == data[5 * MB :]


def deflated(*pieces):
    """A deflated file of pieces behind the three UIDs."""
    plain = Encoder(ExplicitVRLittleEndian).start()
    meta_end = 144 + int.from_bytes(plain[140:144], "little")
    meta = written(pydicom.Dataset(), DeflatedExplicitVRLittleEndian)[: 144 + 4 * 16 + 200]
    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = [deflate.compress(plain[meta_end:])]
    for piece, times in ((piece, 1) if isinstance(piece, bytes) else piece for piece in pieces):
        packed += [deflate.compress(piece) for _ in range(times)]
    start = 144 + int.from_bytes(meta[140:144], "little")
    return meta[:start] + b"".join(packed) + deflate.flush()


def test_long_values_of_a_deflated_data_set_are_hashed_as_they_unpack():
    encoder = Encoder()
    pieces, expected = long_value(encoder, 100)
    data = deflated(*pieces, encoder.pixels())
    assert len(data) < MB
    with at_most(8):
        record = scan(data)
    assert record.elements[f"{LONG_OB:08X}"]["BulkDataURI"] == expected
    assert record.has_pixels


def test_a_deflated_bomb_stops(monkeypatch):
    encoder = Encoder()
    data = deflated(encoder.head(LONG_OB, b"OB", 0xFFFFFFF0), (bytes(MB), 80))
    monkeypatch.setitem(rules(), "max_inflated_bytes", 64 * MB)
    with at_most(8), pytest.raises(ScanError, match="too_large"):
        scan(data)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("tag", "vr"), [(LONG_OB, b"OB"), (0x54001010, b"OW"), (0x00420014, b"UT"), (0x00091001, b"UN"), (0x0040E010, b"UR")]
)
def test_the_limit_is_exact(tag, vr, syntax):
    encoder = Encoder(syntax)
    limit = rules()["bulk_bytes"]
    for size, kept in ((limit, True), (limit + 2, False)):
        value = b"a" * size
        parts = sorted([(tag, encoder.element(tag, vr, value)), (0x0020000E, b"")])
        start, tail = (encoder.start(), b"") if tag > 0x0020000E else (head_only(encoder), uids(encoder))
        record = scan(start + parts[0][1] + parts[1][1] + tail)
        said = record.elements[f"{tag:08X}"]
        assert ("BulkDataURI" in said) != kept
        assert kept or said == {"vr": said["vr"], "BulkDataURI": uri(value)}


def head_only(encoder):
    return written(pydicom.Dataset(), encoder.syntax)


def uids(encoder):
    return b"".join(
        encoder.element(tag, b"UI", uid) for tag, uid in ((0x00080018, b"1.2.3\0"), (0x0020000D, b"1.2.4\0"), (0x0020000E, b"1.2.5\0"))
    )


@pytest.mark.parametrize("open_sequence", [True, False])
def test_the_limit_of_sequences_is_exact(open_sequence):
    encoder = Encoder()
    limit = rules()["bulk_sequence_bytes"]
    for size, kept in ((limit, True), (limit + 2, False)):
        # Values in it are short, so that only the sequence is long.
        rest = size - 8
        elements = b""
        for number in range(0x1001, 0x1100):
            step = min(rest, 60_000)
            if step < 12:
                break
            elements += encoder.element(0x00410000 | number, b"OB", b"b" * (step - 12))
            rest -= step
        items = [encoder.item(elements + bytes(0))]
        assert len(items[0]) == size
        said = scan(encoder.start() + encoder.sequence(SEQUENCE, items, open_sequence)).elements[f"{SEQUENCE:08X}"]
        assert said.get("BulkDataURI") == (None if kept else uri(items[0]))
        assert ("Value" in said) == kept


def test_an_icon_and_a_pdf_are_hashed_and_the_rest_is_as_ever():
    encoder = Encoder()
    icon = encoder.item(encoder.element(0x00280010, b"US", b"\0\1") + encoder.element(0x7FE00010, b"OW", bytes(70_000)))
    pdf = encoder.element(0x00420011, b"OB", b"%PDF" * 20_000)
    record = scan(encoder.start() + pdf + encoder.sequence(0x00880200, [icon], True))
    assert record.elements["00420011"]["BulkDataURI"] == uri(b"%PDF" * 20_000)
    (item,) = record.elements["00880200"]["Value"]
    assert item["7FE00010"]["BulkDataURI"] == uri(bytes(70_000))
    assert item["00280010"]["Value"] == [256]
    assert not record.has_pixels


def reference_groups(data_set):
    """What functional_groups.yaml names, taken from pydicom's data set: the rule again, by other means."""
    rule = load_schema("derive/functional_groups.yaml")
    found = {}
    for keyword, where in rule["columns"].items():
        for name in (rule["per_frame"], rule["shared"]):
            values = []
            for item in data_set.get(name) or []:
                group = (item.get(where["sequence"]) or [None])[0]
                value = group.get(where["attribute"]) if group is not None else None
                said = value if hasattr(value, "__iter__") else [value]
                values.append(None if value is None or value == "" else [float(part) for part in said])
            if any(values):
                found[keyword] = values[:1] if all(one == values[0] for one in values) else values
                break
    return found


LIVER = Path(pydicom.__file__).parent / "data" / "test_files" / "liver_1frame.dcm"


@pytest.mark.parametrize("open_lengths", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("frames", [1, 40, 600])
def test_functional_groups_of_a_real_file_say_the_same_small_and_long(frames, syntax, open_lengths):
    data_set = pydicom.dcmread(LIVER)
    original = data_set.PerFrameFunctionalGroupsSequence[0]
    data_set.PerFrameFunctionalGroupsSequence = []
    for number in range(frames):
        item = pydicom.Dataset.from_json(original.to_json())
        item.PlanePositionSequence[0].ImagePositionPatient = [number, -number / 4, math.pi]
        item.PixelMeasuresSequence = [pydicom.Dataset()]
        item.PixelMeasuresSequence[0].SliceThickness = "2.50" if number % 2 else None
        item.private_block(0x0009, "A VENDOR", create=True).add_new(1, "UN", b"filler" * 60)
        for part in (item, item.PlanePositionSequence[0]):
            part.is_undefined_length_sequence_item = open_lengths
        item["PlanePositionSequence"].is_undefined_length = open_lengths
        data_set.PerFrameFunctionalGroupsSequence.append(item)
    data_set["PerFrameFunctionalGroupsSequence"].is_undefined_length = open_lengths
    data_set.NumberOfFrames = frames
    del data_set.PixelData
    data_set.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        pydicom.dcmwrite(buffer, data_set, implicit_vr=implicit, little_endian=little, force_encoding=True)
    record = scan(buffer.getvalue())
    said = record.elements[f"{PER_FRAME:08X}"]
    assert ("BulkDataURI" in said) == (frames == 600)
    assert len(said["Value"]) == frames
    assert functional_groups(record.elements) == reference_groups(pydicom.dcmread(io.BytesIO(buffer.getvalue())))


@pytest.mark.parametrize("open_lengths", [True, False])
def test_5000_frames_of_64_mb(open_lengths):
    encoder = Encoder()
    measures = encoder.sequence(0x00289110, [encoder.item(encoder.element(0x00180050, b"DS", b"1.50"), open_lengths)], open_lengths)
    filler = encoder.element(0x00411001, b"UN", bytes(13_400))

    def frame(number):
        position = encoder.element(0x00200032, b"DS", f"{number:8}\\-7.25\\{number / 8:10.3f} ".encode())
        place = encoder.sequence(0x00209113, [encoder.item(position, open_lengths)], open_lengths)
        return encoder.item(place + measures + filler, open_lengths)

    class Frames(Stream):
        """Made as they are asked for, as 64 MB would count."""

        def __init__(self):
            super().__init__(encoder.start())
            self._coming = iter(self.parts())
            self.size = None

        def parts(self):
            length = OPEN if open_lengths else 5000 * len(frame(0))
            yield encoder.start()
            yield encoder.head(PER_FRAME, b"SQ", length)
            for number in range(5000):
                yield frame(number)
            yield (encoder.mark(0xE0DD) if open_lengths else b"") + encoder.pixels()

    with at_most(40):
        record = scan(Frames())
    assert int(record.elements[f"{PER_FRAME:08X}"]["BulkDataURI"].split("=")[1]) > 64 * MB
    assert record.has_pixels
    groups = functional_groups(record.elements)
    assert groups["SliceThickness"] == [[1.5]]
    assert groups["ImagePositionPatient"] == [[number, -7.25, round(number / 8, 3)] for number in range(5000)]


@pytest.mark.parametrize("open_sequence", [True, False])
@pytest.mark.parametrize("bad", ["not an item", "an item too long", "nested too deeply"])
def test_long_functional_groups_that_are_broken(bad, open_sequence):
    encoder = Encoder()
    good = encoder.item(encoder.element(0x00411001, b"UN", bytes(60_000)))
    broken = {
        "not an item": b"\x08\0\x18\0UI\0\0",
        "an item too long": encoder.mark(0xE000, 0xFFFFFFF0),
        "nested too deeply": (encoder.mark(0xE000, OPEN) + encoder.head(SEQUENCE, b"SQ", OPEN)) * 100,
    }[bad]
    data = encoder.start() + encoder.sequence(PER_FRAME, [good] * 6 + [broken], open_sequence) + encoder.pixels()
    if open_sequence:
        with pytest.raises(ScanError, match="truncated" if bad == "an item too long" else "bad_syntax"):
            scan(data)
    else:
        # Its end is known, so the header is good; but nobody can say how many frames there are.
        said = scan(data).elements[f"{PER_FRAME:08X}"]
        assert said == {"vr": "SQ", "BulkDataURI": uri(good * 6 + broken)}


def test_what_is_kept_is_bounded():
    encoder = Encoder()
    values = b"".join(encoder.element(0x00410000 | number, b"OB", bytes(60_000)) for number in range(0x1001, 0x1004))
    assert scan(encoder.start() + values).elements
    with pytest.raises(ScanError, match="too_large"):
        scan(encoder.start() + values, max_header_bytes=100_000)


def test_a_length_beyond_the_file_is_not_fetched():
    encoder = Encoder()

    class Counting(BytesReader):
        def read_at(self, offset, length):
            asked.append(offset + length)
            return super().read_at(offset, length)

    for vr, tag in ((b"OB", LONG_OB), (b"SQ", SEQUENCE), (b"SQ", PER_FRAME)):
        asked = []
        with pytest.raises(ScanError, match="truncated"):
            scan(Counting(encoder.start() + encoder.head(tag, vr, 0xFFFFFFF0) + bytes(100_000)))
        assert max(asked) <= 16384
