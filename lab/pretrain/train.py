"""Pre-training: one loop over unlabelled crops (paper, section 4).

Every image becomes two views, MoCo tells its own second view from a queue of others, and the trunk that comes out is
what fine-tuning starts from. Stages meet on disk: this one leaves `checkpoint.pt` in its run folder.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lab.backbone import autocast, load_trunk, pick_device
from lab.data.crops import Crops, resize, to_tensor
from lab.data.images import ImageSource
from lab.data.jpeg import decode, read_image
from lab.errors import InputError
from lab.files import replacing
from lab.pretrain.augment import Views, pad_together
from lab.pretrain.moco import Contrast, MoCo, from_official
from lab.runs import Run
from lab.weights import identify, read_weights, resolve_weights, unwrap

LOG_COLUMNS = ("step", "epoch", "lr", "loss", "accuracy", "batch_accuracy", "chance_loss", "feature_std",
               "images_per_second")  # fmt: skip
AfterEpoch = Callable[[nn.Module, int], dict[str, float]]


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of pre-training; the defaults are LUPerson's (released run_moco.sh; paper, section 4)."""

    depth: int = 50  # ResNet-18, 34, 50, 101 or 152
    height: int = 256  # pixels of a view
    width: int = 128  # pixels of a view
    augmentation: str = "luperson"  # luperson, luperson-erase, whole, moco or moco+erase (lab/pretrain/augment.py)
    dim: int = 128  # size of the projection
    queue_size: int = 65536  # keys of earlier batches to tell the own key from
    key_momentum: float = 0.999  # share of the old key encoder that a step keeps
    temperature: float = 0.1  # divides the cosine similarities (the released scripts' value)
    batch_size: int = 2560  # images per step, two views each
    bn_groups: int = 8  # parts of a batch with batch-norm statistics of their own; published: 8 GPUs
    epochs: int = 200  # passes over the images
    optimizer: Literal["sgd", "adamw"] = "sgd"  # published: sgd; adamw gets further in a few thousand steps
    lr: float = 0.3  # learning rate for this batch size, used as it is
    warmup_epochs: float = 0.0  # epochs of linear warm-up from 0 to lr; published: none
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0
    num_workers: int = 8  # processes that read crops; 0 does it in the training process
    device: str = "auto"  # auto, cpu or cuda
    amp: str = "auto"  # auto, bfloat16 or off; auto uses bfloat16 where the hardware has it
    log_every: int = 20  # steps between rows of log.csv
    probe_every: int = 10  # epochs between retrieval probes, when a labelled data set is given

    @classmethod
    def tiny(cls) -> "PretrainConfig":
        """For two CPU cores: small trunk, small crops, and views, queue, momentum and rate for some thousand steps.

        The published values belong to 326,400 steps of 2,560 images. In a short run a key momentum of 0.999 would
        keep the key encoder near its random start; 0.9 lets it change so fast that the network tells the age of the
        keys instead of the people on them. Published views show so little of a person that such a run learns none; `whole`
        ones teach people, and still places (measured: benchmarks/results/pretraining-recipe.md).
        """
        return cls(
            depth=18,
            height=128,
            width=64,
            augmentation="whole",
            queue_size=1024,
            key_momentum=0.996,
            batch_size=128,
            bn_groups=2,
            epochs=20,
            lr=0.06,
            warmup_epochs=0.5,
            num_workers=0,
            log_every=5,
            probe_every=2,
        )


