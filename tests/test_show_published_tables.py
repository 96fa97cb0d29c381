"""The figure of published results: the paper's lines are the table's, and ours have axes of their own."""

import pandas as pd
import pytest

from lab.published import published_results
from lab.show import published_tables


def test_published_lines_are_the_papers_and_ours_stand_apart():
    ours = pd.DataFrame({"start": ["scratch", "scratch"], "ratio": [1.0, 0.1], "mAP": [40.0, 20.0]})
    figure = published_tables.published_figure(published_results(), ours, our_data="drawn people")
    lines = {line.name: line for line in figure.data}
    assert dict(zip(lines["LUP unsup."].x, lines["LUP unsup."].y, strict=True)) == pytest.approx(
        {10: 64.6, 30: 81.9, 50: 85.8, 70: 88.8, 90: 90.5, 100: 91.0}
    )
    assert list(lines["ImageNet sup."].y)[-1] == 87.5
    assert list(lines["scratch"].x) == [10, 100]
    assert lines["scratch"].xaxis != lines["LUP unsup."].xaxis
    assert len({line.marker.symbol for line in figure.data}) == len(figure.data)
