"""Work is cut by cost, shelves are found by their UIDs, and a run's limit leaves what it leaves."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.dicom.catalogue import within_limit
from pictures_spark.dicom.inventory import locator
from pictures_spark.dicom.planning import batches, cost, latest_speed, path_of, stretches
from pictures_spark.dicom.readings import evenness
from pictures_spark.dicom.shelves import Shelves, covering
from pictures_spark.tables import spans

UIDS = st.text("0123.", min_size=1, max_size=6)
RANGES = st.lists(st.tuples(UIDS, UIDS).map(lambda pair: tuple(sorted(pair))), max_size=12)


def loads(sizes, parts):
    cut = stretches(sizes, parts)
    assert cut == sorted(cut)
    return [sum(cost(size) for size, part in zip(sizes, cut, strict=True) if part == number) for number in range(parts)]


def test_batches_hold_every_file_once_in_order():
    assert batches([5, 0, 7, 100, 1, 1, 1], 10) == [0, 0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    "sizes",
    [
        [100_000_000, *[10_000] * 1500],  # a cine and a series that cost the same
        [*[40_000] * 3000, 250_000_000],  # a container behind loose files
        [8_000] * 200_000,  # one folder of very many
        [0] * 1000,  # nothing but openings
    ],
)
def test_slices_of_a_batch_are_neighbours_of_equal_cost(sizes):
    found = loads(sizes, 2)
    assert max(found) / min(found) < 1.5
    many = loads(sizes, 8)
    # No slice is larger than its share by more than the one file that cannot be cut.
    assert max(many) <= sum(many) / 8 + max(map(cost, sizes))


def test_few_files_are_few_slices():
    assert set(stretches([1] * 10, 4)) == {0, 1, 2, 3}
    assert stretches([], 3) == []


@given(st.text(st.characters(exclude_characters="\0"), max_size=12), st.one_of(st.none(), st.text(max_size=5)))
def test_a_locator_names_its_file(path, member):
    assert path_of(locator(path, member)) == path


@given(RANGES, st.integers(1, 6))
def test_ranges_cover_what_they_are_made_of(ranges, limit):
    found = covering(ranges, limit)
    assert len(found) <= limit
    assert found == sorted(found)
    assert all(before[1] < after[0] for before, after in pairwise(found))
    assert all(any(first <= one[0] and one[1] <= last for first, last in found) for one in ranges)


@given(st.dictionaries(st.integers(0, 5), RANGES), RANGES)
def test_no_shelf_that_may_hold_a_uid_is_left_out(shelves, wanted):
    index = Shelves((shelf, *one) for shelf, ranges in shelves.items() for one in ranges)
    by_hand = {s for s, ranges in shelves.items() for a, b in ranges for c, d in wanted if a <= d and c <= b}
    assert index.find(wanted) == sorted(by_hand)


def test_a_device_that_counts_upwards_meets_its_own_last_shelves_only():
    def day(number):
        return [(f"1.2.840.{device}.201506{number:02}01", f"1.2.840.{device}.201506{number:02}99") for device in range(100, 300)]

    index = Shelves((number, *one) for number in range(1, 29) for one in covering(day(number)))
    assert index.find(day(28)) == [28]
    assert index.find([("1.2.840.150.20150630", "1.2.840.150.20150631")]) == []


@given(st.sets(st.integers(0, 60), max_size=20), st.integers(1, 5))
def test_spans_hold_all_numbers(numbers, limit):
    found = spans(numbers, limit)
    assert len(found) <= limit
    assert all(any(first <= n <= last for first, last in found) for n in numbers)
    if len(numbers) <= limit:
        assert {n for first, last in found for n in range(first, last + 1)} == numbers


def test_a_limit_counts_files_to_read():
    rows = [{"change": "new", "path": "a"}, {"change": "changed", "path": "b"}, {"change": "vanished", "path": "c"}]
    assert within_limit(rows, None) == (rows, [])
    assert within_limit(rows, 2) == (rows, [])
    assert within_limit(rows, 1) == ([rows[0], rows[2]], [rows[1]])


def test_evenness_of_tasks():
    told = evenness([(1.0, 10, 100), (3.0, 10, 300), (1.0, 5, 90)])
    assert told["task_skew"] == 3.0
    assert (told["task_bytes_max"], told["task_bytes_median"], told["reading_tasks"]) == (300, 100, 3)
    assert evenness([]) == {}


def test_speed_is_that_of_the_last_run_that_read_something(tmp_path):
    def report(run_id, ended, **rates):
        (tmp_path / f"catalogue-{run_id}.json").write_text(json.dumps({"run_id": run_id, "ended": ended, "rates": rates}))

    assert latest_speed(tmp_path / "nowhere", "catalogue") is None
    report("a", "2026-01-01T00:00:00", cost_bytes_per_second=1e6)
    report("b", "2026-01-02T00:00:00", cost_bytes_per_second=2e6)
    report("c", "2026-01-03T00:00:00")
    (tmp_path / "catalogue-d.json").write_text("cut of")
    assert latest_speed(tmp_path, "catalogue") == (2e6, "b")
