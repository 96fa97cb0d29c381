"""Studies as pictures: means with their error bars beside the published ones on the same axes, and claims with verdicts.

matplotlib Figures in the look of `figures`; colours never stand alone. Tables come from `lab.study.tables`, in points.
"""

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.show.axes import head, label
from lab.show.curves import LINE_COLOURS
from lab.show.figures import JUNK, RIGHT, WRONG
from lab.show.lines import DASHES, MARKERS

VERDICTS = {"supported": (RIGHT, "o"), "not supported": (WRONG, "X"), "not decided": (JUNK, "s")}
PAPER = "#CC79A7"  # Okabe and Ito's purple, which no verdict has
NAME_WIDTH = 60  # letters of a claim on a line
ASIDE = 1.1  # per cent of labels from one start to the next, so that their error bars stand side by side
FAR = 3  # an interval is drawn up to so many times the largest effect, then with an arrow


def shares_figure(
    ours: pd.DataFrame, published: pd.DataFrame, what: str = "identities", title: str = "", where: str = "here"
) -> Figure:
    """mAP against the share of labels: published (left) and ours with 95 % intervals, on the same axes.

    Both have columns start, share (0..1) and mAP, ours low and high too, all in per cent; `where` says what ours is of.
    """
    figure = Figure(figsize=(11, 5.2), dpi=100, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, table, name in ((left, published, "LUPerson, as published: Market-1501"), (right, ours, where)):
        starts = table["start"].nunique()
        for number, (start, line) in enumerate(table.groupby("start", sort=False)):
            line = line.sort_values("share")
            aside = ASIDE * (number - (starts - 1) / 2)
            number += 3 * (axes is right)  # other colours: these are other starting points
            style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
            style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 7, "linewidth": 2.2, "label": start}
            if axes is left:
                axes.plot(100 * line["share"], line["mAP"], **style)
            else:
                reach = _reach(line["mAP"], line["low"], line["high"])
                axes.errorbar(100 * line["share"] + aside, line["mAP"], reach, capsize=4, elinewidth=1.6, **style)
        axes.set(xlim=(0, 105), ylim=(0, 100))
        axes.grid(color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        # below, where no line and no error bar can be
        axes.legend(fontsize=10.5, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
        label(axes, f"labelled {what} used (%)", "mAP (%)")
        head(axes, name)
    _title(figure, title)
    return figure


def dots_figure(ours: pd.DataFrame, published: dict[str, float], title: str = "") -> Figure:
    """mAP of each starting point with its 95 % interval (left), and what each differs by from the first (right).

    `ours` has start, mAP, low, high, difference, difference_low, difference_high; `published` has the differences of the
    published figures, by start, on the same axis. Those of starts that ours lacks are left out.
    """
    names = list(ours["start"])
    figure = Figure(figsize=(11, 0.55 * len(names) + 2.2), dpi=100, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    left.errorbar(ours["mAP"], rows, xerr=_reach(ours["mAP"], ours["low"], ours["high"]), **_bars(LINE_COLOURS[0], "o"))
    left.set_xlim(left=0)
    published = {start: value for start, value in published.items() if start in names}
    right.axvline(0, color=JUNK, linestyle="--", linewidth=1.5)
    table = ours[["difference", "difference_low", "difference_high"]].set_axis(["effect", "low", "high"], axis=1)
    far = _far([*table["effect"], *published.values()])
    for row, one in enumerate(table.itertuples()):
        _interval(right, row, one.effect, one.low, one.high, far, LINE_COLOURS[0], "o")
    right.plot([], [], "o", color=LINE_COLOURS[0], markersize=8, label="here, 95 % interval")
    if published:
        places = [names.index(start) - 0.25 for start in published]
        right.plot(list(published.values()), places, "D", color=PAPER, markersize=8, label="published")
    right.legend(fontsize=10.5, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    for axes in (left, right):
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set_yticks(rows, names)
    left.set_ylim(len(names) - 0.5, -0.6)
    label(left, "mAP (%) with 95 % interval")
    label(right, f"points of mAP more than {names[0]}")
    _title(figure, title)
    return figure


def claims_figure(claims: pd.DataFrame, title: str = "") -> Figure:
    """Each claim's effect with its interval, coloured and marked by its verdict, and the published effect beside it.

    Columns claim, effect, low, high (NaN without an interval), published (NaN without one), verdict, note; in points of mAP.
    An interval that is far longer than all effects ends in an arrow.
    """
    figure = Figure(figsize=(11, 0.62 * len(claims) + 2), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=JUNK, linestyle="--", linewidth=1.5)
    far = _far([*claims["effect"], *claims["published"]])
    for row, claim in enumerate(claims.itertuples()):
        colour, marker = VERDICTS[claim.verdict]
        _interval(axes, row, claim.effect, claim.low, claim.high, far, colour, marker)
        axes.plot(claim.published, row - 0.28, "D", color=PAPER, markersize=8)
        words = {"color": colour, "fontsize": 10.5, "fontweight": "bold", "va": "center"}
        axes.text(1.02, row, claim.verdict, transform=axes.get_yaxis_transform(), **words)
        if claim.note:
            axes.text(1.02, row + 0.3, claim.note, transform=axes.get_yaxis_transform(), fontsize=9, va="center")
    if claims["published"].notna().any():
        axes.plot([], [], "D", color=PAPER, markersize=8, label="published")
        axes.legend(fontsize=10.5, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axes.margins(x=0.06)
    axes.set_ylim(len(claims) - 0.4, -0.7)
    axes.set_yticks(range(len(claims)), [_fold(claim) for claim in claims["claim"]])
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    label(axes, "effect (points of mAP); bars: intervals that all hold together at 95 %")
    _title(figure, title)
    return figure


def _interval(
    axes: Axes, row: float, value: float, low: float, high: float, far: float, colour: str, marker: str
) -> None:
    """A value with its interval at a height, without one where the ends are NaN; beyond -far and far an arrow."""
    shown = np.clip([low, high], -far, far)
    axes.errorbar(value, row, xerr=_reach(value, *shown), **_bars(colour, marker))
    for end, place, arrow in ((low, shown[0], "<"), (high, shown[1], ">")):
        if abs(end) > far:
            axes.plot(place, row, arrow, color=colour, markersize=10)


def _bars(colour: str, marker: str) -> dict:
    return {"fmt": marker, "color": colour, "markersize": 8.5, "capsize": 5, "elinewidth": 2.2}


def _far(effects: list[float]) -> float:
    """Up to where intervals are drawn in full: at least 10 points, and well beyond the largest effect."""
    return max(10.0, FAR * float(np.nanmax(np.abs(effects))))


def _reach(value, low, high) -> np.ndarray:
    """How far an error bar reaches below and above, (2, 1) or (2, N); 0 where one seed gives none."""
    reach = [np.atleast_1d(np.asarray(value - low, float)), np.atleast_1d(np.asarray(high - value, float))]
    return np.nan_to_num(np.stack(reach))


def _fold(text: str) -> str:
    """In lines of about the same length, none longer than NAME_WIDTH if that can be."""
    lines = math.ceil(len(text) / NAME_WIDTH)
    return textwrap.fill(text, min(NAME_WIDTH, len(text) // lines + 8), break_on_hyphens=False)


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left", parse_math=False)
