"""The detector on planted lines (recall, whole coverage) and on frames without text (false alarms)."""

import hashlib
import re

import numpy as np
import pytest
from instances import pydicom_file, pydicom_files
from planted import FONTS, anatomy, burn, inked

from pictures_spark.pixels import text as detector
from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.heat import Look, Suspect, clear, suspects
from pictures_spark.pixels.text import Box, engine_version, find_text, read_places
from pictures_spark.pixels.window import to_8bit
from pictures_spark.resources import load_schema, schemas_dir
from pictures_spark.synthetic import frames

PLACES = [("Gyllenspey Jo", (4, 4), 12), ("MCTAGGART", (60, 20), 18)]


def uncovered(boxes, ink):
    left = ink.copy()
    for box in boxes:
        left[box.y0 : box.y1, box.x0 : box.x1] = False
    return left.sum() / ink.sum()


@pytest.mark.parametrize("dark", [False, True], ids=["bright", "dark on a banner"])
@pytest.mark.parametrize("font", FONTS)
def test_a_planted_name_is_found_and_wholly_covered(font, dark):
    missed = []
    for seed, (text, at, height) in enumerate(PLACES):
        frame = anatomy(seed)
        boxes = find_text(to_8bit(burn(frame, text, at, font, height, dark)))
        if not boxes or uncovered(boxes, inked(frame.shape, text, at, font, height)) > 0:
            missed.append(text)
    assert missed == []


def test_colour_text_is_found_in_colour():
    grey = to_8bit(anatomy(3))
    frame = np.stack([grey // 2] * 3, axis=2)
    ink = inked(grey.shape, "MACIVER", (50, 40), height=16)
    frame[ink] = (255, 220, 0)
    boxes = find_text(frame)
    assert [box.text for box in boxes] == ["MACIVER"]
    assert uncovered(boxes, ink) == 0


def test_text_as_bright_as_what_is_behind_it_is_found_by_its_colour():
    ink = inked((128, 200), "MACIVER", (50, 40), height=20)
    frame = np.zeros((128, 200, 3), np.uint8)
    frame[..., 1] = 255
    frame[ink] = (255, 0, 0)
    assert uncovered(find_text(frame), ink) == 0


def test_real_burned_in_text_is_read():
    path = next(path for path in pydicom_files() if path.name == "examples_rgb_color.dcm")
    frame = next(decode(path.read_bytes(), 10**7).frames())
    found = " ".join(box.text for box in find_text(to_8bit(frame[:120, :160])))
    assert "BAPTIST" in found


@pytest.mark.parametrize(("name", "twice"), [("examples_rgb_color.dcm", 1), ("examples_jpeg2k.dcm", 2)])
def test_anatomy_beside_text_is_not_blanked(name, twice):
    """Colour flow in ultrasound is hot to the networks, and scales and banners around it are text."""
    frame = to_8bit(next(decode(pydicom_file(name), 10**7).frames()))
    flow = np.zeros(frame.shape[:2], bool)
    flow[80 * twice : 140 * twice, 46 * twice : 272 * twice] = True
    boxes = find_text(frame)
    assert {"BAPTIST MED CTR"} <= {box.text for box in boxes}
    assert uncovered(boxes, flow) > 0.99


def test_a_place_widens_a_box_by_its_height_when_it_was_read():
    """Else the first place would make room for a higher one, and that for the frame."""
    rule = detector.rules()["places"]
    boxes = [Box(0, 40, 60, 56, 0.9, "PWR")]
    for place in (Suspect(0, 32, 70, 72, 0.9, 40, 16), Suspect(0, 0, 200, 120, 0.9, 48, 16)):
        detector._widened(boxes, [16], place, rule, 64)
    assert boxes == [Box(0, 32, 70, 72, 0.9, "PWR")]


CLEAN = ["CT_small.dcm", "MR_small.dcm", "rtdose_1frame.dcm", "SC_rgb_jpeg_gdcm.dcm"]


def test_frames_without_text_raise_no_alarm():
    alarms = [seed for seed in range(5) if find_text(to_8bit(anatomy(seed)))]
    for name in CLEAN:
        image = decode(pydicom_file(name), 10**7)
        frame = next(image.frames([0]))
        if find_text(to_8bit(frame, image.inverted)):
            alarms.append(name)
    assert alarms == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 900), (900, 4), (1, 5000), (40, 3000)])
def test_odd_shapes_are_looked_at(shape):
    assert find_text(np.zeros(shape, np.uint8)) == []


def test_what_was_read_in_the_whole_frame_is_not_read_again(monkeypatch):
    again = []
    real = detector._read_region
    monkeypatch.setattr(detector, "_read_region", lambda frame8, region, *rest: again.append(region) or real(frame8, region, *rest))
    text, at, height = PLACES[1]
    frame = anatomy(1)
    boxes = find_text(to_8bit(burn(frame, text, at, FONTS[0], height)), whole=True)
    assert again == []
    assert uncovered(boxes, inked(frame.shape, text, at, FONTS[0], height)) == 0


def test_equal_pixels_are_read_once_and_others_by_themselves(monkeypatch):
    detector.forget()
    read, work = [], detector._read_anew
    monkeypatch.setattr(detector, "_read_anew", lambda *given: read.append(True) or work(*given))
    frame, other = (to_8bit(burn(anatomy(0), name, (20, 8), height=16)) for name in ("MACTAVISH", "GYLLENSPEY"))
    first = find_text(frame)
    so_far = len(read)
    assert so_far
    assert find_text(frame.copy()) == first
    assert len(read) == so_far
    assert {box.text for box in find_text(other)} == {"GYLLENSPEY"}
    assert find_text(frame) == first
    monkeypatch.setattr(detector, "_REMEMBERED", 1)
    detector.forget()
    assert find_text(frame) == first
    assert len(detector._lately) == 1


