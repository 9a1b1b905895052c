"""The check finds whatever is planted in a result, each kind by its code: it does not trust the code that made it."""

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instances import dicom_bytes, instance, item, pydicom_files
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sequence import Sequence

from pictures_spark.deid.act import WithheldError, deidentify
from pictures_spark.deid.dicom_identity import make_identity
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import Checker, any_of, check, verify

PLAN, DETAILED = load_plan("default"), load_plan("detailed")
IDENTITY = make_identity(b"k" * 32, "p", 180, known=["Tanglewood", "ROWE"], verdict="clean")
SOURCE = dicom_bytes(instance(InstitutionName="Glen Infirmary", PatientTelephoneNumbers="01415550123"))


def tampered(change):
    made = dcmread(BytesIO(deidentify(SOURCE, PLAN, IDENTITY).data))
    change(made)
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def codes(change):
    return {finding.code for finding in verify(SOURCE, tampered(change), PLAN.policy, IDENTITY)}


def test_an_untouched_result_has_no_finding():
    assert codes(lambda made: None) == set()


def nested(**values):
    return lambda made: setattr(made, "SharedFunctionalGroupsSequence", Sequence([item(FrameVOILUTSequence=Sequence([item(**values)]))]))


LEAKS = [
    (lambda made: setattr(made, "PatientComments", "anything"), "text"),
    (nested(FrameComments="anything"), "text"),
    (lambda made: setattr(made, "StationName", "REMOVED" + "X"), "text"),
    (lambda made: setattr(made, "PatientAge", "065Y"), "vr"),
    (lambda made: setattr(made, "RetrieveAETitle", "PACS"), "vr"),
    (lambda made: made.private_block(0x0009, "ACME", create=True).add_new(1, "US", 1), "tag"),
    (lambda made: made.add_new(0x60003000, "OW", b"\0\0"), "tag"),
    (lambda made: made.add_new(0x00420011, "OB", b"%PDF"), "bulk"),
    (lambda made: setattr(made, "IconImageSequence", Sequence([instance()])), "bulk"),
    (lambda made: setattr(made, "FrameOfReferenceUID", "1.2.826.0.1.3680043.10.1234.1"), "uid"),
    (lambda made: setattr(made, "FrameOfReferenceUID", "2.25.1234567"), "uid"),
    (nested(ReferencedSOPInstanceUID="1.2.826.0.1.3680043.10.1234.1.1.1"), "uid"),
    (lambda made: setattr(made, "StudyDate", "20150625"), "date"),
    (lambda made: setattr(made, "ContentDate", made.StudyDate), "date"),
    (nested(FrameAcquisitionDateTime="20150625101500"), "date"),
    (lambda made: setattr(made, "BodyPartExamined", "ROWE"), "identifier"),
    (lambda made: setattr(made, "SeriesNumber", "0104501236"), "identifier"),
    (lambda made: setattr(made, "PixelData", b"Tanglewood".ljust(128, b"\0")), "identifier"),
    (lambda made: setattr(made, "PixelData", "Quillfeather".encode("utf-16-le").ljust(128, b"\0")), "identifier"),
    (lambda made: setattr(made, "PixelData", b"Glen Infirmary".ljust(128, b"\0")), "identifier"),
    (lambda made: setattr(made, "PixelData", b"1.2.826.0.1.3680043.10.1234.1".ljust(128, b"\0")), "identifier"),
    (lambda made: setattr(made, "BodyPartExamined", "VANDERSNOOT"), "text"),
    (lambda made: setattr(made, "SimpleFrameList", list(struct.unpack("<3I", b"Tanglewood  "))), "identifier"),
    (lambda made: setattr(made, "SimpleFrameList", list(struct.unpack("<3I", b"Vandersnoot "))), "identifier"),
    (lambda made: setattr(made, "FrameIncrementPointer", list(struct.unpack("<3I", b"nTlgweoo  d "))), "identifier"),
    (lambda made: setattr(made, "TagAngleFirstAxis", 104501236.0), "identifier"),
    (lambda made: setattr(made, "PatientID", "0104501236"), "statement"),
    (lambda made: setattr(made, "PatientIdentityRemoved", "NO"), "statement"),
    (lambda made: setattr(made, "preamble", b"x" * 128), "statement"),
    (lambda made: setattr(made.file_meta, "SourceApplicationEntityTitle", "PACS"), "tag"),
]


