"""The archive: every image opens, identifiers are where scanners put them, and all planned trouble is there."""

import io
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pictures_spark.resources import load_schema
from pictures_spark.synthetic.pictures import burn
from pictures_spark.synthetic.samples import sample_files


def test_the_truth_lists_every_object_that_is_there(made):
    assert {row["locator"] for row in made.rows("truth/scans")} == set(made.objects)
    for row in made.rows("truth/scans"):
        dataset = made.datasets[row["locator"]]
        assert str(dataset.PatientID or "") == row["patient_id_in_header"]
        assert dataset.AccessionNumber == row["accession"]
        assert dataset.StudyInstanceUID == row["study_uid"]
        assert dataset.SeriesInstanceUID == row["series_uid"]
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == row["sop_uid"]
        assert dataset.Modality == row["modality"]


def test_every_image_decodes_and_looks_like_one(made):
    frames = 0
    for dataset in made.datasets.values():
        pixels = dataset.pixel_array
        frames += int(dataset.get("NumberOfFrames", 1))
        assert max(dataset.Rows, dataset.Columns) <= 384
        assert len(np.unique(pixels)) > 20
    resent = sum(locator.startswith("resent/") for locator in made.datasets)
    assert frames - resent == made.report.details["frames"] <= made.config["synth"]["max_frames"]


