"""MoCo v2 (He et al. 2020, Chen et al. 2020) as LUPerson runs it: two encoders, one queue, one loss.

encoder_q sees view_q and learns. encoder_k is its slow moving average, sees view_k and fills the queue with keys. The
loss asks which of the K+1 keys (the own one, or one of the K in the queue) belongs to the query. A MoCo query is a
view of a crop, not a re-ID query. Legend: B crops in a batch, C size of the projection, K length of the queue.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.backbone import resnet, statistics_of
from lab.batch_norm import in_groups
from lab.errors import InputError
from lab.pixels import (
    LUPERSON_MEAN,
    LUPERSON_STD,
    at_least_float32,
    normalise,
    register_pixel_statistics,
)
from lab.weights import STATISTICS, check_finite, depth_of, identify


@dataclass(frozen=True)
class Contrast:
    """What one forward pass returns: `logits` (B, 1+K) / temperature, the own key first; unit-norm `q`, `k` (B, C)."""

    logits: Tensor
    q: Tensor
    k: Tensor

    @property
    def loss(self) -> Tensor:
        """InfoNCE: cross-entropy of picking the own key among all. Chance level is log(K+1)."""
        own = torch.zeros(len(self.logits), dtype=torch.long, device=self.logits.device)
        return F.cross_entropy(self.logits, own)

    @property
    def accuracy(self) -> Tensor:
        """Share of queries that are closer to their own key than to every key of the queue."""
        return (self.logits.argmax(1) == 0).float().mean()

    @property
    def batch_accuracy(self) -> Tensor:
        """Share of queries that are closer to their own key than to the other keys of this batch, which have its age.

        While this stays at chance (1/B) and `accuracy` rises, the network tells old keys from new, not people.
        """
        return ((self.q @ self.k.T).argmax(1) == torch.arange(len(self.q), device=self.q.device)).float().mean()


class MoCo(nn.Module):
    """The two encoders and the queue. Names and shapes of all tensors are those of the published checkpoints.

    `bn_groups` splits a batch into as many parts, each with its own batch-norm statistics, as the published code's
    GPUs did; keys are shuffled across the parts. Without it (1) batch norm tells the network which crops share a
    batch, and it solves the task with that instead of with people (MoCo, section 3.3).
    """

    def __init__(
        self,
        depth: int = 50,
        dim: int = 128,
        queue_size: int = 65536,
        key_momentum: float = 0.999,
        temperature: float = 0.1,
        bn_groups: int = 1,
        pixel_mean=LUPERSON_MEAN,
        pixel_std=LUPERSON_STD,
    ):
        super().__init__()
        self.queue_size, self.key_momentum, self.temperature, self.bn_groups = (
            queue_size, key_momentum, temperature, bn_groups,
        )  # fmt: skip
        self.encoder_q = _encoder(depth, dim)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        register_pixel_statistics(self, pixel_mean, pixel_std)

    def forward(self, view_q: Tensor, view_k: Tensor) -> Contrast:
        """One step: two views (B, 3, H, W) RGB 0..255 -> logits; moves encoder_k and the queue on.

        The logits compare with the queue as it was before this step's keys went in.
        """
        q = F.normalize(self._encode(self.encoder_q, normalise(self, view_q)))
        with torch.no_grad():
            self._update_key_encoder()
            k = F.normalize(self._encode_keys(normalise(self, view_k)))
        q, k = at_least_float32(q), at_least_float32(k)
        own = (q * k).sum(1, keepdim=True)  # (B, 1)
        others = q @ self.queue.clone().detach()  # (B, K)
        logits = torch.cat([own, others], dim=1) / self.temperature
        self._enqueue(k)
        return Contrast(logits, q, k)

    @torch.no_grad()
    def _update_key_encoder(self) -> None:
        """Exponential moving average of the parameters; batch-norm statistics of encoder_k are its own."""
        k, q = list(self.encoder_k.parameters()), list(self.encoder_q.parameters())
        torch._foreach_mul_(k, self.key_momentum)
        torch._foreach_add_(k, q, alpha=1 - self.key_momentum)

    @torch.no_grad()
    def _encode_keys(self, images: Tensor) -> Tensor:
        """Keys in the order of `images`, encoded in a random order so that no group holds the crops of a query group."""
        if self.bn_groups == 1:
            return self.encoder_k(images)
        order = torch.randperm(len(images), device=images.device)
        return self._encode(self.encoder_k, images[order])[order.argsort()]

    def _encode(self, encoder: nn.Module, images: Tensor) -> Tensor:
        return torch.cat(in_groups(encoder, encoder, images.chunk(self.bn_groups)))

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys of the queue, wrapping around its end."""
        start = int(self.queue_ptr) % self.queue_size
        slots = torch.arange(start, start + len(keys), device=keys.device) % self.queue_size
        self.queue[:, slots] = keys.T
        self.queue_ptr[0] = (start + len(keys)) % self.queue_size

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB 0..255 -> (B, D) unit norm: the pooled trunk feature, which fine-tuning starts from."""
        self.eval()
        trunk, features = self.encoder_q, []
        hook = trunk.avgpool.register_forward_hook(lambda _module, _input, output: features.append(output.flatten(1)))
        try:
            trunk(normalise(self, images))
        finally:
            hook.remove()
        return F.normalize(features[0].float())

    @torch.inference_mode()
    def project(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB 0..255 -> (B, C) unit norm: the projection that the loss sees, as the published probe uses."""
        self.eval()
        return F.normalize(self.encoder_q(normalise(self, images)).float())

    def trunk_targets(self) -> dict[str, list[str]]:
        """Where a torchvision-named trunk tensor goes: both encoders start from the same weights."""
        keys = [key for key in self.encoder_q.state_dict() if not key.startswith("fc.")]
        return {key: [f"encoder_q.{key}", f"encoder_k.{key}"] for key in keys}


def from_official(state_dict: dict[str, Tensor], source: str = "the MoCo checkpoint") -> MoCo:
    """A MoCo with the `state_dict` entry of a published pre-training checkpoint (`module.encoder_q.*`, `module.queue`).

    Depth, projection and queue length are read off the shapes; pixel statistics are LUPerson's where the file carries
    none, as the published one. `source` is how messages call it. Raises InputError for anything else.
    """
    given = identify(state_dict)
    if given.kind != "moco":
        raise InputError(
            f"{source} is {given.words}; expected the state_dict entry of a raw MoCo checkpoint with encoder_q, encoder_k "
            "and queue"
        )
    state, statistics = given.state, statistics_of(given, source)
    dim, queue_size = state["queue"].shape
    model = MoCo(depth_of(state, "encoder_q."), dim, queue_size)
    own = {key: value for key, value in model.state_dict().items() if key in STATISTICS}
    try:
        model.load_state_dict(own | state | statistics)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{source} does not fit ({reason}); expected a whole MoCo checkpoint: get it again") from error
    check_finite(state, source)
    return model


def _encoder(depth: int, dim: int) -> nn.Module:
    """A ResNet with MoCo v2's projection head in place of its classifier."""
    encoder = resnet(depth)
    size = encoder.feature_size
    encoder.fc = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, dim))
    return encoder
