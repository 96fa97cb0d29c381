"""mgn_solver.json: what is optimised, how, what is frozen and for how long, and what a checkpoint file holds."""

import copy

import pytest
import torch
from golden_models import golden

from lab.convert import convert
from lab.finetune.train import FinetuneConfig, frozen_steps, make_optimizer, set_frozen

EXPECTED = "mgn_solver.json"


def test_optimizer_parameters_and_frozen_phase(r50):
    expected, model = golden(EXPECTED), copy.deepcopy(r50)
    set_frozen(model, True)
    parameters = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    optimizer = make_optimizer(model, FinetuneConfig())
    (group,) = optimizer.param_groups
    assert [names[id(parameter)] for parameter in group["params"]] == expected["param_groups"]["names"]
    assert [group["weight_decay"]] == expected["param_groups"]["weight_decays"]
    assert [group["lr"]] == expected["param_groups"]["lrs"]
    assert type(optimizer) is torch.optim.Adam  # whose decay is the coupled one
    assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.9, 0.999), 1e-8, False)
    without = set(parameters) - set(expected["param_groups"]["names"])
    assert without == set(expected["params_without_group"])
    learning = [name for name in expected["param_groups"]["names"] if parameters[name].requires_grad]
    assert learning == expected["not_frozen_names"]
    frozen = [name for name in expected["param_groups"]["names"] if not parameters[name].requires_grad]
    assert frozen == expected["frozen_names"]
    modes = {name: model.get_submodule(name).training for name in expected["frozen_training_flags"]}
    assert modes == expected["frozen_training_flags"]


@pytest.mark.parametrize("name", ["market1501", "dukemtmc", "msmt17", "cuhk03_labeled"])
def test_lengths_of_the_phases(name):
    config, published = FinetuneConfig(), golden(EXPECTED)["datasets"][name]
    steps = config.epochs * (published["train_images"] // (config.ids_per_batch * config.images_per_id))
    assert steps == published["MAX_ITER"]
    assert frozen_steps(steps, config.freeze, has_initial_weights=True) == published["FREEZE_ITERS"] + 1
    assert round(config.warmup * steps) == published["WARMUP_ITERS"]
    assert round(config.flat * steps) == published["DELAY_ITERS"]


def test_defaults_are_the_published_solver():
    config, solver = FinetuneConfig(), golden(EXPECTED)["solver"]
    assert (config.lr, config.final_lr) == (solver["BASE_LR"], solver["ETA_MIN_LR"])
    assert (config.weight_decay, config.warmup_factor) == (solver["WEIGHT_DECAY"], solver["WARMUP_FACTOR"])
    assert config.epochs == solver["MAX_ITER"]
    assert config.ids_per_batch * config.images_per_id == solver["IMS_PER_BATCH"]


def test_a_frozen_phase_of_three_lasts_four_steps():
    """The published trace with FREEZE_ITERS 3: frozen, and the branches in eval mode, in steps 0 to 3."""
    trace = golden(EXPECTED)["freeze_trace_FREEZE_ITERS_3"]["iters"]
    frozen = frozen_steps(18, 3 / 18, has_initial_weights=True)
    assert [step < frozen for step in range(6)] == [entry[0] for entry in trace]
    assert [step >= frozen for step in range(6)] == [entry[1] for entry in trace]  # b1.training


def test_the_fastreid_file_that_we_write_has_the_published_keys(r50, tmp_path):
    expected = golden(EXPECTED)["checkpoint"]
    torch.save({"model": r50.state_dict(), "step": 10, "config": {"last_stride": 1}}, tmp_path / "ours.pt")
    convert(tmp_path / "ours.pt", tmp_path / "theirs.pth", to="fastreid")
    written = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert set(written) <= set(expected["top_level_keys"])
    assert written["iteration"] == expected["iteration"]
    assert list(written["model"])[:4] == expected["first_model_keys"]
    assert list(written["model"]) == [key for key, *_ in golden("mgn_r50_keys.json")["state_dict"]]
    assert all(torch.equal(value, r50.state_dict()[key]) for key, value in written["model"].items())
