"""One image of a delivery, without Spark: what is read, what is withheld and why, and what is not written twice."""

import hashlib
import json
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest
from located import BOX, DATA, new_task, write

from pictures_spark.delivery import package
from pictures_spark.delivery.write import REVIEW_COLUMNS


@pytest.fixture
def task(tmp_path):
    made = new_task(tmp_path)
    (tmp_path / "archive" / "a.dcm").write_bytes(DATA)
    (tmp_path / "archive" / "packed.bin").write_bytes(b"before" + DATA + b"after")
    return made


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conflict": True}, "conflict"),
        ({"path": None}, "not_in_archive"),
        ({"path": "gone.dcm"}, "not_in_archive"),
        ({"compression": "brotli"}, "not_in_archive"),
        ({"content_sha256": "0" * 64}, "changed"),
        ({"path": "packed.bin", "offset": 5, "length": len(DATA)}, "changed"),
        ({"sop_uid": "1.2.3.4"}, "changed"),
        ({"verdict": None}, "text_not_determined"),
        ({"verdict": "not_determined"}, "text_not_determined"),
        ({"verdict": "text", "boxes": [BOX], "verdicts_differ": True}, "text_not_determined"),
        ({"verdict": "text"}, "pixels_not_cleanable"),
        ({"verdict": "text", "boxes": [{**BOX, "frame_to": 7}]}, "pixels_not_cleanable"),
    ],
)
def test_withheld_images_have_a_line_with_the_reason_and_no_file(task, tmp_path, changes, reason):
    (line,) = write(task, changes)
    assert (line["status"], line["reason"], line["file"], line["sha256"]) == ("withheld", reason, None, None)
    assert not list((tmp_path / "staging").rglob("*.dcm"))


def test_an_image_without_a_header_row_still_has_ids(task):
    (line,) = write(task, {"path": None, "sop_uid": None, "study_uid": None, "series_uid": None, "verdict": None, "known": None})
    assert line["image_uid"].startswith("2.25.")
    assert line["reason"] == "not_in_archive"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"path": "packed.bin", "offset": 6, "length": len(DATA), "compression": "none"},
        {"verdict": "text", "boxes": [BOX]},
        {"verdict": "text", "text_elsewhere": True},
    ],
)
def test_a_delivered_image(task, tmp_path, changes):
    (line,) = write(task, changes)
    assert line["status"] == "delivered"
    data = (tmp_path / "staging" / line["file"]).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (line["size"], line["sha256"])
    assert line["boxes_blanked"] == len(changes.get("boxes", []))
    assert line["scan_date"] != date(2015, 6, 25)
    assert line["fresh"]


def test_what_the_former_delivery_has_is_linked_and_not_written(task, tmp_path):
    (first,) = write(task, {})
    (tmp_path / "former").rmdir()
    (tmp_path / "staging").rename(tmp_path / "former")
    (tmp_path / "journal").rename(tmp_path / "old")
    for name in ("staging", "journal"):
        (tmp_path / name).mkdir()
    (second,) = write(task, {})
    assert not second["fresh"]
    assert second == {**first, "fresh": False}
    assert (tmp_path / "staging" / first["file"]).stat().st_ino == (tmp_path / "former" / first["file"]).stat().st_ino

    (tmp_path / "staging" / first["file"]).unlink()
    (tmp_path / "former" / first["file"]).write_bytes(b"damaged")
    (third,) = write(task, {})
    assert third["fresh"]
    assert (tmp_path / "former" / first["file"]).read_bytes() == b"damaged"


def test_a_finished_image_is_not_read_again_unless_its_file_is_damaged(task, tmp_path):
    (first,) = write(task, {})
    log = next((tmp_path / "journal").iterdir())
    log.write_text(log.read_text() + '{"image_uid": "2.25.1", "file')  # torn by a kill
    (tmp_path / "archive" / "a.dcm").rename(tmp_path / "archive" / "b.dcm")
    assert write(task, {}) == [first]
    (tmp_path / "staging" / first["file"]).write_bytes(b"x")
    (again,) = write(task, {})
    assert again["reason"] == "not_in_archive"


def test_another_key_makes_another_delivery(task):
    (first,) = write(task, {})
    (second,) = write(replace(task, key=replace(task.key, purpose="project:other")), {})
    same = {name for name in first.keys() - set(REVIEW_COLUMNS) if first[name] == second[name]}
    assert same <= {"modality", "age_years", "size", "boxes_blanked", "status", "reason", "fresh"}


def test_the_journal_holds_no_id_of_the_source(task, tmp_path):
    write(task, {})
    (log,) = (tmp_path / "journal").iterdir()
    assert set(json.loads(log.read_text())) == {
        "image_uid", "file", "size", "sha256", "boxes_blanked", "fresh", "verdict", "findings",
    }  # fmt: skip


def test_checksums_tell_a_whole_delivery_from_a_damaged_one(tmp_path):
    for name in (package.EVENTS, package.PATIENTS, package.MANIFEST):
        package.write_table(pa.table({"id": ["b", "a"]}), tmp_path, name, "id")
    manifest = pa.table({"file": pa.array([None], pa.string()), "sha256": pa.array([None], pa.string()), "reason": ["conflict"]})
    about = {"delivery": "d", "project": "p", "policy": "default 1", "withheld": package.withheld_reasons(manifest)}
    package.write_papers(tmp_path, about, manifest, events=2, patients=2)
    assert about["withheld"] == {"conflict": 1}
    assert package.is_whole(tmp_path)
    assert package.read_about(tmp_path) == about
    (tmp_path / package.README).write_text("changed")
    assert not package.is_whole(tmp_path)
    (tmp_path / package.SUMS).write_text("")
    assert not package.is_whole(tmp_path)
    (tmp_path / package.ABOUT).write_text("[]")
    assert package.read_about(tmp_path) is None
