"""Training: how a run learned."""

import streamlit as st
from choices import chosen, plain
from loaders import read_log

from lab.show.curves import loss_curves


def main() -> None:
    choices = chosen()
    st.title("How did it learn?")
    logged = {run.name: run for run in choices.runs if (run.folder / "log.csv").is_file()}
    if not logged:
        st.info("None of these runs has a log.csv. `lab pretrain` and `lab finetune` write one while they train.")
        return
    name = st.selectbox("Run", list(logged), key="trained", bind="query-params")
    log, problem = read_log(logged[name])
    if problem:
        st.error(plain(problem))
        return
    if not len(log):
        st.info(f"The log of {plain(name)} has no row yet.")
        return
    st.plotly_chart(
        loss_curves(log, name),
        theme=None,
        key="curves",
        config={"toImageButtonOptions": {"format": "svg", "filename": name}},
    )
    st.download_button("Log as CSV", log.to_csv(index=False), f"{name}-log.csv", "text/csv", icon=":material/download:")


main()
