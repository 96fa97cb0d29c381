"""Features as maps: thousands of numbers per crop become a point on paper, coloured by who or by where.

matplotlib Figures in the look of `figures`. A flat map of many dimensions always lies somewhere: read distances off the
features, and from a map only which crops were laid side by side. Legend: N crops, D feature size.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from lab.errors import InputError
from lab.show.curves import LINE_COLOURS

MARKERS = ("o", "s", "D", "P", "X", "^", "*")
REST = "#C9C9C9"  # crops of no group that is shown
NEIGHBOURS = 15  # how many neighbours of a crop t-SNE tries to keep beside it
FEWEST = 4  # crops that make a map
METHODS = ("PCA", "t-SNE")
SMALL = 200  # rows or numbers: up to here all directions are found as fast as two


def pca(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions in which features (N, D) differ most: points (N, 2), and the share of the variance of each (2,)."""
    values = _checked(values)
    centred = values - values.mean(axis=0)
    left, size = _two_directions(centred)
    points = left * size
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1, 1)  # the sign is arbitrary: fix it
    return points, size**2 / max((centred**2).sum(), np.finfo(float).tiny)


def _two_directions(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two largest singular values (2,) of a matrix, and its left singular vectors (N, 2) that belong to them."""
    if min(centred.shape) > SMALL and centred.any():
        from scipy.sparse.linalg import svds

        start = np.random.default_rng(0).standard_normal(min(centred.shape))
        left, size, _ = svds(centred, k=2, v0=start)  # 2,000 x 2,048: 0.3 s instead of 5 s for all of them
        return left[:, ::-1], size[::-1]
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2], size[:2]


def tsne(values: np.ndarray, neighbours: int = NEIGHBOURS, seed: int = 0) -> np.ndarray:
    """A map (N, 2) that keeps the near neighbours of each crop near, by the cosine of features (N, D), and little else.

    van der Maaten & Hinton 2008, by scikit-learn, begun with the `pca` map so that equal features give equal maps.
    """
    from sklearn.manifold import TSNE

    values = _checked(values)
    perplexity = min(neighbours, (len(values) - 1) / 3)
    return TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed, n_jobs=1).fit_transform(values)


def embedding_points(values: np.ndarray, method: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A map of features (N, D) by a method of METHODS: points (N, 2) float32, and what `pca` says of the variance (2,).

    t-SNE keeps no share of the variance that could be named: NaN. Raises InputError for fewer than 4 crops, fewer than
    2 numbers a crop, numbers that are not finite, and crops that are all alike.
    """
    values = _checked(values)
    if values.shape[1] < 2 or not np.isfinite(values).all():
        wrong = "numbers that are not finite" if values.shape[1] > 1 else f"{values.shape[1]} number(s) a crop"
        raise InputError(f"the features hold {wrong}; expected at least 2 finite numbers a crop: make them again")
    if np.ptp(values, axis=0).max() <= 1e-12 * np.abs(values).max():
        raise InputError(f"the features of all {len(values)} crops are alike; expected different ones: make them again")
    points, share = pca(values) if method == "PCA" else (tsne(values, seed=seed), np.full(2, np.nan))
    return points.astype(np.float32), share


def map_figure(
    maps: Mapping[str, np.ndarray], groups: Mapping[str, Sequence[str]], title: str = "", columns: str = ""
) -> Figure:
    """Each map (N, 2) in a row, drawn once for each grouping: the same points, told apart by different labels.

    `groups` are labels (N,), one list for each column; crops with the label "" are grey dots below the others. Groups
    differ in colour and in symbol. `columns` is what every column's name begins with.
    """
    figure = Figure(figsize=(4.9 * len(groups), 3.6 * len(maps) + 1.1), dpi=100, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    panels = figure.subplots(len(maps), len(groups), squeeze=False)
    for row, (name, points) in enumerate(maps.items()):
        for axes, (grouping, labels) in zip(panels[row], groups.items(), strict=True):
            _scatter(axes, np.asarray(points), np.asarray(labels).astype(str))
            axes.set_title(f"{name}, {columns}{grouping}", loc="left", fontsize=11.5, parse_math=False)
    for axes in panels[-1]:
        count = len(axes.get_legend_handles_labels()[0])
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(3, max(1, count)), fontsize=10, frameon=False,
            handletextpad=0.1, columnspacing=0.8,
        )  # fmt: skip
    return figure


def picture_map(points: np.ndarray, images: Sequence[np.ndarray | None], title: str = "", height: float = 34) -> Figure:
    """Crops laid where their features are: points (N, 2), and a small picture at each, `height` points high."""
    figure = Figure(figsize=(9.6, 6.4), dpi=100)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.92))
    _frame(axes, points)
    for point, image in zip(points, images, strict=True):
        if image is not None:
            picture = OffsetImage(image, zoom=height / image.shape[0])
            axes.add_artist(AnnotationBbox(picture, point, frameon=False, pad=0))
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", parse_math=False)
    return figure


