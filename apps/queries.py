"""Choosing one query: by thumbnail, by number, one after the other, or at random, from a list that filters make shorter.

All choices live in the URL: order, filters and the query itself.
"""

import random

import numpy as np
import pandas as pd
import streamlit as st
from choices import Choices, keep_valid
from loaders import data_root, thumbnail
from parts import offer_table, plain, stem_of

from lab.errors import InputError
from lab.evaluate.breakdown import per_query_table
from lab.runs import EvalResult
from lab.show.figures import CROSS, TICK, Entry
from lab.show.tables import describe_query, query_table

ORDERS = ("in order", "worst AP first", "best AP first", "shuffled")
ANY, WRONG = "any", "wrong at rank 1"
ALL = "all"
TILES = 14  # thumbnails in a row


def choose_query(choices: Choices, name: str | None = None) -> int:
    """Ask for one query of the run `name` (the first chosen one): the answer is its number in that run's result."""
    name = name or next(iter(choices.evals))
    result = choices.evals[name][2]
    table = query_table(result)
    left, filters, middle, right = st.columns([1.2, 0.9, 1.8, 1.7], vertical_alignment="bottom")
    order = left.selectbox(
        "Queries", ORDERS, key="queries", bind="query-params", on_change=_start_at_first,
        help=f"AP and rank 1 are those of {plain(name)}",
    )  # fmt: skip
    with filters.popover("Filter", icon=":material/filter_alt:", width="stretch"):
        kept = _filter(choices, name, table)
        tiles = st.toggle("Thumbnails", True, key="thumbnails", bind="query-params")
    listed = _ordered(kept, order)
    labels = {query_label(result, query): query for query in listed.index.tolist()}
    if not labels:
        st.info("No query is like that. Take a filter away.", icon=":material/filter_alt_off:")
        st.stop()
    if "query" not in st.session_state and st.query_params.get("query") in labels:
        st.session_state["query"] = st.query_params["query"]  # so that it is still chosen on the next page
    keep_valid("query", labels)
    if st.session_state.pop("start_at_first", False):
        st.session_state["query"] = next(iter(labels))
    of = f"{len(labels):,} of {len(table):,}" if len(labels) < len(table) else f"{len(labels):,}"
    chosen = middle.selectbox(f"Query ({of})", list(labels), key="query", bind="query-params", on_change=_leave_crop)
    _buttons(right, list(labels))
    if tiles:
        _tiles(result, labels, chosen)
    return labels[chosen]


def list_queries(choices: Choices) -> None:
    """All queries of the first run as a table, to look through and to save."""
    name, (_, evaluation, result) = next(iter(choices.evals.items()))
    with st.expander(f"All queries of {plain(name)} as a table"):
        table = query_table(result)
        per_cent = {column: st.column_config.NumberColumn(f"{column} (%)", format="%.1f") for column in ("AP", "INP")}
        st.dataframe(table, column_config=per_cent)
        offer_table(table, f"{stem_of([name], evaluation)}-queries", index=True)


def query_label(result: EvalResult, query: int) -> str:
    """How a query is called in selectors and in the URL."""
    return f"{query} · pid {result.pid[query]} · cam {result.camid[query]}"


def find_query(result: EvalResult, path: str) -> int | None:
    """Where another run keeps the query with this path."""
    found = np.flatnonzero(result.path == path)
    return int(found[0]) if len(found) else None


def spoken(entries: list[Entry]) -> str:
    """The beginning of a rank list in words, for those who cannot see the picture."""
    return f"First ranks: {', '.join(entry.kind or 'unknown' for entry in entries[:5]) or 'none'}."


