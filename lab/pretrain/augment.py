"""Two random views of one crop: what pre-training calls "the same".

LUPerson's list (paper, section 4.2) leaves out colour jitter, because the colour of clothes tells people apart, and
adds strong random erasing, because people are often half hidden. MoCo's own list is there to compare with.
"""

import random
from dataclasses import dataclass

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from lab.backbone import LUPERSON_MEAN
from lab.data.crops import to_tensor
from lab.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Which random changes make a view, and how strong they are; probabilities are per view."""

    color_jitter: float = 0.0  # probability; brightness, contrast, saturation 0.4, hue 0.1
    grayscale: float = 0.2  # probability
    blur: float = 0.5  # probability; Gaussian, sigma 0.1-2 pixels
    erase: float = 0.5  # probability
    erase_max_area: float = 0.6  # share of the view that erasing may cover at most; at least 0.02


RECIPES = {
    "luperson": Recipe(),  # the released choice, called ori-cj+sre there
    "luperson-erase": Recipe(erase=0.0),
    "moco": Recipe(color_jitter=0.8, erase=0.0),  # MoCo v2's own list
    "moco+erase": Recipe(color_jitter=0.8),
}


def view_transform(height: int, width: int, recipe: Recipe, fill: tuple[float, ...] = LUPERSON_MEAN) -> v2.Compose:
    """One random view: picture -> (3, height, width) float32, RGB 0..255.

    Erased pixels get `fill`, the model's pixel mean, which is zero once the model has normalised.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop((height, width), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=recipe.color_jitter),
            v2.RandomGrayscale(recipe.grayscale),
            v2.RandomApply([PillowBlur(0.1, 2.0)], p=recipe.blur),
            v2.RandomHorizontalFlip(0.5),
            v2.Lambda(lambda image: to_tensor(image).float()),
            v2.RandomErasing(recipe.erase, scale=(0.02, recipe.erase_max_area), ratio=(0.3, 3.3), value=list(fill)),
        ]
    )


class TwoViews:
    """Two independent views of one crop: picture -> (2, 3, height, width) float32."""

    def __init__(self, height: int, width: int, recipe: str | Recipe = "luperson", fill=LUPERSON_MEAN):
        if isinstance(recipe, str):
            if recipe not in RECIPES:
                raise InputError(f"there is no augmentation '{recipe}'; choose among {', '.join(RECIPES)}")
            recipe = RECIPES[recipe]
        self.view = view_transform(height, width, recipe, fill)

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.stack([self.view(image), self.view(image)])


class PillowBlur:
    """Gaussian blur on the picture with a random sigma in pixels, as MoCo v2 has it (after SimCLR)."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(self.low, self.high)))
