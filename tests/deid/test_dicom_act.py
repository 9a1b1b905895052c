"""The engine: nothing identifying comes through, everything that may stay does, and what cannot be made safe is withheld."""

import struct
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from instances import dicom_bytes, instance, item, pydicom_file, pydicom_files
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UID_dictionary,
)

from pictures_spark.deid import act
from pictures_spark.deid.act import WithheldError, deidentify
from pictures_spark.deid.dicom_identity import make_identity
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import verify

PLAN = load_plan("default")
KEY = bytes(range(32))


def who(subject="zone-patient", verdict="clean", known=(), boxes=(), key=KEY):
    return make_identity(key, subject, 180, known=known, verdict=verdict, boxes=boxes)


def through(data, identity=None):
    """De-identify, check, parse."""
    identity = identity or who()
    data = data if isinstance(data, bytes) else dicom_bytes(data)
    result = deidentify(data, PLAN, identity)
    assert verify(data, result.data, PLAN.policy, identity) == []
    return dcmread(BytesIO(result.data))


def test_an_ordinary_image():
    made = through(instance(SliceThickness="1.25", SeriesDescription="Head of Quillfeather", InstitutionName="Glen Infirmary"))
    identity = who()
    assert made.PatientID == str(made.PatientName) == identity.patient
    assert made.PatientBirthDate == ""
    assert made.StudyID == ""
    assert made.SliceThickness == 1.25
    assert made.PatientSex == "F"
    assert made.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert made.SeriesDescription == "Head of *"
    assert "InstitutionName" not in made
    assert made.StudyTime == "101500"
    assert len(made.AccessionNumber) == 16
    assert made.PatientIdentityRemoved == "YES"
    assert made.BurnedInAnnotation == "NO"
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [i.CodeValue for i in made.DeidentificationMethodCodeSequence] == ["113100", "113101", "113104", "113105", "113107", "113111"]
    assert (made.pixel_array == np.arange(64).reshape(8, 8)).all()
    assert made.preamble == bytes(128)
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID == identity.uid("1.2.826.0.1.3680043.10.1234.1.1.1")
    assert made.file_meta.ImplementationVersionName == "PICTURES_SPARK"


# --- values -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "expected"),
    [
        ("BodyPartExamined", "CS", b"HEAD", "HEAD"),
        ("BodyPartExamined", "CS", b"Head ", ""),  # lower case is no code string
        ("BodyPartExamined", "CS", b"QUILLFEATHER", ""),
        ("BodyPartExamined", "CS", b"XQUILLFEATHERX", ""),
        ("BodyPartExamined", "CS", b"TANGLEWOOD", ""),  # nobody told us whose name it is
        ("BodyPartExamined", "CS", b"SMITH1", ""),
        ("ImageType", "CS", b"ORIGINAL\\PRIMARY\\SMITHERS\\M_FFE", "['ORIGINAL', 'PRIMARY', '', 'M_FFE']"),
        ("BodyPartExamined", "CS", b"MORWENNA HEAD", ""),
        ("BodyPartExamined", "CS", b"A123456", ""),
        ("BodyPartExamined", "CS", b"A12345", "A12345"),
        ("BodyPartExamined", "CS", "MÖRWENNA".encode("latin-1"), ""),
        ("BodyPartExamined", "CS", b"0104501236", ""),
        ("SliceThickness", "CS", b"HEAD", "None"),  # not the VR that the standard gives it
        ("BodyPartExamined", "CS", b" HEAD", "HEAD"),
        ("BodyPartExamined", "CS", b"HEAD\\ NECK ", "['HEAD', 'NECK']"),
        ("SliceThickness", "DS", b"1.5mm", ""),
        ("SliceThickness", "DS", b"1,5", ""),
        ("SliceThickness", "DS", b" 1.5 ", "1.5"),
        ("SliceThickness", "DS", b"104501236", ""),  # the CHI number without its leading zero
        ("SliceThickness", "DS", b"0.3333333333333333333", "0.33333333333333"),
        ("SeriesNumber", "IS", b"20150625", ""),  # reads as a date
        ("SeriesNumber", "IS", b"19500401", ""),
        ("SeriesNumber", "IS", b"2001", "2001"),
        ("SeriesNumber", "IS", b"123456789", ""),
        ("SeriesNumber", "IS", b"1e3", ""),
        ("StudyTime", "TM", b"10:15", "10:15"),
        ("StudyTime", "TM", b"quarter past", ""),
        ("StudyDate", "DA", b"20150230", ""),
        ("StudyDate", "DA", b"00010101", ""),  # the shift may leave the calendar
        ("ContentDate", "DA", b"June", ""),
        ("AcquisitionDateTime", "DT", b"2015", ""),
        ("ConvolutionKernel", "SH", b"H31s", "H31s"),
        ("ConvolutionKernel", "SH", b"Morwenna", "REMOVED"),
        ("Manufacturer", "LO", b"Quillfeather & Sons", "REMOVED"),
        ("PatientSex", "CS", b"M", "M"),
        ("PatientSex", "CS", b"FEMALE", ""),
    ],
)
def test_values_that_stay_and_values_that_do_not(keyword, vr, value, expected):
    source = instance()
    tag = Tag(tag_for_keyword(keyword))
    padded = value + b" " * (len(value) % 2)
    # As bytes: pydicom refuses to make an element of some of these.
    source._dict[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)
    made = through(source, replace(who(), shift_days=-30))
    if expected == "None":
        assert keyword not in made
        return
    assert str(made[keyword].value if made[keyword].value is not None else "") == expected


