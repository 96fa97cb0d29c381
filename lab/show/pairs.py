"""Pairs of crops and pairs of cameras: how far distances part the same person from others, and where they fail.

Plotly Figures in the look of `curves`. Legend: H bins of a histogram.
"""

import html
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.evaluate.error_rates import Verification
from lab.show.curves import LINE_COLOURS, LINE_SYMBOLS, finish, line_style
from lab.show.figures import QUERY, RIGHT, WRONG

LEAST_FPR = 1e-5
BARS = 100  # a histogram shows at most so many; more would be noise where true pairs are few


def distance_histogram_figure(
    verification: Verification,
    title: str = "Distances of pairs",
    query_camid: int | None = None,
    gallery_camid: int | None = None,
    threshold: float | None = None,
) -> go.Figure:
    """How far apart crops of the same person and of two persons lie, each as a share of its pairs.

    Where the two overlap, no threshold is right for all; the line stands at the one with equal errors over all cameras.
    With camids it shows the pairs of one query camera, of one gallery camera, or of both. A chosen `threshold` gets a
    line of its own, with what it accepts to its left.
    """
    counts = verification.histogram(query_camid, gallery_camid)
    edges, counts = _coarser(verification.edges, counts)
    figure = go.Figure()
    for name, values, colour, pattern in (
        ("two persons", counts[1], WRONG, "/"),
        ("same person, two cameras", counts[0], RIGHT, ""),
    ):
        total = values.sum()
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=100 * values / max(1, total),
            width=np.diff(edges),
            name=f"{name}: {total:,} pairs",
            marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": pattern, "size": 5, "solidity": 0.2}},
            opacity=0.6,
            customdata=np.stack([edges[:-1], edges[1:]], axis=1),
            hovertemplate=f"%{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}: %{{y:.2f}} %<extra>{name}</extra>",
        )
    right = threshold is None or threshold <= verification.eer_threshold
    figure.add_vline(
        x=verification.eer_threshold,
        line={"color": "#000000", "dash": "dash", "width": 2},
        annotation_text=f"equal error rate {100 * verification.eer:.1f} %<br>at {verification.eer_threshold:.3f}",
        annotation_position="top right" if right else "top left",
        annotation_align="left" if right else "right",
        annotation_xshift=3 if right else -3,
        annotation_bgcolor="rgba(255, 255, 255, 0.8)",
    )
    ends = [edges[0], edges[-1], verification.eer_threshold]
    if threshold is not None:
        ends.append(threshold)
        figure.add_vline(
            x=threshold,
            line={"color": QUERY, "width": 3},
            annotation_text=f"threshold {threshold:.3f}<br>\u2190 accepted",
            annotation_position="top left" if right else "top right",
            annotation_align="right" if right else "left",
            annotation_xshift=-3 if right else 3,
            annotation_bgcolor="rgba(255, 255, 255, 0.8)",
        )
    figure.update_layout(barmode="overlay", bargap=0, legend={"orientation": "h", "y": 1, "yanchor": "bottom"})
    figure.update_xaxes(title="distance", range=[min(ends), max(ends)])
    figure.update_yaxes(title="share of the pairs (%)")
    return finish(figure, title, 430)


