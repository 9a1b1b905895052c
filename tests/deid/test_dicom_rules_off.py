"""Every rule of the engine, turned off on its own: something then comes through, or the independent check finds it. So each one is needed,
and this test fails where one is lost."""

import math
import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from instances import dicom_bytes, instance, item
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit

from pictures_spark.deid import act, dicom_pixels, dicom_scrub
from pictures_spark.deid.act import WithheldError, deidentify
from pictures_spark.deid.dicom_identity import Box, Identity, make_identity
from pictures_spark.deid.plan import Action, Decision, Plan, load_plan
from pictures_spark.deid.verify import verify

PLAN, DETAILED = load_plan("default"), load_plan("detailed")
IDENTITY = make_identity(bytes(range(32)), "p", 180, verdict="clean")
BOXED = replace(IDENTITY, verdict="text", boxes=(Box(0, 0, 1, 1, 4, 4),))
JPEG = b"\xff\xd8\xff\xfe" + struct.pack(">H", 22) + b"OTTOLINE VANDERSNOOT" + b"\xff\xda\x00\x02ab\xff\xd9"


def plain(**values):
    return dicom_bytes(instance(**values))


def private(**values):
    source = instance(**values)
    source.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
    source.private_block(0x0011, "SOMEBODY", create=True).add_new(0x0C, "IS", "4711")
    return dicom_bytes(source)


def palette():
    data = bytes(range(256)) + b"OTTOLINE VANDERSNOOT"
    tables = {
        f"{c}PaletteColorLookupTable{part}": v
        for c in ("Red", "Green", "Blue")
        for part, v in (("Descriptor", [256, 0, 8]), ("Data", data))
    }
    return dicom_bytes(instance(np.zeros((8, 8), np.uint8), PhotometricInterpretation="PALETTE COLOR", **tables))


def framed(frame=JPEG, **values):
    source = instance(np.zeros((8, 8), np.uint8), **values)
    source.PixelData = encapsulate([frame], has_bot=False)
    source["PixelData"].is_undefined_length = True
    return dicom_bytes(source, JPEGBaseline8Bit)


def overlaid():
    source = instance(np.full((8, 8), 0x8001, np.uint16), BitsStored=12, HighBit=11)
    source.add_new(0x60000010, "US", 8)
    source.add_new(0x60000011, "US", 8)
    source.add_new(0x60000102, "US", 15)
    return dicom_bytes(source)


def coded():
    code = item(CodeValue="4711", CodingSchemeDesignator="99LOCAL", CodeMeaning="Vandersnoot")
    return plain(AnatomicRegionSequence=[code])


def unknown_class():
    return plain(
        ReferencedImageSequence=[item(ReferencedSOPClassUID="1.2.3.4.5.6.7.8.9.10.11", ReferencedSOPInstanceUID="1.2.3.4.5.6.7.8")]
    )


def nested_pixels():
    inner = item(Rows=4, Columns=4)
    inner.add_new(0x7FE00010, "OB", b"OTTOLINE VANDERS")
    return plain(ReferencedImageSequence=[inner])


