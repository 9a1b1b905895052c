"""To 8 bit: order kept, ends used, odd types survive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pictures_spark.pixels.window import to_8bit, whole_range

TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32]


@settings(max_examples=60)
@given(
    st.sampled_from(TYPES).flatmap(
        lambda t: hnp.arrays(t, (6, 7), elements=None if t is not np.float32 else st.floats(-1e6, 1e6, width=32))
    )
)
def test_brighter_stays_at_least_as_bright_and_the_range_is_used(frame):
    grey = to_8bit(frame)
    assert grey.dtype == np.uint8
    order = np.argsort(frame, axis=None)
    assert (np.diff(grey.ravel()[order].astype(int)) >= 0).all()
    if frame.min() < frame.max():
        assert (grey.min(), grey.max()) == (0, 255)
    assert np.array_equal(to_8bit(frame, inverted=True), 255 - grey)


def test_text_above_a_bright_background_keeps_an_edge():
    frame = np.full((64, 64), 3000, np.uint16)
    frame[:, :32] = np.linspace(0, 3000, 32 * 64).reshape(64, 32)
    frame[10, 40:44] = 4095
    grey = to_8bit(frame)
    assert int(grey[10, 41]) - int(grey[30, 50]) >= 40


@pytest.mark.parametrize("frame", [np.zeros((3, 3), np.int16), np.full((2, 2), np.nan, np.float32)])
def test_a_frame_of_one_value_is_black(frame):
    assert not to_8bit(frame).any()


def test_what_is_not_finite_counts_as_lowest():
    frame = np.array([[np.nan, 1.0], [2.0, np.inf]], np.float32)
    assert to_8bit(frame).tolist() == [[0, 0], [255, 0]]


def test_colour_of_8_bit_stays_and_deeper_colour_is_scaled():
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert to_8bit(frame) is frame
    assert np.abs(to_8bit(frame.astype(np.uint16) * 256).astype(int) - frame.astype(int) * 255 / 47).max() <= 0.51


def test_text_on_something_nearly_as_bright_keeps_its_contrast_in_the_whole_range():
    frame = np.tile(np.linspace(0, 1500, 128), (128, 1)).astype(np.uint16)
    frame[20:24, 40:60] = 3000
    frame[21, 42:58] = 3600
    assert int(to_8bit(frame)[21, 50]) - int(to_8bit(frame)[20, 50]) < 15
    other = whole_range(frame)
    assert int(other[21, 50]) - int(other[20, 50]) >= 40
    assert np.array_equal(whole_range(frame, inverted=True), 255 - other)


@pytest.mark.parametrize(
    "frame", [np.arange(4096, dtype=np.uint16).reshape(64, 64), np.zeros((4, 4), np.int16), np.zeros((4, 4, 3), np.uint8)]
)
def test_the_whole_range_is_looked_at_only_where_it_adds_something(frame):
    assert whole_range(frame) is None
