"""Cosine and Euclidean distance of unit features, drawn as angles and chords of a circle; a matplotlib Figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lab.show.axes import head, write
from lab.show.figures import JUNK, QUERY, RIGHT, WRONG


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
    head(axes, title)
    return figure


def _apart(angles: np.ndarray, least: float = 0.15) -> np.ndarray:
    """Angles for the labels of points on a circle: those of the points, or as much further on as keeps labels apart."""
    placed = np.array(angles)
    for side in (1, -1):
        before = 0.0
        for i in sorted(np.flatnonzero(np.sign(angles) == side), key=lambda i: abs(angles[i])):
            before = max(abs(angles[i]), before + least)
            placed[i] = side * before
    return placed
