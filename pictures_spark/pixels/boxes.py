"""Areas that boxes cover. Pure."""

import itertools
from collections.abc import Iterable

# frame_from, frame_to (last one included), then x0, y0, x1, y1 with the last two exclusive: as table pixel_text has them.
Run = tuple[int, int, int, int, int, int]


def covered(boxes: Iterable[Run]) -> int:
    """How many pixels of how many frames lie in at least one box.

    Examples
    --------
    >>> covered([(0, 1, 0, 0, 4, 2), (1, 1, 2, 0, 6, 2)])
    20
    """
    every = sorted(set(boxes))
    cuts = sorted({cut for first, last, *_ in every for cut in (first, last + 1)})
    total = 0
    for start, end in itertools.pairwise(cuts):
        total += (end - start) * _union([box[2:] for box in every if box[0] <= start < box[1] + 1])
    return total


def _union(boxes: list[tuple[int, ...]]) -> int:
    """Area of rectangles, strip by strip."""
    edges = sorted({x for x0, _, x1, _ in boxes for x in (x0, x1)})
    area = 0
    for left, right in itertools.pairwise(edges):
        reached = height = 0
        for top, bottom in sorted((y0, y1) for x0, y0, x1, y1 in boxes if x0 <= left < x1):
            height += max(0, bottom - max(top, reached))
            reached = max(reached, bottom)
        area += (right - left) * height
    return area
