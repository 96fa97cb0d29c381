"""Two random views of one crop: what pre-training calls "the same".

LUPerson's list (paper, section 4.2) leaves out colour jitter, because the colour of clothes tells people apart, and
adds strong random erasing, because people are often half hidden. MoCo's own list is there to compare with.

Cropping, resizing, mirroring and blurring are linear, and they treat rows and columns alike: each is a matrix for the
rows and one for the columns, and a view is `rows @ crop @ columns.T`. So a whole batch becomes views in a few batched
matrix products, with a box, a blur and a rectangle of its own for every crop, on the CPU or on a GPU. Chance comes from
torch's CPU generator in both cases. Legend: B crops in a batch, H x W their pixels, h x w the pixels of a view.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

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


RECIPES = {
    "luperson": Recipe(),  # the released choice, called ori-cj+sre there
    "luperson-erase": Recipe(erase=0.0),
    # A person's crop is half as wide as high, so the published boxes, about as wide as high, show a half at most, and
    # two views of one crop often share nothing but the place. Hundreds of millions of views get over it; a small run
    # learns people sooner from views that show most of the person, in the proportions of fine-tuning.
    "whole": Recipe(crop_area=(0.4, 1.0), crop_aspect=(3 / 8, 2 / 3)),
    "moco": Recipe(color_jitter=0.8, erase=0.0),  # MoCo v2's own list
    "moco+erase": Recipe(color_jitter=0.8),
}
ERASE_MIN_AREA, ERASE_ASPECT = 0.02, (1 / 3.3, 1 / 0.3)  # share of the view, width / height of the rectangle
TRIES = 10  # boxes that are drawn until one fits, as torchvision does
BLUR_SIGMA = (0.1, 2.0)  # pixels of the view
GREY = (0.299, 0.587, 0.114)  # of red, green, blue


class Views:
    """Makes one random view of every crop in a batch: call it twice for view_q and view_k.

    `height` x `width` pixels, `recipe` a Recipe or a name in RECIPES, `fill` the colour of erased pixels: the model's
    pixel mean, which is zero once the model has normalised. With `places` (N, 3, H', W'), pictures without a person,
    crops are cut-outs of four channels whose alpha is the person, and views show the person somewhere else: what stays
    is the person alone (not LUPerson's; real crops have no alpha). Raises InputError for an unknown name.
    """

    def __init__(
        self,
        height: int,
        width: int,
        recipe: str | Recipe = "luperson",
        fill=LUPERSON_MEAN,
        places: Tensor | None = None,
    ):
        if isinstance(recipe, str) and recipe not in RECIPES:
            raise InputError(f"there is no augmentation '{recipe}'; choose among {', '.join(RECIPES)}")
        self.height, self.width, self.fill, self.places = height, width, fill, places
        self.recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
        self.jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)

    def __call__(self, crops: Tensor, sizes: Tensor | None = None) -> Tensor:
        """RGB crops (B, 3, H, W) uint8 -> views (B, 3, height, width) float32 in 0..255, on the device of `crops`.

        With places, `crops` are RGBA cut-outs (B, 4, H, W). Crops of several sizes lie at the top left of one batch;
        `sizes` (B, 2) says how high and wide each one is.
        """
        if sizes is None:
            sizes = torch.tensor(crops.shape[2:]).expand(len(crops), 2)
        views = self._crop_and_mirror(crops, sizes)
        if self.places is not None:
            views = self._move(views)
        views = self._grey(self._jitter(views))
        return self._erase(self._blur(views))

    def _crop_and_mirror(self, crops: Tensor, sizes: Tensor) -> Tensor:
        boxes = random_crop_boxes(sizes, self.recipe.crop_area, self.recipe.crop_aspect)
        top, left, height, width = boxes.to(crops.device).unbind(1)
        rows = resize_matrix(top, height, crops.shape[2], self.height)
        columns = resize_matrix(left, width, crops.shape[3], self.width)
        mirrored = _chance(0.5, len(crops)).to(crops.device)
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        return _separable(rows, crops, columns)

    def _move(self, views: Tensor) -> Tensor:
        """(B, 4, h, w) -> (B, 3, h, w): what is not person comes from a random part of a random place."""
        places = self.places[torch.randint(len(self.places), (len(views),))].to(views.device)
        places = self._crop_and_mirror(places, torch.tensor(places.shape[2:]).expand(len(places), 2))
        moved = _chance(self.recipe.move, len(views)).to(views.device)
        person = torch.where(moved[:, None, None, None], views[:, 3:] / 255, 1)
        return person * views[:, :3] + (1 - person) * places

    def _jitter(self, views: Tensor) -> Tensor:
        for index in _chance(self.recipe.color_jitter, len(views)).nonzero()[:, 0]:
            views[index] = self.jitter(views[index].clamp(0, 255) / 255) * 255
        return views

    def _grey(self, views: Tensor) -> Tensor:
        grey = (views * views.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
        chosen = _chance(self.recipe.grayscale, len(views)).to(views.device)
        return torch.where(chosen[:, None, None, None], grey, views)

    def _blur(self, views: Tensor) -> Tensor:
        sigma = _uniform(BLUR_SIGMA, len(views)) * _chance(self.recipe.blur, len(views))  # 0 changes nothing
        sigma = sigma.to(views.device)
        return _separable(blur_matrix(sigma, self.height), views, blur_matrix(sigma, self.width))

    def _erase(self, views: Tensor) -> Tensor:
        sizes = torch.tensor((self.height, self.width)).expand(len(views), 2)
        area = (ERASE_MIN_AREA, self.recipe.erase_max_area)
        boxes, fits = _random_boxes(sizes - 1, area, ERASE_ASPECT, sizes)  # a rectangle is smaller than the view
        chosen = (fits & _chance(self.recipe.erase, len(views))).to(views.device)
        top, left, height, width = (edge[:, None] for edge in boxes.to(views.device).unbind(1))
        y, x = (torch.arange(size, device=views.device) for size in (self.height, self.width))
        rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)  # (B, h), (B, w)
        inside = (rows & chosen[:, None])[:, None, :, None] & columns[:, None, None, :]
        return torch.where(inside, views.new_tensor(self.fill).view(3, 1, 1), views)


def random_crop_boxes(sizes: Tensor, area=Recipe.crop_area, aspect=Recipe.crop_aspect) -> Tensor:
    """Where each view looks: (B, 2) height and width -> (B, 4) top, left, height, width in pixels of the crop.

    The rule of torchvision's RandomResizedCrop: a share of the area, an aspect on a logarithmic scale; when no box
    fits in ten tries, the largest one of allowed aspect in the middle.
    """
    boxes, fits = _random_boxes(sizes, area, aspect, sizes)
    height, width = sizes.unbind(1)
    largest = torch.stack(
        [
            torch.minimum(height, (width / aspect[0]).round().long()),
            torch.minimum(width, (height * aspect[1]).round().long()),
        ],
        dim=1,
    )
    middle = torch.cat([(sizes - largest) // 2, largest], dim=1)
    return torch.where(fits[:, None], boxes, middle)


def resize_matrix(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Bilinear, antialiased resizing of `length` pixels from `start` on to `out` pixels: (B,), (B,) -> (B, out, size).

    Each row of a matrix says how much of every source pixel an output pixel takes: a triangle around its position,
    one source pixel wide to each side, or as wide as the step between output pixels when that is larger.
    """
    start, length = start[:, None].float(), length[:, None].float()  # (B, 1)
    source = torch.arange(size, device=start.device) + 0.5
    step = length / out
    position = start + (torch.arange(out, device=start.device) + 0.5) * step  # (B, out)
    far = (source - position[:, :, None]).abs() / step.clamp(min=1)[:, :, None]  # (B, out, size)
    inside = (source > start) & (source < start + length)  # (B, size)
    weight = (1 - far).clamp(min=0) * inside[:, None, :]
    return weight / weight.sum(2, keepdim=True)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blur as Pillow does it, by three box blurs with fractional ends: sigma (B,) pixels -> (B, size, size).

    The border pixel stands for all pixels beyond it; sigma 0 gives the identity.
    """
    variance = sigma**2 / 3  # of one box
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # full pixels to each side
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    reach = int(whole.max()) + 1
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    beyond = offset.abs() - whole[:, None]  # (B, taps)
    tap = torch.where(beyond <= 0, 1.0, torch.where(beyond == 1, part[:, None], 0.0))
    tap = tap / (2 * (whole + part) + 1)[:, None]
    position = (torch.arange(size, device=sigma.device)[:, None] + offset).clamp(0, size - 1)  # (size, taps)
    shape = (len(sigma), size, len(offset))
    box = torch.zeros(len(sigma), size, size, device=sigma.device)
    box.scatter_add_(2, position.expand(shape), tap[:, None, :].expand(shape))
    return box @ box @ box


def pad_together(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Crops (3, H, W) of any sizes as one batch (B, 3, H, W), zeros beyond each, and their sizes (B, 2)."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = sizes.max(0).values.tolist()
    padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images]
    return torch.stack(padded), sizes


def _random_boxes(limits: Tensor, area: tuple, aspect: tuple, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (B, 4) top, left, height, width within pictures of `sizes` (B, 2), and whether one was found (B,).

    `area` is the range of the share that a box covers, `aspect` that of width / height; of ten drawn boxes the first
    that is no larger than `limits` (B, 2) is taken.
    """
    shape = (len(sizes), TRIES)
    pixels = sizes.prod(1, keepdim=True) * _uniform(area, shape)
    stretch = _uniform((math.log(aspect[0]), math.log(aspect[1])), shape).exp().sqrt()
    tried = torch.stack([pixels.sqrt() / stretch, pixels.sqrt() * stretch], dim=2).round().long()  # (B, tries, 2)
    fits = ((tried > 0) & (tried <= limits[:, None])).all(2)
    box = tried[torch.arange(len(sizes)), fits.int().argmax(1)]  # (B, 2), the first that fits
    corner = (torch.rand(len(sizes), 2) * (sizes - box + 1)).floor().long()
    return torch.cat([corner, box], dim=1), fits.any(1)


def _separable(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """(B, h, H), (B, 3, H, W), (B, w, W) -> rows @ image @ columns.T for each of the three colours, (B, 3, h, w)."""
    count, colours, height, width = images.shape
    planes = images.transpose(1, 2).reshape(count, height, colours * width)  # before .float(): bytes move faster
    planes = (rows @ planes.float()).reshape(count, -1, width)  # (B, h * 3, W)
    return (planes @ columns.transpose(1, 2)).reshape(count, rows.shape[1], colours, -1).transpose(1, 2)


def _chance(probability: float, count: int) -> Tensor:
    return torch.rand(count) < probability


def _uniform(limits: tuple[float, float], shape) -> Tensor:
    return torch.rand(shape) * (limits[1] - limits[0]) + limits[0]
