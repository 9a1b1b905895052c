"""The check finds whatever is planted in a result, each kind by its code: it does not trust the code that made it."""

import struct
from io import BytesIO

import pytest
from instances import dicom_bytes, instance, item
from pydicom import dcmread
from pydicom.sequence import Sequence

from pictures_spark.deid.act import deidentify
from pictures_spark.deid.dicom_identity import make_identity
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import verify

PLAN = load_plan("default")
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


@pytest.mark.parametrize(
    ("change", "code"),
    [
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
    ],
)
def test_a_planted_leak_is_found(change, code):
    assert code in codes(change)


def test_a_truncated_result_is_unreadable_or_found():
    result = deidentify(SOURCE, PLAN, IDENTITY).data
    assert verify(SOURCE, result[:140], PLAN.policy, IDENTITY)
    assert [finding.code for finding in verify(SOURCE, b"nothing", PLAN.policy, IDENTITY)] == ["unreadable"]


def test_findings_quote_no_value():
    findings = verify(SOURCE, tampered(lambda made: setattr(made, "PatientComments", "Quillfeather")), PLAN.policy, IDENTITY)
    assert findings
    assert "Quillfeather" not in repr(findings)
