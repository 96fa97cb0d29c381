"""What training does to a crop: the steps of one view, many views of a few crops, and fine-tuning's milder changes.

Legend: h x w pixels of a view, H x W those of a crop.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from lab.data.crops import resize
from lab.finetune.augment import Augmentation
from lab.pretrain.augment import Draws, Views, chances, crop_box, finish
from lab.show.figures import QUERY, contact_sheet

LEFT_OUT = "not this time"
# what `finish` does, in its order: name -> the fields of Draws that say it
FINISH = {
    "mirror": ("mirrored",),
    "grey": ("grey",),
    "blur": ("blurred", "sigma"),
    "erase": ("erased", "rectangle"),
}


def eventful(seed: int = 0) -> np.ndarray:
    """What chance says about a view for which nothing is left out: (1,) rows of CHANCE; its boxes follow the seed."""
    chance = chances(np.random.default_rng(seed), 1)
    for change in ("mirror", "jitter", "grayscale", "blur", "erase"):
        chance[change] = 0.0  # below every probability but 0
    return chance


def view_steps(crop: np.ndarray, views: Views, chance: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
    """How a view comes about: name of each step -> the picture after it (h, w, 3) uint8, and a note.

    The note says what was drawn for the step, and how often the recipe takes it.

    `crop` is (H, W, 3) uint8, `chance` (1,) a row of `lab.pretrain.augment.chances`. What the recipe never does is not
    listed.
    """
    recipe, draws, row = views.recipe, views.draw(chance), chance[0]
    view, pixels = views.cut(crop, row), views.height * views.width
    plain = Views(views.height, views.width, replace(recipe, color_jitter=0.0), views.fill).cut(crop, row)
    box = crop_box(row["crop_box"], *crop.shape[:2], recipe.crop_area, recipe.crop_aspect)
    steps = {"cut, resize": (_picture(plain), f"{box[2] * box[3] / crop[..., 0].size:.0%} of the crop\nalways")}
    if recipe.color_jitter:
        steps["jitter"] = (_picture(view), _note(recipe.color_jitter, row["jitter"] < recipe.color_jitter))
    drawn = {
        "blur": [f"sigma {sigma:.1f} px" for sigma in draws.sigma.tolist()],
        "erase": [f"{high * wide / pixels:.0%} of the view" for _, _, high, wide in draws.rectangle.tolist()],
    }
    often = {"mirror": 0.5, "grey": recipe.grayscale, "blur": recipe.blur, "erase": recipe.erase}
    done = Draws(*(part[:0] for part in draws))
    for name, fields in FINISH.items():
        if often[name]:
            done = done._replace(**{field: getattr(draws, field) for field in fields})
            after = finish(view[None], done, torch.tensor(views.fill).view(1, 3, 1, 1))[0]
            happened = len(getattr(draws, fields[0])) > 0
            steps[name] = (_picture(after), _note(often[name], happened, *drawn.get(name, ())))
    return steps


def steps_figure(crop: np.ndarray, views: Views, chance: np.ndarray, title: str = "How a view is made") -> Figure:
    """A crop with the box that is cut out of it, then the view after each step, with what chance drew for it."""
    steps = view_steps(crop, views, chance)
    box = crop_box(chance[0]["crop_box"], *crop.shape[:2], views.recipe.crop_area, views.recipe.crop_aspect)
    figure = Figure(figsize=(1.5 * (1 + len(steps)), 3.7), dpi=100, facecolor="white")
    figure.suptitle(title, x=0.01, y=0.985, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, 1 + len(steps))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.8, bottom=0.15, wspace=0.32)
    for number, (axes, name) in enumerate(zip(panels, ["crop", *steps], strict=True)):
        picture, note = (crop, "and the box\nthat is cut") if not number else steps[name]
        axes.imshow(picture, interpolation="antialiased")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{number}. {name}" if number else name, fontsize=12)
        axes.set_xlabel(note, fontsize=10.5)
        if number:
            axes.annotate("→", (-0.16, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=16)
    top, left, height, width = box
    frame = {"fill": False, "edgecolor": "white", "linewidth": 5}
    panels[0].add_patch(Rectangle((left - 0.5, top - 0.5), width, height, **frame))
    frame |= {"edgecolor": QUERY, "linewidth": 2.5}
    panels[0].add_patch(Rectangle((left - 0.5, top - 0.5), width, height, **frame))
    return figure


def view_sheet(
    crops: Sequence[np.ndarray], views: Views, count: int = 9, seed: int = 0, title: str = "", names: Sequence[str] = ()
) -> Figure:
    """A row per crop (H, W, 3) uint8: the crop itself, then `count` random views of it; `names` name the rows."""
    batches = [views(crops, seed=seed + number) for number in range(count)]
    tiles = [tile for row, crop in enumerate(crops) for tile in (crop, *(_picture(batch[row]) for batch in batches))]
    titles = ["before", *(f"view {number}" for number in range(1, count + 1))] + [""] * (len(tiles) - count - 1)
    return contact_sheet(tiles, titles, columns=count + 1, title=title, row_titles=list(names) or None)


def recipe_sheet(crop: np.ndarray, recipes: dict[str, Views], count: int = 8, seed: int = 0, title: str = "") -> Figure:
    """A row per recipe: the same chance, made into `count` views of one crop (H, W, 3) uint8."""
    tiles = [_picture(views([crop], seed=seed + number)[0]) for views in recipes.values() for number in range(count)]
    return contact_sheet(tiles, columns=count, title=title, row_titles=list(recipes))


def training_sheet(
    crops: Sequence[np.ndarray],
    augmentation: Augmentation,
    size: tuple[int, int],
    count: int = 9,
    seed: int = 0,
    title: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """A row per crop (H, W, 3) uint8: the crop as fine-tuning resizes it, then `count` random changes of it.

    `size` is (height, width) of an image; changes follow from `seed`, crop and number alone.
    """
    tiles = []
    for row, crop in enumerate(crops):
        image = np.asarray(resize(Image.fromarray(crop), *size))
        tiles += [image, *(augmentation(image, np.random.default_rng((seed, row, number))) for number in range(count))]
    titles = ["before", *(f"image {number}" for number in range(1, count + 1))] + [""] * (len(tiles) - count - 1)
    return contact_sheet(tiles, titles, columns=count + 1, title=title, row_titles=list(names) or None)


def _note(probability: float, happened: bool, drawn: str = "") -> str:
    return f"{drawn if happened else LEFT_OUT}\nin {probability:.0%} of views".strip()


def pictures(views: Tensor) -> list[np.ndarray]:
    """Views (n, 3, h, w) of 0..255 as pictures: n times (h, w, 3) uint8."""
    return [_picture(view) for view in views]


def _picture(view: Tensor) -> np.ndarray:
    """(3, h, w) of 0..255 -> (h, w, 3) uint8."""
    return view.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
