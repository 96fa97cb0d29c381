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
CHANCE = {"chance_loss": "chance: log(K + 1)", "chance_accuracy": "chance"}
# panels of a training: name, unit, factor, and how the columns of log.csv that belong there begin
PANELS = (
    ("", "loss", 1, ("loss", "chance_loss")),
    ("", "accuracy: right (%)", 100, ("accuracy", "batch_accuracy", "chance_accuracy")),
    ("retrieval probe", "%", 100, ("probe_",)),
    ("spread of the features", "1 = even, 0 = collapsed", 1, ("feature_std",)),
    ("learning rate", "learning rate", 1, ("lr",)),
    ("throughput", "images per second", 1, ("images_per_second",)),
)


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


def loss_curves(
    log: pd.DataFrame | Mapping[str, pd.DataFrame], title: str = "Training", over: str = "step"
) -> go.Figure:
    """Training over its steps: loss and accuracy with their chance lines, retrieval probe, learning rate, throughput.

    `log` is log.csv; a panel without its columns is left out. Of several logs by run name, each run has one line in a
    panel, which leaves out the parts of the loss. `over` "epoch" puts passes over the images below the curves.
    """
    logs = dict(log) if isinstance(log, Mapping) else {"": log}
    logs = {name: with_chance(log).assign(epochs=epochs(log)) for name, log in logs.items()}
    logged = list(dict.fromkeys(column for log in logs.values() for column in log if log[column].notna().any()))
    logged = sorted(logged, key=lambda column: column != "loss")  # before its parts
    panels = [(*panel, [c for c in logged if c.startswith(starts)]) for *panel, starts in PANELS]
    panels = [panel for panel in panels if panel[-1]]
    if not panels:
        return finish(go.Figure(), f"{title}: nothing was logged", 200)
    rows = -(-len(panels) // 2)
    figure = make_subplots(rows, 2, vertical_spacing=0.3 / rows, horizontal_spacing=0.13)
    if len(logs) > 1:  # of the probe only the first column is shown then
        panels = [
            (name, "mAP (%)" if parts[0] == "probe_mAP" else unit, factor, parts)
            for name, unit, factor, parts in panels
        ]
    for place, (name, unit, factor, columns) in enumerate(panels):
        where = {"row": place // 2 + 1, "col": place % 2 + 1}
        x, legend = ("epochs", "epoch") if over == "epoch" else ("step", "step"), f"legend{place + 1}"
        for curve in _curves(logs, columns, factor, x[0]):
            several = {"legend": legend, "showlegend": len(columns) > 1} if len(logs) == 1 else {}
            figure.add_trace(curve.update(several), **where)
        start = "normal" if columns[0] == "loss" else "tozero"
        figure.update_yaxes(title=unit, rangemode=start, exponentformat="power", **where)
        figure.update_xaxes(title=x[1], rangemode="tozero", **where)
        panel = figure.get_subplot(**where)
        top = {"y": panel.yaxis.domain[1], "yanchor": "bottom", "font": {"size": 13}}
        figure.add_annotation(
            text=name, x=panel.xaxis.domain[0], xanchor="left", xref="paper", yref="paper", showarrow=False, **top
        )
        if len(logs) == 1:
            where = {"x": panel.xaxis.domain[1], "xanchor": "right", "orientation": "h", **top}
            figure.update_layout({legend: where})
    finish(figure, title, 90 + 270 * rows)
    return figure if len(logs) == 1 else _one_legend(figure)


def epochs(log: pd.DataFrame) -> pd.Series:
    """How many passes over the images are done at each row; NaN where the log does not say.

    A row has the number of its epoch and of its step; an epoch's length is the least whole number that fits all rows.
    """
    if "epoch" not in log or "step" not in log:
        return pd.Series(np.nan, log.index)
    step, epoch = (pd.to_numeric(log[column], errors="coerce") for column in ("step", "epoch"))
    length = np.ceil((step / epoch.where(epoch > 0)).max())
    return step / length if length > 0 else pd.Series(np.nan, log.index)


def with_chance(log: pd.DataFrame, queue_size: int | None = None) -> pd.DataFrame:
    """A log with what guessing would give: chance_loss log(K + 1) and chance_accuracy 1 / (K + 1), K keys in the queue.

    K is `queue_size` where the log has no chance_loss. Without either the log stays as it is.
    """
    if "chance_loss" not in log and queue_size:
        log = log.assign(chance_loss=np.log(queue_size + 1))
    if "chance_loss" in log and "accuracy" in log:
        log = log.assign(chance_accuracy=np.exp(-log["chance_loss"]))
    return log


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


def error_bars(part: pd.DataFrame, thickness: float = 2.0, width: float = 4) -> dict:
    """From low to high around the mean, for a Scatter's error_x or error_y: columns mean, low, high."""
    sides = {"array": part["high"] - part["mean"], "arrayminus": part["mean"] - part["low"]}
    return {"type": "data", "symmetric": False, **sides, "thickness": thickness, "width": width}


def line_style(number: int) -> dict:
    """Colour and dash of the curve with this number: no two look alike, also without colour."""
    dash = LINE_DASHES[number // len(LINE_COLOURS) % len(LINE_DASHES)]
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "dash": dash, "width": 2}


def _curves(logs: Mapping[str, pd.DataFrame], columns: list[str], factor: float, x: str) -> list[go.Scatter]:
    """The curves of a panel: of one run its columns, of several runs the first column, each beside what chance gives."""
    if len(logs) == 1:
        (log,) = logs.values()
        return [_curve(log, column, factor, number, x) for number, column in enumerate(columns)]
    found, levels = [], set()
    for number, (name, log) in enumerate(logs.items()):
        for column in columns:
            if column not in log or not (column == columns[0] or column in CHANCE) or not log[column].notna().any():
                continue
            curve = _curve(log, column, factor, number, x)
            if column in CHANCE:
                level = round(float(log[column].max()), 9)
                if level in levels:
                    continue
                levels.add(level)
                curve.name = "guessing"
            else:
                curve.name = html.escape(name)
            found.append(curve.update(legendgroup=curve.name, hovertemplate=f"{curve.name}: {curve.hovertemplate}"))
    return found


def _curve(log: pd.DataFrame, column: str, factor: float, number: int, x: str = "step") -> go.Scatter:
    """One column of a log over its steps; a column with gaps, such as the probe, gets markers."""
    rows = log[log[column].notna()]
    if column in CHANCE:
        name = CHANCE[column]
        line = {"color": JUNK, "dash": "dash", "width": 2}
    elif column == "batch_accuracy":
        name, line = "in batch", line_style(number)
    else:
        name, line = column.removeprefix("probe_").replace("rank1", "rank-1").replace("_", " "), line_style(number)
    few = len(rows) < 30 and column not in CHANCE
    return go.Scatter(
        x=rows[x],
        y=factor * rows[column],
        name=html.escape(name),
        line=line,
        marker={"symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)]},
        mode="lines+markers" if few else "lines",
        hovertemplate="step %{x}: %{y:.4g}<extra></extra>"
        if x == "step"
        else "epoch %{x:.2f}: %{y:.4g}<extra></extra>",
    )


def _one_legend(figure: go.Figure) -> go.Figure:
    """Name each run once, above all panels."""
    named = set()
    for curve in figure.data:
        curve.showlegend = curve.name not in named
        named.add(curve.name)
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "yref": "container"}
    legend |= {"y": 1 - 45 / figure.layout.height, "yanchor": "top"}
    return figure.update_layout(legend=legend, margin={"t": 120}, height=figure.layout.height + 60)


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