def pretrain(
    run: Run,
    source: ImageSource | Sequence[str],
    config: PretrainConfig,
    init: str | Path | None = None,
    after_epoch: AfterEpoch | None = None,
    progress: bool = True,
    places: Sequence[str] = (),
) -> MoCo:
    """Train MoCo on the images of `source` and leave checkpoint.pt and log.csv in the run folder.

    `source` is a store, tar shards or files (`lab.data.images.open_images`), or a list of paths. A run that was stopped
    goes on after its last whole epoch. `init` is a checkpoint, a run folder or "shipped". `after_epoch(model, epoch)` is
    called before the first epoch and after every `probe_every`-th and the last; what it returns goes into the log. With
    `places`, paths of pictures without a person, the images are cut-outs whose alpha is the person, and views show the
    person elsewhere (`Views`). Raises InputError for too few images, unreadable ones, useless weights and a loss that is
    not finite (the last whole epoch's checkpoint stays).
    """
    device = pick_device(config.device)
    _check(config, len(source))
    torch.manual_seed(config.seed)
    model = MoCo(config.depth, config.dim, config.queue_size, config.key_momentum, config.temperature, config.bn_groups)
    if init is not None:
        _start_from(model, init, progress)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    crops = Crops(source, to_tensor, read=partial(read_image, cut_out=True) if len(places) else decode)
    view = Views(config.height, config.width, config.augmentation, places=_read_places(places, config))
    steps_per_epoch = len(crops) // config.batch_size
    first_epoch, step = _resume(run, model, optimizer)
    probe: dict[str, float] = after_epoch(model, first_epoch) if after_epoch else {}
    if step == 0 and probe:
        run.append_log(dict.fromkeys(LOG_COLUMNS, math.nan) | {"step": 0, "epoch": 0} | probe)
    total = config.epochs * steps_per_epoch
    with tqdm(total=total, initial=step, unit="step", disable=not progress, desc="pre-training") as bar:
        for epoch in range(first_epoch, config.epochs):
            # numbers of its own for each epoch, so that a continued run draws what an unbroken one would
            torch.manual_seed(config.seed * 1_000_003 + epoch)
            model.train()
            started = time.monotonic()
            for position, (images, sizes) in enumerate(_batches(crops, config, device)):
                lr = learning_rate(epoch, position / steps_per_epoch, config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                images = images.to(device, non_blocking=True)
                view_q, view_k = view(images, sizes), view(images, sizes)
                with autocast(device, config.amp):
                    contrast = model(view_q, view_k)
                loss = contrast.loss
                if not torch.isfinite(loss):
                    raise _not_finite(f"the loss is {loss.item()}", step + 1, run)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

                step += 1
                bar.update()
                last = position + 1 == steps_per_epoch
                if last or step % config.log_every == 0:
                    speed = (position + 1) * config.batch_size / (time.monotonic() - started)
                    row = _row(step, epoch, lr, contrast, config, speed)
                    due = last and ((epoch + 1) % config.probe_every == 0 or epoch + 1 == config.epochs)
                    measured = after_epoch(model, epoch + 1) if after_epoch and due else dict.fromkeys(probe, math.nan)
                    model.train()  # a probe leaves eval mode behind
                    run.append_log(row | measured)
                    bar.set_postfix(loss=f"{row['loss']:.3f}", accuracy=f"{row['accuracy']:.2f}")
            save(run, model, optimizer, step, epoch + 1, config)
    return model


def make_optimizer(model: MoCo, config: PretrainConfig) -> torch.optim.Optimizer:
    """The optimizer of encoder_q; encoder_k follows by its moving average."""
    parameters = model.encoder_q.parameters()
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, config.lr, momentum=config.sgd_momentum, weight_decay=config.weight_decay)


def learning_rate(epoch: int, within: float, config: PretrainConfig) -> float:
    """Cosine from lr to 0, one value per epoch as published; a linear warm-up, if any, moves with every step.

    `within` is the fraction of the epoch that is done.
    """
    if epoch + within < config.warmup_epochs:
        return config.lr * (epoch + within) / config.warmup_epochs
    return config.lr * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))


def save(
    run: Run, model: MoCo, optimizer: torch.optim.Optimizer, step: int, epoch: int, config: PretrainConfig
) -> None:
    """Write checkpoint.pt; until the new file is whole on disk, the old one stays."""
    if not all(torch.isfinite(parameter).all() for parameter in model.encoder_q.parameters()):
        raise _not_finite("a weight is no longer finite", step, run)
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": None,  # bfloat16 needs none
        "queue": model.queue,
        "queue_ptr": model.queue_ptr,
        "step": step,
        "epoch": epoch,
        "rng": {"torch": torch.get_rng_state()},
        "config": asdict(config),
    }
    with replacing(run.checkpoint) as temporary:
        torch.save(content, temporary)


