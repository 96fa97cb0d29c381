"""Weights from one layout into another and back, without losing or inventing a number."""

import pytest
import torch
from safetensors.torch import load_file

from lab.backbone import Embedder, load_trunk, resnet
from lab.convert import convert
from lab.errors import InputError
from lab.finetune.mgn import MGN, from_official
from lab.finetune.train import FinetuneConfig, new_model
from lab.finetune.train import load as load_mgn
from lab.pixels import IMAGENET_MEAN, IMAGENET_STD, LUPERSON_MEAN, LUPERSON_STD
from lab.pretrain import moco
from lab.pretrain.train import load as load_moco


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(1)
    return {key: torch.rand_like(value) if value.is_floating_point() else value
            for key, value in resnet(18).state_dict().items()}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 96, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def raw_moco(trunk: dict) -> dict:
    return {
        "epoch": 3, "arch": "resnet18", "optimizer": {},
        "state_dict": {f"module.encoder_q.{key}": value for key, value in trunk.items()}
        | {"module.encoder_q.fc.0.weight": torch.zeros(512, 512), "module.queue": torch.zeros(128, 16)},
    }  # fmt: skip


def test_the_trunk_of_a_raw_checkpoint(trunk, tmp_path):
    torch.save(raw_moco(trunk), tmp_path / "raw.pth")
    report = convert(tmp_path / "raw.pth", tmp_path / "trunk.safetensors", half=True)
    assert "120 of 120 tensors loaded" in report
    assert "1 not used (fc.0.weight)" in report
    written = load_file(tmp_path / "trunk.safetensors")
    assert set(written) == set(trunk)  # the raw file says no pixel statistics, so none are made up
    assert "it carries no pixel statistics" in report
    torch.testing.assert_close(written["conv1.weight"].float(), trunk["conv1.weight"], atol=1e-3, rtol=0)
    assert written["conv1.weight"].dtype == torch.float16


