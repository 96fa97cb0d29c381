"""Attention: which pixels of a query decide."""

import numpy as np
import streamlit as st
from choices import choose_query, chosen, need_results, plain
from loaders import attention_maps, data_root, find_mask, stamp

from lab.runs import EvalResult, Run
from lab.show.figures import attention_overlay, to_png
from lab.show.images import file_name, find_image, read_picture
from lab.show.tables import describe_query, settings_of

ALONE, PAIR = "the query alone", "a pair"


def main() -> None:
    choices = chosen()
    st.title("Where does it look?")
    need_results(choices)
    usable = {name: entry for name, entry in choices.evals.items() if entry[0].checkpoint.is_file()}
    usable = {name: entry for name, entry in usable.items() if entry[0].config.get("stage") == "finetune"}
    if not usable:
        st.info(
            "Attention needs a fine-tuned model, and none of the chosen runs holds checkpoint.pt. "
            "Choose another run in the sidebar."
        )
        return
    above = st.container()
    place, *places = st.columns(4, vertical_alignment="bottom")
    name = place.selectbox("Run", list(usable), key="attention_run", bind="query-params")
    run, _, result = usable[name]
    with above:
        query = choose_query(name, result)
    explain(run, result, query, places)


def explain(run: Run, result: EvalResult, query: int, places: list) -> None:
    left, middle, right = places
    subject = left.selectbox("Explain", [ALONE, PAIR], key="explain", bind="query-params")
    ranks = (
        [] if result.gallery_path is None else [int(place) + 1 for place in np.flatnonzero(result.index[query] >= 0)]
    )
    rank = 1
    if subject == PAIR and ranks:
        rank = middle.selectbox("Gallery crop at rank", ranks[:20], key="rank", bind="query-params")
    strength = right.slider("Overlay strength", 0.0, 1.0, 0.65, 0.05, key="strength", bind="query-params")
    paths = [str(result.path[query])]
    if subject == PAIR and not ranks:
        st.info("This result does not say which gallery crops it ranked, so there is no pair to explain.")
    elif subject == PAIR:
        who = "the same person" if result.match[query][rank - 1] else "another person"
        distance = result.distance[query][rank - 1]
        st.markdown(
            f"The maps show what makes the query like the crop at rank {rank}: **{who}**, distance {distance:.3f}."
        )
        paths.append(str(result.gallery_path[result.index[query][rank - 1]]))
    else:
        st.markdown(f"{describe_query(result, query)}. The maps show what the feature of each branch rests on.")
    absent = [path for path in paths if find_image(path, data_root()) is None]
    if absent:
        st.info(f"The image {plain(file_name(absent[0]))} is not there; set LAB_DATA to the folder of the data set.")
        return
    titles = ["Query", f"Rank {rank}"][: len(paths)]
    others = [paths[1], paths[0]] if len(paths) == 2 else [None]
    pictures = [draw_maps(run, *each, strength) for each in zip(titles, paths, others, strict=True)]
    with st.container(horizontal=True):
        for title, path, picture in zip(titles, paths, pictures, strict=True):
            if picture:
                name = f"attention-{run.name}-{file_name(path)}.png"
                st.download_button(f"{title} as PNG", picture, name, "image/png", icon=":material/download:")


def draw_maps(run: Run, title: str, path: str, other: str | None, strength: float) -> bytes | None:
    """Show the maps of one crop and return the picture; None, and a message, if they cannot be computed."""
    settings = settings_of(run.config)
    places = [str(find_image(each, data_root())) if each else None for each in (path, other)]
    try:
        size = (int(settings.get("height") or 384), int(settings.get("width") or 128))
        maps = attention_maps(str(run.checkpoint), stamp(run.checkpoint), *places, size)
    except Exception as error:  # a checkpoint from anywhere: what is wrong with it is shown, not raised
        st.error(plain(f"{run.name}: the attention map cannot be computed. {error}"))
        return None
    mask = find_mask(path)
    if mask is not None:
        from lab.evaluate.attention import energy_on_mask

        maps = {f"{name}\n{100 * energy_on_mask(cam, mask):.0f} % on person": cam for name, cam in maps.items()}
    figure = attention_overlay(read_picture(path, data_root()), maps, mask, strength, f"{title}: {file_name(path)}")
    picture = to_png(figure)
    words = f"Attention maps of the branches of {run.name} for {file_name(path)}"
    st.image(picture, width=480 if other else 640, alt=words)
    return picture


main()
