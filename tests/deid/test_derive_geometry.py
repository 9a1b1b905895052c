"""The geometry verdict against a reference that was written apart: affine index fits and pairs instead of sorted projections."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pictures_spark.deid.derive_geometry import GRID, geometry, places
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary

RULE = load_schema("derive/geometry.yaml")
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def grid(cosines=AXIAL, spacing=(0.5, 0.5), matrix=(512, 512)):
    return [*cosines, *spacing, *map(float, matrix)]


def stack(*zs, x=0.0):
    return [[x * i, 0.0, z] for i, z in enumerate(zs)]


@pytest.mark.parametrize(
    ("grids", "positions", "unplaced", "expected"),
    [
        ([grid()], stack(0, 3, 6, 9), 0, (True, "regular", 3.0)),
        ([grid()], stack(9, 0, 6, 3), 0, (True, "regular", 3.0)),
        ([grid()], stack(0, 3, 6, 9.15), 0, (True, "regular", 3.0)),  # a rounded table position
        ([grid()], stack(0, 3, 6, 12), 0, (False, "gaps", 3.0)),
        ([grid()], stack(0, 0.3, 0.6, 0.75), 0, (False, "gaps", 0.3)),  # 0.15 mm is much where slices are 0.3 mm apart
        ([grid()], stack(0, 3, 3, 6), 0, (False, "duplicates", 3.0)),
        ([grid()], stack(0, 0, 0, 0), 0, (False, "duplicates", None)),
        ([grid()], stack(0, 3, 6, 9, x=0.5), 0, (False, "tilt", 3.0)),
        ([grid()], stack(0, 3), 0, (False, "too_few", 3.0)),
        ([grid(), grid([0, 1, 0, 0, 0, -1])], stack(0, 3, 6), 0, (False, "mixed_orientation", None)),
        ([grid(), grid([-1, 0, 0, 0, -1, 0])], stack(0, 3, 6), 0, (False, "mixed_orientation", None)),
        ([grid(), grid([1, 0, 0, 0, 1, 0.0004])], stack(0, 3, 6), 0, (True, "regular", 3.0)),  # rounding
        ([grid([1, 0, 0, 0.1, 1, 0])], stack(0, 3, 6), 0, (False, "not_orthogonal", None)),
        ([grid([0] * 6)], stack(0, 3, 6), 0, (False, "not_orthogonal", None)),
        ([grid(), grid(spacing=(0.5, 0.6))], stack(0, 3, 6), 0, (False, "unequal_pixel_spacing", 3.0)),
        ([grid(), grid(matrix=(256, 512))], stack(0, 3, 6), 0, (False, "unequal_matrix", 3.0)),
        ([grid()], stack(0, 3, 6), 1, (None, "unknown", 3.0)),
        ([], [], 5, (None, "unknown", None)),
        ([], [], 0, (None, "unknown", None)),
    ],
)
def test_verdicts(grids, positions, unplaced, expected):
    found = geometry(grids, positions, unplaced)
    assert (found.regular, found.reason, found.spacing) == expected


def test_every_reason_is_declared():
    assert set(RULE["reasons"]) == set(vocabulary("geometry_reason"))


def reference(grids, positions, unplaced):
    """(reason, how far from its threshold the nearest test was, as a share); the rules of schemas/derive/geometry.yaml in other words."""
    margin = math.inf

    def beyond(value, limit):
        nonlocal margin
        margin = min(margin, abs(value - limit) / limit)
        return value > limit

    if unplaced or not positions:
        return "unknown", margin
    if len(positions) < RULE["min_slices"]:
        return "too_few", margin
    # The Gram matrix of orthonormal vectors is the identity.
    for one in grids:
        axes = np.reshape(one[:6], (2, 3))
        gram = axes @ axes.T
        lengths = np.sqrt(np.diag(gram))
        if any(
            [beyond(abs(length - 1), RULE["cosine_orthogonal"]) for length in lengths]
            + [beyond(abs(gram[0, 1]), RULE["cosine_orthogonal"])]
        ):
            return "not_orthogonal", margin
    for one, other in itertools.combinations(grids, 2):
        if beyond(max(abs(a - b) for a, b in zip(one[:6], other[:6], strict=True)), RULE["cosine_equal"]):
            return "mixed_orientation", margin
    if len({tuple(one[8:]) for one in grids}) > 1:
        return "unequal_matrix", margin
    for one, other in itertools.combinations(grids, 2):
        if beyond(max(abs(one[6] - other[6]), abs(one[7] - other[7])), RULE["pixel_spacing_mm"]):
            return "unequal_pixel_spacing", margin
    # Coordinates in the frame of the image, by solving for them; rank every slice by how many lie below it.
    basis = np.column_stack([grids[0][:3], grids[0][3:6], np.cross(grids[0][:3], grids[0][3:6])])
    coordinates = np.linalg.solve(basis, np.transpose(positions)).T
    depth = coordinates[:, 2]
    if any(not beyond(abs(a - b), RULE["same_position_mm"]) for a, b in itertools.combinations(depth, 2)):
        return "duplicates", margin
    for a, b in itertools.combinations(coordinates, 2):
        if beyond(max(abs(a[0] - b[0]), abs(a[1] - b[1])), RULE["in_plane_mm"]):
            return "tilt", margin
    rank = {sum(other < value for other in depth): value for value in depth}
    mean = (rank[len(depth) - 1] - rank[0]) / (len(depth) - 1)
    limit = min(RULE["distance_mm"], RULE["distance_share"] * mean)
    if any(beyond(abs(rank[i + 1] - rank[i] - mean), limit) for i in range(len(depth) - 1)):
        return "gaps", margin
    return "regular", margin


@st.composite
def series(draw):
    """A stack in any direction, with none, one or two faults of any size."""
    yaw, pitch = draw(st.floats(-3, 3)), draw(st.floats(-1.5, 1.5))
    row = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    column = np.array([-math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)])
    normal = np.cross(row, column)
    count, distance = draw(st.integers(1, 12)), draw(st.sampled_from([0.3, 0.625, 1.0, 3.0, 10.0]))
    depths = [i * distance for i in range(count)]
    shift = [np.zeros(3) for _ in range(count)]
    grids = [[*row, *column, 0.7, 0.7, 64.0, 64.0]]
    unplaced = 0
    amount = draw(st.floats(0.0001, 3.0))
    for fault in draw(
        st.lists(st.sampled_from(["move", "same", "drop", "tilt", "turn", "skew", "spacing", "matrix", "unplaced"]), max_size=2)
    ):
        at = draw(st.integers(0, count - 1))
        match fault:
            case "move":
                depths[at] += amount
            case "same":
                depths[at] = depths[0]
            case "drop" if len(depths) > 1:
                del depths[at % len(depths)], shift[at % len(shift)]
                count = len(depths)
            case "tilt":
                shift = [amount * i * row + moved for i, moved in enumerate(shift)]
            case "turn":
                angle = amount / 100
                grids.append(
                    [
                        *(math.cos(angle) * row + math.sin(angle) * column),
                        *(math.cos(angle) * column - math.sin(angle) * row),
                        *grids[0][6:],
                    ]
                )
            case "skew":
                grids[0] = [*row, *(column + amount / 20 * row), *grids[0][6:]]
            case "spacing":
                grids.append([*grids[0][:6], 0.7 + amount / 100, 0.7, *grids[0][8:]])
            case "matrix":
                grids.append([*grids[0][:8], 64.0, 32.0])
            case "unplaced":
                unplaced = draw(st.integers(1, 3))
    origin = np.array(draw(st.tuples(*[st.floats(-500, 500)] * 3)))
    positions = [list(origin + depth * normal + moved) for depth, moved in zip(depths, shift, strict=True)]
    return grids, draw(st.permutations(positions)), unplaced


@given(series())
@hypothesis_settings(max_examples=600)
def test_the_verdict_is_that_of_the_reference(made):
    reason, margin = reference(*made)
    found = geometry(*made)
    # Two ways of rounding may differ on the threshold itself.
    if margin > 1e-6:
        assert found.reason == reason
        assert found.regular == (None if reason == "unknown" else reason == "regular")


@given(series(), st.randoms())
@hypothesis_settings(max_examples=60)
def test_the_order_of_the_frames_does_not_matter(made, random):
    grids, positions, unplaced = made
    shuffled = [list(grids), list(positions)]
    for part in shuffled:
        random.shuffle(part)
    assert geometry(*shuffled, unplaced) == geometry(grids, positions, unplaced)


@pytest.mark.parametrize(
    ("frames", "position", "cosines", "spacing", "expected"),
    [
        (1, [[0, 0, 1]], [AXIAL], [[1, 1]], (1, [0, 0, 1], 0)),
        (3, [[0, 0, 1], [0, 0, 2], [0, 0, 3]], [AXIAL], [[1, 1]], (1, [0, 0, 1, 0, 0, 2, 0, 0, 3], 0)),
        (2, [[0, 0, 1], None], [AXIAL], [[1, 1]], (1, [0, 0, 1], 1)),
        (2, [[0, 0, 1], [0, 0, 2]], [AXIAL, [0, 1, 0, 0, 0, -1]], [[1, 1]], (2, [0, 0, 1, 0, 0, 2], 0)),
        (3, [[0, 0, 1], [0, 0, 2]], [AXIAL], [[1, 1]], (0, [], 3)),  # which frame has which?
        (1, [], [AXIAL], [[1, 1]], (0, [], 1)),
        (1, [[0, 0]], [AXIAL], [[1, 1]], (0, [], 1)),
        (1, [[0, 0, 1]], [AXIAL], [[0, 1]], (0, [], 1)),
        (10**12, [[0, 0, 1]], [AXIAL], [[1, 1]], (1, [0, 0, 1] * 3, 0)),  # what a header claims costs nothing
    ],
)
def test_places_of_frames(frames, position, cosines, spacing, expected):
    grids, found, unplaced = places(frames, position, cosines, spacing, (8, 8))
    assert (len(grids), found, unplaced) == expected
    assert all(len(one) == GRID for one in grids)


def test_a_frame_without_a_matrix_has_no_place():
    assert places(2, [[0, 0, 1]], [AXIAL], [[1, 1]], (None, 8)) == ([], [], 2)


def test_generated_series_meet_every_reason():
    """The differential test is worth what its series are."""
    met = set()

    @given(series())
    @hypothesis_settings(max_examples=2000, database=None)
    def draw(made):
        met.add(reference(*made)[0])

    draw()
    assert met == set(vocabulary("geometry_reason"))
