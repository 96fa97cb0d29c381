"""losses.npz: values and gradients of the published losses and of its pooling."""

import math

import pytest
import torch
import torch.nn.functional as F
from golden_models import FLOAT64, close, close_each
from golden_models import golden as read

from lab.finetune.losses import circle_logits, cosine_logits, hard_triplet, smoothed_cross_entropy, weighted_triplet
from lab.finetune.mgn import GeM

NAME = "losses.npz"


@pytest.fixture(scope="module")
def golden():
    return {name: torch.from_numpy(values) for name, values in read(NAME).items()}


def check(loss, values, golden, name):
    """loss(values): the value in float32 and, where there is a twin, in float64, and the gradient."""
    leaf = values.clone().requires_grad_()
    found = loss(leaf)
    close_each(f"{NAME}: {name}", [found.item()], golden[name], 1e-6)
    found.backward()
    close(f"{NAME}: gradient of {name}", leaf.grad, golden[f"{name}_grad"], 1e-5)
    if f"{name}_f64" in golden:
        close_each(f"{NAME}: {name}, float64", [loss(values.double()).item()], golden[f"{name}_f64"], FLOAT64)


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize(
    ("name", "loss", "margin"),
    [
        ("tri_hard_soft_margin", hard_triplet, 0.0),
        ("tri_hard_margin03", hard_triplet, 0.3),
        ("tri_weighted_soft_margin", weighted_triplet, 0.0),
    ],
)
def test_triplet(golden, name, loss, margin, order):
    rows = torch.arange(16) if order == "sorted" else golden["perm"]
    check(lambda embedding: loss(embedding[rows], golden["labels"][rows], margin), golden["embedding"], golden, name)


def test_triplet_of_another_program(golden):
    ours = hard_triplet(golden["embedding"], golden["labels"], 0.3).item()
    close_each(f"{NAME}: peer_torchreid_tri_margin03", [ours], golden["peer_torchreid_tri_margin03"], 1e-6)


def test_triplet_on_normalised_features(golden):
    def loss(embedding):
        return hard_triplet(F.normalize(embedding), golden["labels"])

    check(loss, golden["embedding"], golden, "tri_hard_soft_margin_normfeat")


def test_triplet_of_equal_features_and_of_features_that_overflow(golden):
    embedding = torch.ones(16, 64, requires_grad=True)
    loss = hard_triplet(embedding, golden["labels"])
    loss.backward()
    assert loss.item() == pytest.approx(golden["tri_all_equal"].item()) == pytest.approx(math.log(2))
    assert embedding.grad.abs().max() == golden["tri_all_equal_grad_absmax"]
    check(
        lambda features: hard_triplet(features, golden["labels"]),
        golden["tri_overflow_embedding"],
        golden,
        "tri_overflow",
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ce_eps01", {"smoothing": 0.1}),
        ("ce_eps00", {"smoothing": 0.0}),
        ("ce_adaptive_alpha02", {"adaptive": 0.2}),
    ],
)
def test_smoothed_cross_entropy(golden, name, settings):
    check(lambda logits: smoothed_cross_entropy(logits, golden["labels"], **settings), golden["logits"], golden, name)


@pytest.mark.parametrize("peer", ["peer_torch_label_smoothing01", "peer_torchreid_label_smoothing01"])
def test_other_programs_share_with_the_right_identity_too(golden, peer):
    """Their 0.1 over all C identities is 0.1 (C - 1) / C over the wrong ones."""
    count = golden["logits"].shape[1]
    ours = smoothed_cross_entropy(golden["logits"], golden["labels"], 0.1 * (count - 1) / count)
    close_each(f"{NAME}: {peer}", [ours.item()], golden[peer], 1e-6)


def test_circle_softmax(golden):
    embedding = golden["embedding"].clone().requires_grad_()
    weight = golden["circle_weight"].clone().requires_grad_()
    cosine = cosine_logits(embedding, weight)
    close(f"{NAME}: circle_scaled_cosine", 64 * cosine, golden["circle_scaled_cosine"], 1e-5)
    logits = circle_logits(cosine, golden["labels"])
    close(f"{NAME}: circle_logits", logits, golden["circle_logits"], 1e-5)
    loss = smoothed_cross_entropy(logits, golden["labels"], 0.1)
    close_each(f"{NAME}: circle_ce01", [loss.item()], golden["circle_ce01"], 1e-6)
    loss.backward()
    close(f"{NAME}: circle_grad_embedding", embedding.grad, golden["circle_grad_embedding"], 1e-5)
    close(f"{NAME}: circle_grad_weight", weight.grad, golden["circle_grad_weight"], 1e-5)


def test_gem(golden):
    pool = GeM()
    with torch.no_grad():
        pool.p.copy_(golden["gem_p"])
    maps = golden["gem_input"].clone().requires_grad_()
    pooled = pool(maps).flatten(1)
    close(f"{NAME}: gem_output", pooled, golden["gem_output"], 1e-6)
    pooled.sum().backward()
    close(f"{NAME}: gem_grad_p", pool.p.grad, golden["gem_grad_p"], 1e-5)
    close(f"{NAME}: gem_grad_input", maps.grad, golden["gem_grad_input"], 1e-5)
    assert GeM()(torch.full((1, 1, 2, 2), -1.0)).item() == pytest.approx(golden["gem_all_negative_p3"].item(), rel=1e-5)