def test_binary_numbers_that_read_as_dates_are_emptied():
    made = through(instance(SimpleFrameList=[19500401], Rows=8))
    assert made["SimpleFrameList"].is_empty
    assert made.Rows == 8


def test_identifiers_that_only_the_zone_knows_are_scrubbed():
    source = instance(BodyPartExamined="PITUITARY", PatientID="X", PatientName="")
    assert through(source).BodyPartExamined == "PITUITARY"
    assert through(source, who(known=["Pituitary"]))["BodyPartExamined"].is_empty


def test_dates_move_together_and_intervals_stay():
    source = instance(
        AcquisitionDateTime="20150626103000.25+0100",
        ContentDate="2015.06.30",
        SharedFunctionalGroupsSequence=[item(FrameContentSequence=Sequence([item(FrameAcquisitionDateTime="20150701120000")]))],
    )
    made, identity = through(source), who()
    assert identity.shift_days != 0

    def day(value):
        return datetime.strptime(str(value)[:8], "%Y%m%d")

    assert (day(made.StudyDate) - datetime(2015, 6, 25)).days == identity.shift_days
    assert (day(made.AcquisitionDate) - day(made.StudyDate)).days == 1
    assert (day(made.ContentDate) - day(made.StudyDate)).days == 5
    assert str(made.AcquisitionDateTime)[8:] == "103000.25+0100"
    inner = made.SharedFunctionalGroupsSequence[0].FrameContentSequence[0].FrameAcquisitionDateTime
    assert (day(inner) - day(made.StudyDate)).days == 6


def test_uids_stay_one_graph_across_files():
    first = through(
        instance(
            FrameOfReferenceUID="1.2.3.4.5.6.7.8.9.10",
            ReferencedImageSequence=[item(ReferencedSOPClassUID=MRImageStorage, ReferencedSOPInstanceUID="1.2.826.0.1.999.2")],
        )
    )
    second = through(instance(SOPInstanceUID="1.2.826.0.1.999.2", FrameOfReferenceUID="1.2.3.4.5.6.7.8.9.10"), who("someone-else"))
    assert first.ReferencedImageSequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
    assert first.ReferencedImageSequence[0].ReferencedSOPClassUID == MRImageStorage
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID
    other_project = through(instance(), who(key=bytes(32)))
    assert {first.SOPInstanceUID, first.PatientID, first.AccessionNumber}.isdisjoint(
        {other_project.SOPInstanceUID, other_project.PatientID, other_project.AccessionNumber}
    )


