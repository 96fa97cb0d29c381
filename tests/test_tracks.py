"""Tracklets by overlap: hand-worked walks, and every assignment against trying all of them."""

from itertools import permutations

import numpy as np
import pytest

from lab.data.video.detections import Boxes
from lab.data.video.tracks import assign, iou, iou_tracks


def walk(*rows: tuple[int, float]) -> Boxes:
    """Boxes of 10 x 30 pixels from rows (frame, x)."""
    frame, x = np.array(rows, dtype=float).reshape(-1, 2).T
    box = np.stack([x, x * 0, x * 0 + 10, x * 0 + 30], axis=1)
    return Boxes(frame.astype(np.int64), box, np.ones(len(x)), np.full(len(x), -1), {})


def slow_iou(a, b) -> float:
    """Counted on a grid of quarter pixels, for boxes whose corners lie on it."""
    grid = np.arange(-10, 40, 0.25)
    inside = [((grid >= x) & (grid < x + w))[None] & ((grid >= y) & (grid < y + h))[:, None] for x, y, w, h in (a, b)]
    return (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()


def test_overlap_is_what_counting_little_squares_gives():
    draw = np.random.default_rng(0)
    a, b = (np.hstack([draw.integers(0, 40, (6, 2)), draw.integers(1, 60, (6, 2))]) / 4 for _ in range(2))
    found = iou(a, b)
    assert found.shape == (6, 6)
    assert 0 < (found > 0).sum() < 36
    np.testing.assert_allclose(found, [[slow_iou(p, q) for q in b] for p in a])


def test_boxes_without_area_overlap_nothing():
    assert iou(np.array([[1.0, 1, 0, 0]]), np.array([[1.0, 1, 0, 0], [0, 0, 5, 5]])).tolist() == [[0, 0]]


@pytest.mark.parametrize("seed", range(30))
def test_the_assignment_is_the_best_of_all(seed):
    draw = np.random.default_rng(seed)
    rows, columns = draw.integers(0, 5, 2).tolist()
    overlap = draw.random((rows, columns)) * (draw.random((rows, columns)) < 0.7)
    row, column = assign(overlap, 0.3)
    assert len(set(row)) == len(row)
    assert len(set(column)) == len(column)
    assert (overlap[row, column] >= 0.3).all()
    wide = np.zeros((rows, columns + rows))  # so that every row may also stay alone
    wide[:, :columns] = np.where(overlap >= 0.3, overlap, 0)
    best = max(sum(wide[i, c] for i, c in enumerate(choice)) for choice in permutations(range(columns + rows), rows))
    assert overlap[row, column].sum() == pytest.approx(best)


def test_a_pair_below_the_limit_does_not_push_a_good_one_aside():
    overlap = np.array([[0.5, 0.29], [0.29, 0.0]])  # both pairs of 0.29 together would be more than 0.5
    assert [pairs.tolist() for pairs in assign(overlap, 0.3)] == [[0], [0]]


def test_two_people_who_pass_far_apart_keep_their_numbers():
    boxes = walk(*((f, x) for f in range(1, 11) for x in (100 + 3 * f, 10 + 3 * f)))
    assert iou_tracks(boxes).tolist() == [0, 1] * 10


def test_order_within_a_frame_does_not_matter():
    boxes = walk((1, 0), (1, 50), (2, 51), (2, 1), (3, 2), (3, 52))
    assert iou_tracks(boxes).tolist() == [0, 1, 1, 0, 0, 1]


def test_who_leaves_and_comes_back_elsewhere_is_somebody_new():
    assert iou_tracks(walk((1, 0), (2, 1), (3, 80), (4, 81), (5, 2))).tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(("returns", "expected"), [(5, [0, 0, 0]), (6, [0, 0, 1])])
def test_a_tracklet_ends_after_a_gap(returns, expected):
    """Seen in frame 2; with max_gap 3 it may be missed in 3 and 4, and not in 3, 4 and 5."""
    assert iou_tracks(walk((1, 0), (2, 0), (returns, 0)), max_gap=3).tolist() == expected


def test_the_gap_counts_what_the_detector_saw():
    """The same walk, detected in every tenth frame."""
    boxes = walk((1, 0), (11, 0), (41, 0), (81, 0))
    assert iou_tracks(boxes, max_gap=3).tolist() == [0, 0, 0, 1]


def test_the_better_overlap_wins_and_the_other_is_new():
    assert iou_tracks(walk((1, 0), (2, 4), (2, 1))).tolist() == [0, 1, 0]


def test_only_the_last_box_of_a_tracklet_goes_on():
    assert iou_tracks(walk((1, 0), (2, 4), (3, 4), (3, 0))).tolist() == [0, 0, 0, 1]


def test_one_frame_and_none():
    assert iou_tracks(walk((7, 0), (7, 30))).tolist() == [0, 1]
    assert iou_tracks(walk()).tolist() == []


def test_people_who_stay_apart_are_found_again_whatever_the_frames_between():
    """Standing people at places 40 pixels apart, seen at random times, jittered: the place is the identity."""
    draw = np.random.default_rng(1)
    seen = [(f, p) for f in range(1, 200) for p in draw.permutation(5) if draw.random() < 0.8]
    boxes = walk(*((f, 40 * p + draw.uniform(-2, 2)) for f, p in seen))
    track, place = iou_tracks(boxes, max_gap=30), np.array([p for _, p in seen])
    assert len(set(zip(track, place, strict=True))) == 5
