"""Headers read by what they share: always what `scan` reads, in any order, whatever differs."""

import random
import struct
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import orjson
import pyarrow as pa
import pydicom
import pytest
from archive import devices, instances
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from pictures_spark.dicom import structures
from pictures_spark.dicom.scan import BytesReader, ScanError, column_value, promoted, public_vr, scan
from pictures_spark.dicom.storing import Storing, names
from pictures_spark.dicom.structures import Headers
from pictures_spark.dicom.templates import as_json
from pictures_spark.dicom.values import joined, many, plain_json

SAMPLES = sorted(path for path in (Path(pydicom.__file__).parent / "data").rglob("*") if path.is_file() and ".py" not in path.suffix)


def said(read, data):
    """Everything a reader says of bytes, or the reason why not."""
    try:
        header = read(data)
    except ScanError as error:
        return error.reason
    return header.kind, header.text, header.columns, header.has_pixels


def agree(files):
    """Read all by one `Headers` and by `scan`; returns how many needed no `scan`."""
    headers, quick = Headers(), 0
    for number, data in enumerate(files):
        assert said(headers.read, data) == said(scan, data), number
        with suppress(ScanError):
            quick += headers.read(data).structure is not None
    return quick


def test_every_sample_file_reads_as_scan_reads_it():
    contents = [path.read_bytes() for path in SAMPLES]
    # Twice: the second time structures are there.
    assert agree([*contents, *contents]) > len(contents) * 0.6


@pytest.mark.parametrize("shuffled", [False, True])
def test_series_are_read_by_their_differences(shuffled):
    files = [data for _, data in instances(300, seed=3)]
    if shuffled:
        random.Random(3).shuffle(files)
    headers = Headers()
    quick = [headers.read(data).structure is not None for data in files]
    assert sum(quick) > len(files) * 0.8
    assert agree(files[::5]) > 0


def test_only_what_a_header_needs_is_read():
    class Counted(BytesReader):
        def read_at(self, offset, length):
            reads.append((offset, length))
            return super().read_at(offset, length)

    files = [data for _, data in instances(120, seed=4)]
    assert sum(len(data) > 32_000 for data in files) > 20
    headers, reads = Headers(), []
    for data in files:
        headers.read(data)
    reads.clear()
    for data in files:
        assert headers.read(Counted(data)).structure is not None
    assert [offset for offset, _ in reads] == [0] * len(files)
    assert max(length for _, length in reads) <= 12_288


