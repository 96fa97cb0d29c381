"""In which precision a step is computed, and how its gradient gets into the weights."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from lab.backbone import autocast


class Precision:
    """Mixed precision of a training: `amp` is auto, bfloat16, float16 or off (see `lab.backbone.autocast`).

    float16 has so few exponents that small gradients would become 0: its loss is multiplied by a scale first, which
    halves when gradients overflow (that step is left out) and doubles after 2,000 good steps. The scale is part of a
    run's state. The other precisions need none.
    """

    def __init__(self, device: torch.device, amp: str):
        self.device, self.amp = device, amp
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "float16")

    def autocast(self) -> AbstractContextManager:
        """What forward passes run in."""
        return autocast(self.device, self.amp)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss whose `backward()` gives the gradients that `step` expects."""
        return self.scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the weights, then forget the gradients."""
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict | None:
        return self.scaler.state_dict() or None

    def load_state_dict(self, state: dict | None) -> None:
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)


@contextmanager
def settled(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Let a GPU look for its fastest convolutions, or with `deterministic` use those that always add in one order.

    Then two runs on one GPU are equal to the last bit, as they are on a CPU in any case.
    """
    before = torch.backends.cudnn.benchmark
    turned_on = deterministic and not torch.are_deterministic_algorithms_enabled()
    if turned_on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
        if turned_on:
            torch.use_deterministic_algorithms(False)
