"""Parts of the page that compares two runs: query by query, kinds of error, cameras. Numbers are of lab.evaluate."""

import base64
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st
from choices import keep_valid
from loaders import Stamp, data_root, read_cameras, read_result, thumbnail
from parts import go_to, link, offer_table, plain, show_chart, stem_of
from queries import query_label

from lab.evaluate.breakdown import Breakdown, break_down, camera_matrices, most_changed
from lab.evaluate.camera_pairs import METRICS
from lab.evaluate.compare import Comparison, compare
from lab.runs import EvalResult, Run
from lab.show.comparison import ap_scatter
from lab.show.images import file_name
from lab.show.pairs import camera_matrix_figure
from lab.show.tables import RERANK, describe_query
from lab.show.two_runs import camera_bars, changed_table, failure_figure, outcome_table
from lab.show.uncertainty import difference_matrix_figure

DRAWS = 10_000  # as `lab compare`: 0.45 s for 3,368 queries of 750 people on one core
WIDE = 8  # gallery cameras up to which two matrices stand side by side
LISTED = 50  # queries that were chosen with a box or lasso and are listed


@dataclass(frozen=True)
class Pair:
    """Two results that were compared: names, (run, evaluation) of each, and what was found."""

    names: tuple[str, str]
    places: tuple[tuple[Run, str], tuple[Run, str]]
    found: Comparison
    detail: Breakdown

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(run.name for run, _ in self.places))

    @property
    def rerank(self) -> str:
        """The ranking of A, for addresses of other pages, which show one ranking at a time."""
        return "true" if self.places[0][1].endswith(RERANK) else ""

    @property
    def results(self) -> tuple[EvalResult, EvalResult]:
        """Both with their queries in the order of A."""
        return tuple(self.found.results[name] for name in self.names)

    @property
    def stem(self) -> str:
        return stem_of(self.names, self.places[0][1])

    def label(self, query: int) -> str:
        return query_label(self.results[0], query)

    def open(self, query: int) -> None:
        go_to("rank_lists", query=self.label(query), run=self.runs, rerank=self.rerank)


@st.cache_resource(max_entries=8, show_spinner="Comparing the two runs …")
def compare_two(
    places: tuple[tuple[str, str, Stamp], tuple[str, str, Stamp]], names: tuple[str, str]
) -> tuple[Comparison, Breakdown]:
    """Means, tests and breakdown of two evaluations, each given by its run folder, its name and when it changed."""
    results = {}
    for name, (folder, evaluation, _) in zip(names, places, strict=True):
        results[name], problem = read_result(Run(Path(folder)), evaluation)
        if problem:
            raise ValueError(problem)
    found = compare(results, places[0][1], DRAWS)
    return found, break_down(found)[0]


def show_queries(pair: Pair) -> None:
    """AP against AP, and the queries that changed most; a click opens the rank lists."""
    queries = pair.detail.queries
    figure = ap_scatter(queries, pair.names, f"AP of each of {len(queries.dropna(subset=['ap_a', 'ap_b'])):,} queries")
    alt = f"AP of each query in {pair.names[1]} against that in {pair.names[0]}"
    figure.update_layout(legend={"orientation": "h", "y": -0.13, "yanchor": "top"})
    left, right = st.columns([3, 2])
    with left:
        points = show_chart(figure, f"{pair.stem}-queries", alt, queries.reset_index(), select=True)
    with right:
        st.markdown(
            "One point per query; above the line B is better. **A click on a point opens the rank lists of both runs.** "
            "Box and lasso, in the corner of the chart, list several queries."
        )
        pick_query(pair)
    picked = sorted({query for point in points if (query := clicked(point)) in queries.index})
    if len(picked) == 1:
        pair.open(picked[0])
    if picked:
        show_changed(pair, queries.loc[picked[:LISTED]], "Chosen in the chart", "chosen", f"{len(picked):,} queries")
    count = st.selectbox("Queries listed below", [5, 10, 20, 50], key="changed", bind="query-params", width=200)
    better, worse = (f"{'gained' if gained else 'lost'} most in {pair.names[1]}" for gained in (True, False))
    for rows, title, stem in zip(most_changed(queries, count), (better, worse), ("gained", "lost"), strict=True):
        show_changed(pair, rows, title[0].upper() + title[1:], stem, f"No query has {stem} in B.")


def clicked(point: dict) -> int | None:
    """The query of a clicked point, whose number comes alone or in a list."""
    data = point.get("customdata")
    data = data[0] if isinstance(data, list | tuple) and data else data
    return int(data) if isinstance(data, int | float) else None


