"""Maps of features to hover, zoom and select in: every crop is a point that knows its number.

Plotly Figures in the look of `curves`; `embedding` computes where the points lie and draws them for paper. Legend:
M points.
"""

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.evaluate.map_points import MapPoints
from lab.runs import EvalResult, Features
from lab.show.curves import LINE_COLOURS, LINE_SYMBOLS, finish
from lab.show.embedding import REST, natural
from lab.show.images import file_name

HEIGHT = 600
RIM = "#000000"  # around queries
SIZES = {"rest": 6, "group": 10, "query": 12}  # pixels


def map_table(
    points: MapPoints, query: Features | None, gallery: Features | None, numbers: np.ndarray, result: EvalResult
) -> pd.DataFrame:
    """One row per point of a map: x, y, part, pid, camid, query (its number in the result, or -1), AP in per cent, file.

    `points.row` counts the crops of `query`, then those of `gallery`; a part that is not shown is None. `numbers` are
    the stored queries' numbers in `result`.
    """
    parts = [part for part in (query, gallery) if part is not None]
    own = np.concatenate([numbers if part is query else np.full(len(part.pid), -1) for part in parts])[points.row]
    names = np.concatenate([np.full(len(part.pid), "query" if part is query else "gallery") for part in parts])
    columns = {name: np.concatenate([getattr(part, name) for part in parts])[points.row] for name in ("pid", "camid")}
    ap = np.full(len(own), np.nan)
    ap[own >= 0] = 100 * result.ap[own[own >= 0]]
    table = {"x": points.points[:, 0], "y": points.points[:, 1], "part": names[points.row], **columns}
    path = np.concatenate([part.path for part in parts])[points.row]
    return pd.DataFrame({**table, "query": own, "AP": ap, "file": path}).rename_axis("point")


def grouped_map_figure(
    table: pd.DataFrame,
    labels: Sequence[str],
    axes: tuple[str, str],
    title: str = "Embedding map",
    chosen: Sequence[int] = (),
) -> go.Figure:
    """Each crop of a `map_table` as a point; a group has a colour and a symbol, queries are larger with a black rim.

    `labels` (M,) name the group of each; "" are small grey dots below the others, without a name in the legend. The
    others fade beside `chosen` points.
    """
    labels = np.asarray(labels, dtype=np.str_)
    figure = go.Figure()
    _add(figure, table[labels == ""], "", REST, "circle", False)
    for number, name in enumerate(sorted(set(labels[labels != ""].tolist()), key=natural)):
        symbol = LINE_SYMBOLS[(number + number // len(LINE_COLOURS)) % len(LINE_SYMBOLS)]
        _add(figure, table[labels == name], name, LINE_COLOURS[number % len(LINE_COLOURS)], symbol, True)
    return _frame(figure, axes, title, chosen)


def scaled_map_figure(
    table: pd.DataFrame, axes: tuple[str, str], title: str = "Embedding map", chosen: Sequence[int] = ()
) -> go.Figure:
    """Queries of a `map_table` in the colour of their AP, dark is bad; the others are small grey dots.

    A query without an AP, which has no valid match, is a black cross. The others fade beside `chosen` points.
    """
    figure = go.Figure()
    queries, known = (table["part"] == "query").to_numpy(), table["AP"].notna().to_numpy()
    _add(figure, table[~queries], "", REST, "circle", False)
    _add(figure, table[queries & ~known], "", RIM, "x", True)
    scored = table[queries & known]
    _add(figure, scored, "", scored["AP"].tolist(), "circle", True)
    bar = {"title": {"text": "AP (%)"}, "thickness": 14}
    figure.update_traces(
        marker={"colorscale": "Cividis", "cmin": 0, "cmax": 100, "colorbar": bar, "showscale": True},
        selector=lambda trace: not isinstance(trace.marker.color, str),
    )
    return _frame(figure, axes, title, chosen)


def axis_titles(method: str, share: np.ndarray) -> tuple[str, str]:
    """What the two axes of a map mean: for PCA how much of the variance each keeps."""
    if np.isfinite(share).all():
        return tuple(
            f"direction {at + 1}: {100 * part:.1f} % of the variance" for at, part in enumerate(share.tolist())
        )
    return f"{method} axis 1 (no unit)", f"{method} axis 2 (no unit)"


def _add(figure: go.Figure, rows: pd.DataFrame, name: str, colour, symbol: str, large: bool) -> None:
    """The points of one group. `customdata` of each begins with its number in the table."""
    if not len(rows):
        return
    query = (rows["part"] == "query").to_numpy()
    custom = [
        [number, pid, camid, part, html.escape(file_name(file)), f"AP {ap:.1f} %" if ap == ap else ""]
        for number, pid, camid, part, file, ap in rows[["pid", "camid", "part", "file", "AP"]].itertuples()
    ]
    figure.add_scatter(
        x=rows["x"],
        y=rows["y"],
        mode="markers",
        name=html.escape(name),
        showlegend=bool(name),
        customdata=custom,
        marker={
            "color": colour,
            "symbol": symbol,
            "opacity": 0.9,
            "size": np.where(query, SIZES["query"], SIZES["group"]) if large else SIZES["rest"],
            "line": {"color": RIM, "width": np.where(query, 1.6, 0) if large else 0},
        },
        selected={"marker": {"opacity": 1} if large else {"opacity": 1, "color": "#555555", "size": 9}},
        unselected={"marker": {"opacity": 0.25}},
        hovertemplate="pid %{customdata[1]}, camera %{customdata[2]}, %{customdata[3]} %{customdata[5]}"
        "<br>%{customdata[4]}<extra></extra>",
    )


def _frame(figure: go.Figure, axes: tuple[str, str], title: str, chosen: Sequence[int]) -> go.Figure:
    """Axes without numbers, which would have no unit, and alike in scale, so that distances on the map are to be seen."""
    wanted = set(chosen)
    for trace in figure.data if wanted else ():
        trace.selectedpoints = [at for at, custom in enumerate(trace.customdata) if custom[0] in wanted]
    look = {"showticklabels": False, "zeroline": False, "showgrid": False, "showline": True, "mirror": True}
    figure.update_xaxes(title=axes[0], linecolor="#B0B0B0", **look)
    figure.update_yaxes(title=axes[1], linecolor="#B0B0B0", scaleanchor="x", **look)
    figure.update_layout(dragmode="pan", clickmode="event+select", legend={"itemsizing": "constant"})
    finish(figure, title, HEIGHT)
    return figure.update_layout(margin={"l": 40, "b": 45})