def test_all_layouts_and_transfer_syntaxes_are_there(made):
    zips = [path for path in made.archive.rglob("*.zip") if path.parts[-2] != "odd"]
    packings = {info.compress_type for path in zips for info in zipfile.ZipFile(path).infolist()}
    assert packings == {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    for path in made.archive.rglob("*.tar"):
        with tarfile.open(path) as container:
            series = {
                made.datasets[f"{path.relative_to(made.archive).as_posix()}!{name}"].SeriesInstanceUID for name in container.getnames()
            }
        assert len(series) == 1
    loose = [locator for locator in made.objects if re.match(r"\d{4}/\d\d/\d\d/[A-Z0-9]+/", locator)]
    assert loose
    for locator in loose:
        assert locator.split("/")[3] == made.datasets[locator].AccessionNumber
    syntaxes = {dataset.file_meta.TransferSyntaxUID for dataset in made.datasets.values()}
    assert syntaxes == {ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian}


def test_every_header_column_of_the_catalogue_is_filled_somewhere(made):
    wanted = {column["dicom"] for column in load_schema("identifiable/header_instance.yaml")["columns"] if "dicom" in column}
    found = {element.keyword for dataset in made.datasets.values() for part in (dataset, dataset.file_meta) for element in part.iterall()}
    assert wanted <= found


def test_identifiers_are_in_every_corner(made):
    people = {row["chi"]: row for row in made.rows("truth/people")}
    for row in made.rows("truth/scans"):
        person = people.get(row["chi"])
        if person is None:
            continue
        private = nested = ""
        for element in made.datasets[row["locator"]].iterall():
            # Private elements of implicit files are bytes to a reader that does not know them.
            text = element.value.decode("latin-1") if isinstance(element.value, bytes) else str(element.value)
            if element.tag.is_private and element.VR != "SQ":
                private += text
            if element.keyword == "RequestedProcedureDescription":
                nested = text
        assert person["surname"] in private
        assert person["upi"] in private
        assert person["surname"] in nested


def raw(element):
    return (
        element.value.decode().strip() if element is not None and isinstance(element.value, bytes) else str(getattr(element, "value", ""))
    )


@pytest.mark.parametrize(
    ("keyword", "text", "at_least"),
    [("StudyDate", "UNKNOWN", 2), ("SeriesDate", "20150231", 2), ("SliceThickness", "1.5mm", 2), ("SliceThickness", "1,5", 2)],
)
def test_values_that_are_none_are_written_as_they_stand(made, keyword, text, at_least):
    found = 0
    for content in made.objects.values():
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        found += raw(dataset.get_item(keyword)) == text
    assert found >= at_least


def test_planted_special_images(made):
    datasets = list(made.datasets.values())
    assert sum("BodyPartExamined" not in dataset for dataset in datasets) >= 2
    assert any(dataset.PhotometricInterpretation == "MONOCHROME1" for dataset in datasets)
    assert any(dataset.PhotometricInterpretation == "RGB" for dataset in datasets)
    assert any(dataset.Modality == "CT" and dataset.PixelRepresentation == 1 for dataset in datasets)
    (enhanced,) = [dataset for dataset in datasets if "SharedFunctionalGroupsSequence" in dataset]
    assert "SliceThickness" not in enhanced
    assert len(enhanced.PerFrameFunctionalGroupsSequence) == enhanced.NumberOfFrames > 1
    assert any(dataset.Modality == "US" and dataset.get("NumberOfFrames", 1) > 1 for dataset in datasets)
    assert any(str(dataset.StudyDate) < str(dataset.PatientBirthDate) for dataset in datasets)
    assert any("LOCALIZER" in dataset.ImageType for dataset in datasets)


def test_identifiers_are_written_in_many_ways(made):
    people = {row["chi"]: row for row in made.rows("truth/people")}
    rows = made.rows("truth/scans")
    written = Counter()
    for row in rows:
        identifier = row["patient_id_in_header"]
        if identifier == row["chi"] and people[row["chi"]]["merged_into_upi"]:
            written["older"] += 1
        elif identifier == row["chi"]:
            written["plain"] += 1
        elif identifier.replace(" ", "") == row["chi"]:
            written["spaces"] += 1
        elif "0" + identifier == row["chi"]:
            written["lost_zero"] += 1
        elif identifier[:9] == row["chi"][:9]:
            written["wrong_check"] += 1
        elif not identifier:
            written["none"] += 1
        elif not row["chi"]:
            written["unknown"] += 1
            assert identifier not in people
        else:
            written["hospital"] += 1
            assert not identifier.isdigit()
    assert set(written) == {"older", "plain", "spaces", "lost_zero", "wrong_check", "none", "unknown", "hospital"}
    # Most images can be linked.
    assert sum(written[kind] for kind in ("wrong_check", "none", "unknown", "hospital")) < 0.1 * len(rows)


def test_one_object_lies_twice_and_one_was_retold(made):
    by_uid = {}
    for row in made.rows("truth/scans"):
        by_uid.setdefault(row["sop_uid"], []).append(made.objects[row["locator"]])
    twice = [contents for contents in by_uid.values() if len(contents) > 1]
    assert sorted(len(set(contents)) for contents in twice) == [1, 2]


def test_every_dicom_file_of_the_wheel_is_there_unchanged(made):
    folder = made.archive / "pydicom-samples"
    there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert there == {name: path.read_bytes() for name, path in sample_files().items()}
    root = Path(pydicom.__file__).parent / "data"
    dicom = {
        path.relative_to(root).as_posix()
        for part in ("test_files", "charset_files")
        for path in (root / part).rglob("*")
        if path.is_file() and (path.suffix == ".dcm" or path.read_bytes()[128:132] == b"DICM")
    }
    assert dicom <= set(there)
    assert not [name for name in there if name.endswith((".txt", ".json", ".gz", "README"))]


def test_odd_things_lie_about(made):
    odd = {path.name: path.read_bytes() for path in (made.archive / "odd").iterdir()}
    assert odd["empty.dcm"] == b""
    assert odd["image_named_as_text.txt"][128:132] == b"DICM"
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(odd["cut.zip"]))


def test_burned_in_text_is_drawn_where_the_truth_says_and_nowhere_else(made):
    rows = made.rows("truth/scans")
    series = {row["series_uid"]: row["burned_in_text"] for row in rows}
    assert 0.05 <= sum(map(bool, series.values())) / len(series) <= 0.25
    assert {"CT", "CR", "US"} == {row["modality"] for row in rows if row["burned_in_text"]}
    people = {row["chi"]: row for row in made.rows("truth/people")}
    for row in rows:
        if row["burned_in_text"] and row["chi"]:
            assert people[row["chi"]]["surname"].upper() in row["burned_in_text"]


def test_letters_are_tall_and_stand_out():
    picture = np.full((240, 320), 60)
    drawn = burn(picture, ("HVLMZX",), bright=250, dark=5, banner=False)
    rows = np.flatnonzero((drawn > 200).any(axis=1))
    assert rows[-1] - rows[0] + 1 >= 12
    banner = burn(picture, ("HVLMZX",), bright=250, dark=5, banner=True)
    assert (banner < 50).sum() > 100
    assert (banner > 240).sum() > (banner < 50).sum()
