"""mgn_r101_train.npz: one training step of the published MGN-R101, after and in the frozen phase."""

import copy

from golden_models import check_losses_and_gradients, golden, in_float64, learning_everywhere

from lab.finetune.train import set_frozen

NAME = "mgn_r101_train.npz"


def test_losses_and_gradients_in_float64(r101, images):
    model = in_float64(r101)
    set_frozen(model, False)
    check_losses_and_gradients(NAME, model, images("mgn/train", 8), golden(NAME))


def test_the_frozen_phase(r101, images):
    model = learning_everywhere(copy.deepcopy(r101))
    check_losses_and_gradients(NAME, model, images("mgn/train", 8), golden(NAME), "_frozen")
