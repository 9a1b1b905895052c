"""One group of instances -> their features and their verdict on text. Pure but for the `Looks` it is given; runs in executors.

A group is either *frame by frame* (each frame is read) or a *pattern*: frames of one shape and series, of which the projections are read,
and then what they do not explain (`pictures_spark.pixels.pattern`). A text found in a projection holds for every frame of the group, a text
found in one frame for all the frames on which something like it is at that place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pictures_spark.pixels import features as measures
from pictures_spark.pixels.examine import NOTHING, READ, SKETCH, WHOLE, Examined, Locator, Looks
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import Feature
from pictures_spark.pixels.pattern import Sketch, Track, tracks
from pictures_spark.pixels.planes import PIXEL
from pictures_spark.pixels.text import Box, rules
from pictures_spark.pixels.words import kind_of

CLEAN, TEXT, NOT_DETERMINED = "clean", "text", "not_determined"
# Which way of looking found a text: the frame itself was read, a projection of its group, or a place that was followed over frames.
FRAME, PROJECTION, TRACK = "frame", "projection", "track"
# One request reads at most so many frames, so that a long cine does not use up the time limit of one image.
_FRAMES_PER_REQUEST = 4


@dataclass(frozen=True)
class Instance:
    """What is to be done for one instance; ``whole``: frames are read throughout, as screens are, and not only where text is suspected."""

    locator: Locator
    want_text: bool
    want_features: tuple[str, ...]
    whole: bool = False


@dataclass(frozen=True)
class Found:
    """A text, the plane it is in, and the frames of its instance that it covers, last one included."""

    frame_from: int
    frame_to: int
    box: Box
    rule: str
    plane: str = PIXEL


@dataclass
class Result:
    """What is known of one instance; ``reason`` and ``detail`` where something failed."""

    frames: int = 0
    features: list[Feature] = field(default_factory=list)
    texts: list[Found] = field(default_factory=list)
    readings: int = 0
    reason: str | None = None
    detail: str | None = None

    @property
    def kind(self) -> str:
        """What it is a picture of, as far as its text tells."""
        return kind_of([found.box.text for found in self.texts])

    @property
    def verdict(self) -> str:
        """The verdict on text: what could not be read through is never clean."""
        if self.reason is not None:
            return NOT_DETERMINED
        return TEXT if self.texts else CLEAN

    def fail(self, fault: PixelFault) -> None:
        """Note the first fault."""
        if self.reason is None:
            self.reason, self.detail = fault.reason, fault.detail


def examine_group(instances: Sequence[Instance], looks: Looks, pattern: bool) -> list[Result]:
    """Examine a group; one result per instance, in the same order, whatever fails.

    Parameters
    ----------
    instances : in the order in which they were acquired.
    pattern : whether text is read by projections.
    """
    results = [Result() for _ in instances]
    sketches: list[tuple[int, Sketch]] = []
    for number, (instance, result) in enumerate(zip(instances, results, strict=True)):
        text = NOTHING if not instance.want_text else SKETCH if pattern else WHOLE if instance.whole else READ
        try:
            found = looks.examine(instance.locator, instance.want_features, text)
        except PixelFault as fault:
            result.fail(fault)
            result.features = [measures.failed(name, fault.reason) for name in instance.want_features]
            continue
        result.frames, result.features = found.frame_count, found.features
        _take_in(found, result)
        if found.sketch is not None:
            sketches.append((number, found.sketch))
    # The header's shape may not be the decoded one (colour or grey): what cannot be laid on top of each other is looked at apart.
    for shape in sorted({sketch.shape for _, sketch in sketches}):
        same = [(number, sketch) for number, sketch in sketches if sketch.shape == shape]
        _read_pattern([(instances[n], results[n]) for n, _ in same], [sketch for _, sketch in same], looks)
    for result in results:
        result.texts = _distinct(result.texts)
    return results


def _take_in(found: Examined, result: Result) -> None:
    """Boxes of frames that were read one by one."""
    result.readings += len(found.boxes)
    result.texts += [Found(frame, frame, box, FRAME) for frame, boxes in enumerate(found.boxes) for box in boxes]
    result.texts += [Found(one.frame_from, one.frame_to, one.box, FRAME, one.plane) for one in found.beside]


def _read_pattern(members: list[tuple[Instance, Result]], sketches: list[Sketch], looks: Looks) -> None:
    """Read the projections of a group, then places in frames that the projections' text does not explain."""
    low, high = sketches[0].low, sketches[0].high
    for other in sketches[1:]:
        low, high = np.minimum(low, other.low), np.maximum(high, other.high)
    # Where each frame of the group is: its member, and its number within that.
    frames = [(member, frame) for member, sketch in enumerate(sketches) for frame in range(len(sketch.places))]
    try:
        constant = looks.read_picture(low) + ([] if np.array_equal(low, high) else looks.read_picture(high))
    except PixelFault as fault:
        for _, result in members:
            result.fail(fault)
        return
    members[0][1].readings += 2
    for _, result in members:
        result.texts += [Found(0, result.frames - 1, box, PROJECTION) for box in constant]
    found = tracks([places for sketch in sketches for places in sketch.places], constant)
    read: list[list[Box]] = [[] for _ in found]
    _read_tracks(members, frames, [(n, [track.hottest]) for n, track in enumerate(found)], found, read, looks)
    unsure = [n for n, track in enumerate(found) if not read[n] or not track.stays()]
    _read_tracks(members, frames, [(n, found[n].others_to_read()) for n in unsure], found, read, looks)
    beyond = rules()["tracks"]["beyond"]
    for number, track in enumerate(found):
        if not read[number]:
            continue
        box = track.covering(read[number], low.shape)
        for at in range(max(0, track.first - beyond), min(len(frames), track.last + beyond + 1)):
            member, frame = frames[at]
            members[member][1].texts.append(Found(frame, frame, box, TRACK))


