"""The fine-tuning losses against slow oracles and cases worked by hand (the published values: tests/golden)."""

import math

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
from lab.finetune.mgn import HEADS


def test_triplet_with_unequal_images_per_identity():
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([2, 0, 0, 1, 1, 1, 1, 0, 5])
    total = 0.0
    for i in range(9):
        positive = max(torch.dist(features[i], features[j]).item() for j in range(9) if labels[j] == labels[i])
        negative = min(torch.dist(features[i], features[j]).item() for j in range(9) if labels[j] != labels[i])
        total += math.log1p(math.exp(positive - negative))
    assert hard_triplet(features, labels).item() == pytest.approx(total / 9, rel=1e-5)


def test_smoothed_cross_entropy_and_torch_say_the_same_in_their_own_words():
    logits, labels = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 4, 2, 2, 1, 3])
    ours = smoothed_cross_entropy(logits, labels, 0.1)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1 * 5 / 4))


def test_samples_without_loss_do_not_count_in_the_mean():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 0.0]])  # the first is certain and right: its loss is exactly 0
    assert smoothed_cross_entropy(logits, torch.tensor([0, 1]), 0.0).item() == pytest.approx(math.log(2))


def test_circle_logits_by_hand():
    # the target has 0.65 to go to from 0.5: 64 * (1.35 - 0.5) * (0.5 - 0.65); the other is at 0.1, below its margin
    logits = circle_logits(torch.tensor([[0.5, 0.1, -0.9]]), torch.tensor([0]))
    expected = [64 * 0.85 * -0.15, 64 * 0.45 * -0.25, 0.0]  # -0.9 is beyond reach: its weight is 0
    assert logits[0].tolist() == pytest.approx(expected)


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
