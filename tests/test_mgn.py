"""MGN against the published model: keys, features, losses, gradients, frozen phase and five steps of training.

Weights and images follow the rule in ../shared/golden/FILL.md; the expected numbers are what the published code gave.
"""

import copy
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.backbone import load_trunk, resnet
from lab.errors import InputError
from lab.finetune.losses import mgn_losses
from lab.finetune.mgn import DEPTHS, HEADS, MGN, PIXEL_MEAN, PIXEL_STD, _depth, from_official
from lab.finetune.train import FinetuneConfig, frozen_steps, learning_rate, make_optimizer, set_frozen
from lab.small_maps import SmallMapConv2d, use_for_small_maps

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is not here")


def golden(name: str):
    file = GOLDEN / name
    if file.suffix == ".json":
        return json.loads(file.read_text())
    with np.load(file) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="module")
def rule():
    spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def filled(rule, depth: int) -> MGN:
    """The model with the rule's weights, built the way a released checkpoint is."""
    keys = golden(f"mgn_r{depth}_keys.json")
    statistics = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}  # the rule leaves them to the configuration
    state = {key: torch.tensor(value).view(1, 3, 1, 1) for key, value in statistics.items()}
    for key, shape, *_ in keys["state_dict"]:
        value = rule.fill(key, shape, keys["fill_seed"])
        if value is not None:
            state[key] = torch.from_numpy(np.asarray(value)).reshape(shape)
    return from_official(state).to(memory_format=torch.channels_last)  # as in training; faster on a CPU


@pytest.fixture(scope="module")
def r50(rule):
    return filled(rule, 50)


@pytest.fixture(scope="module")
def r101(rule):
    return filled(rule, 101)


def images(rule, name: str, count: int) -> torch.Tensor:
    return torch.from_numpy(rule.images(name, count, 384, 128, golden("mgn_r50_keys.json")["fill_seed"]))


def relative(ours, theirs) -> float:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@needs_golden
@pytest.mark.parametrize("depth", [50, 101])
def test_state_dict_is_the_published_one(depth):
    with torch.device("meta"):
        model = MGN(751, depth)
    parameters = dict(model.named_parameters())
    ours = [
        [key, list(value.shape), str(value.dtype).removeprefix("torch."), "param" if key in parameters else "buffer"]
        for key, value in model.state_dict().items()
    ]
    expected = golden(f"mgn_r{depth}_keys.json")["state_dict"]
    assert ours == [entry[:4] for entry in expected]
    assert all(parameters[key].requires_grad == grad for key, _, _, kind, grad in expected if kind == "param")


@needs_golden
def test_trunk_targets_are_the_published_mapping():
    with torch.device("meta"):
        targets = MGN(3, 50).trunk_targets()
    expected = golden("moco_to_mgn.json")
    mapping = {key: value for key, value in expected["mapping"].items() if value}
    assert targets == mapping | expected["num_batches_tracked"]
    with torch.device("meta"):
        assert set(targets) == {key for key in resnet(50).state_dict()}


@needs_golden
def test_features_r50(rule, r50):
    expected = golden("mgn_r50_eval.npz")
    r50.eval()
    with torch.no_grad():
        features = r50.features(images(rule, "mgn/eval", 4))
        assert list(features) == list(HEADS)
        for head, feature in features.items():
            assert relative(feature, expected[f"feat_{head}"]) < 1e-5
        descriptor = torch.cat(list(features.values()), dim=1)
    assert relative(descriptor, expected["descriptor_f64"]) < 1e-5
    assert np.allclose(r50.pixel_mean.flatten(), expected["pixel_mean"])
    assert np.allclose(r50.pixel_std.flatten(), expected["pixel_std"])
    unit = r50.embed(images(rule, "mgn/eval", 4)[:1])
    assert unit.shape == (1, 2048)
    torch.testing.assert_close(unit, torch.nn.functional.normalize(descriptor[:1]), rtol=1e-4, atol=1e-6)


@needs_golden
def test_features_r101(rule, r101):
    expected = golden("mgn_r101_eval.npz")
    r101.eval()
    with torch.no_grad():
        descriptor = torch.cat(list(r101.features(images(rule, "mgn/eval", 4)).values()), dim=1)
    assert relative(descriptor, expected["descriptor_f64"]) < 1e-5


