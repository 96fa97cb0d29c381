"""MoCo v2 (He et al. 2020, Chen et al. 2020) as LUPerson runs it: two encoders, one queue, one loss.

encoder_q sees view_q and learns. encoder_k is its slow moving average, sees view_k and fills the queue with keys. The
loss asks which of the K+1 keys (the own one, or one of the K in the queue) belongs to the query. A MoCo query is a
view of a crop, not a re-ID query. Legend: B crops in a batch, C size of the projection, K length of the queue.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.backbone import resnet, statistics_of
from lab.batch_norm import in_groups
from lab.distributed import gather_rows, world_size
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
        return batch_accuracy(self.q, self.k)


def batch_accuracy(q: Tensor, k: Tensor) -> Tensor:
    """Share of queries that are closer to their own key than to the other keys of this batch, which have its age.

    While this stays at chance (1/B) and `Contrast.accuracy` rises, the network tells old keys from new, not people.
    """
    return ((q @ k.T).argmax(1) == torch.arange(len(q), device=q.device)).float().mean()


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
        """One step in one process: two views (B, 3, H, W) RGB 0..255 -> logits; moves encoder_k and the queue on.

        The logits compare with the queue as it was before this step's keys went in. Training, where several processes
        share a batch or one goes through it in parts, calls the three steps itself.
        """
        order = torch.arange(len(view_k), device=view_k.device)
        if self.bn_groups > 1:
            order = torch.randperm(len(view_k), device=view_k.device)
        keys = self.encode_keys(view_k[order], order)
        contrast = self.contrast(view_q, keys, self.bn_groups)
        self.enqueue(keys)
        return contrast

    @torch.no_grad()
    def encode_keys(self, shuffled: Tensor, order: Tensor) -> Tensor:
        """Move encoder_k on, and encode the second view of every crop in the whole job's batch -> (B, C) unit norm.

        `order` (B,) is a random order of that batch, and image j of `shuffled` shows crop order[j]: this process has
        its part of them, rank after rank. So no group of keys holds the crops of a group of queries. The keys come
        back in the order of the batch, the same in every process.
        """
        self._update_key_encoder()
        keys = F.normalize(self._encode(self.encoder_k, self.encoder_k, shuffled, self.bn_groups // world_size()))
        return gather_rows(at_least_float32(keys))[order.argsort()]

    def contrast(
        self, view_q: Tensor, keys: Tensor, groups: int, encode: Callable[[Tensor], Tensor] | None = None
    ) -> Contrast:
        """Compare queries with their own keys (B, C) and with the queue.

        `view_q` is the batch or a part of it that makes `groups` whole groups, and `keys` are those of the same crops.
        `encode` is encoder_q as `lab.distributed.parallel` made it, if it did.
        """
        q = at_least_float32(F.normalize(self._encode(self.encoder_q, encode or self.encoder_q, view_q, groups)))
        # 32-bit: 16 bits would round the cosines of a query with 65,536 keys to a few hundred values
        with torch.autocast(view_q.device.type, enabled=False):
            own = (q * keys).sum(1, keepdim=True)  # (B, 1)
            others = q @ self.queue.clone().detach()  # (B, K)
        return Contrast(torch.cat([own, others], dim=1) / self.temperature, q, keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys of the queue with the whole job's (B, C), wrapping around its end."""
        slots = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % self.queue_size
        self.queue[:, slots] = keys.T
        self.queue_ptr.add_(len(keys)).remainder_(self.queue_size)

    @torch.no_grad()
    def _update_key_encoder(self) -> None:
        """Exponential moving average of the parameters; batch-norm statistics of encoder_k are its own."""
        k, q = list(self.encoder_k.parameters()), list(self.encoder_q.parameters())
        torch._foreach_mul_(k, self.key_momentum)
        torch._foreach_add_(k, q, alpha=1 - self.key_momentum)

    def _encode(self, encoder: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor, groups: int) -> Tensor:
        return torch.cat(in_groups(encoder, call, normalise(self, images).chunk(groups)))

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
