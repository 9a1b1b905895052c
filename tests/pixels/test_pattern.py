"""Series read by projections: text on every frame, on one, on some, changing; and what is not text."""

import cv2
import numpy as np
import pytest
from planted import anatomy, burn, inked

from pictures_spark.pixels.examine import Examined, Locator
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import Feature
from pictures_spark.pixels.groups import Instance, examine_group
from pictures_spark.pixels.heat import Suspect
from pictures_spark.pixels.pattern import Sketch, sketch, tracks
from pictures_spark.pixels.text import Box, find_text, read_places
from pictures_spark.pixels.window import to_8bit

SHAPE = (96, 128)
NAME, CORNER, MIDDLE = "MACTAVISH", (4, 4), (40, 16)


def series(count=12, shape=SHAPE):
    """Slices through one body: it grows and shifts a little from slice to slice, with noise of its own."""
    base = anatomy(21, shape)
    slices = []
    for number in range(count):
        turn = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), number * 1.5, 1 - 0.012 * number)
        moved = cv2.warpAffine(base, turn, shape[::-1], borderValue=-1000)
        noise = np.random.default_rng(number).normal(0, 12, shape)
        slices.append((moved + noise).astype(np.int16))
    return slices


class InMemory:
    """`Looks` over frames in memory; ``frames[path]`` is an instance; counts what was read."""

    def __init__(self, frames, broken=()):
        self.frames = frames
        self.broken = broken
        self.read = []
        self.pictures = 0

    def examine(self, locator, names, text):
        frames = self.frames[locator.path]
        if ("examine", locator.path) in self.broken:
            raise PixelFault("undecodable")
        features = [Feature(name, "1", None, 1.0) for name in names]
        if text == "read":
            return Examined(len(frames), features, None, [find_text(to_8bit(f)) for f in frames])
        whole = None
        for frame in frames:
            one = sketch(to_8bit(frame))
            whole = one if whole is None else whole.joined(one)
        return Examined(len(frames), features, whole if text == "sketch" else None)

    def read_frames(self, locator, places):
        if ("read", locator.path) in self.broken:
            raise PixelFault("timeout")
        self.read += [(locator.path, frame) for frame in places]
        return {frame: read_places(to_8bit(self.frames[locator.path][frame]), of_frame) for frame, of_frame in places.items()}

    def read_picture(self, picture):
        if "picture" in self.broken:
            raise PixelFault("crashed")
        self.pictures += 1
        return find_text(picture, whole=True)


def examined(slices, pattern=True, broken=(), want_text=True):
    """Slices, each a frame (an instance) or a list of frames."""
    frames = {str(n): s if isinstance(s, list) else [s] for n, s in enumerate(slices)}
    looks = InMemory(frames, broken)
    instances = [Instance(Locator(path, None, None, None, ""), want_text, ("intensity_mean@1",)) for path in frames]
    return examine_group(instances, looks, pattern), looks


def covered(result, ink, frame=0):
    left = ink.copy()
    for text in result.texts:
        if text.frame_from <= frame <= text.frame_to:
            left[text.box.y0 : text.box.y1, text.box.x0 : text.box.x1] = False
    return not left.any()


def test_a_clean_series_is_clean_and_cheap():
    results, looks = examined(series())
    assert [r.verdict for r in results] == ["clean"] * 12
    assert looks.pictures == 2
    assert len(looks.read) <= 4


@pytest.mark.parametrize("dark", [False, True], ids=["bright", "dark on a banner"])
@pytest.mark.parametrize("at", [CORNER, MIDDLE], ids=["corner", "over anatomy"])
def test_text_on_every_slice_is_found_by_projection(at, dark):
    results, looks = examined([burn(s, NAME, at, dark=dark) for s in series()])
    ink = inked(SHAPE, NAME, at)
    assert all(r.verdict == "text" and covered(r, ink) for r in results)
    assert {t.rule for r in results for t in r.texts} >= {"projection"}
    assert len(looks.read) <= 4


@pytest.mark.parametrize(("where", "at"), [([7], CORNER), ([7], MIDDLE), ([3, 4], MIDDLE), ([0], MIDDLE), ([11], MIDDLE)], ids=str)
def test_text_on_few_slices_is_found_where_it_is(where, at):
    slices = series()
    for n in where:
        slices[n] = burn(slices[n], NAME, at)
    results, _ = examined(slices)
    ink = inked(SHAPE, NAME, at)
    assert [n for n in where if not (results[n].verdict == "text" and covered(results[n], ink))] == []


def test_text_on_half_of_the_series_is_found_on_all_of_that_half():
    slices = [burn(s, NAME, MIDDLE) if 4 <= n < 9 else s for n, s in enumerate(series())]
    results, _ = examined(slices)
    ink = inked(SHAPE, NAME, MIDDLE)
    assert all(covered(results[n], ink) for n in range(4, 9))


def test_text_that_changes_on_every_slice_is_covered_on_every_slice():
    texts = [f"{8012 + 37 * n} {chr(65 + n) * 3}" for n in range(12)]
    results, _ = examined([burn(s, text, MIDDLE) for s, text in zip(series(), texts, strict=True)])
    assert [n for n, text in enumerate(texts) if not covered(results[n], inked(SHAPE, text, MIDDLE))] == []


