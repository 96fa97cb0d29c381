"""Parts of the page on distances: threshold, histogram, what is decided, ROC, cameras. Numbers are of lab.evaluate."""

import numpy as np
import pandas as pd
import streamlit as st
from choices import keep_valid
from parts import offer_table, plain, show_chart

from lab.evaluate.error_rates import Verification
from lab.evaluate.thresholds import ALL_CAMERAS, at_fpr, camera_error_rates, decide, rate_matrix
from lab.runs import EvalResult
from lab.show.error_tables import decision_table, operating_table, percent
from lab.show.pairs import camera_error_figure, camera_matrix_figure, distance_histogram_figure, roc_figure

ALL = "all"
EER, TPR, FPR = "equal error rate", "TPR at the threshold", "FPR at the threshold"


def choose_threshold(found: dict[str, Verification], name: str, evaluation: str) -> float:
    """A threshold on the distance; at first, and for another run, the one with equal errors."""
    low, high = distance_range(found)
    state, which, equal = st.session_state, (name, evaluation), found[name].eer_threshold
    if state.get("threshold_of", which) != which or not low <= state.get("threshold", low) <= high:
        state["threshold"] = equal
    state["threshold_of"] = which
    step = 10.0 ** np.floor(np.log10((high - low) / 200))
    return st.slider(
        "Threshold on the distance", low, high, equal, float(step), "%.3f", key="threshold", bind="query-params",
        help="Two crops up to this distance are taken to be the same person",
    )  # fmt: skip


def distance_range(found: dict[str, Verification]) -> tuple[float, float]:
    """From the smallest distance in any of the runs to the largest: one range, in which a slider can stay as it is."""
    ends = []
    for one in found.values():
        used = np.flatnonzero(one.true.sum(axis=(0, 1)) + one.false.sum(axis=(0, 1)))
        ends += [one.edges[used[0]], one.edges[used[-1] + 1], one.eer_threshold]
    return float(min(ends)), float(max(ends))


