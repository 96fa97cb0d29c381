"""moco_to_mgn.json: which tensor of a pre-training checkpoint goes into which tensors of the MGN."""

import torch
from golden_models import golden

from lab.backbone import load_trunk, resnet
from lab.finetune.mgn import MGN


def test_targets_are_the_published_mapping():
    with torch.device("meta"):
        targets = MGN(3, 50).trunk_targets()
        assert set(targets) == set(resnet(50).state_dict())
    expected = golden("moco_to_mgn.json")
    assert (
        targets == {key: value for key, value in expected["mapping"].items() if value} | expected["num_batches_tracked"]
    )


def test_a_raw_checkpoint_fills_the_mgn_bit_by_bit(moco_state):
    """The same tensors arrive, in every branch; everything else of the MGN stays as it was."""
    expected = golden("moco_to_mgn.json")
    model = MGN(3, 50)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_trunk(model, {"epoch": 200, "arch": "resnet50", "state_dict": moco_state, "optimizer": {}})
    assert report.fraction == 1
    assert sorted(report.unexpected) == sorted(expected["source_unused"])
    own = model.state_dict()
    for key, targets in expected["mapping"].items():
        assert bool(targets) == (key not in expected["source_unused"])
        assert all(torch.equal(own[target], moco_state[f"module.encoder_q.{key}"]) for target in targets)
    for key in expected["target_not_from_pretrain"]:
        assert torch.equal(own[key], before[key])
