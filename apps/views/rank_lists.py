"""Rank lists: what each run puts first for one query."""

from pathlib import Path

import pandas as pd
import streamlit as st
from choices import SHOWN, Choices, chosen, need_results
from parts import link, offer_picture, offer_table, plain, stem_of
from queries import choose_query, find_query, list_queries, query_label, spoken
from rank_list_parts import RankList, list_of_crop, list_with_removed, reranked_now, stored_list

from lab.errors import InputError
from lab.runs import EvalResult, Run
from lab.show.images import file_name
from lab.show.rank_lists import stack, to_bytes
from lab.show.tables import initialisation


def main() -> None:
    choices = chosen()
    st.title("Whom does it find?")
    need_results(choices)
    result = next(iter(choices.evals.values()))[2]
    query = choose_query(choices)
    how = choose_how(choices)
    crop = how["crop"]
    lists = {}
    for name, (run, _, other) in list(choices.evals.items())[:SHOWN]:
        found = find_query(other, result.path[query])
        if found is None and crop is None:
            st.info(f"{plain(name)} has not this query.")
            continue
        try:
            lists[name] = make_list(choices, run, other, found, how)
        except InputError as error:
            st.info(plain(f"{error}"), icon=":material/info:")
            if crop is None:
                lists[name] = stored_list(other, found, how["top_k"])
    for name, ranked in lists.items():
        show_list(choices, name, ranked, query)
    if len(choices.evals) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(choices.evals)} chosen runs are shown.")
    if lists:
        query_file = Path(file_name(next(iter(lists.values())).path)).stem
        stem = f"{stem_of(lists, choices.evaluation)}-rank-lists-{query_file}"
        offer_all({title_of(choices.run(name)): ranked for name, ranked in lists.items()}, stem)
    list_queries(choices)
    st.caption("Notebooks 05 and 06 explain rank lists, the camera rule, AP and re-ranking.")


def choose_how(choices: Choices) -> dict:
    """How many ranks, what else is shown or computed now, and a gallery crop that serves as the query (by path)."""
    ranks, same, live, crop = st.columns([0.8, 1, 1, 1.8], vertical_alignment="bottom")
    how = {"top_k": ranks.selectbox("Ranks shown", [10, 5, 20, 50], key="top_k", bind="query-params")}
    how["removed"] = same.toggle(
        "Same camera", key="removed", bind="query-params", disabled=choices.rerank,
        help="Also show the crops of the same person by the same camera, which the protocol removes. Not for re-ranked "
        "lists.",
    )  # fmt: skip
    how["live"] = live.toggle(
        "Re-rank now", key="live", bind="query-params", disabled=choices.rerank,
        help="k-reciprocal re-ranking of all queries with settings of your choice, for small data sets",
    )  # fmt: skip
    with crop:
        how["crop"] = _choose_crop(choices)
    if how["live"] and how["crop"] is not None:
        st.caption("A gallery crop as the query is not re-ranked.")
    elif how["live"] and not choices.rerank:
        k1, k2, weight = st.columns(3)
        how["k1"] = k1.slider("k1: size of a neighbourhood", 1, 50, 20, key="k1", bind="query-params")
        how["k2"] = k2.slider("k2: neighbours that are averaged", 1, 20, 6, key="k2", bind="query-params")
        how["lambda_value"] = weight.slider(
            "lambda: weight of the first distance", 0.0, 1.0, 0.3, 0.05, key="lambda", bind="query-params"
        )
    return how


def _choose_crop(choices: Choices) -> str | None:
    """A gallery crop by number, or None: a selector below each list sets it too."""
    name, (_, _, result) = next(iter(choices.evals.items()))
    if result.gallery_path is None:
        return None
    number = st.number_input(
        "Gallery crop as the query", 0, len(result.gallery_path) - 1, None, key="crop", bind="query-params",
        placeholder="none", help=f"Its number in {plain(name)}'s gallery; or choose one below a list",
    )  # fmt: skip
    return None if number is None else str(result.gallery_path[number])


