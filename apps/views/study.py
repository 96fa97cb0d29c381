"""Study: the paper's claims in miniature, from runs with several seeds, beside the published ones."""

from pathlib import Path

import pandas as pd
import streamlit as st
from choices import keep_valid
from loaders import find_folder
from parts import address, link, offer_table, plain, show_picture, stem_of
from study_parts import (
    Shown,
    cells_table,
    claims_png,
    find_studies,
    label_of,
    means_png,
    read_study,
    show_study,
)  # fmt: skip

from lab.study.designs import Study
from lab.study.estimates import REFUTED, SUPPORTED, UNDECIDED
from lab.study.report import HOW_TO_READ
from lab.study.results import Results

HELP = {
    SUPPORTED: "The interval lies above 0",
    REFUTED: "The interval lies below one point of mAP, or what the claim takes for granted is not supported",
    UNDECIDED: "The interval says neither; the table says how many seeds would decide",
}
COMMIT = 12  # letters of a commit that tell it apart


def main() -> None:
    st.title("Do the paper's claims hold in miniature?")
    offered = offer_folders()
    if not offered:
        show_none()
        return
    left, right = st.columns(2)
    keep_valid("study", offered)
    with left:
        label = st.selectbox("Runs on", list(offered), key="study", bind="query-params")
    folder, results = offered[label]
    begun = [name for name, study in results.studies.items() if results.done(study)]
    if not begun:
        st.info("No cell of this study is done yet.")
        return
    keep_valid("question", begun)
    with right:
        study = results.studies[st.selectbox("Study", begun, key="question", bind="query-params")]
    show_facts(folder, results, study, begun)
    shown, problem = show_study(folder, study)
    if shown is None:
        st.error(plain(problem), icon=":material/error:")
        return
    stem = stem_of(["study", results.settings["dataset"]], study.name)
    show_verdicts(shown, study)
    show_means(folder, study, shown.means, stem)
    show_claims(shown, study, stem)
    with st.expander("How to read intervals and verdicts", icon=":material/menu_book:"):
        st.markdown(HOW_TO_READ)
    show_cells(folder, results, study, stem)


def offer_folders() -> dict[str, tuple[Path, Results]]:
    """The studies that can be read, by what they are called; the others are named on the page."""
    found = []
    for folder in find_studies(find_folder()):
        results, problem = read_study(folder)
        if results is None:
            st.error(plain(problem), icon=":material/error:")
        else:
            found.append((label_of(results), folder, results))
    labels = [label for label, _, _ in found]
    # two of one kind also say where they lie
    return {
        f"{label} ({folder.parent.name}/{folder.name})" if labels.count(label) > 1 else label: (folder, results)
        for label, folder, results in found
    }


def show_none() -> None:
    """What makes a study."""
    st.info(
        "There is no study to look at: neither around these runs nor in the lab's own results. The first command does the "
        "cells of one, minutes each on two cores, and goes on where it was stopped; the second shows what is done:"
    )
    st.code("lab study small-scale --out study\nlab app study/runs", language="bash")


def show_facts(folder: Path, results: Results, study: Study, begun: list[str]) -> None:
    """The question, what is done of it, what that cost, and where it was done."""
    facts = results.settings
    st.subheader(study.question)
    waiting = [name for name in results.studies if name not in begun]
    commits = ", ".join(commit[:COMMIT] for commit in facts["commit"])
    st.caption(
        plain(
            f"{results.done(study)} of {len(study.cells)} cells are done: {results.cost(study):.0f} CPU minutes with the "
            f"pre-trainings that they start from, {results.cost():.0f} for all that is done in this folder. "
            f"Machine: {'; '.join(facts['machine'])}. Commit {commits}. Searched for: {len(results.people)} people of "
            f"{facts['dataset']} with {results.people['queries'].sum():,} queries. Read from {folder}."
            + (f" Not begun: {', '.join(waiting)}." if waiting else "")
        )
    )


def show_verdicts(shown: Shown, study: Study) -> None:
    """How many claims have which verdict."""
    counts = shown.claims["verdict"].value_counts() if len(shown.claims) else {}
    figures = [(word, counts.get(word, 0), HELP[word]) for word in (SUPPORTED, REFUTED, UNDECIDED)]
    if len(shown.claims) < len(study.claims):
        figures.append(("without a result", len(study.claims) - len(shown.claims), "Cells that it needs are not done"))
    st.markdown(f"Its {len(study.claims)} claims are:")
    for column, (word, count, words) in zip(st.columns(4), figures, strict=False):
        column.metric(word, int(count), help=words, border=True)