def show_changed(pair: Pair, rows: pd.DataFrame, title: str, stem: str, words: str) -> None:
    """A table of queries with pictures: a click at the left of a row opens its rank lists."""
    st.subheader(plain(title))
    if not len(rows):
        st.caption(plain(words))
        return
    table = changed_table(rows, *pair.results)
    shown = table.drop(columns=["path A", "path B"]).assign(path=[file_name(path) for path in table["path"]])
    for place, (name, column) in enumerate({"crop": "path", "1st in A": "path A", "1st in B": "path B"}.items()):
        shown.insert(place, name, [picture(path) for path in table[column]])
    number, image, text = st.column_config.NumberColumn, st.column_config.ImageColumn, st.column_config.TextColumn
    config = {
        side: number(f"AP {side} (%)", format="%.1f", help=plain(name))
        for side, name in zip("AB", pair.names, strict=True)
    }
    config["gain"] = number("gain", format="%+.1f", help="AP in B - AP in A, in points")
    config |= {name: image(name, width=64) for name in ("crop", "1st in A", "1st in B")}
    config |= {f"first {side}": text(f"first {side}", help=f"Rank of the first right crop in {side}") for side in "AB"}
    config["path"] = "file"
    event = st.dataframe(
        shown, hide_index=True, column_config=config, row_height=76, key=f"{stem} rows", height=min(5, len(shown)) * 76 + 38,
        on_select="rerun", selection_mode="single-row",
    )  # fmt: skip
    offer_table(table, f"{pair.stem}-{stem}")
    chosen = [row for row in event["selection"]["rows"] if row < len(table)] if event else []
    if chosen:
        pair.open(int(table["query"].iloc[chosen[0]]))


def picture(path: str) -> str:
    """A crop as text that a table shows as a picture."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail(path, data_root())).decode()


def pick_query(pair: Pair) -> None:
    """A way to a query's rank lists without a mouse."""
    labels = {pair.label(query): query for query in pair.detail.queries.index.tolist()}
    keep_valid("open", labels, None)
    label = st.selectbox(
        "Open a query", list(labels), None, key="open", bind="query-params", placeholder="type its number, pid …"
    )
    if label is None:
        return
    query = labels[label]
    row, (a, b) = pair.detail.queries.loc[query], pair.names
    st.image(thumbnail(str(row["path"]), data_root()), width=80, alt=f"Query {label}")
    st.markdown(plain(f"{a}: {describe_query(pair.results[0], query)}"))
    st.markdown(plain(f"{b}: {describe_query(pair.results[1], query)}"))
    link("rank_lists", "Open its rank lists", query=label, run=pair.runs, rerank=pair.rerank)


def show_failures(pair: Pair) -> None:
    """Right or wrong at rank 1 in both runs, and what is wrong with those that are wrong."""
    a, b = pair.names
    table = outcome_table(pair.detail.failures, pair.names)
    numbers = {"share": "share (%)", "A": f"mAP in A: {a} (%)", "B": f"mAP in B: {b} (%)"}
    st.dataframe(
        table, hide_index=True,
        column_config={name: st.column_config.NumberColumn(text, format="%.1f") for name, text in numbers.items()},
    )  # fmt: skip
    offer_table(table, f"{pair.stem}-outcomes")
    if len(pair.runs) == 2 and len({place[1] for place in pair.places}) == 1:
        with st.container(horizontal=True):
            for words in (f"right in {a}, wrong in {b}", f"wrong in {a}, right in {b}"):
                link("rank_lists", f"Those {words}", run=pair.runs, rerank=pair.rerank, outcome=words)
    figure = failure_figure(pair.detail.failures, pair.names, "What is wrong with the queries that are wrong at rank 1")
    alt = f"Bars of the kinds of error of {a} beside those of {b}"
    show_chart(figure, f"{pair.stem}-failures", alt, pair.detail.failures)
    st.caption(
        "Bars are shares of all queries, the numbers count queries. 'Other person, own camera' at rank 1: the run fell "
        "for the place and not for the person. A distractor is a gallery crop that shows nobody whom queries ask for."
    )


def show_cameras(pair: Pair) -> None:
    """Matrices of A, of B and their difference by pair of cameras; where they are not known, by the query's camera."""
    cameras, problems = zip(*(read_cameras(*place) for place in pair.places), strict=True)
    (a, b), problems = pair.names, [problem for problem in problems if problem]
    if problems:
        for problem in problems:
            st.info(plain(problem))
        figure = camera_bars(pair.detail.cameras, pair.names)
        show_chart(figure, f"{pair.stem}-cameras", f"mAP of {a} and {b} by camera of the query", pair.detail.cameras)
        st.caption(
            "All queries of one camera, searched in the whole gallery. Few queries make a mean that moves easily."
        )
        return
    metric = st.selectbox("Measure", METRICS, key="measure", bind="query-params", width=200)
    results = [read_result(*place)[0] for place in pair.places]
    try:
        matrices = camera_matrices(*results, *cameras, metric)
    except Exception as error:  # a file from anywhere: what is wrong with it is shown, not raised
        st.error(plain(error))
        return
    titles = [f"A: {a}, {metric}", f"B: {b}, {metric}", f"B - A, {metric}"]
    figures = [draw(matrix, title) for draw, matrix, title in zip(DRAWN, matrices, titles, strict=True)]
    side_by_side = matrices[0].shape[1] <= WIDE
    places = [*(st.columns(2) if side_by_side else [st.container(), st.container()]), st.container()]
    stems = [f"{pair.stem}-{metric}-by-camera-{side}" for side in ("A", "B", "difference")]
    for place, figure, matrix, title, stem in zip(places, figures, matrices, titles, stems, strict=True):
        with place:
            show_chart(figure, stem, f"Matrix of {title} by camera", matrix.reset_index())
    st.caption(
        "Each query is searched among the crops of one gallery camera alone. Blank: a camera with itself, or nobody to "
        "find. In the difference, blue is a gain in B and orange a loss. A cell is a mean over few people, so it is noisy."
    )


DRAWN = (camera_matrix_figure, camera_matrix_figure, difference_matrix_figure)
