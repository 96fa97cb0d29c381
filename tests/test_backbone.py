"""Weights go into a trunk whole, or loudly not at all."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lab.backbone import DEPTHS, Embedder, load_trunk, pick_device, resnet
from lab.errors import InputError
from lab.finetune.mgn import MGN
from lab.pixels import IMAGENET_MEAN, IMAGENET_STD, LUPERSON_MEAN
from lab.pretrain.moco import MoCo
from lab.weights import SHIPPED_TRUNK


def random_trunk(seed=1, depth=18):
    torch.manual_seed(seed)
    return {key: torch.rand_like(value) if value.is_floating_point() else value
            for key, value in resnet(depth).state_dict().items()}  # fmt: skip


@pytest.mark.parametrize("depth", DEPTHS)
def test_feature_size_of_every_depth(depth):
    with torch.device("meta"):
        assert resnet(depth).feature_size == (512 if depth < 50 else 2048)


def test_pixels_are_normalised_once_and_features_have_unit_norm():
    model = Embedder(18, pixel_mean=(10, 20, 30), pixel_std=(2, 4, 8))
    images = torch.full((2, 3, 64, 32), 50, dtype=torch.uint8)
    seen = []
    model.trunk.conv1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    features = model.embed(images)
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([20.0, 7.5, 2.5]))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


FORMS = {
    "torchvision": lambda trunk: trunk | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
    "raw MoCo": lambda trunk: {
        "epoch": 3, "arch": "resnet18", "optimizer": {},
        "state_dict": {f"module.encoder_q.{key}": value for key, value in trunk.items()}
        | {f"module.encoder_k.{key}": torch.zeros_like(value) for key, value in trunk.items()}
        | {"module.encoder_q.fc.0.weight": torch.zeros(512, 512), "module.queue": torch.zeros(128, 16)},
    },
    "fast-reid with one head": lambda trunk: {
        "model": {f"backbone.{key}": value for key, value in trunk.items()} | {"heads.weight": torch.zeros(1)}
    },
    "our own": lambda trunk: {"model": {f"encoder_q.{key}": value for key, value in trunk.items()}, "step": 3},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_file", [True, False])
def test_every_layout_of_a_trunk_is_understood(form, as_file, tmp_path):
    trunk = random_trunk()
    content = FORMS[form](trunk)
    if as_file:
        torch.save(content, tmp_path / "weights.pth")
    model = Embedder(18)
    report = load_trunk(model, tmp_path / "weights.pth" if as_file else content)
    assert report.fraction == 1
    assert not report.missing
    for key, value in trunk.items():
        torch.testing.assert_close(model.state_dict()[f"trunk.{key}"], value)


def test_safetensors_with_half_precision_and_pixel_statistics(tmp_path):
    trunk = {key: value.half() if value.is_floating_point() else value for key, value in random_trunk().items()}
    statistics = {"pixel_mean": torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1), "pixel_std": torch.ones(1, 3, 1, 1)}
    save_file(trunk | statistics, tmp_path / "trunk.safetensors")
    model = MoCo(18, 16, 16)
    report = load_trunk(model, tmp_path / "trunk.safetensors")
    assert report.pixel_statistics
    assert model.pixel_mean.flatten().tolist() == [1, 2, 3]
    assert model.encoder_q.conv1.weight.dtype == torch.float32
    for encoder in (model.encoder_q, model.encoder_k):
        torch.testing.assert_close(encoder.layer4[1].conv2.weight, trunk["layer4.1.conv2.weight"].float())


def test_mgn_gets_the_trunk_in_all_three_branches():
    trunk = random_trunk()
    model = MGN(5, depth=18)
    report = load_trunk(model, trunk)
    assert report.fraction == 1
    for branch in (model.b1, model.b2, model.b3):
        torch.testing.assert_close(branch[1][1].conv2.weight, trunk["layer4.1.conv2.weight"])
    torch.testing.assert_close(model.backbone[0].weight, trunk["conv1.weight"])


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="there is no device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA GPU"):
            pick_device("cuda")


def test_the_shipped_trunk_loads_whole_and_is_small():
    assert SHIPPED_TRUNK.stat().st_size <= 25 * 2**20
    model = Embedder(18)
    report = load_trunk(model, "shipped")
    assert report.fraction == 1
    assert report.pixel_statistics
    assert np.isfinite(model.embed(torch.zeros(1, 3, 128, 64)).numpy()).all()


REFUSED = [
    ({}, "holds no trunk but something unknown"),
    ({"model": MGN(2, 18).state_dict()}, r"a fine-tuned MGN \(ResNet-18, 2 identities"),
    ({"model": {"b1.0.0.conv1.weight": torch.zeros(1)}}, "an MGN of another layout"),
    (random_trunk() | {"layer1.0.se.fc1.weight": torch.zeros(1)}, "squeeze-and-excitation"),
    (
        random_trunk() | {"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)},
        r"NaN or infinite numbers \(in conv1.weight",
    ),
    ({"blocks.0.attn.qkv.weight": torch.zeros(1)}, "a vision transformer"),
    ({"state_dict": {"module.encoder_k.conv1.weight": torch.zeros(1)}}, "without its query encoder"),
    ({"layer1.0.bn1.IN.weight": torch.zeros(1)}, "instance norm"),
    ({"state_dict": {"head.weight": torch.zeros(1)}}, r"first entries are head\.weight"),
    ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"1 of 10\d tensors loaded.*at least 90 %"),
    ({key.replace("layer", "block"): value for key, value in random_trunk().items()}, "at least 90 %"),
    (random_trunk(depth=34), "holds a ResNet-34 and the model is a ResNet-18; give --depth 34"),
    (random_trunk() | {"pixel_mean": torch.tensor(IMAGENET_MEAN[::-1]), "pixel_std": torch.ones(3)}, "order B, G, R"),
    (random_trunk() | {"pixel_mean": torch.full((3,), 0.5), "pixel_std": torch.ones(3)}, "units of 0..255"),
]


@pytest.mark.parametrize(("content", "sentence"), REFUSED)
def test_wrong_weights_are_called_by_name_and_change_nothing(content, sentence):
    model = Embedder(18)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=sentence):
        load_trunk(model, content)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_trunk_that_lacks_one_block_is_loaded_and_reported():
    content = {key: value for key, value in random_trunk(depth=34).items() if "layer3.5" not in key}
    report = load_trunk(Embedder(34), content)
    assert len(report.missing) == 10
    assert all("layer3.5" in key for key in report.missing)
    assert "10 missing" in str(report)


def test_statistics_come_with_the_weights_or_with_the_classifier_of_imagenet():
    model = Embedder(18)
    assert not load_trunk(model, random_trunk()).pixel_statistics
    torch.testing.assert_close(model.pixel_mean.flatten(), torch.tensor(LUPERSON_MEAN))
    assert load_trunk(model, FORMS["torchvision"](random_trunk())).pixel_statistics
    torch.testing.assert_close(model.pixel_mean.flatten(), torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(model.pixel_std.flatten(), torch.tensor(IMAGENET_STD))
