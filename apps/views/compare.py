"""Compare two runs: which is better, how sure that is, and for which queries and cameras."""

import streamlit as st
from choices import Choices, chosen, keep_valid, need_results
from compare_parts import Pair, compare_two, show_cameras, show_failures, show_queries
from loaders import read_result, stamp_of
from parts import link, offer_table, plain

from lab.evaluate.compare import Paired
from lab.runs import EvalResult, Run
from lab.show.comparison import means_table
from lab.show.tables import RERANK

QUERIES, FAILURES, CAMERAS = "query by query", "kinds of error", "cameras"


def main() -> None:
    choices = chosen()
    st.title("Which run is better, and where?")
    need_results(choices)
    pair = choose_pair(choices)
    if pair is None:
        return
    show_verdict(pair)
    where = st.segmented_control(
        "Where do they differ?", [QUERIES, FAILURES, CAMERAS], default=QUERIES, key="where", bind="query-params"
    )
    if where == FAILURES:
        show_failures(pair)
    elif where == CAMERAS:
        show_cameras(pair)
    else:
        show_queries(pair)
    st.divider()
    with st.container(horizontal=True):
        link("rank_lists", "Their rank lists", run=pair.runs, rerank=pair.rerank)
        link("distances", "Their distances", run=pair.runs, rerank=pair.rerank)
    st.caption("Notebook 08 explains intervals, the test, and what both leave out: other seeds of the training.")


def choose_pair(choices: Choices) -> Pair | None:
    """Ask for A and B; None, and a message, where there are no two results that can be compared."""
    offered = offer_sides(choices)
    if len({run for run, _ in offered.values()}) < 2:
        st.info(
            f"Only one run has a result on {plain(choices.dataset)}, and it takes two to compare. "
            "This command evaluates another one:"
        )
        st.code(f"lab evaluate --run RUN --dataset {choices.dataset} --root DIR", language="bash")
        if len(offered) < 2:
            return None
    labels = list(offered)
    others = [labels[1], labels[0], *labels[2:]]  # B is at first the second one
    for key, offer in (("run_a", labels), ("run_b", others)):
        keep_valid(key, offer)
    left, middle, right = st.columns([6, 1, 6], vertical_alignment="bottom")
    name_a = left.selectbox("Run A", labels, key="run_a", bind="query-params")
    middle.button("", icon=":material/swap_horiz:", key="swap", width="stretch", help="Swap A and B", on_click=swap)
    name_b = right.selectbox("Run B", others, key="run_b", bind="query-params")
    if name_a == name_b:
        st.info("A and B are the same. Choose two different ones.")
        return None
    names = name_a, name_b
    places = tuple(read_side(choices, *offered[name]) for name in names)
    if None in places:
        return None
    try:
        found, detail = compare_two(
            tuple((str(run.folder), name, stamp_of(run, name)) for run, name, _ in places), names
        )
    except Exception as error:  # results may come from anywhere: why two cannot be compared is shown, not raised
        st.error(plain(error))
        return None
    return Pair(names, tuple(place[:2] for place in places), found, detail)


def offer_sides(choices: Choices) -> dict[str, tuple[str, str]]:
    """What may be compared, as (run name, evaluation) by label: chosen runs, other runs, then their other ranking."""
    wanted, other = choices.dataset, choices.dataset + RERANK
    ending = " (re-ranked)"
    if choices.rerank:
        wanted, other, ending = other, wanted, " (not re-ranked)"
    names = [*choices.evals, *(run for run, evaluation in choices.found if evaluation == wanted)]
    offered = {name: (name, wanted) for name in names}
    for run, evaluation in choices.found:
        if evaluation == other:
            offered.setdefault(run + ending, (run, other))
    return offered


def read_side(choices: Choices, name: str, evaluation: str) -> tuple[Run, str, EvalResult] | None:
    run = choices.run(name)
    result, problem = read_result(run, evaluation)
    if result is None:
        st.error(plain(problem))
        return None
    return run, evaluation, result


def swap() -> None:
    state = st.session_state
    state["run_a"], state["run_b"] = state["run_b"], state["run_a"]


def show_verdict(pair: Pair) -> None:
    """What a reader may conclude, the means, and what it all rests on."""
    first, *others = pair.found.pairs
    st.subheader(f"{sentence(first)}.")
    for test in others:
        st.markdown(f"{sentence(test)}.")
    table = means_table(pair.found)
    a, b = pair.names
    columns = {"metric": "%", "A": f"A: {a}", "B": f"B: {b}", "difference": "B - A (points)"}
    st.dataframe(table, hide_index=True, column_config=columns)
    exact = "all swaps tried" if first.exact else f"{pair.found.draws:,} random swaps"
    st.caption(
        f"{first.queries:,} queries of {first.people:,} people. In brackets the 95 % interval of {pair.found.draws:,} "
        f"bootstrap draws of whole people. p: how often swapping the results of whole people between A and B gives a "
        f"difference as large by chance ({exact}). Both speak of these two trained models and these people."
    )
    if pair.found.notes:
        st.caption(plain(f"Worth knowing: {'; '.join(pair.found.notes)}."))
    with st.container(horizontal=True):
        offer_table(pair.found.table, f"{pair.stem}-means", "Means as CSV")
        offer_table(pair.found.pair_table(), f"{pair.stem}-tests", "Tests as CSV")


def sentence(test: Paired) -> str:
    """The verdict for Markdown; a run's name stays as it is, also where it begins the sentence."""
    words = test.sentence()
    return plain(words[0].upper() + words[1:] if words.startswith("undecided") else words)


main()