def test_fine_tuning_starts_alike_from_a_file_and_from_what_it_was_converted_to(trunk, tmp_path):
    """Pixel statistics and extra batch norm follow the kind of weights, which a conversion must not blur."""
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    config = FinetuneConfig.tiny()
    for name, content, red, extra_bn in (
        ("released", trunk, 63.872, True),
        ("raw", raw_moco(trunk), 63.872, True),
        ("imagenet", trunk | classifier, 58.395, False),
        (
            "own",
            trunk | {"pixel_mean": torch.tensor(LUPERSON_MEAN), "pixel_std": torch.tensor(LUPERSON_STD)},
            67.83,
            True,
        ),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
        convert(tmp_path / f"{name}.pth", tmp_path / f"{name}.safetensors")
        for file in (tmp_path / f"{name}.pth", tmp_path / f"{name}.safetensors"):
            model, _ = new_model(config, 5, file)
            assert model.pixel_std[0, 0].item() == pytest.approx(red), file
            assert model.extra_bn == extra_bn, file


def test_imagenet_weights_keep_imagenet_s_statistics(trunk, tmp_path):
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(trunk | classifier, tmp_path / "imagenet.pth")
    convert(tmp_path / "imagenet.pth", tmp_path / "trunk.safetensors")
    written = load_file(tmp_path / "trunk.safetensors")
    torch.testing.assert_close(written["pixel_mean"].flatten(), torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(written["pixel_std"].flatten(), torch.tensor(IMAGENET_STD))


def test_a_fine_tuned_mgn_there_and_back(images, tmp_path):
    """A published checkpoint becomes safetensors, and that a published checkpoint again, with every tensor as it was."""
    torch.manual_seed(0)
    model = MGN(5, 18, pixel_mean=(100, 90, 80))
    published = {"model": model.state_dict(), "optimizer": {}, "scheduler": {}, "iteration": 9}
    torch.save(published, tmp_path / "theirs.pth")
    sentence = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    assert "5 identities, with extra batch norm, pixel mean [100.0, 90.0, 80.0]" in sentence
    assert torch.equal(load_mgn(tmp_path / "ours.safetensors").embed(images), model.embed(images))
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", to="fastreid")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert set(back) == {"model", "iteration"}
    assert list(back["model"]) == list(published["model"])
    assert all(torch.equal(back["model"][key], value) for key, value in published["model"].items())


def test_a_stride_that_leaves_no_trace_in_tensors_travels_and_is_refused_elsewhere(images, tmp_path):
    model = MGN(5, 18, last_stride=2)
    torch.save({"model": model.state_dict(), "step": 4, "config": {"last_stride": 2}}, tmp_path / "ours.pt")
    convert(tmp_path / "ours.pt", tmp_path / "ours.safetensors")
    assert torch.equal(load_mgn(tmp_path / "ours.safetensors").embed(images), model.embed(images))
    with pytest.raises(InputError, match="last_stride 2 and the published MGN always 1"):
        convert(tmp_path / "ours.pt", tmp_path / "theirs.pth", to="fastreid")
    assert not (tmp_path / "theirs.pth").exists()


def test_a_raw_checkpoint_there_and_back(images, tmp_path):
    """The lab's MoCo as lup_moco's file, read again: the same queue, keys and features; momentum stays in place."""
    torch.manual_seed(0)
    model = moco.MoCo(18, 16, 32)
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), 0.05, momentum=0.8, weight_decay=1e-4)
    sum(parameter.sum() for parameter in model.encoder_q.parameters()).backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 4}, tmp_path / "ours.pt")
    convert(tmp_path / "ours.pt", tmp_path / "raw.pth", to="lup_moco")
    raw = torch.load(tmp_path / "raw.pth", weights_only=True)
    assert (raw["epoch"], raw["arch"]) == (4, "resnet18")
    both = [*model.encoder_q.parameters(), *model.encoder_k.parameters()]
    theirs = torch.optim.SGD(both, 0.3, momentum=0.9)  # as lup_moco makes it
    theirs.load_state_dict(raw["optimizer"])
    assert (theirs.param_groups[0]["lr"], theirs.param_groups[0]["momentum"]) == (0.05, 0.8)
    for parameter in model.encoder_q.parameters():
        assert torch.equal(theirs.state[parameter]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])
    again = load_moco(tmp_path / "raw.pth")
    assert torch.equal(again.queue, model.queue)
    assert torch.equal(again.embed(images), model.embed(images))


def test_a_trunk_becomes_the_flat_file_of_fastreid(trunk, tmp_path):
    torch.save(raw_moco(trunk), tmp_path / "raw.pth")
    sentence = convert(tmp_path / "raw.pth", tmp_path / "flat.pth", to="fastreid")
    flat = torch.load(tmp_path / "flat.pth", weights_only=True)
    assert set(flat) == set(trunk)
    assert all(torch.equal(flat[key], value) for key, value in trunk.items())
    assert "MODEL.PIXEL_MEAN [89.896, 79.2, 80.073], MODEL.PIXEL_STD [63.872" in sentence  # the published ones


def test_without_out_the_report_alone(trunk, tmp_path):
    torch.save(trunk, tmp_path / "flat.pth")
    before = list(tmp_path.iterdir())
    assert "120 of 120 tensors loaded" in convert(tmp_path / "flat.pth", None)
    assert list(tmp_path.iterdir()) == before


def test_momentum_does_not_outlive_a_turned_convolution(tmp_path):
    model = moco.MoCo(18, 16, 32)
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), 0.05, momentum=0.8)
    content = model.state_dict() | {"pixel_mean": model.pixel_mean.flip(1), "pixel_std": model.pixel_std.flip(1)}
    torch.save({"model": content, "optimizer": optimizer.state_dict()}, tmp_path / "bgr.pt")
    assert "without the optimizer" in convert(tmp_path / "bgr.pt", tmp_path / "raw.pth", to="lup_moco", bgr=True)


