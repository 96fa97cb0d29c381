"""Attention maps: on a model whose answer is known, on every branch of MGN, and that the model stays as it was."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab.backbone import Embedder
from lab.errors import InputError
from lab.evaluate.attention import (
    activation_map,
    attention_map,
    energy_on_mask,
    enlarge,
    grad_cam,
    grad_cams,
    pointing_game,
    score_map,
    similarity_map,
)
from lab.finetune.mgn import HEADS, MGN


class TwoColours(nn.Module):
    """Channel 0 of `layer4` fires where the picture is red, channel 1 where it is blue; the feature is their mean."""

    def __init__(self):
        super().__init__()
        self.layer4 = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        with torch.no_grad():
            self.layer4.weight.zero_()
            self.layer4.weight[0, 0] = self.layer4.weight[1, 2] = 1 / 16

    @torch.inference_mode()
    def embed(self, images):
        return F.normalize(self.layer4(images.float()).mean(dim=(2, 3)))


def red_above_blue() -> np.ndarray:
    image = np.zeros((32, 16, 3), np.uint8)
    image[4:12, 4:12, 0] = 200
    image[20:28, 4:12, 2] = 100
    return image


RED = np.zeros((32, 16), bool)
RED[:16] = True


@pytest.mark.parametrize(("target", "mask"), [([1.0, 0.0], RED), ([0.0, 1.0], ~RED)])
def test_map_shows_what_makes_the_crop_similar_to_the_target(target, mask):
    cam = attention_map(TwoColours(), red_above_blue(), target_feature=np.array(target, np.float32))
    assert cam.shape == (32, 16)
    assert cam.dtype == np.float32
    assert cam.min() == 0
    assert cam.max() == pytest.approx(1, abs=1e-5)
    assert energy_on_mask(cam, mask) > 0.95
    assert pointing_game(cam, mask)


def test_without_a_target_the_stronger_part_counts_more():
    cam = attention_map(TwoColours(), red_above_blue())
    # pooled channel means are 2 : 1, and so are the activations: the parts weigh 4 : 1
    assert energy_on_mask(cam, RED) == pytest.approx(4 / 5, abs=0.02)


@pytest.mark.parametrize("layer", [None, "b1", "b2", "b3"])
def test_branches_of_mgn(layer):
    torch.manual_seed(0)
    model = MGN(num_classes=4, depth=18)
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    target = model.embed(torch.randint(0, 256, (1, 3, 64, 32)))[0].numpy()
    for feature in (target, None):
        cam = attention_map(model, image, feature, layer=layer)
        assert cam.shape == (64, 32)
        assert np.isfinite(cam).all()
        assert 0 <= cam.min() <= cam.max() <= 1
        assert cam.max() > 0


def test_map_has_the_size_of_the_image_whatever_the_model_works_at():
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (90, 41, 3), dtype=np.uint8)
    assert attention_map(Embedder(18), image, size=(64, 32)).shape == (90, 41)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training):
    model = Embedder(18).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attention_map(model, np.zeros((64, 32, 3), np.uint8))
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_works_inside_inference_mode():
    model = TwoColours()
    with torch.inference_mode():
        assert attention_map(model, red_above_blue(), np.array([1.0, 0.0])).max() > 0.9


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no layer 'b7'"):
        attention_map(Embedder(18), np.zeros((64, 32, 3), np.uint8), layer="b7")
    with pytest.raises(InputError, match="name a submodule"):
        attention_map(nn.Linear(2, 2), np.zeros((64, 32, 3), np.uint8))


def test_energy_and_pointing_by_hand():
    cam = np.array([[0.0, 0.5], [0.25, 0.25]])
    mask = np.array([[1, 0], [1, 0]])
    assert energy_on_mask(cam, mask) == 0.25
    assert not pointing_game(cam, mask)
    assert pointing_game(cam, 1 - mask)
    assert np.isnan(energy_on_mask(np.zeros((2, 2)), mask))


def test_points_that_are_as_high_count_by_their_share():
    cam = np.array([[1.0, 1.0], [0.5, 1.0]])
    assert pointing_game(cam, np.array([[0, 1], [1, 1]])) == pytest.approx(2 / 3)


def test_many_crops_at_once_are_as_the_package_has_them_one_by_one():
    torch.manual_seed(0)
    model = MGN(num_classes=4, depth=18).train()
    images = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
    targets = model.embed(torch.randint(0, 256, (3, 3, 64, 32))).clone()
    model.train()
    with torch.inference_mode():
        cams = grad_cam(model, images, lambda images: (model(images) * targets).sum(dim=1))
    assert model.training
    assert all(
        parameter.requires_grad == ("bottleneck.1.bias" not in name) for name, parameter in model.named_parameters()
    )
    assert not any(module._forward_hooks for module in model.modules())
    for name, maps in cams.items():
        assert maps.shape == (3, 4, 2)
        for image, cam, target in zip(images, maps, targets, strict=True):
            expected = attention_map(model, image.permute(1, 2, 0).numpy(), target.numpy(), name)
            assert enlarge(cam, (64, 32)) == pytest.approx(expected, abs=1e-3)


def test_grad_cam_by_hand_where_the_answer_is_known():
    model, image = TwoColours(), torch.from_numpy(red_above_blue()).permute(2, 0, 1)[None]
    cam = grad_cam(model, image, lambda images: model.layer4(images)[:, 0].sum(dim=(1, 2)), ["layer4"])["layer4"]
    # the gradient of a sum is 1 in channel 0 and 0 in channel 1: the map is channel 0 as it is
    assert torch.equal(cam, model.layer4(image.float())[:, 0])


def test_several_scores_are_as_each_of_them_alone():
    torch.manual_seed(0)
    model = MGN(num_classes=4, depth=18).train()
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    layer_of = {head: branch for head, (branch, _, _) in HEADS.items()}
    cams = grad_cams(
        model, images, lambda images: {head: part[:, 0] for head, part in model.features(images).items()}, layer_of
    )
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert model.b1_head.classifier.weight.requires_grad
    for head, branch in layer_of.items():
        alone = grad_cam(model, images, lambda images, head=head: model.features(images)[head][:, 0], [branch])[branch]
        assert torch.allclose(cams[head], alone, atol=1e-6)
        assert cams[head].shape == (2, 4, 2)
    assert sum(bool(each.any()) for each in cams.values()) > 4  # a ReLU may leave nothing, but not of all


def test_a_map_is_scored_beside_what_a_flat_one_gets():
    cam, mask = np.array([[0.0, 0.5], [0.25, 0.25]]), np.array([[1, 0], [0, 0]])
    assert score_map(cam, 1 - mask) == {"energy": 1.0, "chance": 0.75, "pointing": 1.0}
    flat = score_map(np.ones((2, 2)), mask)
    assert flat["energy"] == flat["chance"] == flat["pointing"] == 0.25
    upper = score_map(cam, mask, np.array([[1.0, 1.0], [0.0, 0.0]]))  # a map that can only lie in the upper half
    assert upper["chance"] == 0.5
    empty = score_map(np.zeros((2, 2)), mask)
    assert np.isnan(empty["energy"])
    assert np.isnan(empty["pointing"])


def test_activation_and_similarity_by_hand():
    maps = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # 2 channels at 1 x 2 places
    assert activation_map(maps).tolist() == [[[5.0, 2.0]]]
    cosines = similarity_map(maps, lambda places: places.flatten(1), torch.tensor([[1.0, 0.0]]))
    assert cosines[0, 0].tolist() == pytest.approx([0.6, 0.0])


def test_enlarged_maps_reach_from_0_to_1_and_flat_ones_are_0():
    cam = enlarge(np.array([[2.0, 3.0], [2.0, 2.0]]), (8, 4))
    assert cam.shape == (8, 4)
    assert (cam.min(), cam.max()) == (0, 1)
    assert cam[0, 3] == 1
    assert not enlarge(torch.full((2, 2), 7.0), (8, 4)).any()
