"""A delivery from a hand-made house: what is in it, what is withheld, and that it is the same whenever it is made."""

import hashlib
import json
import os
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deliveries import COHORT, EVENT_DATES, PEOPLE, House, ct, small_house, uid
from houses import settings
from instances import dicom_bytes
from pydicom import dcmread
from pydicom.uid import UID_dictionary

from pictures_spark.delivery import extract, package, review
from pictures_spark.errors import ConfigError, NotPermittedError
from pictures_spark.job import run_job
from pictures_spark.keys import date_shift_days, key_ref, pseudonym, pseudonymous_uid

pytestmark = pytest.mark.spark
WITHHELD = {"text_not_determined": 1, "conflict": 1, "not_in_archive": 1, "not_an_image": 1}


@pytest.fixture(scope="module")
def house(_session, tmp_path_factory) -> House:
    return small_house(_session, settings(tmp_path_factory.mktemp("delivery") / "house"))


def deliver(house: House, project: str = "demo", cohort: str = COHORT):
    return run_job("extract", house.config, "extractor", lambda job: extract.run(job, cohort), project)


def folder(house: House, project: str = "demo") -> Path:
    return Path(house.config.location(house.config["zones"]["projects"])) / project / COHORT


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def delivered(house):
    report = deliver(house)
    return report, contents(folder(house))


def test_counts_balance_and_name_what_was_withheld(delivered):
    report, files = delivered
    assert report.counts == {"seen": 10, "written": 6, "unchanged": 0, **{f"skipped_{k}": v for k, v in WITHHELD.items()}}
    about = json.loads(files["delivery.json"])
    assert (about["images"], about["withheld"], about["events"], about["patients"]) == (6, WITHHELD, 2, 2)
    readme = files["README.md"].decode()
    assert "6 de-identified images and 2 linked records of 2 people" in readme
    assert all(f"1 x `{reason}`" in readme for reason in WITHHELD)


def test_layout_and_checksums(delivered):
    _, files = delivered
    images = [name for name in files if name.startswith("images/")]
    assert len(images) == 6
    assert set(files) - set(images) == {
        "manifest.parquet", "records/event.parquet", "records/patient.parquet", "SHA256SUMS", "README.md", "delivery.json",
    }  # fmt: skip
    sums = dict(reversed(line.split("  ", 1)) for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "SHA256SUMS"}


def test_images_records_and_ids_fit_together(house, delivered):
    root = folder(house)
    key = key_ref(house.zones, "k1", "project:demo").bytes()
    manifest = pq.read_table(root / "manifest.parquet").to_pylist()
    assert [row["image_uid"] for row in manifest] == sorted(row["image_uid"] for row in manifest)
    zone_ids = {upi: house.id("patient", upi) for upi in PEOPLE}
    people = {upi: pseudonym(key, "patient", zone_id) for upi, zone_id in zone_ids.items()}
    shifts = {upi: date_shift_days(key, zone_id, 180) for upi, zone_id in zone_ids.items()}
    for row in manifest:
        if row["status"] == "withheld":
            assert row["file"] is None
            assert row["reason"] in WITHHELD
            continue
        image = dcmread(root / row["file"])
        assert row["file"] == f"images/{row['patient_id']}/{row['study_uid']}/{row['series_uid']}/{row['image_uid']}.dcm"
        assert (image.PatientID, image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID) == (
            row["patient_id"], row["study_uid"], row["series_uid"], row["image_uid"],
        )  # fmt: skip
        assert image.StudyDate == row["scan_date"].strftime("%Y%m%d")
    events = {row["patient_id"]: row for row in pq.read_table(root / "records/event.parquet").to_pylist()}
    for upi in PEOPLE:
        mine = [row for row in manifest if row["study_uid"] == pseudonymous_uid(key, uid(int(upi[-1]))) and row["file"]]
        assert {row["patient_id"] for row in mine} == {people[upi]}
        true_interval = (mine[0]["scan_date"] - events[people[upi]]["date"]).days
        assert true_interval == (date(2015, 6, 25) - EVENT_DATES[upi]).days
        assert (events[people[upi]]["date"] - EVENT_DATES[upi]).days == shifts[upi]
    unlinked = next(row for row in manifest if row["study_uid"] == pseudonymous_uid(key, uid(9)))
    assert unlinked["patient_id"] == pseudonym(key, "patient", house.id("study", uid(9)))
    assert [row["boxes_blanked"] for row in manifest if row["image_uid"] == pseudonymous_uid(key, uid(1, 1, 3))] == [1]


