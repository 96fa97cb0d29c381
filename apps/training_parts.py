"""The augmented views of the page Training: controls for what happens to crops, and pictures of it, drawn live."""

from dataclasses import asdict

import numpy as np
import streamlit as st
from choices import Choices, keep_valid
from loaders import data_root
from parts import plain, show_picture, stem_of
from view_pictures import recipes, recipes_png, training_png, views_png

from lab.runs import Run
from lab.show.images import file_name, find_image, read_picture
from lab.show.tables import settings_of

PRETRAIN, COMPARED, FINETUNE = "pre-training", "recipes side by side", "fine-tuning"
QUERIES, GALLERY, DRAWN = "queries", "gallery", "drawn people"
CROPS = 3
TRIES = 40  # files that are looked for before a data set counts as gone
PROBABILITY = (0.0, 1.0)
# URL parameter: (label, field of the recipe, limits, step, help)
KNOBS = {
    "box": ("Share of the crop that a view shows", "crop_area", (0.02, 1.0), 0.02, "drawn anew for each view"),
    "jitter": (
        "Colour jitter: probability",
        "color_jitter",
        PROBABILITY,
        0.05,
        "brightness, contrast, saturation, hue",
    ),
    "grey": ("Greyscale: probability", "grayscale", PROBABILITY, 0.05, "takes all colour away"),
    "blur": ("Blur: probability", "blur", PROBABILITY, 0.05, "sigma 0.1 to 2 pixels of the view"),
    "erase": ("Erasing: probability", "erase", PROBABILITY, 0.05, "a rectangle in the model's mean colour"),
    "erased": ("Erasing: largest share of the view", "erase_max_area", (0.02, 1.0), 0.02, "at least 0.02"),
}
MILDER = {
    "flip": ("Mirror: probability", "flip", PROBABILITY, 0.05, None),
    "shift": ("Shift: at most so many pixels", "padding", (0, 40), 1, "black comes in at the border"),
    "wipe": ("Erasing: probability", "erase", PROBABILITY, 0.05, "a black rectangle"),
    "wiped": ("Erased share of the image", "erase_area", (0.02, 0.9), 0.02, "drawn anew for each image"),
}


@st.fragment
def show_views(choices: Choices, runs: list[Run]) -> None:
    """What chosen crops look like to a network in training; a slider redraws this part of the page alone."""
    run = runs[0] if runs else None
    settings = settings_of(run.config) if run else {}
    stage = FINETUNE if run and run.config.get("stage") == "finetune" else PRETRAIN
    above = st.columns([1.3, 1.1, 0.9, 0.9], vertical_alignment="bottom")
    kinds = [PRETRAIN, COMPARED, FINETUNE]
    shown = above[0].selectbox("What changes the crops", kinds, kinds.index(stage), key="augment", bind="query-params")
    crops, names, note = choose_crops(choices, runs, *above[1:3])
    seed = int(above[3].number_input("Chance (seed)", 0, 9999, 0, key="view_seed", bind="query-params"))
    left, right = st.columns([1, 3.2], gap="medium")
    with left:
        changes = choose_milder(settings) if shown == FINETUNE else choose_recipe(settings)
    size = size_of(settings)
    stem = stem_of([run.name] if run else [])
    with right, st.spinner("Drawing …"):
        try:
            if shown == PRETRAIN:
                steps, sheet = views_png(crops, names, size, changes, seed)
                show_picture(sheet, f"{stem}-views", "A row per crop: the crop and random views of it.")
                show_picture(steps, f"{stem}-view-steps", "How one view is made, step by step")
                caption = (
                    "Any two views in a row are *the same* to the network, so whatever differs between them it learns to "
                    "ignore. With strong colour jitter it ignores the colour of clothes, which tells people apart; with "
                    "erasing it cannot rest on one patch. The seed keeps the same chance while a slider moves."
                )
            elif shown == COMPARED:
                show_picture(
                    recipes_png(crops[0], size, changes, seed),
                    f"{stem}-recipes",
                    "A row per recipe of views of one crop",
                )
                caption = (
                    "In a column, chance is the same: what differs is the recipe. The last row follows the sliders."
                )
            else:
                show_picture(
                    training_png(crops, names, size, changes, seed),
                    f"{stem}-fine-tuning-views",
                    "Changed crops, a row each",
                )
                caption = (
                    "Fine-tuning knows the names, so its changes are milder: mirror, shift by some pixels, erase a "
                    "rectangle. No colour is changed."
                )
        except Exception as error:  # crops and settings may come from anywhere: what is wrong is shown, not raised
            st.error(plain(f"The views cannot be drawn. {error}"))
            return
        st.caption(f"{caption} {note} Size {size[0]} × {size[1]} pixels.")


