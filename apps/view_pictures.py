"""Pictures of what training does to crops, as PNG files. They are made with torch, which is imported on first use."""

import numpy as np
import streamlit as st

from lab.show.figures import to_png

COUNT = 7  # views of a crop


@st.cache_resource(show_spinner="Loading the recipes …")
def recipes() -> dict:
    """The recipes of the paper's table, and the one for short runs."""
    from lab.pretrain.augment import COLUMNS, RECIPES

    return COLUMNS | {"whole": RECIPES["whole"]}


@st.cache_data(max_entries=64, show_spinner=False)
def views_png(
    crops: list[np.ndarray], names: list[str], size: tuple[int, int], recipe: dict, seed: int
) -> tuple[bytes, bytes]:
    """How one view of the first crop is made if every step happens, and random views of all crops."""
    from lab.pretrain.augment import Recipe, Views
    from lab.show.views import eventful, steps_figure, view_sheet

    views = Views(*size, Recipe(**recipe))
    name = names[0].replace("\n", " ")
    steps = steps_figure(crops[0], views, eventful(seed), f"One view of {name}, with every step of the recipe")
    return to_png(steps), to_png(view_sheet(crops, views, COUNT, seed, "Random views", names))


@st.cache_data(max_entries=64, show_spinner=False)
def recipes_png(crop: np.ndarray, size: tuple[int, int], recipe: dict, seed: int) -> bytes:
    """A row for each named recipe and one for `recipe`, the same chance in each column."""
    from lab.pretrain.augment import Recipe, Views
    from lab.show.views import recipe_sheet

    rows = {name.replace("-", "-\n").replace("+", "\n+"): Views(*size, named) for name, named in recipes().items()}
    rows |= {"these\nsettings": Views(*size, Recipe(**recipe))}
    return to_png(recipe_sheet(crop, rows, COUNT, seed, "One crop, the same chance in each column"))


@st.cache_data(max_entries=64, show_spinner=False)
def training_png(crops: list[np.ndarray], names: list[str], size: tuple[int, int], changes: dict, seed: int) -> bytes:
    """Crops as fine-tuning sees them."""
    from lab.finetune.augment import Augmentation
    from lab.show.views import training_sheet

    return to_png(training_sheet(crops, Augmentation(**changes), size, COUNT, seed, "What fine-tuning sees", names))
