"""A comparison of runs to read, to look at and to save: text for the terminal, plotly Figures, tables for CSV files.

Read and shown are per cent with one decimal, saved are fractions with all of them. A and B are the two runs of a pair.
"""

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.evaluate.breakdown import Breakdown, most_changed
from lab.evaluate.compare import METRICS, Comparison
from lab.show.curves import LINE_COLOURS, LINE_SYMBOLS, error_bars, finish
from lab.show.figures import JUNK
from lab.show.images import file_name

FRACTIONS = {  # columns that are shown in per cent, and what they are called then
    "share": "share", "share_a": "share", "share_b": "share", "ap_a": "AP in A", "ap_b": "AP in B", "gain": "gain",
    "map_a": "mAP in A", "map_b": "mAP in B", "difference": "B - A", "rank1_a": "rank-1 in A", "rank1_b": "rank-1 in B",
}  # fmt: skip
COUNTS = {"first_match_a": "first match in A", "first_match_b": "in B"}
CHANGED = 5  # queries that gained most, and lost most, that are printed


def describe_comparison(comparison: Comparison) -> str:
    """The table of means with intervals, the paired tests and what they mean, and the notes, as text."""
    first = comparison.table.iloc[0]
    lines = [
        f"{comparison.evaluation}: {first['queries']} queries of {first['people']} people, in %, with the 95 % interval of "
        f"{comparison.draws:,} bootstrap draws of people (seed {comparison.seed})",
        means_text(comparison.table),
    ]
    if comparison.pairs:
        tests = comparison.pairs[0].tests
        corrected = f", after Holm's correction for {tests} pairs" if tests > 1 else ""
        title = f"differences in points; p from swapping the results of whole people at random{corrected}"
        lines += ["", title, pairs_text(comparison), "", *(pair.sentence() for pair in comparison.pairs)]
    return "\n".join([*lines, *(f"note: {note}" for note in comparison.notes)])


def means_text(table: pd.DataFrame) -> str:
    """One line per run, one column per metric: "61.2 (57.9..64.4)"; the mean alone where it has no interval."""
    cells = [_with_interval(*row) for row in table[["mean", "low", "high"]].itertuples(index=False)]
    wide = table.assign(cell=cells).pivot(index="run", columns="metric", values="cell")
    return _text(wide.loc[table["run"].unique(), list(METRICS)])


def means_table(comparison: Comparison) -> pd.DataFrame:
    """Means of two runs with their intervals in per cent, and what the paired test says, as text, a row per metric.

    Columns: metric, A, B, difference (B - A in points; with an interval where it is tested), p.
    """
    a, b = (rows.set_index("metric") for _, rows in comparison.table.groupby("run", sort=False))
    tested = {pair.metric: pair for pair in comparison.pairs}
    rows = []
    for metric in METRICS:
        pair = tested.get(metric)
        row = {"metric": metric} | {
            name: _with_interval(*side.loc[metric, ["mean", "low", "high"]]) for name, side in (("A", a), ("B", b))
        }
        bounds = (np.nan, np.nan) if pair is None else (pair.low, pair.high)
        row["difference"] = _with_interval(b.loc[metric, "mean"] - a.loc[metric, "mean"], *bounds, sign="+")
        row["p"] = "not tested" if pair is None else p_text(pair.p_value)
        rows.append(row)
    return pd.DataFrame(rows)


def p_text(p: float) -> str:
    """A p-value as it is read."""
    if np.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 5e-5 else "< 0.0001"


def pairs_text(comparison: Comparison) -> str:
    """One line per pair: the difference and p for each tested metric; p is Holm's where several pairs were tested."""
    rows = {}
    for pair in comparison.pairs:
        label = "p (Holm)" if pair.tests > 1 else "p"
        row = rows.setdefault(f"{pair.b} - {pair.a}", {})
        row[pair.metric] = _with_interval(pair.difference, pair.low, pair.high, sign="+")
        row[f"{pair.metric} {label}"] = "-" if np.isnan(pair.p_holm) else f"{pair.p_holm:.4f}"
    return _text(pd.DataFrame.from_dict(rows, orient="index"))


