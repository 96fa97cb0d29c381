"""Doubt as a picture: what resampling gives, how an interval shrinks with the number of people, who changed where.

Plotly Figures in the look of `curves`. Numbers come in as fractions and are shown in points (per cent).
"""

import html
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.show.curves import LINE_COLOURS, LINE_SYMBOLS, finish, line_style
from lab.show.pairs import camera_heatmap

PATTERNS = ("", "/", "x", ".")
BINS = 50


def sampling_figure(
    samples: Mapping[str, np.ndarray],
    intervals: Mapping[str, tuple[float, float]] | None = None,
    marks: Mapping[str, float] | None = None,
    title: str = "",
    label: str = "mAP (%)",
) -> go.Figure:
    """Histograms of what resampling gave, one per name, each with its interval as a bar below and marks as lines.

    `samples` (B,) are fractions, such as bootstrap means; all histograms have the same bins.
    """
    values = {name: 100 * np.asarray(sample, np.float64) for name, sample in samples.items()}
    together = np.concatenate([*values.values(), [100 * mark for mark in (marks or {}).values()]])
    edges = np.linspace(together.min(), together.max() + 1e-9, BINS + 1)
    figure, tallest = go.Figure(), 0.0
    for number, (name, sample) in enumerate(values.items()):
        share = 100 * np.histogram(sample, edges)[0] / len(sample)
        tallest = max(tallest, share.max())
        pattern = {"shape": PATTERNS[number % len(PATTERNS)], "size": 6, "solidity": 0.25}
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=share,
            width=np.diff(edges),
            name=html.escape(name),
            marker={"color": LINE_COLOURS[number % len(LINE_COLOURS)], "pattern": pattern, "line": {"width": 0}},
            opacity=0.6,
            hovertemplate="%{x:.1f}: %{y:.1f} % of the draws<extra>" + html.escape(name) + "</extra>",
        )
    for number, (name, (low, high)) in enumerate((intervals or {}).items()):
        place = list(values).index(name)
        figure.add_scatter(
            x=[100 * low, 100 * high],
            y=[-0.07 * tallest * (number + 1)] * 2,
            mode="lines+markers",
            line={"color": LINE_COLOURS[place % len(LINE_COLOURS)], "width": 4},
            marker={"symbol": "line-ns-open", "size": 11},
            name=f"95 %: {100 * low:.1f} to {100 * high:.1f}",
            hovertemplate="%{x:.1f}<extra>" + html.escape(name) + "</extra>",
        )
    for number, (name, mark) in enumerate((marks or {}).items()):
        figure.add_vline(x=100 * mark, line={"color": "#000000", "dash": "dash", "width": 2})
        figure.add_annotation(
            x=100 * mark, y=1, yref="paper", yanchor="bottom", yshift=16 * (number % 2), text=name, showarrow=False
        )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title=label, zeroline=False)
    figure.update_yaxes(title="share of the draws (%)", zeroline=True, zerolinecolor="#8C8C8C")
    return finish(figure, title, 430).update_layout(margin={"t": 80 if marks else 60})


def width_figure(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str = "", label: str = "width of the interval (points)"
) -> go.Figure:
    """Widths (fractions) against the number of people, on logarithmic axes, on which 1 / sqrt(n) is a straight line.

    `lines` has for each name the numbers of people and the widths; fewer than ten are also marked.
    """
    figure, every = go.Figure(), []
    for number, (name, (people, widths)) in enumerate(lines.items()):
        widths = 100 * np.asarray(widths, np.float64)
        every += [*widths]
        figure.add_scatter(
            x=people,
            y=widths,
            name=html.escape(name),
            mode="lines+markers" if len(people) < 10 else "lines",
            line=line_style(number) | ({} if len(people) < 10 else {"dash": "dash"}),
            marker={"symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)], "size": 9},
            hovertemplate="%{x:,} people: %{y:.2f} points<extra>" + html.escape(name) + "</extra>",
        )
    ticks = [value for value in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if min(every) / 2 <= value <= 2 * max(every)]
    figure.update_xaxes(
        title="people in the test set", type="log", tickvals=[10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    )
    figure.update_yaxes(title=label, type="log", tickvals=ticks)
    return finish(figure, title, 420)


def difference_matrix_figure(matrix: pd.DataFrame, title: str = "B - A by camera") -> go.Figure:
    """Differences (fractions) by query camera (rows) and gallery camera (columns), in points, around white for 0.

    A loss is orange, a gain blue, both with their sign in the cell; cells without a value are blank.
    """
    points = 100 * matrix
    largest = max(1.0, float(np.nanmax(np.abs(points.to_numpy(np.float64)))))
    colours = {"zmin": -largest, "zmax": largest, "colorscale": ["#F0A070", "#FFFFFF", "#70B4E0"]}
    return camera_heatmap(points, "%+.1f", "points", colours, title)