# Rule -> (where it is, its name there, what stands in its place, source, what of it must not come through, policy, identity)
OFF = {
    "words of code strings": (act, "known_code", lambda v: True, lambda: plain(ContentLabel="VANDERSNOOT"), b"VANDERSNOOT", PLAN, IDENTITY),
    "identifiers in code strings": (
        act._Values,
        "in_text",
        lambda self, v: False,
        lambda: plain(BodyPartExamined="BLADDER", PatientName="Bladder^Jo"),
        b"BLADDER",
        PLAN,
        IDENTITY,
    ),
    "identifiers in numbers as text": (
        act._Values,
        "in_number",
        lambda self, v: False,
        lambda: plain(SeriesNumber="104501236"),
        b"104501236",
        PLAN,
        IDENTITY,
    ),
    "identifiers in binary numbers": (
        act._Values,
        "in_numbers",
        lambda self, vr, v: False,
        lambda: plain(TagAngleFirstAxis=104501236.0),
        struct.pack("<d", 104501236.0),
        PLAN,
        IDENTITY,
    ),
    "letters in binary numbers": (
        act._Values,
        "in_bytes",
        lambda self, v, t: False,
        lambda: plain(FrameNumbersOfInterest=list(struct.unpack("<6H", b"Quillfeather"))),
        b"Quillfeather",
        PLAN,
        IDENTITY,
    ),
    "how many values": (
        act,
        "_most_values",
        lambda tag: math.inf,
        lambda: plain(InConcatenationNumber=list(struct.unpack("<4H", b"Vanders "))),
        b"Vanders",
        PLAN,
        IDENTITY,
    ),
    "entries of palettes": (act, "_table_only", lambda v, d: v, palette, b"VANDERSNOOT", PLAN, IDENTITY),
    "dates move": (act, "shift_date", lambda v, d: v, plain, b"20150625", PLAN, IDENTITY),
    "date times move": (
        act,
        "shift_date_time",
        lambda v, d: v,
        lambda: plain(AcquisitionDateTime="20150625101010"),
        b"20150625101010",
        PLAN,
        IDENTITY,
    ),
    "great ages": (act, "banded_age", lambda v, limit: v, lambda: plain(PatientAge="097Y"), b"097Y", DETAILED, IDENTITY),
    "spellings of the birth date": (act, "_spelt_dates", lambda v: [], lambda: plain(SeriesNumber="010450"), b"010450", PLAN, IDENTITY),
    "spellings of names": (
        dicom_scrub,
        "spellings",
        lambda name: (name,),
        lambda: plain(SpecificCharacterSet="ISO_IR 192", PatientName="Kjærgård^A", ImageComments="of kjaergaard"),
        b"kjaergaard",
        DETAILED,
        IDENTITY,
    ),
    "letters of another character set": (
        dicom_scrub,
        "_ESCAPED",
        dicom_scrub.re.compile("(?!)"),
        lambda: plain(ImageComments="CT \x1b$B;3ED"),
        b";3ED",
        DETAILED,
        IDENTITY,
    ),
    "published codes only": (
        act,
        "_code_items",
        lambda s, v: [act.text(0x00080100, "SH", v or "x"), act.text(0x00080102, "SH", s or "x"), act.text(0x00080104, "LO", "x")],
        coded,
        b"4711",
        PLAN,
        IDENTITY,
    ),
    "comments in frames": (dicom_pixels, "without_comments", lambda v, f, r=0: (v, False), framed, b"VANDERSNOOT", PLAN, IDENTITY),
    "what follows the last frame": (
        dicom_pixels,
        "native_length",
        lambda s: 1 << 20,
        lambda: plain(PixelData=bytes(128) + b"OTTOLINE VANDERSNOOT"),
        b"VANDERSNOOT",
        PLAN,
        IDENTITY,
    ),
    "overlays in the pixel words": (
        dicom_pixels,
        "_overlay_without_data",
        lambda tags: False,
        overlaid,
        struct.pack("<H", 0x8001) * 4,
        PLAN,
        IDENTITY,
    ),
    "boxes": (dicom_pixels, "_fill_all", lambda *a, **k: None, plain, np.arange(64, dtype=np.uint16).tobytes(), PLAN, BOXED),
    "UIDs": (Identity, "uid", lambda self, v: v, plain, b"1.2.826.0.1.3680043.10.1234.1.1.1", PLAN, IDENTITY),
    "accession numbers": (Identity, "accession", lambda self, v: v, plain, b"ACC20150625", PLAN, IDENTITY),
    "creators of private blocks": (
        Plan,
        "decide_private",
        lambda self, c, t: Decision(Action.KEEP, "", ""),
        private,
        b"4711",
        PLAN,
        IDENTITY,
    ),
    "pixels below the top": (act, "_PIXEL_TAGS", (), nested_pixels, b"OTTOLINE VANDERS", PLAN, IDENTITY),
    "text is cleaned": (
        dicom_scrub.Scrub,
        "clean",
        lambda self, t, vocabulary=False, mask=False: t,
        lambda: plain(SeriesDescription="of Morwenna"),
        b"Morwenna",
        PLAN,
        IDENTITY,
    ),
}