def test_a_well_known_frame_of_reference_is_kept():
    talairach = next(uid for uid, about in UID_dictionary.items() if about[1] == "Well-known frame of reference")
    assert through(instance(FrameOfReferenceUID=talairach)).FrameOfReferenceUID == talairach


def test_code_items_hold_the_publishers_words_only():
    source = instance(
        AnatomicRegionSequence=[
            item(CodeValue="T-D1100", CodingSchemeDesignator="SRT", CodeMeaning="Head of Quillfeather"),
            item(CodeValue="MORWENNA", CodingSchemeDesignator="99LOCAL", CodeMeaning="Morwenna"),
        ],
        DerivationCodeSequence=[item(CodeValue="X", CodingSchemeDesignator="DCM", CodeMeaning="Quillfeather")],
    )
    made = through(source)
    assert [code.CodeValue for code in made.AnatomicRegionSequence] == ["T-D1100"]
    assert "Quillfeather" not in made.AnatomicRegionSequence[0].CodeMeaning
    assert "DerivationCodeSequence" not in made


def test_functional_groups_keep_one_item_per_frame():
    groups = [item(FrameContentSequence=Sequence([item(FrameComments="Morwenna")])) for _ in range(3)]
    made = through(instance(np.zeros((3, 4, 4), np.uint16), NumberOfFrames=3, PerFrameFunctionalGroupsSequence=groups))
    assert len(made.PerFrameFunctionalGroupsSequence) == 3


def test_what_follows_the_last_frame_is_cut_off():
    source = instance()
    source.PixelData += b"QUILLFEATHER^MORWENNA "
    made = through(source)
    assert len(made.PixelData) == 128


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_native_syntax_comes_out_as_explicit_little_endian(syntax):
    values = {"SmallestImagePixelValue": 1, "RedPaletteColorLookupTableDescriptor": [4, 0, 16], "KVP": "120"}
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    plain = through(instance(pixels, **values))
    source = instance(pixels, **values)
    if syntax == ExplicitVRBigEndian:
        source.PixelData = pixels.astype(">u2").tobytes()
    source.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    other = through(dicom_bytes(source, syntax))
    assert other == plain
    assert (other.pixel_array == pixels).all()


# --- withheld -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "identity", "reason"),
    [
        (lambda: b"", who(), "not_readable"),
        (lambda: b"no DICOM at all " * 50, who(), "not_readable"),
        (lambda: dicom_bytes(instance(Rows=None)), who(), "not_readable"),
        (lambda: dicom_bytes(instance(BitsAllocated=None)), who(), "not_readable"),
        (lambda: pydicom_file("test-SR.dcm"), who(), "not_an_image"),
        (lambda: pydicom_file("rtdose.dcm"), who(), "not_an_image"),
        (lambda: pydicom_file("waveform_ecg.dcm"), who(), "not_an_image"),
        (lambda: dicom_bytes(instance(PixelData=None)), who(), "not_an_image"),
        (lambda: pydicom_file("dicomdirtests/DICOMDIR"), who(), "not_an_image"),
        (lambda: dicom_bytes(instance(SOPClassUID="1.2.3.4.5.6")), who(), "unknown_class_uid"),
        (
            lambda: dicom_bytes(instance(ReferencedImageSequence=[item(ReferencedSOPClassUID="1.2.3.4.5")])),
            who(),
            "unknown_class_uid",
        ),
        (lambda: dicom_bytes(instance()), who(verdict=None), "text_not_determined"),
        (lambda: dicom_bytes(instance()), who(verdict="not_determined"), "text_not_determined"),
        (lambda: dicom_bytes(instance()), who(verdict="text"), "pixels_not_cleanable"),
    ],
)
def test_withheld(data, identity, reason):
    with pytest.raises(WithheldError) as caught:
        deidentify(data(), PLAN, identity)
    assert caught.value.reason == reason


