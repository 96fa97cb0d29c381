"""Attention maps for teaching: their few places as numbers, parts of a person with bars, scores of many maps.

Pictures with crops are matplotlib Figures that pyplot does not know, scores are plotly Figures in the look of `curves`.
Legend: H, W size of a crop; h, w places of a map.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.show.curves import LINE_COLOURS, LINE_SYMBOLS, finish, line_style
from lab.show.figures import JUNK, QUERY, blend

GROUPS = {1: "whole map", 2: "halves", 3: "thirds"}  # number of stripes -> what they are called
BAR_COLOURS, BAR_HATCHES = (QUERY, "#E69F00", "#009E73"), ("", "//", "..")


def places_figure(image: np.ndarray, cam: np.ndarray, enlarged: np.ndarray, title: str = "") -> Figure:
    """How a map comes about: the crop with its places as a grid, the map's numbers, and the map laid over the crop.

    `image` (H, W, 3) uint8, `cam` (h, w) as the network gives it, `enlarged` (H, W) of 0..1 is what is laid over.
    """
    figure = Figure(figsize=(6.6, 4.1), dpi=100)
    figure.suptitle(title, x=0.02, y=0.985, ha="left", fontsize=12.5, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.83, bottom=0.03, wspace=0.08)
    height, width = image.shape[:2]
    rows, columns = cam.shape
    panels[0].imshow(image)
    for row in range(1, rows):
        panels[0].axhline(row * height / rows - 0.5, color="white", linewidth=1.2)
    for column in range(1, columns):
        panels[0].axvline(column * width / columns - 0.5, color="white", linewidth=1.2)
    _draw_places(panels[1], cam, height / width)
    panels[2].imshow(blend(image, enlarged, 0.75))
    names = f"{height} x {width} pixels", f"{rows} x {columns} places", "drawn between them"
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()
    return figure


def place_shares_figure(shares: np.ndarray, title: str = "", label: str = "share") -> Figure:
    """One number in 0..1 for each place of a map (h, w), in per cent, drawn as tall as a crop."""
    figure = Figure(figsize=(3.2, 4.3), dpi=100)
    figure.suptitle(title, x=0.04, y=0.985, ha="left", fontsize=11.5, fontweight="bold", parse_math=False)
    axes = figure.add_axes((0.1, 0.03, 0.8, 0.79))
    _draw_places(axes, 100 * np.asarray(shares), 2, "{:.0f} %")
    axes.set_title(label, fontsize=10.5)
    axes.set_axis_off()
    return figure


def overlay_sheet(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    row_titles: Sequence[str] = (),
    masks: Sequence[np.ndarray] | None = None,
    strength: float = 0.7,
    title: str = "",
) -> Figure:
    """A row per crop, a column per kind of map: the crop as it is, then under each of its maps (H, W) of 0..1.

    `maps` has for each name one map per image; `masks` (H, W) bool are outlined in white.
    """
    columns = 1 + len(maps)
    left, top, right = (0.95 if row_titles else 0.1), (0.8 if title else 0.5), 0.75
    figure = Figure(figsize=(left + 1.15 * columns + right, top + 2.3 * len(images) + 0.05), dpi=100)
    width, height = figure.get_size_inches()
    figure.suptitle(title, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=12.5, fontweight="bold")
    panels = figure.subplots(len(images), columns, squeeze=False)
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=0.05 / height, wspace=0.06, hspace=0.05
    )
    for row, image in enumerate(images):
        for column, axes in enumerate(panels[row]):
            values = None if column == 0 else list(maps.values())[column - 1][row]
            axes.imshow(image if values is None else blend(image, values, strength))
            if masks is not None:
                axes.contour(masks[row].astype(float), levels=[0.5], colors="black", linewidths=2.2)
                axes.contour(masks[row].astype(float), levels=[0.5], colors="white", linewidths=1.0)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(["crop", *maps][column], fontsize=10.5, parse_math=False)
        if row_titles:
            panels[row][0].text(
                -0.08, 0.5, row_titles[row], transform=panels[row][0].transAxes, fontsize=10.5, ha="right", va="center"
            )
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), "inferno")
    bar = figure.add_axes((1 - 0.55 / width, 0.2, 0.13 / width, 0.55))
    bar = figure.colorbar(scale, cax=bar, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"], fontsize=10)
    return figure


def parts_figure(
    pair: tuple[np.ndarray, np.ndarray],
    parts: Mapping[str, float],
    heads: Mapping[str, tuple[str, int, int]],
    map_rows: int,
    title: str = "",
    label: str = "adds to the distance",
    limit: float | None = None,
) -> Figure:
    """What each part of a descriptor adds, as bars beside the stripes of both crops that the part looks at.

    `parts` has a number for each head, `heads` says of which branch it is, into how many stripes that branch's map is cut
    and which of them it sees; `map_rows` rows of the map make the stripes (the upper ones get what does not divide).
    `limit` is where the bars' axis ends, so that several figures can be compared.
    """
    figure = Figure(figsize=(10.4, 3.9), dpi=100)
    figure.suptitle(title, x=0.01, y=0.985, ha="left", fontsize=12.5, fontweight="bold", parse_math=False)
    grid = figure.add_gridspec(1, 9, width_ratios=[1, 1, 1.9] * 3, wspace=0.12)
    figure.subplots_adjust(left=0.01, right=0.985, top=0.80, bottom=0.17)
    low, high = min(0.0, *parts.values()), limit if limit is not None else 1.05 * max(parts.values())
    for group, stripes in enumerate(sorted({count for _, count, _ in heads.values()})):
        chosen = [name for name, (_, count, _) in heads.items() if count == stripes]
        edges = stripe_edges(map_rows, stripes) / map_rows
        for column, (image, name) in enumerate(zip(pair, ("query", "gallery"), strict=True)):
            axes = figure.add_subplot(grid[3 * group + column])
            axes.imshow(image, aspect="auto", extent=(0, 1, 1, 0))
            for edge in edges[1:-1]:
                axes.axhline(edge, color="white", linewidth=2)
            axes.set_title(name, fontsize=10)
            axes.set_axis_off()
        axes = figure.add_subplot(grid[3 * group + 2])
        if stripes == 1:  # several heads see the whole: one bar below the other
            edges = np.linspace(0, 1, len(chosen) + 1)
        for place, head in enumerate(chosen):
            number = int(heads[head][0][-1]) - 1
            centre, height = (edges[place] + edges[place + 1]) / 2, 0.62 * (edges[place + 1] - edges[place])
            style = {"color": BAR_COLOURS[number % 3], "hatch": BAR_HATCHES[number % 3], "edgecolor": "white"}
            axes.barh(centre, parts[head], height, **style)
            axes.text(0.02, centre - height / 2 - 0.01, f"{head}: {parts[head]:.3f}", fontsize=10,
                      transform=axes.get_yaxis_transform(), va="bottom")  # fmt: skip
        axes.set(xlim=(low, high), ylim=(1, 0), yticks=[])
        axes.set_title(GROUPS.get(stripes, f"{stripes} stripes"), fontsize=11, loc="left")
        axes.set_xlabel(label, fontsize=10)
        axes.tick_params(labelsize=10)
        axes.locator_params(axis="x", nbins=3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def stripe_edges(rows: int, stripes: int) -> np.ndarray:
    """Where the stripes of a map begin and end, in rows (stripes + 1,); the upper ones get a row more."""
    return np.cumsum([0, *(len(part) for part in np.array_split(np.arange(rows), stripes))])


def score_figure(
    table: pd.DataFrame, chance: float, title: str = "", label: str = "share of the map on the person (%)"
):
    """Means as dots with their intervals in per cent, one line per row of the table (fractions), and the chance line.

    `table` has columns kind, layer, mean, low, high; the colours and symbols are those of the kinds.
    """
    figure, layers = go.Figure(), list(dict.fromkeys(table["layer"]))
    kinds = list(dict.fromkeys(table["kind"]))
    for number, kind in enumerate(kinds):
        rows = table[table["kind"] == kind]
        shift = ((len(kinds) - 1) / 2 - number) * 0.6 / len(kinds)
        mean, low, high = (100 * rows[name].to_numpy(np.float64) for name in ("mean", "low", "high"))
        figure.add_scatter(
            x=mean,
            y=[-layers.index(layer) + shift for layer in rows["layer"]],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": high - mean,
                "arrayminus": mean - low,
                "thickness": 2,
            },
            mode="markers",
            name=kind,
            marker={"color": LINE_COLOURS[number], "symbol": LINE_SYMBOLS[number], "size": 10},
            hovertemplate="%{x:.1f} %<extra>" + kind + "</extra>",
        )
    figure.add_vline(x=100 * chance, line={"color": JUNK, "dash": "dash", "width": 2})
    figure.add_annotation(x=100 * chance, y=1, yref="paper", yanchor="bottom", text="chance", showarrow=False)
    figure.update_yaxes(tickvals=[-place for place in range(len(layers))], ticktext=layers, zeroline=False)
    figure.update_xaxes(title=label, zeroline=False)
    return finish(figure, title, 130 + 85 * len(layers))


def cascade_figure(table: pd.DataFrame, title: str = "", label: str = "rank correlation with the trained model's map"):
    """How maps change while a network is randomised from the top: one line per kind over the stages, with intervals.

    `table` has columns kind, stage, mean, low, high; stages are in their order.
    """
    figure = go.Figure()
    for number, (kind, rows) in enumerate(table.groupby("kind", sort=False)):
        mean, low, high = (rows[name].to_numpy(np.float64) for name in ("mean", "low", "high"))
        figure.add_scatter(
            x=np.arange(len(rows)) + 0.04 * number,
            y=mean,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": high - mean,
                "arrayminus": mean - low,
                "thickness": 2,
            },
            mode="lines+markers",
            name=str(kind),
            line=line_style(number),
            marker={"symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)], "size": 10},
            hovertemplate="%{y:.2f}<extra>" + str(kind) + "</extra>",
        )
    stages = list(dict.fromkeys(table["stage"]))
    figure.add_hline(y=0, line={"color": JUNK, "dash": "dash", "width": 2})
    figure.update_xaxes(title="random weights in", tickvals=np.arange(len(stages)), ticktext=stages, showgrid=False)
    figure.update_yaxes(title=label, range=[-0.45, 1.08], zeroline=False)
    return finish(figure, title, 430)


def _draw_places(axes: Axes, values: np.ndarray, tall: float, form: str = "") -> None:
    """A map's places as coloured fields with their numbers in them, if there are not too many to read."""
    rows, columns = values.shape
    low, high = float(np.min(values)), float(np.max(values))
    largest = max(abs(low), abs(high), 1e-12)
    form = form or f"{{:.{max(0, 2 - int(np.floor(np.log10(largest))))}f}}"  # three digits for the largest
    axes.imshow(values, cmap="inferno", extent=(0, 1, tall, 0), vmin=low, vmax=high, interpolation="nearest")
    for row in range(rows if columns <= 4 else 0):
        for column in range(columns):
            bright = values[row, column] - low > 0.6 * (high - low)
            axes.text((column + 0.5) / columns, (row + 0.5) / rows * tall, form.format(values[row, column]),
                      ha="center", va="center", fontsize=10.5, color="black" if bright else "white")  # fmt: skip
