# ruff: noqa: E501
"""All that a DICOM header may be: every VR, character set, byte order and form of length, each as pydicom reads it."""

import struct
import warnings
from decimal import Decimal
from pathlib import Path

import pydicom
import pydicom.charset
import pytest
from dicom_bytes import OPEN, Encoder, written
from dicom_json import differences, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pictures_spark.dicom.scan import scan
from pictures_spark.dicom.structures import Headers

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
PLAIN = SYNTAXES[:3]


def instance():
    data_set = Dataset()
    data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    return data_set


def agree(data, big=False):
    """The header as `scan` reads it, which is as pydicom does, and as `Headers` does."""
    record = scan(data)
    assert differences(record.elements, reference(data), big=big) == []
    assert Headers().read(data).text == record.text
    return record


ASCII = st.text("ABCdef 0123456789.-_", max_size=12).map(str.strip)


def several(values, most=3):
    return st.lists(values, min_size=1, max_size=most).map(lambda found: found[0] if len(found) == 1 else found)


def even(size):
    return st.binary(max_size=3).map(lambda data: data * size if size > 1 else data + bytes(len(data) % 2))


# VR -> values; the element is private or, where there is one, the Selector <VR> Value of hanging protocols.
VALUES = {
    "AE": several(ASCII),
    "AS": st.sampled_from(["018M", "045Y", "", "001D"]),
    "AT": several(st.integers(0x00080000, 0x0018FFFF)),
    "CS": several(st.text("ABC_0 ", max_size=16).map(str.strip)),
    "DA": several(st.dates().map(lambda day: f"{day:%Y%m%d}".zfill(8))),
    "DS": several(st.decimals(-999, 999, places=3).map(lambda number: str(number + Decimal(0)))),
    "DT": several(st.sampled_from(["20150228103000.5+0100", "2015", "20150228", ""])),
    "FD": several(st.floats(allow_nan=False, allow_infinity=False)),
    "FL": several(st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "IS": several(st.integers(-(2**31), 2**31 - 1)),
    "LO": several(ASCII),
    "LT": st.text("line\r\n\\ of text", max_size=30).map(str.strip),
    "OB": even(1),
    "OD": even(8),
    "OF": even(4),
    "OL": even(4),
    "OV": even(8),
    "OW": even(2),
    "PN": several(st.lists(st.text("ABC^ ", max_size=9).map(str.strip), min_size=1, max_size=3).map("=".join)),
    "SH": several(ASCII),
    "SL": several(st.integers(-(2**31), 2**31 - 1)),
    "SS": several(st.integers(-(2**15), 2**15 - 1)),
    "ST": st.text("line\r\n\\ of text", max_size=30).map(str.strip),
    "SV": several(st.integers(-(2**63), 2**63 - 1)),
    "TM": several(st.sampled_from(["10", "1011", "101112.123456", ""])),
    "UC": several(ASCII),
    "UI": several(st.sampled_from(["1.2.840.10008.1.2", "1.2.3", "2.25.0"])),
    "UL": several(st.integers(0, 2**32 - 1)),
    "UN": even(1),
    "UR": st.sampled_from(["https://example.org/a?b=c", "urn:oid:1.2.3", ""]),
    "US": several(st.integers(0, 65535)),
    "UT": st.text("line\r\n\\ of text", max_size=30).map(str.strip),
    "UV": several(st.integers(0, 2**64 - 1)),
}


@st.composite
def data_sets(draw, depth=0):
    """Any VRs in public and private elements, and sequences of the same, public and private, of any form of length."""
    data_set = instance() if depth == 0 else Dataset()
    for vr in draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=12)):
        keyword = f"Selector{vr}Value"
        if pydicom.datadict.tag_for_keyword(keyword) and draw(st.booleans()):
            setattr(data_set, keyword, draw(VALUES[vr]))
        else:
            block = data_set.private_block(
                draw(st.sampled_from([0x0041, 0x0043])), draw(st.sampled_from(["ONE", "GEMS_ACQU_01"])), create=True
            )
            block.add_new(0x10 + sorted(VALUES).index(vr), vr, draw(VALUES[vr]))
    if depth < 3 and draw(st.booleans()):
        items = Sequence(draw(st.lists(data_sets(depth=depth + 1), max_size=2)))
        for item in items:
            item.is_undefined_length_sequence_item = draw(st.booleans())
        if draw(st.booleans()):
            data_set.ReferencedImageSequence = items
            data_set["ReferencedImageSequence"].is_undefined_length = draw(st.booleans())
        else:
            block = data_set.private_block(0x0045, "SEQUENCES", create=True)
            block.add_new(1, "SQ", items)
            block[1].is_undefined_length = draw(st.booleans())
    return data_set


