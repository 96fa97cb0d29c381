"""Rank lists: what each run puts first for one query."""

import streamlit as st
from choices import SHOWN, choose_query, chosen, find_query, need_results, plain, spoken
from loaders import data_root, rank_list_png, stamp

from lab.show.tables import initialisation, query_table, rank_list_table


def main() -> None:
    choices = chosen()
    st.title("Whom does it find?")
    need_results(choices)
    first, (_, _, result) = next(iter(choices.evals.items()))
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    with left:
        query = choose_query(first, result)
    top_k = right.selectbox("Ranks shown", [10, 5, 20, 50], key="top_k", bind="query-params")
    for name, (run, evaluation, other) in list(choices.evals.items())[:SHOWN]:
        show_rank_list(name, run, evaluation, other, find_query(other, result.path[query]), top_k)
    if len(choices.evals) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(choices.evals)} chosen runs are shown.")
    with st.expander(f"All queries of {plain(first)} as a table"):
        st.dataframe(
            query_table(result),
            column_config={
                "AP": st.column_config.NumberColumn("AP (%)", format="%.1f"),
                "INP": st.column_config.NumberColumn("INP (%)", format="%.1f"),
            },
        )


def show_rank_list(name, run, evaluation, result, query, top_k) -> None:
    if query is None:
        st.info(f"{plain(name)} has not this query.")
        return
    start = initialisation(run.config)
    title = f"{name} (from {start})" if start and start != name else name
    files = stamp(run.folder / "eval" / evaluation, run.folder / "features")
    picture = rank_list_png(str(run.folder), evaluation, files, query, top_k, title, data_root())
    st.image(picture, width="stretch", alt=spoken(result, query, name))
    table = rank_list_table(result, query)
    stem = f"{name}-{evaluation}-query{query}"
    with st.container(horizontal=True):
        st.download_button("PNG", picture, f"{stem}.png", "image/png", key=f"png-{name}", icon=":material/download:")
        st.download_button(
            "CSV", table.to_csv(index=False), f"{stem}.csv", "text/csv", key=f"csv-{name}", icon=":material/download:"
        )
        if st.toggle("Table", key=f"table-{name}"):
            st.dataframe(table, hide_index=True, height=300)


main()
