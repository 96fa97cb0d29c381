"""Embedding map: every crop is a point, and crops whose features are alike lie near one another."""

import numpy as np
import pandas as pd
import streamlit as st
from choices import Choices, chosen, keep_valid, need_results
from embedding_parts import PARTS, Crops, find_crops, map_points, read_numbers, show_crops, spell
from loaders import evaluate_command
from parts import link, plain, show_chart, stem_of
from queries import query_label

from lab.evaluate.map_points import choose_people
from lab.runs import EvalResult, Run
from lab.show.embedding import METHODS
from lab.show.embedding_map import axis_titles, grouped_map_figure, map_table, scaled_map_figure

SIZES = (1000, 500, 2000)
PERSON, CAMERA, AP = "person", "camera", "AP"
PEOPLE, MOST_PEOPLE = 6, 14  # in colour: at first, and at most
LINKS = 5
MOST_SEED = 99


def main() -> None:
    choices = chosen()
    st.title("Who lies near whom?")
    need_results(choices)
    places = st.columns([1.4, 1.35, 1.5, 0.95, 0.85], vertical_alignment="bottom")
    name = choose_run(choices, places[0])
    run, evaluation, result = choices.evals[name]
    crops, problem = find_crops(run, evaluation, result)
    if crops is None:
        show_missing(run, evaluation, problem)
        st.stop()
    method, part, size, seed = choose_map(crops, places[1:])
    try:
        points, problem = map_points(crops, part, method, size, seed)
    except Exception as error:  # the features may come from anywhere: what is wrong with them is shown, not raised
        st.error(plain(f"{name}: no map can be made. {error}"))
        st.stop()
    query, gallery = (crops.query if part != "gallery" else None), (crops.gallery if part != "query" else None)
    table = map_table(points, query, gallery, crops.numbers, result)
    say_what(crops, table, part, method, problem)
    stem = f"{stem_of([name], evaluation)}-map"
    chart = f"{stem}-{part}-{method}-{size}-{seed}"
    show_map(name, crops, table, chart, axis_titles(method, points.share), method)
    show_chosen(choices, name, result, table, stem)
    link("rank_lists", "What each run finds for a query")
    st.caption("Notebook 03 explains both maps, and how they mislead.")


def choose_run(choices: Choices, place) -> str:
    names = list(choices.evals)
    keep_valid("map_run", names)
    return place.selectbox("Run", names, key="map_run", bind="query-params", help="One run's features make one map")


def choose_map(crops: Crops, places: list) -> tuple[str, str, int, int]:
    """Method, which crops, and for a large data set how many of them and which."""
    left, middle, right, last = places
    method = left.segmented_control(
        "Map", METHODS, default=METHODS[0], required=True, key="map", bind="query-params",
        help="PCA is computed at once. t-SNE takes up to half a minute the first time, and is then kept in the run.",
    )  # fmt: skip
    part = PARTS[middle.selectbox("Crops", list(PARTS), key="crops", bind="query-params")]
    total = sum(len(features.pid) for features in crops.parts(part))
    size, seed = SIZES[0], 0
    if total > min(SIZES):
        size = right.selectbox(
            "At most", SIZES, key="map_size", bind="query-params", format_func="{:,}".format,
            help="Crops on the map. A larger set is shown by some of its people, each with all crops",
        )  # fmt: skip
    if total > size:
        seed = last.number_input(
            "Sample", 0, MOST_SEED, 0, key="map_seed", bind="query-params", help="Another number draws other people"
        )
    return method, part, size, seed


def say_what(crops: Crops, table: pd.DataFrame, part: str, method: str, problem: str) -> None:
    """What is on the map, what is not, and how to read it."""
    total = sum(len(features.pid) for features in crops.parts(part))
    what = f"All {total:,} crops"
    if len(table) < total:
        people = len(np.unique(np.concatenate([features.pid for features in crops.parts(part)])))
        what = f"{len(table):,} of {total:,} crops: all of {table['pid'].nunique():,} of {people:,} people, drawn at random"
        what += ", without distractors (pid 0)" * (crops.distractors and part != "query")
    reading = {
        "PCA": "PCA turns the features so that the two directions in which they differ most are seen, and drops all others.",
        "t-SNE": "t-SNE keeps near neighbours near; how far apart groups lie, and how wide they are, means nothing.",
    }[method]
    st.caption(f"{what}. {reading} Queries have a black rim. {plain(problem)}")