@settings(max_examples=60)
@given(data_sets(), st.sampled_from(SYNTAXES))
def test_every_vr_reads_as_pydicom_reads_it(data_set, syntax):
    agree(written(data_set, syntax), big=syntax == ExplicitVRBigEndian)


def test_no_vr_is_left_out():
    # Of several VRs, and a sequence, which has no values.
    assert {str(vr) for vr in pydicom.valuerep.VR} - VALUES.keys() == {"SQ", "US or SS", "OB or OW", "US or OW", "US or SS or OW"}


# Letters of every script that a character set is for.
LETTERS = "Az 9üéñßøłžőąđħġāņ Ωλ Яж שא بت กข ｱｲ あア 漢字 한글 汉国 𠀀€"


def sets_of():
    for name in pydicom.charset.python_encoding:
        if name.startswith("ISO 2022"):
            yield ["", name]
            yield ["ISO 2022 IR 6", name]
        elif name:
            yield [name]
    yield ["ISO 2022 IR 13", "ISO 2022 IR 87"]
    yield ["", "ISO 2022 IR 87", "ISO 2022 IR 159"]
    yield ["ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 126"]
    yield ["", "ISO 2022 IR 149", "ISO 2022 IR 87", "ISO 2022 IR 58"]


def writable(names):
    """Those of the letters that pydicom can write under these sets so that it reads them again."""
    encodings = pydicom.charset.convert_encodings(names)
    found = []
    for letter in LETTERS:
        try:
            raw = pydicom.charset.encode_string(letter, encodings)
            if letter != " " and pydicom.charset.decode_bytes(raw, encodings, set()) == letter:
                found.append(letter)
        except (UnicodeError, LookupError):
            continue
    return found