def describe_breakdown(detail: Breakdown, count: int = CHANGED) -> str:
    """What fails in A and in B, cameras, pairs of cameras if known, and the queries that changed most, as text."""
    total = len(detail.queries)
    parts = [
        f"A = {detail.a}, B = {detail.b}; shares of all {total} queries, AP in %",
        _failures_text(detail.failures, "at rank 1", "both"),
        *(_wrong_text(detail.failures, by) for by in ("first right crop", "at rank 1 instead")),
        "by camera of the query, in %\n" + _table_text(detail.cameras.set_index("camid")),
    ]
    if detail.camera_pairs is not None:
        pairs = detail.camera_pairs.assign(points=[_percent(gain, "+") for gain in detail.camera_pairs["difference"]])
        matrix = pairs.pivot(index="query_camid", columns="gallery_camid", values="points").fillna("-")
        parts.append(
            f"mAP of B - A in points, camera of the query (rows) by that of the match (columns)\n{_text(matrix)}"
        )
    for title, rows in zip(("gained most", "lost most"), most_changed(detail.queries, count), strict=True):
        parts.append(
            f"{title} in B, AP in %\n{_queries_text(rows)}" if len(rows) else f"no query {title.split()[0]} in B"
        )
    return "\n\n".join(part for part in parts if part)


def comparison_tables(comparisons: Sequence[Comparison], details: Sequence[list[Breakdown]]) -> dict[str, pd.DataFrame]:
    """What `lab compare --out` saves, by the ending of the file's name: "" means, "pairs" tests, "queries" and so on."""
    tables = {"": [], "pairs": [], "queries": [], "failures": [], "cameras": [], "camera-pairs": []}
    for comparison, pairs in zip(comparisons, details, strict=True):
        mark = {"evaluation": comparison.evaluation}
        tables[""].append(comparison.table.assign(**mark))
        tables["pairs"].append(comparison.pair_table().assign(**mark))
        for detail in pairs:
            mark |= {"a": detail.a, "b": detail.b}
            for name in ("queries", "failures", "cameras"):
                tables[name].append(getattr(detail, name).assign(**mark))
            if detail.camera_pairs is not None:
                tables["camera-pairs"].append(detail.camera_pairs.assign(**mark))
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}
    marks = ("evaluation", "a", "b")
    order = {name: sorted(table.columns, key=lambda column: column not in marks) for name, table in joined.items()}
    return {name: table[order[name]] for name, table in joined.items() if len(table)}


def interval_figure(table: pd.DataFrame, title: str = "Means with 95 % intervals") -> go.Figure:
    """A dot with its interval for each run and metric, in per cent; one panel per evaluation if the table has several.

    `table` is that of a `Comparison`, or several of them below one another with a column `evaluation`.
    """
    table = table if "evaluation" in table else table.assign(evaluation="")
    evaluations, runs = list(table["evaluation"].unique()), list(table["run"].unique())
    figure = make_subplots(
        len(evaluations), 1, subplot_titles=[*map(html.escape, evaluations)], vertical_spacing=0.25 / len(evaluations)
    )
    for number, run in enumerate(runs):
        shift = (number - (len(runs) - 1) / 2) * min(0.12, 0.8 / len(runs))
        for row, evaluation in enumerate(evaluations):
            part = table[(table["run"] == run) & (table["evaluation"] == evaluation)].set_index("metric")
            part = 100 * part[["mean", "low", "high"]].reindex(METRICS)
            figure.add_scatter(
                x=np.arange(len(METRICS)) + shift,
                y=part["mean"],
                error_y=error_bars(part, 2, 4),
                mode="markers",
                marker={
                    "color": LINE_COLOURS[number % len(LINE_COLOURS)],
                    "symbol": LINE_SYMBOLS[number % len(LINE_SYMBOLS)],
                    "size": 9,
                },
                customdata=part[["low", "high"]],
                hovertemplate="%{y:.1f} % (%{customdata[0]:.1f}..%{customdata[1]:.1f})<extra>"
                + html.escape(run)
                + "</extra>",
                name=html.escape(run),
                legendgroup=run,
                showlegend=row == 0,
                row=row + 1,
                col=1,
            )
    ticks = {"tickvals": np.arange(len(METRICS)), "ticktext": METRICS, "range": [-0.5, len(METRICS) - 0.5]}
    figure.update_xaxes(zeroline=False, **ticks)
    figure.update_yaxes(title="%")
    return finish(figure, title, 90 + 340 * len(evaluations))