@pytest.mark.parametrize("kind", ["trunk", "mgn"])
def test_bgr_weights_turned_round_say_the_same_about_rgb_images(kind, trunk, images, tmp_path):
    torch.manual_seed(0)
    model = Embedder(18, IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]) if kind == "trunk" else MGN(5, 18)
    if kind == "trunk":
        load_trunk(model, resnet(18).state_dict())
    else:
        model.pixel_mean, model.pixel_std = model.pixel_mean.flip(1), model.pixel_std.flip(1)
    expected = model.embed(images.flip(1))  # what it says about the images in its own order
    torch.save({"model": model.state_dict()}, tmp_path / "bgr.pth")
    with pytest.raises(InputError, match="order B, G, R"):
        convert(tmp_path / "bgr.pth", tmp_path / "rgb.safetensors")
    convert(tmp_path / "bgr.pth", tmp_path / "rgb.safetensors", bgr=True)
    if kind == "trunk":
        turned = Embedder(18)
        load_trunk(turned, tmp_path / "rgb.safetensors")
    else:
        turned = load_mgn(tmp_path / "rgb.safetensors")
    torch.testing.assert_close(turned.embed(images), expected, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_converted(trunk, tmp_path):
    torch.save({"head": torch.zeros(1)}, tmp_path / "none.pth")
    torch.save(trunk, tmp_path / "trunk.pth")
    torch.save(trunk | {"pixel_mean": torch.tensor(LUPERSON_MEAN), "pixel_std": torch.ones(3)}, tmp_path / "rgb.pth")
    torch.save(trunk | {"layer2.0.conv1.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    torch.save(trunk | {"conv1.weight": trunk["conv1.weight"] * torch.nan}, tmp_path / "nan.pth")
    other = moco.MoCo(18, 16, 32, pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD)
    torch.save({"model": other.state_dict()}, tmp_path / "imagenet-moco.pth")
    for source, out, options, sentence in [
        ("none.pth", "no.safetensors", {}, r"none.pth holds no trunk but something unknown"),
        ("none.pth", "no.safetensors", {"bgr": True}, "without a ResNet's first convolution"),
        ("trunk.pth", "no.pth", {}, r"expected a name that ends in .safetensors"),
        ("trunk.pth", "no.safetensors", {"to": "fastreid"}, r"expected a name that ends in .pth or .pt"),
        ("trunk.pth", "no.pth", {"to": "fastreid", "half": True}, "--half was given with --to fastreid"),
        (
            "trunk.pth",
            "no.pth",
            {"to": "lup_moco"},
            "trunk.pth is a bare ResNet-18 trunk; expected .* a raw MoCo checkpoint",
        ),
        ("rgb.pth", "no.safetensors", {"bgr": True}, "has pixel statistics in the order R, G, B; leave --bgr out"),
        (
            "odd.pth",
            "no.safetensors",
            {},
            r"odd.pth holds no whole trunk \(.*1 of wrong shape \(layer2.0.conv1.weight\)",
        ),
        ("nan.pth", "no.safetensors", {}, r"nan.pth holds NaN or infinite numbers \(in conv1.weight\)"),
        ("imagenet-moco.pth", "no.pth", {"to": "lup_moco"}, "other pixel statistics than LUPerson's"),
        ("trunk.pth", "absent/no.safetensors", {}, "cannot write"),
    ]:
        with pytest.raises(InputError, match=sentence):
            convert(tmp_path / source, tmp_path / out, **options)
        assert not (tmp_path / out).exists()


def test_from_official_refuses_bgr():
    state = MGN(3, 18).state_dict()
    state["pixel_mean"] = state["pixel_mean"].flip(1)
    with pytest.raises(InputError, match="the MGN checkpoint has pixel statistics in the order B, G, R"):
        from_official(state)
