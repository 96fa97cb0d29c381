"""Data: who is in the test set and in the training set, and what the store of unlabelled crops holds."""

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from choices import Choices, chosen, keep_valid, need_results
from data_parts import find_stores, find_training, load_training, look_at, people_png, sample_png
from loaders import data_root, stamp_of
from parts import link, offer_table, plain, show_chart, show_picture, stem_of

from lab.evaluate.map_points import choose_people, has_distractors
from lab.runs import EvalResult, Run
from lab.show.data import (
    MOST_BARS,
    MOST_CELLS,
    parts_of,
    parts_table,
    people_by_cameras,
    people_by_cameras_figure,
    per_camera,
    per_camera_figure,
    per_identity,
    per_identity_figure,
    places_figure,
    sizes_figure,
)  # fmt: skip

TEST, TRAIN, STORE = "test data", "training data", "unlabelled images"
SOME, SOME_PEOPLE = "some people", 6
MOST_SEED = 99
COUNTRY, CITY, VIDEO = "country", "city", "video"


def main() -> None:
    choices = chosen()
    st.title("What is in the data?")
    kinds = [TEST, TRAIN, STORE]
    usual = TEST if choices.evals else STORE
    kind = st.segmented_control(
        "What", kinds, default=usual, required=True, key="part", bind="query-params", label_visibility="collapsed"
    )
    if kind == STORE:
        show_store(choices)
    else:
        need_results(choices)
        name = choose_run(choices)
        run, evaluation, result = choices.evals[name]
        if kind == TEST:
            show_test(run, evaluation, result)
        else:
            show_training(run, result, choices.dataset)
    st.caption("Notebooks 01 and 09 explain data sets, cameras and your own data.")


def choose_run(choices: Choices) -> str:
    names = list(choices.evals)
    if len(names) == 1:
        return names[0]
    keep_valid("data_run", names)
    return st.selectbox(
        "As this run was tested",
        names,
        key="data_run",
        bind="query-params",
        help="Runs of one data set share its crops",
    )


def show_test(run: Run, evaluation: str, result: EvalResult) -> None:
    """Query and gallery of an evaluation: counts, and crops of one person or of some."""
    parts, nobody = parts_of(result), has_distractors(result.pid, result.gallery_pid)
    if len(parts) == 1:
        st.info("This result does not say what its gallery is (gallery.csv is not there): only queries are shown.")
    stem = stem_of([run.name], evaluation)
    show_counts(parts, parts_table(parts, result), stem, nobody)
    st.subheader("Crops")
    pids = sorted(set(np.concatenate([part.pid for part in parts.values()]).tolist()) - ({0} if nobody else set()))
    options = [SOME, *map(str, pids)]
    keep_valid("identity", options)
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    person = left.selectbox("Person (pid)", options, key="identity", bind="query-params")
    if person == SOME:
        seed = right.number_input("Sample", 0, MOST_SEED, 0, key="people_seed", bind="query-params")
        shown = choose_people(np.concatenate([part.pid for part in parts.values()]), SOME_PEOPLE, seed, nobody)
        st.caption("A row for each person, up to 8 crops of each, in the order of cameras.")
    else:
        shown = [int(person)]
        st.caption("A row for each camera, up to 8 crops of each: the same person looks different to every camera.")
    files = stamp_of(run, evaluation)
    picture = people_png(str(run.folder), evaluation, files, result, tuple(shown), data_root())
    show_picture(picture, f"{stem}-crops-{person}", f"Crops of {person}", "content")
    with st.container(horizontal=True):
        link("rank_lists", "Who is found for these queries?", pid="" if person == SOME else person)
        link("embedding", "Where do their crops lie?", who="" if person == SOME else person)


def show_counts(parts: dict, table: pd.DataFrame, stem: str, nobody: bool) -> None:
    """How many crops, identities and cameras, as tables and figures."""
    st.dataframe(table, hide_index=True)
    offer_table(table, f"{stem}-parts")
    left, right = st.columns(2)
    with left:
        show_chart(per_camera_figure(parts), f"{stem}-cameras", "Crops per camera", per_camera(parts).reset_index())
    with right:
        counts = per_identity(parts, nobody)
        show_chart(per_identity_figure(counts), f"{stem}-identities", "Crops per identity", counts.reset_index())
    st.subheader("People and cameras")
    seen = people_by_cameras(parts, nobody)
    if len(seen) <= MOST_CELLS and seen.shape[1] <= MOST_CELLS:
        st.caption("Crops of each person under each camera; a blank cell: never seen there.")
        show_chart(people_by_cameras_figure(seen), f"{stem}-people", "Crops of people by camera", seen.reset_index())
    else:
        st.caption("Crops of each person (rows) under each camera (columns); 0: never seen there.")
        st.dataframe(seen, height=300)
        offer_table(seen, f"{stem}-people", index=True)


