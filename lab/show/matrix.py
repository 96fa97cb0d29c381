"""The cross-domain matrix as a table and as a heat map: rows are models, columns are data sets.

Both take the table of matrix.csv: one row per cell with run, trained_on, dataset, known and figures as fractions.
"""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.evaluate.domains import HOME, SEEN
from lab.show.curves import finish

MARKS = {HOME: "*", SEEN: "†"}
LEGEND = "* trained on this data set · † trained on another split of it, with people who are searched here"


def matrix_table(table: pd.DataFrame, metric: str = "mAP") -> pd.DataFrame:
    """One figure of every cell as text in per cent, with its mark; "failed" where there is none.

    The first column says what each model was trained on, "-" if no labelled data set is known.
    """
    learnt = table.drop_duplicates("run").set_index("run")["trained_on"].fillna("").replace("", "-")
    text = table.assign(text=[_text(row[metric], row["known"]) for _, row in table.iterrows()])
    wide = text.pivot(index="run", columns="dataset", values="text")
    wide = wide.loc[table["run"].drop_duplicates(), table["dataset"].drop_duplicates()]
    wide.insert(0, "trained on", learnt)
    return wide.rename_axis(index=None, columns=None)


def matrix_figure(table: pd.DataFrame, metric: str = "mAP", title: str = "Every model on every data set") -> go.Figure:
    """One figure of every cell as a heat map from 0 to 100 %, with the number and its mark in the cell."""
    text = matrix_table(table, metric)
    learnt = text.pop("trained on")
    values = table.assign(value=100 * table[metric].astype(float)).pivot(index="run", columns="dataset", values="value")
    values = values.loc[text.index, text.columns]
    rows = [html.escape(str(run)) for run in text.index]
    rows = [
        f"{row}<br>trained on {html.escape(name)}" if name != "-" else row
        for row, name in zip(rows, learnt, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            x=[html.escape(str(name)) for name in text.columns],
            y=rows,
            z=values.to_numpy(),
            text=text.to_numpy(),
            texttemplate="%{text}",
            zmin=0,
            zmax=100,
            colorscale="Blues",
            xgap=2,
            ygap=2,
            colorbar={"title": f"{metric} (%)"},
            hovertemplate="%{y}<br>on %{x}: %{text}<extra></extra>",
            hoverongaps=False,
        )
    )
    figure.update_xaxes(title="evaluated on", type="category", side="top", showgrid=False)
    figure.update_yaxes(title="model", type="category", autorange="reversed", showgrid=False)
    figure.add_annotation(
        text=LEGEND, x=0, y=0, xref="paper", yref="paper", xanchor="left", yanchor="top", yshift=-8, showarrow=False
    )
    figure = finish(figure, f"{title}: {metric}", 190 + 60 * len(text))
    return figure.update_layout(margin={"t": 110, "b": 50}, title={"y": 1, "yanchor": "top", "pad": {"t": 14}})


def _text(value: float | None, known: str | None) -> str:
    if value is None or np.isnan(value):
        return "failed"
    return f"{100 * value:.1f}{MARKS.get(known, '')}"
