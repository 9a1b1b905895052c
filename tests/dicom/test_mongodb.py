"""Documents have the shape that SmiServices writes."""

import base64
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.dicom.inventory import locator
from pictures_spark.dicom.mongodb import body, collection, collections, document, file_path, fits, frames, series_document
from pictures_spark.dicom.scan import pack

# element, key and value in the document
SHAPES = [
    ({"00080018": {"vr": "UI", "Value": ["1.2.3.4"]}}, {"SOPInstanceUID": "1.2.3.4"}),
    ({"00080008": {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY", None]}}, {"ImageType": "ORIGINAL\\PRIMARY\\"}),
    ({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "山"}]}}, {"PatientName": "A^B=山"}),
    ({"00180050": {"vr": "DS", "Value": ["1.50"]}}, {"SliceThickness": "1.50"}),
    ({"00280030": {"vr": "DS", "Value": [0.5, 0.25]}}, {"PixelSpacing": "0.5\\0.25"}),
    ({"00200013": {"vr": "IS", "Value": [7]}}, {"InstanceNumber": "7"}),
    ({"00280010": {"vr": "US", "Value": [512]}}, {"Rows": [512]}),
    ({"00186020": {"vr": "SL", "Value": [-1, 2]}}, {"ReferencePixelX0": [-1, 2]}),
    ({"0040A161": {"vr": "FD", "Value": [1.5, "NaN"]}}, {"FloatingPointValue": [1.5, "NaN"]}),
    ({"00720082": {"vr": "SV", "Value": [2**63]}}, {"SelectorSVValue": [str(2**63)]}),
    ({"00090010": {"vr": "LO", "Value": ["TEST"]}}, {"(0009,0010)-PrivateCreator": {"vr": "LO", "val": "TEST"}}),
    ({"00091002": {"vr": "AE"}}, {"(0009,1002)-Unknown": {"vr": "AE", "val": None}}),
    ({"00280106": {"vr": "SS", "Value": [-5]}}, {"SmallestImagePixelValue": {"vr": "SS", "val": [-5]}}),
    ({"60003000": {"vr": "OW", "InlineBinary": "AAAA"}}, {"(6000,3000)-OverlayData": {"vr": "OW", "val": None}}),
    ({"60020010": {"vr": "US", "Value": [4]}}, {"(6002,0010)-OverlayRows": [4]}),
    ({"0008FFFF": {"vr": "LO", "Value": ["x"]}}, {"(0008,ffff)-Unknown": {"vr": "LO", "val": "x"}}),
    ({"00282000": {"vr": "OB", "InlineBinary": "AAAA"}}, {"ICCProfile": None}),
    ({"00081115": {"vr": "SQ"}}, {"ReferencedSeriesSequence": None}),
    ({"00420011": {"vr": "OB", "BulkDataURI": "sha256:00?length=70000"}}, {"EncapsulatedDocument": None}),
    ({"00200000": {"vr": "UL", "Value": [4]}}, {}),
    ({"00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2"]}}, {}),
]


@pytest.mark.parametrize(("elements", "expected"), SHAPES)
def test_shapes(elements, expected):
    assert body(elements) == expected


def test_tags_are_joined_as_digits():
    assert body({"00720052": {"vr": "AT", "Value": ["00080018", "0020000E"]}}) == {"SelectorSequencePointer": "00080018\\0020000E"}


def test_private_elements_are_named_by_their_creator_without_dots():
    elements = {
        "00090010": {"vr": "LO", "Value": ["ACME 1.1"]},
        "00091002": {"vr": "AE", "Value": ["AETITLE"]},
        "00190011": {"vr": "LO", "Value": ["SIEMENS MR HEADER"]},
        "0019110C": {"vr": "IS", "Value": [1000]},
    }
    assert list(body(elements)) == [
        "(0009,0010)-PrivateCreator",
        "(0009,1002:ACME 1_1)-Unknown",
        "(0019,0011)-PrivateCreator",
        "(0019,110c:SIEMENS MR HEADER)-Bvalue",
    ]


def test_items_are_documents_with_their_own_private_blocks():
    item = {"00090010": {"vr": "LO", "Value": ["IN"]}, "00091001": {"vr": "US", "Value": [1]}}
    outer = {"00090010": {"vr": "LO", "Value": ["OUT"]}, "00081140": {"vr": "SQ", "Value": [item, {}]}}
    assert body(outer)["ReferencedImageSequence"] == [
        {"(0009,0010)-PrivateCreator": {"vr": "LO", "val": "IN"}, "(0009,1001:IN)-Unknown": {"vr": "US", "val": [1]}},
        {},
    ]


