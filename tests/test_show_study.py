"""Figures of studies draw the tables that they are given: same axes, intervals, verdicts in words; and tables beside them."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lab.show.study import PAPER, VERDICTS, claims_figure, dots_figure, shares_figure
from lab.study.designs import Claim, Group
from lab.study.estimates import REFUTED, SUPPORTED, UNDECIDED, Estimate, Verdict
from lab.study.results import Judged, Results
from lab.study.tables import beside_table, describe, gains_table

OURS = pd.DataFrame(
    [
        ("scratch", 0.1, 20.0, 15.0, 25.0),
        ("scratch", 1.0, 50.0, 48.0, 52.0),
        ("shipped", 0.1, 30.0, math.nan, math.nan),
    ],
    columns=["start", "share", "mAP", "low", "high"],
)
PUBLISHED = pd.DataFrame([("ImageNet sup.", 0.1, 53.1), ("LUP unsup.", 0.1, 64.6)], columns=["start", "share", "mAP"])
CLAIMS = pd.DataFrame(
    [
        ("A helps", 8.0, 4.0, 12.0, 11.5, "supported", ""),
        ("B helps", -3.0, -6.0, 0.0, math.nan, "not supported", "the gain itself is not supported"),
        ("C helps", 1.0, -60.0, 60.0, 0.5, "not decided", ""),
        ("D helps", 2.0, math.nan, math.nan, math.nan, "not decided", ""),
    ],
    columns=["claim", "effect", "low", "high", "published", "verdict", "note"],
)
DOTS = pd.DataFrame(
    [("a", 40.0, 35.0, 45.0, 0.0, 0.0, 0.0), ("b", 42.0, 36.0, 48.0, 2.0, -1.0, 5.0)],
    columns=["start", "mAP", "low", "high", "difference", "difference_low", "difference_high"],
)


def error_bars(axes, vertical=False) -> list[np.ndarray]:
    """Ends of each interval that is drawn, low and high."""
    segments = [segment for bars in axes.containers for segment in bars.lines[2][0].get_segments()]
    return [segment[:, 1 if vertical else 0] for segment in segments]


def dots_of(axes, colour) -> list[tuple[float, float]]:
    """Where markers of a colour stand."""
    lines = [line for line in axes.get_lines() if line.get_marker() not in ("None", "", "|", "_")]
    return [tuple(map(float, point)) for line in lines if to_hex(line.get_color()) == colour.lower()
            for point in line.get_xydata() if not np.isnan(point).any()]  # fmt: skip


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def nothing_is_cut(figure) -> bool:
    """All that is drawn lies inside the figure."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_shares_stand_beside_the_published_ones_on_the_same_axes():
    figure = shares_figure(OURS, PUBLISHED, "images", "The question?", "here: people")
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim() == (0, 100)
    assert words(left) == ["ImageNet sup.", "LUP unsup."]
    assert words(right) == ["scratch", "shipped"]
    assert "Market-1501" in left.get_title(loc="left")
    assert right.get_title(loc="left") == "here: people"
    assert left.get_xlabel() == right.get_xlabel() == "labelled images used (%)"
    assert figure.get_suptitle() == "The question?"
    assert [list(line.get_ydata()) for line in left.get_lines()] == [[53.1], [64.6]]
    assert nothing_is_cut(figure)


def test_shares_have_their_intervals_and_starts_stand_a_little_side_by_side():
    right = shares_figure(OURS, PUBLISHED).axes[1]
    ends = sorted(tuple(one) for one in error_bars(right, vertical=True))
    assert ends == [(15, 25), (30, 30), (48, 52)]  # one seed has no interval
    scratch, shipped = (bars.lines[0] for bars in right.containers)
    assert scratch.get_xdata()[0] < 10 < shipped.get_xdata()[0]
    assert scratch.get_xdata() == pytest.approx([10, 100], abs=2)
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in (scratch, shipped)}) == 2


def test_dots_show_means_and_differences_to_the_first_beside_the_published_ones():
    figure = dots_figure(DOTS, {"a": 0.0, "b": 0.8, "not here": 3.0}, "Which?")
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a", "b"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first is above
    assert [tuple(one) for one in error_bars(left)] == [(35, 45), (36, 48)]
    assert [tuple(one) for one in error_bars(right)] == [(0, 0), (-1, 5)]
    assert [x for x, _ in dots_of(right, PAPER)] == [0, 0.8]
    assert [round(y) for _, y in dots_of(right, PAPER)] == [0, 1]
    assert right.get_xlabel() == "points of mAP more than a"
    assert "published" in words(right)
    assert nothing_is_cut(figure)
    assert "published" not in words(dots_figure(DOTS, {}).axes[1])


