"""Where text is in an 8-bit frame: PP-OCRv4 through rapidocr-onnxruntime, one thread, with the rules of schemas/pixels/text.yaml.

Pure but for the models, which are loaded once per process; runs in the supervised child.
"""

from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    from rapidocr_onnxruntime.main import RapidOCR


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle with text, in pixels of the frame; right and bottom edges exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    score: float = 0.0
    text: str = ""

    def covers(self, other: "Box") -> bool:
        """Whether another box lies inside this one."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and self.x1 >= other.x1 and self.y1 >= other.y1


def rules() -> dict[str, Any]:
    """The thresholds of the detector."""
    loaded: dict[str, Any] = load_schema("pixels/text.yaml")
    return loaded


def engine_version() -> str:
    """Names the detector, its version and that of its thresholds; another value means that images are examined again."""
    return f"rapidocr-onnxruntime {version('rapidocr-onnxruntime')} + text rules {rules()['version']}"


@cache
def engine() -> "RapidOCR":
    """The models, loaded on first use (0.4 s)."""
    import cv2
    from rapidocr_onnxruntime.main import RapidOCR

    # One core per child: parallelism is Spark's.
    cv2.setNumThreads(1)
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)


def find_text(frame8: np.ndarray) -> list[Box]:
    """Boxes of text in an 8-bit frame, sorted; blanking a box removes its text.

    Parameters
    ----------
    frame8 : (rows, columns) grey or (rows, columns, 3) RGB, uint8; see `pictures_spark.pixels.window.to_8bit`.
    """
    rule = rules()
    rows, columns = frame8.shape[:2]
    # The models were trained on BGR.
    colour = np.ascontiguousarray(np.repeat(frame8[:, :, None], 3, axis=2) if frame8.ndim == 2 else frame8[:, :, ::-1])
    models = engine()
    proposed = _detected(models, colour, rule["detector"])
    if not any(_has_shape_of_text(box, rows, rule["box"]) for box in proposed):
        return []
    read, _ = models.text_rec(models.get_crop_img_list(colour, proposed))
    lines: list[tuple[np.ndarray, str, float]] = []
    others: list[tuple[np.ndarray, str, float]] = []
    for box, (text, score) in zip(proposed, read, strict=True):
        sure = score >= rule["reading"]["min_score"] and len(text.strip()) >= rule["reading"]["min_characters"]
        (lines if sure and _has_shape_of_text(box, rows, rule["box"]) else others).append((box, text, score))
    others = [other for other in others if any(_belongs_to(other[0], line[0], rule["companion"]) for line in lines)]
    return sorted(
        replace(_grown(box, rows, columns, rule["box"]), score=round(float(score), 4), text=text) for box, text, score in lines + others
    )


def _detected(models: "RapidOCR", colour: np.ndarray, rule: dict[str, Any]) -> list[np.ndarray]:
    """Corner points (4, 2) of every line of text that the detector proposes, clockwise from the top left."""
    import cv2
    from rapidocr_onnxruntime.ch_ppocr_det.utils import DetPreProcess

    rows, columns = colour.shape[:2]
    shrink = min(1.0, rule["max_side"] / max(rows, columns))
    # What is thinner than the network's stride cannot be scaled; what is that small cannot hold text either.
    if min(rows, columns) * shrink < rules()["box"]["min_height"]:
        return []
    image = colour if shrink == 1.0 else cv2.resize(colour, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    short, long = min(image.shape[:2]), max(image.shape[:2])
    # Bringing the short side of a strip to min_side would let its long side grow without bound.
    side = min(rule["min_side"], int(short * min(rule["max_upscale"], rule["max_side"] / long)))
    ready = DetPreProcess(max(side, 32), "min")(image)
    if ready is None:
        return []
    output = models.text_det.infer(ready)[0]
    boxes, _ = models.text_det.postprocess_op(output, (rows, columns))
    return [models.text_det.order_points_clockwise(box).astype(np.float32) for box in boxes]


def _has_shape_of_text(box: np.ndarray, rows: int, rule: dict[str, Any]) -> bool:
    """Whether the sides are those of a horizontal line of text of at least a few letters."""
    width = float(np.linalg.norm(box[0] - box[1]))
    height = float(np.linalg.norm(box[0] - box[3]))
    highest = max(rule["max_height"], rule["max_height_share"] * rows)
    return rule["min_height"] <= height <= highest and width >= rule["min_aspect"] * height and width >= rule["min_width"]


def _belongs_to(box: np.ndarray, line: np.ndarray, rule: dict[str, float]) -> bool:
    """Whether a box is part of the text around a line that was read."""
    height, other = (float(np.linalg.norm(corners[0] - corners[3])) for corners in (line, box))
    if not height / rule["height_factor"] <= other <= height * rule["height_factor"]:
        return False
    gaps = np.maximum(0, np.maximum(line.min(axis=0) - box.max(axis=0), box.min(axis=0) - line.max(axis=0)))
    return bool(gaps.max() <= rule["gap_heights"] * height)


def _grown(box: np.ndarray, rows: int, columns: int, rule: dict[str, Any]) -> Box:
    """The upright rectangle around a detected one, with the margin of the rules, inside the frame."""
    height = float(np.linalg.norm(box[0] - box[3]))
    margin = np.array([max(rule["pad"], rule["pad_share_along"] * height), max(rule["pad"], rule["pad_share_across"] * height)])
    x0, y0 = np.floor(box.min(axis=0) - margin).astype(int)
    x1, y1 = np.ceil(box.max(axis=0) + 1 + margin).astype(int)
    return Box(max(0, int(x0)), max(0, int(y0)), min(columns, int(x1)), min(rows, int(y1)))