def losses_and_gradients(model: MGN, batch: torch.Tensor, labels: np.ndarray, expected: dict, ending: str) -> None:
    features = model.features(batch)
    terms, accuracy = mgn_losses(features, model.class_weights(), torch.from_numpy(labels))
    total = sum(terms.values())
    total.backward()
    assert set(terms) == set(expected["loss_names"])
    values = np.array([terms[name].item() for name in expected["loss_names"]])
    assert np.allclose(values, expected[f"loss{ending}_f64"], rtol=2e-5)
    assert total.item() == pytest.approx(expected[f"total{ending}"].item(), rel=1e-5)
    assert accuracy.item() == expected[f"accuracy{ending}"].item()
    parameters = dict(model.named_parameters())
    norms = np.array([parameters[name].grad.double().norm().item() for name in expected["grad_names"]])
    exact = expected[f"grad_norm{ending}_f64"]
    rounding = np.abs(expected[f"grad_norm{ending}"] / exact - 1).max()  # the published float32 run's own, up to 1.2e-3
    assert np.allclose(norms, exact, rtol=1e-3 + 2 * rounding)


@needs_golden
def test_losses_gradients_and_statistics_r50(rule, r50):
    expected, model = golden("mgn_r50_train.npz"), copy.deepcopy(r50)
    set_frozen(model, False)
    losses_and_gradients(model, images(rule, "mgn/train", 8), expected["labels"], expected, "")
    state = model.state_dict()
    for name in expected:
        if ":" in name:
            kind, module = name.split(":")
            assert relative(state[f"{module}.{kind}"], expected[name]) < 1e-5


@needs_golden
def test_losses_and_gradients_of_the_frozen_phase_r50(rule, r50):
    expected, model = golden("mgn_r50_train.npz"), copy.deepcopy(r50)
    before = copy.deepcopy(model.state_dict())
    set_frozen(model, True)
    for part in model.trunk_parts():  # the published loop computes these gradients and does not use them
        part.requires_grad_(True)
    losses_and_gradients(model, images(rule, "mgn/train", 8), expected["labels"], expected, "_frozen")
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all("head" in key for key in moved)


@needs_golden
def test_losses_and_gradients_r101(rule, r101):
    """After `test_features_r101`: a training step changes the running statistics of the shared model."""
    expected = golden("mgn_r101_train.npz")
    set_frozen(r101, False)
    losses_and_gradients(r101, images(rule, "mgn/train", 8), expected["labels"], expected, "")


@needs_golden
def test_what_is_frozen_and_what_is_optimised(r50):
    expected, model = golden("mgn_solver.json"), copy.deepcopy(r50)
    set_frozen(model, True)
    parameters = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    group = make_optimizer(model, FinetuneConfig()).param_groups[0]
    assert [names[id(parameter)] for parameter in group["params"]] == expected["param_groups"]["names"]
    assert group["weight_decay"] == expected["solver"]["WEIGHT_DECAY"]
    assert group["lr"] == expected["solver"]["BASE_LR"]
    learning = [name for name in expected["param_groups"]["names"] if parameters[name].requires_grad]
    assert learning == expected["not_frozen_names"]
    modes = {name: model.get_submodule(name).training for name in expected["frozen_training_flags"]}
    assert modes == expected["frozen_training_flags"]


@needs_golden
def test_five_steps_across_the_end_of_the_frozen_phase(rule, r50):
    """Frozen, frozen, free, free, free. Once Adam has moved the trunk, float32 itself is only good for 5e-3.

    The fifth step's own update and what the model says after it are looked at with LAB_SLOW_TESTS=1: the losses of the
    fourth and fifth step already depend on every update before.
    """
    expected, model = golden("mgn_r50_trajectory.npz"), copy.deepcopy(r50)
    config = FinetuneConfig(warmup=2 / 5, flat=3 / 5, freeze=1 / 5)
    optimizer = make_optimizer(model, config)
    frozen = frozen_steps(5, config.freeze, has_initial_weights=True)
    for step in range(5):
        set_frozen(model, step < frozen)
        lr = learning_rate(step, 5, config)
        assert lr == pytest.approx(expected["lr"][step], rel=1e-14)
        for group in optimizer.param_groups:
            group["lr"] = lr
        labels = torch.from_numpy(expected["labels"][step])
        terms, _ = mgn_losses(model.features(images(rule, f"mgn/traj/{step}", 8)), model.class_weights(), labels)
        values = np.array([terms[name].item() for name in expected["loss_names"]])
        assert np.allclose(values, expected["loss_f64"][step], rtol=2e-5 if step <= frozen else 1e-2)
        if step == 4 and not os.environ.get("LAB_SLOW_TESTS"):
            return
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
    squares = [value.double().square().sum().item() for value in model.state_dict().values()]
    assert np.allclose(squares, expected["weight_sqsum_f64"], rtol=1e-3)
    model.eval()
    with torch.no_grad():
        descriptor = torch.cat(list(model.features(images(rule, "mgn/eval", 4)).values()), dim=1).numpy()
    difference = np.linalg.norm(descriptor - expected["descriptor_f64"]) / np.linalg.norm(expected["descriptor_f64"])
    assert difference < 0.02