@pytest.mark.parametrize(("change", "code"), LEAKS)
def test_a_planted_leak_is_found(change, code):
    assert code in codes(change)


def unknown_vrs(data):
    """The same file by somebody who knew no attribute above group 0008: explicit, VR UN (PS3.5 6.2.2)."""
    dataset = dcmread(BytesIO(data))
    position = 132
    (length,) = struct.unpack_from("<I", data, position + 8)
    position += 12 + length
    made = bytearray(data[:position])
    for element in dataset:
        raw = dicom_element(element)
        if element.tag >= 0x00200000 and element.tag.group != 0x7FE0 and element.VR in ("UI", "DA", "LO", "SH", "DS", "IS", "CS"):
            value = raw[8:]
            raw = raw[:4] + b"UN\0\0" + struct.pack("<I", len(value)) + value
        made += raw
    return bytes(made)


def dicom_element(element):
    """An element in explicit little endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return buffer.getvalue()


@pytest.mark.parametrize("plan", [PLAN, DETAILED], ids=["default", "detailed"])
def test_attributes_that_their_writer_did_not_know_are_read_as_what_they_are(plan):
    data = unknown_vrs(dicom_bytes(instance(FrameOfReferenceUID="1.2.840.99.5.1", StudyID="77-1234")))
    assert b"UN\0\0" in data
    result = deidentify(data, plan, IDENTITY).data
    assert verify(data, result, plan.policy, IDENTITY) == []
    assert dcmread(BytesIO(result)).StudyInstanceUID == dcmread(BytesIO(deidentify(SOURCE, plan, IDENTITY).data)).StudyInstanceUID
    # Nothing of it that is left is passed over.
    assert verify(data, data, plan.policy, IDENTITY)


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        # Zeros, or one letter again and again, name nobody: sixteen-bit pixels of value 48 read as a row of zeros.
        ({"PatientID": "000000000", "OtherPatientIDs": "QQQQQQQQQ"}, "0" * 64),
        # What a maker is called may be what a site is called.
        ({"Manufacturer": "TOSHIBA", "InstitutionName": "TOSHIBA"}, "z" * 64),
    ],
)
def test_what_tells_nobody_is_no_finding(values, pixels):
    data = dicom_bytes(instance(np.frombuffer(pixels.encode("utf-16-le"), np.uint16).reshape(8, 8).copy(), **values))
    assert verify(data, deidentify(data, PLAN, IDENTITY).data, PLAN.policy, IDENTITY) == []


@pytest.mark.parametrize("name", ["Glen Infirmary", "SIEMENS Glen Infirmary"])
@pytest.mark.parametrize("plan", [PLAN, DETAILED], ids=["default", "detailed"])
def test_a_site_that_is_called_as_a_maker_of_its_own_is_found(plan, name):
    data = dicom_bytes(instance(Manufacturer=name, InstitutionName=name))
    made = dcmread(BytesIO(deidentify(data, plan, IDENTITY).data))
    assert "Glen" not in str(made.get("Manufacturer", ""))
    made.Manufacturer = name
    assert "value" in {finding.code for finding in verify(data, dicom_bytes(made), plan.policy, IDENTITY)}


def test_a_truncated_result_is_unreadable_or_found():
    result = deidentify(SOURCE, PLAN, IDENTITY).data
    assert verify(SOURCE, result[:140], PLAN.policy, IDENTITY)
    assert [finding.code for finding in verify(SOURCE, b"nothing", PLAN.policy, IDENTITY)] == ["unreadable"]


def test_findings_quote_no_value():
    findings = verify(SOURCE, tampered(lambda made: setattr(made, "PatientComments", "Quillfeather")), PLAN.policy, IDENTITY)
    assert findings
    assert "Quillfeather" not in repr(findings)


# --- one after the other ---------------------------------------------------------------------------------------------------------------


def warmed(plan=PLAN, times=3):
    """A checker that has met the clean result, and the same of somebody else."""
    checker = Checker(plan.policy)
    other = make_identity(b"k" * 32, "other", 180, known=["Vandersnoot"], verdict="clean")
    for _ in range(times):
        for who in (IDENTITY, other):
            assert checker(SOURCE, deidentify(SOURCE, plan, who).data, who).findings == []
    return checker


@pytest.mark.parametrize("change", LEAKS, ids=range(len(LEAKS)))
def test_a_leak_is_found_after_many_without_one(change):
    """As in a checker that has met nothing, finding by finding; and what was found is not fine the next time."""
    checker, result = warmed(), tampered(change[0])
    alone = Checker(PLAN.policy)(SOURCE, result, IDENTITY)
    assert change[1] in {finding.code for finding in alone.findings}
    for _ in range(3):
        assert checker(SOURCE, result, IDENTITY) == alone
        assert checker(SOURCE, deidentify(SOURCE, PLAN, IDENTITY).data, IDENTITY).findings == []


def test_what_is_fine_for_one_person_is_not_for_another():
    """The same element in results of people who are called differently, turn by turn."""
    source = dicom_bytes(instance(BodyPartExamined="CHEST", SeriesDescription="Contrast"))
    people = [make_identity(b"k" * 32, "p", 180, known=known, verdict="clean") for known in ([], ["Chest"], ["Contrast"])]
    checker = Checker(DETAILED.policy)
    result = deidentify(source, DETAILED, people[0]).data
    for _ in range(3):
        found = [checker(source, result, who).findings for who in people]
        assert [[finding.keyword for finding in each] for each in found] == [[], ["BodyPartExamined"], ["SeriesDescription", ""]]


def test_what_another_source_says_is_looked_for():
    """Two sources with the same result but for the UIDs: what only one of them says of people is found with that one only."""
    plain, named = dicom_bytes(instance()), dicom_bytes(instance(OperatorsName="Contrast^Ann"))
    result = tampered(lambda made: setattr(made, "SeriesDescription", "CT contrast"))
    checker = Checker(PLAN.policy)
    for _ in range(3):
        assert checker(plain, result, IDENTITY).findings == []
        assert {finding.code for finding in checker(named, result, IDENTITY).findings} == {"identifier"}


def test_files_of_a_series_are_told_by_what_differs():
    checker = Checker(PLAN.policy)
    for number in range(5):
        source = dicom_bytes(instance(SOPInstanceUID=f"1.2.826.0.1.3680043.10.1234.{number}", InstanceNumber=str(number)))
        result = deidentify(source, PLAN, IDENTITY).data
        assert checker(source, result, IDENTITY) == check(source, result, PLAN.policy, IDENTITY)
        assert checker(source, result, IDENTITY).findings == []
    other = deidentify(dicom_bytes(instance(SOPInstanceUID="1.2.826.0.1.3680043.10.1234.9")), PLAN, IDENTITY).data
    assert {finding.code for finding in checker(source, other, IDENTITY).findings} == {"uid"}
    late = deidentify(dicom_bytes(instance(StudyDate="20150701")), PLAN, IDENTITY).data
    assert "date" in {finding.code for finding in checker(source, late, IDENTITY).findings}


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_both_ways_say_the_same_of_real_files(path, monkeypatch):
    """By elements and as a whole: the same findings and the same texts, and most files are checked by elements."""
    data = path.read_bytes()
    try:
        result = deidentify(data, DETAILED, IDENTITY).data
    except WithheldError:
        return
    checked = check(data, result, DETAILED.policy, IDENTITY)
    monkeypatch.setattr(Checker, "_fine", lambda *_: None)
    assert check(data, result, DETAILED.policy, IDENTITY) == checked


@given(
    needles=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=8).map(lambda t: t.encode("utf-16-le")),
        ),
        min_size=7,
    ),
    planted=st.integers(-1, 50),
    place=st.integers(0, 1 << 16),
)
def test_many_byte_strings_are_found_in_one_pass_as_one_by_one(needles, planted, place):
    data = bytearray(b"\xff\x00aB." * (1 << 14))
    if 0 <= planted < len(needles):
        data[place : place + len(needles[planted])] = needles[planted]
    assert any_of(tuple(needles), bytes(data)) == any(needle in data for needle in needles)
    assert any_of(tuple(needles), bytes(data)) or planted < 0 or planted >= len(needles)
