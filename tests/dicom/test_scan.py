"""Headers: equal to what pydicom reads, typed without exceptions, and nothing but ScanError from bytes of any kind."""

import io
import json
import random
import re
import struct
import warnings
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path

import pydicom
import pytest
from dicom_bytes import written
from dicom_json import differences, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pictures_spark.dicom import scan as scan_module
from pictures_spark.dicom.scan import BytesReader, ScanError, promoted, scan

REASONS = {"not_dicom", "truncated", "bad_syntax", "missing_uid", "too_large", "unreadable"}
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
SAMPLES = sorted(path for path in (Path(pydicom.__file__).parent / "data").rglob("*") if path.is_file() and ".py" not in path.suffix)


def outcome(data):
    """(record, kind) or (None, reason); the record's elements are JSON."""
    try:
        record = scan(data)
    except ScanError as error:
        return None, error.reason
    json.dumps(record.elements, allow_nan=False)
    return record, record.kind


def instance(**elements):
    """A data set with the three UIDs and the given elements."""
    data_set = Dataset()
    data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    return data_set


def raw_element(group, element, vr, value):
    """An explicit little-endian element with a value that pydicom would refuse to write."""
    if vr in (b"UN", b"OB", b"SQ", b"UT"):
        return struct.pack("<HH2sHL", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def with_raw(*elements):
    """A file of raw elements after the three UIDs (elements must sort behind them)."""
    return written(instance()) + b"".join(elements)


@pytest.fixture
def no_uids_needed(monkeypatch):
    """Read data sets that are no instances too."""
    rules = {**scan_module.rules(), "required": []}
    monkeypatch.setattr(scan_module, "rules", lambda: rules)


def test_every_sample_file_reads_as_pydicom_reads_it(no_uids_needed):
    compared = 0
    for path in SAMPLES:
        data = path.read_bytes()
        record, reason = outcome(data)
        if record is None:
            assert reason in REASONS
            continue
        assert list(record.elements) == sorted(record.elements)
        if record.kind == "dicom":
            assert differences(record.elements, reference(data)) == [], path.name
            compared += 1
    assert compared > 150


def test_the_broken_samples_have_their_reasons():
    found = {path.name: outcome(path.read_bytes())[1] for path in SAMPLES}
    assert found["rtplan_truncated.dcm"] == "truncated"
    assert found["no_meta.dcm"] == "not_dicom"
    assert found["README.txt"] == "not_dicom"
    assert found["UN_sequence.dcm"] == "missing_uid"
    assert found["DICOMDIR"] == "dicomdir"
    assert found["badVR.dcm"] == found["ExplVR_BigEndNoMeta.dcm"] == found["image_dfl.dcm"] == "dicom"


TEXT = st.text("ABCdef ^=0123456789.-", max_size=12).map(str.strip)
VALUES = {
    "LO": ("InstitutionName", TEXT),
    "PN": ("PatientName", TEXT),
    "SH": ("AccessionNumber", st.text("äöü漢字абвABC", max_size=8)),
    "UT": ("TextValue", st.text("line\nwith \\ and é", max_size=30).map(str.strip)),
    "DA": ("StudyDate", st.dates(min_value=date(1850, 1, 1)).map(lambda day: day.strftime("%Y%m%d"))),
    "DS": ("PixelSpacing", st.lists(st.decimals(-999, 999, places=3).map(str), min_size=1, max_size=3)),
    "IS": ("InstanceNumber", st.integers(-(2**31), 2**31 - 1)),
    "US": ("Rows", st.integers(0, 65535)),
    "FD": ("SlabThickness", st.floats(allow_nan=False, allow_infinity=False)),
    "FL": ("ExaminedBodyThickness", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "SV": ("SelectorSVValue", st.integers(-(2**63), 2**63 - 1)),
    "UV": ("SelectorUVValue", st.integers(0, 2**64 - 1)),
    "AT": ("SelectorATValue", st.lists(st.integers(0x00080000, 0x0018FFFF), min_size=1, max_size=3)),
    "OB": ("ICCProfile", st.binary(max_size=20).map(lambda data: data + bytes(len(data) % 2))),
}


@st.composite
def data_sets(draw, depth=0):
    """Random data sets: any subset of VALUES, a private block, and sequences of the same."""
    data_set = Dataset()
    if depth == 0:
        data_set = instance()
        data_set.SpecificCharacterSet = "ISO_IR 192"
    for vr in draw(st.sets(st.sampled_from(sorted(VALUES)))):
        keyword, values = VALUES[vr]
        setattr(data_set, keyword, draw(values))
    if draw(st.booleans()):
        data_set.private_block(0x0009, "A CREATOR", create=True).add_new(0x01, "LO", draw(TEXT))
    if depth < 3 and draw(st.booleans()):
        data_set.ReferencedImageSequence = Sequence(draw(st.lists(data_sets(depth=depth + 1), max_size=2)))
        for item in data_set.ReferencedImageSequence:
            item.is_undefined_length_sequence_item = draw(st.booleans())
        data_set["ReferencedImageSequence"].is_undefined_length = draw(st.booleans())
    return data_set


@settings(max_examples=60, deadline=None)
@given(data_sets(), st.sampled_from(SYNTAXES), st.booleans())
def test_generated_data_sets_read_as_pydicom_reads_them(data_set, syntax, preamble):
    data = written(data_set, syntax)
    record = scan(data if preamble else data[132:])
    assert differences(record.elements, reference(data)) == []
    assert not record.has_pixels


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SAMPLES), st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12))
def test_cut_and_altered_files_are_read_or_refused_with_a_reason(path, cut, flips):
    data = bytearray(path.read_bytes()[: 1 << 15])
    del data[int(cut * len(data)) :]
    for place, value in flips:
        if data:
            data[int(place * min(len(data) - 1, 3000))] = value
    assert outcome(bytes(data))[1] in REASONS | {"dicom", "dicomdir"}


