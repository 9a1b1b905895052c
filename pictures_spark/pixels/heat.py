"""Where text may be in an 8-bit frame: a small network shipped with the schemas, schemas/pixels/text_heat.onnx; its card lies beside it.

The first stage of the detector, at some 10 ms for a frame of 512 x 512: it lets few lines pass unseen and points at some things that are
none. Pure but for the model, which is loaded once per process; runs in the supervised child.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from pictures_spark.resources import load_schema, schemas_dir

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# The network's answer is for blocks of so many pixels.
CELL = 8


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


@cache
def network() -> "InferenceSession":
    """The model, loaded on first use."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return InferenceSession((schemas_dir() / "pixels" / "text_heat.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])


def suspects(frame8: np.ndarray) -> list[Suspect]:
    """Rectangles of a frame that may hold text, sorted.

    Parameters
    ----------
    frame8 : (rows, columns) grey or (rows, columns, 3) RGB, uint8.
    """
    rule = load_schema("pixels/text.yaml")["heat"]
    found: list[Suspect] = []
    for plane in _planes(frame8):
        scale = 1.0
        if min(plane.shape) < rule["enlarged_below"]:
            plane, scale = cv2.resize(plane, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR), 0.5
        while True:
            found += _blocks(_heat(plane), scale, rule, frame8.shape[:2])
            if min(plane.shape) < rule["least_side"] or 2 * scale not in rule["hot"]:
                break
            # Letters higher than some 45 pixels are seen in the frame at half its size, and again at a quarter.
            plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
            scale *= 2
    return sorted(set(found))


def second_look(part: np.ndarray, line: int) -> float:
    """The surest block's chance in a part of a frame, enlarged or reduced until its line is of the height that the network knows best.

    Letters grow clearer by it, most other things that look like letters at one scale do not at another.

    Parameters
    ----------
    line : about the height of a line in it; see `Suspect`.
    """
    factor = load_schema("pixels/text.yaml")["heat"]["best_line"] / max(line, 12)
    sides = max(CELL, round(part.shape[1] * factor)), max(CELL, round(part.shape[0] * factor))
    return max(float(_heat(cv2.resize(plane, sides, interpolation=cv2.INTER_LINEAR)).max()) / 255 for plane in _planes(part))


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


def _planes(frame8: np.ndarray) -> list[np.ndarray]:
    """Grey pictures in which the text of a frame is visible: of colours, the brightest channel, the darkest, and luma where they differ."""
    if frame8.ndim == 2:
        return [frame8]
    low, high = frame8.min(axis=2), frame8.max(axis=2)
    return [high] if np.array_equal(low, high) else [high, low, cv2.cvtColor(frame8, cv2.COLOR_RGB2GRAY)]


def _heat(plane: np.ndarray) -> np.ndarray:
    """The network's answer: (block rows, block columns) uint8."""
    rows, columns = (-size % CELL for size in plane.shape)
    padded = np.pad(plane, ((0, rows), (0, columns)), mode="edge") if rows or columns else np.ascontiguousarray(plane)
    answer: np.ndarray = network().run(["heat"], {"frame": padded[None, None]})[0][0, 0]
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