def test_boxes_stay_inside_the_frame():
    frame = to_8bit(burn(anatomy(1, (64, 128)), "MACDONALD", (0, 0), "outline", 16))
    for box in find_text(frame):
        assert 0 <= box.x0 < box.x1 <= 128
        assert 0 <= box.y0 < box.y1 <= 64


def test_a_box_covers_what_lies_inside_it():
    assert Box(0, 0, 10, 10).covers(Box(0, 2, 10, 9))
    assert not Box(0, 0, 10, 10).covers(Box(0, 2, 11, 9))


def test_engine_version_may_be_published():
    assert re.fullmatch(load_schema("patterns.yaml")["version"], engine_version())


@pytest.mark.parametrize("name", ["text_heat", "text_look"])
def test_a_network_is_the_one_that_its_card_describes(name):
    card = load_schema(f"pixels/{name}.yaml")
    assert hashlib.sha256((schemas_dir() / "pixels" / f"{name}.onnx").read_bytes()).hexdigest() == card["sha256"]


def test_what_is_surely_text_is_covered_even_if_nothing_can_be_read(monkeypatch):
    monkeypatch.setattr(detector, "_read", lambda *_: [])
    frame = to_8bit(burn(anatomy(1, (200, 260)), "GYLLENSPEY JO", (30, 30), height=18))
    boxes = find_text(frame)
    assert {box.text for box in boxes} == {""}
    assert uncovered(boxes, inked(frame.shape, "GYLLENSPEY JO", (30, 30), height=18)) == 0


@pytest.mark.parametrize(("chance", "in_a_frame", "on_a_track"), [(0.91, False, False), (0.95, True, False), (0.98, True, True)])
def test_what_cannot_be_read_has_to_be_surer_where_many_frames_are_looked_at(monkeypatch, chance, in_a_frame, on_a_track):
    monkeypatch.setattr(detector, "_read", lambda *_: [])
    monkeypatch.setattr(detector, "second_look", lambda *_: Look(chance, 3.0))
    frame = to_8bit(burn(anatomy(1, (200, 260)), "GYLLENSPEY JO", (30, 30), height=18))
    assert (bool(find_text(frame)), bool(read_places(frame, suspects(frame)))) == (in_a_frame, on_a_track)


def test_a_marker_does_not_excuse_what_cannot_be_read(monkeypatch):
    """The name is above, the marker below; only the marker is read."""
    frame = to_8bit(burn(burn(anatomy(1, (200, 260)), "GYLLENSPEY JO", (30, 30), height=18), "MLO", (130, 180), height=18))

    def reading(part, factor=None, rows=None):
        return [box for box in detector._read_anew(part, factor, rows) if detector.is_marker(box.text)]

    monkeypatch.setattr(detector, "_read", reading)
    assert uncovered(find_text(frame), inked(frame.shape, "GYLLENSPEY JO", (30, 30), height=18)) == 0


def test_contrast_is_stretched_but_not_without_bound():
    faint = np.full((20, 30), 100, np.uint8)
    faint[5:15, 5:25] = 110
    assert int(np.ptp(clear(faint))) == 30
    strong = np.linspace(0, 255, 600).astype(np.uint8).reshape(20, 30)
    assert np.ptp(clear(strong)) == 255
    assert clear(np.repeat(faint[:, :, None], 3, axis=2)).shape == (20, 30, 3)
    assert not np.ptp(clear(np.zeros((4, 4), np.uint8)))


@pytest.mark.parametrize("value", [0, 255])
def test_what_has_one_value_around_a_frame_hides_nothing(value):
    inner = to_8bit(burn(anatomy(1), "GYLLENSPEY JO", (4, 4), height=12))
    ink = inked(inner.shape, "GYLLENSPEY JO", (4, 4), height=12)
    frame = np.full((700, 900), value, np.uint8)
    frame[201 : 201 + inner.shape[0], 303 : 303 + inner.shape[1]] = inner
    whole = np.zeros(frame.shape, bool)
    whole[201 : 201 + inner.shape[0], 303 : 303 + inner.shape[1]] = ink
    boxes = find_text(frame)
    assert boxes
    assert uncovered(boxes, whole) == 0


@pytest.mark.parametrize("text", ["R", "MLO", "10 cm"])
def test_a_marker_alone_is_no_text(text):
    assert find_text(to_8bit(burn(anatomy(0), text, (10, 6), height=18)), whole=True) == []


def test_text_that_runs_upwards_is_found():
    frame = np.ascontiguousarray(np.rot90(to_8bit(burn(anatomy(1, (200, 260)), "MACTAVISH", (40, 20), height=18))))
    boxes = find_text(frame)
    ink = np.rot90(inked((200, 260), "MACTAVISH", (40, 20), height=18))
    assert uncovered(boxes, ink) == 0


def test_planted_frames_of_other_seeds_than_the_benchmark_are_found_and_clean_ones_are_not():
    found, alarms, lines, covered = 0, 0, 0, 0
    for number, modality in enumerate(["CT", "MR", "XA", "PT", "NM", "US"] * 4):
        planted = frames.planted_frame(np.random.default_rng([31, number]), modality, ["stroke", "bitmap", ""])
        boxes = find_text(planted.pixels)
        found += bool(boxes)
        lines += len(planted.lines)
        covered += sum(line.uncovered(boxes) == 0 for line in planted.lines)
        alarms += bool(find_text(frames.clean_frame(np.random.default_rng([32, number]), modality).pixels))
    assert (found, alarms) == (24, 0)
    assert covered >= 0.95 * lines
