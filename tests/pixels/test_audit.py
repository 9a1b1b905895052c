"""What an audit of clean verdicts tells: strata, upper bounds, sheets."""

import numpy as np
import pytest

from pictures_spark.pixels.audit import sheet, strata, tile, upper_bound


@pytest.mark.parametrize("count", [30, 100, 1000, 3000])
def test_nothing_seen_among_n_bounds_the_rate_by_three_in_n(count):
    assert 2.8 / count < upper_bound(0, count) < 3 / count


@pytest.mark.parametrize(("hits", "of", "bound"), [(1, 10, 0.394), (3, 100, 0.0757), (10, 10, 1.0)])
def test_bounds_are_those_of_the_binomial_distribution(hits, of, bound):
    assert upper_bound(hits, of) == pytest.approx(bound, abs=5e-4)


def test_images_are_counted_by_modality_and_maker():
    rows = [
        {"modality": modality, "manufacturer": maker, "text_seen": seen}
        for modality, maker, seen in [("CT", "X", "no"), ("CT", "X", " Yes "), ("CT", "Y", "no"), ("MR", "X", "NO")]
    ]
    assert strata(rows) == [("CT", "X", 1, 2), ("CT", "Y", 0, 1), ("MR", "X", 0, 1)]


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (4000, 100), (64, 64, 3)])
def test_tiles_are_of_one_size_whatever_they_show(shape):
    low, high = np.zeros(shape, np.uint8), np.full(shape, 200, np.uint8)
    assert tile(low, low, 1).shape == tile(low, high, 20).shape == tile(high, high, 3).shape
    assert tile(low, high, 1).max() > 100


def test_a_sheet_holds_all_its_tiles():
    tiles = [np.full((10, 8), number, np.uint8) for number in range(7)]
    made = sheet(tiles)
    assert made.shape == (20, 40)
    assert set(np.unique(made)) == set(range(7))
