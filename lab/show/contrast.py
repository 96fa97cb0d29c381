"""Contrastive learning drawn: similarities of queries and keys, who gets the gradient, the queue, and averages that lag.

Matplotlib Figures in the look of `figures`. A MoCo query is a view of a crop, not a re-ID query.
Legend: B queries, N keys, K length of the queue.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.figures import JUNK, QUERY

MANY = 40  # keys that are drawn one by one
EMPTY, FRAME, OWN = "#E6E6E6", "#D55E00", "#E69F00"


class QueueState(NamedTuple):
    """A queue after a step: `title`, what each of its K places holds, and the place that is overwritten next."""

    title: str
    contents: Sequence[str]
    pointer: int


def similarity_figure(
    similarity: np.ndarray,
    own: Sequence[int],
    queries: Sequence[np.ndarray],
    keys: Sequence[np.ndarray],
    title: str = "Similarities of queries and keys",
) -> Figure:
    """Similarities (B, N) as numbers on colours, the views beside rows and above columns; the own key has a frame.

    `own` (B,) says which column is the own key of each query, `queries` and `keys` are views (h, w, 3) uint8.
    """
    rows, columns = similarity.shape
    figure = Figure(figsize=(2.2 + 1.15 * columns, 2.0 + 1.15 * rows), dpi=100, facecolor="white")
    figure.suptitle(title, x=0.02, y=0.99, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    axes = figure.add_axes((0.2, 0.09, 0.66, 0.68 if rows > 2 else 0.5))
    colours = axes.imshow(similarity, "cividis", aspect="auto")
    middle = (similarity.max() + similarity.min()) / 2
    for row in range(rows):
        for column in range(columns):
            value, is_own = similarity[row, column], column == own[row]
            ink = "black" if value > middle else "white"
            text = f"{value:.3f}" + ("\nown key" if is_own else "")
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=12,
                      fontweight="bold" if is_own else "normal")  # fmt: skip
            for colour, width in (("white", 6), (FRAME, 3)) if is_own else ():
                frame = Rectangle(
                    (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=colour, linewidth=width
                )
                axes.add_patch(frame)
    axes.set_xticks(range(columns), [f"$k_{{{number}}}$" for number in range(columns)], fontsize=13)
    axes.set_yticks(range(rows), [f"$q_{{{number}}}$" for number in range(rows)], fontsize=13)
    axes.tick_params(length=0)
    axes.set_ylabel("view_q of each crop", fontsize=11, labelpad=50)
    axes.set_xlabel("view_k of each crop, above", fontsize=11)
    for number, picture in enumerate(queries):
        _thumbnail(axes, picture, (-0.19, 1 - (number + 0.96) / rows, 0.1, 0.92 / rows))
    for number, picture in enumerate(keys):
        _thumbnail(axes, picture, ((number + 0.3) / columns, 1.02, 0.4 / columns, 0.92 / max(rows, 3)))
    bar = figure.colorbar(colours, cax=figure.add_axes((0.88, 0.09, 0.025, 0.68 if rows > 2 else 0.5)))
    bar.set_label("cosine similarity", fontsize=11)
    bar.ax.tick_params(labelsize=10)
    return figure


def softmax_figure(
    similarity: Sequence[float],
    probabilities: Mapping[float, Sequence[float]],
    own: int = 0,
    title: str = "One query, its keys, and what the temperature makes of them",
    columns: int = 3,
) -> Figure:
    """Probabilities of N keys at some temperatures, a panel each; keys in order of similarity, the own one hatched.

    `probabilities` maps a temperature to (N,), in the order of `similarity` (N,). A bar of another key is also its share
    in the gradient: the push away from it. The panel says how many other keys get half of that push.
    """
    order = np.argsort(-np.asarray(similarity), kind="stable")
    columns = min(columns, len(probabilities))
    rows = -(-len(probabilities) // columns)
    figure = Figure(figsize=(9.6, 1.0 + 2.3 * rows), dpi=100, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in panels.flat[len(probabilities) :]:
        axes.set_axis_off()
    for axes, (temperature, values) in zip(panels.flat, probabilities.items(), strict=False):
        values = np.asarray(values, dtype=float)[order]
        place = int(np.flatnonzero(order == own)[0])
        if len(values) > MANY:
            axes.stairs(values, np.arange(len(values) + 1) - 0.5, fill=True, color=QUERY)  # one shape, drawn at once
        else:
            axes.bar(range(len(values)), values, color=QUERY)
        axes.bar([place], [values[place]], width=max(0.8, len(values) / 60), color=OWN, edgecolor="black",
                 hatch="///", label="own key")  # fmt: skip
        axes.set_title(f"temperature {temperature:g}", fontsize=12)
        axes.text(0.97, 0.93, f"own key: {values[place]:.1%}\nhalf of the push on {half_of(values, place)}\n"
                  f"of {len(values) - 1} others", transform=axes.transAxes, ha="right", va="top", fontsize=10.5)  # fmt: skip
        axes.tick_params(labelsize=10)
        axes.set_ylim(0, 1.4 * values.max())
    for axes in panels[:, 0]:
        axes.set_ylabel("probability", fontsize=11)
    for axes in panels[-1]:
        axes.set_xlabel("keys, most similar first", fontsize=11)
    panels[0, 0].legend(loc="center right", fontsize=10.5)
    return figure


def half_of(probability: np.ndarray, own: int) -> int:
    """The least number of other keys that together have half of the probability that is not the own key's."""
    others = np.sort(np.delete(np.asarray(probability, dtype=float), own))[::-1]
    return int(np.searchsorted(others.cumsum(), others.sum() / 2 * (1 - 1e-9)) + 1)


def queue_figure(states: Sequence[QueueState], title: str = "The queue, step by step") -> Figure:
    """A row for each state of a queue: its places, the new ones in colour, and an arrow to the one that is next."""
    length = len(states[0].contents)
    figure = Figure(figsize=(9.6, 0.7 + 0.85 * len(states)), dpi=100, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-2.9, length + 0.2), ylim=(len(states) + 0.15, -0.55))
    axes.set_axis_off()
    axes.text(-2.8, -0.3, title, fontsize=13, fontweight="bold", va="center", parse_math=False)
    before = list(states[0].contents)
    for row, state in enumerate(states):
        axes.text(-0.2, row + 0.3, state.title, ha="right", va="center", fontsize=11.5, parse_math=False)
        for place, content in enumerate(state.contents):
            new = content != before[place]
            axes.add_patch(Rectangle((place + 0.04, row + 0.02), 0.92, 0.56, facecolor="#BFE3F5" if new else EMPTY,
                                     edgecolor=QUERY if new else JUNK, linewidth=2.5 if new else 1))  # fmt: skip
            axes.text(place + 0.5, row + 0.3, content, ha="center", va="center", fontsize=11.5,
                      fontweight="bold" if new else "normal", parse_math=False)  # fmt: skip
        axes.text(state.pointer + 0.5, row + 0.78, "▲ next", ha="center", va="center", fontsize=10.5, color="#A63C00")
        before = list(state.contents)
    return figure


def _thumbnail(axes: Axes, picture: np.ndarray, place: tuple[float, float, float, float]) -> None:
    """A picture beside a matrix; `place` is left, bottom, width, height in shares of the matrix."""
    inset = axes.inset_axes(place)
    inset.imshow(picture)
    inset.set_axis_off()
