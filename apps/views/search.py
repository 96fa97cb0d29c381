"""Search your own image: who in a run's gallery is most like the person in a picture that you bring along?"""

import numpy as np
import streamlit as st
from choices import Choices, chosen, keep_valid, need_results
from loaders import data_root, evaluate_command, stamp
from models import embed_picture, load_model
from parts import link, offer_picture, offer_table, plain, stem_of
from search_parts import STAGES, Brought, Gallery, brought_upload, example_street, open_gallery

from lab.errors import InputError
from lab.evaluate.search import search
from lab.runs import Run
from lab.show.images import read_picture
from lab.show.rank_lists import found_entries, found_table, rank_list_picture, to_bytes
from lab.show.uploads import MAX_MEGABYTES, Box, clip_box, cut_box, draw_boxes

OWN, STREET = "a picture of mine", "an example street"


def main() -> None:
    choices = chosen()
    st.title("Search your own image")
    need_results(choices)
    usable = [
        name
        for name, (run, _, _) in choices.evals.items()
        if run.checkpoint.is_file() and run.config.get("stage") in STAGES
    ]
    if not usable:
        st.info(
            "A search needs a model, and none of the chosen runs holds checkpoint.pt. Choose another run in the sidebar, "
            "or make one:"
        )
        st.code(
            "lab finetune --dataset NAME --root DIR --out RUN\nlab evaluate --run RUN --dataset NAME --root DIR", "bash"
        )
        return
    left, middle, right = st.columns([1.6, 1.8, 1], vertical_alignment="bottom")
    keep_valid("search_run", usable)
    name = left.selectbox("Run whose gallery is searched", usable, key="search_run", bind="query-params")
    source = middle.segmented_control(
        "Picture", [OWN, STREET], default=OWN, required=True, key="source", bind="query-params"
    )
    top_k = right.selectbox("Ranks shown", [10, 5, 20, 50], key="top_k", bind="query-params")
    run, _, result = choices.evals[name]
    gallery, problem = open_gallery(run, choices.dataset, result)
    if gallery is None:
        st.info(f"{plain(problem)} This command stores them:")
        st.code(evaluate_command(run, choices.dataset.removesuffix("-aqe")), language="bash")
        return
    search_panel(choices, run, gallery, source, top_k)
    link("distances", "Which distance means the same person?")
    st.caption("Notebook 01 explains how crops are cut from a picture, notebook 05 how a gallery is ranked.")


@st.fragment
def search_panel(choices: Choices, run: Run, gallery: Gallery, source: str, top_k: int) -> None:
    try:
        brought = ask_for_picture() if source == OWN else example_street()
    except InputError as error:
        st.error(plain(str(error)))
        return
    if brought is None:
        st.info(f"Choose a file above, or take “{STREET}” to try it without one.", icon=":material/image_search:")
        return
    left, right = st.columns([3, 1])
    with left:
        box = choose_box(brought)
    if box is None:
        return
    crop = cut_box(brought.picture, box)
    height, width = gallery.size
    right.image(crop, caption=f"What is searched: {box[2]} x {box[3]} pixels", width=150, alt="The crop in the box")
    right.caption(f"The model sees it at {width} x {height}, as it saw the gallery.")
    if not 1.2 <= box[3] / box[2] <= 5:
        right.warning("The model knows upright people, about twice as high as wide. Choose a box around one person.")
    try:
        show_found(choices, run, gallery, brought, box, crop, top_k)
    except Exception as error:  # a checkpoint and features from anywhere: what is wrong is shown, not raised
        st.error(plain(f"{run.name}: the gallery cannot be searched. {error}"))


def ask_for_picture() -> Brought | None:
    """The uploaded picture; it stays in the memory of this session and goes when it is taken away."""
    uploaded = st.file_uploader(
        f"A picture with a person (JPEG, PNG or WebP, at most {MAX_MEGABYTES} MB)",
        type=["jpg", "jpeg", "png", "webp"], key="upload", max_upload_size=MAX_MEGABYTES,
        help="It stays on the machine that runs this page, in memory. It is never written to disk.",
    )  # fmt: skip
    return brought_upload(uploaded)


def choose_box(brought: Brought) -> Box | None:
    """Where in the picture the person is: one of the boxes that are there, moved as one likes; None and a message."""
    height, width = brought.picture.shape[:2]
    start, key = (0, 0, width, height), brought.key
    if brought.boxes:
        names = list(brought.boxes)
        keep_valid("person", names)
        name = st.segmented_control(
            "Person", names, default=names[2], required=True, key="person", bind="query-params"
        )  # fmt: skip
        start, key = brought.boxes[name], f"{key} {name}"
    preview = st.container()
    across, down = st.columns(2)
    left, right = across.slider(
        "Left and right edge (pixels)", 0, width, (start[0], start[0] + start[2]), key=f"x {key}"
    )
    top, bottom = down.slider(
        "Top and bottom edge (pixels)", 0, height, (start[1], start[1] + start[3]), key=f"y {key}"
    )
    try:
        box = clip_box((left, top, right - left, bottom - top), brought.picture)
    except InputError as error:
        st.error(str(error))
        return None
    words = f"Box: left {box[0]}, top {box[1]}, width {box[2]}, height {box[3]} of {width} x {height} pixels"
    picture = draw_boxes(brought.picture, box, brought.boxes)
    preview.image(picture, caption=words, output_format="JPEG", alt=words)
    return box


def show_found(
    choices: Choices, run: Run, gallery: Gallery, brought: Brought, box: Box, crop: np.ndarray, top_k: int
) -> None:
    """The nearest gallery crops. Nothing of an upload goes into a cache."""
    with st.spinner("Searching …"):
        model = load_model(str(run.checkpoint), stamp(run.checkpoint))
        feature = embed_picture(model, crop, gallery.size, gallery.flip)
        found = search(feature, gallery.features, top_k=top_k)
        count = len(gallery.features.pid)
        title = f"{run.name}: the nearest of {count:,} gallery crops of {choices.dataset}"
        place = f"box {box[2]} x {box[3]} at {box[0]}, {box[1]}"
        entries = found_entries(found, gallery.features)
        picture = rank_list_picture(
            crop, "", entries, lambda path: read_picture(path, data_root()), title, f"{brought.name} · {place}"
        )
        file = to_bytes(picture)
    distances = ", ".join(f"{distance:.3f}" for distance in found.distance[:5])
    st.image(file, width="stretch", alt=f"{title}. First distances: {distances}")
    with st.container(horizontal=True):
        stem = f"{stem_of([run.name], choices.evaluation)}-search"
        offer_picture(file, stem)
        offer_table(found_table(found, gallery.features).drop(columns="match"), stem, "Result as CSV")
    vouched = (
        "" if gallery.known else " No note says which model made the gallery's features; they fit by their size alone."
    )
    if brought.boxes:
        st.caption("The people of this street are in no data set: the nearest are those who look most like them.")
    st.caption(
        "Nearest first, with distance (1 - cosine, 0 = alike), pid and camera. Nobody said who this is, so there is no "
        "right or wrong here. A search always finds somebody: the nearest crop need not show the same person, least of "
        f"all for pictures that are unlike those the model learned from.{vouched}"
    )


main()