def test_a_header_cut_at_any_byte_is_truncated_or_not_dicom():
    data = written(instance(PatientName="A^B", SliceThickness="1.5"))
    for length in range(len(data)):
        with pytest.raises(ScanError) as caught:
            scan(data[:length])
        # Cut between two elements, what is left reads well but lacks its last UIDs.
        assert caught.value.reason in {"not_dicom", "truncated", "missing_uid"}, length
        if length < 132:
            assert caught.value.reason == "not_dicom"


def test_nothing_is_said_or_logged_about_a_bad_value(capsys):
    data = with_raw(raw_element(0x0040, 0x0244, b"DA", b"SECRETXX"), raw_element(0x0040, 0x0245, b"TM", b"SECRET"))
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()) as err, redirect_stdout(io.StringIO()) as out:
        warnings.simplefilter("error")
        scan(data)
    assert "SECRET" not in err.getvalue() + out.getvalue() + "".join(capsys.readouterr())


class CountingReader:
    """Counts what is asked for."""

    def __init__(self, data):
        self.inner, self.size, self.furthest, self.requests = BytesReader(data), len(data), 0, 0

    def read_at(self, offset, length):
        self.requests += 1
        self.furthest = max(self.furthest, offset + length)
        return self.inner.read_at(offset, length)


def test_pixel_data_are_never_read():
    image = instance(Rows=1000, Columns=1000, BitsAllocated=16, PixelRepresentation=0, PixelData=bytes(2_000_000))
    reader = CountingReader(written(image))
    assert scan(reader).has_pixels
    assert (reader.furthest, reader.requests) == (16384, 1)


def test_deflated_pixel_data_are_not_inflated():
    image = instance(BitsAllocated=16, PixelRepresentation=0, PixelData=random.Random(0).randbytes(500_000))
    reader = CountingReader(written(image, DeflatedExplicitVRLittleEndian))
    assert scan(reader).has_pixels
    assert reader.furthest <= 65536


def test_a_long_value_is_kept_as_length_and_hash():
    record = scan(with_raw(raw_element(0x5400, 0x0100, b"OB", bytes(70_000))))
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\?length=70000", record.elements["54000100"]["BulkDataURI"])


def test_a_length_beyond_the_file_is_truncated_and_costs_nothing():
    lie = struct.pack("<HH2sHL", 0x5400, 0x0100, b"OB", 0, 0xFFFFFFF0)
    with pytest.raises(ScanError, match="truncated"):
        scan(with_raw(lie))


@pytest.mark.parametrize("defined", [True, False])
def test_a_hundred_thousand_nested_sequences_are_bad_syntax(defined):
    body = b""
    if defined:
        for _ in range(2000):  # an item and a sequence around it, each 12 + 8 bytes longer
            body = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(body) + 8) + struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body
        body = raw_element(0x0040, 0x0275, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body)
    else:
        step = struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        body = step * 100_000
    with pytest.raises(ScanError, match="bad_syntax"):
        scan(with_raw(body))


def test_a_failing_reader_is_unreadable():
    class Failing:
        size = 1000

        def read_at(self, offset, length):
            raise OSError(5, "Input/output error", "/archive/2015/secret")

    with pytest.raises(ScanError) as caught:
        scan(Failing())
    assert (caught.value.reason, caught.value.detail) == ("unreadable", "Input/output error")


