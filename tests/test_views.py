"""Views of pre-training: equal to Pillow's and torchvision's per-picture operations, with the same distribution."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from lab.errors import InputError
from lab.pretrain.augment import (
    RECIPES,
    Recipe,
    Views,
    blur_matrix,
    pad_together,
    random_crop_boxes,
    resize_matrix,
)

PLAIN = Recipe(grayscale=0, blur=0, erase=0)


def picture(height=128, width=64, seed=0) -> Image.Image:
    """Colourful, with soft and hard edges."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 5, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(coarse).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def apply(rows, image, columns):
    return torch.einsum("hH,cHW,wW->chw", rows, image.float(), columns)


@pytest.mark.parametrize("box", [(0, 0, 128, 64), (10, 5, 60, 44), (3, 9, 30, 30), (100, 40, 20, 17)])
def test_resizing_a_box_is_pillow_s_bilinear_resize(box):
    top, left, height, width = box
    image = picture()
    expected = tensor(F.resized_crop(image, *box, [64, 32]))
    rows = resize_matrix(torch.tensor([top]), torch.tensor([height]), 128, 64)[0]
    columns = resize_matrix(torch.tensor([left]), torch.tensor([width]), 64, 32)[0]
    found = apply(rows, tensor(image), columns)
    assert (found - expected).abs().max() < 1.01  # Pillow rounds after each of the two directions


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7, 2.0, 4.0])
def test_blur_is_pillow_s(sigma):
    image = picture()
    expected = tensor(image.filter(ImageFilter.GaussianBlur(sigma)))
    value = torch.tensor([sigma])
    difference = apply(blur_matrix(value, 128)[0], tensor(image), blur_matrix(value, 64)[0]) - expected
    assert difference.abs().max() < 3  # Pillow rounds after each of six passes
    assert difference.abs().mean() < 0.7


def test_blur_of_zero_changes_nothing_and_no_blur_changes_a_plain_picture():
    matrices = blur_matrix(torch.tensor([0.0, 0.3, 2.0]), 20)
    assert torch.equal(matrices[0], torch.eye(20))
    torch.testing.assert_close(matrices.sum(2), torch.ones(3, 20))


@pytest.mark.parametrize("size", [(128, 64), (64, 128), (90, 90)])
def test_crop_boxes_are_distributed_like_torchvision_s(size):
    torch.manual_seed(0)
    count = 4000
    found = random_crop_boxes(torch.tensor(size).expand(count, 2)).double()
    blank = torch.zeros(3, *size)
    draw = RandomResizedCrop.get_params
    expected = torch.tensor([draw(blank, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]).double()
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= torch.tensor(size)).all()
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        ours, theirs = found.quantile(quantile, dim=0), expected.quantile(quantile, dim=0)
        assert (ours - theirs).abs().max() <= 0.035 * max(size), quantile
    torch.testing.assert_close(found.mean(0), expected.mean(0), atol=0.015 * max(size), rtol=0)


