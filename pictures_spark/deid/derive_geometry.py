"""Whether the frames of a series are one regular volume; the rules and tolerances are data in schemas/derive/geometry.yaml.

Pure functions over numbers of one series; they run on executors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pictures_spark.resources import load_schema

# Numbers of a grid: direction cosines of row and column, row and column spacing, rows, columns.
GRID = 10


@dataclass(frozen=True)
class Geometry:
    """The verdict on a series.

    Attributes
    ----------
    regular : whether its frames are one regular volume; None where that cannot be told.
    reason : one of vocabulary geometry_reason.
    spacing : median distance in mm between neighbouring slice positions; None where the frames are not parallel or lie in one place.
    """

    regular: bool | None
    reason: str
    spacing: float | None


def places(
    frames: int,
    position: Sequence[Sequence[float] | None],
    cosines: Sequence[Sequence[float] | None],
    spacing: Sequence[Sequence[float] | None],
    matrix: tuple[int | None, int | None],
) -> tuple[list[list[float]], list[float], int]:
    """Where the frames of one image lie: (their distinct grids, their positions one after the other, how many frames have no place).

    Parameters
    ----------
    frames : how many there are.
    position, cosines, spacing : of each frame, or one for all. mm; unit vectors; mm.
    matrix : rows and columns.
    """
    given = (position, cosines, spacing)
    if None in matrix or any(len(values) not in (1, frames) for values in given):
        return [], [], frames
    # A header may claim any number of frames; frames that all lie in one place are told by a few of them.
    count = frames if max(map(len, given)) > 1 else min(frames, load_schema("derive/geometry.yaml")["min_slices"])
    grids: dict[tuple[float, ...], None] = {}
    found: list[float] = []
    unplaced = 0
    for at, directions, steps in zip(*(values if len(values) == count else [values[0]] * count for values in given), strict=True):
        if at is None or directions is None or steps is None or (len(at), len(directions), len(steps)) != (3, 6, 2) or min(steps) <= 0:
            unplaced += 1
            continue
        grids[(*directions, *steps, float(matrix[0] or 0), float(matrix[1] or 0))] = None
        found += at
    return [list(grid) for grid in grids], found, unplaced


def geometry(grids: Iterable[Sequence[float]], positions: Iterable[Sequence[float]], unplaced: int) -> Geometry:
    """Judge a series.

    Parameters
    ----------
    grids : the distinct grids of its frames, `GRID` numbers each.
    positions : positions of its frames in mm, for each image x, y, z of one frame after the other.
    unplaced : how many frames have no position or grid.

    Examples
    --------
    >>> grid = [1, 0, 0, 0, 1, 0, 0.5, 0.5, 512, 512]
    >>> geometry([grid], [[0, 0, z] for z in (0, 3, 6)], 0), geometry([grid], [[0, 0, z] for z in (0, 3, 9)], 0).reason
    (Geometry(regular=True, reason='regular', spacing=3.0), 'gaps')
    """
    rule = load_schema("derive/geometry.yaml")
    planes = np.array([list(grid) for grid in grids], dtype=float).reshape(-1, GRID)
    at = np.fromiter(chain.from_iterable(positions), dtype=float).reshape(-1, 3)
    # Sums depend on the order in which frames come, which Spark does not promise.
    planes, at = planes[np.lexsort(planes.T[::-1])], at[np.lexsort(at.T[::-1])]
    if not len(at) or not len(planes):
        return Geometry(None, "unknown", None)
    rows, columns = planes[:, :3], planes[:, 3:6]
    lengths = np.concatenate([np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1)])
    off = rule["cosine_orthogonal"]
    orthogonal = bool(np.all(np.abs(lengths - 1) <= off) and np.all(np.abs(np.sum(rows * columns, axis=1)) <= off))
    parallel = orthogonal and bool(np.all(np.ptp(planes[:, :6], axis=0) <= rule["cosine_equal"]))
    normal = np.cross(rows[0], columns[0])
    along = np.sort(at @ normal)
    steps = np.diff(along)
    apart = steps[steps > rule["same_position_mm"]]
    spacing = round(float(np.median(apart)), rule["decimals"]) if parallel and len(apart) else None

    def reason() -> str:
        if unplaced:
            return "unknown"
        if len(at) < rule["min_slices"]:
            return "too_few"
        if not orthogonal:
            return "not_orthogonal"
        if not parallel:
            return "mixed_orientation"
        if np.any(np.ptp(planes[:, 8:], axis=0)):
            return "unequal_matrix"
        if np.any(np.ptp(planes[:, 6:8], axis=0) > rule["pixel_spacing_mm"]):
            return "unequal_pixel_spacing"
        if len(apart) < len(steps):
            return "duplicates"
        if max(np.ptp(at @ rows[0]), np.ptp(at @ columns[0])) >= rule["in_plane_mm"]:
            return "tilt"
        mean = (along[-1] - along[0]) / len(steps)
        if np.max(np.abs(steps - mean)) >= min(rule["distance_mm"], rule["distance_share"] * mean):
            return "gaps"
        return "regular"

    told = reason()
    return Geometry(None if told == "unknown" else told == "regular", told, spacing)
