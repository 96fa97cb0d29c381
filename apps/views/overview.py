"""Overview: how well each run finds people."""

import streamlit as st
from choices import chosen, need_results, plain
from loaders import read_result

from lab.show.curves import cmc_figure
from lab.show.tables import METRICS, counts_all, metrics_table


def main() -> None:
    choices = chosen()
    st.title("How well does each run find people?")
    show_table(choices)
    need_results(choices)
    show_cmc(choices)
    show_configs(choices)


def show_table(choices) -> None:
    table = metrics_table(choices.runs, lambda run, name: read_result(run, name)[0])
    if not len(table):
        return
    if not st.toggle("All data sets and rankings", key="all", bind="query-params"):
        same = (table["data set"] == choices.dataset) & (table["re-ranking"] == ("yes" if choices.rerank else "no"))
        table = table[same].drop(columns=["data set", "re-ranking"])
    table = table.sort_values("mAP", ascending=False)
    numbers = {name: st.column_config.NumberColumn(f"{name} (%)", format="%.1f") for name in METRICS}
    st.dataframe(table, hide_index=True, column_config=numbers, height="content" if len(table) < 12 else 420)
    ranked = "after re-ranking" if choices.rerank else "without re-ranking"
    zero = [plain(name) for name, (_, _, result) in choices.evals.items() if counts_all(result)]
    st.caption(
        f"{plain(choices.dataset)}, {ranked}. mAP: mean over the queries of average precision; rank-k: queries with a "
        "right match in the first k ranks; mINP: how early the last right match comes. Queries without a valid match "
        f"are not counted{'; for ' + ', '.join(zero) + ' they count as 0' if zero else ''}. "
        "A click on a column's head sorts."
    )
    st.download_button("Table as CSV", table.to_csv(index=False), "metrics.csv", "text/csv", icon=":material/download:")


def show_cmc(choices) -> None:
    ranked = ", re-ranked" if choices.rerank else ""
    title = f"CMC on {choices.dataset}{ranked}"
    figure = cmc_figure({name: result for name, (_, _, result) in choices.evals.items()}, title=title)
    st.plotly_chart(
        figure, key="cmc", theme=None, config={"toImageButtonOptions": {"format": "svg", "filename": "cmc"}}
    )


def show_configs(choices) -> None:
    st.subheader("What these runs are")
    for name, (run, _, result) in choices.evals.items():
        with st.expander(plain(name)):
            left, right = st.columns(2)
            left.caption("config.json")
            left.json(run.config, expanded=1)
            right.caption("How it was evaluated")
            right.json(result.settings, expanded=1)


main()
