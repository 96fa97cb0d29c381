"""moco_r50_step.npz: two steps of the published MoCo in one process, with a queue of 512 and batches of 8."""

import numpy as np
import pytest
import torch
from golden_models import FLOAT64, close, close_each, golden

from lab.pretrain.moco import MoCo, from_official
from lab.pretrain.train import PretrainConfig, learning_rate, make_optimizer

NAME = "moco_r50_step.npz"


def test_two_steps(moco_state, images):
    """In float64; the fixtures that were kept in float32 alone are compared to its rounding.

    The published float64 run took images that had been normalised in float32, so these go in as they are.
    """
    expected, model = golden(NAME), from_official(moco_state).train().double()
    mean, std = (torch.from_numpy(expected[f"norm_{name}"]).view(1, 3, 1, 1) for name in ("mean", "std"))
    batch = {name: (images(f"moco/{name}", 8, 256) / 255 - mean) / std for name in ("q", "k", "q2", "k2")}
    model.pixel_mean.fill_(0)
    model.pixel_std.fill_(1)
    optimizer = make_optimizer(model, PretrainConfig())
    np.testing.assert_array_equal(model.queue[:, :16], expected["queue_before_first16"])
    contrast = model(batch["q"], batch["k"])
    close(f"{NAME}, float64: logits", contrast.logits[:, :17], expected["logits_f64_first17"], FLOAT64)
    close(f"{NAME}: sum of logits", contrast.logits.double().sum(1), expected["logits_row_sum"], 1e-5)
    close_each(f"{NAME}: log-sum-exp", contrast.logits.logsumexp(1), expected["logits_row_logsumexp"], 1e-6)
    close_each(f"{NAME}, float64: loss", [contrast.loss.item()], expected["loss_f64"], FLOAT64)
    assert contrast.accuracy.item() == expected["acc1_acc5"][0]
    contrast.loss.backward()
    check_gradients(model, expected)
    check_key_encoder(model, expected)

    optimizer.step()
    contrast = model(batch["q2"], batch["k2"])
    close(f"{NAME}, float64: logits of step 2", contrast.logits[:, :17], expected["step2_logits_first17_f64"], FLOAT64)
    close_each(f"{NAME}, float64: loss of step 2", [contrast.loss.item()], expected["step2_loss_f64"], FLOAT64)
    close(f"{NAME}, float64: queue after two steps", model.queue[:, :16], expected["queue_after_f64_first16"], FLOAT64)
    assert model.queue_ptr.tolist() == expected["queue_ptr_after"].tolist() == expected["step2_queue_ptr"].tolist()
    means = {name: getattr(model, name).bn1.running_mean for name in ("encoder_q", "encoder_k")}
    close(f"{NAME}: statistics of encoder_k", means["encoder_k"], expected["encoder_k_bn1_running_mean"], 1e-5)
    close(f"{NAME}: statistics of encoder_q", means["encoder_q"], expected["encoder_q_bn1_running_mean"], 1e-3)


def check_gradients(model: MoCo, expected: dict) -> None:
    parameters = dict(model.named_parameters())
    norms = [parameters[str(name)].grad.double().norm().item() for name in expected["grad_names"]]
    close_each(f"{NAME}, float64: gradient norms", norms, expected["grad_norm_f64"], FLOAT64)


def check_key_encoder(model: MoCo, expected: dict) -> None:
    """After the momentum update; the fixture's batch-norm statistics are those after the second step."""
    own = model.state_dict()
    moved = [
        str(key) for key in expected["encoder_k_keys"] if "running" not in str(key) and "num_batches" not in str(key)
    ]
    place = {str(key): i for i, key in enumerate(expected["encoder_k_keys"])}
    squares = [own[key].double().square().sum().item() for key in moved]
    close_each(f"{NAME}: encoder_k", squares, [expected["encoder_k_sqsum"][place[key]] for key in moved], 1e-6)
    for key in moved:
        total = own[key].double().sum().item()
        assert total == pytest.approx(expected["encoder_k_sum"][place[key]], rel=1e-5, abs=1e-4), key
    close(f"{NAME}: encoder_k.fc.2.bias", own["encoder_k.fc.2.bias"], expected["encoder_k_fc2_bias"], 1e-6)
    close(f"{NAME}: encoder_k.conv1", own["encoder_k.conv1.weight"][:4], expected["encoder_k_conv1_first"], 1e-6)


def test_a_step_in_float32(moco_state, images):
    """As training runs it."""
    expected, model = golden(NAME), from_official(moco_state).train()
    contrast = model(images("moco/q", 8, 256), images("moco/k", 8, 256))
    close(f"{NAME}: logits", contrast.logits[:, :17], expected["logits_f64_first17"], 1e-5)
    close_each(f"{NAME}: loss", [contrast.loss.item()], expected["loss"], 1e-6)


def test_the_projection_in_eval_mode(moco_state, images):
    """The published MoCo in eval mode returns the 128-d projection of encoder_q, of unit length."""
    projected = from_official(moco_state).project(images("moco/q", 8, 256))
    close(f"{NAME}: projection in eval mode", projected, golden(NAME)["eval_feature"], 1e-5)


def test_the_queue_wraps_around():
    """Six batches of 8 keys into a queue of 20; key b of batch t holds 1000 t + 16 b + its row."""
    expected, model = golden(NAME), MoCo(18, dim=16, queue_size=20)
    model.queue.zero_()
    for t in range(6):
        model.enqueue(1000.0 * (t + 1) + 16 * torch.arange(8).view(8, 1) + torch.arange(16))
        np.testing.assert_array_equal(model.queue, expected["wrap_queue"][t])
        assert model.queue_ptr.item() == expected["wrap_ptr"][t] % 20
    exact = MoCo(18, dim=16, queue_size=16)
    for pointer in expected["exact_ptr_K16_B8"]:  # the published pointer may stand at the queue's length, ours at 0
        exact.enqueue(torch.zeros(8, 16))
        assert exact.queue_ptr.item() == pointer % 16


def test_learning_rate_per_epoch():
    ours = [learning_rate(epoch, 0.0, PretrainConfig()) for epoch in range(200)]
    close_each(f"{NAME}: learning rate, 200 epochs", ours, golden(NAME)["lr_per_epoch"], 1e-12)