VALUES = {
    "UI": ["1.2.3", "1.2.3.44", " 1.2.5", ""],
    "CS": ["A", "A\\B", " A", ""],
    "LO": ["plain", 'quoted "word"', "back\\slash", "tab\there", "", "   ", "nul\0inside", "ctrl\x01"],
    "PN": ["Some^One", "One", "A=B=C", "A^B\\C^D", "", "^^", "=", "x^ "],
    "DS": ["1.5", "1.50", " 1e3", "1,5", "1\\2", "", "-0", "nan"],
    "IS": ["12", "012", "x", "", "1\\2", "99999999999999999999"],
    "DA": ["20200131", "2020.01.31", "20209999", ""],
    "TM": ["101112.5", "10:11", ""],
    "LT": ["text\\with backslash", "lines\r\nof it", ""],
    "US": [b"\1\0", b"\1\0\2\0", b"", b"\1"],
    "FD": [struct.pack("<d", 1.5), struct.pack("<d", float("nan")), b"", b"\0" * 7],
    "AT": [b"\x08\0\x18\0", b""],
    "OB": [b"\0\1\2", b"", bytes(70_000)],
    "UN": [b"abc", b"", b"\xfe\xff\x00\xe0\0\0\0\0"],
    "SQ": [b"", b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\x00\xe0\x0a\0\0\0\x08\0\x16\0UI\x02\x001\0", b"junk"],
    "AE": [" AE ", "AE", ""],
    "UT": ["any\\text", ""],
}
TAGS = {
    "UI": 0x00080014, "CS": 0x00080064, "LO": 0x00081030, "PN": 0x00081050, "DS": 0x00180050, "IS": 0x00180086, "DA": 0x00080012,
    "TM": 0x00080013, "LT": 0x00104000, "US": 0x00280106, "FD": 0x00189073, "AT": 0x00280009, "OB": 0x00291010, "UN": 0x00291013,
    "SQ": 0x00081199, "AE": 0x00080054, "UT": 0x00400551,
}  # fmt: skip


def encoded(device, vr, value):
    """One element, odd lengths left odd where bytes are given."""
    data = value.encode("latin-1") if isinstance(value, str) else value
    if isinstance(value, bytes) and len(data) % 2:
        return device.encode(TAGS[vr], vr, data + b"\0")[: -len(data) - 1] + data + b"\0"
    return device.encode(TAGS[vr], vr, data)


@st.composite
def variations(draw):
    """Several headers of one device that differ in the values of a few elements, in any way that a file may."""
    device = draw(st.sampled_from(DEVICES))
    vrs = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True))
    charset = draw(st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87"]))
    made = []
    for number in range(draw(st.integers(2, 5))):
        elements = dict(device.elements)
        elements[0x00020010] = device.encode(0x00020010, "UI", b"1.2.840.10008.1.2" if device.implicit else b"1.2.840.10008.1.2.1")
        elements[0x00080005] = device.encode(0x00080005, "CS", charset.encode())
        elements[0x00080018] = device.encode(0x00080018, "UI", draw(st.sampled_from(["", "1.2.3", f"1.2.{number}"])).encode())
        for vr in vrs:
            value = draw(st.sampled_from(VALUES[vr]))
            if isinstance(value, str) and value and draw(st.integers(0, 5)) == 0:
                value += "é"
            elements[TAGS[vr]] = encoded(device, vr, value)
        meta = b"".join(data for tag, data in sorted(elements.items()) if tag >> 16 == 2)
        body = b"".join(data for tag, data in sorted(elements.items()) if tag >> 16 != 2)
        data = b"\0" * 128 + b"DICM" + meta + body + device.encode(0x7FE00010, "OW", bytes(8))
        made.append(data[: len(data) - draw(st.sampled_from([0, 0, 0, 9, 17, 400]))])
    return made


DEVICES = devices()


@settings(max_examples=60)
@given(files=variations())
def test_whatever_differs_is_read_as_scan_reads_it(files):
    agree([*files, *files, *reversed(files)])


@settings(max_examples=60)
@given(files=st.lists(variations(), min_size=1, max_size=3).map(lambda parts: [data for files in parts for data in files]))
def test_whatever_differs_is_stored_as_scan_reads_it(files):
    headers, found = Headers(), []
    for data in [*files, *files, *reversed(files)]:
        with suppress(ScanError):
            found.append((headers.read(data), scan(data)))
    # Values one by one, and all of them together.
    for few in (1000, 0):
        with patch.multiple(structures, FEW=few, FEW_HEADERS=few):
            order, columns = Storing().columns([header for header, _ in found], [*names(), "header"])
        rows = {name: column.to_pylist() for name, column in columns.items()}
        bases = {key: base for key, base in zip(rows["base_id"], rows["base"], strict=True) if base is not None}
        for row, index in enumerate(order):
            record = found[index][1]
            assert rows["header"][row] == record.text
            assert as_json(bases[rows["base_id"][row]], rows["lines"][row]) == record.text
            assert {name: rows[name][row] for name in record.columns} == record.columns


def test_a_header_without_an_instance_uid_is_refused_also_by_structure():
    files = [data for _, data in instances(30, seed=5)]
    headers = Headers()
    for data in files:
        headers.read(data)
    uid = scan(files[0]).columns["sop_uid"].encode()
    bad = files[0].replace(uid, b" " * len(uid))
    assert said(headers.read, bad) == said(scan, bad) == "missing_uid"


def test_bytes_changed_anywhere_are_read_as_scan_reads_them():
    chance = random.Random(6)
    files = [data for _, data in instances(60, seed=6)]
    headers = Headers()
    for data in files:
        headers.read(data)
    for _ in range(150):
        data = bytearray(chance.choice(files))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(128, min(9_000, len(data)))] = chance.randrange(256)
        assert said(headers.read, bytes(data)) == said(scan, bytes(data))


@pytest.mark.parametrize("chunk", [10, 1000])
def test_many_headers_at_once_say_what_each_says(chunk):
    files = [data for _, data in instances(300, seed=7)] + [path.read_bytes() for path in SAMPLES]
    headers, storing, bases = Headers(), Storing(), {}
    for start in range(0, len(files), chunk):
        found = []
        for data in files[start : start + chunk]:
            with suppress(ScanError):
                header = headers.read(data)
                found += [(header, scan(data))] if header.kind == "dicom" else []
        order, columns = storing.columns([header for header, _ in found])
        assert sorted(order) == list(range(len(found)))
        rows = {name: column.to_pylist() for name, column in columns.items()}
        for row, index in enumerate(order):
            record = found[index][1]
            bases.setdefault(rows["base_id"][row], rows["base"][row])
            assert as_json(bases[rows["base_id"][row]], rows["lines"][row]) == record.text
            assert {name: rows[name][row] for name in record.columns} == record.columns
            assert rows["has_pixels"][row] == record.has_pixels
        _, typed = storing.columns([header for header, _ in found], ["sop_uid", "image_position_patient"])
        assert {name: column.to_pylist() for name, column in typed.items()} == {name: rows[name] for name in typed}
    assert len([base for base in bases.values() if base is not None]) == len(bases) < len(files) / 2