def choose_crops(choices: Choices, runs: list[Run], left, right) -> tuple[list[np.ndarray], list[str], str]:
    """Some crops of the chosen run, or drawn people where no picture of it is here; their names, and a note."""
    name = next((run.name for run in runs if run.name in choices.evals), next(iter(choices.evals), None))
    result = choices.evals[name][2] if name else None
    lists = {} if result is None else {QUERIES: result.path}
    if result is not None and result.gallery_path is not None:
        lists[GALLERY] = result.gallery_path
    options = [*lists, DRAWN]
    keep_valid("crops_of", options)
    of = left.selectbox("Crops", options, key="crops_of", bind="query-params")
    seed = int(right.number_input("Other crops", 0, 9999, 0, key="crop_seed", bind="query-params"))
    if of == DRAWN:
        return *draw_people(seed), "These people are drawn."
    crops, names = [], []
    paths = lists[of]
    for place in np.random.default_rng(seed).permutation(len(paths))[:TRIES].tolist():
        picture = read_picture(str(paths[place]), data_root()) if find_image(str(paths[place]), data_root()) else None
        if picture is not None:
            crops.append(picture)
            names.append(f"{'query' if of == QUERIES else 'crop'}\n{place}")
        if len(crops) == CROPS:
            break
    if crops:
        return crops, names, f"Crops of {plain(name)}."
    gone = plain(file_name(str(paths[0]))) if len(paths) else "none"
    return *draw_people(
        seed
    ), f"No picture of {plain(name)} is here (such as {gone}); set LAB_DATA. These are drawn people."


@st.cache_data(max_entries=64, show_spinner=False)
def draw_people(seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Synthetic people, for when there is no data."""
    from lab.data.synthetic import render

    return [render(CROPS * seed + n, 1 + n, 0).image for n in range(CROPS)], [f"drawn\n{n + 1}" for n in range(CROPS)]


def choose_recipe(settings: dict) -> dict:
    """A named recipe of pre-training, changed by the sliders: the fields of a Recipe."""
    named = recipes()
    own = next((name for name in named if name == settings.get("augmentation")), "luperson")
    keep_valid("recipe", named)
    name = st.selectbox(
        "Recipe", list(named), list(named).index(own), key="recipe", bind="query-params", on_change=_back_to_recipe,
        help="luperson is the published one, whole the lab's for short runs, moco that of MoCo v2. Choosing one sets the "
        "sliders.",
    )  # fmt: skip
    recipe = asdict(named[name])
    return recipe | {KNOBS[key][1]: _slide(key, *KNOBS[key], recipe[KNOBS[key][1]]) for key in KNOBS}


def choose_milder(settings: dict) -> dict:
    """Fine-tuning's changes: the fields of an Augmentation, at first those of the run or the published ones."""
    defaults = {"flip": 0.5, "padding": 10, "erase": 0.5, "erase_area": (0.02, 0.4)}
    own = {field: settings[field] for field in ("flip", "padding", "erase") if _number(settings.get(field))}
    values = defaults | own
    return {MILDER[key][1]: _slide(key, *MILDER[key], values[MILDER[key][1]]) for key in MILDER}


def size_of(settings: dict) -> tuple[int, int]:
    """Height and width of an image in training, for this figure at most 384; 128 x 64 where the run does not say."""
    height, width = (settings.get(side) for side in ("height", "width"))
    good = all(_number(side) and 8 <= side <= 384 for side in (height, width))
    return (int(height), int(width)) if good else (128, 64)


def _slide(key: str, label: str, field: str, limits: tuple, step: float, words: str | None, value):
    kind = type(limits[0])
    held = lambda number: min(max(kind(number), limits[0]), limits[1])  # noqa: E731
    value = tuple(map(held, value)) if isinstance(value, tuple | list) else held(value)
    return st.slider(label, *limits, value, step, key=key, bind="query-params", help=words)


def _back_to_recipe() -> None:
    """A recipe that was just chosen sets the sliders, which then can be moved again."""
    recipe = asdict(recipes()[st.session_state["recipe"]])
    for key, (_, field, *_) in KNOBS.items():
        value = recipe[field]
        st.session_state[key] = tuple(value) if isinstance(value, tuple | list) else value


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
