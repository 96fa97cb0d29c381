"""mgn_r50_train.npz: one training step of the published MGN-R50, after and in the frozen phase."""

import copy

import torch
from golden_models import check_losses_and_gradients, close, golden, in_float64, learning_everywhere

from lab.finetune.losses import circle_logits, cosine_logits
from lab.finetune.train import set_frozen

NAME = "mgn_r50_train.npz"


def check_features(model, features, expected, ending: str) -> None:
    for head, feature in features.items():
        close(f"{NAME}: feat_{head}{ending}", feature, expected[f"feat_{head}{ending}"], 1e-4)
    logits = circle_logits(
        cosine_logits(features["b1"], model.class_weights()["b1"]), torch.from_numpy(expected["labels"])
    )
    close(f"{NAME}: logits_b1{ending}", logits, expected[f"logits_b1{ending}"], 1e-4)


def test_losses_features_and_running_statistics(r50, images):
    expected, model = golden(NAME), copy.deepcopy(r50)
    set_frozen(model, False)
    features = check_losses_and_gradients(NAME, model, images("mgn/train", 8), expected, gradients=False)
    check_features(model, features, expected, "")
    state = model.state_dict()
    for name in expected:
        if ":" in name:
            kind, module = name.split(":")
            close(f"{NAME}: {name}", state[f"{module}.{kind}"], expected[name], 1e-5, asked=1e-4)


def test_losses_and_gradients_in_float64(r50, images):
    model = in_float64(r50)
    set_frozen(model, False)
    check_losses_and_gradients(NAME, model, images("mgn/train", 8), golden(NAME))


def test_the_frozen_phase_in_float64(r50, images):
    model = learning_everywhere(in_float64(r50))
    check_losses_and_gradients(NAME, model, images("mgn/train", 8), golden(NAME), "_frozen")


def test_the_frozen_phase(r50, images):
    expected, model = golden(NAME), copy.deepcopy(r50)
    before = copy.deepcopy(model.state_dict())
    model = learning_everywhere(model)
    features = check_losses_and_gradients(NAME, model, images("mgn/train", 8), expected, "_frozen", gradients=False)
    check_features(model, features, expected, "_frozen")
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all("head" in key for key in moved)