def test_burned_in_text_is_blanked_and_the_rest_is_not(house, delivered):
    key = key_ref(house.zones, "k1", "project:demo").bytes()
    (path,) = folder(house).rglob(f"{pseudonymous_uid(key, uid(1, 1, 3))}.dcm")
    before, after = dcmread(BytesIO(dicom_bytes(ct("upi1", 3)))).pixel_array, dcmread(path).pixel_array
    assert (after[2:5, 2:9] == before.min()).all()
    before[2:5, 2:9] = after[2:5, 2:9]
    assert (after == before).all()


def test_nothing_of_the_source_or_the_zone_is_in_it(house, delivered):
    _, files = delivered
    canaries = [value for person in PEOPLE.values() for value in person]
    canaries += [uid(1), uid(1, 1), uid(1, 1, 1), "ACC20150625", "f" * 32]
    canaries += [house.id("patient", upi) for upi in PEOPLE] + [house.id("series", uid(1, 1)), house.id("event", "upi1")]
    # Tables are searched decoded too: Parquet packs its pages.
    decoded = "".join(str(pq.read_table(folder(house) / name).to_pylist()) for name in files if name.endswith(".parquet"))
    for canary in canaries:
        for encoding in ("utf-8", "utf-16-le"):
            assert not [name for name, data in files.items() if canary.encode(encoding) in data or canary in name]
        assert canary not in decoded
    assert "2015-06-25" not in decoded


def test_what_was_found_is_in_the_identifiable_zone_only(house, delivered):
    report, files = delivered
    assert report.details["verdict_clean"] == 6
    assert report.details["second_look_clean"] >= 1  # the redacted one, and whichever the sample holds
    place = Path(house.config.location(house.config["zones"]["identifiable"])) / "review" / "demo" / COHORT
    (one,) = place.iterdir()
    assert sorted(path.name for path in one.iterdir()) == ["inventory.parquet", "verdicts.parquet"]
    verdicts = pq.read_table(one / "verdicts.parquet").to_pylist()
    assert len(verdicts) == 10
    assert {row["verdict"] for row in verdicts if row["status"] == "delivered"} == {"clean"}
    texts = pq.read_table(one / "inventory.parquet").to_pylist()
    assert len(texts) == report.details["texts_to_review"]
    assert {"element": "SeriesDescription", "value": "* head", "images": 6} in texts
    assert not [name for name, data in files.items() if verdicts[0]["object_id"].encode() in data or "verdict" in name]


def test_again_is_unchanged_and_touches_nothing(house, delivered):
    _, files = delivered
    stamps = {path: path.stat().st_mtime_ns for path in folder(house).rglob("*")}
    report = deliver(house)
    assert (report.counts["written"], report.counts["unchanged"]) == (0, 6)
    assert {path: path.stat().st_mtime_ns for path in folder(house).rglob("*")} == stamps
    assert contents(folder(house)) == files


def test_a_killed_run_goes_on_where_it_was(house, delivered, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "_take_its_place", killed)
    with pytest.raises(KeyboardInterrupt):
        deliver(house, "other")
    assert not folder(house, "other").exists()
    monkeypatch.undo()
    staged = sorted((folder(house, "other").parent / ".staging").rglob("*.dcm"))
    assert len(staged) == 6
    whole = {path.name: path.read_bytes() for path in staged}
    os.truncate(staged[0], 100)
    (staged[1].parent / ".torn").write_bytes(b"half a file")
    stamps = {path.name: path.stat().st_mtime_ns for path in staged[1:]}
    deliver(house, "other")
    there = list(folder(house, "other").rglob("*.dcm"))
    assert {path.name: path.read_bytes() for path in there} == whole
    assert {path.name: path.stat().st_mtime_ns for path in there if path.name in stamps} == stamps
    assert package.is_whole(folder(house, "other"))
    assert not list(folder(house, "other").rglob(".torn"))
    assert not (folder(house, "other").parent / ".staging").exists()


# What both deliveries may say alike, because it is of the image itself or is coded: whoever has the pixels needs none of it to join them.
SAME_COLUMNS = {
    "manifest": {"modality", "age_years", "size", "boxes_blanked", "status", "reason"},
    "records/event": {"source", "kind", "system", "code", "code_root", "age_years", "status"},
    "records/patient": {"sex"},
}


