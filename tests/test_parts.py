"""The parts of a distance: they sum to it, and a pair that differs in one part alone has all of it there."""

import numpy as np
import pytest

from lab.errors import InputError
from lab.evaluate.parts import part_table
from lab.finetune.mgn import HEADS


def test_the_parts_sum_to_the_distance():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.standard_normal((2, 2048)) * rng.uniform(0.1, 10, (2, 1))
        table = part_table(a.astype(np.float32), b.astype(np.float32), list(HEADS))
        a, b = (each.astype(np.float32).astype(np.float64) for each in (a, b))
        expected = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert table["adds"].sum() == pytest.approx(expected, abs=1e-12)
        assert table["share"].sum() == pytest.approx(1)
        assert (table["adds"] >= 0).all()
        assert table["part"].tolist() == list(HEADS)


def test_by_hand():
    a, b = np.array([0.6, 0.0, 0.8, 0.0]), np.array([0.6, 0.0, 0.0, 0.8])
    table = part_table(a, b, ["upper", "lower"])
    assert table["adds"].tolist() == pytest.approx([0, 0.64])  # (0.8^2 + 0.8^2) / 2; the cosine is 0.36
    assert table["share"].tolist() == pytest.approx([0, 1])
    assert table["cosine"].tolist() == pytest.approx([1, 0])


def test_equal_descriptors_and_a_part_that_is_zero():
    same = part_table(np.array([3.0, 0.0]), np.array([3.0, 0.0]), ["a", "b"])
    assert same["adds"].tolist() == [0, 0]
    assert same["share"].isna().all()
    assert np.isnan(same["cosine"][1])


@pytest.mark.parametrize(
    ("a", "b", "parts"),
    [
        (np.ones(6), np.ones(6), "abcd"),
        (np.ones(8), np.ones(4), "ab"),
        (np.ones(8), np.ones(8), ""),
        (np.zeros(8), np.ones(8), "ab"),
        (np.full(8, np.nan), np.ones(8), "ab"),
        (np.ones((2, 8)), np.ones(8), "ab"),
    ],
)
def test_what_cannot_be_cut_is_refused(a, b, parts):
    with pytest.raises(InputError, match="expected"):
        part_table(a, b, list(parts))