@pytest.mark.parametrize("rule", list(OFF))
def test_without_its_rule_something_comes_through(rule, monkeypatch):
    target, name, off, source, canary, plan, identity = OFF[rule]
    data = source()
    result = deidentify(data, plan, identity).data
    assert canary not in result
    assert verify(data, result, plan.policy, identity) == []
    monkeypatch.setattr(target, name, off)
    try:
        without = deidentify(data, plan, identity).data
    except WithheldError:
        return  # nothing is written rather than something wrong
    assert canary in without or verify(data, without, plan.policy, identity)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "ReferencedSOPClassUID"])
def test_a_class_that_nobody_knows_is_not_written(keyword):
    data = unknown_class() if keyword != "SOPClassUID" else plain(SOPClassUID="1.2.3.4.5.6.7.8.9.10.11")
    with pytest.raises(WithheldError, match="unknown_class_uid"):
        deidentify(data, PLAN, IDENTITY)


def test_every_way_to_clean_a_vr_is_tried():
    """Canaries at every depth down to 6, under every VR that DICOM has: none is written."""
    letters, text = b"VANDERSNOOT     ", "Vandersnoot"
    canaries = dict.fromkeys(("LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT"), text)
    canaries |= dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), letters)
    numbers = {"FL": "4f", "FD": "2d", "AT": "4I", "UL": "4I", "SL": "4i", "US": "8H", "SS": "8h", "SV": "2q", "UV": "2Q"}
    canaries |= {vr: struct.unpack(f"<{form}", letters) for vr, form in numbers.items()}
    canaries |= {"AE": "VANDERSNOOT", "CS": "VANDERSNOOT", "AS": "097Y", "DA": "19310207", "DT": "19310207101010", "DS": "104501236"}
    canaries |= {"IS": "19500401", "UI": "1.2.840.99.31415926.535", "UR": "http://vandersnoot.org/x"}
    of_vr = {}
    for tag, (vr, *_) in act.DicomDictionary.items():
        if 0x0008 <= tag >> 16 < 0x7FE0 and PLAN.decide(tag).action is not Action.REMOVE:
            of_vr.setdefault(vr.split(" or ")[0], []).append(tag)
    for vr in canaries:
        of_vr.setdefault(vr, [tag for tag, row in act.DicomDictionary.items() if row[0] == vr and 0x0008 <= tag >> 16 < 0x7FE0])
    taken = {0x00080016, 0x00080018, *range(0x00280002, 0x00280200)}
    for depth in range(6):
        source = instance(PatientBirthDate="19310207")
        inner = source
        for _ in range(depth):
            deeper = item()
            inner.ReferencedImageSequence = Sequence([deeper])
            inner = deeper
        for vr, value in canaries.items():
            for tag in [tag for tag in of_vr[vr] if tag not in taken | PLAN.classes][depth::6][:40]:
                inner[tag] = DataElement(tag, vr, list(value) if isinstance(value, tuple) else value, validation_mode=0)
        data = dicom_bytes(source)
        result = deidentify(data, PLAN, IDENTITY).data
        assert verify(data, result, PLAN.policy, IDENTITY) == []
        for word in (b"vandersnoot", b"vandersn", b"19310207", b"104501236", b"1.2.840.99.31415926.535", b"097y"):
            assert word not in result.lower(), (depth, word)
        assert dcmread(BytesIO(result)).Rows == 8
