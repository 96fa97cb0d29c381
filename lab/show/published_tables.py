"""Published figures as a picture, ours beside them, and not on the same axes: they are of other data.

Plotly Figures in the look of `curves`. Everything is in per cent.
"""

import html

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.show.curves import LINE_SYMBOLS, finish, line_style

SHARE = "labelled identities used (%)"


def published_figure(
    table: pd.DataFrame, ours: pd.DataFrame, dataset: str = "market1501", our_data: str = "ours", title: str = ""
) -> go.Figure:
    """mAP against the share of labelled identities, by starting point: as published (left) and ours (right).

    `table` is that of `lab.published.published_results`; `ours` has columns start, ratio (0..1), mAP (%). The panels have
    axes of their own.
    """
    setting = table["setting"].str.startswith(("small-scale", "full")) & (table["method"] == "MGN")
    paper = table["source"].str.endswith("paper") & (table["backbone"] == "resnet50") & (table["rerank"] == "no")
    rows = table[setting & paper & (table["dataset"] == dataset)].rename(columns={"pretraining": "start"})
    figure = make_subplots(
        1,
        2,
        subplot_titles=[f"LUPerson, as published: {dataset}", f"here: {html.escape(our_data)}"],
        horizontal_spacing=0.13,
    )
    for column, part in enumerate((rows, ours), start=1):
        for number, (start, line) in enumerate(part.groupby("start", sort=False)):
            line = line.sort_values("ratio")
            number += 3 * (column - 1)  # other colours: these are other starting points
            figure.add_scatter(
                x=100 * line["ratio"],
                y=line["mAP"],
                name=html.escape(str(start)),
                mode="lines+markers",
                line=line_style(number),
                marker={"symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)], "size": 9},
                legend=f"legend{column if column > 1 else ''}",
                hovertemplate="%{x:.0f} % of the identities: %{y:.1f} %<extra>" + html.escape(str(start)) + "</extra>",
                row=1,
                col=column,
            )
        figure.update_xaxes(title=SHARE, range=[0, 105], row=1, col=column)
        figure.update_yaxes(title="mAP (%)", row=1, col=column)
    place = {"yanchor": "top", "y": -0.2, "xanchor": "left"}
    figure.update_layout(legend={"x": 0, **place}, legend2={"x": 0.56, **place})
    return finish(figure, title, 500).update_layout(margin={"b": 150, "t": 90})
