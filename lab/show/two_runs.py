"""Where two runs differ, to look at: kinds of error, cameras, queries. Plotly Figures in the look of `curves`, tables.

A and B are the two runs; numbers come in as fractions from `lab.evaluate.breakdown` and are shown in per cent.
"""

import html

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.runs import EvalResult
from lab.show.curves import LINE_COLOURS, finish
from lab.show.figures import CROSS, TICK

Names = tuple[str, str]
PATTERNS = ("", "/")
WRONG_BY = {
    "first right crop": "where the first right crop stands",
    "at rank 1 instead": "who stands at rank 1 instead",
}


def outcome_table(failures: pd.DataFrame, names: Names) -> pd.DataFrame:
    """How many queries are right at rank 1 in both runs, in one, in none: group, queries, share and mAPs in per cent.

    `failures` is a table of `failure_groups`. Columns: "at rank 1", queries, "share", "A", "B" (mAP in either run).
    """
    rows = failures[failures["by"] == "at rank 1"]
    groups = {f"right in {side} only": f"right in {name} only" for side, name in zip("AB", names, strict=True)}
    return pd.DataFrame(
        {
            "at rank 1": rows["group"].replace(groups).to_numpy(),
            "queries": rows["queries"].to_numpy(),
            **{new: 100 * rows[old].to_numpy() for new, old in (("share", "share"), ("A", "ap_a"), ("B", "ap_b"))},
        }
    )


def failure_figure(failures: pd.DataFrame, names: Names, title: str = "") -> go.Figure:
    """What is wrong with the queries that are wrong at rank 1: bars of A beside those of B, in per cent of all queries.

    One panel says where their first right crop stands, the other who stands at rank 1 instead, if that is known.
    """
    panels = [by for by in WRONG_BY if (failures["by"] == by).any()]
    figure = make_subplots(1, len(panels), subplot_titles=[WRONG_BY[by] for by in panels], horizontal_spacing=0.25)
    for column, by in enumerate(panels, 1):
        for number, (side, name) in enumerate(zip("AB", names, strict=True)):
            rows = failures[(failures["by"] == by) & (failures["run"] == side)]
            words = [group.replace(", ", ",<br>") for group in rows["group"]]
            counts = rows["queries"].to_list()
            bar = _bar(number, name, 100 * rows["share"], words, counts)
            figure.add_trace(bar.update(showlegend=column == 1, orientation="h"), 1, column)
        figure.update_xaxes(title="queries (%)", rangemode="tozero", row=1, col=column)
        figure.update_yaxes(autorange="reversed", type="category", ticksuffix=" ", row=1, col=column)
    figure.update_layout(barmode="group", legend={"orientation": "h", "y": -0.22, "yanchor": "top"})
    figure.update_annotations(font={"size": 14})
    return finish(figure, title, 400).update_layout(margin={"t": 90, "l": 110})


def camera_bars(cameras: pd.DataFrame, names: Names, title: str = "mAP by camera of the query") -> go.Figure:
    """mAP of the queries of each camera, bars of A beside those of B; `cameras` is a table of `camera_breakdown`."""
    figure, camids = go.Figure(), cameras["camid"].astype(str).to_list()
    for number, (column, name) in enumerate(zip(("map_a", "map_b"), names, strict=True)):
        figure.add_trace(
            go.Bar(
                x=camids,
                y=100 * cameras[column],
                customdata=cameras["queries"],
                hovertemplate="camera %{x}: %{y:.1f} %, %{customdata:,} queries<extra>"
                + html.escape(name)
                + "</extra>",
                **_look(number, name),
            )
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(title="camera of the query", type="category")
    figure.update_yaxes(title="mAP (%)", rangemode="tozero")
    return finish(figure, title, 400)


def changed_table(rows: pd.DataFrame, a: EvalResult, b: EvalResult) -> pd.DataFrame:
    """Queries that changed, with the files of the crops that either run puts first; APs and gain in per cent.

    `rows` are rows of a `per_query_table`, `b` is in the order of `a`. Columns: query, pid, camid, A, B, gain, "first A",
    "first B" (tick and rank of the first right crop), path, "path A", "path B" ("" where a gallery is not known).
    """
    table = pd.DataFrame({"query": rows.index, **{name: rows[name].to_numpy() for name in ("pid", "camid")}})
    for new, old in (("A", "ap_a"), ("B", "ap_b"), ("gain", "gain")):
        table[new] = 100 * rows[old].to_numpy()
    for side in "ab":
        table[f"first {side.upper()}"] = [_first(rank) for rank in rows[f"first_match_{side}"]]
    table["path"] = rows["path"].to_numpy()
    for side, result in (("A", a), ("B", b)):
        table[f"path {side}"] = [_path_at_first(result, query) for query in rows.index]
    return table


def _first(rank: int) -> str:
    return "none" if rank == 0 else f"{TICK if rank == 1 else CROSS} {rank}"


def _path_at_first(result: EvalResult, query: int) -> str:
    entry = int(result.index[query, 0]) if result.index.shape[1] else -1
    return "" if entry < 0 or result.gallery_path is None else str(result.gallery_path[entry])


def _bar(number: int, name: str, values: pd.Series, words: list[str], counts: list[int]) -> go.Bar:
    return go.Bar(
        x=values,
        y=words,
        text=[f"{count:,}" for count in counts],
        customdata=counts,
        textposition="outside",
        cliponaxis=False,
        legendgroup=str(number),
        hovertemplate="%{y}: %{customdata:,} queries, %{x:.1f} %<extra>" + html.escape(name) + "</extra>",
        **_look(number, name),
    )


def _look(number: int, name: str) -> dict:
    pattern = {"shape": PATTERNS[number], "size": 6, "solidity": 0.25}
    return {"name": html.escape(name), "marker": {"color": LINE_COLOURS[number], "pattern": pattern}}
