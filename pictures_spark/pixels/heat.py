"""Where text may be in an 8-bit frame: two small networks shipped with the schemas, pixels/text_heat.onnx and pixels/text_look.onnx.

The first looks at whole frames, at some 5 ms for one of 512 x 512: it lets few lines pass unseen and points at some things that are none.
The second looks at these again, enlarged, and tells most of them from text. Their cards lie beside them. Pure but for the models, which are
loaded once per process; runs in the supervised child.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from pictures_spark.resources import load_schema, schemas_dir

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# The network's answer is for blocks of so many pixels.
CELL = 8
# What has one value around the content is left out in strips of a block of the last scale.
_STRIP = 32


@dataclass(frozen=True, order=True)
class Suspect:
    """A rectangle that may hold text, in pixels of the frame, edges exclusive.

    ``heat`` is the surest block's chance, 0 to 1; ``line`` is about the height of a line of it, or ``core`` where it has run together with
    something else.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    heat: float
    line: int
    core: int

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0


@dataclass(frozen=True, order=True)
class Look:
    """What the second look says of a place: the surest block's chance, 0 to 1 and how long, in lines' heights, what is hot around it is."""

    chance: float
    length: float


@cache
def network(name: str) -> "InferenceSession":
    """A model, ``text_heat`` or ``text_look``, loaded on first use."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return InferenceSession((schemas_dir() / "pixels" / f"{name}.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])


def suspects(frame8: np.ndarray, eager: float = 1.0) -> list[Suspect]:
    """Rectangles of a frame that may hold text, sorted.

    Parameters
    ----------
    frame8 : (rows, columns) grey or (rows, columns, 3) RGB, uint8.
    eager : below 1 to be shown more, by so lower thresholds ``hot``.
    """
    rule = load_schema("pixels/text.yaml")["heat"]
    rule = {**rule, "hot": {scale: eager * hot for scale, hot in rule["hot"].items()}}
    found: list[Suspect] = []
    for whole in _planes(frame8):
        top, bottom, left, right = _content(whole)
        if top >= bottom:
            continue
        plane, scale, short = whole[top:bottom, left:right], 1.0, min(whole.shape)
        shape = plane.shape
        if short < rule["enlarged_below"]:
            plane, scale, short = cv2.resize(plane, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR), 0.5, 2 * short
        while True:
            found += [_moved(place, left, top) for place in _blocks(_heat(plane), scale, rule, shape)]
            if short < rule["least_side"] or 2 * scale not in rule["hot"]:
                break
            # Letters higher than some 45 pixels are seen in the frame at half its size, and again at a quarter.
            halves = max(1, plane.shape[1] // 2), max(1, plane.shape[0] // 2)
            plane, scale, short = cv2.resize(plane, halves, interpolation=cv2.INTER_AREA), 2 * scale, short // 2
    return sorted(set(found))


def clear(part: np.ndarray) -> np.ndarray:
    """A part of a frame with its contrast stretched, by no more than a factor: faint letters are seen and read as strong ones are.

    Parameters
    ----------
    part : grey or RGB, uint8, not empty.
    """
    rule = load_schema("pixels/text.yaml")["heat"]["clear"]
    below = np.cumsum(np.bincount(part.ravel(), minlength=256))
    low, high = (int(np.searchsorted(below, below[-1] * rule[name] / 100)) for name in ("low_percentile", "high_percentile"))
    gain = min(rule["most"], 255 / max(1, high - low))
    if gain <= 1:
        return part
    table = (np.arange(256) - (low + high) / 2) * gain + 127.5
    return cv2.LUT(np.ascontiguousarray(part), np.clip(np.rint(table), 0, 255).astype(np.uint8))


def second_look(part: np.ndarray, line: int) -> Look:
    """Look again, with both networks, at a part of a frame, its line brought to the height that the second one knows.

    Letters grow clearer by it, most other things that look like letters at one scale do not at another. The chance is the mean of what the
    two say: they err on different things.

    Parameters
    ----------
    part : see `clear`.
    line : about the height of a line in it; see `Suspect`.
    """
    sides = looked_at_size(part.shape, line)
    return max(_look(cv2.resize(plane, sides, interpolation=cv2.INTER_LINEAR)) for plane in _planes(part))


def _look(plane: np.ndarray) -> Look:
    rule = load_schema("pixels/text.yaml")["heat"]
    glance = float(_heat(plane).max()) / 255
    if glance < rule["glance"]:
        return Look(glance / 2, 0.0)
    heat = _heat(plane, "text_look")
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((heat >= 255 * rule["warm"][1]).astype(np.uint8), connectivity=8)
    hottest = int(heat.argmax())
    around = boxes[labels.ravel()[hottest]]
    length = int(max(around[cv2.CC_STAT_WIDTH], around[cv2.CC_STAT_HEIGHT])) * CELL / rule["best_line"]
    return Look(round((glance + float(heat.ravel()[hottest]) / 255) / 2, 3), length if labels.ravel()[hottest] else 0.0)


def looked_at_size(shape: tuple[int, ...], line: int) -> tuple[int, int]:
    """Columns and rows to which `second_look` brings a part of a frame."""
    factor = load_schema("pixels/text.yaml")["heat"]["best_line"] / max(line, 12)
    return max(CELL, round(shape[1] * factor)), max(CELL, round(shape[0] * factor))


class Sides(Protocol):
    """Anything with four edges."""

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge."""


