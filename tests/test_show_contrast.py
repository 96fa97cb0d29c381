"""Figures of pre-training: views step by step, similarities, temperature, the queue; compared with cases done by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from lab.pixels import LUPERSON_MEAN
from lab.pretrain.augment import Recipe, Views, chances, crop_box
from lab.show import contrast
from lab.show.contrast import QueueState, half_of
from lab.show.views import LEFT_OUT, eventful, pictures, recipe_sheet, steps_figure, view_sheet, view_steps

CROP = np.random.default_rng(3).integers(0, 256, (64, 32, 3), dtype=np.uint8)
NOTHING = Recipe((1.0, 1.0), (0.5, 0.5), grayscale=0.0, blur=0.0, erase=0.0)


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def as_picture(view: torch.Tensor) -> np.ndarray:
    return view.round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("recipe", ["luperson", "moco+erase"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_last_step_is_the_view_that_training_sees(recipe, seed):
    views = Views(32, 16, recipe)
    steps = view_steps(CROP, views, chances(np.random.default_rng(seed), 1))
    last, _ = list(steps.values())[-1]
    assert np.array_equal(last, as_picture(views([CROP], seed=seed)[0]))


def test_steps_change_what_their_names_say():
    chance = eventful(seed=1)
    steps = view_steps(CROP, Views(32, 16, replace(NOTHING, grayscale=0.2, erase=0.5)), chance)
    assert list(steps) == ["cut, resize", "mirror", "grey", "erase"]
    cut, mirrored, grey, erased = (picture.astype(int) for picture, _ in steps.values())
    assert np.array_equal(mirrored, cut[:, ::-1])
    assert np.ptp(grey, axis=2).max() == 0
    assert np.abs(grey[..., 0] - mirrored @ [0.299, 0.587, 0.114]).max() <= 0.5 + 1e-3
    covered = (erased == np.round(LUPERSON_MEAN)).all(axis=2)
    assert np.array_equal(erased[~covered], grey[~covered])
    assert steps["erase"][1] == f"{covered.mean():.0%} of the view\nin 50% of views"
    assert steps["cut, resize"][1] == "100% of the crop\nalways"


def test_a_step_that_chance_leaves_out_says_so():
    chance = eventful(seed=1)
    chance["blur"] = chance["jitter"] = 0.99
    steps = view_steps(CROP, Views(32, 16, replace(NOTHING, blur=0.5, color_jitter=0.8)), chance)
    assert steps["blur"][1] == f"{LEFT_OUT}\nin 50% of views"
    assert steps["jitter"][1] == f"{LEFT_OUT}\nin 80% of views"
    assert np.array_equal(steps["blur"][0], steps["mirror"][0])
    assert np.array_equal(steps["jitter"][0], steps["cut, resize"][0])


def test_steps_figure_frames_the_box_that_is_cut():
    views, chance = Views(32, 16), eventful(seed=5)
    figure = steps_figure(CROP, views, chance, "a view")
    names = [axes.get_title() for axes in figure.axes]
    assert names == ["crop", "1. cut, resize", "2. mirror", "3. grey", "4. blur", "5. erase"]
    top, left, height, width = crop_box(chance[0]["crop_box"], 64, 32, views.recipe.crop_area, views.recipe.crop_aspect)
    frame = figure.axes[0].patches[-1]
    assert (frame.get_x(), frame.get_y()) == (left - 0.5, top - 0.5)
    assert (frame.get_width(), frame.get_height()) == (width, height)


def test_sheets_show_the_views_of_their_seeds():
    views = Views(32, 16)
    shown = view_sheet([CROP, CROP[::-1]], views, 3, seed=4, names=["a", "b"]).axes[0].images
    assert len(shown) == 2 * (1 + 3)
    assert np.array_equal(shown[0].get_array(), CROP)
    assert np.array_equal(shown[5].get_array(), as_picture(views([CROP, CROP[::-1]], seed=4)[1]))
    recipes = {"published": views, "plain": Views(32, 16, NOTHING)}
    shown = recipe_sheet(CROP, recipes, 2, seed=4).axes[0].images
    assert np.array_equal(shown[1].get_array(), as_picture(views([CROP], seed=5)[0]))
    assert np.array_equal(shown[2].get_array(), as_picture(recipes["plain"]([CROP], seed=4)[0]))


def test_pictures_are_rounded_pixels():
    view = torch.tensor([0.4, 127.6, 255.0]).view(1, 3, 1, 1)
    assert pictures(view)[0].tolist() == [[[0, 128, 255]]]


def test_similarities_are_written_and_the_own_key_framed():
    similarity = np.array([[0.9, 0.1], [0.8, -0.3]])
    figure = contrast.similarity_figure(similarity, [1, 0], [CROP] * 2, [CROP] * 2, "s")
    found = texts(figure)
    assert found == ["0.900", "0.100\nown key", "0.800\nown key", "-0.300"]
    frames = [patch for patch in figure.axes[0].patches if to_hex(patch.get_edgecolor()).upper() == contrast.FRAME]
    assert [(frame.get_x(), frame.get_y()) for frame in frames] == [(1 - 0.46, -0.46), (-0.46, 1 - 0.46)]
    assert figure.axes[-1].get_ylabel() == "cosine similarity"


def test_half_of_the_push():
    assert half_of(np.array([0.5, 0.3, 0.1, 0.1]), own=0) == 1  # 0.3 of 0.5
    assert half_of(np.array([0.1, 0.2, 0.2, 0.2, 0.3]), own=4) == 2  # 0.2 + 0.2 of 0.7
    assert half_of(np.array([0.2, 0.2, 0.2, 0.2, 0.2]), own=2) == 2  # exactly half


def test_softmax_panels_sort_keys_and_mark_the_own_one():
    similarity, cold, hot = [0.2, 0.9, 0.5], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3]
    figure = contrast.softmax_figure(similarity, {0.05: cold, 1.0: hot}, own=2)
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["temperature 0.05", "temperature 1"]
    assert [bar.get_height() for bar in first.patches] == [0.7, 0.2, 0.1, 0.2]  # the last one is drawn over its place
    assert first.patches[-1].get_hatch() == "///"
    assert first.patches[-1].get_x() + first.patches[-1].get_width() / 2 == 1
    assert "own key: 30.0%" in second.texts[0].get_text()


def test_queue_colours_what_is_new():
    states = [QueueState("at first", ["r", "r", "r"], 0), QueueState("then", ["a", "b", "r"], 2)]
    figure = contrast.queue_figure(states, "queue")
    fills = [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]
    assert [fill != contrast.EMPTY for fill in fills] == [False] * 3 + [True, True, False]
    arrows = [text for text in figure.axes[0].texts if "next" in text.get_text()]
    assert [arrow.get_position()[0] for arrow in arrows] == [0.5, 2.5]
    assert {"at first", "then", "a", "b"} <= set(texts(figure))


def test_queue_shows_a_key_that_equals_the_one_before_as_old():
    same = [QueueState("x", ["r"], 0), QueueState("y", ["r"], 0)]
    assert all(
        to_hex(patch.get_facecolor()).upper() == contrast.EMPTY for patch in contrast.queue_figure(same).axes[0].patches
    )
