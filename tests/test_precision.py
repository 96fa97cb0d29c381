"""Mixed precision: the gradient scaler on both sides of an overflow, and settings that are put back."""

import pytest
import torch
from torch import nn

from lab.errors import InputError
from lab.training.precision import Precision, settled

CPU = torch.device("cpu")


def weight(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]))


def test_float32_is_a_plain_step():
    """w 2, loss w^2, lr 0.1: 2 - 0.1 * 4."""
    w, precision = weight(2.0), Precision(CPU, "off")
    optimizer = torch.optim.SGD([w], 0.1)
    precision.scale((w * w).sum()).backward()
    assert w.grad.item() == 4
    precision.step(optimizer)
    assert w.item() == pytest.approx(1.6)
    assert w.grad is None
    assert precision.state_dict() is None


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_float16_scales_the_loss_and_steps_with_the_gradient_as_it_was(kind):
    plain, scaled = weight(2.0), weight(2.0)
    precision = Precision(CPU, "float16")
    for w, one in ((plain, Precision(CPU, "off")), (scaled, precision)):
        optimizer = kind([w], 0.1, fused=True)
        for _ in range(3):
            one.scale((w * w).sum()).backward()
            one.step(optimizer)
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-5)
    assert precision.state_dict()["scale"] == 2**16


def test_a_gradient_that_overflows_leaves_the_step_out_and_halves_the_scale():
    w, precision = weight(1.0), Precision(CPU, "float16")
    optimizer = torch.optim.SGD([w], 0.1, fused=True)
    precision.scale((w * 1e36).sum()).backward()
    assert w.grad.isinf()
    precision.step(optimizer)
    assert w.item() == 1
    assert precision.state_dict()["scale"] == 2**15


def test_the_scale_survives_a_checkpoint():
    """Two thousand good steps double it, and they may lie on both sides of a stop."""
    precision, again = Precision(CPU, "float16"), Precision(CPU, "float16")
    w = weight()
    optimizer = torch.optim.SGD([w], 0.0)
    for _ in range(3):
        precision.scale(w.sum()).backward()
        precision.step(optimizer)
    again.load_state_dict(precision.state_dict())
    assert again.state_dict()["_growth_tracker"] == 3
    Precision(CPU, "off").load_state_dict(None)


@pytest.mark.parametrize(
    ("amp", "kind"), [("off", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_products_are_made_in_the_precision_that_is_asked_for(amp, kind):
    with Precision(CPU, amp).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_another_precision_is_refused():
    with pytest.raises(InputError, match="amp is 'float8'; choose auto, bfloat16, float16 or off"):
        Precision(CPU, "float8").autocast()


def fail_within_deterministic() -> None:
    with settled(CPU, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        raise ZeroDivisionError


def test_deterministic_algorithms_are_asked_for_and_given_back():
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ZeroDivisionError):
        fail_within_deterministic()
    assert not torch.are_deterministic_algorithms_enabled()