def overlap(a: Sides, b: Sides) -> float:
    """Area that two rectangles have in common, as a share of the smaller one."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.sides, b.sides
    common = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    return common / min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0))


def _content(plane: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row and column (edges exclusive) of a picture without the strips of one value around it, but for one of them.

    Edges lie between blocks at every scale, so that what is seen does not depend on what is left out. All 0 where there is one value only.
    """
    ends = []
    for lines in (plane, plane.T):
        starts = range(0, len(lines), _STRIP)
        before, after = _plain(lines, starts, plane[0, 0]), _plain(lines, starts[::-1], plane[-1, -1])
        if before == len(starts):
            return 0, 0, 0, 0
        ends += [max(0, before - 1) * _STRIP, min(len(lines), (len(starts) - max(0, after - 1)) * _STRIP)]
    return ends[0], ends[1], ends[2], ends[3]


def _plain(lines: np.ndarray, starts: Sequence[int], value: np.uint8) -> int:
    """How many of the strips that start there, one after the other, have this value and no other."""
    for number, start in enumerate(starts):
        if (lines[start : start + _STRIP] != value).any():
            return number
    return len(starts)


def _moved(place: Suspect, x: int, y: int) -> Suspect:
    return replace(place, x0=place.x0 + x, y0=place.y0 + y, x1=place.x1 + x, y1=place.y1 + y) if x or y else place


def _planes(frame8: np.ndarray) -> list[np.ndarray]:
    """Grey pictures in which the text of a frame is visible: of colours, the brightest channel, the darkest, and luma where they differ."""
    if frame8.ndim == 2:
        return [frame8]
    low, high = frame8.min(axis=2), frame8.max(axis=2)
    return [high] if np.array_equal(low, high) else [high, low, cv2.cvtColor(frame8, cv2.COLOR_RGB2GRAY)]


def _heat(plane: np.ndarray, name: str = "text_heat") -> np.ndarray:
    """The network's answer: (block rows, block columns) uint8."""
    rows, columns = (-size % CELL for size in plane.shape)
    padded = np.pad(plane, ((0, rows), (0, columns)), mode="edge") if rows or columns else plane
    answer: np.ndarray = network(name).run(["heat"], {"frame": np.ascontiguousarray(padded)[None, None]})[0][0, 0]
    return answer


def _blocks(heat: np.ndarray, scale: float, rule: dict[str, Any], shape: tuple[int, ...]) -> list[Suspect]:
    """Groups of neighbouring warm blocks with a hot one among them; what is too large for a line is looked at with the next threshold."""
    side, found = int(CELL * scale), []
    for y, x, tall, wide in _groups(heat, rule["warm"], rule["largest"]):
        group = heat[y : y + tall, x : x + wide]
        hottest = int(group.max())
        # One block is too little for a few letters.
        if hottest >= 255 * rule["hot"][scale] and max(tall, wide) > 1:
            ends = min(shape[1], (x + wide) * side), min(shape[0], (y + tall) * side)
            line, core = (min(size, rule["largest"]) * side for size in (min(tall, wide), _thickness(group, hottest * rule["core"])))
            found.append(Suspect(x * side, y * side, *ends, round(hottest / 255, 3), line, core))
    return found


def _thickness(group: np.ndarray, level: float) -> int:
    """Blocks across the hottest part of a group: of a line, its height, whatever else of the frame it has run together with."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((group >= level).astype(np.uint8), connectivity=8)
    core = boxes[labels.ravel()[int(group.argmax())]]
    return int(min(core[cv2.CC_STAT_WIDTH], core[cv2.CC_STAT_HEIGHT]))


def _groups(heat: np.ndarray, levels: list[float], largest: int) -> list[tuple[int, int, int, int]]:
    """Row, column, rows and columns of each group of blocks above the first level, split by the next where it is large."""
    warm = (heat >= 255 * levels[0]).astype(np.uint8)
    if not warm.any():
        return []
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(warm, connectivity=8)
    found = []
    for number in range(1, count):
        x, y, wide, tall, _ = (int(n) for n in boxes[number])
        parts = []
        if min(wide, tall) > largest and len(levels) > 1:
            mine = np.where(labels[y : y + tall, x : x + wide] == number, heat[y : y + tall, x : x + wide], 0)
            parts = _groups(mine, levels[1:], largest)
        found += [(y + row, x + column, rows, columns) for row, column, rows, columns in parts or [(0, 0, tall, wide)]]
    return found