def show_map(name: str, crops: Crops, table: pd.DataFrame, stem: str, axes: tuple[str, str], method: str) -> None:
    """The map in the colours that are asked for; what is selected on it goes into the choice "points"."""
    scored = table["AP"].notna().any()
    options = [PERSON, CAMERA, AP] if scored else [PERSON, CAMERA]
    left, right = st.columns([1, 2.4], vertical_alignment="bottom")
    keep_valid("colour", options)
    colour = left.segmented_control(
        "Colour", options, default=PERSON, required=True, key="colour", bind="query-params",
        help="AP is that of queries, over the whole gallery" if scored else "AP is known for queries only",
    )  # fmt: skip
    chosen_points = take_selection(stem, len(table))
    title = f"{method} of {len(table):,} crops, {crops.dataset}, {name}"
    if colour == AP:
        figure = scaled_map_figure(table, axes, title, chosen_points)
    elif colour == CAMERA:
        figure = grouped_map_figure(table, [f"camera {camid}" for camid in table["camid"]], axes, title, chosen_points)
    else:
        with right:
            people = choose_in_colour(table, crops.distractors)
        labels = [f"person {pid}" if pid in people else "" for pid in table["pid"]]
        figure = grouped_map_figure(table, labels, axes, title, chosen_points)
    show_chart(figure, stem, f"{title}, coloured by {colour}", table.reset_index(), select=True)


def choose_in_colour(table: pd.DataFrame, distractors: bool) -> set[int]:
    """The people in colour, at first some that are drawn at random."""
    pids = [str(pid) for pid in sorted(table["pid"].unique().tolist())]
    usual = [str(pid) for pid in choose_people(table["pid"].to_numpy(), PEOPLE, 0, distractors)]
    before = st.session_state.get("who")
    keep_valid("who", pids)
    if before and not st.session_state.get("who"):  # none of them is on this map
        st.session_state["who"] = usual
    chosen_people = st.multiselect(
        "People in colour (pid)", pids, default=usual, key="who", bind="query-params", max_selections=MOST_PEOPLE,
        help="The others are grey",
    )  # fmt: skip
    return {int(pid) for pid in chosen_people}


def take_selection(stem: str, count: int) -> list[int]:
    """Put what was selected on the chart into the choice "points", which is in the URL and may be typed too."""
    selection = st.session_state.get(stem) or {"selection": {"points": []}}
    found = selection["selection"]["points"]
    numbers = sorted({number for number in map(_number, found) if number is not None and number < count})
    last_stem, last = st.session_state.get("selected on map", (stem, []))
    if numbers != last and (numbers or stem == last_stem):
        st.session_state["points"] = spell(numbers)
    st.session_state["selected on map"] = (stem, numbers)
    return read_numbers(str(st.session_state.get("points") or st.query_params.get("points") or ""), count)


def _number(point: dict) -> int | None:
    """The number of a selected point: the first of its customdata."""
    custom = point.get("customdata")
    first = custom[0] if isinstance(custom, list | tuple) and custom else custom
    return int(first) if isinstance(first, int | float) and first >= 0 else None


def show_chosen(choices: Choices, name: str, result: EvalResult, table: pd.DataFrame, stem: str) -> None:
    """The crops of the chosen points, and the rank lists of the queries among them."""
    st.subheader("Crops of chosen points")
    left, right = st.columns([6, 1], vertical_alignment="bottom")
    text = left.text_input(
        "Points", key="points", bind="query-params", placeholder="click a point, draw around some, or type: 3, 7-9",
        help="Numbers of points. Box and lasso are in the upper right corner of the chart",
    )  # fmt: skip
    right.button("Clear", icon=":material/close:", width="stretch", disabled=not text, on_click=_clear)
    numbers = read_numbers(text, len(table))
    if not numbers:
        hint = "Click a point of the map, or draw a box or a lasso around some, to see their crops."
        st.info(f"No point of this map is called {plain(text)}." if text else hint, icon=":material/ink_selection:")
        return
    rows = table.iloc[numbers]
    show_crops(rows, stem)
    queries = [number for number in rows["query"].tolist() if number >= 0]
    for query in queries[:LINKS]:
        label = query_label(result, query)
        link("rank_lists", f"Rank list of query {label}", query=label, run=[name, *(set(choices.evals) - {name})])
    if len(queries) > LINKS:
        st.caption(f"The first {LINKS} of {len(queries):,} queries have a link here.")


def _clear() -> None:
    st.session_state["points"] = ""


def show_missing(run: Run, evaluation: str, problem: str) -> None:
    """What is not there, and what makes it."""
    dataset = evaluation.removesuffix("-rerank").removesuffix("-aqe")
    st.info(plain(f"A map needs stored features. {problem}"), icon=":material/scatter_plot:")
    if run.config.get("stage") == "baseline" or run.checkpoint.is_file():
        st.code(evaluate_command(run, dataset), language="bash")
    else:
        st.markdown(
            "This run has no checkpoint to make them with. If you have its features, put them there as "
            f"{plain(f'features/{dataset}-query.npz')} and {plain(f'features/{dataset}-gallery.npz')}, each with "
            "values (N, D), pid, camid and path (N). A run with a checkpoint stores them when it is evaluated:"
        )
        st.code(f"lab evaluate --run RUN --dataset {dataset} --root DIR", language="bash")


main()
