"""Two random views of one crop: what pre-training calls "the same".

LUPerson's list (paper, section 4.2) leaves out colour jitter, because the colour of clothes tells people apart, and
adds strong random erasing, because people are often half hidden. MoCo's own list is there to compare with.

A view is made in two places. What needs the crop itself is done picture by picture where crops are read (`Views.cut`:
a box of the original pixels, resized). The rest is done for a whole batch on the device of the model (`finish`: mirror,
grey, blur, erase). All chance is drawn beforehand as numbers in 0..1, one row per view (`chances`), so what a
view looks like depends neither on who makes it nor on what was made before. What has to be known to launch the work on
the device, such as which views are blurred, is settled on the host (`Views.draw`): the GPU is never waited for.
Legend: n views, h x w their pixels, H x W those of a crop.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as colour

from lab.errors import InputError
from lab.pixels import LUPERSON_MEAN


@dataclass(frozen=True)
class Recipe:
    """Which random changes make a view, and how strong they are; probabilities are per view."""

    crop_area: tuple[float, float] = (0.2, 1.0)  # share of the crop that a view shows
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of that part, before it is stretched to the view
    color_jitter: float = 0.0  # probability; brightness, contrast, saturation 0.4, hue 0.1
    grayscale: float = 0.2  # probability
    blur: float = 0.5  # probability; Gaussian, sigma 0.1-2 pixels
    erase: float = 0.5  # probability
    erase_max_area: float = 0.6  # share of the view that erasing may cover at most; at least 0.02
    move: float = 0.8  # probability that the person stands in another place; only where cut-outs and places are given


# A person's crop is half as wide as high, so the published boxes, about as wide as high, show two thirds of its height at
# most and mostly less than half, and two views of one crop often share little but the place. A small run finds people
# sooner from views that show most of the person, in the proportions of fine-tuning.
WHOLE = {"crop_area": (0.4, 1.0), "crop_aspect": (3 / 8, 2 / 3)}
COLUMNS = {  # of the paper's table of augmentations (section 5.2), in its order, by the lab's name
    "moco": Recipe(color_jitter=0.8, erase=0.0),  # MoCo v2's own list
    "moco+erase": Recipe(color_jitter=0.8),
    "moco-grayscale": Recipe(color_jitter=0.8, erase=0.0, grayscale=0.0),
    "moco-blur": Recipe(color_jitter=0.8, erase=0.0, blur=0.0),
    "luperson-erase": Recipe(erase=0.0),  # MoCo's list without colour jitter
    "luperson": Recipe(),  # the released choice, called ori-cj+sre there
}
RECIPES = COLUMNS | {f"whole-{name}": replace(recipe, **WHOLE) for name, recipe in COLUMNS.items()}
RECIPES["whole"] = RECIPES["whole-luperson"]
ERASE_MIN_AREA, ERASE_ASPECT = 0.02, (1 / 3.3, 1 / 0.3)  # share of the view, width / height of the rectangle
TRIES = 10  # boxes that are drawn until one fits, as torchvision does
BLUR_SIGMA = (0.1, 2.0)  # pixels of the view
BOX_REACH = int((math.sqrt(4 * BLUR_SIGMA[1] ** 2 + 1) - 1) / 2) + 1  # pixels to each side of one of three box blurs
JITTER = (
    (colour.adjust_brightness, (0.6, 1.4)),
    (colour.adjust_contrast, (0.6, 1.4)),
    (colour.adjust_saturation, (0.6, 1.4)),
    (colour.adjust_hue, (-0.1, 0.1)),
)
JITTER_ORDERS = list(permutations(range(len(JITTER))))

BOX = (2 * TRIES + 2,)  # for a box: the area and the aspect of each try, then top and left
CHANCE = np.dtype(
    [
        ("crop_box", "f8", BOX),
        ("mirror", "f8"),
        ("move", "f8"),
        ("place", "f8"),
        ("place_box", "f8", BOX),
        ("place_mirror", "f8"),
        ("jitter", "f8"),
        ("jitter_order", "f8"),
        ("jitter_strength", "f8", (len(JITTER),)),
        ("grayscale", "f8"),
        ("blur", "f8"),
        ("blur_sigma", "f8"),
        ("erase", "f8"),
        ("erase_box", "f8", BOX),
    ]
)  # all that is left to chance in a view, as numbers in 0..1; every recipe draws all of them


class Draws(NamedTuple):
    """What is done to the views of a batch on the device; each list of views is in ascending order."""

    mirrored: Tensor  # int64, which views
    grey: Tensor  # int64, which views
    blurred: Tensor  # (b,) int64, which views
    sigma: Tensor  # (b,) float32, pixels
    erased: Tensor  # (e,) int64, which views
    rectangle: Tensor  # (e, 4) int64, top, left, height, width


class Views:
    """Makes random views of crops, from what chance says about each.

    `height` x `width` pixels, `recipe` a Recipe or a name in RECIPES, `fill` the colour of erased pixels: the model's
    pixel mean, which is zero once the model has normalised. With `places`, pictures (H, W, 3) uint8 without a person,
    crops are cut-outs of four channels whose alpha is the person, and views show the person somewhere else: what stays
    is the person alone (not LUPerson's; real crops have no alpha). Raises InputError for an unknown name.
    """

    def __init__(
        self,
        height: int,
        width: int,
        recipe: str | Recipe = "luperson",
        fill: Sequence[float] = LUPERSON_MEAN,
        places: Sequence[np.ndarray] = (),
    ):
        if isinstance(recipe, str) and recipe not in RECIPES:
            raise InputError(f"there is no augmentation '{recipe}'; choose among {', '.join(RECIPES)}")
        self.height, self.width, self.fill, self.places = height, width, fill, places
        self.recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe

    def __call__(self, crops: Sequence[np.ndarray], seed: int = 0) -> Tensor:
        """One view of every crop (H, W, 3) uint8: (n, 3, h, w) float32 in 0..255. Another seed gives other views."""
        chance = chances(np.random.default_rng(seed), len(crops))
        views = self.empty(len(crops))
        for number, crop in enumerate(crops):
            views[number] = self.cut(crop, chance[number])
        return finish(views, self.draw(chance), torch.tensor(self.fill).view(1, 3, 1, 1))

    def empty(self, count: int) -> Tensor:
        """Room for what `cut` makes, (n, 3, h, w) uint8, the three colours of a pixel side by side as it leaves them."""
        return torch.empty(count, self.height, self.width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    def cut(self, crop: np.ndarray, chance: np.void) -> Tensor:
        """A box of a crop, resized: (H, W, 3) uint8 and its row of CHANCE -> (3, h, w) uint8.

        With places the crop is (H, W, 4), and its person is put into one of them. Jitter, if any, is done here too.
        """
        view = self._resized_box(crop, chance["crop_box"])
        if len(self.places):
            view = self._move(view, chance)
        return jitter(view, chance) if chance["jitter"] < self.recipe.color_jitter else view

    def _resized_box(self, picture: np.ndarray, chance: np.ndarray) -> Tensor:
        top, left, height, width = crop_box(chance, *picture.shape[:2], self.recipe.crop_area, self.recipe.crop_aspect)
        # A copy whose colours lie side by side, also in the eyes of torch, which then is three times as fast.
        part = torch.from_numpy(picture[None, top : top + height, left : left + width].copy()).permute(0, 3, 1, 2)
        return F.interpolate(part, (self.height, self.width), mode="bilinear", antialias=True)[0]

    def _move(self, view: Tensor, chance: np.void) -> Tensor:
        """(4, h, w) -> (3, h, w): what is not person comes from a random part of a random place."""
        if chance["move"] >= self.recipe.move:
            return view[:3]
        place = self._resized_box(self.places[int(chance["place"] * len(self.places))], chance["place_box"])
        place = place.flip(2) if chance["place_mirror"] < 0.5 else place
        return torch.lerp(place.float(), view[:3].float(), view[3:] / 255).round().byte()

    def draw(self, chance: np.ndarray) -> Draws:
        """What `finish` has to do: (n,) rows of CHANCE -> Draws, on the CPU."""
        recipe = self.recipe
        blurred = np.flatnonzero(chance["blur"] < recipe.blur)
        size, area = (self.height, self.width), (ERASE_MIN_AREA, recipe.erase_max_area)
        rectangles = {
            view: first_box(chance["erase_box"][view], *size, area, ERASE_ASPECT, margin=1)
            for view in np.flatnonzero(chance["erase"] < recipe.erase)
        }
        rectangles = {view: box for view, box in rectangles.items() if box is not None}
        return Draws(
            mirrored=torch.from_numpy(np.flatnonzero(chance["mirror"] < 0.5)),
            grey=torch.from_numpy(np.flatnonzero(chance["grayscale"] < recipe.grayscale)),
            blurred=torch.from_numpy(blurred),
            sigma=torch.from_numpy(between(BLUR_SIGMA, chance["blur_sigma"][blurred])).float(),
            erased=torch.tensor(list(rectangles), dtype=torch.int64),
            rectangle=torch.tensor(list(rectangles.values()), dtype=torch.int64).reshape(-1, 4),
        )


def chances(random: np.random.Generator, count: int) -> np.ndarray:
    """What chance says about `count` views: (count,) rows of CHANCE."""
    return random.random((count, CHANCE.itemsize // 8)).view(CHANCE)[:, 0]


def between(limits: tuple[float, float], chance):
    return limits[0] + chance * (limits[1] - limits[0])


def crop_box(chance: np.ndarray, height: int, width: int, area: tuple, aspect: tuple) -> tuple[int, int, int, int]:
    """Where a view looks in a picture of height x width pixels: top, left, height, width.

    The rule of torchvision's RandomResizedCrop: a share of the area, an aspect on a logarithmic scale; when no box
    fits in ten tries, the largest one of allowed aspect in the middle. `chance` has the shape BOX.
    """
    box = first_box(chance, height, width, area, aspect)
    if box is None:
        largest = min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))
        box = (height - largest[0]) // 2, (width - largest[1]) // 2, *largest
    return box


def first_box(
    chance: np.ndarray, height: int, width: int, area: tuple, aspect: tuple, margin: int = 0
) -> tuple[int, int, int, int] | None:
    """The first of ten drawn boxes that fits into a picture of height x width pixels: top, left, height, width, or None.

    `area` is the range of the share that a box covers, `aspect` that of width / height; a box has to be `margin` pixels
    smaller than the picture in both directions. In plain Python, as this is done for one picture at a time.
    """
    numbers = chance.tolist()
    for share, stretch in zip(numbers[:TRIES], numbers[TRIES : 2 * TRIES], strict=True):
        pixels = between(area, share) * height * width
        ratio = aspect[0] * (aspect[1] / aspect[0]) ** stretch
        box_height, box_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < box_height <= height - margin and 0 < box_width <= width - margin:
            top, left = numbers[-2] * (height - box_height + 1), numbers[-1] * (width - box_width + 1)
            return int(top), int(left), box_height, box_width
    return None


def jitter(view: Tensor, chance: np.void) -> Tensor:
    """Brightness, contrast, saturation and hue, by Pillow as in the published recipe: (3, h, w) uint8 -> the same."""
    image = Image.fromarray(view.permute(1, 2, 0).contiguous().numpy())
    for change, strength in jitter_steps(chance):
        image = change(image, strength)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def jitter_steps(chance: np.void) -> list[tuple[Callable, float]]:
    """What torchvision's ColorJitter draws: the four changes in a random order, and how strong each is."""
    order = JITTER_ORDERS[int(chance["jitter_order"] * len(JITTER_ORDERS))]
    strength = chance["jitter_strength"].tolist()
    return [(JITTER[number][0], between(JITTER[number][1], strength[number])) for number in order]


def finish(views: Tensor, draws: Draws, fill: Tensor) -> Tensor:
    """Mirror, grey, blur, erase: (n, 3, h, w) uint8 -> float32 in 0..255, all on the device of the model.

    `fill` (1, 3, 1, 1) is the colour of erased pixels: the model's `pixel_mean`, which normalises to zero.
    """
    views = views.to(torch.float32, memory_format=torch.contiguous_format)  # colour after colour, as `blur` needs them
    views[draws.mirrored] = views[draws.mirrored].flip(3)
    red, green, blue = views[draws.grey].unbind(1)
    views[draws.grey] = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None].expand(-1, 3, -1, -1)
    views[draws.blurred] = blur(views[draws.blurred], draws.sigma)
    views[draws.erased] = erase(views[draws.erased], draws.rectangle, fill)
    return views


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each image with a sigma of its own: (b, C, h, w) float, (b,) pixels -> (b, C, h, w)."""
    count, colours, height, width = images.shape
    rows, columns = blur_matrix(sigma, height), blur_matrix(sigma, width)
    images = images.reshape(count, colours * height, width) @ columns.transpose(1, 2)
    images = images.reshape(count, colours, height, width).transpose(1, 2).reshape(count, height, colours * width)
    return (rows @ images).reshape(count, height, colours, width).transpose(1, 2)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blur as Pillow does it, by three box blurs with fractional ends: sigma (b,) pixels -> (b, size, size).

    The border pixel stands for all pixels beyond it; sigma 0 gives the identity. Sigma is at most BLUR_SIGMA's.
    """
    reach = 3 * BOX_REACH
    small = min(size, 2 * reach + 1)
    box = box_matrix(sigma, small)
    blurred = box @ box @ box
    # Pixels further than `reach` from the border are all blurred alike, so a small matrix says everything.
    pixel = torch.arange(size, device=sigma.device)
    row = torch.maximum(pixel.clamp(max=reach), pixel - (size - small))  # of the small matrix
    column = row[:, None] + pixel - pixel[:, None]  # (size, size)
    reached = (column >= 0) & (column < small)
    return blurred[:, row[:, None], column.clamp(0, small - 1)] * reached


def box_matrix(sigma: Tensor, size: int) -> Tensor:
    """One of the three box blurs whose variances add up to sigma's: (b,) pixels -> (b, size, size)."""
    variance = sigma**2 / 3
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # full pixels to each side
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    offset = torch.arange(-BOX_REACH, BOX_REACH + 1, device=sigma.device)
    beyond = offset.abs() - whole[:, None]  # (b, taps)
    tap = torch.where(beyond <= 0, 1.0, torch.where(beyond == 1, part[:, None], 0.0))
    tap = tap / (2 * (whole + part) + 1)[:, None]
    pixel = torch.arange(size, device=sigma.device)
    source = (pixel[:, None] + offset).clamp(0, size - 1)  # (size, taps)
    return torch.einsum("bt,ptq->bpq", tap, (source[:, :, None] == pixel).to(tap.dtype))


def erase(images: Tensor, rectangle: Tensor, fill: Tensor) -> Tensor:
    """Paint a rectangle of each image in the colour `fill`: (e, 3, h, w), (e, 4) top, left, height, width."""
    top, left, height, width = (edge[:, None] for edge in rectangle.unbind(1))
    y, x = (torch.arange(size, device=images.device) for size in images.shape[2:])
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)  # (e, h), (e, w)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], fill, images)