def make_list(choices: Choices, run: Run, result: EvalResult, query: int | None, how: dict) -> RankList:
    """The list of one run, as the switches ask for it."""
    if how["crop"] is not None:
        return list_of_crop(run, choices.dataset, how["crop"], how["top_k"], how["removed"])
    if how["live"] and not choices.rerank:
        settings = {name: how[name] for name in ("k1", "k2", "lambda_value")}
        now = reranked_now(run, choices.dataset, result, **settings)
        ranked = stored_list(now, query, how["top_k"])
        line = f"re-ranked now, mAP {100 * now.mAP:.1f} % (before {100 * result.mAP:.1f} %) · {ranked.line}"
        return RankList(ranked.path, ranked.words, ranked.entries, line, ranked.table)
    if how["removed"] and not choices.rerank:
        return list_with_removed(run, choices.dataset, result, query, how["top_k"])
    return stored_list(result, query, how["top_k"])


def show_list(choices: Choices, name: str, ranked: RankList, query: int) -> None:
    """The picture of a list, and what can be done with it."""
    run, evaluation, _ = choices.evals[name]
    title = title_of(run)
    st.image(ranked.jpeg(title), width="stretch", alt=f"Rank list of {title}. {ranked.line}. {spoken(ranked.entries)}")
    stem = f"{stem_of([name], evaluation)}-rank-list-{Path(file_name(ranked.path)).stem}"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        offer_picture(lambda: to_bytes(ranked.picture(title, 2.0)), stem, "PNG")
        offer_table(ranked.table, stem, "CSV")
        if "file" in ranked.table:
            _use_as_query(choices, name, ranked)
        if run.checkpoint.is_file() and run.config.get("stage") == "finetune":
            link("attention", "Where does it look?", "visibility", attention_run=name, query=_label(choices, query))
        if st.toggle("Table", key=f"table-{name}"):
            st.dataframe(ranked.table, hide_index=True, height=300)


def _use_as_query(choices: Choices, name: str, ranked: RankList) -> None:
    """Let a crop of this list be the query; its number is that of the first run's gallery, as in the URL."""
    first = next(iter(choices.evals.values()))[2]
    table = ranked.table.head(len(ranked.entries))
    names = [
        f"rank {rank or '-'}: pid {pid}, cam {cam}" for rank, pid, cam in table[["rank", "pid", "camid"]].to_numpy()
    ]
    key = f"use {name}"
    st.selectbox(
        "Use as query", range(len(names)), None, format_func=names.__getitem__, key=key, label_visibility="collapsed",
        placeholder="Use as query …", width=190, on_change=_take_crop, args=(key, first, table["file"].tolist()),
    )  # fmt: skip


def _take_crop(key: str, first: EvalResult, paths: list[str]) -> None:
    place = st.session_state[key]
    found = [] if place is None else (first.gallery_path == paths[place]).nonzero()[0]
    if len(found):
        st.session_state["crop"] = int(found[0])
    st.session_state[key] = None


def offer_all(lists: dict[str, RankList], stem: str) -> None:
    """All lists on the page as one picture for a slide, and as one table."""
    with st.container(horizontal=True):
        offer_picture(
            lambda: to_bytes(stack([ranked.picture(title, 2.0) for title, ranked in lists.items()])),
            stem, "All lists as one picture",
        )  # fmt: skip
        together = [ranked.table.assign(run=title) for title, ranked in lists.items()]
        offer_table(pd.concat(together, ignore_index=True), stem, "All lists as CSV")


def title_of(run: Run) -> str:
    start = initialisation(run.config)
    return f"{run.name} (from {start})" if start and start != run.name else run.name


def _label(choices: Choices, query: int) -> str:
    return query_label(next(iter(choices.evals.values()))[2], query)


main()
