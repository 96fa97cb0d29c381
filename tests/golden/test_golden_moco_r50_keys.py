"""moco_r50_keys.json: the layout of a raw pre-training checkpoint, read and written."""

import torch
from golden_models import golden

from lab.convert import convert
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig, make_optimizer
from lab.runs import Run


def test_the_file_that_we_write_is_the_published_layout(tmp_path):
    """Names, order, shapes and types of all tensors, and the optimizer over both encoders' parameters."""
    expected = golden("moco_r50_keys.json")
    model = MoCo()
    optimizer = make_optimizer(model, PretrainConfig())
    loss = sum(parameter.sum() for parameter in model.encoder_q.parameters())
    loss.backward()
    optimizer.step()
    run = Run.create(tmp_path / "run", "pretrain", PretrainConfig())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}, run.checkpoint)
    convert(run.folder, tmp_path / "raw.pth", to="lup_moco")
    written = torch.load(tmp_path / "raw.pth", weights_only=True)

    assert {key: type(value).__name__ for key, value in written.items()} == {
        **expected["top_level"], "state_dict": "dict"
    }  # fmt: skip
    assert (written["arch"], written["epoch"]) == (expected["arch"], 7)
    ours = [[key, list(value.shape), str(value.dtype)[6:]] for key, value in written["state_dict"].items()]
    assert ours == [entry[:3] for entry in expected["state_dict"]]
    (group,), (published,) = written["optimizer"]["param_groups"], expected["optimizer_param_groups"]
    assert {**group, "params": len(group["params"])} | published == {**group, "params": len(group["params"])}
    momentum = written["optimizer"]["state"]
    assert len(momentum) == len(list(model.encoder_q.parameters()))
    assert all(torch.equal(momentum[i]["momentum_buffer"], optimizer.state_dict()["state"][i]["momentum_buffer"])
               for i in momentum)  # fmt: skip
    state = model.state_dict()
    assert all(torch.equal(value, state[key.removeprefix("module.")]) for key, value in written["state_dict"].items())
