"""What the losses of fine-tuning look at: cosines to class directions, margins, and the pairs that mining picks.

Legend: B crops, C training people.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.curves import LINE_COLOURS
from lab.show.figures import JUNK, RIGHT, WRONG

NUMBERS = 16  # columns up to which cells have their number written in
Images = Sequence[np.ndarray | None]


def class_cosines_figure(
    cosine: np.ndarray, images: Images, names: Sequence[str], people: Sequence[object], title: str = ""
) -> Figure:
    """How much each crop points the way of each training person: cosines (B, C) as colours and numbers.

    A row begins with its crop and its name; `people` (C,) name the columns.
    """
    figure, axes = _matrix(np.asarray(cosine), images, names, title, -1, 1, "{:.2f}", "cosine")
    if len(people) <= 2 * NUMBERS:
        axes.set_xticks(range(len(people)), [str(person) for person in people], fontsize=10)
    axes.set_xlabel("training person (pid) whose class direction it is compared with", fontsize=11)
    return figure


def mining_figure(
    distance: np.ndarray,
    images: Images,
    names: Sequence[str],
    positive: Sequence[int],
    negative: Sequence[int],
    title: str = "Batch-hard mining",
) -> Figure:
    """Distances (B, B) of the crops of a batch; in each row the hardest positive (+) and negative (-) have a frame.

    `positive` and `negative` (B,) are columns: of the farthest crop of the same person, and of the nearest one of others.
    """
    distance = np.asarray(distance)
    figure, axes = _matrix(distance, images, names, title, 0, float(distance.max()), "{:.1f}", "distance")
    marks = ((positive, RIGHT, "solid", "+"), (negative, WRONG, (0, (3, 1.5)), "\N{MINUS SIGN}"))
    for columns, colour, line, sign in marks:
        for row, column in enumerate(columns):
            corner, size = (column - 0.44, row - 0.42), (0.88, 0.84)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=6))
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=3.5, linestyle=line))
            plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            axes.text(column + 0.31, row - 0.25, sign, color=colour, fontsize=13, fontweight="bold", ha="center",
                      va="center", bbox=plate)  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace(" · ", "\n") for name in names], fontsize=10)
    axes.set_xlabel("anchor: a row.  + its farthest positive    \N{MINUS SIGN} its nearest negative", fontsize=11)
    return figure


def margin_figure(
    cosine: np.ndarray, panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str = "Circle logits"
) -> Figure:
    """What becomes of a cosine as a logit, one panel per setting, all on one scale.

    `cosine` (N,), `panels` title -> the logit of the right person, of a wrong one, and the plain scaled cosine, (N,)
    each.
    """
    figure = Figure(figsize=(max(5.4, 3.3 * len(panels)), 3.9), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, curves) in zip(all_axes, panels.items(), strict=True):
        kinds = ("right person", LINE_COLOURS[0], "-"), ("wrong person", LINE_COLOURS[1], "--"), ("plain", JUNK, ":")
        for values, (label, colour, dash) in zip(curves, kinds, strict=True):
            axes.plot(cosine, values, dash, color=colour, linewidth=2.5, label=label)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(name, fontsize=11, parse_math=False)
        axes.set_xlabel("cosine to the class direction", fontsize=10.5)
        axes.tick_params(labelsize=10)
        axes.grid(alpha=0.25)
    all_axes[0].set_ylabel("logit", fontsize=11)
    all_axes[0].legend(fontsize=10, frameon=False)
    return figure


def _matrix(
    values: np.ndarray, images: Images, names: Sequence[str], title: str, low: float, high: float, form: str, unit: str
) -> tuple[Figure, Axes]:
    """A matrix as colours, with numbers if there is room, and a crop and a name in front of each row."""
    rows, columns = values.shape
    height = 0.64 * rows + 1.7
    figure = Figure(figsize=(10, height), dpi=100, facecolor="white")
    figure.suptitle(title, x=0.015, y=1 - 0.12 / height, ha="left", va="top", fontsize=13, fontweight="bold")
    bottom, top = 0.95 / height, 1 - 0.6 / height
    axes = figure.add_axes((0.2, bottom, 0.69, top - bottom))
    picture = axes.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.set_yticks(range(rows), names, fontsize=10.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row in range(rows) if columns <= NUMBERS else ():
        for column in range(columns):
            dark = (values[row, column] - low) / (high - low) < 0.55
            text = form.format(values[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=10.5, color="white" if dark else "black")
    each = (top - bottom) / rows
    for row, image in enumerate(images):
        place = figure.add_axes((0.015, top - (row + 0.97) * each, 0.07, 0.94 * each))
        place.set_axis_off()
        if image is not None:
            place.imshow(image)
    scale = matplotlib.cm.ScalarMappable(picture.norm, picture.cmap)
    bar = figure.colorbar(scale, cax=figure.add_axes((0.91, bottom, 0.02, top - bottom)))
    bar.set_label(unit, fontsize=11)
    bar.ax.tick_params(labelsize=10)
    return figure, axes