def test_a_base_is_given_once_for_each_series():
    headers, storing = Headers(), Storing()
    files = [data for _, data in instances(200, seed=9)]
    read = [headers.read(data) for data in files]
    given = []
    for start in range(0, 200, 50):
        _, columns = storing.columns(read[start : start + 50], ["series_uid", "base_id", "base"])
        given += [(s, b) for s, b, base in zip(*(columns[n].to_pylist() for n in columns), strict=True) if base is not None]
    assert len(given) == len(set(given)) < 100


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.floats(-1e6, 1e6).map(lambda x: f"{x:.4f}"),
    st.integers().map(str),
    st.text("0123456789.+-eE \t\0,", max_size=12),
)
DATES = st.one_of(st.dates().map(lambda d: d.strftime("%Y%m%d")), st.text("0123456789. ", max_size=11))
TIMES = st.one_of(st.times().map(lambda t: t.strftime("%H%M%S.%f")), st.text("0123456789.: ", max_size=14))


@settings(max_examples=300)
@given(st.data())
def test_many_values_at_once_are_what_each_is(data):
    vr, type_ = data.draw(st.sampled_from(KINDS))
    text = (
        TIMES
        if vr == "TM"
        else DATES
        if vr == "DA"
        else NUMBERS
        if vr in ("DS", "IS")
        else st.text(st.characters(max_codepoint=255), max_size=9)
    )
    values = data.draw(st.lists(st.lists(text, max_size=3).map("\\".join), min_size=1, max_size=8))
    raws = [value.encode("latin-1") + data.draw(st.sampled_from([b"", b" ", b"\0"])) for value in values]
    column = next(column for column in promoted() if column.type == type_ and public_vr(tag_for_keyword(column.dicom)) == vr)
    found = many(vr, pa.array(raws, pa.binary()), [type_])
    single = [plain_json(vr, raw) for raw in raws]
    if found is None:
        assert vr not in ("DS", "IS")
        assert None in single
        return
    assert joined(found[0], len(raws)).to_pylist() == [text.decode() for text in single]
    elements = [{f"{tag_for_keyword(column.dicom):08X}": orjson.loads(text)} for text in single]
    assert [column.to_pylist() for column in found[1]] == [[column_value(column.name, element) for element in elements]]


KINDS = sorted(
    {(public_vr(tag_for_keyword(c.dicom)), c.type) for c in promoted()} & {
        ("DS", "double"), ("DS", "array<double>"), ("IS", "long"), ("TM", "string"), ("UI", "string"), ("LO", "string"), ("SH", "string"),
        ("DA", "date"), ("PN", "string"),
    }
)  # fmt: skip


def test_a_sequence_without_length_that_ends_early_is_read_as_scan_reads_it():
    device = DEVICES[0]
    item = b"\xfe\xff\x00\xe0\x10\0\0\0" + b"\x08\0\x55\x11UI\x08\0" + b"1.2.%04d"
    delimiter = b"\xfe\xff\xdd\xe0\0\0\0\0"
    # As long as an item of one element with a value of 8 bytes.
    hidden = b"\x08\0\x56\x11UI\x10\0" + b"1.2.3.4.5.6.7.8\0"

    def made(number, inside):
        elements = {tag: data for tag, data in device.elements.items() if tag != 0x00081140}
        elements[0x00020010] = device.encode(0x00020010, "UI", b"1.2.840.10008.1.2.1")
        elements[0x00080018] = device.encode(0x00080018, "UI", b"1.2.%04d" % number)
        elements[0x00081140] = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + inside
        body = b"".join(data for _, data in sorted(elements.items()))
        return b"\0" * 128 + b"DICM" + body + device.encode(0x7FE00010, "OW", bytes(8))

    assert len(item % 1) == len(hidden)
    files = [made(number, item % number + item % number + delimiter) for number in range(8)]
    files.append(made(9, item % 9 + delimiter + hidden))
    assert agree(files) > 0
