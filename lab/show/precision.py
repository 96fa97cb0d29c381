"""What the metrics read off a rank list, drawn: precision at every hit, precision against recall, distances, and budgets.

matplotlib Figures in the look of `figures`; colours never stand alone. Legend: n entries of a rank list, m right ones
among them, Q queries.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.curves import LINE_COLOURS
from lab.show.figures import CROSS, JUNK, QUERY, RIGHT, TICK, TILE_HEIGHT, WRONG

TILE = 0.9  # a tile's width, where the next one begins at 1
INCHES = 0.8  # from one tile to the next
MARKERS = ("o", "s", "D", "^", "v", "X", "P")


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
    _head(axes, title)
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
        _label(axes, "recall: share of the right crops found so far")
        axes.legend(fontsize=10, loc="lower left")
    _label(panels[0], y="precision so far")
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
    _label(left, "step AP of a query (%)", "trapezoid - step (points)")
    right.hist(gap, bins=25, orientation="horizontal", color=QUERY, alpha=0.5)
    right.axhline(gap.mean(), color=WRONG, linestyle="--", linewidth=2, label=f"mean {gap.mean():+.2f}")
    right.legend(fontsize=10.5, loc="lower right")
    _label(right, "queries")
    return figure


def circle_figure(cosines: Sequence[float], names: Sequence[str], title: str = "") -> Figure:
    """Unit features as points on a circle at their true angle to the query; one has its angle and its chord drawn.

    Only angles to the query are true: two crops at one angle may lie far from one another in more dimensions.
    """
    angles = np.arccos(np.clip(np.asarray(cosines, float), -1, 1))
    angles[np.argsort(angles)[1::2]] *= -1  # by turns to either side
    figure = Figure(figsize=(6.2, 5.4), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=JUNK, linewidth=1)
    axes.plot([0, 1], [0, 0], color=QUERY, linewidth=2)
    axes.plot(1, 0, "*", color=QUERY, markersize=18)
    write(axes, 1.08, 0, "query", 11, QUERY, ha="left", va="center", weight="bold")
    for angle, label, name in zip(angles, _apart(angles), names, strict=True):
        axes.plot([0, np.cos(angle)], [0, np.sin(angle)], color=JUNK, linewidth=1)
        axes.plot(np.cos(angle), np.sin(angle), "o", color=WRONG, markersize=8)
        x, y = 1.12 * np.cos(label), 1.12 * np.sin(label)
        write(axes, x, y, name, 10.5, ha="left" if x > -0.2 else "right", va="center")
    widest = angles[int(np.argmax(np.abs(angles)))]
    axes.plot(
        [1, np.cos(widest)],
        [0, np.sin(widest)],
        color=RIGHT,
        linewidth=2.5,
        linestyle="--",
        label="chord: Euclidean distance",
    )
    arc = np.linspace(0, widest, 50)
    axes.plot(
        0.3 * np.cos(arc), 0.3 * np.sin(arc), color=WRONG, linewidth=2.5, label="angle: cosine distance is 1 - cos"
    )
    axes.set(xlim=(-1.5, 1.75), ylim=(-1.25, 1.25), aspect="equal")
    axes.set_axis_off()
    axes.legend(fontsize=10.5, loc="lower center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    _head(axes, title)
    return figure


def memory_figure(sizes: Mapping[str, float], budget: float, title: str = "") -> Figure:
    """Gigabytes of some matrices as bars on a logarithmic scale, and the `budget` that the lab works with."""
    figure = Figure(figsize=(9.5, 0.5 * len(sizes) + 1.5), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    most = max(max(sizes.values()), budget)
    for place, size in enumerate(sizes.values()):
        axes.barh(
            place, size, color=QUERY if size <= budget else WRONG, hatch="" if size <= budget else "//", alpha=0.6
        )
        text = f"{1000 * size:.2g} MB" if size < 0.01 else f"{size:,.3g} GB" if size < 1000 else f"{size:,.0f} GB"
        write(axes, size * 1.1, place, text, 10.5, ha="left", va="center", box=True)
    axes.axvline(budget, color="black", linestyle="--", linewidth=2)
    write(axes, budget, -0.62, f" budget {budget:g} GB", 10.5, ha="left", va="bottom")
    axes.set(xscale="log", xlim=(min(min(sizes.values()), budget) / 3, most * 8), ylim=(len(sizes) - 0.4, -1.1))
    axes.set_yticks(range(len(sizes)), list(sizes))
    _label(axes, "memory of one float32 matrix (GB, logarithmic)")
    _head(axes, title)
    return figure


def bars_figure(values: Mapping[str, float], label: str = "mAP (%)", title: str = "") -> Figure:
    """Named values as horizontal bars with their numbers; the first is the reference, the others show what they differ by."""
    names, numbers = list(values), np.array(list(values.values()), float)
    figure = Figure(figsize=(9.5, 0.5 * len(names) + 1.3), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for place, value in enumerate(numbers):
        style = {"color": QUERY} if place == 0 else {"color": LINE_COLOURS[4], "hatch": "//"}
        axes.barh(place, value, alpha=0.6, **style)
        change = "" if place == 0 else f" ({value - numbers[0]:+.1f})"
        write(axes, value + 0.01 * numbers.max(), place, f"{value:.1f}{change}", 10.5, ha="left", va="center", box=True)
    axes.axvline(numbers[0], color=QUERY, linestyle="--", linewidth=1.5)
    axes.set(xlim=(0, max(100.0, 1.15 * numbers.max())) if numbers.max() > 80 else (0, 1.3 * numbers.max()))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    _label(axes, label)
    _head(axes, title)
    return figure


def lines_figure(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, title: str = "", zero: bool = False
) -> Figure:
    """Named lines (x values, y values), each with its own marker; `zero` draws the line where nothing changes."""
    figure = Figure(figsize=(8.5, 3.9), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for number, (name, (places, values)) in enumerate(lines.items()):
        style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axes.plot(places, values, label=name, linewidth=2, markersize=7, **style)
    if zero:
        axes.axhline(0, color=JUNK, linestyle="--", linewidth=1.5)
    if len(lines) > 1:
        axes.legend(fontsize=10.5)
    _label(axes, x, y)
    _head(axes, title)
    return figure


def draw_tile(axes: Axes, x: float, y: float, image: np.ndarray | None, colour: str, faded: bool = False) -> None:
    """A crop, stretched into the tile whose upper left corner is (x, y), in a frame; None is a grey tile."""
    height = TILE * TILE_HEIGHT
    if image is not None:
        box = (x, x + TILE, y + height, y)
        axes.imshow(image, extent=box, aspect="auto", interpolation="antialiased", alpha=0.35 if faded else 1)
    face = "none" if image is not None else "#E6E6E6"
    axes.add_patch(Rectangle((x, y), TILE, height, facecolor=face, edgecolor=colour, linewidth=3))


def write(axes: Axes, x, y, text, size, colour="black", ha="center", va="top", weight="normal", box=False) -> None:
    """Text that is no formula, at a place of the axes; with `box` on white."""
    style = {"color": colour, "ha": ha, "va": va, "fontweight": weight, "linespacing": 1.15}
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1} if box else None
    axes.text(x, y, text, fontsize=size, parse_math=False, bbox=white, **style)


def _apart(angles: np.ndarray, least: float = 0.15) -> np.ndarray:
    """Angles for the labels of points on a circle: those of the points, or as much further on as keeps labels apart."""
    placed = np.array(angles)
    for side in (1, -1):
        before = 0.0
        for i in sorted(np.flatnonzero(np.sign(angles) == side), key=lambda i: abs(angles[i])):
            before = max(abs(angles[i]), before + least)
            placed[i] = side * before
    return placed


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
        label = f"mean of the dots: AP = {100 * ap:.1f} %"
        axes.axhline(ap, color=QUERY, linestyle="--", linewidth=1.5, label=label)
    axes.set_ylim(0, 1.24)
    axes.set_yticks([0, 0.5, 1])
    ranks = np.where(removed, "", np.cumsum(~removed).astype(str))
    step = 1 if len(match) <= 25 else 5
    shown = [i for i in range(len(match)) if (i + 1) % step == 0 or i == 0]
    axes.set_xticks([i + 1 for i in shown], [ranks[i] for i in shown])
    axes.legend(fontsize=10, ncols=4, loc="upper right", frameon=False, borderaxespad=0.1, columnspacing=1.2)
    _label(axes, "rank", "precision")


def _label(axes: Axes, x: str = "", y: str = "") -> None:
    if x:
        axes.set_xlabel(x, fontsize=11)
    if y:
        axes.set_ylabel(y, fontsize=11)
    axes.tick_params(labelsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)


def _head(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", parse_math=False)