def _read_tracks(
    members: list[tuple[Instance, Result]],
    frames: list[tuple[int, int]],
    ask: list[tuple[int, list[int]]],
    found: list[Track],
    read: list[list[Box]],
    looks: Looks,
) -> None:
    """Read tracks (by number) on some of their frames, into ``read``; a frame that fails leaves its instance undetermined."""
    wanted: dict[int, dict[int, list[int]]] = {}
    for number, ats in ask:
        for at in ats:
            member, frame = frames[at]
            wanted.setdefault(member, {}).setdefault(frame, []).append(number)
    starts = {member: at for at, (member, frame) in reversed(list(enumerate(frames))) if frame == 0}
    for member, by_frame in wanted.items():
        instance, result = members[member]
        numbers = sorted(by_frame)
        for start in range(0, len(numbers), _FRAMES_PER_REQUEST):
            part = numbers[start : start + _FRAMES_PER_REQUEST]
            places = {frame: [found[number].seen[starts[member] + frame] for number in by_frame[frame]] for frame in part}
            try:
                boxes = looks.read_frames(instance.locator, places)
            except PixelFault as fault:
                result.fail(fault)
                break
            result.readings += len(part)
            for frame in part:
                for number, place in zip(by_frame[frame], places[frame], strict=True):
                    read[number] += [box for box in boxes[frame] if box.touches(place)]


def _distinct(texts: list[Found]) -> list[Found]:
    """One row per place: equal boxes on consecutive frames join, and of equal rectangles the best read stays."""
    joined: list[Found] = []
    for found in sorted(texts, key=lambda t: (t.plane, *t.box.sides, t.frame_from, t.frame_to, -t.box.score, t.rule, t.box.text)):
        last = joined[-1] if joined else None
        if last is not None and _place(last) == _place(found) and found.frame_from <= last.frame_to + 1:
            best = last if last.box.score >= found.box.score else found
            joined[-1] = replace(best, frame_from=last.frame_from, frame_to=max(last.frame_to, found.frame_to))
        else:
            joined.append(found)
    return sorted(joined, key=lambda t: (t.frame_from, t.plane, t.box, t.frame_to))


def _place(found: Found) -> tuple[str, int, int, int, int]:
    return found.plane, *found.box.sides
