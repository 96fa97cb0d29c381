"""Distances and thresholds: same person or not? How often a threshold on the distance errs."""

import streamlit as st
from choices import Choices, chosen, keep_valid, need_results
from distances_parts import choose_fpr, choose_threshold, show_cameras, show_decision, show_histogram, show_roc
from loaders import evaluate_command, read_pairs
from parts import link, plain, stem_of

from lab.evaluate.error_rates import Verification

THRESHOLD, ROC, CAMERAS = "one threshold", "all thresholds (ROC)", "cameras"


def main() -> None:
    choices = chosen()
    st.title("Same person or not?")
    need_results(choices)
    found, missing = read_all(choices)
    if not found:
        show_missing(choices, missing)
        return
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    keep_valid("distances_run", found)
    name = left.selectbox("Run", list(found), key="distances_run", bind="query-params")
    verification, (_, evaluation, result) = found[name], choices.evals[name]
    with right:
        threshold = choose_threshold(found, name, evaluation)
    fpr = choose_fpr(found, name)
    show_summary(choices, verification)
    view = st.segmented_control(
        "Look at", [THRESHOLD, ROC, CAMERAS], default=THRESHOLD, key="errors", bind="query-params"
    )
    stem = stem_of([name], evaluation)
    if view == ROC:
        show_roc(found, name, threshold, fpr, stem_of(found, evaluation))
    elif view == CAMERAS:
        show_cameras(verification, threshold, name, stem)
    else:
        show_histogram(verification, threshold, name, stem)
        show_decision(verification, threshold, result, stem)
    for problem in missing.values():
        st.info(plain(problem))
    st.divider()
    with st.container(horizontal=True):
        link("rank_lists", "Its rank lists", run=[name])
        if len(choices.evals) > 1:
            link("compare", "Compare two runs")
    st.caption("Notebook 05 explains verification, the ROC curve and the equal error rate.")


def read_all(choices: Choices) -> tuple[dict[str, Verification], dict[str, str]]:
    """What is stored about pairs, by run, and a sentence on each run that has nothing of it."""
    found, missing = {}, {}
    for name, (run, evaluation, _) in choices.evals.items():
        pairs, problem = read_pairs(run, evaluation)
        if pairs is None:
            missing[name] = problem
        else:
            found[name] = pairs
    return found, missing


def show_missing(choices: Choices, missing: dict[str, str]) -> None:
    """What to do where no chosen run has distances of pairs."""
    for problem in missing.values():
        st.info(plain(problem))
    run, name, _ = next(iter(choices.evals.values()))
    st.markdown("This command makes them:")
    st.code(f"{evaluate_command(run, name)} --verification", language="bash")


def show_summary(choices: Choices, found: Verification) -> None:
    """How well true and false pairs are told apart, and which distances these are."""
    if choices.rerank:
        st.caption(
            "These are distances after re-ranking (Jaccard distance of neighbourhoods, mixed with the first one). They "
            "are other numbers than those without: a threshold from here is of no use there."
        )
    st.markdown(
        f"Equal error rate **{100 * found.eer:.1f} %** at distance {found.eer_threshold:.3f}: there, as many pairs of two "
        f"persons are accepted as pairs of the same person are refused. {found.true_pairs:,} pairs show the same person "
        f"under two cameras, {found.false_pairs:,} show two persons."
    )


main()
