"""Tables of error rates, by hand."""

import pandas as pd
import pytest
from test_thresholds import made_up

from lab.evaluate.thresholds import decide
from lab.show.error_tables import decision_table, operating_table, percent

FOUND = made_up({10: 30, 30: 10}, {20: 100, 40: 900})


def test_decision_has_a_row_for_either_kind_of_pair():
    table = decision_table(decide(FOUND, 25 / 256))
    expected = {
        "pairs of": ["same person", "two persons"], "accepted": [30, 100], "accepted %": [75.0, 10.0],
        "refused": [10, 900], "refused %": [25.0, 90.0],
    }  # fmt: skip
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected))


def test_operating_points_of_several_runs():
    table = operating_table({"a": FOUND, "b": made_up({50: 10}, {20: 10})}, 0.05)
    assert table["run"].tolist() == ["a", "b"]
    assert table["TPR (%)"].tolist() == pytest.approx([75, 0])
    assert table["FPR (%)"].tolist() == pytest.approx([0, 0])
    assert table["threshold"].iloc[0] == pytest.approx(11 / 256)
    assert table["equal error (%)"].tolist() == pytest.approx([100 * FOUND.eer, 100])


@pytest.mark.parametrize(
    ("value", "words"),
    [(85.19, "85.2 %"), (0, "0.0 %"), (100, "100.0 %"), (0.0042, "0.004 %"), (99.996, "99.996 %"), (0.05, "0.05 %")],
)
def test_small_and_large_shares_are_told_from_none_and_all(value, words):
    assert percent(value) == words