def alignment_uniformity_figure(table: pd.DataFrame, title: str = "Alignment and uniformity") -> Figure:
    """One point per representation: `table` has columns alignment and uniformity (0 or less), and names as its index."""
    figure = Figure(figsize=(9.6, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for number, (name, row) in enumerate(table.iterrows()):
        colour, marker = LINE_COLOURS[number % len(LINE_COLOURS)], MARKERS[number % len(MARKERS)]
        axes.scatter(row["alignment"], row["uniformity"], s=150, color=colour, marker=marker, label=name, zorder=3)
    axes.set(
        xlim=(-0.03, 1.25 * max(table["alignment"].max(), 0.1)), ylim=(min(-2, table["uniformity"].min() - 0.4), 0.25)
    )
    axes.axhline(0, color="black", linestyle=":", linewidth=1.2)
    axes.text(axes.get_xlim()[1], 0.02, "all crops alike (collapse) ", fontsize=10.5, ha="right", va="bottom")
    axes.annotate(
        "better", (0.02, 0.03), (0.13, 0.2), xycoords="axes fraction", fontsize=11, va="center",
        arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.5},
    )  # fmt: skip
    axes.set_xlabel("alignment: mean squared distance of two views (0: views do not matter)", fontsize=11)
    axes.set_ylabel("uniformity (lower: more even)", fontsize=11)
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", parse_math=False)
    axes.grid(color="#E5E5E5")
    axes.tick_params(labelsize=10)
    figure.legend(loc="outside right center", fontsize=10.5, frameon=False)
    return figure


def bars_figure(table: pd.DataFrame, label: str, title: str = "", digits: int = 1) -> Figure:
    """A group of bars per row of a table and a bar per column, each with its number; hatched, so colour is not needed."""
    figure = Figure(figsize=(9.6, 3.9), dpi=100, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(table.columns)
    for number, column in enumerate(table.columns):
        place = np.arange(len(table)) + (number - (len(table.columns) - 1) / 2) * width
        hatch = ("", "//", "xx", "..", "--")[number % 5]
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        bars = axes.bar(place, table[column], 0.94 * width, color=colour, hatch=hatch, edgecolor="white", label=column)
        axes.bar_label(bars, fmt=f"%.{digits}f", fontsize=10, padding=2)
    axes.set_xticks(np.arange(len(table)), [str(name) for name in table.index], fontsize=11)
    axes.set_ylabel(label, fontsize=11)
    axes.set_ylim(0, 1.15 * max(float(table.to_numpy().max()), 1e-9))
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", parse_math=False)
    axes.tick_params(axis="y", labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(table.columns), fontsize=10.5, frameon=False)
    return figure


def _scatter(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    _frame(axes, points)
    rest = labels == ""
    axes.scatter(*points[rest].T, s=10, color=REST, linewidths=0)
    names = sorted(set(labels[~rest]), key=natural)
    for number, name in enumerate(names):
        chosen = labels == name
        marker = MARKERS[(number + number // len(LINE_COLOURS)) % len(MARKERS)]
        size, colour = 70 if marker == "*" else 36, LINE_COLOURS[number % len(LINE_COLOURS)]
        look = {"color": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.4}
        axes.scatter(*points[chosen].T, s=size, label=name, **look)


def _frame(axes: Axes, points: np.ndarray) -> None:
    """An empty map around the points: its axes have no unit and no meaning, so they get no numbers."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * np.maximum(high - low, 1e-9)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set(xticks=[], yticks=[])


def natural(name: str) -> tuple:
    """Sort key that puts "camera 2" before "camera 10"."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits) if digits else 0, name


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < FEWEST:
        raise InputError(
            f"the features have the shape {values.shape}; expected (N, D) with N at least {FEWEST}: give more"
        )
    return values
