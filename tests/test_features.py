"""Feature extraction: order, size, unreadable crops, broken models; and the colour histogram."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lab.data.splits import Split
from lab.errors import InputError
from lab.evaluate.features import colour_histogram, extract


def save_crops(folder, colours, size=(20, 40)) -> list[str]:
    paths = []
    for i, colour in enumerate(colours):
        paths.append(str(folder / f"{i:04d}.png"))
        Image.new("RGB", size, colour).save(paths[-1])
    return paths


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=(2, 3))


COLOURS = [(10 * i, 255 - 10 * i, 7 * i) for i in range(7)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_come_in_the_order_of_the_crops(tmp_path, num_workers):
    paths = save_crops(tmp_path, COLOURS)[::-1]
    split = Split(paths, np.arange(7), np.arange(7) + 10)
    features = extract(mean_colour, split, 16, 8, batch_size=3, num_workers=num_workers)
    assert features.values.dtype == np.float32
    np.testing.assert_array_equal(features.values, np.array(COLOURS[::-1], np.float32))
    assert features.path.tolist() == paths
    assert features.pid.tolist() == list(range(7))
    assert features.camid.tolist() == list(range(10, 17))


def test_crops_are_resized_and_stay_bytes(tmp_path):
    seen = []

    def embed(images):
        seen.append((tuple(images.shape), images.dtype))
        return mean_colour(images)

    features = extract(embed, save_crops(tmp_path, COLOURS), 32, 12, batch_size=4)
    assert seen == [((4, 3, 32, 12), torch.uint8), ((3, 3, 32, 12), torch.uint8)]
    assert features.pid.tolist() == [-1] * 7


def test_resizing_is_bicubic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    features = extract(lambda images: images.flatten(1), [str(tmp_path / "a.png")], 16, 8)
    expected = np.asarray(Image.fromarray(pixels).resize((8, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(features.values[0], expected.ravel())


def test_a_model_is_called_through_embed(tmp_path):
    class Model(nn.Module):
        def embed(self, images):
            return mean_colour(images) + 1

    features = extract(Model(), save_crops(tmp_path, COLOURS), 16, 8)
    np.testing.assert_array_equal(features.values, np.array(COLOURS, np.float32) + 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_crop_is_named_in_one_sentence(tmp_path, num_workers):
    paths = save_crops(tmp_path, COLOURS)
    (tmp_path / "0004.png").write_bytes((tmp_path / "0004.png").read_bytes()[:30])
    with pytest.raises(InputError, match=r"0004\.png cannot be read") as caught:
        extract(mean_colour, paths, 16, 8, num_workers=num_workers)
    assert "Traceback" not in str(caught.value)


def test_a_broken_model_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"7 of 7 crops .*0000\.png"):
        extract(lambda images: mean_colour(images) * torch.nan, save_crops(tmp_path, COLOURS), 16, 8)


def test_no_crops_are_refused():
    with pytest.raises(InputError, match="no crop"):
        extract(mean_colour, [], 16, 8)


def test_colour_histogram_equals_counting_pixel_by_pixel():
    images = torch.randint(0, 256, (2, 3, 9, 4), dtype=torch.uint8, generator=torch.manual_seed(0))
    features = colour_histogram(images, stripes=2, bins=4).view(2, 2, 4, 4, 4)
    for picture in range(2):
        counts = np.zeros((2, 4, 4, 4))
        for y in range(9):
            for x in range(4):
                red, green, blue = (int(value) // 64 for value in images[picture, :, y, x])
                counts[0 if y < 5 else 1, red, green, blue] += 1
        shares = counts / counts.sum(axis=(1, 2, 3), keepdims=True)
        expected = np.sqrt(shares) / np.sqrt(shares.sum())
        np.testing.assert_allclose(features[picture].numpy(), expected, atol=1e-6)


def test_colour_histogram_is_blind_to_places_within_a_stripe_only():
    top, bottom = torch.zeros(2, 1, 3, 12, 6, dtype=torch.uint8)
    top[..., :6, :] = 200
    bottom[..., 6:, :] = 200
    mirrored = top.flip(3)
    features = colour_histogram(torch.cat([top, mirrored, bottom]))
    assert float(features[0] @ features[1]) == pytest.approx(1)
    assert float(features[0] @ features[2]) == pytest.approx(0)
