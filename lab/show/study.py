"""Studies as pictures: means with their error bars beside the published ones on the same axes, and claims with verdicts.

matplotlib Figures in the look of `figures`; colours never stand alone. Tables come from `lab.study.tables`, in points.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab.show.axes import head, label, write
from lab.show.curves import LINE_COLOURS
from lab.show.figures import JUNK, RIGHT, WRONG
from lab.show.lines import DASHES, MARKERS

VERDICTS = {"supported": (RIGHT, "o"), "not supported": (WRONG, "X"), "not decided": (JUNK, "s")}
PAPER = "#CC79A7"  # Okabe and Ito's purple, which no start has
NAME_WIDTH = 60  # letters of a claim on a line


def shares_figure(ours: pd.DataFrame, published: pd.DataFrame, what: str = "identities", title: str = "") -> Figure:
    """mAP against the share of labels: published (left) and ours with 95 % intervals, on the same axes.

    Both have columns start, share (0..1) and mAP, ours low and high too, all in per cent.
    """
    figure = Figure(figsize=(11, 4.6), dpi=100, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, table, name in ((left, published, "LUPerson, as published: Market-1501"), (right, ours, "here")):
        for number, (start, line) in enumerate(table.groupby("start", sort=False)):
            line = line.sort_values("share")
            number += 3 * (axes is right)  # other colours: these are other starting points
            style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
            style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 7, "linewidth": 2.2, "label": start}
            places = 100 * line["share"] + 0.6 * (number - 4) * (axes is right)  # so that error bars stand side by side
            if axes is left:
                axes.plot(places, line["mAP"], **style)
            else:
                axes.errorbar(places, line["mAP"], _reach(line, "mAP"), capsize=4, elinewidth=1.6, **style)
        axes.set(xlim=(0, 105), ylim=(0, 100))
        axes.grid(color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(fontsize=10.5)
        label(axes, f"labelled {what} used (%)", "mAP (%)")
        head(axes, name)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left", parse_math=False)
    return figure


def dots_figure(ours: pd.DataFrame, published: dict[str, float], title: str = "") -> Figure:
    """mAP of each starting point with its 95 % interval (left), and what each differs by from the first (right).

    `ours` has start, mAP, low, high, difference, difference_low, difference_high; `published` has the differences of the
    published figures, by start, on the same axis.
    """
    names = list(ours["start"])
    figure = Figure(figsize=(11, 0.5 * len(names) + 2), dpi=100, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    style = {"fmt": "o", "color": LINE_COLOURS[0], "markersize": 8, "capsize": 4, "elinewidth": 2}
    left.errorbar(ours["mAP"], rows, xerr=_reach(ours, "mAP"), **style)
    right.axvline(0, color=JUNK, linestyle="--", linewidth=1.5)
    right.errorbar(ours["difference"], rows, xerr=_reach(ours, "difference", "difference_"), label="here", **style)
    if published:
        places = [names.index(start) for start in published]
        right.plot(list(published.values()), places, "D", color=PAPER, markersize=9, label="published", zorder=3)
        right.legend(fontsize=10.5)
    left.set_xlim(left=0)
    for axes in (left, right):
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set_yticks(rows, names)
    left.set_ylim(len(names) - 0.5, -0.5)
    label(left, "mAP (%) with 95 % interval")
    label(right, f"points of mAP more than {names[0]}")
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left", parse_math=False)
    return figure


def claims_figure(claims: pd.DataFrame, title: str = "") -> Figure:
    """Each claim's effect with its interval, coloured and marked by its verdict, and the published effect beside it.

    Columns claim, effect, low, high, published (NaN without one), verdict; in points of mAP.
    """
    figure = Figure(figsize=(11, 0.62 * len(claims) + 1.9), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=JUNK, linestyle="--", linewidth=1.5)
    for row, claim in enumerate(claims.itertuples()):
        colour, marker = VERDICTS[claim.verdict]
        reach = [[claim.effect - claim.low], [claim.high - claim.effect]]
        axes.errorbar(claim.effect, row, xerr=reach, fmt=marker, color=colour, markersize=9, capsize=5, elinewidth=2.2)
        axes.plot(claim.published, row - 0.27, "D", color=PAPER, markersize=8)
    spread = claims[["effect", "low", "high", "published"]].to_numpy(float)
    low, high = min(0.0, np.nanmin(spread)), max(0.0, np.nanmax(spread))
    room = 0.08 * (high - low) or 1.0
    axes.set(xlim=(low - room, high + 4.5 * room), ylim=(len(claims) - 0.4, -0.7))
    for row, claim in enumerate(claims.itertuples()):
        write(axes, high + 0.6 * room, row, claim.verdict, 10.5, VERDICTS[claim.verdict][0], "left", "center", "bold")
    if claims["published"].notna().any():
        axes.plot([], [], "D", color=PAPER, markersize=8, label="published")
        axes.legend(fontsize=10.5, loc="lower right")
    axes.set_yticks(range(len(claims)), [textwrap.fill(claim, NAME_WIDTH) for claim in claims["claim"]])
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    label(axes, "effect (points of mAP); bars: intervals that all hold together at 95 %")
    head(axes, title)
    return figure


def _reach(table: pd.DataFrame, column: str, prefix: str = "") -> np.ndarray:
    """How far error bars reach below and above (2, N); 0 where one seed gives none."""
    reach = np.stack([table[column] - table[f"{prefix}low"], table[f"{prefix}high"] - table[column]])
    return np.nan_to_num(reach)
