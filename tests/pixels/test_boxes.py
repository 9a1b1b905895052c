"""Covered areas against counting pixel by pixel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.pixels.boxes import covered

SIDE = st.integers(0, 7)


def made(numbers):
    first, last, x0, x1, y0, y1 = numbers
    return min(first, last), max(first, last), min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


@given(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE, SIDE, SIDE).map(made), max_size=6))
def test_covered_is_what_one_counts(boxes):
    frames = np.zeros((8, 8, 8), bool)
    for first, last, x0, y0, x1, y1 in boxes:
        frames[first : last + 1, y0:y1, x0:x1] = True
    assert covered(boxes) == frames.sum()
