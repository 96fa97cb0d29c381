"""Equality with the published code: one test file per fixture of ../shared/golden, skipped where that is missing.

The models are built from weights that follow a rule (FILL.md there), so that no weight has to be stored.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_models import GOLDEN, filled_mgn, filled_state, load_rule

from lab.finetune.mgn import MGN


def pytest_collection_modifyitems(items):
    if not GOLDEN.is_dir():
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(
                    pytest.mark.skip(reason="../shared/golden, the outputs of the published code, is not here")
                )


@pytest.fixture(scope="session")
def rule():
    return load_rule()


@pytest.fixture(scope="session")
def r50(rule) -> MGN:
    """MGN-R50 with the rule's weights; tests that change it take a deep copy."""
    return filled_mgn(rule, 50)


@pytest.fixture(scope="session")
def r101(rule) -> MGN:
    return filled_mgn(rule, 101)


@pytest.fixture(scope="session")
def moco_state(rule) -> dict[str, torch.Tensor]:
    """The state dict of the fixtures' raw MoCo checkpoint: ResNet-50, a queue of 512 keys."""
    return filled_state(rule, "moco_r50_keys.json", "module.", {"module.queue": [128, 512]})


@pytest.fixture(scope="session")
def images(rule) -> Callable[..., torch.Tensor]:
    """images(name, count, height=384): an image batch of the rule, uint8, 128 pixels wide."""

    def make(name: str, count: int, height: int = 384) -> torch.Tensor:
        return torch.from_numpy(rule.images(name, count, height, 128, rule.seed))

    return make