def ap_scatter(
    queries: pd.DataFrame, names: tuple[str, str] = ("A", "B"), title: str = "AP of each query"
) -> go.Figure:
    """AP in B against AP in A, one point per query; above the diagonal B is better. `queries` is a `per_query_table`.

    The legend counts the queries on either side. `customdata` of a point is the number of its query.
    """
    gain, figure = queries["gain"], go.Figure()
    sides = ((f"better in {names[0]}", gain < 0), (f"better in {names[1]}", gain > 0), ("the same in both", gain == 0))
    colours = (*LINE_COLOURS[:2], JUNK)
    for (name, chosen), colour, symbol in zip(sides, colours, LINE_SYMBOLS, strict=False):
        rows = queries[chosen]
        figure.add_scatter(
            x=100 * rows["ap_a"],
            y=100 * rows["ap_b"],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.6},
            name=f"{html.escape(name)}: {len(rows)}",
            customdata=rows.index,
            text=[html.escape(file_name(path)) for path in rows["path"]],
            hovertemplate="%{text}<br>%{x:.1f} % → %{y:.1f} %<extra></extra>",
        )
    figure.add_shape(type="line", x0=0, y0=0, x1=100, y1=100, line={"color": JUNK, "dash": "dash"}, layer="below")
    for axis, name in ((figure.update_xaxes, names[0]), (figure.update_yaxes, names[1])):
        axis(title=f"AP in {html.escape(name)} (%)", range=[-2, 102])
    figure.update_yaxes(scaleanchor="x", constrain="domain")
    figure.update_xaxes(constrain="domain", constraintoward="left")
    return finish(figure, title, 560)


def _with_interval(mean: float, low: float, high: float, sign: str = "") -> str:
    text = _percent(mean, sign)
    return text if np.isnan(low) else f"{text} ({_percent(low, sign)}..{_percent(high, sign)})"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}z.1f}" if np.isfinite(value) else "-"


def _failures_text(failures: pd.DataFrame, by: str, run: str) -> str:
    rows = failures[(failures["by"] == by) & (failures["run"] == run)].set_index("group")
    return f"{by}\n" + _table_text(rows[["queries", "share", "ap_a", "ap_b"]])


def _wrong_text(failures: pd.DataFrame, by: str) -> str:
    """The groups of the queries that are wrong at rank 1, those of A beside those of B; "" if they are not known."""
    rows = failures[failures["by"] == by]
    if rows.empty:
        return ""
    columns = {}
    for run in ("A", "B"):
        part = rows[rows["run"] == run].set_index("group")
        if len(part):  # else the gallery of that run is not known
            columns |= {run: part["queries"], f"share_{run.lower()}": part["share"]}
    return f"{by}, of the queries that are wrong\n" + _table_text(pd.DataFrame(columns))


def _queries_text(rows: pd.DataFrame) -> str:
    table = rows.assign(file=[file_name(path) for path in rows["path"]]).set_index("file")
    return _table_text(table[["pid", "camid", "ap_a", "ap_b", "gain", "first_match_a", "first_match_b"]])


def _table_text(table: pd.DataFrame) -> str:
    """Fractions in per cent, with their sign if they are differences; all else as it is."""
    columns = {}
    for name, column in table.items():
        sign = "+" if name in ("difference", "gain") else ""
        columns[name] = [_percent(value, sign) if name in FRACTIONS else str(value) for value in column]
    text = pd.DataFrame(columns, index=table.index)
    return _text(text.set_axis([FRACTIONS.get(name, COUNTS.get(name, name)) for name in text.columns], axis=1))


def _text(table: pd.DataFrame) -> str:
    return table.rename_axis(index=None, columns=None).fillna("-").to_string()
