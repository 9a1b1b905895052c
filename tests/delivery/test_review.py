"""What is written down of a delivery for those who review it: verdicts in three states, second looks, and every text that is left."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from located import BOX, DATA, new_task, write
from pydicom import dcmread

from pictures_spark.deid.verify import Checked, Finding
from pictures_spark.delivery import write as writing
from pictures_spark.delivery.review import INVENTORY, VERDICTS, is_signed, looked_at, print_inventory, sign, write_review
from pictures_spark.delivery.second_look import SecondLook
from pictures_spark.errors import InputError
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.text import Box as Found


@pytest.fixture
def task(tmp_path):
    made = new_task(tmp_path)
    (tmp_path / "archive" / "a.dcm").write_bytes(DATA)
    return made


class Looks:
    """A child that answers as it is told."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def read_frames(self, locator, places):
        assert set(places.values()) == {None}
        self.asked.append((locator, list(places)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(zip(places, self.answer, strict=False))


@pytest.mark.parametrize(
    ("findings", "verdict", "reason"),
    [
        ([], "clean", None),
        ([Finding("text", "StationName"), Finding("tag")], "found", "verification_failed"),
        ([Finding("undecodable")], "not_determined", "verification_not_determined"),
        ([Finding("undecodable"), Finding("uid", "StudyInstanceUID")], "found", "verification_failed"),
    ],
)
def test_every_image_has_a_verdict_and_only_the_clean_leave(task, tmp_path, monkeypatch, findings, verdict, reason):
    monkeypatch.setattr(writing.Checker, "__call__", lambda *_: Checked(findings))
    (line,) = write(task, {})
    assert (line["verdict"], line["reason"]) == (verdict, reason)
    assert line["findings"] == [f"{f.code} {f.keyword}".strip() for f in findings]
    assert (line["status"] == "delivered") == (verdict == "clean")
    assert bool(list((tmp_path / "staging").rglob("*.dcm"))) == (verdict == "clean")


@pytest.mark.parametrize(
    ("changes", "share", "answer", "second_look", "reason"),
    [
        ({"verdict": "text", "boxes": [BOX]}, 0.0, [[]], "clean", None),
        ({"verdict": "text", "boxes": [BOX]}, 0.0, [[Found(1, 1, 5, 5)]], "text", "text_left"),
        ({"verdict": "text", "boxes": [BOX]}, 0.0, PixelFault("timeout"), "not_determined", "text_not_determined"),
        ({}, 0.0, [[Found(1, 1, 5, 5)]], None, None),
        ({}, 1.0, [[Found(1, 1, 5, 5)]], "text", "text_left"),
        ({}, 1.0, [[]], "clean", None),
    ],
)
def test_redacted_images_and_a_sample_are_looked_at_again(task, tmp_path, monkeypatch, changes, share, answer, second_look, reason):
    looks = Looks(answer)
    monkeypatch.setattr(SecondLook, "_child", lambda self: looks)
    (line,) = write(replace(task, second_look_share=share), changes)
    assert (line["second_look"], line["reason"]) == (second_look, reason)
    # What is found beside what was blanked is blanked, and looked at again, but not for ever.
    assert len(looks.asked) == (0 if second_look is None else 3 if reason == "text_left" and "boxes" in changes else 1)
    assert line["looks"] == (len(looks.asked) or None)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.suffix == ".look"]


@pytest.mark.parametrize(
    ("share", "said", "kept", "reason", "counted"),
    [
        (1.0, [], [], None, {"conformance_as_before": 1, "conformance_worse": 0}),
        (1.0, ["Error - x"], ["Error - x"], "conformance_worse", {"conformance_as_before": 0, "conformance_worse": 1}),
        (1.0, None, None, None, {}),
        (0.0, ["Error - x"], None, None, {}),
    ],
)
def test_an_image_that_is_looked_at_leaves_only_as_well_formed_as_it_was(task, monkeypatch, share, said, kept, reason, counted):
    monkeypatch.setattr(SecondLook, "_child", lambda self: Looks([[]]))
    monkeypatch.setattr(writing, "conformance", lambda before, after: said)
    (line,) = write(replace(task, second_look_share=share), {})
    assert (line["nonconformities"], line["status"], line["reason"]) == (kept, "withheld" if reason else "delivered", reason)
    told = looked_at(pa.Table.from_pylist([line], writing._schema()))
    assert {name: count for name, count in told.items() if "conformance" in name} == counted


def test_what_a_look_finds_beside_blanked_text_is_blanked_too(task, tmp_path, monkeypatch):
    class Each(Looks):
        def read_frames(self, locator, places):
            answers = [[Found(1, 6, 3, 8)], []]
            self.answer = [answers[len(self.asked)]]
            return super().read_frames(locator, places)

    looks = Each(None)
    monkeypatch.setattr(SecondLook, "_child", lambda self: looks)
    (line,) = write(task, {"verdict": "text", "boxes": [BOX]})
    assert (line["second_look"], line["looks"], line["status"], line["boxes_blanked"]) == ("clean", 2, "delivered", 2)
    (path,) = (tmp_path / "staging").rglob("*.dcm")
    made, source = dcmread(path).pixel_array, dcmread(BytesIO(DATA)).pixel_array
    changed = made != source
    outside = np.ones(made.shape, bool)
    outside[BOX["y0"] : BOX["y1"], BOX["x0"] : BOX["x1"]] = outside[6:8, 1:3] = False
    assert not changed[outside].any()
    assert len(np.unique(made[6:8, 1:3])) == 1
    told = looked_at(pa.Table.from_pylist([line], writing._schema()))
    assert told["blanked_again"] == 1


def test_the_child_looks_at_the_redacted_pixels(task):
    """With the real models: nothing is left to be read where the box was."""
    (line,) = write(task, {"verdict": "text", "boxes": [BOX]})
    assert (line["second_look"], line["status"]) == ("clean", "delivered")


def test_frames_with_boxes_come_first_and_the_others_are_spread(tmp_path):
    looks = Looks([[]])
    look = SecondLook(tmp_path / "look", None, 0.25, looks)
    assert look.boxes(b"data", 100, (77,)) == []
    assert looks.asked[0][1] == [0, 13, 26, 39, 52, 65, 77, 78, 91]
    wanted = [look.wanted(f"2.25.{number}", redacted=False) for number in range(2000)]
    assert 400 < sum(wanted) < 600
    assert wanted == [look.wanted(f"2.25.{number}", redacted=False) for number in range(2000)]


def test_the_inventory_has_every_text_once_and_the_verdicts_every_image(task, tmp_path, config, capsys):
    lines = write(task, {}, {"path": None})
    folder = tmp_path / "review"
    (folder / "torn.texts").write_text('{"element": "Modality", "value": "CT", "images": 2}\n{"element": "Mod')
    texts = write_review(folder, pa.Table.from_pylist(lines, writing._schema()))
    rows = {(row["element"], row["value"]): row["images"] for row in pq.read_table(folder / INVENTORY).to_pylist()}
    assert len(rows) == texts
    assert rows["Modality", "CT"] == 3
    assert rows["ImageType", "AXIAL"] == 1
    assert rows["DeidentificationMethodCodeSequence.CodeValue", "113100"] == 1
    assert not [element for element, _ in rows if element in ("PatientID", "PatientName", "StudyInstanceUID")]
    verdicts = pq.read_table(folder / VERDICTS).to_pylist()
    assert {(row["object_id"], row["verdict"], row["reason"]) for row in verdicts} == {("o", "clean", None), ("o", None, "not_in_archive")}
    assert looked_at(pa.Table.from_pylist(lines, writing._schema())) == {"verdict_clean": 1}
    assert not list(folder.glob("*.texts"))

    place = config.home / "identifiable" / "review" / "demo" / "heads"
    place.mkdir(parents=True)
    folder.rename(place / "abc")
    print_inventory(config, "demo", "heads")
    assert "Modality\t3\tCT\n" in capsys.readouterr().out
    with pytest.raises(InputError, match="no inventory"):
        print_inventory(config, "demo", "other")

    assert not is_signed(place / "abc")
    sign(config, "demo", "heads", "A Reader")
    assert is_signed(place / "abc")
    # A run that goes on adds to what was read; what is signed is these very texts.
    assert write_review(place / "abc", pa.Table.from_pylist(lines, writing._schema())) == texts
    assert is_signed(place / "abc")
    (place / "abc" / "more.texts").write_text('{"element": "SeriesDescription", "value": "new", "images": 1}\n')
    assert write_review(place / "abc", pa.Table.from_pylist(lines, writing._schema())) == texts + 1
    assert not is_signed(place / "abc")


def test_a_text_is_written_down_before_its_image_counts_as_done(task, tmp_path, monkeypatch):
    def killed(self, texts):
        raise KeyboardInterrupt

    work = writing._Work(task)
    monkeypatch.setattr(type(work), "tell_texts", lambda self: killed(self, None))
    from located import row

    with pytest.raises(KeyboardInterrupt):
        work.one(row())
    assert not list((tmp_path / "journal").glob("*.jsonl"))
