"""What is remembered of one person's files never shows in another's: people and projects turn by turn, from the same scanner."""

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from instances import dicom_bytes, instance, item, pydicom_file
from pydicom import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pictures_spark.deid import act, dicom_values
from pictures_spark.deid.act import Deidentifier, deidentify
from pictures_spark.deid.dicom_identity import make_identity
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import verify

PLAN, DETAILED = load_plan("default"), load_plan("detailed")
KEYS = (bytes(range(32)), bytes(range(1, 33)))
# What one person is called is a word of another's images: a region, a protocol, a number, a code, letters in numbers.
KNOWN = [
    ["Head", "0101501234"],
    ["Axial", "Axial^Brain", "123456"],
    ["Bladder", "PRIMARY"],
    ["Contras", "654321", "Quillfeather"],
    [],
]
PEOPLE = [make_identity(key, f"p{n}", 180, known=known, verdict="clean") for key in KEYS for n, known in enumerate(KNOWN)]
NAMES = ["Smith^Jo", "Head^Ann", "Axial^Bob", "Brain^Li", "Primary^Q"]
VALUES = {
    "PatientName": NAMES,
    "PatientID": ["0101501234", "4711", "123456"],
    "PatientBirthDate": ["19500101", "19310207", ""],
    "StudyDate": ["20150625", "20150626"],
    "SeriesDescription": ["AXIAL HEAD", "contrast", "BRAIN hd", "of Morwenna"],
    "ImageComments": ["contrast of bladder", "Hed axial", "Quilfeather"],
    "BodyPartExamined": ["HEAD", "BLADDER", "BRAIN"],
    "ImageType": [["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "HEAD"]],
    "SeriesNumber": ["123456", "7", "654321", "010150"],
    "SliceThickness": ["123456.5", "2.5"],
    "OperatorsName": ["Hoskins^Jane", "Head^Jane"],
    "InstitutionName": ["Brain Infirmary", ""],
    "AccessionNumber": ["A1234567", "123456"],
    "TagAngleFirstAxis": [123456.0, 1.5],
    "FrameNumbersOfInterest": [list(struct.unpack("<6H", b"Quillfeather")), [1, 2]],
    "SpecificCharacterSet": ["ISO_IR 100", "ISO_IR 192"],
    "ManufacturerModelName": ["Bladderscan", "J\u00f8rgen Head"],
}


def made(values, syntax="1.2.840.10008.1.2.1", instance_uid="1.2.3.1", creator="GEMS_ACQU_01", private="1.5"):
    source = instance(np.zeros((4, 4), np.uint16), SOPInstanceUID=instance_uid, **{"SpecificCharacterSet": "ISO_IR 100", **values})
    inner = item(ScheduledProcedureStepDescription=values.get("SeriesDescription", "HEAD"), RequestedProcedureID="RP7")
    source.RequestAttributesSequence = Sequence([inner])
    source.private_block(0x0019, creator, create=True).add_new(0x23, "DS", private)
    source.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    return dicom_bytes(source, syntax)


@st.composite
def turns(draw):
    """(file, person) in any order; files of a few kinds whose instances differ."""
    kinds = draw(st.lists(st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in VALUES.items()}), min_size=1, max_size=3))
    syntaxes = ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian, ExplicitVRBigEndian]
    files = []
    for number in range(draw(st.integers(4, 10))):
        data = made(
            draw(st.sampled_from(kinds)),
            draw(st.sampled_from(syntaxes)),
            f"1.2.3.{number}",
            draw(st.sampled_from(["GEMS_ACQU_01", "SIEMENS MR HEADER", "SOMEBODY"])),
            draw(st.sampled_from(["1.5", "123456", "2.25"])),
        )
        files += [(data, who) for who in draw(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4))]
    return files


@pytest.mark.parametrize("plan", [PLAN, DETAILED], ids=["default", "detailed"])
@hypothesis_settings(max_examples=30, deadline=None)
@given(files=turns())
def test_each_turn_is_as_if_there_were_no_other(plan, files):
    together = Deidentifier(plan)
    for data, who in [*files, *files]:
        assert together(data, who) == deidentify(data, plan, who)