# --- real files and planted canaries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pydicoms_own_files_come_through_clean_or_are_withheld(path):
    data, identity = path.read_bytes(), who()
    try:
        result = deidentify(data, PLAN, identity)
    except WithheldError as error:
        reason = error.reason
    else:
        reason = None
    assert reason in (None, "not_an_image", "not_readable", "unknown_class_uid")
    if reason:
        return
    assert verify(data, result.data, PLAN.policy, identity) == []
    assert deidentify(data, PLAN, identity) == result
    made, source = dcmread(BytesIO(result.data)), dcmread(BytesIO(data), force=True)
    for keyword in ("PatientName", "PatientID", "InstitutionName", "AccessionNumber", "StudyInstanceUID", "PatientBirthDate"):
        value = str(source.get(keyword, ""))
        if len(value) >= 8 and keyword != "PatientBirthDate":
            for encoding in ("utf-8", "utf-16-le"):
                assert value.encode(encoding) not in result.data
        assert not value or str(made.get(keyword, "")) != value
    listed = {(creator, int(place[:4], 16), int(place[-2:], 16)) for creator, places in PLAN.policy["private"].items() for place in places}
    private = [e for e in made.iterall() if e.tag.is_private and not e.tag.is_private_creator]
    assert {(e.private_creator, e.tag.group, e.tag.element & 0xFF) for e in private} <= listed
    assert (made.Rows, made.Columns) == (source.Rows, source.Columns)


CANARY = "Zanquillbert"
SPELT = {
    "PN": "Zanquillbert^Ortrud",
    "DA": "19310207",
    "UI": "1.2.840.99.31415926.535",
    "CS": "ZANQUILLBERT",
    "IS": "19310207",
    "DS": "19310207",
}
_TEXT_TAGS = [
    "PatientComments",
    "ImageComments",
    "StudyDescription",
    "OperatorsName",
    "PatientAddress",
    "OtherPatientIDs",
    "ProtocolName",
    "BodyPartExamined",
    "TextComments",
    "PerformedProcedureStepDescription",
    "CodeMeaning",
    "CodeValue",
    "DerivationDescription",
    "ContrastBolusAgent",
    "InstitutionalDepartmentName",
    "StationName",
    "PatientName",
    "ReferringPhysicianName",
    "SeriesNumber",
    "SliceThickness",
    "IrradiationEventUID",
    "ScheduledProcedureStepStartDate",
]
_SEQUENCES = [
    "ReferencedImageSequence",
    "AnatomicRegionSequence",
    "RequestAttributesSequence",
    "SharedFunctionalGroupsSequence",
    "DerivationCodeSequence",
    "ContentSequence",
    "OtherPatientIDsSequence",
    "ViewCodeSequence",
    "RadiopharmaceuticalInformationSequence",
]


@st.composite
def planted(draw, depth=0):
    """A data set with canaries under standard, private, unknown and bulk elements, at any depth."""
    made = Dataset()
    for keyword in draw(st.lists(st.sampled_from(_TEXT_TAGS), max_size=5, unique=True)):
        setattr(made, keyword, "")
        element = made[keyword]
        text = SPELT.get(element.VR, draw(st.sampled_from([CANARY, f"x {CANARY} y", CANARY.upper()])))
        made[keyword] = DataElement(element.tag, element.VR, text, validation_mode=0)
    if draw(st.booleans()):
        made.private_block(0x0011, "ACME", create=True).add_new(1, draw(st.sampled_from(["LO", "UT"])), CANARY)
    if draw(st.booleans()):
        made.add_new(draw(st.sampled_from([0x60003000, 0x50003000, 0xFFFCFFFC, 0x00420011, 0x00080777])), "OB", CANARY.encode())
    if draw(st.booleans()):
        made.add_new(0x00189004, "UN", CANARY.upper().encode())
    if depth < 3:
        for keyword in draw(st.lists(st.sampled_from(_SEQUENCES), max_size=2, unique=True)):
            setattr(made, keyword, Sequence(draw(st.lists(planted(depth + 1), min_size=1, max_size=2))))
    return made