def test_two_projects_cannot_be_joined(house, delivered):
    """Every column, id, date, UID, name, checksum and order of the same people's data in two projects."""
    deliver(house, "other")
    keys = [key_ref(house.zones, "k1", f"project:{project}").bytes() for project in ("demo", "other")]
    roots = [folder(house, project) for project in ("demo", "other")]
    shifts = [{date_shift_days(key, house.id("patient", upi), 180) for upi in PEOPLE} for key in keys]
    for name, same in SAME_COLUMNS.items():
        tables = [pq.read_table(root / f"{name}.parquet") for root in roots]
        for column in tables[0].column_names:
            first, second = ({str(value) for value in table[column].to_pylist() if value is not None} for table in tables)
            by_chance = "date" in column and not shifts[0].isdisjoint(shifts[1])
            assert column in same or by_chance or first.isdisjoint(second), (name, column)
        for table in tables:  # ordered by ids of the project, so by nothing that the other one has
            column = {"manifest": "image_uid", "records/event": "event_id", "records/patient": "patient_id"}[name]
            assert table[column].to_pylist() == sorted(table[column].to_pylist())

    files = [contents(root) for root in roots]
    names = [{part for name in found for part in name.split("/")} for found in files]
    assert names[0] & names[1] == {"images", "records", *map(os.path.basename, files[0].keys() & files[1].keys())}
    assert files[0].keys() & files[1].keys() == {
        "manifest.parquet", "records/event.parquet", "records/patient.parquet", "SHA256SUMS", "README.md", "delivery.json",
    }  # fmt: skip
    sums = [{hashlib.sha256(data).hexdigest() for data in found.values()} for found in files]
    assert sums[0].isdisjoint(sums[1])
    abouts = [json.loads(found["delivery.json"]) for found in files]
    own = {"project", "freeze", "fingerprint"}
    counts = {name for name, value in abouts[0].items() if not isinstance(value, str)}
    assert all(abouts[0][name] != abouts[1][name] for name in own)
    assert not [value for name, value in abouts[0].items() if name not in own | counts and len(value) > 16 and value == abouts[1][name]]

    elements = [[], []]
    for place, found in enumerate(files):
        for name, data in found.items():
            if name.endswith(".dcm"):
                image = dcmread(BytesIO(data))
                elements[place] += [(e.keyword, e.VR, str(e.value)) for e in [*image.iterall(), *image.file_meta] if e.VR != "SQ"]
    shared = {e for e in elements[0] if e[2]} & set(elements[1])
    registered = {(k, vr, v) for k, vr, v in shared if vr == "UI" and (v in UID_dictionary or k == "ImplementationClassUID")}
    dates = {(k, vr, v) for k, vr, v in shared if vr in ("DA", "DT")} if not shifts[0].isdisjoint(shifts[1]) else set()
    assert not [e for e in shared - registered - dates if e[1] in ("UI", "DA", "DT", "PN") or e[0] in ("PatientID", "AccessionNumber")]
    assert {e[0] for e in shared if e[1] in ("LO", "SH", "ST", "LT", "UT", "UC")} <= {
        "DeidentificationMethod", "ImplementationVersionName", "CodeValue", "CodingSchemeDesignator", "CodeMeaning", "SeriesDescription",
    }  # fmt: skip


def test_free_text_waits_for_somebody_who_reads_it(house):
    other = replace(house.config, values={**house.config.values, "extract": {**house.config["extract"], "policy": "detailed"}})

    def run():
        return run_job("extract", other, "extractor", lambda job: extract.run(job, COHORT), "third")

    with pytest.raises(NotPermittedError, match="nothing is delivered yet"):
        run()
    assert not folder(house, "third").exists()
    review.sign(other, "third", COHORT, "A Reader")
    report = run()
    assert report.counts["seen"] == report.counts["written"] + sum(n for name, n in report.counts.items() if name.startswith("skipped_"))
    assert package.is_whole(folder(house, "third"))


@pytest.mark.parametrize("cohort", ["../heads", "Heads", "", ".staging", "nobody-froze-this"])
def test_what_is_no_frozen_cohort_is_refused(house, cohort):
    with pytest.raises(ConfigError):
        deliver(house, cohort=cohort)
