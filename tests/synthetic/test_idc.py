"""The import of the public index, on an index of a few rows; the facets of the whole one are compared where its package is installed."""

from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pictures_spark.cohort import commands
from pictures_spark.errors import ConfigError
from pictures_spark.job import run_job
from pictures_spark.resources import load_schema
from pictures_spark.synthetic import idc, nation_tables, published
from pictures_spark.zones import Zones

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.22"
NAMES = (
    "collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SOPClassUID", "BodyPartExamined",
    "StudyDescription", "SeriesDescription", "Manufacturer", "ManufacturerModelName", "StudyDate", "SeriesDate", "PatientAge",
    "PatientSex", "instanceCount",
)  # fmt: skip
ROWS = [
    ("a", "P1", "1", "1.1", "CT", CT, "CHEST", "CT CHEST", "Lung 1.0", "SIEMENS", "Sensation 16", "2000-01-02", None, "060Y", "M", 120),
    ("a", "P1", "1", "1.2", "SR", SR, None, "CT CHEST", "Findings", None, None, "2000-01-02", "2024-01-26", "060Y", "M", 1),
    ("a", "P1", "2", "2.1", "CT", CT, None, "CT CHEST", "post contrast", "GE", "LightSpeed16", "2001-01-01", None, None, "M", 80),
    ("b", "P2", "3", "3.1", "CT", CT, "BRAIN", None, "without contrast", "Acme", "One", "1880-01-01", None, None, None, 30),
    ("b", "P2", "4", "4.1", "FUSION", CT, "NOSUCHPART", None, None, None, None, None, None, "000Y", "F", 3),
    ("b", "P3", "4", "4.2", "CT", CT, None, None, "2.0", None, None, None, None, None, "0000", 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "idc_index.parquet"
    pq.write_table(pa.table({name: [row[at] for row in ROWS] for at, name in enumerate(NAMES)}), path)
    return path


@pytest.fixture(scope="module")
def catalogue(index):
    found = {}
    with duckdb.connect() as connection:
        for name, piece in idc.pieces(connection, str(index), 1, 300, 2):
            found.setdefault(name, []).append(published.filled(name, piece))
    return {name: pa.concat_tables(pieces) for name, pieces in found.items()}


def test_every_series_is_there_once_a_copy_with_ids_of_its_own(catalogue):
    assert catalogue["series"].num_rows == 12 == len(set(catalogue["series"]["series_id"].to_pylist()))
    assert catalogue["study"].num_rows == 8 == len(set(catalogue["study"]["study_id"].to_pylist()))
    assert catalogue["patient"].num_rows == 6 == len(set(catalogue["patient"]["patient_id"].to_pylist()))
    assert catalogue["event"].num_rows == len(set(catalogue["event"]["event_id"].to_pylist())) >= 150
    # Nothing of the index that is a name crosses as it is.
    for column in ("series_id", "study_id", "patient_id"):
        assert not {row[at] for row in ROWS for at in (1, 2, 3)} & set(catalogue["series"][column].to_pylist())


def test_columns_are_told_by_the_rules_of_publish(catalogue):
    rows = catalogue["series"].to_pylist()
    assert Counter(row["modality"] for row in rows) == {"CT": 8, "SR": 2, None: 2}
    by_size = {row["image_count"]: row for row in rows if row["modality"] == "CT"}
    assert (by_size[120]["body_region"], by_size[120]["manufacturer_norm"], by_size[120]["model_norm"]) == (
        ["CHEST"], "SIEMENS", "SOMATOM_SENSATION",
    )  # fmt: skip
    assert (by_size[80]["contrast"], by_size[80]["body_region"], by_size[30]["contrast"]) == ("yes", ["CHEST"], "no")
    assert by_size[30]["manufacturer_norm"] == "OTHER"
    report = next(row for row in rows if row["modality"] == "SR")
    assert (report["frame_count"], report["image_kind"], report["slice_thickness_max"]) == (0, None, None)
    drawn = load_schema("synthetic/idc.yaml")["drawn"]["CT"]
    assert {str(row["slice_thickness_max"]) for row in rows if row["modality"] == "CT"} <= set(drawn["slice_thickness"])


def test_dates_are_the_rule_s_and_ages_the_headers(catalogue):
    by_size = {row["image_count"]: row for row in catalogue["series"].to_pylist() if row["modality"] in ("CT", "SR")}
    assert (str(by_size[120]["scan_date"]), by_size[120]["scan_date_source"], by_size[120]["age_years"]) == ("2000-01-02", "StudyDate", 60)
    assert (str(by_size[1]["scan_date"]), by_size[1]["scan_date_source"]) == ("2024-01-26", "SeriesDate")
    # No X-ray was taken in 1880.
    assert (by_size[30]["scan_date"], by_size[30]["age_years"], by_size[30]["after_death"]) == (None, None, None)


def test_a_study_of_two_patients_is_nobodys(catalogue):
    reasons = Counter(row["unlinked_reason"] for row in catalogue["study"].to_pylist())
    assert reasons == {None: 6, "ambiguous": 2}
    assert all((row["patient_id"] is None) == (row["unlinked_reason"] is not None) for row in catalogue["study"].to_pylist())


def test_without_its_package_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "idc_index_data", None)
    with pytest.raises(ConfigError, match=r"pictures-spark\[idc\]"):
        idc.index_file()


def test_the_index_has_the_columns_that_are_read():
    pytest.importorskip("idc_index_data", reason="extra idc is not installed")
    path, _ = idc.index_file()
    names = set(pq.read_schema(path).names)
    assert names >= {*NAMES, *load_schema("synthetic/idc.yaml")["columns"]}
    assert pq.read_metadata(path).num_rows > 1_000_000


@pytest.mark.spark
def test_an_empty_house_is_filled_once_and_can_be_asked(spark, config, index, monkeypatch, tmp_path):
    monkeypatch.setattr(idc, "index_file", lambda: (index, "0"))
    first = run_job("import-idc", config, "deidentified", lambda job: idc.run(job, 50))
    assert first.counts["written"] == first.counts["seen"] > 50
    again = run_job("import-idc", config, "deidentified", lambda job: idc.run(job, 50))
    assert again.counts == {"seen": first.counts["seen"], "unchanged": first.counts["seen"]}
    question = tmp_path / "question.yaml"
    question.write_text("{cohort: 1, id: chest, unit: series, steps: [{id: chest, where: {modality: CT, body_region: CHEST}}]}")
    assert commands.count(commands.load(question), Zones(config, "counter")).members == 2
    with pytest.raises(ConfigError, match="holds a release that synth-tables did not make"):
        run_job("synth-tables", config, "deidentified", lambda job: nation_tables.run(job, 10))
    # What was refused left nothing behind.
    assert not (Zones(config, "counter").path("deidentified") / "truth" / "questions.csv").exists()