def roc_figure(
    verifications: Mapping[str, Verification],
    title: str = "ROC: same person or not?",
    at: Mapping[str, float] | None = None,
) -> go.Figure:
    """How many true pairs are accepted for the false pairs that one is ready to accept; the mark is the equal error.

    `at` gives some of the runs a threshold, which is marked by a ring on their curves.
    """
    figure = go.Figure()
    for number, (name, found) in enumerate(verifications.items()):
        start = np.searchsorted(found.roc_fpr, LEAST_FPR, side="right") - 1  # the last point up to the axis' left end
        fpr, tpr = np.maximum(found.roc_fpr[start:], LEAST_FPR), found.roc_tpr[start:]
        name = html.escape(str(name))
        figure.add_scatter(
            x=100 * fpr,
            y=100 * tpr,
            customdata=found.roc_threshold[start:],
            mode="lines",
            line=line_style(number) | {"shape": "hv"},  # up to the next point, no more is accepted
            legendgroup=str(number),
            showlegend=False,
            hovertemplate="%{y:.1f} % for %{x:.3g} %, distance up to %{customdata:.4f}<extra>" + name + "</extra>",
        )
        figure.add_scatter(
            x=[100 * found.eer],
            y=[100 * (1 - found.eer)],
            name=f"{name} (equal error {100 * found.eer:.1f} %)",
            mode="lines+markers",  # so that the legend shows both
            line=line_style(number),
            marker={"symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)], "size": 11},
            legendgroup=str(number),
            hovertemplate=f"equal error rate {100 * found.eer:.2f} %, distance {found.eer_threshold:.4f}"
            f"<extra>{name}</extra>",
        )
    for name, threshold in (at or {}).items():
        fpr, tpr = (float(rate) for rate in verifications[name].rates(threshold))
        figure.add_scatter(
            x=[100 * max(fpr, LEAST_FPR)],
            y=[100 * tpr],
            name=f"threshold {threshold:.3f} for {html.escape(str(name))}",
            mode="markers",
            marker={"symbol": "circle-open", "size": 17, "color": "#000000", "line": {"width": 3}},
            hovertemplate=f"{100 * tpr:.1f} % for {100 * fpr:.3g} %<extra>threshold {threshold:.3f}</extra>",
        )
    powers = np.arange(round(np.log10(LEAST_FPR)), 1) + 2
    figure.update_xaxes(
        title="pairs of two persons that are accepted (FPR)",
        type="log",
        range=[powers[0], powers[-1]],
        tickvals=10.0**powers,
        ticktext=[f"{10.0**power:g} %" for power in powers],
    )
    figure.update_yaxes(title="pairs of the same person<br>that are accepted (TPR, %)", range=[0, 101])
    return finish(figure, title, 430)


def camera_matrix_figure(matrix: pd.DataFrame, title: str = "mAP by camera") -> go.Figure:
    """A table of one metric in 0..1 by query camera (rows) and gallery camera (columns), as numbers on colours in %.

    Cells without a value are blank, such as a camera against itself.
    """
    colours = {"zmin": 0, "zmax": 100, "colorscale": ["#FFFFFF", LINE_COLOURS[5]]}  # light enough for black numbers
    return camera_heatmap(100 * matrix, "%.1f", "%", colours, title)


def camera_error_figure(matrix: pd.DataFrame, title: str = "Equal error rate by camera") -> go.Figure:
    """Error rates in 0..1 by query camera (rows) and gallery camera (columns), in %: the darker, the more errors."""
    values = matrix.to_numpy(np.float64)
    largest = 100 * float(np.nanmax(values, initial=0.0)) if np.isfinite(values).any() else 0.0
    colours = {"zmin": 0, "zmax": max(1.0, largest), "colorscale": ["#FFFFFF", "#F0A070"]}  # as a loss elsewhere
    return camera_heatmap(100 * matrix, "%.1f", "%", colours, title)


def camera_heatmap(matrix: pd.DataFrame, number: str, unit: str, colours: dict, title: str) -> go.Figure:
    """Numbers by query camera (rows) and gallery camera (columns), written as `number` on the Heatmap's `colours`."""
    values = matrix.to_numpy(np.float64)
    rows, columns = ([str(camera) for camera in axis] for axis in (matrix.index, matrix.columns))
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            text=np.where(np.isnan(values), "", np.char.mod(number, np.nan_to_num(values))),
            texttemplate="%{text}",
            textfont={"color": "#000000"},
            colorbar={"title": unit, "thickness": 14},
            xgap=2,
            ygap=2,
            hoverongaps=False,
            hovertemplate=f"query camera %{{y}}, gallery camera %{{x}}: %{{text}} {unit}<extra></extra>",
            **colours,
        )
    )
    figure.update_xaxes(title="gallery camera", type="category", showgrid=False, side="bottom")
    figure.update_yaxes(title="query camera", type="category", showgrid=False, autorange="reversed")
    return finish(figure, title, 170 + 34 * max(5, len(rows)))


def _coarser(edges: np.ndarray, counts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Leave out the empty ends of two histograms (H,), and join bins until `BARS` or fewer are left."""
    used = np.flatnonzero(counts[0] + counts[1])
    first, last = (used[0], used[-1] + 1) if len(used) else (0, len(edges) - 1)
    factor = -(-(last - first) // BARS)
    starts = np.arange(first, last, factor)
    return edges[[*starts, last]], tuple(np.add.reduceat(part[:last], starts) for part in counts)
