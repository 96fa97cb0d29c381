"""Weights go into a trunk whole, or loudly not at all."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lab.backbone import DEPTHS, SHIPPED_TRUNK, Embedder, load_trunk, pick_device, read_weights, resnet, save_trunk
from lab.errors import InputError
from lab.finetune.mgn import MGN
from lab.pretrain.moco import MoCo


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


def test_a_trunk_is_written_for_others_to_read(tmp_path):
    trunk = random_trunk()
    torch.save(FORMS["raw MoCo"](trunk), tmp_path / "raw.pth")
    report = save_trunk(tmp_path / "raw.pth", tmp_path / "trunk.safetensors", half=True)
    assert report.fraction == 1
    assert len(report.unexpected) == 1  # the projection head's one tensor
    written = load_file(tmp_path / "trunk.safetensors")
    assert set(written) == set(trunk) | {"pixel_mean", "pixel_std"}
    torch.testing.assert_close(written["conv1.weight"].float(), trunk["conv1.weight"], atol=1e-3, rtol=0)
    assert written["conv1.weight"].dtype == torch.float16
    torch.save({"head": torch.zeros(1)}, tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"none.pth holds no trunk"):
        save_trunk(tmp_path / "none.pth", tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()


def test_mgn_gets_the_trunk_in_all_three_branches():
    trunk = random_trunk()
    model = MGN(5, depth=18)
    report = load_trunk(model, trunk)
    assert report.fraction == 1
    for branch in (model.b1, model.b2, model.b3):
        torch.testing.assert_close(branch[1][1].conv2.weight, trunk["layer4.1.conv2.weight"])
    torch.testing.assert_close(model.backbone[0].weight, trunk["conv1.weight"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "holds no trunk"),
        ({"model": {"b1.0.0.conv1.weight": torch.zeros(1)}}, "looks like a fine-tuned MGN"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(1)}, "looks like a vision transformer"),
        ({"state_dict": {"head.weight": torch.zeros(1)}}, "first entries are head.weight"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"1 of 10\d tensors loaded.*at least 90 %"),
        ({key: value for key, value in random_trunk(depth=34).items() if "layer3.5" not in key}, None),
        ({key.replace("layer", "block"): value for key, value in random_trunk().items()}, "at least 90 %"),
    ],
)
def test_less_than_a_trunk_is_an_error_and_changes_nothing(content, sentence):
    model = Embedder(34 if sentence is None else 18)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if sentence is None:  # 34 layers with one block missing: more than 90 %, reported and not raised
        report = load_trunk(model, content)
        assert len(report.missing) == 10
        assert all("layer3.5" in key for key in report.missing)
        assert "10 missing" in str(report)
        return
    with pytest.raises(InputError, match=sentence):
        load_trunk(model, content)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_deeper_trunk_does_not_pass_for_a_shallow_one():
    with pytest.raises(InputError, match="check depth and file"):
        load_trunk(Embedder(50), random_trunk())


class Sneaky:
    def __reduce__(self):
        return (print, ("code from a weights file was run",))


def test_files_that_are_no_weights_are_named(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    torch.save(Sneaky(), tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, sentence in [
        ("text.pth", "cannot be read as a checkpoint"),
        ("half.safetensors", "cannot be read as safetensors"),
        ("code.pth", "plain tensors"),
        ("list.pth", "holds a list"),
        ("absent.pth", "no weights at"),
    ]:
        with pytest.raises(InputError, match=sentence):
            read_weights(tmp_path / name)
    assert "was run" not in capsys.readouterr().out


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
