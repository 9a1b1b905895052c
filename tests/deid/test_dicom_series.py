"""What a series shares is de-identified once, and nobody can tell from the result."""

import struct
import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from instances import dicom_bytes, instance, item, pydicom_file, pydicom_files
from pydicom import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pictures_spark.deid.act import Deidentifier, WithheldError, deidentify
from pictures_spark.deid.dicom_identity import make_identity
from pictures_spark.deid.dicom_read import MalformedError, by_pydicom, items_of, read
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import verify

PLAN = load_plan("default")
IDENTITY = make_identity(bytes(range(32)), "p", 180, known=["Quillfeather", "Morwenna"], verdict="clean")

# What differs from image to image: usual slots, and things that must not be taken for one.
CHANGES = {
    "SOPInstanceUID": ["1.2.3.1", "1.2.3.22", "1.2.3.333"],
    "InstanceNumber": ["1", "22", "", "19500401"],
    "SliceLocation": ["-1.5", "100.25", "19500401", ""],
    "ContentTime": ["101500", "101501.25", "Morwenna"],
    "ContentDate": ["20150625", "20150626"],
    "ImageComments": ["slice of Morwenna", "head", "Dr Hoskins"],
    "WindowCenter": [["40", "50"], "40"],
    "SeriesDescription": ["AXIAL", "Morwenna AXIAL"],
    "OperatorsName": ["Axial^Bob", "Hoskins^Jane"],
    "PatientName": ["Quillfeather^Morwenna", "Other^Name"],
    "StationName": ["AXIALSTATION", "HEADROOM"],
    "SmallestImagePixelValue": [0, 5],
    "BodyPartExamined": ["HEAD", "HOSKINS"],
    "SpecificCharacterSet": ["ISO_IR 100", "ISO_IR 192"],
    "ReferencedImageSequence": ["1.9.1", "1.9.22"],
    "RequestAttributesSequence": ["HEAD", "HOSKINS"],
}


def made(values, implicit=False, private="1.5", extra=b""):
    source = instance(np.zeros((4, 4), np.uint16), SpecificCharacterSet="ISO_IR 100")
    for name, value in values.items():
        if name == "ReferencedImageSequence":
            value = Sequence([item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=value)])
        elif name == "RequestAttributesSequence":
            value = Sequence([item(RequestedProcedureID=value, ScheduledProcedureStepDescription="HOSKINS HEAD")])
        setattr(source, name, value)
    block = source.private_block(0x0019, "GEMS_ACQU_01", create=True)
    block.add_new(0x23, "DS", private)
    source.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "Morwenna")
    source.set_original_encoding(implicit, True)
    return dicom_bytes(source, ImplicitVRLittleEndian if implicit else "1.2.840.10008.1.2.1") + extra


@st.composite
def series(draw):
    names = draw(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=5, unique=True))
    implicit = draw(st.booleans())
    count = draw(st.integers(3, 6))
    rows = [{name: draw(st.sampled_from(CHANGES[name])) for name in names} for _ in range(count)]
    return [made(row, implicit, draw(st.sampled_from(["1.5", "2.25", ""])), draw(st.sampled_from([b"", b"\0\0"]))) for row in rows]


@hypothesis_settings(max_examples=25, deadline=None)
@given(files=series())
def test_one_after_the_other_is_as_each_alone(files):
    together = Deidentifier(PLAN)
    for data in [*files, *files]:
        alone = deidentify(data, PLAN, IDENTITY)
        assert together(data, IDENTITY) == alone
        assert verify(data, alone.data, PLAN.policy, IDENTITY) == []


def test_a_template_is_used_and_sees_what_changes():
    files = [made({"SOPInstanceUID": f"1.2.3.{n}", "InstanceNumber": str(n), "ImageComments": f"slice {n}"}) for n in range(1, 30)]
    together = Deidentifier(PLAN)
    for data in files:
        together(data, IDENTITY)
    (person,) = together._people.values()
    assert person.by_template(files[-1]) == deidentify(files[-1], PLAN, IDENTITY)
    # A comment that was never seen, in the same place; and a name that makes a word of the comment identifying.
    seen = made({"SOPInstanceUID": "1.2.3.40", "InstanceNumber": "40", "ImageComments": "of Morwenna"})
    found = person.by_template(seen)
    assert found is not None
    assert b"Morwenna" not in found.data
    other = made({"SOPInstanceUID": "1.2.3.41", "InstanceNumber": "41", "ImageComments": "slice 4", "OperatorsName": "Slice^X"})
    assert person.by_template(other) is None
    assert b"slice" not in together(other, IDENTITY).data.lower()


def test_people_do_not_share_what_was_learned():
    files = [made({"SOPInstanceUID": f"1.2.3.{n}"}) for n in range(1, 5)]
    other = make_identity(bytes(range(32)), "someone else", 180, verdict="clean")
    together = Deidentifier(PLAN)
    for data in files:
        for who in (IDENTITY, other):
            assert together(data, who) == deidentify(data, PLAN, who)


def test_a_verdict_is_asked_for_every_image():
    files = [made({"SOPInstanceUID": f"1.2.3.{n}"}) for n in range(1, 6)]
    together = Deidentifier(PLAN)
    for data in files:
        together(data, IDENTITY)
    with pytest.raises(WithheldError, match="text_not_determined"):
        together(files[0], make_identity(bytes(range(32)), "p", 180, known=["Quillfeather", "Morwenna"]))


