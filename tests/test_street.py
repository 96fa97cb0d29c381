"""The drawn street: the same bytes every time, and boxes that fit the people in it."""

from collections import Counter

import numpy as np
import pytest

from lab.data.synthetic.street import draw_street
from lab.data.video.filters import select, visible_sides
from lab.data.video.settings import BuildConfig
from lab.errors import InputError

SIZE = (216, 384)


@pytest.fixture(scope="module")
def street():
    return draw_street(frames=4, people=5, height=SIZE[0], width=SIZE[1])


def test_same_arguments_give_same_bytes(street):
    frames, boxes = draw_street(frames=4, people=5, height=SIZE[0], width=SIZE[1])
    assert all(np.array_equal(a, b) for a, b in zip(frames, street[0], strict=True))
    assert np.array_equal(boxes.box, street[1].box)
    other = draw_street(frames=1, people=5, seed=1, height=SIZE[0], width=SIZE[1])[0][0]
    assert not np.array_equal(other, frames[0])


def test_boxes_are_what_the_cutting_expects(street):
    frames, boxes = street
    assert [frame.shape for frame in frames] == [(*SIZE, 3)] * 4
    assert (np.diff(boxes.frame) >= 0).all()
    assert set(boxes.frame.tolist()) <= {1, 2, 3, 4}
    assert set(boxes.track.tolist()) <= set(range(5))
    assert ((boxes.score >= 0.3) & (boxes.score < 1)).all()
    assert (visible_sides(boxes, SIZE) > 0).all()


def test_people_are_in_their_boxes(street):
    """A frame differs from the next mostly inside the boxes of the two: there somebody moved."""
    frames, boxes = street
    moved = np.abs(frames[0].astype(int) - frames[1]).mean(axis=2)
    inside = np.zeros(SIZE, bool)
    for x, y, w, h in boxes.box[boxes.frame <= 2]:
        inside[max(int(y), 0) : int(y + h) + 1, max(int(x), 0) : int(x + w) + 1] = True
    assert moved[inside].mean() > 3 * moved[~inside].mean()


def test_the_published_filters_keep_some_and_drop_some():
    boxes = draw_street(frames=3)[1]
    kept = select(boxes, (432, 768), BuildConfig(), Counter())
    assert 5 < len(kept) < len(boxes)


def test_an_empty_street_is_refused():
    with pytest.raises(InputError, match="at least one"):
        draw_street(frames=0)
