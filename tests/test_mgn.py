"""MGN: stripes, depths, descriptor, and what `from_official` takes and refuses (the published values: tests/golden)."""

import pytest
import torch

from lab.backbone import load_trunk, resnet
from lab.errors import InputError
from lab.finetune.mgn import MGN, from_official
from lab.small_maps import SmallMapConv2d, use_for_small_maps
from lab.weights import BLOCKS, identify


@pytest.mark.parametrize("depth", BLOCKS.values())
def test_the_descriptor_has_2048_numbers_at_every_depth(depth):
    with torch.device("meta"):
        model = MGN(7, depth)
        features = model(torch.empty(2, 3, 96, 48))
    assert features.shape == (2, 2048)
    assert identify(model.state_dict()).depth == depth


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


@pytest.mark.parametrize("size", [(4, 2), (3, 2), (8, 1)])
def test_bfloat16_of_maps_of_two_columns_is_not_left_to_the_kernel_that_reads_beside_them(size, monkeypatch):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False)
    maps = torch.randn(4, 32, *size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = conv(maps)
        use_for_small_maps(torch.nn.Sequential(conv))
        monkeypatch.setattr(torch.nn.Conv2d, "forward", None)  # torch's own convolution, and so oneDNN's, is not called
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(conv(maps).float(), exact, rtol=0.02, atol=0.02)
        torch.testing.assert_close(conv.bfloat16()(maps.bfloat16()).float(), exact, rtol=0.02, atol=0.02)


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
    with pytest.raises(InputError, match="a bare ResNet-18 trunk"):
        from_official(resnet(18).state_dict())
    with pytest.raises(InputError, match="a whole file with the entries model, iteration"):
        from_official({"model": {}, "iteration": 3})
    with pytest.raises(InputError, match="the query encoder of a MoCo checkpoint"):
        from_official({"module.encoder_q.conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="something unknown .*head.weight"):
        from_official({"head.weight": torch.zeros(1)})
    state = r18.state_dict()
    without = {key: value for key, value in state.items() if not key.startswith("pixel_")}
    with pytest.raises(InputError, match="mgn.pth has no pixel_mean and pixel_std; add the statistics"):
        from_official(without, source="mgn.pth")
    newer = {key.replace("classifier.weight", "weight"): value for key, value in state.items()}
    with pytest.raises(InputError, match="an MGN of another layout than the published one"):
        from_official(newer)
    with pytest.raises(InputError, match=r"holds NaN or infinite numbers \(in b1_head.bottleneck.0.weight\)"):
        from_official(state | {"b1_head.bottleneck.0.weight": state["b1_head.bottleneck.0.weight"] * torch.nan})
    with pytest.raises(InputError, match=r"no ResNet-18/34/50/101/152"):
        from_official({key: value for key, value in state.items() if not key.startswith("b1.1.1.")})
    with pytest.raises(InputError, match=r"does not fit .*b33_head"):
        from_official({key: value for key, value in state.items() if key != "b33_head.bottleneck.0.weight"})
