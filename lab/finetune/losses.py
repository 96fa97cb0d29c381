"""The losses of MGN fine-tuning as pure functions of tensors.

Legend: B images in a batch, D feature size, C identities of the training set.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.pixels import at_least_float32


def cosine_logits(features: Tensor, weight: Tensor) -> Tensor:
    """How much each feature points the way of each identity's weight vector: (B, D), (C, D) -> (B, C) in -1..1."""
    return F.linear(F.normalize(features), F.normalize(weight))


def circle_logits(cosine: Tensor, labels: Tensor, scale: float = 64.0, margin: float = 0.35) -> Tensor:
    """Turn cosines into logits that push hardest where the cosine is still far from where it should be.

    The target wants to reach 1 - margin, the others want to fall to margin; the distance that is left weights the
    logit, and no gradient flows through that weight. `cosine` (B, C), `labels` (B,) -> (B, C). Circle loss in its
    classification form.
    """
    towards_one = F.relu(1 + margin - cosine.detach()) * (cosine - (1 - margin))
    towards_zero = F.relu(cosine.detach() + margin) * (cosine - margin)
    is_target = F.one_hot(labels, cosine.shape[1]).bool()
    return scale * torch.where(is_target, towards_one, towards_zero)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.1, adaptive: float = 0.0) -> Tensor:
    """Cross entropy with a target that is not quite sure: `smoothing` is shared by the C - 1 wrong identities.

    The mean runs over the samples whose loss is not exactly zero. (torch's own label_smoothing shares with the right
    identity too: smoothing * C / (C - 1) there is the same as `smoothing` here.) With `adaptive` above 0 a sample is
    smoothed by `adaptive` times the probability that it gives to its own identity: the surer, the more. `logits`
    (B, C), `labels` (B,).
    """
    log_p = F.log_softmax(logits, dim=1)
    on_target = log_p.gather(1, labels[:, None])[:, 0]
    off_target = log_p.sum(dim=1) - on_target
    share = adaptive * on_target.detach().exp() if adaptive > 0 else smoothing
    loss = -(1 - share) * on_target - share / (logits.shape[1] - 1) * off_target
    return loss.sum() / (loss != 0).sum().clamp(min=1)


def euclidean(features: Tensor) -> Tensor:
    """(B, D) -> (B, B) distances; the clamp keeps the root's slope finite at zero."""
    square = features.square().sum(dim=1)
    return (square[:, None] + square[None, :] - 2 * features @ features.T).clamp(min=1e-12).sqrt()


def hard_triplet(features: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """For each anchor, its farthest positive should be nearer than its nearest negative.

    margin 0 is the soft margin softplus(d_ap - d_an), else max(0, d_ap - d_an + margin); the mean over the batch. The
    anchor counts among its own positives, which is harmless. Mining goes by mask, so identities may have unequal
    numbers of images. `features` (B, D), not normalised, `labels` (B,).
    """
    distance = euclidean(features)
    same = labels[:, None] == labels[None, :]
    d_ap = distance.masked_fill(~same, -math.inf).max(dim=1).values
    d_an = distance.masked_fill(same, math.inf).min(dim=1).values
    return _margin_loss(d_ap - d_an, margin)


def weighted_triplet(features: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """As `hard_triplet`, with all positives and all negatives of an anchor in place of the hardest ones.

    Far positives and near negatives weigh most, by a softmax over their distances.
    """
    distance = euclidean(features)
    same = labels[:, None] == labels[None, :]
    d_ap = (distance * _softmax(distance, same)).sum(dim=1)
    d_an = (distance * _softmax(-distance, ~same)).sum(dim=1)
    return _margin_loss(d_ap - d_an, margin)


def _softmax(values: Tensor, mask: Tensor) -> Tensor:
    """A softmax over the entries in `mask`, as published: where all are very negative the weights sum to less than 1.

    The largest value is taken with zeros in place of what is masked, and 1e-6 is added to the sum, so that negatives
    farther than about 13 hardly count.
    """
    weight = (values - (values * mask).max(dim=1, keepdim=True).values).exp() * mask
    return weight / (weight.sum(dim=1, keepdim=True) + 1e-6)


def _margin_loss(gap: Tensor, margin: float) -> Tensor:
    if margin > 0:
        return F.relu(gap + margin).mean()
    # The published code takes exp(gap) as it is and, when that overflows, a margin of 0.3 for this batch.
    overflows = gap.max() > math.log(torch.finfo(gap.dtype).max)
    return torch.where(overflows, F.relu(gap + 0.3).mean(), F.softplus(gap).mean())


MINING = {"hard": hard_triplet, "weighted": weighted_triplet}
# What the triplet loss looks at: the whole-person heads, and the stripes of a branch side by side.
TRIPLETS = {"b1": ("b1",), "b2": ("b2",), "b3": ("b3",), "b22": ("b21", "b22"), "b33": ("b31", "b32", "b33")}


def mgn_losses(
    features: dict[str, Tensor],
    class_weights: dict[str, Tensor],
    labels: Tensor,
    scale: float = 64.0,
    margin: float = 0.35,
    smoothing: float = 0.1,
    triplet_margin: float = 0.0,
    mining: str = "hard",
    adaptive: float = 0.0,
) -> tuple[dict[str, Tensor], Tensor]:
    """All terms of the MGN loss, already weighted (their sum is the loss), and the accuracy of the classifiers.

    Every head has a cross entropy on its circle logits, weight 1/8; five features have a triplet loss, weight 1/5.
    `features` head name -> (B, 256), `class_weights` head name -> (C, 256), `labels` (B,) in 0..C-1. The accuracy is
    the share of heads and images whose nearest class direction is the right one.
    """
    terms, right = {}, []
    for head, feature in features.items():
        cosine = cosine_logits(at_least_float32(feature), at_least_float32(class_weights[head]))
        logits = circle_logits(cosine, labels, scale, margin)
        terms[f"loss_cls_{head}"] = smoothed_cross_entropy(logits, labels, smoothing, adaptive) / len(features)
        right.append((cosine.detach().argmax(dim=1) == labels).float().mean())
    for name, heads in TRIPLETS.items():
        joined = torch.cat([at_least_float32(features[head]) for head in heads], dim=1)
        terms[f"loss_triplet_{name}"] = MINING[mining](joined, labels, triplet_margin) / len(TRIPLETS)
    return terms, torch.stack(right).mean()