@pytest.mark.parametrize("depth", DEPTHS.values())
def test_the_descriptor_has_2048_numbers_at_every_depth(depth):
    with torch.device("meta"):
        model = MGN(7, depth)
        features = model(torch.empty(2, 3, 96, 48))
    assert features.shape == (2, 2048)
    assert _depth(model.state_dict()) == depth


@pytest.fixture(scope="module")
def r18():
    torch.manual_seed(0)
    return MGN(5, 18, last_stride=2)


def test_stripes_of_a_small_map(r18):
    """4 rows in 3 stripes are 2, 1 and 1 rows; each stripe's head sees its own rows and no others."""
    maps = {branch: torch.rand(2, 512, 4, 2) for branch in ("b1", "b2", "b3")}
    r18.eval()
    stripes = {"b21": (0, 2), "b22": (2, 4), "b31": (0, 2), "b32": (2, 3), "b33": (3, 4)}
    rows = dict.fromkeys(("b1", "b2", "b3"), (0, 4)) | stripes
    r18.maps, original = lambda images: maps, r18.maps
    with torch.no_grad():
        features = r18.features(None)
        for head, (first, last) in rows.items():
            expected = r18.get_submodule(f"{head}_head")(maps[head[:2]][:, :, first:last])
            assert torch.equal(features[head], expected)
    r18.maps = original


@pytest.mark.parametrize("height", [8, 24])
def test_stripes_are_those_of_torch_chunk(height):
    rows = torch.arange(height)
    for stripes in (2, 3):
        for ours, theirs in zip(rows.tensor_split(stripes), rows.chunk(stripes), strict=True):
            assert torch.equal(ours, theirs)


def test_embed_takes_bytes_and_floats_and_has_unit_length(r18):
    batch = torch.randint(0, 256, (3, 3, 128, 64), dtype=torch.uint8)
    described = r18.embed(batch)
    assert described.shape == (3, 2048)
    assert not described.requires_grad
    torch.testing.assert_close(described.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(described, r18.embed(batch.float()))


@pytest.mark.parametrize(("size", "stride"), [((4, 2), 1), ((3, 1), 1), ((8, 4), 2), ((5, 3), 2), ((9, 8), 1)])
def test_convolution_of_small_maps_is_the_convolution(size, stride):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(6, 5, 3, stride, padding=1, bias=False)
    maps = torch.randn(2, 6, *size, requires_grad=True)
    results = []
    for replaced in (False, True):
        if replaced:
            use_for_small_maps(torch.nn.Sequential(conv))
        assert isinstance(conv, SmallMapConv2d) == replaced
        out = conv(maps)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        results.append((out, maps.grad, conv.weight.grad))
        maps.grad, conv.weight.grad = None, None
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_trunk_goes_into_trunk_and_all_three_branches():
    torch.manual_seed(1)
    trunk, model = resnet(18).state_dict(), MGN(4, 18)
    report = load_trunk(model, dict(trunk))
    assert report.fraction == 1.0
    assert not report.unexpected
    state = model.state_dict()
    assert torch.equal(state["backbone.6.conv1.weight"], trunk["layer3.0.conv1.weight"])
    for branch in ("b1", "b2", "b3"):
        assert torch.equal(state[f"{branch}.0.0.conv2.weight"], trunk["layer3.1.conv2.weight"])
        assert torch.equal(state[f"{branch}.1.0.downsample.0.weight"], trunk["layer4.0.downsample.0.weight"])


def test_from_official_takes_everything_from_the_tensors(r18):
    state = {f"module.{key}": value for key, value in r18.state_dict().items() if "extra_bn" not in key}
    state["module.pixel_mean"] = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    model = from_official(old)
    assert not model.extra_bn
    assert model.pixel_mean.flatten().tolist() == [1, 2, 3]
    own = model.state_dict()
    assert all(torch.equal(own[key.removeprefix("module.")], value) for key, value in state.items())


def test_from_official_says_what_it_got_instead(r18):
    with pytest.raises(InputError, match="bare ResNet trunk"):
        from_official(resnet(18).state_dict())
    with pytest.raises(InputError, match="whole checkpoint file with the entries model, iteration"):
        from_official({"model": {}, "iteration": 3})
    with pytest.raises(InputError, match="MoCo"):
        from_official({"module.encoder_q.conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="something else"):
        from_official({"head.weight": torch.zeros(1)})
    state = r18.state_dict()
    with pytest.raises(InputError, match=r"no ResNet-18/34/50/101/152"):
        from_official({key: value for key, value in state.items() if not key.startswith("b1.1.1.")})
    with pytest.raises(InputError, match=r"do not fit .*b33_head"):
        from_official({key: value for key, value in state.items() if key != "b33_head.bottleneck.0.weight"})
