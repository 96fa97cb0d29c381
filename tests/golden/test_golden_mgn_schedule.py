"""mgn_schedule.npz: the learning rate of every step, for the four data sets, to the last printed digit."""

import pytest
from golden_models import close_each, golden

from lab.finetune.train import FinetuneConfig, learning_rate

NAME = "mgn_schedule.npz"
LAST_DIGIT = 1e-14  # two units in the last place of a 64-bit float are 4e-16; sums of cosines reach a few more


def test_every_step_of_market1501():
    ours = [learning_rate(step, 12120, FinetuneConfig()) for step in range(12120)]
    close_each(f"{NAME}: market1501, 12,120 steps", ours, golden(NAME)["market1501_lr_per_iter"], LAST_DIGIT)


def test_sixty_epochs_of_one_step():
    ours = [learning_rate(step, 60, FinetuneConfig()) for step in range(60)]
    close_each(f"{NAME}: 60 epochs of one step", ours, golden(NAME)["lr_per_epoch_one_iter_each"], LAST_DIGIT)


@pytest.mark.parametrize(
    ("name", "per_epoch"), [("market1501", 202), ("dukemtmc", 258), ("msmt17", 509), ("cuhk03_labeled", 115)]
)
def test_first_and_last_step_of_every_epoch(name, per_epoch):
    expected = golden(NAME)
    for which, offset in (("first", 0), ("last", per_epoch - 1)):
        ours = [learning_rate(epoch * per_epoch + offset, 60 * per_epoch, FinetuneConfig()) for epoch in range(60)]
        close_each(f"{NAME}: {name}, {which}", ours, expected[f"{name}_lr_{which}_iter_of_epoch"], LAST_DIGIT)
