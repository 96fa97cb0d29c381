"""What the metrics read off a rank list, drawn: precision at every hit, and precision against recall for both kinds of AP.

matplotlib Figures in the look of `figures`; colours never stand alone. Legend: n entries of a rank list, m right ones
among them, Q queries.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.show.axes import INCHES, TILE, draw_tile, head, label, write
from lab.show.figures import CROSS, JUNK, QUERY, RIGHT, TICK, TILE_HEIGHT, WRONG


def precision_figure(
    match: Sequence[bool],
    images: Sequence[np.ndarray | None],
    query_image: np.ndarray | None = None,
    removed: Sequence[bool] | None = None,
    captions: Sequence[str] | None = None,
    ap: float | None = None,
    title: str = "",
) -> Figure:
    """A rank list (n entries, nearest first) and below it the precision so far at every rank; right entries are dots.

    `removed` entries, which the protocol leaves out, are grey and get no rank. `captions` stand below the crops, and `ap`
    (0..1), the mean of the dots if all right entries are shown, is a line.
    """
    match = np.asarray(match, bool)
    removed = np.zeros(len(match), bool) if removed is None else np.asarray(removed, bool)
    left, width = -1.55, len(match) + 0.6
    strip, panel, top = 0.95 * TILE_HEIGHT + 1.0, 2.9, 0.55  # in tile widths
    height = top + strip + panel + 0.75
    figure = Figure(figsize=(INCHES * (width - left), INCHES * height), dpi=100, facecolor="white")
    axes = figure.add_axes((0, (panel + 0.75) / height, 1, strip / height))
    axes.set(xlim=(left, width), ylim=(strip, 0))
    axes.set_axis_off()
    figure.text(0.1 / (width - left), 1 - 0.12 / height, title, fontsize=13, fontweight="bold", va="top")
    if query_image is not None:
        draw_tile(axes, left + 0.1, 0.42, query_image, QUERY)
        write(axes, left + 0.1 + TILE / 2, 0.38, "query", 11, QUERY, va="bottom", weight="bold")
    rank = np.where(removed, 0, np.cumsum(~removed))
    for place, image in enumerate(images):
        right, out = match[place] and not removed[place], removed[place]
        colour, symbol = (
            (JUNK, "out") if out else (RIGHT, f"{rank[place]} {TICK}") if right else (WRONG, f"{rank[place]} {CROSS}")
        )
        draw_tile(axes, place + 1 - TILE / 2, 0.42, image, colour, faded=out)
        write(axes, place + 1, 0.38, symbol, 11, colour, va="bottom", weight="bold")
        if captions is not None:
            write(axes, place + 1, 0.42 + TILE * TILE_HEIGHT + 0.06, captions[place], 10)
    below = figure.add_axes(
        ((0.4 - left) / (width - left), 0.75 / height, (width - 0.4) / (width - left), panel / height)
    )
    _draw_precision(below, match, removed, ap)
    below.set_xlim(0.4, width)
    return figure


def steps_figure(ranks: Sequence[int], length: int, ap: float | None = None, title: str = "") -> Figure:
    """The precision so far along a rank list of `length` entries with right ones at `ranks` (m,), without crops."""
    match = np.isin(np.arange(1, length + 1), ranks)
    figure = Figure(figsize=(9, 3), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    _draw_precision(axes, match, np.zeros(length, bool), ap)
    axes.set_xlim(0.4, length + 0.6)
    head(axes, title)
    return figure


def area_figure(ranks: Sequence[int], step: float, trapezoid: float, title: str = "") -> Figure:
    """Two readings of AP as areas below precision against recall, for right entries at `ranks` (m,); the APs in 0..1."""
    ranks = np.sort(np.asarray(ranks))
    count = len(ranks)
    after = np.arange(1, count + 1) / ranks
    before = np.where(ranks > 1, np.arange(count) / np.maximum(ranks - 1, 1), 1.0)
    figure = Figure(figsize=(10.5, 4), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, start, value, colour, hatch in (
        (panels[0], "step: precision at the hit", after, step, QUERY, ""),
        (panels[1], "trapezoid: from before the hit to the hit", before, trapezoid, WRONG, "//"),
    ):
        for i in range(count):
            recall = [i / count, (i + 1) / count]
            axes.fill_between(recall, [start[i], after[i]], color=colour, alpha=0.25, hatch=hatch, linewidth=0)
            axes.plot(recall, [start[i], after[i]], color=colour, linewidth=2)
        axes.plot(np.arange(1, count + 1) / count, after, "o", color=RIGHT, markersize=8, label="at a hit", zorder=3)
        axes.plot(
            np.arange(count) / count, before, "x", color=WRONG, markersize=8, mew=2, label="just before it", zorder=3
        )
        axes.set(xlim=(-0.03, 1.03), ylim=(0, 1.08))
        axes.set_title(f"{name}\narea = AP = {100 * value:.1f} %", fontsize=11.5)
        label(axes, "recall: share of the right crops found so far")
        axes.legend(fontsize=10, loc="lower left")
    label(panels[0], y="precision so far")
    return figure


def two_ap_figure(step: np.ndarray, trapezoid: np.ndarray, title: str = "") -> Figure:
    """How far the two APs (Q,) in 0..1 of the same rank lists lie apart: against AP, and as a histogram."""
    known = np.isfinite(step)
    step, gap = 100 * step[known], 100 * (trapezoid - step)[known]
    figure = Figure(figsize=(10.5, 3.8), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    left.plot(step, gap, "o", color=QUERY, markersize=5, alpha=0.5)
    left.axhline(gap.mean(), color=WRONG, linestyle="--", linewidth=2)
    left.set_xlim(-2, 102)
    label(left, "step AP of a query (%)", "trapezoid - step (points)")
    right.hist(gap, bins=25, orientation="horizontal", color=QUERY, alpha=0.5)
    right.axhline(gap.mean(), color=WRONG, linestyle="--", linewidth=2, label=f"mean {gap.mean():+.2f}")
    right.legend(fontsize=10.5, loc="lower right")
    label(right, "queries")
    return figure


def _draw_precision(axes: Axes, match: np.ndarray, removed: np.ndarray, ap: float | None) -> None:
    place, rank = 1 + np.flatnonzero(~removed), np.arange(1, (~removed).sum() + 1)
    hit = match[~removed]
    precision = np.cumsum(hit) / rank
    axes.plot(place, precision, color=JUNK, linewidth=1.5, label="precision so far", zorder=1)
    axes.vlines(place[hit], 0, precision[hit], color=RIGHT, linewidth=1.5, linestyle=":", zorder=1)
    axes.plot(place[~hit], precision[~hit], "x", color=WRONG, markersize=7, mew=2, label="at a wrong one")
    axes.plot(place[hit], precision[hit], "o", color=RIGHT, markersize=10, label="at a right one (a hit)")
    for x, y, count, at in zip(place[hit], precision[hit], np.cumsum(hit)[hit], rank[hit], strict=True):
        write(axes, x, y + 0.07, f"{count}/{at}", 10.5, RIGHT, va="bottom", weight="bold")
    if ap is not None:
        words = f"mean of the dots: AP = {100 * ap:.1f} %"
        axes.axhline(ap, color=QUERY, linestyle="--", linewidth=1.5, label=words)
    axes.set_ylim(0, 1.24)
    axes.set_yticks([0, 0.5, 1])
    ranks = np.where(removed, "", np.cumsum(~removed).astype(str))
    step = 1 if len(match) <= 25 else 5
    shown = [i for i in range(len(match)) if (i + 1) % step == 0 or i == 0]
    axes.set_xticks([i + 1 for i in shown], [ranks[i] for i in shown])
    axes.legend(fontsize=10, ncols=4, loc="upper right", frameon=False, borderaxespad=0.1, columnspacing=1.2)
    label(axes, "rank", "precision")
