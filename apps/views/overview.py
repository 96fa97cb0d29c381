"""Overview: how well each run finds people, and what it is."""

import streamlit as st
from choices import Choices, chosen, keep_valid, need_results
from loaders import DRAWS, read_intervals, read_log, read_result
from parts import link, offer_table, plain, show_chart, stem_of

from lab.data.readers.counts import other_test_set
from lab.published import published_beside, published_datasets
from lab.show.curves import cmc_figure
from lab.show.overview import ABOUT, INTERVAL, PLAIN, RERANKED, SIZE, interval_rows, overview_table, ranking_figure
from lab.show.run_facts import facts_table
from lab.show.tables import METRICS, RERANK, counts_all

MANY = 8  # evaluations whose intervals are worth a progress bar


def main() -> None:
    choices = chosen()
    st.title("How well does each run find people?")
    if choices.found:
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        metric = left.segmented_control(
            "95 % intervals of", METRICS, default="mAP", key="interval", bind="query-params", required=True
        )
        every = len({name.removesuffix(RERANK) for _, name in choices.found}) > 1 and right.toggle(
            "All data sets", key="all", bind="query-params"
        )
        intervals = draw_intervals(choices, every)
        show_table(choices, intervals, metric, every)
    need_results(choices)
    show_figures(choices, intervals, metric)
    show_published(choices)
    show_runs(choices)
    with st.container(horizontal=True):
        link("rank_lists", "Look at their rank lists", "format_list_numbered")
        link("compare", "Compare two of them", "compare_arrows")
        link("training", "See how they learned", "show_chart")
    st.caption("Notebook 05 explains the metrics, notebook 08 the intervals.")


def draw_intervals(choices: Choices, every: bool) -> dict:
    """Intervals of the data set's runs, or of all: (run, evaluation) -> table. What cannot be read is named."""
    names = {choices.dataset, choices.dataset + RERANK}
    keys = [key for key in choices.found if every or key[1] in names]
    bar = st.progress(0.0) if len(keys) > MANY else None
    found, problems = {}, []
    for number, (owner, name) in enumerate(keys):
        if bar is not None:
            bar.progress(number / len(keys), f"Drawing intervals: {number + 1} of {len(keys)}")
        result, problem = read_result(choices.run(owner), name)
        if result is None:
            problems.append(problem)
            continue
        interval = read_intervals(choices.run(owner), name)
        if interval is not None:
            found[owner, name] = interval
    if bar is not None:
        bar.empty()
    for problem in problems:
        st.error(plain(problem), icon=":material/error:")
    return found


def show_table(choices: Choices, intervals: dict, metric: str, every: bool) -> None:
    names = {choices.dataset, choices.dataset + RERANK}
    found = {key: summary for key, summary in choices.found.items() if every or key[1] in names}
    table = overview_table(choices.runs, found, intervals, metric, RERANKED if choices.rerank else PLAIN)
    if not every:
        table = table.drop(columns=[(ABOUT, "data set")])
    st.dataframe(
        table,
        hide_index=True,
        column_config=_columns(table),
        height="content" if len(table) < 12 else 480,
        placeholder="",
    )
    draws = f"{DRAWS:,} bootstrap draws of people"
    zero = [plain(name) for name, (_, _, result) in choices.evals.items() if counts_all(result)]
    st.caption(
        f"{'All data sets' if every else plain(choices.dataset)}, best first; a click on a column's head sorts. "
        "Plain: without re-ranking. mAP: "
        "mean over the queries of average precision; rank-k: queries with a right match among the first k; mINP: how early "
        f"the last right match comes. The 95 % interval of {metric} is from {draws}: other people of the same kind would "
        "give a value in about this range. Queries without a valid match are not counted"
        f"{'; for ' + ', '.join(zero) + ' they count as 0' if zero else ''}."
    )
    flat = table.set_axis([f"{name} {group}" if "%" in group else name for group, name in table.columns], axis=1)
    with st.container(horizontal=True):
        stem = stem_of(["all-runs"], "all-data-sets" if every else choices.dataset)
        offer_table(flat, f"{stem}-overview")
        offer_table(interval_rows(intervals), f"{stem}-intervals", "All intervals as CSV")


def _columns(table) -> dict:
    """How the columns are shown, by their place; place 0 is the hidden index."""
    shown = {}
    for place, (group, name) in enumerate(table.columns, start=1):
        if name in (PLAIN, RERANKED):
            shown[place] = st.column_config.NumberColumn(name, format="%.1f", width=62 if name == PLAIN else 82)
        elif name.startswith(INTERVAL):
            shown[place] = st.column_config.TextColumn("95 %", help=name, width=86)
        elif name == "run":
            shown[place] = st.column_config.TextColumn(name, pinned=True)
        elif group == SIZE and name != "stage":
            shown[place] = st.column_config.NumberColumn(name, format="localized")
    return shown