def choose_fpr(found: dict[str, Verification], name: str) -> float:
    """The share of pairs of two persons that may be accepted, and a button that sets the threshold to it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        per_cent = st.number_input(
            "FPR that is allowed (%)", 0.0, 100.0, 1.0, 0.1, "%.4g", key="fpr", bind="query-params", width=240,
            help="Of 100 pairs of two persons, so many may be accepted",
        )  # fmt: skip
        strict = at_fpr(found[name], per_cent / 100).threshold
        low, high = distance_range(found)
        st.button(
            f"Use threshold {strict:.3f}", icon=":material/straighten:", key="take", on_click=take,
            args=(min(max(strict, low), high),), help=f"The one of {plain(name)} at this FPR",
        )  # fmt: skip
    return per_cent / 100


def take(threshold: float) -> None:
    st.session_state["threshold"] = threshold


def show_histogram(found: Verification, threshold: float, name: str, stem: str) -> None:
    """The two hills of distances, over all cameras or between two, with the threshold."""
    query, gallery = None, None
    if knows_cameras(found):
        left, right, _ = st.columns(3)
        query = choose_camera(left, "Query camera", found.query_camids, "qcam")
        gallery = choose_camera(right, "Gallery camera", found.gallery_camids, "gcam")
    of = f"query camera {query or ALL}, gallery camera {gallery or ALL}"
    title = f"Distances of pairs: {name}" + (f", {of}" if query or gallery else "")
    figure = distance_histogram_figure(found, title, query, gallery, threshold)
    counts, edges = found.histogram(query, gallery), found.edges
    numbers = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "same person": counts[0], "two persons": counts[1]})
    numbers = numbers[(counts[0] + counts[1]) > 0]
    show_chart(figure, f"{stem}-histogram", f"Histogram of distances of true and false pairs of {name}, {of}", numbers)
    st.caption(
        "Each hill is 100 % of its pairs. Left of the threshold a pair is accepted: orange there is a stranger taken for "
        "the person, green right of it a person not recognised."
        + (
            ""
            if counts[0].sum()
            else " Here is no pair of the same person: the protocol leaves out those of one camera."
        )
    )


def choose_camera(place, label: str, camids: np.ndarray, key: str) -> int | None:
    options = [ALL, *map(str, camids.tolist())]
    keep_valid(key, options)
    answer = place.selectbox(label, options, key=key, bind="query-params")
    return None if answer == ALL else int(answer)


def show_decision(found: Verification, threshold: float, result: EvalResult, stem: str) -> None:
    """Which pairs the threshold accepts and refuses, in numbers and in per cent, and what that means for one query."""
    decision = decide(found, threshold)
    one = decision.for_one_query(result.num_query)
    table = decision_table(decision)
    st.subheader(f"At distance {threshold:.3f}")
    left, right = st.columns([3, 2])
    with left:
        numbers = {name: st.column_config.NumberColumn(name, format="localized") for name in ("accepted", "refused")}
        words = {name: [percent(share) for share in table[name]] for name in ("accepted %", "refused %")}
        st.dataframe(table.assign(**words), hide_index=True, column_config=numbers)
        offer_table(table, f"{stem}-decision")
    with right:
        st.markdown(
            f"For one query in the mean: of {result.num_gallery:,} gallery crops, about "
            f"**{count(one['false_accepted'])} strangers would be accepted**, and "
            f"{count(one['true_accepted'])} of the {count(one['true_accepted'] + one['true_refused'])} crops of the "
            "person (under other cameras)."
        )
        st.caption(
            "These numbers are of all cameras, whichever the histogram shows. A door that opens by itself wants few "
            "strangers, a search wants few misses."
        )


def count(value: float) -> str:
    """A mean number of crops, as exact as it is useful."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def show_roc(found: dict[str, Verification], name: str, threshold: float, fpr: float, stem: str) -> None:
    """The ROC curves of all chosen runs, and what each reaches at the FPR that is allowed."""
    curves = pd.concat(
        [
            pd.DataFrame({"run": run, "threshold": one.roc_threshold, "FPR": one.roc_fpr, "TPR": one.roc_tpr})
            for run, one in found.items()
        ]
    )
    show_chart(roc_figure(found, at={name: threshold}), f"{stem}-roc", f"ROC curves of {', '.join(found)}", curves)
    st.caption(
        "Each threshold is a point; higher is better, and further left is stricter. FPR is on a logarithmic axis, as a "
        "gallery has many strangers. Filled marks: equal errors. Ring: the threshold chosen above."
    )
    table = operating_table(found, fpr)
    formats = {name: "%.1f" for name in table if name.endswith("(%)")} | {"threshold": "%.3f", "equal at": "%.3f"}
    formats["FPR (%)"] = "%.3g"
    st.dataframe(
        table, hide_index=True,
        column_config={column: st.column_config.NumberColumn(column, format=text) for column, text in formats.items()},
    )  # fmt: skip
    offer_table(table, f"{stem}-operating-points")


def show_cameras(found: Verification, threshold: float, name: str, stem: str) -> None:
    """One error rate by pair of cameras, and between what the histograms' bins leave it."""
    if not knows_cameras(found):
        st.info("This result has too many pairs of cameras, or none: its distances are not kept by camera.")
        return
    kind = st.selectbox("Shown", [EER, TPR, FPR], key="rate", bind="query-params", width=260)
    rates = camera_error_rates(found, threshold)
    column = {EER: "eer", TPR: "tpr", FPR: "fpr"}[kind]
    matrix, draw = rate_matrix(rates, column), camera_matrix_figure if kind == TPR else camera_error_figure
    at = "" if kind == EER else f" {threshold:.3f}"
    title = f"{kind[0].upper()}{kind[1:]}{at}: {name}"
    show_chart(draw(matrix, title), f"{stem}-{column}-by-camera", f"{title} by pair of cameras", rates)
    doubt = (rates[f"{column}_high"] - rates[f"{column}_low"]).max()
    fewest = rates.loc[rates["true_pairs"] > 0, "true_pairs"].min()
    st.caption(
        f"Read from histograms with bins {found.edges[1] - found.edges[0]:.4g} wide, so a cell is known to "
        f"{100 * (0 if np.isnan(doubt) else doubt):.2g} points or better (low and high are in the CSV). Blank: a camera "
        f"with itself, where the protocol keeps no pair of the same person. The smallest cell has {fewest:,} such pairs. "
        + ("Each pair of cameras has its own threshold here." if kind == EER else "One threshold for all cameras.")
    )


def knows_cameras(found: Verification) -> bool:
    return ALL_CAMERAS not in found.query_camids
