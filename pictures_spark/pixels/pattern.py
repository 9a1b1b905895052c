"""Text in many frames of one series, without reading each frame. Pure.

Devices write the same text on every image of a series: over all frames, the minimum shows constant bright text with the anatomy gone dark,
the maximum shows constant dark text, and the maximum also shows bright text that stands on a dark place in any single frame. What a
projection cannot show, text on some frames or another on each, is seen by the first stage (`pictures_spark.pixels.heat`), which looks at
every frame: places outside the projections' text are followed from frame to frame, and a few of each such track are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pictures_spark.pixels.heat import Sides, Suspect, overlap, suspects
from pictures_spark.pixels.text import Box, rules


@dataclass(frozen=True)
class Sketch:
    """What is kept of frames that are not read one by one.

    ``low`` and ``high`` are the minimum and maximum over the frames, 8 bit; ``places`` what the first stage saw in each frame.
    """

    low: np.ndarray
    high: np.ndarray
    places: tuple[tuple[Suspect, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self.low.shape

    def joined(self, other: "Sketch") -> "Sketch":
        """The sketch of these frames followed by others of the same shape."""
        return Sketch(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.places + other.places)


@dataclass(frozen=True)
class Track:
    """A place that is suspect on some frames of a group: ``seen`` has, by frame, what was seen there, in order."""

    seen: dict[int, Suspect]

    @property
    def first(self) -> int:
        """First frame."""
        return min(self.seen)

    @property
    def last(self) -> int:
        """Last frame."""
        return max(self.seen)

    @property
    def hottest(self) -> int:
        """The frame on which it is surest."""
        return max(self.seen, key=lambda frame: (self.seen[frame].heat, -frame))

    def others_to_read(self) -> list[int]:
        """Enough of its frames, besides the surest, to tell whether there is text on any.

        First, middle and last, and the surest of each other size and place: a line may be followed from something that is none.
        """
        frames = sorted(self.seen)
        chosen = [self.hottest]
        for frame in sorted(frames, key=lambda frame: (-self.seen[frame].heat, frame)):
            if not any(_alike(self.seen[frame], self.seen[other]) for other in chosen):
                chosen.append(frame)
        return sorted({frames[0], frames[len(frames) // 2], frames[-1], *chosen} - {self.hottest})

    def stays(self) -> bool:
        """Whether it is of one size and place on all frames, so that text read on one of them is covered on each."""
        return all(_alike(one, self.seen[self.hottest]) for one in self.seen.values())

    def covering(self, boxes: Sequence[Box], shape: tuple[int, ...]) -> Box:
        """One box, around everything seen and read of the track, with a margin; its text and score are those that read best."""
        margin = rules()["tracks"]["margin"]
        best = max(boxes, key=lambda box: (box.score, box.text))
        around: list[Sides] = [*self.seen.values(), *boxes]
        edges = list(zip(*(one.sides for one in around), strict=True))
        return Box(
            max(0, min(edges[0]) - margin),
            max(0, min(edges[1]) - margin),
            min(shape[1], max(edges[2]) + margin),
            min(shape[0], max(edges[3]) + margin),
            best.score,
            best.text,
        )


def sketch(frame8: np.ndarray) -> Sketch:
    """The sketch of one frame."""
    return Sketch(frame8, frame8, (tuple(suspects(frame8)),))


def tracks(places: Sequence[Sequence[Suspect]], constant: Sequence[Box]) -> list[Track]:
    """Follow suspect places over frames.

    Parameters
    ----------
    places : of each frame, in the order in which they were acquired.
    constant : text that is on all frames; what lies wholly in it is left out, and what reaches beyond it may be more than it shows.
    """
    rule = rules()["tracks"]
    found: list[Track] = []
    running: list[Track] = []
    for frame, of_frame in enumerate(places):
        running = [track for track in running if frame - track.last <= rule["gap"]]
        for place in of_frame:
            if any(_inside(place, box) for box in constant):
                continue
            # Compared with where the track is surest, lest it creep over the frame.
            same = next((t for t in running if frame not in t.seen and overlap(place, t.seen[t.hottest]) >= rule["same"]), None)
            if same is not None:
                same.seen[frame] = place
            else:
                track = Track({frame: place})
                running.append(track)
                found.append(track)
    return found


def _alike(a: Suspect, b: Suspect) -> bool:
    """Whether two places are of about the same size and in about the same place."""
    slack = rules()["tracks"]["slack"]
    return all(abs(one - other) <= slack for one, other in zip(a.sides, b.sides, strict=True))


def _inside(place: Suspect, box: Box) -> bool:
    return box.x0 <= place.x0 and box.y0 <= place.y0 and place.x1 <= box.x1 and place.y1 <= box.y1