def show_figures(choices: Choices, intervals: dict, metric: str) -> None:
    left, right = st.columns(2)
    names = (choices.dataset, choices.dataset + RERANK)
    order = overview_table(choices.runs, choices.found, {}, metric, RERANKED if choices.rerank else PLAIN)
    order = list(dict.fromkeys(order[ABOUT, "run"]))
    rows = interval_rows(
        {(run, name): intervals[run, name] for run in order for name in names if (run, name) in intervals}
    )
    with left:
        if len(rows):
            figure = ranking_figure(rows, metric, f"{metric} on {choices.dataset}, with 95 % intervals")
            words = "; ".join(
                f"{row.run}, re-ranked {row[3]}: {row.mean:.1f} %"
                for row in rows[rows["metric"] == metric].itertuples()
            )
            stem = f"{stem_of(['all-runs'], choices.dataset)}-intervals-of-{metric}"
            show_chart(figure, stem, words, rows[rows["metric"] == metric])
            st.caption(
                "Each bar is a 95 % interval. Bars that overlap do not say that two runs are equal: for that, compare them "
                "query by query."
            )
        else:
            st.info("No interval can be drawn from these results.")
    with right:
        ranked = ", re-ranked" if choices.rerank else ""
        results = {name: result for name, (_, _, result) in choices.evals.items()}
        figure = cmc_figure(results, title=f"CMC on {choices.dataset}{ranked}")
        figure.update_layout(legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0})
        words = "; ".join(f"{name}: {100 * result.cmc[0]:.1f} % at rank 1" for name, result in results.items())
        show_chart(figure, f"{stem_of(results, choices.evaluation)}-cmc", f"CMC curves. {words}")
        st.caption("How often a right match is among the first r crops. The runs are those chosen in the sidebar.")


def show_published(choices: Choices) -> None:
    st.subheader("Published figures")
    names = published_datasets()
    own = choices.dataset if choices.dataset in names else "market1501"
    left, right, _ = st.columns([1, 1, 2])
    name = left.selectbox("Of the data set", names, names.index(own), key="published", bind="query-params")
    table = published_beside(name)
    labels = list(dict.fromkeys(table["labels used"]))
    keep_valid("labels", labels)
    share = right.selectbox("Labels used", labels, key="labels", bind="query-params")
    result = next(iter(choices.evals.values()))[2]
    others = other_test_set(choices.dataset, result.num_query, result.num_gallery)
    if name == choices.dataset and others:
        st.warning(
            f"These are published figures of {plain(name)}, and the runs above were tested on a part of it or an older copy "
            f"({others}): they cannot be compared.",
            icon=":material/menu_book:",
        )
    elif name == choices.dataset:
        st.info(
            f"Published by others, from their own training, on {plain(name)}. They may be set beside runs on the same data "
            "set with the same labels and network; none was computed here.",
            icon=":material/menu_book:",
        )
    else:
        st.warning(
            f"These are published figures of {plain(name)}, which is another data set than {plain(choices.dataset)}: they "
            "cannot be compared with the runs above. They only show what large trainings reach.",
            icon=":material/menu_book:",
        )
    table = table[table["labels used"] == share].drop(columns="labels used").dropna(axis=1, how="all")
    numbers = {
        column: st.column_config.NumberColumn(column, format="%.1f", width=len(column) * 6 + 36)
        for column in table
        if column.startswith(("mAP", "rank-1"))
    }
    st.dataframe(table, hide_index=True, column_config=numbers, height="content", placeholder="")
    st.caption("In %. Read in: where this lab's authors read the figure.")
    offer_table(table, f"{stem_of(['published'], name)}-figures")


def show_runs(choices: Choices) -> None:
    st.subheader("What these runs are")
    runs = {name: (run, read_log(run)[0]) for name, (run, _, _) in choices.evals.items()}
    table = facts_table(runs)
    if len(table):
        st.dataframe(table, height="content", column_config={"_index": st.column_config.TextColumn("", width=200)})
        st.caption(
            "From config.json and log.csv. Time in training is that of the logged steps, without probes and checkpoints; "
            "which machine it was is not recorded. An empty cell: the run does not say."
        )
        offer_table(table, f"{stem_of(runs)}-facts", index=True)
    else:
        st.caption("These folders say nothing about themselves: they hold results alone.")
    with st.container(horizontal=True):
        for name, (run, _, result) in choices.evals.items():
            with st.popover(f"All settings of {plain(name)}", icon=":material/settings:"):
                st.caption("config.json")
                st.json(run.config, expanded=1)
                st.caption("How it was evaluated")
                st.json(result.settings, expanded=1)


main()
