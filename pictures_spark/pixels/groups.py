"""One group of instances -> their features and their verdict on text. Pure but for the `Looks` it is given; runs in executors.

A group is either *frame by frame* (each frame is read) or a *pattern*: frames of one shape and series, of which the projections, the first,
the last and every deviating frame are read (`pictures_spark.pixels.pattern`). A text found in a projection holds for every frame of the
group, a text found in one frame for the run of frames around it that keep its edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pictures_spark.pixels import features as measures
from pictures_spark.pixels.examine import NOTHING, READ, SKETCH, Examined, Locator, Looks
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import Feature
from pictures_spark.pixels.pattern import Sketch, deviating, run_of
from pictures_spark.pixels.text import Box

CLEAN, TEXT, NOT_DETERMINED = "clean", "text", "not_determined"
# Which way of looking found a text: the frame itself was read, a projection of its group, or a neighbouring frame.
FRAME, PROJECTION, RUN = "frame", "projection", "run"
# One request reads at most so many frames, so that a long cine does not use up the time limit of one image.
_FRAMES_PER_REQUEST = 4


@dataclass(frozen=True)
class Instance:
    """What is to be done for one instance."""

    locator: Locator
    want_text: bool
    want_features: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """A text and the frames of its instance that it covers, last one included."""

    frame_from: int
    frame_to: int
    box: Box
    rule: str


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
        text = NOTHING if not instance.want_text else SKETCH if pattern else READ
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


def _read_pattern(members: list[tuple[Instance, Result]], sketches: list[Sketch], looks: Looks) -> None:
    """Read the projections of a group, then the frames that may show what projections do not."""
    low, high = sketches[0].low, sketches[0].high
    for other in sketches[1:]:
        low, high = np.minimum(low, other.low), np.maximum(high, other.high)
    energy = np.concatenate([sketch.energy for sketch in sketches])
    # Where each frame of the group is: its member, and its number within that.
    places = [(member, frame) for member, sketch in enumerate(sketches) for frame in range(len(sketch.energy))]
    try:
        constant = looks.read_picture(low) + ([] if np.array_equal(low, high) else looks.read_picture(high))
    except PixelFault as fault:
        for _, result in members:
            result.fail(fault)
        return
    members[0][1].readings += 2
    for _, result in members:
        result.texts += [Found(0, result.frames - 1, box, PROJECTION) for box in constant]
    for at, boxes in _read_apart(members, places, deviating(energy), looks):
        for box in boxes:
            if any(known.covers(box) for known in constant):
                continue
            first, last = run_of(box, at, energy)
            for place in range(first, last + 1):
                member, frame = places[place]
                members[member][1].texts.append(Found(frame, frame, box, FRAME if place == at else RUN))


def _read_apart(
    members: list[tuple[Instance, Result]], places: list[tuple[int, int]], wanted: list[int], looks: Looks
) -> list[tuple[int, list[Box]]]:
    """Boxes of certain frames of a group; a frame that fails leaves its instance undetermined."""
    by_member: dict[int, list[int]] = {}
    for at in wanted:
        by_member.setdefault(places[at][0], []).append(at)
    read = []
    for member, ats in by_member.items():
        instance, result = members[member]
        for start in range(0, len(ats), _FRAMES_PER_REQUEST):
            part = ats[start : start + _FRAMES_PER_REQUEST]
            try:
                boxes = looks.read_frames(instance.locator, [places[at][1] for at in part])
            except PixelFault as fault:
                result.fail(fault)
                break
            result.readings += len(part)
            read += list(zip(part, boxes, strict=True))
    return read


def _distinct(texts: list[Found]) -> list[Found]:
    """One row per place: equal boxes on consecutive frames join, and of equal rectangles the best read stays."""
    joined: list[Found] = []
    for found in sorted(
        texts, key=lambda t: (t.box.x0, t.box.y0, t.box.x1, t.box.y1, t.frame_from, t.frame_to, -t.box.score, t.rule, t.box.text)
    ):
        last = joined[-1] if joined else None
        if last is not None and _place(last) == _place(found) and found.frame_from <= last.frame_to + 1:
            best = last if last.box.score >= found.box.score else found
            joined[-1] = replace(best, frame_from=last.frame_from, frame_to=max(last.frame_to, found.frame_to))
        else:
            joined.append(found)
    return sorted(joined, key=lambda t: (t.frame_from, t.box, t.frame_to))


def _place(found: Found) -> tuple[int, int, int, int]:
    return found.box.x0, found.box.y0, found.box.x1, found.box.y1
