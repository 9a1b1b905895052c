"""What documents of SmiServices say, read back: as much as they hold, and nothing they do not."""

import bson
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instances import pydicom_files

from pictures_spark.dicom.imported import LEFT_OUT, elements_of, imported
from pictures_spark.dicom.mongodb import body
from pictures_spark.dicom.parity import digest, ranges
from pictures_spark.dicom.scan import ScanError, scan

IDENTITY = {"SOPInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.4"}


def readable():
    for path in pydicom_files():
        try:
            record = scan(path.read_bytes())
        except ScanError:
            continue
        if record.kind == "dicom":
            yield path.name, record


def test_every_real_header_comes_back_through_its_document():
    seen = 0
    for name, record in readable():
        whole = body(record.elements)
        # As BSON gives it back.
        back = bson.decode(bson.encode({"header": {"DicomFilePath": "a"}, **whole}))
        back.pop("header")
        elements = elements_of(back)
        assert body(elements) == whole, name
        # Elements are the very same but where the document does not say: values left out, texts that were no valid numbers or empty.
        for tag, element in elements.items():
            if element == record.elements[tag] or LEFT_OUT in orjson.dumps(element).decode():
                continue
            assert body({tag: element}) == body({tag: record.elements[tag]}), (name, tag)
        seen += 1
    assert seen > 60


def test_what_a_document_does_not_say_is_flagged():
    found = elements_of({"ICCProfile": None, "SliceThickness": None, "(0009,0010)-PrivateCreator": {"vr": "LO", "val": "ACME"}})
    assert found["00282000"] == {"vr": "OB", "BulkDataURI": LEFT_OUT}
    assert found["00180050"] == {"vr": "DS"}
    assert found["00090010"] == {"vr": "LO", "Value": ["ACME"]}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Rows": 512}, {"00280010": {"vr": "US", "Value": [512]}}),
        ({"Rows": bson.Int64(512)}, {"00280010": {"vr": "US", "Value": [512]}}),
        ({"SelectorUVValue": [-1]}, {"00720083": {"vr": "UV", "Value": [2**64 - 1]}}),
        ({"(0019,110c:SIEMENS (MR)-X)-Bvalue": {"vr": "IS", "val": "7"}}, {"0019110C": {"vr": "IS", "Value": [7]}}),
        ({"(6000,0010)-OverlayRows": [4]}, {"60000010": {"vr": "US", "Value": [4]}}),
        ({"PixelData": None}, {"7FE00010": {"vr": "UN", "BulkDataURI": LEFT_OUT}}),
    ],
)
def test_forms_of_values(value, expected):
    assert elements_of(value) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"header": None}, "no_path"),
        ({"header": {"DicomFilePath": "/etc/a"}}, "no_path"),
        ({"header": {"DicomFilePath": "a/../../b"}}, "no_path"),
        ({"NoSuchKeyword": "x"}, "unknown_key"),
        ({"Rows": "many"}, "bad_value"),
        ({"Rows": [1.5]}, "bad_value"),
        ({"Modality": 7}, "bad_value"),
        ({"Modality": {"vr": "ZZ", "val": "x"}}, "bad_value"),
        ({"ReferencedSeriesSequence": [1]}, "bad_value"),
        ({"SmallestImagePixelValue": 5}, "bad_value"),
        ({"SOPInstanceUID": None}, "missing_uid"),
    ],
)
def test_bad_documents_have_a_reason_without_any_value(change, reason):
    with pytest.raises(ScanError) as error:
        imported({"_id": 1, "header": {"DicomFilePath": "a"}, **IDENTITY, **change})
    assert error.value.reason == reason
    assert not {"many", "NoSuchKeyword", "etc"} & set(str(error.value).split())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["header", "Rows", "Modality", "PatientName", "PixelSpacing", "ReferencedSeriesSequence", "(0009,1001)-Unknown", "("]
)


@given(st.dictionaries(NAMES | st.text(max_size=4), VALUES, max_size=4))
def test_any_document_is_read_or_refused(document):
    reason = None
    try:
        imported({"header": {"DicomFilePath": "a.zip!b"}, **IDENTITY, **document})
    except ScanError as error:
        reason = error.reason
    assert reason in (None, "no_path", "unknown_key", "bad_value", "missing_uid")


def test_members_are_told_from_names_with_an_exclamation_mark():
    places = {
        "a/b.zip!IM/1": ("a/b.zip", "IM/1"),
        "a!b": ("a!b", None),
        "x.TAR!y.zip!z": ("x.TAR", "y.zip!z"),
        "a/b.dcm": ("a/b.dcm", None),
    }
    for name, expected in places.items():
        found = imported({"header": {"DicomFilePath": name, "DicomFileSize": 9}, **IDENTITY})
        assert (found.path, found.member, found.size) == (*expected, 9)


@given(st.lists(st.text(max_size=3), max_size=40), st.lists(st.text(max_size=3), max_size=40), st.integers(1, 6))
def test_ranges_match_every_document_once(sample, ids, parts):
    def matches(rule, one):
        if not rule:
            return True
        condition = rule["_id"]
        if "$not" in condition:
            return not isinstance(one, str)
        return isinstance(one, str) and one >= condition.get("$gte", "") and ("$lt" not in condition or one < condition["$lt"])

    made = ranges(sample, parts)
    for one in [*ids, *sample, 7, None]:
        assert sum(matches(rule, one) for rule in made) == 1


def test_a_digest_tells_any_difference_and_none_of_number_widths():
    document = {"_id": "1", "Rows": [512], "FloatingPointValue": [1.5], "x": None}
    assert digest(document) == digest(bson.decode(bson.encode({**document, "Rows": [bson.Int64(512)]})))
    others = [{**document, "Rows": [513]}, {**document, "x": ""}, dict(reversed(document.items())), {**document, "_id": bson.ObjectId()}]
    assert len({digest(one) for one in [document, *others]}) == 5