def test_a_crop_that_no_box_fits_gives_its_largest_middle_part():
    narrow = torch.tensor([[300, 10], [10, 300]]).repeat(50, 1)
    boxes = random_crop_boxes(narrow).unique(dim=0)
    assert boxes.tolist() == [[0, (300 - 13) // 2, 10, 13], [(300 - 13) // 2, 0, 13, 10]]


def test_whole_shows_most_of_a_person_in_the_proportions_of_fine_tuning():
    torch.manual_seed(0)
    recipe = RECIPES["whole"]
    boxes = random_crop_boxes(torch.tensor([[128, 64]]).expand(3000, 2), recipe.crop_area, recipe.crop_aspect)
    height, width = boxes[:, 2].double(), boxes[:, 3].double()
    assert (height * width).min() >= 0.4 * 128 * 64 * 0.97  # sides are rounded to whole pixels
    aspect = width / height
    assert aspect.min() == pytest.approx(3 / 8, abs=0.01)
    assert aspect.max() == pytest.approx(2 / 3, abs=0.01)
    assert aspect.log().mean() == pytest.approx(np.log(0.5), abs=0.02)  # 1:2, as wide crops as high ones
    published = random_crop_boxes(torch.tensor([[128, 64]]).expand(3000, 2))
    assert (published[:, 2] > 86).float().mean() == 0, "the published boxes never reach from head to foot"
    assert (height > 86).float().mean() > 0.6
    assert replace(recipe, crop_area=Recipe.crop_area, crop_aspect=Recipe.crop_aspect) == RECIPES["luperson"]


def test_erased_rectangles_are_distributed_like_torchvision_s():
    torch.manual_seed(0)
    count, view = 3000, Views(64, 32, replace(PLAIN, erase=1.0), fill=(1.5, 2.5, 3.5))
    views = view(torch.full((count, 3, 64, 32), 200, dtype=torch.uint8))
    erased = (views == torch.tensor((1.5, 2.5, 3.5)).view(3, 1, 1)).all(1)
    assert ((views - 200).abs().amax(1) < 0.01).logical_or(erased).all()
    found = torch.stack([erased.any(2).sum(1), erased.any(1).sum(1)], dim=1).double()  # height, width
    assert (found.prod(1) == erased.sum((1, 2))).all(), "a rectangle without holes"
    blank = torch.zeros(3, 64, 32)
    drawn = [RandomErasing.get_params(blank, (0.02, 0.6), (0.3, 3.3), [0.0]) for _ in range(count)]
    expected = torch.tensor([box[2:4] if box[2] < 64 or box[3] < 32 else (0, 0) for box in drawn]).double()
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert (found.quantile(quantile, dim=0) - expected.quantile(quantile, dim=0)).abs().max() <= 2
    assert (erased.float().mean() - (expected.prod(1) / 2048).mean()).abs() < 0.01


def test_every_change_comes_as_often_as_the_recipe_says():
    torch.manual_seed(0)
    crops = tensor(picture()).expand(2000, 3, 128, 64)
    views = Views(24, 12, replace(PLAIN, grayscale=0.2))(crops)
    grey = ((views[:, 0] - views[:, 1]).abs().amax((1, 2)) < 1e-3).float().mean()
    assert grey == pytest.approx(0.2, abs=0.03)
    views = Views(24, 12, replace(PLAIN, erase=0.5), fill=(-1, -1, -1))(crops)
    assert (views == -1).flatten(1).any(1).float().mean() == pytest.approx(0.5, abs=0.04)
    sharp = Image.fromarray((np.indices((128, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    left_and_right = np.zeros((128, 64, 3), np.uint8)
    left_and_right[:, 32:] = 255
    views = Views(128, 64, PLAIN)(torch.from_numpy(left_and_right).permute(2, 0, 1).expand(2000, 3, 128, 64))
    known = views[:, 0].mean(1)  # (B, width): brighter to the right, or mirrored
    known = known[known.amax(1) - known.amin(1) > 100]
    assert (known[:, 0] > known[:, -1]).float().mean() == pytest.approx(0.5, abs=0.04)
    views = Views(128, 64, replace(PLAIN, blur=0.5))(tensor(sharp).expand(500, 3, 128, 64))
    assert views.shape == (500, 3, 128, 64)


def test_a_cut_out_person_moves_to_another_place_and_stays_the_same():
    torch.manual_seed(0)
    cut_outs = torch.zeros(2000, 4, 32, 16, dtype=torch.uint8)
    cut_outs[:, 0] = 90  # the own place
    cut_outs[:, 1, :, 4:12] = 200  # the person, green, in the middle columns
    cut_outs[:, 3, :, 4:12] = 255
    places = torch.tensor([30, 60], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 32, 16)
    whole = replace(PLAIN, crop_area=(1.0, 1.0), crop_aspect=(0.5, 0.5))
    views = Views(32, 16, whole, places=places)(cut_outs)
    assert views.shape == (2000, 3, 32, 16)
    person = torch.tensor([90.0, 200, 0]).view(1, 3, 1, 1)
    torch.testing.assert_close(views[..., 6:10], person.expand(2000, 3, 32, 4))
    corner = views[:, :, 0, 0]
    stayed = (corner == torch.tensor([90.0, 0, 0])).all(1)
    assert stayed.float().mean() == pytest.approx(0.2, abs=0.03)  # Recipe.move is 0.8
    first, second = ((corner == grey).all(1).float().mean() for grey in (30, 60))
    assert first + second == pytest.approx(1 - float(stayed.float().mean()))
    assert first == pytest.approx(0.4, abs=0.04)


def test_grey_is_the_luminance_that_pillow_uses():
    crops = tensor(picture())[None]
    torch.manual_seed(3)
    colour = Views(32, 16, PLAIN)(crops)[0]
    torch.manual_seed(3)
    grey = Views(32, 16, replace(PLAIN, grayscale=1.0))(crops)[0]
    rounded = Image.fromarray(colour.round().byte().permute(1, 2, 0).numpy())
    expected = tensor(rounded.convert("L").convert("RGB"))
    assert (grey - expected).abs().max() < 1.1


def test_luperson_changes_no_colour_and_moco_does():
    plain = torch.tensor([180, 90, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(40, 3, 128, 64)
    torch.manual_seed(0)
    kept = Views(8, 4, replace(RECIPES["luperson-erase"], grayscale=0))(plain)
    torch.testing.assert_close(kept, plain[:, :, :8, :4].float(), atol=0.01, rtol=0)
    changed = Views(8, 4, replace(RECIPES["moco"], grayscale=0))(plain)
    differs = ((changed - plain[:, :, :8, :4]).abs().amax((1, 2, 3)) > 3).float().mean()
    assert 0.6 < differs < 0.95  # of the views, probability 0.8
    assert changed.min() >= -0.01
    assert changed.max() <= 255.01


def test_two_views_differ_have_the_size_asked_for_and_repeat_with_the_seed():
    crops, view = torch.stack([tensor(picture(seed=seed)) for seed in range(4)]), Views(48, 24)
    torch.manual_seed(1)
    first, second = view(crops), view(crops)
    assert first.shape == (4, 3, 48, 24)
    assert first.dtype == torch.float32
    assert ((first - second).abs().amax((1, 2, 3)) > 1).all()
    torch.manual_seed(1)
    assert torch.equal(view(crops), first)
    with pytest.raises(InputError, match="no augmentation 'strong'"):
        Views(48, 24, "strong")


def test_crops_of_several_sizes_share_a_batch_and_see_nothing_beyond_their_own_border():
    images = [tensor(Image.new("RGB", size, (200, 100, 50))) for size in ((64, 128), (20, 70), (90, 30))]
    crops, sizes = pad_together(images)
    assert crops.shape == (3, 3, 128, 90)
    assert sizes.tolist() == [[128, 64], [70, 20], [30, 90]]
    for _ in range(20):
        views = Views(16, 8, PLAIN)(crops, sizes)
        torch.testing.assert_close(
            views, torch.tensor([200.0, 100, 50]).view(1, 3, 1, 1).expand_as(views), atol=0.01, rtol=0
        )