@pytest.mark.parametrize("key", KEYS, ids=["one project", "another"])
def test_a_whole_series_in_turns(key):
    """Templates of several people at once: the constants of each are its own, and each person's words go from theirs alone."""
    people = [make_identity(key, f"p{n}", 180, known=known, verdict="clean") for n, known in enumerate(KNOWN)]
    together = Deidentifier(DETAILED)
    constants = {"SeriesDescription": "AXIAL HEAD", "ImageComments": "contrast of bladder", "BodyPartExamined": "HEAD"}
    for number in range(12):
        data = made({**constants, "InstanceNumber": str(number)}, instance_uid=f"1.2.3.{number}")
        results = [together(data, who) for who in people]
        for who, result in zip(people, results, strict=True):
            assert result == deidentify(data, DETAILED, who)
            assert verify(data, result.data, DETAILED.policy, who) == []
        left = [(r.SeriesDescription, r.ImageComments, r.BodyPartExamined) for r in (dcmread(BytesIO(result.data)) for result in results)]
        assert left == [
            ("AXIAL *", "contrast of bladder", ""),
            ("* HEAD", "contrast of bladder", "HEAD"),
            ("AXIAL HEAD", "contrast of *", "HEAD"),
            ("AXIAL HEAD", "* of bladder", "HEAD"),
            ("AXIAL HEAD", "contrast of bladder", "HEAD"),
        ]
        assert len({result.image_uid for result in results}) == 1
    assert all(person._templates for person in together._people.values())


WORDS = {
    "words": ({"BodyPartExamined": "CHEST"}, ["Chest"], b"CHEST"),
    "near": ({"SeriesDescription": "Contrast"}, ["Contrasts"], b"Contrast"),
    "whole": ({"BodyPartExamined": "BRAINSTEM"}, ["ainstem"], b"BRAINSTEM"),
    "blob": (
        {"FrameNumbersOfInterest": [0x6161, 0x6162, 0x6163]},
        ["aabaca"],
        b"aabaca",
    ),
}


@pytest.mark.parametrize("kind", list(WORDS))
def test_what_was_judged_as_nobodys_is_asked_of_everybody(kind, monkeypatch):
    """And each kind of question is needed: without it, what was nobody's is written for the person whose it is."""
    values, known, canary = WORDS[kind]
    data = made(values)
    nobody, somebody = (make_identity(KEYS[0], "p", 180, known=words, verdict="clean") for words in ([], known))
    together = Deidentifier(DETAILED)
    assert canary in together(data, nobody).data
    assert canary not in together(data, somebody).data
    assert canary in together(data, nobody).data
    unless = dicom_values.Noted.unless
    monkeypatch.setattr(dicom_values.Noted, "unless", lambda self: unless(self)._replace(**{kind: type(getattr(unless(self), kind))()}))
    careless = Deidentifier(DETAILED)
    assert canary in careless(data, nobody).data
    assert canary in careless(data, somebody).data


def test_what_is_remembered_is_bounded():
    together = Deidentifier(PLAN)
    for number in range(300):
        data = made(
            {"SeriesDescription": f"HEAD {number}", "BodyPartExamined": "HEAD"}, instance_uid=f"1.2.3.{number}", creator=f"ACME {number}"
        )
        together(data, make_identity(KEYS[0], f"p{number}", 180, verdict="clean"))
    assert len(together._people) <= act._PEOPLE
    assert len(together._shared) <= act._SHARED_CONTEXTS
    for shared in together._shared.values():
        assert len(shared._blocks) <= act._CONTEXTS
        assert len(shared.judged) <= act._ELEMENTS


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_expb.dcm", "ExplVR_BigEnd.dcm"])
def test_big_endian_is_walked_as_pydicom_reads_it(name, monkeypatch):
    data = pydicom_file(name)
    source = act.read(data)
    assert source.nodes is None
    walked = deidentify(data, PLAN, PEOPLE[0])
    monkeypatch.setattr(act, "read", act.read.__globals__["by_pydicom"])
    assert deidentify(data, PLAN, PEOPLE[0]) == walked