@pytest.mark.parametrize("names", list(sets_of()), ids=lambda names: "+".join(names))
def test_every_character_set(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        letters = writable(names)
        data_set = instance()
        data_set.SpecificCharacterSet = names if len(names) > 1 else names[0]
        text = "".join(letters)
        kanji = letters[-1]
        data_set.PatientName = f"Az^{text}={kanji}^{kanji}{text[:4]}={text[-4:]}^A"
        data_set.OtherPatientNames = [f"{kanji}^A=B", f"A={kanji}"]
        data_set.InstitutionName, data_set.AccessionNumber, data_set.PatientComments = text, text[:5], f"{text}\r\n{kanji}\\{kanji}"
        data_set.LongCodeValue, data_set.TextValue = text, f"{kanji} {text}"
        item = Dataset()
        item.CodeMeaning = kanji
        other = Dataset()
        other.SpecificCharacterSet, other.CodeMeaning = "ISO_IR 192", "漢 of its own"
        data_set.ProcedureCodeSequence = [item, other]
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
            record = agree(written(data_set, syntax))
    if names == ["ISO_IR 13"]:  # pydicom writes a text that mixes Latin letters and katakana as question marks
        return
    assert record.columns["patient_name"] == str(data_set.PatientName)
    assert record.elements["00080080"]["Value"] == [text]
    assert [item["00080104"]["Value"] for item in record.elements["00081032"]["Value"]] == [[kanji], ["漢 of its own"]]


RAW_NAMES = [
    # PS3.5 Annex H to K: the standard's own examples.
    (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    (["", "ISO 2022 IR 149"], b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf", "Hong^Gildong=洪^吉洞=홍^길동"),
    (["ISO_IR 192"], "Wang^XiaoDong=王^小东=".encode(), "Wang^XiaoDong=王^小东"),
    (["GB18030"], b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "raw", "name"), RAW_NAMES, ids=[names[-1] for names, _, _ in RAW_NAMES])
def test_the_names_of_the_standard(names, raw, name):
    encoder = Encoder()
    joined = "\\".join(names).encode()
    elements = [(0x00080005, b"CS", joined + b" " * (len(joined) % 2)), (0x00100010, b"PN", raw + b" " * (len(raw) % 2))]
    elements += [(tag, b"UI", uid) for tag, uid in ((0x00080018, b"1.2.3\0"), (0x0020000D, b"1.2.4\0"), (0x0020000E, b"1.2.5\0"))]
    data = written(Dataset()) + b"".join(encoder.element(*parts) for parts in sorted(elements))
    assert agree(data).columns["patient_name"] == name


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("preamble", [True, False])
def test_without_preamble_or_meta(preamble, meta, syntax):
    data = written(instance(), syntax)
    start = 144 + struct.unpack("<L", data[140:144])[0]
    whole = (data[:132] if preamble else b"") + (data[132:start] if meta else b"") + data[start:]
    record = scan(whole)
    assert record.columns["sop_uid"] == "1.2.3"
    assert record.columns["transfer_syntax_uid"] == syntax
    # pydicom makes up file meta information where there is none.
    assert [tag for tag in differences(record.elements, reference(data)) if meta or not tag.startswith("0002")] == []


@pytest.mark.parametrize("length", [0, 1, 8, 100, 10_000, 0xFFFFFFFF])
def test_a_meta_length_that_is_wrong(length):
    data = bytearray(written(instance()))
    data[140:144] = struct.pack("<L", length)
    assert agree(bytes(data)).columns["sop_uid"] == "1.2.3"


@pytest.mark.parametrize("syntax", PLAIN)
def test_group_lengths_anywhere_are_elements_like_others(syntax):
    encoder = Encoder(syntax)
    data = encoder.start()
    for group in (0x0028, 0x0041, 0x0051):
        data += encoder.element(group << 16, b"UL", struct.pack(f"{encoder.order}L", 7))
    data += encoder.element(0x00510010, b"LO", b"WHO ") + encoder.element(0x00511001, b"SH", b"ab")
    record = agree(data)
    assert record.elements["00280000"] == {"vr": "UL", "Value": [7]}
    assert record.elements["00510010"]["Value"] == ["WHO"]


def test_a_meta_without_length_or_with_the_data_sets_elements_before_it():
    data = written(instance())
    assert agree(data[:132] + data[144:]).columns["sop_uid"] == "1.2.3"


def pieces(encoder, is_open=False):
    """Items that hold a text, a number and an item of the same."""
    inner = encoder.element(0x00080100, b"SH", b"CODE") + encoder.element(0x00280010, b"US", struct.pack(f"{encoder.order}H", 3))
    return [encoder.item(inner + encoder.sequence(0x00081140, [encoder.item(inner, is_open)], is_open), is_open)] * 2


IMPLICIT = Encoder(ImplicitVRLittleEndian)
SEQUENCE, PRIVATE = 0x00400275, 0x00411001


@pytest.mark.parametrize("nested_open", [True, False])
@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
@pytest.mark.parametrize("inside", [IMPLICIT, Encoder()], ids=["implicit", "explicit"])
@pytest.mark.parametrize("tag", [SEQUENCE, PRIVATE])
def test_sequences_of_every_form(tag, inside, vr, is_open, nested_open):
    """UN sequences are implicit inside (PS3.5 6.2.2); some writers do the same under SQ, or write UN and then VRs."""
    encoder = Encoder()
    body = b"".join(pieces(inside, nested_open))
    creator = encoder.element(0x00410010, b"LO", b"NOBODY")
    value = encoder.head(tag, vr, OPEN) + body + encoder.mark(0xE0DD) if is_open else encoder.head(tag, vr, len(body)) + body
    data = encoder.start() + (value + creator if tag < 0x00410010 else creator + value) + encoder.element(0x00510010, b"LO", b"last")
    record = agree(data + encoder.pixels())
    assert record.elements["00510010"]["Value"] == ["last"]
    assert record.has_pixels
    if vr == b"SQ" or is_open or tag == SEQUENCE:
        assert [item["00081140"]["Value"][0]["00280010"]["Value"] for item in record.elements[f"{tag:08X}"]["Value"]] == [[3], [3]]


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("is_open", [True, False])
def test_private_blocks_are_read_under_their_creators(is_open, syntax):
    encoder = Encoder(syntax)
    data = encoder.start()
    data += encoder.element(0x00430010, b"LO", b"GEMS_PARM_01") + encoder.element(0x00430011, b"LO", b"NOBODY")
    # (0043,xx0C) is DS of GEMS_PARM_01, and of nobody else known.
    data += encoder.element(0x0043100C, b"UN" if not encoder.implicit else b"DS", b"1.5 ")
    data += encoder.element(0x0043110C, b"UN", b"1.5 ")
    data += encoder.sequence(0x00431120, pieces(encoder, is_open), is_open)
    record = agree(data)
    assert record.elements["0043100C"] == {"vr": "DS", "Value": [1.5]}
    assert record.elements["0043110C"]["vr"] == "UN"


DIRECTORIES = [path for path in (Path(pydicom.__file__).parent / "data").rglob("DICOMDIR*") if path.is_file()]


@pytest.mark.parametrize("path", DIRECTORIES, ids=lambda path: path.name)
def test_media_directories_are_recognised(path):
    record = scan(path.read_bytes())
    assert (record.kind, record.columns, record.has_pixels) == ("dicomdir", {}, False)


@pytest.mark.parametrize("vr", [b"OB", b"OW", b"UT", b"UC", b"UR"])
def test_values_of_undefined_length_that_are_no_sequence(vr):
    encoder = Encoder()
    fragments = encoder.item(b"abcd") + encoder.item(b"ef")
    for value in (fragments, b"plain bytes "):
        data = (
            encoder.start() + encoder.head(PRIVATE, vr, OPEN) + value + encoder.mark(0xE0DD) + encoder.element(0x00510010, b"LO", b"last")
        )
        assert agree(data).elements["00510010"]["Value"] == ["last"]
