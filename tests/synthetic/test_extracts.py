"""The nation's extracts: the same bytes however they are made, no two people with one number, and what they load into is what was drawn."""

import csv
import hashlib
import io
import zipfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bson import json_util
from pydicom import dcmread

from pictures_spark.dicom.imported import imported
from pictures_spark.dicom.mongodb import collection
from pictures_spark.dicom.scan import column_value, promoted, scan
from pictures_spark.errors import ConfigError
from pictures_spark.job import run_job
from pictures_spark.linkage import identity
from pictures_spark.radiology.findings import findings
from pictures_spark.records import judging, worker
from pictures_spark.records.load import _header_fault
from pictures_spark.records.source import source
from pictures_spark.resources import load_schema
from pictures_spark.synthetic import nation_archive, nation_extracts, register, scanning
from pictures_spark.synthetic.draws import Draws
from pictures_spark.synthetic.lives import lead
from pictures_spark.synthetic.nation import event_tables, first_day, homes, last_day, people
from pictures_spark.synthetic.nation_extracts import SOURCES
from pictures_spark.synthetic.nation_tables import first_board, wanted_scans
from pictures_spark.synthetic.questions import planted
from pictures_spark.zones import Zones

PEOPLE = 400
DRAWS = Draws(11)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder, rows by source of the planted and of the drawn people."""
    folder = tmp_path_factory.mktemp("extracts")
    ranked = register.ranks(DRAWS, PEOPLE)
    told = [
        nation_extracts.write(DRAWS, ranked, PEOPLE, number, nation_extracts.Places(folder), nation_extracts.Wanted()) for number in (-1, 0)
    ]
    assert all((folder / name).stat().st_size == size for one in told for name, size in one["files"].items())
    return folder, [one["rows"] for one in told]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def traps(folder, number):
    with (folder / f"truth/traps-{number:05d}.csv").open(newline="") as file:
        return [(row["source"], int(row["row"]), row["trap"]) for row in csv.DictReader(file)]


def loaded(name, path):
    """Judged rows, and events, as the job `records` has them."""
    found, facts = source(name), worker.survey(str(path))
    assert _header_fault(found, facts) == (None, None)
    blocks = pa.RecordBatch.from_pydict({"block": worker.blocks_of(found, str(path), facts)})
    rows = pa.concat_tables([pa.Table.from_batches([batch]) for batch in worker.reading(found)(iter([blocks]))]).sort_by("row_number")
    return rows, judging.events(found, rows.filter(pa.compute.is_null(rows["fault"])))


def test_the_order_in_which_files_are_made_changes_no_byte(made, tmp_path):
    folder, _ = made
    size = load_schema("synthetic/extracts.yaml")["people"]
    assert size > PEOPLE
    ranked = register.ranks(DRAWS, PEOPLE)
    nation_extracts.write(Draws(11), ranked, PEOPLE, 0, nation_extracts.Places(tmp_path), nation_extracts.Wanted())
    for path in tmp_path.rglob("*.csv"):
        assert digest(path) == digest(folder / path.relative_to(tmp_path)), path.name


def test_no_two_people_have_one_number():
    count = 40_000
    # So many people that some days of birth are crowded.
    ranked = register.ranks(DRAWS, count)
    group = people(DRAWS, np.arange(count))
    current, older = ranked.of(group.index)
    numbers = register.numbers_of(group.birth, group.male, current).to_pylist()
    had = older >= 0
    numbers += register.numbers_of(group.birth[had], group.male[had], older[had]).to_pylist()
    assert len(set(numbers)) == len(numbers)
    declared = identity.scheme("chi")
    told = [identity.normalise(declared, number) for number in numbers[:2000]]
    assert [one.value for one in told] == numbers[:2000]
    assert [one.sex for one in told] == ["M" if male else "F" for male in group.male[:2000].tolist()]


@pytest.mark.parametrize("number", [0, 1])
def test_a_row_is_refused_where_it_was_broken_and_nowhere_else(made, number):
    folder, rows = made
    broken = {rule["trap"] for rule in load_schema("synthetic/extracts.yaml")["added"]} - {"duplicate"}
    noted = traps(folder, number)
    for name in SOURCES:
        if not rows[number][name]:
            continue
        judged, _ = loaded(name, folder / f"{name}-{number:05d}.csv")
        assert judged.num_rows == rows[number][name]
        refused = {row for row, fault in zip(judged["row_number"].to_pylist(), judged["fault"].to_pylist(), strict=True) if fault}
        assert refused == {row for where, row, trap in noted if where == name and trap in broken}, name


def test_events_are_those_that_were_drawn(made):
    folder, _ = made
    lives = lead(DRAWS, people(DRAWS, np.arange(PEOPLE)), first=first_day(), last=last_day())
    drawn, _ = event_tables(DRAWS, lives, DRAWS.names("patient", np.arange(PEOPLE)))
    with (folder / "truth/people-00001.csv").open(newline="") as file:
        whose = {row["chi"]: row["patient_id"] for row in csv.DictReader(file)}
    assert len(set(whose.values())) < len(whose)
    noted = traps(folder, 1)
    # An ICD-9 code has another root, a limit another value; a second episode repeats what the first says.
    other = {(where, row) for where, row, trap in noted if trap in ("icd9_code", "two_episodes", "duplicate")}
    for name, kind in (("pis", "dispensing"), ("labs", "lab"), ("smr06", "tumour"), ("smr01", "procedure"), ("smr02", "delivery")):
        judged, events = loaded(name, folder / f"{name}-00001.csv")
        keys = {
            key for key, row in zip(judged["row_key"].to_pylist(), judged["row_number"].to_pylist(), strict=True) if (name, row) in other
        }
        found = {
            (whose[row["person_id"]], row["date"], row["code"])
            for row in events.to_pylist()
            if row["kind"] == kind and row["row_key"] not in keys
        }
        every = {(whose[row["person_id"]], row["date"], row["code"]) for row in events.to_pylist() if row["kind"] == kind}
        expected = Counter(
            (row["patient_id"], row["date"], row["code"])
            for row in drawn.to_pylist()
            if row["source"] == name and row["kind"] == kind and row["patient_id"] in set(whose.values())
        )
        cover = load_schema("synthetic/nation.yaml")["cover"][name]
        expected = {key for key in expected if cover["from"] <= str(key[1]) <= cover["to"]}
        assert found <= expected, name
        assert expected <= every, name
        assert expected, name


def test_every_trap_is_met_at_about_its_share(made):
    folder, rows = made
    data = load_schema("synthetic/extracts.yaml")
    counted = Counter((where, trap) for where, _, trap in traps(folder, 1))
    for name in ("pis", "labs"):
        for trap, share in (("duplicate", 0.003), ("no_identifier", 0.002), ("spaced_number", data["written"]["spaced_number"])):
            assert 0.6 * share < counted[(name, trap)] / rows[1][name] < 1.5 * share, (name, trap)
    met = {trap for _, trap in counted}
    assert set(data["written"]) | {rule["trap"] for rule in data["added"]} <= met | {"icd9_code", "bad_order", "nul_byte"}


def test_parquet_says_what_csv_says(tmp_path):
    ranked = register.ranks(DRAWS, 60)
    csv_rows = nation_extracts.write(DRAWS, ranked, 60, 0, nation_extracts.Places(tmp_path / "csv"), nation_extracts.Wanted())["rows"]
    parquet_rows = nation_extracts.write(
        DRAWS, ranked, 60, 0, nation_extracts.Places(tmp_path / "parquet"), nation_extracts.Wanted("parquet")
    )["rows"]
    assert {name for name in SOURCES if csv_rows[name] < parquet_rows[name]} == set()
    table = pq.read_table(tmp_path / "parquet" / "labs-00001.parquet")
    text = (tmp_path / "csv" / "labs-00001.csv").read_bytes().decode("latin-1")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert table.slice(0, 500).to_pylist() == lines[:500]


def test_images_are_those_that_the_tables_tell_of(tmp_path):
    plants = planted(DRAWS)
    few = tuple(scans for scans in plants.scans if scans.protocol.startswith(("mr_brain", "xr_", "ct_head_plain_thick")))
    home = homes(DRAWS, plants.lives.people, last_day())
    told = register.register(DRAWS, plants.lives.people, register.ranks(DRAWS, 1), home)
    packed = nation_archive.Zip(tmp_path / "images.zip")
    scans = nation_archive.scans_of(DRAWS, plants.lives, plants.ids, told, few, True, [packed], []).to_pylist()
    packed.close()
    names_of = dict(zip(told.upi.to_pylist(), zip(told.surname.to_pylist(), told.forename.to_pylist(), strict=True), strict=True))
    by_uid = {row["series_uid"]: row for row in scans}
    protocols = {series["series_id"]: series for scan in few for series in made_series(plants, scan)}
    with zipfile.ZipFile(tmp_path / "images.zip") as found:
        files = {}
        for name in found.namelist():
            files.setdefault(name.rpartition("/")[0], []).append(name)
        assert sorted(len(names) for names in files.values()) == sorted(int(row["images"]) for row in scans)
        for names in list(files.values())[::3]:
            first, last = (dcmread(io.BytesIO(found.read(name))) for name in (names[0], names[-1]))
            row = by_uid[first.SeriesInstanceUID]
            assert (first.PatientID, first.StudyInstanceUID, first.AccessionNumber) == (row["chi"], row["study_uid"], row["accession"])
            assert str(first.PatientName) == "^".join(names_of[row["chi"]]).upper()
            assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID
            assert (first.InstanceNumber, last.InstanceNumber) == (1, len(names))
            assert (first.SOPInstanceUID == last.SOPInstanceUID) == (len(names) == 1)
            assert str(first.get("NumberOfFrames", len(names))) == str(protocols[row["series_id"]]["frame_count"])
            if len(names) > 1 and "ImagePositionPatient" in first:
                far = np.linalg.norm(np.array(last.ImagePositionPatient) - np.array(first.ImagePositionPatient))
                assert far / (len(names) - 1) == pytest.approx(protocols[row["series_id"]]["spacing_positions"])
    key = [row for row in plants.key.to_pylist() if row["question"] in ("3", "4", "11", "41", "43")]
    assert {row["uid"] for row in key} <= {row[f"{unit}_id"] for row in scans for unit in ("study", "series")}


def test_documents_say_of_each_image_what_its_file_says(tmp_path):
    count, ranked = 40, register.ranks(DRAWS, 40)
    places = nation_extracts.Places(tmp_path / "extracts", tmp_path / "archive")
    nation_extracts.write(DRAWS, ranked, count, 0, places, nation_extracts.Wanted(images=True, documents=True))
    told = {}
    for path in sorted((tmp_path / "extracts/documents").iterdir()):
        name = path.name.removesuffix("-00001.jsonl")
        told[name] = [json_util.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    series = {document["_id"]: document for document in told.pop("series")}
    seen = Counter()
    with zipfile.ZipFile(tmp_path / "archive/nation/00001.zip") as found:
        for name, documents in told.items():
            for document in documents:
                one = imported(document)
                content = found.read(one.member)
                file = dcmread(io.BytesIO(content))
                assert (one.path, one.size, document["_id"]) == ("nation/00001.zip", len(content), file.SOPInstanceUID)
                assert collection(file.get("Modality")) == name
                elements = scan(content).elements
                expected = {column.name: column_value(column.name, elements) for column in promoted()}
                # Documents have no file meta information.
                assert one.columns == expected | {"transfer_syntax_uid": None}
                seen[file.SeriesInstanceUID] += 1
        assert sum(seen.values()) == len(found.namelist()) > 100
    assert seen == {uid: document["header"]["ImagesInSeries"] for uid, document in series.items()}
    with (tmp_path / "extracts/truth/scans-00001.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["series_uid"] for row in rows} == set(seen)


def test_an_archive_that_was_moved_has_some_studies_twice(monkeypatch):
    monkeypatch.setitem(scanning.scanning(), "changed_copy", 0.5)
    index = np.arange(20_000)
    lives = lead(DRAWS, people(DRAWS, index), first=first_day(), last=last_day())
    told = register.register(DRAWS, lives.people, register.ranks(DRAWS, 20_000), homes(DRAWS, lives.people, last_day()))
    wanted = [scans for scans in wanted_scans(DRAWS, lives) if scans.protocol.startswith("xr_")]
    first, second = Kept(), Kept()
    rows = nation_archive.scans_of(DRAWS, lives, DRAWS.names("patient", index), told, tuple(wanted), False, [first], [second]).to_pylist()
    twice = {row["study_uid"] for row in rows if row["second_copy"]}
    assert 0 < len(twice) < 0.03 * len({row["study_uid"] for row in rows})
    again = {row["study_uid"] for row in rows if row["second_copy"] == "yes"}
    assert 0 < len(twice - again) < len(twice)
    assert second.files.keys() == {name for name in first.files if name.split("/")[0] in twice}
    for name, content in second.files.items():
        copy, source = dcmread(io.BytesIO(content)), dcmread(io.BytesIO(first.files[name]))
        assert copy.SOPInstanceUID == source.SOPInstanceUID
        assert (content == first.files[name]) == (copy.SeriesDescription == source.SeriesDescription) == (name.split("/")[0] in again)


def test_headers_are_dirty_as_noted():
    index = np.arange(20_000)
    lives = lead(DRAWS, people(DRAWS, index), first=first_day(), last=last_day())
    told = register.register(DRAWS, lives.people, register.ranks(DRAWS, 20_000), homes(DRAWS, lives.people, last_day()))
    wanted = tuple(scans for scans in wanted_scans(DRAWS, lives) if scans.protocol.startswith(("xr_", "ct_head_plain_thick")))
    kept = Kept()
    rows = nation_archive.scans_of(DRAWS, lives, DRAWS.names("patient", index), told, wanted, False, [kept], []).to_pylist()
    trap = {row["study_uid"]: row["trap"] for row in rows}
    met, ages, thick, requests = set(), set(), {}, {}
    for name, content in kept.files.items():
        if name.endswith(("000001.dcm", "000002.dcm")):
            file = dcmread(io.BytesIO(content))
            if trap[file.StudyInstanceUID] == "one_slice_is_thicker":
                thick.setdefault(file.SeriesInstanceUID, []).append(file.SliceThickness)
            requests.setdefault(file.AccessionNumber, set()).add(file.StudyInstanceUID)
        if not name.endswith("000001.dcm"):
            continue
        file = dcmread(io.BytesIO(content))
        how = trap[file.StudyInstanceUID]
        met.add(how)
        ages.add(file.PatientAge[-1:])
        days = [(day(file[keyword].value) - day(file.AcquisitionDate)) for keyword in ("StudyDate", "SeriesDate", "ContentDate")]
        assert days == {"study_date_is_late": [2, 0, 0], "series_date_is_late": [0, 1, 0]}.get(how, [0, 0, 0])
        thickness = file.get_item("SliceThickness")
        said = {"thickness_with_comma": b"1,5 ", "thickness_twice": b"0.5\\0.5 ", "thickness_with_unit": b"1.5mm "}.get(how)
        assert thickness is None or said in (None, thickness.value)
    assert {"study_date_is_late", "series_date_is_late", "manufacturer_spelt_otherwise", "thickness_twice", ""} <= met
    assert {"M", "Y"} <= ages
    assert thick
    assert all(found == [10, 5] for found in thick.values())
    # The other study of a request may be of another protocol, which was not asked for.
    one = {row["study_uid"] for row in rows if row["one_request"]}
    assert {study for studies in requests.values() if len(studies) > 1 for study in studies} <= one != set()


def day(value):
    return np.datetime64(f"{value[:4]}-{value[4:6]}-{value[6:]}").astype(int)


class Kept:
    def __init__(self):
        self.files = {}

    def add(self, name, content):
        self.files[name] = content


def made_series(plants, scan):
    board = first_board(DRAWS, plants.lives.people)
    return scanning.made(DRAWS, plants.lives.people, plants.ids, board, scan, True).tables["series"].to_pylist()


def test_planted_reports_say_what_is_true(made):
    reports, _ = loaded("reports", made[0] / "reports-00000.csv")
    told = {row["accession_number"]: {tuple(found) for found in findings(row["report_text"])} for row in reports.to_pylist()}
    for row in planted(DRAWS).reports["report_finding"].to_pylist():
        said = (row["finding"], row["polarity"], row["certainty"], row["subject"])
        assert said in told[nation_archive.accession(row["study_id"])]


@pytest.mark.spark
def test_the_job_makes_those_files_once_and_leaves_what_is_not_its_own(made, spark, config):
    folder, _ = made
    config["synth"]["seed"] = 11

    def run(count):
        report = run_job("synth-extracts", config, "synthesiser", lambda job: nation_extracts.run(job, count))
        report.balance()
        return report

    root = Zones(config, "synthesiser").path("extracts")
    report = run(PEOPLE)
    assert report.details["pis_rows"] > 0
    for path in folder.rglob("*.csv"):
        assert digest(root / path.relative_to(folder)) == digest(path), path.name
    assert (root / "truth" / "questions.csv").is_file()
    assert run(PEOPLE).counts == {"seen": report.counts["written"], "unchanged": report.counts["written"]}
    (root / "labs-00001.csv").unlink()
    assert run(PEOPLE).counts["written"] == report.counts["written"]
    (root / "truth" / "nation.json").unlink()
    with pytest.raises(ConfigError, match="did not make"):
        run(PEOPLE)