def load(path: str | Path) -> MoCo:
    """The model in a pre-training run's checkpoint.pt or in a raw published checkpoint, ready to `embed`.

    Raises InputError for anything else.
    """
    file = resolve_weights(path)
    content = read_weights(file)
    if "queue_size" not in identify(content).config:
        return from_official(unwrap(content), str(file)).eval()
    config = PretrainConfig(**content["config"])
    model = MoCo(config.depth, config.dim, config.queue_size, config.key_momentum, config.temperature, config.bn_groups)
    model.load_state_dict(content["model"])
    return model.eval()


def _check(config: PretrainConfig, count: int) -> None:
    if count < config.batch_size:
        raise InputError(
            f"{count} images are fewer than one batch of {config.batch_size}; give more or a smaller --batch-size"
        )
    if config.batch_size % config.bn_groups or config.batch_size // config.bn_groups < 2:
        raise InputError(
            f"a batch of {config.batch_size} cannot be split into {config.bn_groups} equal groups of at least 2; "
            "change --batch-size or --bn-groups"
        )


def _start_from(model: MoCo, init: str | Path, progress: bool) -> None:
    """Trunk weights into both encoders; the projection head too when the file has one of the same shape."""
    report = load_trunk(model, init)
    if progress:
        print(report)
    state = unwrap(read_weights(resolve_weights(init)))
    head = {key: value for key, value in state.items() if key.startswith(("encoder_q.fc.", "encoder_k.fc."))}
    own = model.state_dict()
    if head and all(key in own and own[key].shape == value.shape for key, value in head.items()):
        model.load_state_dict(own | head)


def _resume(run: Run, model: MoCo, optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    """Go on from checkpoint.pt if there is one: (first epoch to do, steps done)."""
    if not run.checkpoint.exists():
        run.trim_log(-1)
        return 0, 0
    content = read_weights(run.checkpoint)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    run.trim_log(content["step"])
    return content["epoch"], content["step"]


def _read_places(paths: Sequence[str], config: PretrainConfig) -> Tensor | None:
    """(N, 3, 2 h, 2 w) uint8: as a view shows a part of them, they are kept larger than a view."""
    if not len(paths):
        return None
    size = 2 * config.height, 2 * config.width
    places = Crops(paths, lambda image: to_tensor(resize(image, *size)), replace=False)
    return torch.stack([places[index][0] for index in range(len(places))])


def _batches(crops: Crops, config: PretrainConfig, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, without the last few crops that fill no batch."""
    steps = len(crops) // config.batch_size
    # one row per batch: as Python lists the order of four million crops would take five times the memory
    order = torch.randperm(len(crops))[: steps * config.batch_size].reshape(steps, config.batch_size).numpy()
    loader = DataLoader(
        crops,
        batch_sampler=order,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
        collate_fn=_batch,
    )
    try:
        yield from loader
    except InputError as error:  # a worker's comes with its traceback, at the end of which is the sentence
        raise InputError(str(error).rstrip().rpartition("InputError: ")[2]) from error


def _batch(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return pad_together([image for image, _ in items])


def _not_finite(what: str, step: int, run: Run) -> InputError:
    kept = f"the last good checkpoint is {run.checkpoint}" if run.checkpoint.exists() else "no epoch was finished yet"
    return InputError(f"{what} at step {step}, and training cannot go on; {kept}; use a smaller --lr")


def _row(step: int, epoch: int, lr: float, contrast: Contrast, config: PretrainConfig, speed: float) -> dict:
    q = contrast.q.detach()
    return {
        "step": step,
        "epoch": epoch + 1,
        "lr": lr,
        "loss": contrast.loss.item(),
        "accuracy": contrast.accuracy.item(),
        "batch_accuracy": contrast.batch_accuracy.item(),
        "chance_loss": math.log(config.queue_size + 1),
        # 1 when the projections fill the sphere evenly, 0 when all are the same (collapse)
        "feature_std": float(q.std(0).mean() * math.sqrt(q.shape[1])),
        "images_per_second": speed,
    }
