"""mgn_r50_keys.json, mgn_r101_keys.json: our MGN has the published state dict, key by key, in the published order."""

import pytest
import torch
from golden_models import golden

from lab.finetune.mgn import MGN


@pytest.mark.parametrize("depth", [50, 101])
def test_state_dict(depth):
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


def test_resnet_152_differs_from_101_in_the_number_of_blocks_only():
    """Layer2 has 8 blocks instead of 4 and layer3 36 instead of 23: every other key and shape is R101's."""

    def shapes(depth: int) -> dict[str, torch.Size]:
        with torch.device("meta"):
            return {key: value.shape for key, value in MGN(751, depth).state_dict().items()}

    expected = {key: torch.Size(shape) for key, shape, *_ in golden("mgn_r101_keys.json")["state_dict"]}
    deeper = shapes(152)
    assert {key: deeper[key] for key in expected} == expected
    blocks = {".".join(key.split(".")[:3]) for key in set(deeper) - set(expected)}
    layer2 = {f"backbone.5.{block}" for block in range(4, 8)}
    layer3 = {f"b{branch}.0.{block}" for branch in (1, 2, 3) for block in range(22, 35)}
    assert blocks == layer2 | layer3