def test_claims_have_their_verdict_in_words_colour_and_marker():
    figure = claims_figure(CLAIMS, "Claims of a study with quite a long question for a title, is it not?")
    (axes,) = figure.axes
    said = {text.get_position()[1]: text for text in axes.texts}
    assert said.pop(1.3).get_text() == "the gain itself is not supported"
    assert [said[row].get_text() for row in range(4)] == list(CLAIMS["verdict"])
    for row, claim in enumerate(CLAIMS.itertuples()):
        colour, marker = VERDICTS[claim.verdict]
        assert said[row].get_color() == colour
        assert (claim.effect, row) in dots_of(axes, colour)
        assert marker in {line.get_marker() for line in axes.get_lines() if line.get_color() == colour}
    assert len({marker for _, marker in VERDICTS.values()}) == len(VERDICTS)
    assert set(VERDICTS) == {SUPPORTED, REFUTED, UNDECIDED}
    assert PAPER not in {colour for colour, _ in VERDICTS.values()}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(CLAIMS["claim"])
    assert nothing_is_cut(figure)


def test_claims_have_intervals_and_published_effects():
    (axes,) = claims_figure(CLAIMS).axes
    assert [tuple(one) for one in error_bars(axes)][:2] == [(4, 12), (-6, 0)]
    assert [x for x, _ in dots_of(axes, PAPER)] == [11.5, 0.5]
    assert words(axes) == ["published"]
    assert claims_figure(CLAIMS.assign(published=math.nan)).axes[0].get_legend() is None


def test_an_interval_far_beyond_all_effects_ends_in_arrows_and_one_seed_has_none():
    (axes,) = claims_figure(CLAIMS).axes
    far = 3 * 11.5
    *_, long, none = error_bars(axes)
    assert tuple(long) == (-far, far)
    assert tuple(none) == (2, 2)
    arrows = {
        line.get_marker(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() in ("<", ">")
    }
    assert arrows == {"<": [[-far, 2]], ">": [[far, 2]]}


def test_a_long_claim_is_folded_into_even_lines():
    claim = (
        "A very long sentence about starts that help at 10 % of the identities, and of the images as well, in-domain"
    )
    (axes,) = claims_figure(CLAIMS.assign(claim=claim)).axes
    lines = axes.get_yticklabels()[0].get_text().split("\n")
    assert " ".join(lines) == claim
    assert len(lines) == 2
    assert max(map(len, lines)) <= 60


def judged(word, needed, seeds=3, published=()) -> Judged:
    low, high = (0.01, 0.05) if seeds > 1 else (math.nan, math.nan)
    found = Estimate(0.03, low, high, 0.02, 0.01, 5.0, seeds, 40)
    verdict = Verdict(word, needed)
    return Judged(Claim("key", "It helps", ((1.0, Group("scratch")),), published), found, verdict, verdict, 0.95)


def test_a_claim_is_described_in_a_sentence_that_may_be_quoted():
    paper = (
        (1.0, ("market1501", "small-scale", 0.1, "LUP unsup.")),
        (-1.0, ("market1501", "small-scale", 0.1, "ImageNet sup.")),
    )
    assert describe(judged(SUPPORTED, None, published=paper)) == (
        "It helps: supported. +3.0 points of mAP, interval +1.0 to +5.0 (3 seeds); published +11.5."
    )
    assert describe(judged(UNDECIDED, 7)).endswith("(3 seeds). 7 seeds would decide it, if all else stayed.")
    assert describe(judged(UNDECIDED, math.inf)).endswith("More seeds alone would not decide it.")
    assert describe(judged(UNDECIDED, math.nan, seeds=1)) == (
        "It helps: not decided. +3.0 points of mAP (1 seed). Two or more seeds would decide it, if all else stayed."
    )


def results(gain: float, domains=()) -> Results:
    """Two people with one and three queries, two seeds; `shipped` is better by `gain` everywhere."""
    rows, people = [], {"pid": [1, 2], "queries": [1, 3]}
    for start, more in (("scratch", 0.0), ("shipped", gain)):
        for share in (0.1, 1.0):
            for seed in (0, 1):
                about = {"start": start, "share": share, "of": "ids", "seed": seed, "rerank": False}
                column = f"{start}-{share}-{seed}"
                people[column] = [0.2 + more, 3 * (0.2 + more)]
                rows.append({"cell": column, **about, "mAP": 0.2 + more, "column": column, "steps": 5})
    return Results(
        pd.DataFrame(rows), pd.DataFrame(people), {"weights": ["shipped"], "seeds": 2, "domains": list(domains)}
    )


def test_gains_stand_beside_the_published_ones():
    found = results(0.1)
    table = gains_table(found, found.studies["small-scale"]).set_index(["start", "share"])
    assert list(table.index) == [("shipped", 0.1), ("shipped", 1.0)]
    assert table["gain"].tolist() == pytest.approx([10, 10])
    assert table["published"].tolist() == pytest.approx([64.6 - 53.1, 91.0 - 87.5])
    assert table["seeds"].tolist() == [2, 2]


def test_claims_of_several_data_sets_stand_beside_each_other():
    table = beside_table({"one": results(0.1), "two": results(-0.1, ["in-domain"])})
    first = table[table["claim"] == "Starting from shipped beats random weights at 10 % of the identities"]
    assert list(first.index) == [first.index[0], first.index[0] + 1]  # one below the other
    assert first["data"].tolist() == ["one", "two"]
    assert first["effect"].tolist() == pytest.approx([10, -10])
    assert first["verdict"].tolist() == [SUPPORTED, REFUTED]
    assert list(table.columns[:3]) == ["study", "claim", "data"]
