"""Views of pre-training: equal to Pillow's and torchvision's per-picture operations, with the same distribution."""

import math
import warnings
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import ColorJitter, RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as on_tensors

from lab.errors import InputError
from lab.pretrain.augment import (
    COLUMNS,
    JITTER,
    RECIPES,
    Draws,
    Recipe,
    Views,
    blur,
    chances,
    crop_box,
    finish,
    jitter,
    jitter_steps,
)

PLAIN = Recipe(grayscale=0, blur=0, erase=0)
UNSEEN = torch.tensor([1.5, 2.5, 3.5]).view(1, 3, 1, 1)  # a colour that no picture has


def picture(height=128, width=64, seed=0) -> np.ndarray:
    """Colourful pixels (H, W, 3), with soft and hard edges."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 5, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(coarse).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return chances(np.random.default_rng(seed), count)


def tensor(image: Image.Image | np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def boxes(count: int, height: int, width: int, area=Recipe.crop_area, aspect=Recipe.crop_aspect) -> np.ndarray:
    return np.array([crop_box(chance, height, width, area, aspect) for chance in rows(count)["crop_box"]])


@pytest.mark.parametrize(("size", "view"), [((128, 64), (64, 32)), ((300, 121), (256, 128)), ((33, 90), (48, 24))])
def test_a_cut_view_is_pillow_s_crop_and_resize(size, view):
    crop, views = picture(*size), Views(*view, PLAIN)
    for chance in rows(20):
        top, left, height, width = crop_box(chance["crop_box"], *size, PLAIN.crop_area, PLAIN.crop_aspect)
        part = Image.fromarray(crop).crop((left, top, left + width, top + height))
        expected = tensor(part.resize(view[::-1], Image.Resampling.BILINEAR))
        found = views.cut(crop, chance)
        assert found.dtype == torch.uint8
        assert (found.int() - expected.int()).abs().max() <= 1


def test_a_view_sees_nothing_beyond_the_border_of_its_crop_and_leaves_it_as_it_is():
    crops = [np.asarray(Image.new("RGB", size, (200, 100, 50))) for size in ((64, 128), (20, 70), (90, 30), (1, 1))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # these arrays are read-only, and torch warns of sharing such memory
        views = torch.cat([Views(16, 8, PLAIN)(crops, seed) for seed in range(10)])
    assert (views == torch.tensor([200.0, 100, 50]).view(1, 3, 1, 1)).all()


def shares(box: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    """Area, aspect and position of boxes (n, 4), so that sizes can be compared."""
    top, left, box_height, box_width = box.astype(float).T
    return {
        "area": box_height * box_width / (height * width),
        "aspect": box_width / box_height,
        "top": top / np.maximum(1, height - box_height),
        "left": left / np.maximum(1, width - box_width),
        "bottom": (top + box_height) / height,
        "right": (left + box_width) / width,
    }


def assert_alike(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert ks_2samp(found[name], values).pvalue > 0.01, name


@pytest.mark.parametrize("size", [(128, 64), (64, 128), (90, 90)])
def test_crop_boxes_are_distributed_like_torchvision_s(size):
    torch.manual_seed(0)
    blank = torch.zeros(3, *size)
    drawn = [RandomResizedCrop.get_params(blank, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
    found = boxes(4000, *size)
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= size).all()
    assert_alike(shares(found, *size), shares(np.array(drawn), *size))


def test_a_crop_that_no_box_fits_gives_its_largest_middle_part():
    assert np.unique(boxes(50, 300, 10), axis=0).tolist() == [[(300 - 13) // 2, 0, 13, 10]]
    assert np.unique(boxes(50, 10, 300), axis=0).tolist() == [[0, (300 - 13) // 2, 10, 13]]


def test_whole_shows_most_of_a_person_in_the_proportions_of_fine_tuning():
    recipe = RECIPES["whole"]
    found = shares(boxes(3000, 128, 64, recipe.crop_area, recipe.crop_aspect), 128, 64)
    assert found["area"].min() >= 0.4 * 0.97  # sides are rounded to whole pixels
    assert found["aspect"].min() == pytest.approx(3 / 8, abs=0.01)
    assert found["aspect"].max() == pytest.approx(2 / 3, abs=0.01)
    assert np.log(found["aspect"]).mean() == pytest.approx(math.log(0.5), abs=0.02)  # 1:2, as wide crops as high ones
    assert (boxes(3000, 128, 64)[:, 2] <= 86).all(), "the published boxes never reach from head to foot"
    assert (boxes(3000, 128, 64, recipe.crop_area, recipe.crop_aspect)[:, 2] > 86).mean() > 0.6
    assert replace(recipe, crop_area=Recipe.crop_area, crop_aspect=Recipe.crop_aspect) == RECIPES["luperson"]


def test_the_six_columns_of_the_papers_table_differ_in_what_their_names_say():
    columns = [RECIPES[name] for name in COLUMNS]
    done = [(one.color_jitter > 0, one.grayscale > 0, one.blur > 0, one.erase > 0) for one in columns]
    assert done == [
        (True, True, True, False),  # MoCo v2
        (True, True, True, True),  # + RE
        (True, False, True, False),  # - GrayScale
        (True, True, False, False),  # - GaussBlur
        (False, True, True, False),  # - ColorJitter
        (False, True, True, True),  # - CJ + RE
    ]
    for name, recipe in COLUMNS.items():
        assert replace(RECIPES[f"whole-{name}"], crop_area=(0.2, 1.0), crop_aspect=(3 / 4, 4 / 3)) == recipe


def test_erased_rectangles_are_distributed_like_torchvision_s():
    torch.manual_seed(0)
    blank = torch.zeros(3, 64, 32)
    drawn = [RandomErasing.get_params(blank, (0.02, 0.6), (0.3, 3.3), [0.0])[:4] for _ in range(4000)]
    drawn = np.array([box for box in drawn if box[2:] != (64, 32)])  # the whole view: none of ten tries did fit
    draws = Views(64, 32, replace(PLAIN, erase=1.0)).draw(rows(4000))
    assert len(draws.rectangle) == pytest.approx(len(drawn), abs=30)
    assert_alike(shares(draws.rectangle.numpy(), 64, 32), shares(drawn, 64, 32))


def test_every_change_comes_as_often_and_as_strong_as_the_recipe_says():
    draws = Views(64, 32, "luperson").draw(rows(20_000))
    often = {name: len(getattr(draws, name)) / 20_000 for name in ("mirrored", "grey", "blurred")}
    assert often == pytest.approx({"mirrored": 0.5, "grey": 0.2, "blurred": 0.5}, abs=0.015)
    assert len(draws.erased) / 20_000 == pytest.approx(0.5, abs=0.015)
    assert kstest(draws.sigma.numpy(), "uniform", (0.1, 1.9)).pvalue > 0.01
    assert len(draws.sigma) == len(draws.blurred)
    assert [len(values) for values in Views(64, 32, PLAIN).draw(rows(100))[1:]] == [0] * 5


def test_changes_come_independently_of_one_another_and_of_the_box():
    chance = rows(20_000)
    draws = Views(64, 32, "luperson").draw(chance)
    done = np.zeros((4, 20_000))
    for row, name in enumerate(("mirrored", "grey", "blurred", "erased")):
        done[row, getattr(draws, name)] = 1
    area = [height * width for _, _, height, width in boxes(20_000, 128, 64)]
    together = np.corrcoef([*done, area])
    assert np.abs(together - np.eye(5)).max() < 0.03


def test_jitter_draws_what_torchvision_s_does():
    torch.manual_seed(0)
    steps = [jitter_steps(chance) for chance in rows(4000)]
    names = [change for change, _ in JITTER]
    orders = [tuple(names.index(change) for change, _ in one) for one in steps]
    counts = [orders.count(order) for order in permutations(range(4))]
    assert chisquare(counts).pvalue > 0.01
    assert sum(counts) == 4000
    torchvision = ColorJitter(0.4, 0.4, 0.4, 0.1)
    limits = torchvision.brightness, torchvision.contrast, torchvision.saturation, torchvision.hue
    drawn = np.array([ColorJitter.get_params(*limits)[1:] for _ in range(4000)])
    for number, change in enumerate(names):
        assert ks_2samp([dict(one)[change] for one in steps], drawn[:, number]).pvalue > 0.01, change.__name__


def test_jitter_changes_pixels_as_torchvision_does():
    functions = {name: getattr(on_tensors, name) for name in dir(on_tensors) if name.startswith("adjust_")}
    view = tensor(picture(40, 20))
    for chance in rows(12):
        expected = view
        for change, strength in jitter_steps(chance):
            expected = functions[change.__name__.removesuffix("_image")](expected, strength)
        found = jitter(view, chance)
        difference = (found.int() - expected.int()).abs().float()  # Pillow has 256 hues, and rounds after each change
        assert difference.mean() < 3
        assert (found.int() - view.int()).abs().float().mean() > 4


def test_luperson_changes_no_colour_and_moco_does():
    plain = [np.full((128, 64, 3), (180, 90, 30), np.uint8)] * 200
    colour = torch.tensor([180.0, 90, 30]).view(1, 3, 1, 1)
    kept = Views(8, 4, replace(RECIPES["luperson-erase"], grayscale=0))(plain)
    torch.testing.assert_close(kept, colour.expand_as(kept), atol=0.01, rtol=0)
    changed = Views(8, 4, replace(RECIPES["moco"], grayscale=0))(plain)
    differs = ((changed - colour).abs().amax((1, 2, 3)) > 1).float().mean()
    assert differs == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7, 2.0])
def test_blur_is_pillow_s(sigma):
    image = picture()
    expected = tensor(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
    difference = blur(tensor(image)[None].float(), torch.tensor([sigma]))[0] - expected
    assert difference.abs().max() < 3  # Pillow rounds after each of six passes
    assert difference.abs().mean() < 0.7


def slow_box_blur(line: np.ndarray, sigma: float) -> np.ndarray:
    """One pass over a line of pixels: whole pixels to each side, and a part of the next; the border goes on."""
    length = math.sqrt(12 * sigma**2 / 3 + 1)
    whole = int((length - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - sigma**2) / (6 * (sigma**2 / 3 - (whole + 1) ** 2))
    padded = np.pad(line, whole + 1, mode="edge")
    result = []
    for middle in range(whole + 1, whole + 1 + len(line)):
        inner = padded[middle - whole : middle + whole + 1].sum()
        outer = padded[middle - whole - 1] + padded[middle + whole + 1]
        result.append((inner + part * outer) / (2 * whole + 1 + 2 * part))
    return np.array(result)


@pytest.mark.parametrize("size", [(40, 21), (13, 12), (9, 4), (2, 1)])
def test_blur_is_three_box_blurs_of_the_rows_and_three_of_the_columns(size):
    images, sigma = np.stack([picture(*size, seed=seed) for seed in range(5)]), [0.1, 0.6, 1.3, 1.8, 2.0]
    found = blur(torch.from_numpy(images).permute(0, 3, 1, 2).float(), torch.tensor(sigma))
    for image, one, strength in zip(images, found, sigma, strict=True):
        expected = image.astype(float)
        for axis in (0, 0, 0, 1, 1, 1):
            expected = np.apply_along_axis(slow_box_blur, axis, expected, strength)
        np.testing.assert_allclose(one.permute(1, 2, 0).numpy(), expected, atol=0.01)


def test_finishing_a_batch_is_finishing_each_picture_with_pillow():
    images = [picture(48, 24, seed) for seed in range(60)]
    draws = Views(48, 24, "luperson").draw(rows(60))
    found = finish(torch.stack([tensor(image) for image in images]), draws, UNSEEN)
    assert (found.dtype, found.shape) == (torch.float32, (60, 3, 48, 24))
    sigma = dict(zip(draws.blurred.tolist(), draws.sigma.tolist(), strict=True))
    rectangles = dict(zip(draws.erased.tolist(), draws.rectangle.tolist(), strict=True))
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        image = ImageOps.mirror(image) if number in draws.mirrored else image
        image = image.convert("L").convert("RGB") if number in draws.grey else image
        image = image.filter(ImageFilter.GaussianBlur(sigma[number])) if number in sigma else image
        expected = tensor(image).float()
        if number in rectangles:
            top, left, height, width = rectangles[number]
            expected[:, top : top + height, left : left + width] = UNSEEN[0]
        assert ((found[number] == UNSEEN[0]) == (expected == UNSEEN[0])).all()
        difference = (found[number] - expected).abs()
        assert difference.max() <= (
            3.5 if number in sigma else 0.51
        )  # Pillow rounds what is grey, and each blur six times
        assert difference.mean() < 1.2


def test_finishing_on_a_gpu_does_not_wait_for_it():
    """Tensors without values: what would have to look at a value on the host raises an error."""
    draws = Draws(*(values.to("meta") for values in Views(48, 24, "luperson").draw(rows(60))))
    views = finish(torch.empty(60, 3, 48, 24, dtype=torch.uint8, device="meta"), draws, UNSEEN.to("meta"))
    assert (views.shape, views.dtype) == ((60, 3, 48, 24), torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_finishing_on_a_gpu_gives_what_the_cpu_gives():
    views = torch.stack([tensor(picture(48, 24, seed)) for seed in range(60)])
    draws = Views(48, 24, "luperson").draw(rows(60))
    sent = views.cuda(), Draws(*(values.cuda() for values in draws)), UNSEEN.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = finish(*sent)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), finish(views, draws, UNSEEN), atol=0.3, rtol=0)


def test_a_cut_out_person_moves_to_another_place_and_stays_the_same():
    cut_out = np.zeros((32, 16, 4), np.uint8)
    cut_out[:, :, 0] = 90  # the own place
    cut_out[:, 4:12, 1] = 200  # the person, green, in the middle columns
    cut_out[:, 4:12, 3] = 255
    places = [np.full((40, 20, 3), grey, np.uint8) for grey in (30, 60)]
    whole = replace(PLAIN, crop_area=(1.0, 1.0), crop_aspect=(0.5, 0.5))
    views = Views(32, 16, whole, places=places)([cut_out] * 1000)
    assert views.shape == (1000, 3, 32, 16)
    person = torch.tensor([90.0, 200, 0]).view(1, 3, 1, 1)
    assert (views[..., 6:10] == person).all()
    corner = views[:, :, 0, 0]
    stayed = (corner == torch.tensor([90.0, 0, 0])).all(1).float().mean()
    assert stayed == pytest.approx(0.2, abs=0.03)  # Recipe.move is 0.8
    first, second = ((corner == grey).all(1).float().mean() for grey in (30, 60))
    assert float(first + second + stayed) == pytest.approx(1)
    assert first == pytest.approx(0.4, abs=0.05)


def test_half_a_person_lets_half_of_the_place_through_and_places_are_mirrored_too():
    half = np.full((32, 16, 4), (200, 100, 0, 51), np.uint8)  # a fifth
    place = np.zeros((32, 16, 3), np.uint8)
    place[:, 8:] = 100
    recipe = replace(PLAIN, crop_area=(1.0, 1.0), crop_aspect=(0.5, 0.5), move=1.0)
    views = Views(32, 16, recipe, places=[place])
    seen = torch.stack([views.cut(half, chance) for chance in rows(400)])[:, :, 0]
    left, right = [40, 20, 0], [120, 100, 80]  # 0.2 x person + 0.8 x place
    mirrored = (seen[:, :, 0] == torch.tensor(right)).all(1)
    assert (seen[~mirrored][:, :, [0, -1]] == torch.tensor([left, right]).T).all()
    assert (seen[mirrored][:, :, [0, -1]] == torch.tensor([right, left]).T).all()
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.08)


def test_two_seeds_give_two_views_and_one_seed_the_same():
    crops, view = [picture(seed=seed) for seed in range(4)], Views(48, 24)
    first, second = view(crops, 1), view(crops, 2)
    assert first.shape == (4, 3, 48, 24)
    assert ((first - second).abs().amax((1, 2, 3)) > 1).all()
    assert torch.equal(view(crops, 1), first)
    with pytest.raises(InputError, match="no augmentation 'strong'"):
        Views(48, 24, "strong")
