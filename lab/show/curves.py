"""Curves of results: CMC, training, and what a starting point is worth; plotly Figures, for hovering and zooming.

Lines differ in colour and in symbol or dash, so that they can be told apart without colours.
"""

import html
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.runs import EvalResult
from lab.show.figures import JUNK

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star")
LINE_DASHES = ("solid", "dash", "dot", "dashdot")


def cmc_figure(results: Mapping[str, EvalResult], max_rank: int = 20, title: str = "CMC curves") -> go.Figure:
    """How often a right match is among the first r ranks, one line per result, r from 1 to `max_rank`."""
    figure = go.Figure()
    for number, (name, result) in enumerate(results.items()):
        curve = 100 * np.asarray(result.cmc)[:max_rank]
        figure.add_scatter(
            x=np.arange(1, len(curve) + 1),
            y=curve,
            name=html.escape(f"{name} (mAP {100 * result.mAP:.1f} %)"),
            mode="lines+markers",
            line=line_style(number),
            marker={"symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)], "size": 7},
            hovertemplate="rank %{x}: %{y:.1f} %<extra>" + html.escape(name) + "</extra>",
        )
    figure.update_xaxes(
        title="rank r (1 = nearest gallery crop)", range=[0.5, max_rank + 0.5], dtick=max(1, max_rank // 10)
    )
    figure.update_yaxes(title="queries with a right match<br>in the first r ranks (%)")
    return finish(figure, title, 430)


def loss_curves(log: pd.DataFrame, title: str = "Training") -> go.Figure:
    """A training run over its steps: loss with its chance line, accuracy, retrieval probe, learning rate, throughput.

    `log` is log.csv; a panel without its columns is left out.
    """
    panels = [
        ("", "loss", [c for c in ("loss", "loss_cls", "loss_triplet", "chance_loss") if c in log], 1),
        ("accuracy", "right (%)", [c for c in ("accuracy",) if c in log], 100),
        ("retrieval probe", "%", [c for c in log if c.startswith("probe_")], 100),
        ("spread of the features", "1 = even, 0 = collapsed", [c for c in ("feature_std",) if c in log], 1),
        ("learning rate", "learning rate", [c for c in ("lr",) if c in log], 1),
        ("throughput", "images per second", [c for c in ("images_per_second",) if c in log], 1),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return finish(go.Figure(), f"{title}: nothing was logged", 200)
    rows = -(-len(panels) // 2)
    figure = make_subplots(rows, 2, vertical_spacing=0.3 / rows, horizontal_spacing=0.13)
    for place, (name, unit, columns, factor) in enumerate(panels):
        where = {"row": place // 2 + 1, "col": place % 2 + 1}
        for number, column in enumerate(columns):
            curve = _curve(log, column, factor, number)
            figure.add_trace(curve.update(legend=f"legend{place + 1}", showlegend=len(columns) > 1), **where)
        start = "normal" if columns[0] == "loss" else "tozero"
        figure.update_yaxes(title=unit, rangemode=start, exponentformat="power", **where)
        figure.update_xaxes(title="step", **where)
        panel = figure.get_subplot(**where)
        top = {"y": panel.yaxis.domain[1], "yanchor": "bottom", "font": {"size": 13}}
        figure.add_annotation(
            text=name, x=panel.xaxis.domain[0], xanchor="left", xref="paper", yref="paper", showarrow=False, **top
        )
        figure.update_layout(
            {f"legend{place + 1}": {"x": panel.xaxis.domain[1], "xanchor": "right", "orientation": "h", **top}}
        )
    return finish(figure, title, 90 + 270 * rows)


def initialisation_figure(table: pd.DataFrame, title: str = "What the starting point is worth") -> go.Figure:
    """mAP against the share of identities used, one group of bars per share and one bar per starting point.

    `table` is a `metrics_table` of fine-tuning runs on one data set, with or without re-ranking, not both.
    """
    figure = go.Figure()
    shares = sorted(set(table["identities used"]), key=lambda share: float(share.rstrip(" %") or 0))
    for number, (name, rows) in enumerate(table.groupby("initialised from", sort=False)):
        values = [rows.loc[rows["identities used"] == share, "mAP"].mean() for share in shares]
        figure.add_bar(
            x=[f"{share} of the identities" for share in shares],
            y=values,
            name=html.escape(str(name)),
            marker={
                "color": LINE_COLOURS[number % len(LINE_COLOURS)],
                "pattern": {"shape": ["", "/", "x", "."][number % 4]},
            },
            text=[f"{value:.1f}" for value in values],
            textposition="outside",
            cliponaxis=False,
        )
    figure.update_layout(barmode="group", legend_title_text="trunk starts from")
    figure.update_yaxes(title="mAP (%)", rangemode="tozero")
    return finish(figure, title, 400)


def line_style(number: int) -> dict:
    """Colour and dash of the curve with this number: no two look alike, also without colour."""
    dash = LINE_DASHES[number // len(LINE_COLOURS) % len(LINE_DASHES)]
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "dash": dash, "width": 2}


def _curve(log: pd.DataFrame, column: str, factor: float, number: int) -> go.Scatter:
    """One column of a log over its steps; a column with gaps, such as the probe, gets markers."""
    rows = log[log[column].notna()]
    if column == "chance_loss":
        name = "chance: log(K + 1)"
        line = {"color": JUNK, "dash": "dash", "width": 2}
    else:
        name, line = column.removeprefix("probe_").replace("rank1", "rank-1").replace("_", " "), line_style(number)
    return go.Scatter(
        x=rows["step"],
        y=factor * rows[column],
        name=html.escape(name),
        line=line,
        mode="lines+markers" if len(rows) < 30 else "lines",
        hovertemplate="step %{x}: %{y:.4g}",
    )


def finish(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Give a figure the look that all of them have."""
    figure.update_layout(
        title={"text": html.escape(title), "x": 0, "xanchor": "left", "font": {"size": 17}},
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
        font={"size": 14},
        hoverlabel={"namelength": -1},
    )
    return figure