def show_means(folder: Path, study: Study, means: pd.DataFrame, stem: str) -> None:
    st.subheader("Means, and the published ones beside them" if study.name != "rerank" else "Means")
    if study.name != "rerank":  # whose claims say it all
        picture, problem = means_png(folder, study)
        if picture is None:
            st.info(plain(problem))
        else:
            words = "; ".join(f"{row.start}, {row.labels}: {row.mAP:.1f} %" for row in means.itertuples())
            with st.container(key="drawn-means"):
                show_picture(picture, f"{stem}-means", f"mAP by starting point. {words}")
    table = means.drop(columns="share")
    figures = {
        "start": st.column_config.TextColumn("start", pinned=True),
        "labels": "labels used",
        "low": _number("95 % from"),
        "high": _number("to"),
        "sd_seeds": _number("sd of seeds"),
        "se_people": _number("se of people"),
    }
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) < 12 else 440,
        column_config=figures | {name: _number(name) for name in ("mAP", "rank-1", "mINP")},
        placeholder="",
    )
    st.caption(
        "In %, means over seeds, each of a training of its own. sd of seeds: standard deviation from one seed to the next. se "
        "of people: standard error from the choice of the people who are searched for. One seed gives no interval."
    )
    offer_table(table, f"{stem}-means", "Means as CSV")


def show_claims(shown: Shown, study: Study, stem: str) -> None:
    st.subheader("Claims and verdicts")
    if not len(shown.claims):
        st.info("The cells that its claims are about are not done yet.")
        return
    try:
        picture = claims_png(shown.claims, "Claims and verdicts")
    except Exception as error:  # numbers may come from anywhere: the table below shows them as they are
        st.error(plain(f"The claims cannot be drawn ({error})"), icon=":material/error:")
    else:
        with st.container(key="drawn-claims"):
            show_picture(picture, f"{stem}-claims", " ".join(shown.sentences))
    published = shown.claims["published"].notna().any()
    points = {
        "effect": "effect",
        "low": "from",
        "high": "to",
        "published": "published",
        "se_seeds": "se of seeds",
        "se_people": "se of people",
    }
    order = ["claim", "verdict", *list(points)[:4], "seeds", "seeds needed", *list(points)[4:]]
    st.dataframe(
        shown.claims,
        hide_index=True,
        height="content",
        row_height=66,  # from 65 on text wraps
        column_order=[name for name in order if published or name != "published"],
        column_config={name: _number(words, "%+.1f" if name[:2] != "se" else "%.1f") for name, words in points.items()}
        | {
            "claim": st.column_config.TextColumn("claim", width=330),
            "seeds needed": st.column_config.TextColumn("seeds needed", width=104),
        },
        placeholder="",
    )
    st.caption(
        f"Effects in points of mAP. The intervals of this study's {len(study.claims)} claims hold together at 95 %. "
        + (
            "Published: the same difference of the paper's figures, of one run each on full-size data, over ImageNet weights "
            "where ours is over random weights. Its sign may be compared, its size not."
            if published
            else "None was published."
        )
    )
    offer_table(shown.claims, f"{stem}-claims", "Claims as CSV")


def show_cells(folder: Path, results: Results, study: Study, stem: str) -> None:
    """Each training alone, and a link to its rank lists where the explorer looks at the study's runs."""
    table = cells_table(results, study)
    columns = {name: _number(name) for name in ("mAP", "rank-1", "mINP", "CPU minutes")}
    choices = st.session_state.get("choices")
    here = {} if choices is None or choices.folder.resolve() != (folder / "runs").resolve() else dict(choices.found)
    with st.expander(f"Every cell: {table['cell'].nunique()} trainings", icon=":material/grid_on:"):
        shown, dataset = table, results.settings["dataset"]
        if here:
            ranked = table["re-ranked"].map({"yes": "true", "no": ""})
            links = [
                address("rank_lists", run=[cell], dataset=dataset, rerank=rerank)
                if (cell, dataset + ("-rerank" if rerank else "")) in here
                else None
                for cell, rerank in zip(table["cell"], ranked, strict=True)
            ]
            shown = table.assign(look=links)
            columns["look"] = st.column_config.LinkColumn("", display_text="rank lists")
        height = "content" if len(table) < 12 else 440
        st.dataframe(shown, hide_index=True, height=height, column_config=columns, placeholder="")
        st.caption("Figures in %. CPU minutes: of the cell alone, without the pre-training that it starts from.")
        offer_table(table, f"{stem}-cells", "Cells as CSV")
    if here:
        link("overview", "Look at these runs one by one", "leaderboard")


def _number(words: str, form: str = "%.1f") -> object:
    return st.column_config.NumberColumn(words, format=form)


main()
