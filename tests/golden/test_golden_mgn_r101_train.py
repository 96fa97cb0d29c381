"""mgn_r101_train.npz: one training step of the published MGN-R101."""

import copy

from golden_models import check_losses_and_gradients, golden

from lab.finetune.train import set_frozen

NAME = "mgn_r101_train.npz"


def test_losses_and_gradients(r101, images):
    model = copy.deepcopy(r101)
    set_frozen(model, False)
    check_losses_and_gradients(NAME, model, images("mgn/train", 8), golden(NAME))


def test_the_frozen_phase(r101, images):
    model = copy.deepcopy(r101)
    set_frozen(model, True)
    for part in model.trunk_parts():  # the published loop computes these gradients and does not use them
        part.requires_grad_(True)
    check_losses_and_gradients(NAME, model, images("mgn/train", 8), golden(NAME), "_frozen")
