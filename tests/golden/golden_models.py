"""What the fixture tests of the models share: reading fixtures, filling models, and comparing with a note of how close."""

import copy
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import torch

from lab.finetune.losses import mgn_losses
from lab.finetune.mgn import MGN
from lab.finetune.mgn import from_official as mgn_from_official
from lab.finetune.train import set_frozen
from lab.pixels import FINETUNE_MEAN, FINETUNE_STD

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
FLOAT64 = 1e-11  # what 64-bit floats leave of 16 digits after a network forward and back
TABLE = os.environ.get("LAB_GOLDEN_TABLE")  # a file that every comparison is added to as a line


def golden(name: str):
    """A fixture by file name: a dict of arrays, or what the JSON holds."""
    file = GOLDEN / name
    if file.suffix == ".json":
        return json.loads(file.read_text())
    with np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def load_rule():
    """The filling rule as a module: fill(key, shape, seed), images(name, ...), with the fixtures' seed as `seed`."""
    spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    rule.seed = golden("mgn_r50_keys.json")["fill_seed"]
    return rule


def filled_state(rule, name: str, prefix: str = "", shapes: dict | None = None) -> dict[str, torch.Tensor]:
    """The state dict that the key list `name` describes, with the rule's values; `shapes` replaces some shapes."""
    state = {}
    for key, shape, *_ in golden(name)["state_dict"]:
        shape = (shapes or {}).get(key, shape)
        value = rule.fill(key.removeprefix(prefix), shape, rule.seed)
        if value is not None:
            state[key] = torch.from_numpy(np.asarray(value)).reshape(shape)
    return state


def filled_mgn(rule, depth: int) -> MGN:
    """The MGN with the rule's weights, built the way a released checkpoint is."""
    state = filled_state(rule, f"mgn_r{depth}_keys.json")
    statistics = {"pixel_mean": FINETUNE_MEAN, "pixel_std": FINETUNE_STD}  # the rule leaves them to the configuration
    state |= {key: torch.tensor(value).view(1, 3, 1, 1) for key, value in statistics.items()}
    return mgn_from_official(state).to(memory_format=torch.channels_last)  # as in training; faster on a CPU


def close(what: str, ours, theirs, tolerance: float, asked: float | None = None) -> None:
    """Assert that the largest difference, as a share of the largest expected value, is below `tolerance`.

    `asked` is the tolerance that the project asks for, if the test is stricter.
    """
    ours, theirs = (np.asarray(_plain(values), dtype=np.float64) for values in (ours, theirs))
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, expected {theirs.shape}"
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if TABLE:
        with open(TABLE, "a") as table:
            table.write(f"| {what} | {asked or tolerance:.0e} | {difference:.1e} |\n")
    assert difference < tolerance, f"{what}: relative difference {difference:.2e}, expected below {tolerance:.0e}"


def close_each(what: str, ours, theirs, tolerance, asked: float | None = None) -> None:
    """Assert that every value is within `tolerance` (one, or one for each) of its own expected value, relative."""
    ours, theirs = (np.asarray(_plain(values), dtype=np.float64) for values in (ours, theirs))
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, expected {theirs.shape}"
    difference = np.abs(ours - theirs) / np.abs(theirs)
    if TABLE:
        with open(TABLE, "a") as table:
            table.write(f"| {what} | {asked or np.max(tolerance):.0e} | {difference.max():.1e} |\n")
    assert (difference < tolerance).all(), f"{what}: relative differences {difference}, expected below {tolerance}"


def _plain(values):
    return values.detach().numpy() if isinstance(values, torch.Tensor) else values


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    """A copy that computes in float64, in the memory layout that is faster for it."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format).double()


def learning_everywhere(model: MGN) -> MGN:
    """The model in the frozen phase, with the trunk's gradients: the published loop makes them and does not use them."""
    set_frozen(model, True)
    for part in model.trunk_parts():
        part.requires_grad_(True)
    return model


def check_losses_and_gradients(
    fixture: str, model: MGN, batch: torch.Tensor, expected: dict, ending: str = "", gradients: bool = True
) -> dict[str, torch.Tensor]:
    """Every loss term, the total, the accuracy and the gradient norms of one training step; returns the head features.

    In float64 ours and the published code do the same sums, and agree to 12 digits. In float32 the published run is
    itself up to 1.2e-3 away from float64 in a gradient norm; two such runs may differ by twice that.
    """
    double = model.pixel_mean.dtype == torch.float64
    what = f"{fixture}{ending}{', float64' if double else ''}"
    with torch.set_grad_enabled(gradients):
        features = model.features(batch)
        terms, accuracy = mgn_losses(features, model.class_weights(), torch.from_numpy(expected["labels"]))
    total = sum(terms.values())
    assert set(terms) == set(expected["loss_names"])
    values = [terms[name].item() for name in expected["loss_names"]]
    close_each(f"{what}: loss terms", values, expected[f"loss{ending}_f64"], FLOAT64 if double else 2e-5, asked=1e-4)
    close_each(f"{what}: total loss", [total.item()], expected[f"total{ending}"], 1e-5, asked=1e-4)
    assert accuracy.item() == expected[f"accuracy{ending}"].item()
    if not gradients:
        return features
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(total, [parameters[name] for name in expected["grad_names"]])
    norms = [gradient.double().norm().item() for gradient in found]
    exact, published = expected[f"grad_norm{ending}_f64"], expected[f"grad_norm{ending}"]
    tolerance = FLOAT64 if double else 1e-3 + 2 * np.abs(published / exact - 1).max()
    close_each(f"{what}: gradient norms", norms, exact, tolerance, asked=1e-3)
    return features