def show_training(run: Run, result: EvalResult, dataset: str) -> None:
    """The training part of the data set, which no result holds: read from its folder when it is asked for."""
    name, root = find_training(run, result, dataset)
    if root is None:
        st.info("Where the data set lies is not known here. Give its folder when you start the explorer:")
        st.code(f"LAB_DATA=DIR lab app {run.folder.parent}", language="bash")
        return
    st.markdown(f"Data set **{plain(name)}** in {plain(str(root))}")
    if not st.toggle(
        "Read it", key="read", bind="query-params", help="All file names are read, which may take some seconds"
    ):
        return
    try:
        found = load_training(name, root)
    except Exception as error:  # the folder may hold anything: what is wrong with it is shown, not raised
        st.error(plain(str(error)))
        return
    parts = {"train": found.train, "query": found.query, "gallery": found.gallery}
    for note in found.notes:
        st.caption(plain(note))
    show_counts({"train": found.train}, parts_table(parts), stem_of([run.name], f"{name}-training"), False)
    st.caption("The figures are of the training part; the table has all three. Nobody is in training and test.")
    link("training", "How did training on it go?")


def show_store(choices: Choices) -> None:
    """Unlabelled images: a store, a released LMDB, tar shards or a folder."""
    stores = find_stores(choices.folder, choices.runs)
    if stores and "store" not in st.session_state and "store" not in st.query_params:
        st.session_state["store"] = stores[0]
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    place = left.text_input(
        "Store or folder", key="store", bind="query-params", placeholder="folder of a store, an LMDB, tar shards or images",
        help="As `lab data build` and `lab data import` write it, LUPerson's LMDB, or images in folders",
    ).strip()  # fmt: skip
    seed = right.number_input(
        "Sample", 0, MOST_SEED, 0, key="store_seed", bind="query-params", help="Another number draws others"
    )
    if len(stores) > 1:
        st.pills("Known from pre-training", stores, key="known stores", on_change=_take_store, format_func=plain)
    if not place:
        st.info("No pre-training run here says where its images lie. Type a folder, or make a store of images:")
        st.code("lab data import FOLDER --out STORE", language="bash")
        return
    try:
        found = look_at(place, seed)
        picture = sample_png(place, seed)
    except Exception as error:  # the path may lead anywhere: what is wrong with it is shown, not raised
        st.error(plain(str(error)))
        return
    stem = stem_of([Path(place).name])
    show_numbers(found, stem)
    show_places(found.places, stem)
    st.subheader("A sample")
    st.caption("Drawn at random; each with its number in the table below and what is known of it.")
    show_picture(picture, f"{stem}-sample", f"{len(found.pictures)} images of the store", "content")
    known = [name for name in found.drawn if (found.drawn[name].notna() & (found.drawn[name] != "")).any()]
    table = found.drawn[known].set_axis(range(1, len(found.drawn) + 1)).rename_axis("number")
    st.dataframe(table, height=300)
    offer_table(table, f"{stem}-sample", index=True)


def _take_store() -> None:
    if st.session_state.get("known stores"):
        st.session_state["store"] = st.session_state["known stores"]


def show_numbers(found, stem: str) -> None:
    """Counts of everything, and the sizes of a sample."""
    info = found.info
    numbers = {"images": f"{info.images:,}", "size": f"{info.bytes / 1e6:,.1f} MB"}
    if info.places:
        numbers |= dict(zip(("countries", "cities", "videos"), map("{:,}".format, info.places), strict=True))
    if info.tracklets:
        numbers["tracklets"] = f"{info.tracklets.count:,}"
    for column, (what, number) in zip(st.columns(len(numbers)), numbers.items(), strict=True):
        column.metric(what, number)
    st.caption(f"This is a {plain(info.kind)}; the size is that of {info.bytes_of}.")
    for note in info.notes:
        st.caption(plain(note))
    sample = info.sample
    if sample.unreadable:
        drawn, names = sample.images + len(sample.unreadable), ", ".join(sample.unreadable[:3])
        st.warning(f"{len(sample.unreadable):,} of {drawn:,} images of a sample cannot be read: {plain(names)}")
    if sample.images:
        shapes = pd.DataFrame(sample.shapes, columns=["height", "width"])
        title = (
            f"Size of {sample.images:,} images drawn at random" if sample.images < info.images else "Size of the images"
        )
        show_chart(sizes_figure(sample.shapes, title), f"{stem}-sizes", "Heights and widths", shapes)


def show_places(places: pd.DataFrame, stem: str) -> None:
    """Where the images come from, by country, city or video; nothing for images without such keys."""
    if not len(places):
        st.caption("The names of these images are not LUPerson's keys, so they say no country, city or video.")
        return
    levels = [level for level in (COUNTRY, CITY, VIDEO) if places[level].nunique() > 1]
    if not levels:
        st.caption("All images are of one video or folder.")
        return
    keep_valid("level", levels)
    level = st.segmented_control(
        "Images per", levels, default=levels[0], required=True, key="level", bind="query-params"
    )
    names = [COUNTRY, CITY, VIDEO][: [COUNTRY, CITY, VIDEO].index(level) + 1]
    known = [name for name in names if places[name].nunique() > 1]
    images = places.groupby(known, sort=False)["images"].sum()
    images.index = [", ".join(map(str, reversed(key if isinstance(key, tuple) else (key,)))) for key in images.index]
    title = f"Images per {level}" + (f": the {MOST_BARS} largest of {len(images):,}" if len(images) > MOST_BARS else "")
    table = images.rename_axis(level).reset_index()
    show_chart(places_figure(images, level, title), f"{stem}-images-per-{level}", title, table)


main()