# --- the reader -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_elements_are_those_that_pydicom_reads(path):
    """Differential: every element at any depth, on every file that is walked here."""
    data = path.read_bytes()
    try:
        source = read(data)
    except Exception:  # noqa: BLE001 - no DICOM: pydicom says so, in its own way
        with pytest.raises(Exception):  # noqa: B017, PT011
            by_pydicom(data)
        return
    if source.nodes is not None:
        return
    other = by_pydicom(data).nodes
    assert other is not None
    for tag in source.places:
        if tag not in source.pixels:
            assert _plain(source.node(tag)) == _plain(other[tag]), f"{tag:08X}"
    behind = max(source.places)
    assert {tag for tag in other if tag <= behind and tag >> 16 >= 8} == set(source.places)


def _plain(node):
    """(tag, value), items as lists; a UN that is a sequence is compared as its items."""
    value = node.value
    if isinstance(value, list):
        return node.tag, [[_plain(each) for _, each in sorted(nodes.items())] for nodes in value]
    # pydicom has stripped the padding of the one element that it converts at once.
    return node.tag, bytes(value).rstrip(b" ") if node.tag == 0x00080005 else bytes(value)


def test_most_of_pydicoms_files_are_walked_here():
    sources = []
    for path in pydicom_files():
        try:
            sources.append(read(path.read_bytes()))
        except Exception:  # noqa: BLE001 - as above
            continue
    assert sum(source.nodes is None for source in sources) > 0.85 * len(sources)


def test_unknown_vr_that_holds_a_sequence():
    """Implicit VR inside, whatever the file is (PS3.5 6.2.2); what cannot be walked is refused, not guessed."""
    inner = struct.pack("<HHI", 0x0008, 0x1155, 6) + b"1.9.1\0"
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    before, behind = dicom_bytes(instance()).split(b"\x10\0\x10\0PN", 1)

    def with_value(unknown):
        head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"UN", 0, len(unknown))
        return b"".join((before, head, unknown, b"\x10\0\x10\0PN", behind))

    result = dcmread(BytesIO(deidentify(with_value(value), PLAN, IDENTITY).data))
    assert result.ReferencedImageSequence[0].ReferencedSOPInstanceUID == IDENTITY.uid("1.9.1")
    assert [node.tag for node in items_of(value)[0].values()] == [0x00081155]
    with pytest.raises(MalformedError):
        items_of(value[:-1])
    assert "ReferencedImageSequence" not in dcmread(BytesIO(deidentify(with_value(value[:-2]), PLAN, IDENTITY).data))


@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm"])
def test_deflated_and_big_endian_give_the_same_elements(name):
    plain = pydicom_file(name)
    dataset = dcmread(BytesIO(plain))
    expected = deidentify(plain, PLAN, IDENTITY)
    buffer = BytesIO()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(buffer, enforce_file_format=True)
    assert deidentify(buffer.getvalue(), PLAN, IDENTITY).data == expected.data
    big = dcmread(BytesIO(pydicom_file("MR_small_bigendian.dcm")))
    assert big.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    made_big = dcmread(BytesIO(deidentify(pydicom_file("MR_small_bigendian.dcm"), PLAN, IDENTITY).data))
    made_small = dcmread(BytesIO(deidentify(pydicom_file("MR_small.dcm"), PLAN, IDENTITY).data))
    assert (made_big.pixel_array == made_small.pixel_array).all()
    assert made_big.Rows == made_small.Rows


def test_series_of_people_with_the_same_scanner_teach_each_other_what_differs():
    """Only which elements differ, never what is in them: the first image of a new person's series is the template for the second."""
    together = Deidentifier(PLAN)
    people = [make_identity(bytes(range(32)), f"p{n}", 180, verdict="clean") for n in range(4)]
    for number, who in enumerate(people):
        values = {"PatientName": f"Somebody^{number}", "StudyInstanceUID": f"1.9.{number}", "SeriesInstanceUID": f"1.9.{number}.1"}
        files = [made({**values, "SOPInstanceUID": f"1.9.{number}.1.{n}", "InstanceNumber": str(n)}) for n in range(3)]
        together(files[0], who)
        (*_, person) = together._people.values()
        assert bool(person._templates) == (number > 0)
        for data in files:
            assert together(data, who) == deidentify(data, PLAN, who)
            assert verify(data, together(data, who).data, PLAN.policy, who) == []


def test_each_series_of_a_person_has_its_template():
    together = Deidentifier(PLAN)
    for series in (1, 2, 1, 2):
        for n in range(3):
            data = made({"SeriesInstanceUID": f"1.9.{series}", "SOPInstanceUID": f"1.9.{series}.{n}", "InstanceNumber": str(n)})
            assert together(data, IDENTITY) == deidentify(data, PLAN, IDENTITY)
    (person,) = together._people.values()
    assert len(person._templates) == 2


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_pixels_that_are_real_numbers_have_no_template(keyword):
    source = instance(BitsAllocated=32 if keyword[0] == "F" else 64)
    del source.PixelData
    setattr(source, keyword, np.ones(64, "<f4" if keyword[0] == "F" else "<f8").tobytes())
    data, together = dicom_bytes(source), Deidentifier(PLAN)
    for _ in range(4):
        assert together(data, IDENTITY) == deidentify(data, PLAN, IDENTITY)
    (person,) = together._people.values()
    assert not person._templates


def test_nothing_warns_on_the_short_way_either():
    """pydicom quotes values in its warnings, which end in a log: an unknown character set inside a sequence that differs, too."""
    together = Deidentifier(PLAN)
    for n in range(6):
        inner = item(ReferencedSOPInstanceUID=f"1.9.{n}")
        if n > 2:
            inner.SpecificCharacterSet = f"VANDERSNOOT {n}"
        source = instance(np.zeros((4, 4), np.uint16), SOPInstanceUID=f"1.2.3.{n}", ReferencedImageSequence=Sequence([inner]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = dicom_bytes(source)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            result = together(data, IDENTITY).data
        assert b"VANDERSNOOT" not in result.upper()
        assert not seen