def test_a_cine_is_one_instance_and_its_one_frame_with_text_is_told():
    frames = series()
    frames[9] = burn(frames[9], NAME, MIDDLE)
    (result,), _ = examined([frames])
    assert result.frames == 12
    assert covered(result, inked(SHAPE, NAME, MIDDLE), frame=9)


def test_frame_by_frame_reads_each():
    slices = series(3)
    slices[1] = burn(slices[1], NAME, MIDDLE)
    results, looks = examined(slices, pattern=False)
    assert [r.verdict for r in results] == ["clean", "text", "clean"]
    assert {t.rule for t in results[1].texts} == {"frame"}
    assert looks.pictures == 0


def test_features_alone_read_no_text():
    results, looks = examined(series(4), want_text=False)
    assert looks.pictures == 0
    assert looks.read == []
    assert [len(r.features) for r in results] == [1] * 4


def test_one_broken_instance_leaves_the_others_their_verdict():
    results, _ = examined([burn(s, NAME, CORNER) for s in series(6)], broken={("examine", "2")})
    assert [r.verdict for r in results] == ["text"] * 2 + ["not_determined"] + ["text"] * 3
    assert results[2].reason == "undecodable"
    assert [(f.status, f.reason) for f in results[2].features] == [("failed", "undecodable")]


def test_a_frame_that_cannot_be_read_leaves_its_instance_undetermined():
    slices = series(6)
    slices[0] = burn(slices[0], NAME, CORNER)
    results, _ = examined(slices, broken={("read", "0")})
    assert results[0].verdict == "not_determined"
    assert results[0].reason == "timeout"
    assert {r.reason for r in results[1:]} == {None}
    assert results[0].features[0].status == "ok"


def test_projections_that_cannot_be_read_leave_all_undetermined():
    results, _ = examined(series(5), broken={"picture"})
    assert {(r.verdict, r.reason) for r in results} == {("not_determined", "crashed")}


def test_frames_of_another_shape_are_looked_at_apart():
    slices = series(5) + [burn(np.full((60, 120), -1000, np.int16) + np.arange(120, dtype=np.int16), NAME, (20, 8))]
    results, _ = examined(slices)
    assert [r.verdict for r in results] == ["clean"] * 5 + ["text"]


def test_places_are_unique_per_instance():
    results, _ = examined([[burn(s, NAME, MIDDLE) for s in series(5)]])
    for result in results:
        places = [(t.frame_from, t.box.x0, t.box.y0, t.box.x1, t.box.y1) for t in result.texts]
        assert len(places) == len(set(places))


def place(x=40, y=16, heat=0.8):
    return Suspect(x, y, x + 48, y + 16, heat, 16, 16)


def test_a_place_is_followed_over_frames_and_gaps():
    seen = [[], [place()], [place(x=44, heat=0.9)], [], [place()], [], [], [], [], [place()]]
    found = tracks(seen, [])
    assert [sorted(track.seen) for track in found] == [[1, 2, 4], [9]]
    assert (found[0].hottest, found[0].others_to_read(), found[0].stays()) == (2, [1, 4], True)
    assert found[0].covering([Box(30, 14, 60, 30, 0.9, "A B"), Box(35, 14, 60, 30, 0.6, "C")], SHAPE) == Box(26, 10, 96, 36, 0.9, "A B")


def test_places_of_one_frame_are_tracks_of_their_own():
    assert len(tracks([[place(), place(y=60)], [place(), place(y=60)]], [])) == 2


def test_a_place_that_changes_its_size_does_not_stay():
    (track,) = tracks([[place()], [Suspect(40, 16, 140, 32, 0.7, 16, 16)]], [])
    assert not track.stays()


def test_a_long_track_is_read_here_and_there():
    (track,) = tracks([[place()]] * 30 + [[place(heat=0.95)]] + [[place()]] * 9, [])
    assert (track.hottest, track.others_to_read()) == (30, [0, 20, 39])


def test_a_line_that_is_followed_from_something_small_is_read():
    """As seen: a line on one frame of 38 shares its place with a speck that is surer on all the others."""
    seen = {frame: Suspect(100, 20, 116, 36, 0.9 + frame / 1000, 16, 16) for frame in range(40)}
    seen[17] = Suspect(16, 16, 152, 48, 0.8, 32, 8)
    (track,) = tracks([[place] for place in seen.values()], [])
    assert len(track.seen) == 40
    assert 17 in track.others_to_read()
    assert len(track.others_to_read()) <= 4


def test_text_that_is_on_all_frames_is_not_followed():
    assert tracks([[place()]] * 3, [Box(36, 14, 90, 34)]) == []
    # What reaches beyond it is: a projection may show a part only.
    assert len(tracks([[place()]] * 3, [Box(60, 14, 90, 34)])) == 1


def test_joined_sketches_are_the_sketch_of_all():
    first, second = (sketch(np.full((20, 20), value, np.uint8)) for value in (10, 30))
    both = first.joined(second)
    assert isinstance(both, Sketch)
    assert (both.low.max(), both.high.min(), both.places) == (10, 30, ((), ()))