def test_packed_numbers_are_numbers():
    data = base64.b64encode(struct.pack("<2f", 1.5, float("inf"))).decode()
    assert body({"00660016": {"vr": "OF", "InlineBinary": data}}) == {"PointCoordinatesData": [1.5, "Infinity"]}


def test_a_document_starts_with_its_key_and_where_the_file_is():
    made = document({"00080060": {"vr": "CS", "Value": ["CT"]}}, "1.2.3#00ff", True, "a.zip!b", 10, "run1")
    assert list(made) == ["_id", "header", "conflict", "Modality"]
    assert (made["header"]["DicomFilePath"], made["header"]["DicomFileSize"]) == ("a.zip!b", 10)
    assert "conflict" not in document({}, "1.2.3", False, "a", 1, "run1")


def test_message_fields_are_of_the_types_that_smi_reads_back():
    message = document({}, "1.2.3", False, "a", 1, "run1")["header"]["MessageHeader"]
    assert list(message) == ["MessageGuid", "ProducerProcessID", "ProducerExecutableName", "Parents", "OriginalPublishTimestamp"]
    assert str(uuid.UUID(message["MessageGuid"])) == message["MessageGuid"]
    assert message["MessageGuid"] == document({}, "1.2.3", False, "a", 1, "run1")["header"]["MessageHeader"]["MessageGuid"]
    assert (type(message["ProducerProcessID"]), type(message["Parents"])) == (int, str)


@pytest.mark.parametrize(
    ("place", "folder"), [("a/b/c.dcm", "a/b"), ("a/50%25.zip!x/y", "a"), ("c.dcm", ""), ("a%21b/c", "a!b"), ("a/x!b/../c", "a")]
)
def test_a_series_document_names_the_folder_of_its_first_file(place, folder):
    made = series_document({"00080060": {"vr": "CS", "Value": ["CT"]}}, "1.2", place, 7)
    assert made == {"_id": "1.2", "header": {"DirectoryPath": folder, "ImagesInSeries": 7}, "Modality": "CT"}


@given(st.text(min_size=1), st.none() | st.text(min_size=1))
def test_files_have_their_own_names_in_documents(path, member):
    assert file_path(locator(path, member)) == (path if member is None else f"{path}!{member}")


KEYS = st.lists(st.sampled_from(["a", "B", "b", "C", "d", "e", "f", "g"]), unique_by=str.lower, max_size=6)


@given(st.lists(st.tuples(st.sampled_from("xy"), st.booleans(), KEYS), max_size=30), st.integers(3, 8))
def test_frames_hold_every_shape_once_and_no_column_twice(shapes, limit):
    given_ = [(name, heavy, str(number), keys) for number, (name, heavy, keys) in enumerate(shapes)]
    made = frames(given_, limit)
    assert sorted(shape for frame in made for shape in frame.shapes) == sorted(shape for _, _, shape, _ in given_)
    by_shape = {shape: frame for frame in made for shape in frame.shapes}
    for name, heavy, shape, keys in given_:
        frame = by_shape[shape]
        assert (frame.collection, frame.heavy) == (name, heavy)
        assert set(keys) <= set(frame.keys.values())
    for frame in made:
        assert len(frame.keys) <= limit or len(frame.shapes) == 1
        assert all(lower == key.lower() for lower, key in frame.keys.items())


def test_frames_are_few_for_like_documents():
    common = [f"k{number}" for number in range(300)]
    shapes = [("c", False, str(number), [*common, f"v{number % 3}_{number % 40}"]) for number in range(2000)]
    assert len(frames(shapes, 1000)) == 1


def test_a_header_of_very_many_elements_has_no_document():
    elements = {f"0009{number:04X}": {"vr": "LO"} for number in range(0x1000, 0x1000 + 10_001)}
    assert not fits(pack(elements))
    elements.popitem()
    assert fits(pack(elements))


def test_collections():
    assert [collection(modality) for modality in ("CT", "XA", "SEG", "ct", None)] == [
        "image_CT",
        "image_XA",
        "image_OTHER",
        "image_OTHER",
        "image_OTHER",
    ]
    assert len(collections()) == 14


@given(st.sampled_from(["US", "FD", "LO"]), st.integers(1, 9), st.integers(0, 3_000_000))
def test_a_document_that_is_said_to_fit_does(vr, value, count):
    import bson

    values = [str(value)] if vr == "LO" else [value]
    elements = {"00282000": {"vr": vr, "Value": values * (count // 100)}, "00282001": {"vr": "UT", "Value": ["é" * count]}}
    says = fits(pack(elements))
    size = len(bson.encode(document(elements, "1" * 64, True, "p" * 1000, 2**40, "r" * 12)))
    assert says or size > 16_700_000
    assert not says or size <= 16 << 20