def _filter(choices: Choices, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `query_table` that person, camera, AP and outcome leave."""
    pids, cameras = ([ALL, *map(str, sorted(set(table[column].tolist())))] for column in ("pid", "camid"))
    keep_valid("pid", pids)
    keep_valid("cam", cameras)
    pid = st.selectbox("Person (pid)", pids, key="pid", bind="query-params")
    camera = st.selectbox("Camera of the query", cameras, key="cam", bind="query-params")
    low, high = st.slider("AP (%)", 0, 100, (0, 100), key="ap", bind="query-params")
    outcomes = {ANY: np.full(len(table), True), WRONG: (table["first match"] > 1).to_numpy(), **_against(choices, name)}
    keep_valid("outcome", outcomes)
    outcome = st.selectbox("At rank 1", list(outcomes), key="outcome", bind="query-params")
    keep = outcomes[outcome].copy()
    if pid != ALL:
        keep &= (table["pid"] == int(pid)).to_numpy()
    if camera != ALL:
        keep &= (table["camid"] == int(camera)).to_numpy()
    if (low, high) != (0, 100):
        keep &= table["AP"].between(low, high).to_numpy()  # a query without a match has no AP
    return table[keep]


def _against(choices: Choices, name: str) -> dict[str, np.ndarray]:
    """Which queries this run and another chosen one do not agree on, as masks (Q,)."""
    result, found = choices.evals[name][2], {}
    for other, (_, _, theirs) in choices.evals.items():
        if other == name:
            continue
        try:
            outcome = per_query_table(result, theirs)["outcome"].to_numpy()
        except InputError:
            continue  # of other queries: there is nothing to set against one another, and the comparison page says why
        found[f"right in {name}, wrong in {other}"] = outcome == "right in A only"
        found[f"wrong in {name}, right in {other}"] = outcome == "right in B only"
    return found


def _ordered(table: pd.DataFrame, order: str) -> pd.DataFrame:
    if order == "shuffled":
        return table.sample(frac=1, random_state=0)
    if order == "in order":
        return table
    return table[table["first match"] > 0].sort_values("AP", ascending=order == "worst AP first", kind="stable")


def _buttons(place, labels: list[str]) -> None:
    steps = {
        "first_page": (f"{TILES} queries back", -TILES),
        "arrow_back": ("Previous query", -1),
        "arrow_forward": ("Next query", 1),
        "last_page": (f"{TILES} queries on", TILES),
        "shuffle": ("Any query", 0),
    }
    with place.container(horizontal=True, gap="xxsmall", key="narrow steps"):
        for icon, (words, step) in steps.items():
            st.button("", icon=f":material/{icon}:", help=words, key=icon, on_click=_move, args=(labels, step))


def _tiles(result: EvalResult, labels: dict[str, int], chosen: str) -> None:
    """The queries around the chosen one in the list, each with a button that takes it."""
    names = list(labels)
    first = names.index(chosen) // TILES * TILES
    row = st.container(key="narrow tiles")
    for place, label in zip(row.columns(TILES, gap="xsmall"), names[first : first + TILES], strict=False):
        query = labels[label]
        picture = thumbnail(str(result.path[query]), data_root())
        place.image(picture, width="stretch", alt=f"Query {label}")
        right = int(result.first_match[query])
        says = "no match" if right == 0 else f"{TICK if right == 1 else CROSS} {100 * result.ap[query]:.0f}"
        kind = "primary" if label == chosen else "secondary"
        place.button(
            says, key=f"tile {query}", type=kind, width="stretch", on_click=_take, args=(label,),
            help=f"{plain(label)}: {plain(describe_query(result, query))}",
        )  # fmt: skip


def _take(label: str) -> None:
    st.session_state["query"] = label
    _leave_crop()


def _leave_crop() -> None:
    """Another query takes the place of a gallery crop that served as one (page of rank lists)."""
    if st.session_state.get("crop") is not None:
        st.session_state["crop"] = None


def _start_at_first() -> None:
    """A new list of queries is looked at from its top, for instance from the worst query."""
    st.session_state["start_at_first"] = True


def _move(labels: list[str], step: int) -> None:
    before = st.session_state.get("query")
    if step == 0:
        after = random.choice(labels)
    else:
        after = labels[(labels.index(before) + step) % len(labels)] if before in labels else labels[0]
    _take(after)
