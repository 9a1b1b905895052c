"""Text in many frames of one series, without reading each frame. Pure.

Devices write the same text on every image of a series: over all frames, the minimum shows constant bright text with the anatomy gone dark,
the maximum shows constant dark text, and the maximum also shows bright text that stands on a dark place in any single frame. What a
projection cannot show is told from *edge energy*: a frame in which edges appear that its neighbours lack is read by itself.
"""

from dataclasses import dataclass

import numpy as np

from pictures_spark.pixels.text import Box, rules


@dataclass(frozen=True)
class Sketch:
    """What is kept of frames that are not read one by one.

    ``low`` and ``high`` are the minimum and maximum over the frames, 8 bit; ``energy`` is (frames, block rows, block columns), float32.
    """

    low: np.ndarray
    high: np.ndarray
    energy: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self.low.shape

    def joined(self, other: "Sketch") -> "Sketch":
        """The sketch of these frames followed by others of the same shape."""
        return Sketch(
            np.minimum(self.low, other.low), np.maximum(self.high, other.high), np.concatenate([self.energy, other.energy], axis=0)
        )


def sketch(frame8: np.ndarray) -> Sketch:
    """The sketch of one frame."""
    return Sketch(frame8, frame8, edge_energy(frame8)[None])


def edge_energy(frame8: np.ndarray) -> np.ndarray:
    """Mean size of sharp grey-level steps per block of an 8-bit frame, float32; rules ``deviation`` of schemas/pixels/text.yaml."""
    rule = rules()["deviation"]
    grey = frame8.max(axis=2) if frame8.ndim == 3 else frame8
    grey = grey.astype(np.int16)
    steps = np.zeros(grey.shape, np.int16)
    steps[:, :-1] += np.abs(np.diff(grey, axis=1))
    steps[:-1] += np.abs(np.diff(grey, axis=0))
    steps[steps < rule["step"]] = 0
    starts = [np.arange(0, size, rule["block"]) for size in steps.shape]
    sums = np.add.reduceat(np.add.reduceat(steps.astype(np.float32), starts[0], axis=0), starts[1], axis=1)
    # Blocks at the edges are smaller; their sums are divided by a whole block all the same, for a sliver of a block says little.
    means: np.ndarray = sums / rule["block"] ** 2
    return means


def deviating(energy: np.ndarray) -> list[int]:
    """Frames to be read by themselves: the first, the last, and those in which edges appear that their neighbours lack.

    Parameters
    ----------
    energy : (frames, block rows, block columns), frames in the order in which they were acquired.
    """
    rule = rules()["deviation"]
    count = len(energy)
    if count == 0:
        return []
    found = {0, count - 1}
    for frame in range(count):
        before = energy[max(0, frame - rule["neighbours"]) : frame]
        after = energy[frame + 1 : frame + 1 + rule["neighbours"]]
        sides = [np.median(side, axis=0) for side in (before, after) if len(side)]
        if not sides:
            continue
        usual = np.min(sides, axis=0)
        excess = _pairs(energy[frame]) - (rule["excess"] + (1 + rule["excess_share"]) * _pairs(usual))
        if (excess > 0).any():
            found.add(frame)
    return sorted(found)


def run_of(box: Box, frame: int, energy: np.ndarray) -> tuple[int, int]:
    """First and last frame of the run around ``frame`` in which a box keeps its edges, so that its text may still be there."""
    rule = rules()["deviation"]
    block = rule["block"]
    inside = energy[:, box.y0 // block : -(-box.y1 // block), box.x0 // block : -(-box.x1 // block)].sum(axis=(1, 2))
    enough = inside >= rule["run_share"] * inside[frame]
    first = last = frame
    while first > 0 and enough[first - 1]:
        first -= 1
    while last + 1 < len(energy) and enough[last + 1]:
        last += 1
    return first, last


def _pairs(energy: np.ndarray) -> np.ndarray:
    """Means of horizontally adjacent blocks: text is longer than high."""
    if energy.shape[-1] < 2:
        return energy
    return (energy[..., :-1] + energy[..., 1:]) / 2