@hypothesis_settings(max_examples=60, deadline=None)
@given(extra=planted(), charset=st.sampled_from(["ISO_IR 192", "ISO_IR 100", ""]), implicit=st.booleans())
def test_no_canary_survives_at_any_depth_vr_and_charset(extra, charset, implicit):
    source = instance(PatientName=SPELT["PN"], PatientBirthDate="19310207", SpecificCharacterSet=charset)
    for element in extra:
        source.add(element)
    source.SOPInstanceUID = SPELT["UI"]
    syntax = ImplicitVRLittleEndian if implicit else "1.2.840.10008.1.2.1"
    source.set_original_encoding(implicit, True)
    data, identity = dicom_bytes(source, syntax), who()
    result = deidentify(data, PLAN, identity).data
    for canary in (CANARY, CANARY.upper(), "Ortrud", "ORTRUD", "19310207", SPELT["UI"]):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert canary.encode(encoding) not in result
    assert verify(data, result, PLAN.policy, identity) == []
    made = dcmread(BytesIO(result))
    assert made.Modality == "CT"
    assert made.pixel_array.shape == (8, 8)


@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_never_crash_and_never_leak(data):
    original = bytearray(dicom_bytes(instance(SOPClassUID=SecondaryCaptureImageStorage, ImageComments="Quillfeather was here")))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(132, len(original) - 5))
        original[at : at + 4] = struct.pack("<I", data.draw(st.integers(0, 2**32 - 1)))
    damaged = bytes(original[: data.draw(st.integers(200, len(original)))])
    identity = who(known=["Quillfeather", "Morwenna", "0104501236"])
    try:
        result = deidentify(damaged, PLAN, identity)
    except WithheldError:
        return
    if not verify(damaged, result.data, PLAN.policy, identity):
        for word in (b"Quillfeather", b"Morwenna", b"0104501236"):
            assert word not in result.data


CODES = st.sampled_from(["ORIGINAL", "MORWENNA", " AXIAL", "M_FFE", "SMITHERS", "C30", "A1234", "", "head"])
NUMBER = st.from_regex(r"-?[0-9]{1,7}(\.[0-9]{0,7})?", fullmatch=True)
VALUES = {
    "SliceThickness": ("DS", NUMBER),
    "PixelSpacing": ("DS", st.lists(NUMBER, min_size=1, max_size=3).map("\\".join)),
    "SeriesNumber": ("IS", st.from_regex(r" ?[+-]?[0-9]{1,8} ?", fullmatch=True)),
    "StudyTime": ("TM", st.from_regex(r"[0-9]{2}:?[0-9]{2}:?[0-9]{0,2}(\.[0-9]{0,6})?", fullmatch=True)),
    "ImageType": ("CS", st.lists(CODES, max_size=4).map("\\".join)),
    "BodyPartExamined": ("CS", st.sampled_from(["HEAD", "HEAD ", "QUILLFEATHER", "X HEAD", "CHEST\0", "A123456"])),
    "Rows": ("US", st.just("\x08\0")),
}  # fmt: skip


@hypothesis_settings(max_examples=80, deadline=None)
@given(values=st.fixed_dictionaries({}, optional={name: strategy for name, (_, strategy) in VALUES.items()}), data=st.data())
def test_what_stays_byte_for_byte_is_what_taking_it_apart_gives(values, data):
    source = instance()
    for keyword, value in values.items():
        raw, tag = value.encode(), Tag(tag_for_keyword(keyword))
        if data.draw(st.booleans()):
            raw += b" " * (len(raw) % 2)
        source._dict[tag] = RawDataElement(tag, VALUES[keyword][0], len(raw), raw, 0, False, True)
    whole = dicom_bytes(source)
    made = deidentify(whole, PLAN, who())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(act._Treatment, "is_plain", lambda *_: False)
        patch.setattr(act._Treatment, "is_short", lambda *_: False)
        patch.setattr(act._Treatment, "_as_for_all", lambda *_: False)
        patch.setattr(act._Treatment, "_directly", lambda *_: None)
        patch.setattr(act, "_codes", lambda _: None)
        assert deidentify(whole, PLAN, who()) == made