# column, raw VR and value, expected
TYPED = [
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"1.5 ", 1.5),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"1.5mm ", None),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"1,5 ", None),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"0.5\\0.5 ", None),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"nan ", None),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"-60\x1c", None),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"60\x1d\x1e ", None),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"\t60\x0b\x0c", 60.0),
    ("slice_thickness", 0x0018, 0x0050, b"DS", b"", None),
    ("instance_number", 0x0020, 0x0013, b"IS", b" 7", 7),
    ("instance_number", 0x0020, 0x0013, b"IS", b"7.0 ", 7),
    ("instance_number", 0x0020, 0x0013, b"IS", b"7.5 ", None),
    ("instance_number", 0x0020, 0x0013, b"IS", b"99999999999999999999", None),
    ("pixel_spacing", 0x0028, 0x0030, b"DS", b"0.5\\0.25", [0.5, 0.25]),
    ("pixel_spacing", 0x0028, 0x0030, b"DS", b"0.5\\x ", None),
    ("acquisition_date", 0x0008, 0x0022, b"DA", b"20150229", None),
    ("acquisition_date", 0x0008, 0x0022, b"DA", b"2015.02.28", date(2015, 2, 28)),
    ("acquisition_date", 0x0008, 0x002A, b"DT", b"20150228103000.5+0100 ", date(2015, 2, 28)),
    ("acquisition_time", 0x0008, 0x002A, b"DT", b"20150228103000.5+0100 ", "10:30:00"),
    ("acquisition_time", 0x0008, 0x0032, b"TM", b"10", "10:00:00"),
    ("acquisition_time", 0x0008, 0x0032, b"TM", b"103059.99 ", "10:30:59"),
    ("acquisition_time", 0x0008, 0x0032, b"TM", b"10:30:60", "10:30:59"),
    ("acquisition_time", 0x0008, 0x0032, b"TM", b"2530", None),
    ("image_type", 0x0008, 0x0008, b"CS", b"ORIGINAL\\\\AXIAL ", ["ORIGINAL", "", "AXIAL"]),
    ("rows", 0x0028, 0x0010, b"US", b"\x00\x02", 512),
    ("rows", 0x0028, 0x0010, b"US", b"\x00\x02\x00", None),
    ("patient_name", 0x0010, 0x0010, b"PN", b"A^B=C^D=E ", "A^B=C^D=E"),
    ("patient_id_raw", 0x0010, 0x0020, b"LO", b"  ", None),
]


@pytest.mark.parametrize(("column", "group", "element", "vr", "value", "expected"), TYPED)
def test_typed_columns(column, group, element, vr, value, expected):
    meta = written(Dataset())
    uids = [(0x0008, 0x0018, b"1.2.3\0"), (0x0020, 0x000D, b"1.2.4\0"), (0x0020, 0x000E, b"1.2.5\0")]
    elements = sorted([(group, element, vr, value), *((g, e, b"UI", v) for g, e, v in uids)])
    assert scan(meta + b"".join(raw_element(*parts) for parts in elements)).columns[column] == expected


def test_every_promoted_column_is_filled_or_none():
    assert scan(written(instance())).columns.keys() == {column.name for column in promoted()}


def test_text_of_numbers_survives():
    record = scan(with_raw(raw_element(0x0020, 0x1041, b"DS", b"1.50\\2.25\\-0 \\1e1\\+3\\")))
    assert record.elements["00201041"]["Value"] == ["1.50", 2.25, "-0", "1e1", "+3", None]


def test_values_that_fit_no_vr_are_kept_as_they_are():
    broken = raw_element(0x0040, 0x0275, b"SQ", b"no item at all")
    odd = raw_element(0x0028, 0x0011, b"US", b"abc")
    record = scan(with_raw(odd, broken))
    assert record.elements["00280011"] == {"vr": "UN", "InlineBinary": "YWJj"}
    assert record.elements["00400275"]["vr"] == "UN"


def test_non_finite_numbers_are_text():
    record = scan(
        with_raw(raw_element(0x0028, 0x9416, b"US", b"\1\0"), raw_element(0x0040, 0xA13A, b"FL", struct.pack("<f", float("nan"))))
    )
    assert record.elements["0040A13A"]["Value"] == ["NaN"]


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        (b"ISO_IR 100", "Müller^J".encode("latin-1"), "Müller^J"),
        (b"ISO_IR 192 ", "山田^太郎".encode(), "山田^太郎"),
        (b"NO_SUCH_SET ", b"Plain^Name", "Plain^Name"),
    ],
)
def test_names_in_character_sets(charset, raw, name):
    meta = written(Dataset())
    elements = [
        raw_element(0x0008, 0x0005, b"CS", charset),
        raw_element(0x0008, 0x0018, b"UI", b"1.2.3\0"),
        raw_element(0x0010, 0x0010, b"PN", raw + b" " * (len(raw) % 2)),
        raw_element(0x0020, 0x000D, b"UI", b"1.2.4\0"),
        raw_element(0x0020, 0x000E, b"UI", b"1.2.5\0"),
    ]
    assert scan(meta + b"".join(elements)).columns["patient_name"] == name
