"""The fine-tuning losses against the published code's values, slow oracles and cases worked by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lab.finetune.losses import (
    circle_logits,
    cosine_logits,
    hard_triplet,
    mgn_losses,
    smoothed_cross_entropy,
)
from lab.finetune.mgn import HEADS, GeM

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "losses.npz"
needs_golden = pytest.mark.skipif(not GOLDEN.is_file(), reason="../shared/golden/losses.npz is not here")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def check(loss, leaf, golden, name):
    """Value within 1e-6 of the float64 twin where there is one, gradient within 1e-6 of its largest entry."""
    expected = golden.get(f"{name}_f64", golden[name]).item()
    assert loss.item() == pytest.approx(expected, rel=2e-6)
    loss.backward()
    expected = golden[f"{name}_grad"]
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


@needs_golden
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize(("name", "margin"), [("tri_hard_soft_margin", 0.0), ("tri_hard_margin03", 0.3)])
def test_triplet_equals_the_published_one(golden, name, margin, order):
    embedding = golden["embedding"].clone().requires_grad_()
    rows = torch.arange(16) if order == "sorted" else golden["perm"]
    check(hard_triplet(embedding[rows], golden["labels"][rows], margin), embedding, golden, name)


@needs_golden
def test_triplet_on_normalised_features(golden):
    embedding = golden["embedding"].clone().requires_grad_()
    check(hard_triplet(F.normalize(embedding), golden["labels"]), embedding, golden, "tri_hard_soft_margin_normfeat")


@needs_golden
def test_triplet_of_equal_features_and_of_features_that_overflow(golden):
    embedding = torch.ones(16, 64, requires_grad=True)
    loss = hard_triplet(embedding, golden["labels"])
    loss.backward()
    assert loss.item() == pytest.approx(golden["tri_all_equal"].item()) == pytest.approx(math.log(2))
    assert embedding.grad.abs().max() == golden["tri_all_equal_grad_absmax"]
    embedding = golden["tri_overflow_embedding"].clone().requires_grad_()
    check(hard_triplet(embedding, golden["labels"]), embedding, golden, "tri_overflow")


def test_triplet_with_unequal_images_per_identity():
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([2, 0, 0, 1, 1, 1, 1, 0, 5])
    total = 0.0
    for i in range(9):
        positive = max(torch.dist(features[i], features[j]).item() for j in range(9) if labels[j] == labels[i])
        negative = min(torch.dist(features[i], features[j]).item() for j in range(9) if labels[j] != labels[i])
        total += math.log1p(math.exp(positive - negative))
    assert hard_triplet(features, labels).item() == pytest.approx(total / 9, rel=1e-5)


@needs_golden
@pytest.mark.parametrize(("name", "smoothing"), [("ce_eps01", 0.1), ("ce_eps00", 0.0)])
def test_smoothed_cross_entropy_equals_the_published_one(golden, name, smoothing):
    logits = golden["logits"].clone().requires_grad_()
    check(smoothed_cross_entropy(logits, golden["labels"], smoothing), logits, golden, name)


def test_smoothed_cross_entropy_and_torch_say_the_same_in_their_own_words():
    logits, labels = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 4, 2, 2, 1, 3])
    ours = smoothed_cross_entropy(logits, labels, 0.1)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1 * 5 / 4))


def test_samples_without_loss_do_not_count_in_the_mean():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 0.0]])  # the first is certain and right: its loss is exactly 0
    assert smoothed_cross_entropy(logits, torch.tensor([0, 1]), 0.0).item() == pytest.approx(math.log(2))


@needs_golden
def test_circle_softmax_equals_the_published_one(golden):
    embedding = golden["embedding"].clone().requires_grad_()
    weight = golden["circle_weight"].clone().requires_grad_()
    logits = circle_logits(cosine_logits(embedding, weight), golden["labels"])
    torch.testing.assert_close(logits, golden["circle_logits"], rtol=1e-5, atol=1e-5)
    loss = smoothed_cross_entropy(logits, golden["labels"], 0.1)
    assert loss.item() == pytest.approx(golden["circle_ce01"].item(), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(embedding.grad, golden["circle_grad_embedding"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight.grad, golden["circle_grad_weight"], rtol=1e-4, atol=1e-5)


def test_circle_logits_by_hand():
    # the target has 0.65 to go to from 0.5: 64 * (1.35 - 0.5) * (0.5 - 0.65); the other is at 0.1, below its margin
    logits = circle_logits(torch.tensor([[0.5, 0.1, -0.9]]), torch.tensor([0]))
    expected = [64 * 0.85 * -0.15, 64 * 0.45 * -0.25, 0.0]  # -0.9 is beyond reach: its weight is 0
    assert logits[0].tolist() == pytest.approx(expected)


@needs_golden
def test_gem_equals_the_published_one(golden):
    pool = GeM()
    with torch.no_grad():
        pool.p.copy_(golden["gem_p"])
    maps = golden["gem_input"].clone().requires_grad_()
    pooled = pool(maps).flatten(1)
    torch.testing.assert_close(pooled, golden["gem_output"], rtol=1e-5, atol=1e-6)
    pooled.sum().backward()
    torch.testing.assert_close(pool.p.grad, golden["gem_grad_p"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(maps.grad, golden["gem_grad_input"], rtol=1e-4, atol=1e-6)
    assert GeM()(torch.full((1, 1, 2, 2), -1.0)).item() == pytest.approx(golden["gem_all_negative_p3"].item(), rel=1e-5)


def test_mgn_losses_are_weighted_means_over_heads_and_features():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 3, 3])
    one, weight = torch.randn(4, 256, generator=generator), torch.randn(5, 256, generator=generator)
    weight[0], weight[3] = one[0], one[2]  # two of four images lie on the direction of their identity
    terms, accuracy = mgn_losses(dict.fromkeys(HEADS, one), dict.fromkeys(HEADS, weight), labels)
    cross_entropy = smoothed_cross_entropy(circle_logits(cosine_logits(one, weight), labels), labels)
    total = sum(value for name, value in terms.items() if name.startswith("loss_cls"))
    torch.testing.assert_close(total, cross_entropy)
    triplets = [name.removeprefix("loss_triplet_") for name in terms if "triplet" in name]
    assert triplets == ["b1", "b2", "b3", "b22", "b33"]
    torch.testing.assert_close(terms["loss_triplet_b1"], hard_triplet(one, labels) / 5)
    torch.testing.assert_close(terms["loss_triplet_b33"], hard_triplet(torch.cat([one] * 3, dim=1), labels) / 5)
    expected = (F.normalize(one) @ F.normalize(weight).T).argmax(1).eq(labels).float().mean()
    assert accuracy == expected
    assert accuracy >= 0.5
