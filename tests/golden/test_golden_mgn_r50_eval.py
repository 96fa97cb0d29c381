"""mgn_r50_eval.npz: what the published MGN-R50 says about four images, from the first map to the descriptor."""

import zlib

import numpy as np
import torch
from golden_models import FLOAT64, close, golden, in_float64

from lab.finetune.mgn import BRANCHES, HEADS

NAME = "mgn_r50_eval.npz"


def test_filling_follows_the_rule(r50, images):
    expected = golden(NAME)
    assert zlib.crc32(images("mgn/eval", 4).numpy().tobytes()) == expected["image_crc32"].item()
    values = [value.double() for value in r50.state_dict().values()]
    np.testing.assert_allclose([value.sum().item() for value in values], expected["weight_sum"], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose([value.square().sum().item() for value in values], expected["weight_sqsum"], rtol=1e-9)


def test_maps_features_and_descriptor(r50, images):
    expected, batch = golden(NAME), images("mgn/eval", 4)
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    hooks = [r50.backbone.register_forward_hook(keep("backbone_map"))]
    for branch in BRANCHES:
        hooks.append(r50.get_submodule(branch).register_forward_hook(keep(f"map_{branch}")))
        hooks.append(r50.get_submodule(f"heads_extra_bn_{branch}").register_forward_hook(keep(f"extra_bn_{branch}")))
    hooks += [r50.get_submodule(f"{h}_head").pool_layer.register_forward_hook(keep(f"pool_{h}")) for h in HEADS]
    r50.eval()
    with torch.no_grad():
        features = r50.features(batch)
    for hook in hooks:
        hook.remove()
    for name, output in seen.items():
        if name.startswith("pool_"):
            close(f"{NAME}: {name}", output.flatten(1), expected[name], 1e-5, asked=1e-4)
        else:  # eight channels of the first image were kept
            close(f"{NAME}: {name}", output[0, :8], expected[f"{name}_ch0_8"], 1e-5, asked=1e-4)
    assert list(features) == list(HEADS)
    for head, feature in features.items():
        close(f"{NAME}: feat_{head}", feature, expected[f"feat_{head}"], 1e-5, asked=1e-4)
    descriptor = torch.cat(list(features.values()), dim=1)
    close(f"{NAME}: descriptor", descriptor, expected["descriptor"], 1e-5, asked=1e-4)
    close(f"{NAME}: descriptor against float64", descriptor, expected["descriptor_f64"], 1e-5, asked=1e-4)
    unit = expected["descriptor_f64"] / np.linalg.norm(expected["descriptor_f64"], axis=1, keepdims=True)
    close(f"{NAME}: embed, of unit length", r50.embed(batch), unit, 1e-5, asked=1e-4)


def test_descriptor_in_float64(r50, images):
    with torch.no_grad():
        features = in_float64(r50).eval().features(images("mgn/eval", 4))
    descriptor = torch.cat(list(features.values()), dim=1)
    close(f"{NAME}, float64: descriptor", descriptor, golden(NAME)["descriptor_f64"], FLOAT64, asked=1e-4)


def test_pixel_statistics_are_the_published_ones(r50):
    expected = golden(NAME)
    np.testing.assert_array_equal(r50.pixel_mean.flatten(), expected["pixel_mean"])
    np.testing.assert_array_equal(r50.pixel_std.flatten(), expected["pixel_std"])
