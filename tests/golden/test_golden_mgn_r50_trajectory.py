"""mgn_r50_trajectory.npz: five steps of published training, frozen, frozen, free, free, free."""

import copy
import os

import numpy as np
import pytest
import torch
from golden_models import FLOAT64, close, close_each, golden, in_float64

from lab.finetune.losses import mgn_losses
from lab.finetune.train import FinetuneConfig, frozen_steps, learning_rate, make_optimizer, set_frozen

NAME = "mgn_r50_trajectory.npz"


def test_five_steps_across_the_end_of_the_frozen_phase(r50, images):
    """In float64, where ours and the published run stay together; in float32 two published runs differ by 5e-3.

    The fifth step's own update and what the model says after it are looked at with LAB_SLOW_TESTS=1: the losses of the
    fifth step already depend on every update before.
    """
    expected, model = golden(NAME), in_float64(r50)
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
        terms, _ = mgn_losses(model.features(images(f"mgn/traj/{step}", 8)), model.class_weights(), labels)
        values = [terms[name].item() for name in expected["loss_names"]]
        close_each(f"{NAME}, float64: losses of step {step + 1}", values, expected["loss_f64"][step], FLOAT64)
        if step == 4 and not os.environ.get("LAB_SLOW_TESTS"):
            return
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
    squares = [value.double().square().sum().item() for value in model.state_dict().values()]
    np.testing.assert_allclose(squares, expected["weight_sqsum_f64"], rtol=FLOAT64)
    model.eval()
    with torch.no_grad():
        descriptor = torch.cat(list(model.features(images("mgn/eval", 4)).values()), dim=1)
    close(f"{NAME}, float64: descriptor after five steps", descriptor, expected["descriptor_f64"], FLOAT64)


def test_as_many_parameters_are_frozen_as_in_the_published_steps(r50):
    """309 of 347 parameter groups in the first two steps, none after."""
    expected, model = golden(NAME), copy.deepcopy(r50)
    optimized = make_optimizer(model, FinetuneConfig()).param_groups[0]["params"]
    counts = []
    for step in range(5):
        set_frozen(model, step < frozen_steps(5, 1 / 5, has_initial_weights=True))
        counts.append(sum(not parameter.requires_grad for parameter in optimized))
    assert counts == expected["frozen_groups"].tolist()
