"""Training: how a run learned, and what it got to see."""

import pandas as pd
import streamlit as st
from choices import Choices, chosen, keep_valid
from loaders import read_log
from parts import link, offer_table, plain, show_chart, stem_of
from training_parts import show_views

from lab.runs import Run
from lab.show.curves import epochs, loss_curves, with_chance
from lab.show.run_facts import batch_size
from lab.show.tables import settings_of

CURVES, VIEWS = "curves", "views"
STEPS, EPOCHS = "steps", "epochs"


def main() -> None:
    choices = chosen()
    st.title("How did it learn?")
    logged = {run.name: run for run in choices.runs if (run.folder / "log.csv").is_file()}
    left, middle, right = st.columns([2.4, 1.2, 1.2], vertical_alignment="bottom")
    names = choose_trained(left, choices, logged)
    panel = right.segmented_control(
        "Show",
        [CURVES, VIEWS],
        default=CURVES,
        key="panel",
        bind="query-params",
        required=True,
        help="Views: what training does to crops",
    )
    if panel == VIEWS:
        show_views(choices, [logged[name] for name in names])
        st.caption("Notebook 02 explains the views of pre-training, notebook 04 fine-tuning.")
    elif not logged:
        st.info("None of these runs has a log.csv. `lab pretrain` and `lab finetune` write one while they train:")
        st.code("lab pretrain --data FOLDER --out runs/pre --size tiny", language="bash")
    elif not names:
        st.info("Choose at least one run that has a log.csv, in the sidebar or above.")
    else:
        show_curves({name: logged[name] for name in names}, middle)
    with st.container(horizontal=True):
        link("overview", "What the runs are worth", "leaderboard")
        link("embedding", "See what a run learned", "scatter_plot")


def choose_trained(place, choices: Choices, logged: dict[str, Run]) -> list[str]:
    """Which runs: those of the sidebar that have a log, or any with a log, as a pre-training is never in the sidebar."""
    if not logged:
        return []
    own = [name for name in choices.evals if name in logged]
    others = not own or "trained" in st.query_params
    if place.toggle("Other runs than in the sidebar", others, key="other_runs", bind="query-params"):
        keep_valid("trained", logged)
        usual = own or [next(iter(logged))]
        return place.multiselect("Runs with a log", list(logged), default=usual, key="trained", bind="query-params")
    missing = [plain(name) for name in choices.evals if name not in logged]
    if missing:
        place.caption(f"No log.csv, so there are no curves of: {', '.join(missing)}")
    return own


def show_curves(runs: dict[str, Run], place) -> None:
    logs = {}
    for name, run in runs.items():
        log, problem = read_log(run)
        if problem:
            st.error(plain(problem))
        elif not len(log):
            st.info(f"The log of {plain(name)} has no row yet.")
        else:
            queue = settings_of(run.config).get("queue_size")
            logs[name] = with_chance(log, queue if isinstance(queue, int) else None)
    if not logs:
        return
    over = STEPS
    if all(epochs(log).notna().any() for log in logs.values()):
        over = place.segmented_control(
            "Over", [EPOCHS, STEPS], default=EPOCHS, key="over", bind="query-params", required=True
        )
    title = next(iter(logs)) if len(logs) == 1 else f"{len(logs)} runs"
    figure = loss_curves(logs, title, "epoch" if over == EPOCHS else "step")
    lasts = [
        f"{name}: loss {last_of(log, 'loss')}, accuracy {last_of(log, 'accuracy', 100)} %" for name, log in logs.items()
    ]
    show_chart(figure, f"{stem_of(logs)}-training-curves", f"Training curves. At the end {'; '.join(lasts)}")
    st.caption(" ".join(reading(runs, logs)))
    with st.container(horizontal=True):
        for name, log in logs.items():
            offer_table(log, f"{stem_of([name])}-log", f"Log of {plain(name)} as CSV")


def reading(runs: dict[str, Run], logs: dict[str, pd.DataFrame]) -> list[str]:
    """How to read the curves of these stages, in sentences."""
    said = []
    if any("chance_accuracy" in log for log in logs.values()):
        said.append(
            "Pre-training: the grey dashed lines are what guessing gives, a loss of log(K + 1) and an accuracy of 1/(K + 1) "
            "with K keys in the queue. The first steps, with a queue of random keys, mean nothing."
        )
        sizes = {batch_size(settings_of(runs[name].config)) for name, log in logs.items() if "batch_accuracy" in log}
        if len(sizes) == 1 and None not in sizes:
            size = sizes.pop()
            said.append(
                f"In batch: the own key found among those of the same batch; guessing gives {100 / size:.1f} % "
                f"(1/{size}; more on several GPUs)."
            )
    if any("loss_cls" in log for log in logs.values()):
        said.append(
            "Fine-tuning: accuracy is the share of training crops that are given the right name; it says nothing about "
            "new people."
        )
    if any(column.startswith("probe_") for log in logs.values() for column in log):
        said.append("The retrieval probe ranks a test set with the network as it is, and never teaches it.")
    return said or ["Each row of log.csv is a point."]


def last_of(log: pd.DataFrame, column: str, factor: float = 1) -> str:
    values = log[column].dropna() if column in log else ()
    return f"{factor * values.iloc[-1]:.2f}" if len(values) else "not logged"


main()
