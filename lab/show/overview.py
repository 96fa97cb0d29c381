"""All runs at a glance: a table without and with re-ranking side by side, and a figure of the intervals.

What is shown is in per cent. Results come as result.json says them (`summary`), so that a page with many runs need not
read their rank lists.
"""

import html
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.runs import Run
from lab.show.curves import LINE_COLOURS, error_bars, finish
from lab.show.run_facts import labels_used
from lab.show.tables import METRICS, RERANK, initialisation, metrics

PLAIN, RERANKED = "plain", "re-ranked"
RANKINGS = {"": PLAIN, RERANK: RERANKED}
ABOUT, SIZE = "", "of the run"
INTERVAL = "95 % "  # and the ranking that it belongs to

Found = Mapping[tuple[str, str], dict]  # (run name, evaluation name) -> what result.json says
Intervals = Mapping[tuple[str, str], pd.DataFrame]  # the same -> mean, low, high of each metric, as fractions


def overview_table(
    runs: Sequence[Run], found: Found, intervals: Intervals, metric: str = "mAP", best: str = PLAIN
) -> pd.DataFrame:
    """One row per run and data set, each metric without and with re-ranking side by side, best first.

    Columns have two levels: ABOUT (what a run is), a group for each metric, in per cent, and SIZE (stage and sizes).
    `metric` comes first and has its 95 % intervals beside the means, as "low–high"; `best` is the ranking whose `metric`
    sorts. What is missing is NaN, in an interval ""; a ranking that no run has is left out.
    """
    rankings = {
        end: name for end, name in RANKINGS.items() if any(key[1].endswith(RERANK) == bool(end) for key in found)
    }
    rows = []
    for run in runs:
        for dataset in sorted({name.removesuffix(RERANK) for owner, name in found if owner == run.name}):
            keys = {ranking: (run.name, dataset + ending) for ending, ranking in rankings.items()}
            means = {ranking: summary_metrics(found[key]) for ranking, key in keys.items() if key in found}
            row = {
                (ABOUT, "run"): run.name,
                (ABOUT, "data set"): dataset,
                (ABOUT, "initialised from"): initialisation(run.config),
                (ABOUT, "labels used"): labels_used(run.config),
            }
            for name in sorted(METRICS, key=lambda name: name != metric):
                for ranking, key in keys.items():
                    row[group(name), ranking] = means.get(ranking, {}).get(name, np.nan)
                    if name == metric:
                        row[group(name), INTERVAL + ranking] = interval_text(intervals.get(key), name)
            sizes = next(iter(means.values()))
            row[SIZE, "stage"] = str(run.config.get("stage") or "")
            rows.append(row | {(SIZE, name): sizes[name] for name in ("queries counted", "queries", "gallery")})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    by = (group(metric), best if best in rankings.values() else next(iter(rankings.values())))
    return table.sort_values(by, ascending=False, kind="stable").reset_index(drop=True)


def group(metric: str) -> str:
    """The name above the columns of a metric."""
    return f"{metric} (%)"


def summary_metrics(summary: dict) -> dict:
    """The means that result.json says, in per cent, and over how many queries and gallery crops they go."""
    return metrics(SimpleNamespace(**({"settings": {}} | summary)))


def interval_text(interval: pd.DataFrame | None, metric: str) -> str:
    """The 95 % interval of one metric as "57.9–64.4"; "" where there is none."""
    if interval is None or interval.loc[metric, ["low", "high"]].isna().any():
        return ""
    low, high = 100 * interval.loc[metric, ["low", "high"]]
    return f"{low:.1f}–{high:.1f}"


def interval_rows(intervals: Intervals) -> pd.DataFrame:
    """All intervals, one below the other, to save or to draw: run, data set, re-ranking, metric, mean, low, high (%)."""
    rows = []
    for (run, name), interval in intervals.items():
        marks = {"run": run, "data set": name.removesuffix(RERANK), "re-ranking": "yes" if RERANK in name else "no"}
        for metric, values in (100 * interval).iterrows():
            rows.append(marks | {"metric": metric} | values.to_dict())
    return pd.DataFrame(rows, columns=["run", "data set", "re-ranking", "metric", "mean", "low", "high"])


def ranking_figure(rows: pd.DataFrame, metric: str = "mAP", title: str = "") -> go.Figure:
    """A line per run, the first on top: the mean as a mark and its interval as a bar, without and with re-ranking.

    `rows` are those of `interval_rows`, of one data set. Without re-ranking is a full circle, with it an open diamond.
    """
    rows = rows[rows["metric"] == metric]
    runs = list(rows["run"].unique())
    looks = {"no": ("without re-ranking", "circle", 0, -0.14), "yes": ("re-ranked", "diamond-open", 1, 0.14)}
    looks = {key: look for key, look in looks.items() if (rows["re-ranking"] == key).any()}
    figure = go.Figure()
    for key, (name, symbol, colour, shift) in looks.items():
        part = rows[rows["re-ranking"] == key]
        figure.add_scatter(
            x=part["mean"],
            y=[runs.index(run) + (shift if len(looks) > 1 else 0) for run in part["run"]],
            error_x=error_bars(part, 2.5, 5),
            mode="markers",
            marker={"color": LINE_COLOURS[colour], "symbol": symbol, "size": 11},
            name=name,
            customdata=part[["run", "low", "high"]].assign(run=part["run"].map(html.escape)),
            hovertemplate="%{customdata[0]}: %{x:.1f} % (%{customdata[1]:.1f} to %{customdata[2]:.1f})"
            + f"<extra>{name}</extra>",
        )
    figure.update_xaxes(title=f"{metric} (%)", zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(runs))),
        ticktext=[html.escape(run if len(run) < 34 else f"{run[:15]}…{run[-17:]}") for run in runs],
        range=[len(runs) - 0.5, -0.5],
        zeroline=False,
        showgrid=False,
        automargin=True,
    )
    for number in range(1, len(runs)):
        figure.add_hline(y=number - 0.5, line={"color": "#E6E6E6", "width": 1})
    finish(figure, title, max(430, 190 + 40 * len(runs)))
    below = -75 / (figure.layout.height - 180)  # under the axis title, whatever the height
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": below, "yanchor": "top"}
    return figure.update_layout(legend=legend, margin={"b": 120})
