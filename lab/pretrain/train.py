"""Pre-training: one loop over unlabelled crops (paper, section 4).

Every image becomes two views, MoCo tells its own second view from a queue of others, and the trunk that comes out is
what fine-tuning starts from. Stages meet on disk: this one leaves `checkpoint.pt` in its run folder.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lab.backbone import load_trunk, pick_device
from lab.batch_norm import statistics_kept
from lab.data.crops import Crops, resize
from lab.data.images import ImageSource
from lab.data.jpeg import decode, read_image
from lab.distributed import as_first, check_parts, is_first, parallel, postponed, rank, world_size
from lab.errors import InputError
from lab.pretrain.augment import Views, finish
from lab.pretrain.batches import ViewBatch, ViewBatches, requests
from lab.pretrain.moco import MoCo, batch_accuracy, from_official
from lab.runs import Run
from lab.training.health import Health, Meter, alignment, uniformity
from lab.training.loading import load_batches, to_device
from lab.training.precision import Precision
from lab.training.profile import section
from lab.training.session import HOW, Session, check_settings
from lab.weights import identify, read_weights, resolve_weights, unwrap

MEASURED = ("loss", "accuracy", "batch_accuracy")  # at every step; log.csv has their means since the row before
LOG_COLUMNS = ("step", "epoch", "lr", *MEASURED, "chance_loss", "feature_std", "alignment", "uniformity",
               "images_per_second")  # fmt: skip
ADVICE = "raise --accumulate (with more --bn-groups), which goes through a batch in parts, or lower --batch-size"
AfterEpoch = Callable[[nn.Module, int], dict[str, float]]


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of pre-training; the defaults are LUPerson's (released run_moco.sh; paper, section 4)."""

    depth: int = 50  # ResNet-18, 34, 50, 101 or 152
    height: int = 256  # pixels of a view
    width: int = 128  # pixels of a view
    augmentation: str = (
        "luperson"  # or luperson-erase, moco, moco+erase, … ; whole for short runs (lab/pretrain/augment.py)
    )
    dim: int = 128  # size of the projection
    queue_size: int = 65536  # keys of earlier batches to tell the own key from
    key_momentum: float = 0.999  # share of the old key encoder that a step keeps
    temperature: float = 0.1  # divides the cosine similarities (the released scripts' value)
    batch_size: int = 2560  # images per step of the whole job, two views each
    bn_groups: int = 8  # parts of a batch with batch-norm statistics of their own; published: 8 GPUs
    accumulate: int = 1  # go through a process's share of a batch in so many parts, to need less memory; same result
    epochs: int = 200  # passes over the images
    optimizer: Literal["sgd", "adamw"] = "sgd"  # published: sgd; adamw gets further in a few thousand steps
    lr: float = 0.3  # learning rate for this batch size, used as it is
    warmup_epochs: float = 0.0  # epochs of linear warm-up from 0 to lr; published: none
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0
    num_workers: int = 8  # processes that read crops; 0 does it in the training process
    device: str = "auto"  # auto, cpu or cuda
    amp: str = "auto"  # auto, bfloat16, float16 or off; auto uses bfloat16 where the hardware has it
    compile: bool = False  # torch.compile the encoders: the first step takes a minute, what it gains depends
    deterministic: bool = False  # on a GPU: equal runs to the last bit, at some cost; a CPU does that anyway
    log_every: int = 20  # steps between rows of log.csv
    tensorboard: bool = False  # the same rows for TensorBoard, in the run folder's tensorboard/
    profile: bool = False  # trace steps 5 to 12 and print where their time goes
    probe_every: int = 10  # epochs between retrieval probes, when a labelled data set is given
    checkpoint_minutes: float = 5.0  # between checkpoints; there is one at the end in any case
    keep: int = 1  # older checkpoints that are kept beside the latest one

    HOW: ClassVar[frozenset[str]] = HOW

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
    goes on after its last checkpoint, exactly as if it had not been. `init` is a checkpoint, a run folder or "shipped".
    `after_epoch(model, epoch)` is called before the first epoch and after every `probe_every`-th and the last; what it
    returns goes into the log. With `places`, paths of pictures without a person, the images are cut-outs whose alpha is
    the person, and views show the person elsewhere. Started by torchrun, the processes share each batch. Raises
    InputError for too few images, unreadable ones, useless weights, a run that another process is training, and a loss
    that is not finite or explodes (the last good checkpoint stays); Stopped after SIGTERM, when everything is saved.
    """
    device = pick_device(config.device)
    _check(config, len(source))
    images = _view_batches(source, config, places)
    steps_per_epoch = len(source) // config.batch_size
    steps = config.epochs * steps_per_epoch
    meter = Meter(run, MEASURED, config.batch_size)
    health = Health(run, keys_in_batch=config.batch_size // world_size())
    with Session(run, config, device, meter, health, ADVICE) as session:
        model = _start(config, init if session.found is None else None, progress).to(
            device, memory_format=torch.channels_last
        )
        optimizer = make_optimizer(model, config)
        precision = Precision(device, config.amp)
        first = session.restore(model, optimizer, precision, steps)
        encode = parallel(model.encoder_q)
        if first == 0 and after_epoch:
            nothing = dict.fromkeys(LOG_COLUMNS, math.nan)
            session.write(nothing | {"step": 0, "epoch": 0} | after_epoch(as_first(model), 0))
        unmeasured = dict.fromkeys((name for name in run.log() if name not in LOG_COLUMNS), math.nan)
        model.train()
        wanted = requests(len(source), config.batch_size, config.seed, first, steps)
        batches = to_device(load_batches(images, wanted, config.num_workers, device), device)
        with tqdm(total=steps, initial=first, unit="step", disable=not (progress and is_first())) as bar:
            for step, batch in enumerate(session.each(batches), first):
                epoch, position = divmod(step, steps_per_epoch)
                lr = learning_rate(epoch, position / steps_per_epoch, config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                q, k, measures = _step(model, encode, batch, config, precision)
                with section("optimizer"):
                    precision.step(optimizer)

                done, ends = step + 1, position + 1 == steps_per_epoch
                meter.add(*measures)
                if ends or done % config.log_every == 0:
                    row = _row(done, epoch + 1, lr, q, k, config) | meter.read(done) | unmeasured
                    if after_epoch and ends and ((epoch + 1) % config.probe_every == 0 or done == steps):
                        with meter.pause():
                            row |= after_epoch(as_first(model), epoch + 1)
                        model.train()  # a probe leaves eval mode behind
                    session.write(row, bar)
                    bar.set_postfix(loss=f"{row['loss']:.3f}", accuracy=f"{row['accuracy']:.2f}")
                bar.update()
                # queue and pointer are in the model too, and stand beside it for who looks for them
                more = {"queue": model.queue, "queue_ptr": model.queue_ptr, "config": asdict(config)}
                state = partial(session.state, model, optimizer, precision, done, epoch + ends, more)
                session.end_step(done, state, last=done == steps)
    return as_first(model)


def _step(
    model: MoCo, encode: Callable[[Tensor], Tensor], batch: ViewBatch, config: PretrainConfig, precision: Precision
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """One batch forward and backward: q, k (B, C) of this process and the values in MEASURED.

    In parts (`accumulate`) it does the same: keys come first, the queue moves on last, and batch norm goes by groups
    anyway, so that a part is some whole groups.
    """
    with section("views"):
        view_q, view_k = (
            finish(views, draws, model.pixel_mean)
            for views, draws in ((batch.view_q, batch.draws_q), (batch.view_k, batch.draws_k))
        )
    with section("keys"), precision.autocast():
        keys = model.encode_keys(view_k, batch.order)
    own = keys.chunk(world_size())[rank()]
    parts, groups = [], config.bn_groups // world_size() // config.accumulate
    for number, (view, k) in enumerate(zip(view_q.chunk(config.accumulate), own.chunk(config.accumulate), strict=True)):
        with postponed(encode, more_to_come=number + 1 < config.accumulate):
            # running statistics follow the first part of all, as in `in_groups`
            kept = statistics_kept(model.encoder_q) if number else nullcontext()
            with section("forward"), precision.autocast(), kept:
                contrast = model.contrast(view, k, groups, encode)
                loss = contrast.loss / config.accumulate
            with section("backward"):
                precision.scale(loss).backward()
        parts.append((contrast.q.detach(), loss.detach(), contrast.accuracy / config.accumulate))
    model.enqueue(keys)
    q = torch.cat([part[0] for part in parts])
    loss, accuracy = (sum(part[number] for part in parts) for number in (1, 2))
    return q, own, (loss, accuracy, batch_accuracy(q, own))


def make_optimizer(model: MoCo, config: PretrainConfig) -> torch.optim.Optimizer:
    """The optimizer of encoder_q; encoder_k follows by its moving average."""
    parameters = list(model.encoder_q.parameters())
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay, fused=True)
    momentum, decay = config.sgd_momentum, config.weight_decay
    optimizer = torch.optim.SGD(parameters, config.lr, momentum=momentum, weight_decay=decay, fused=True)
    for parameter in parameters if momentum else ():
        # torch's fused step leaves its first momentum unset if float16 overflows in it; from 0 the first step is the same
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def learning_rate(epoch: int, within: float, config: PretrainConfig) -> float:
    """Cosine from lr to 0, one value per epoch as published; a linear warm-up, if any, moves with every step.

    `within` is the fraction of the epoch that is done.
    """
    if epoch + within < config.warmup_epochs:
        return config.lr * (epoch + within) / config.warmup_epochs
    return config.lr * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))


def load(path: str | Path) -> MoCo:
    """The model in a pre-training run's checkpoint.pt or in a raw published checkpoint, ready to `embed`.

    Raises InputError for anything else.
    """
    file = resolve_weights(path)
    content = read_weights(file)
    if "queue_size" not in identify(content).config:
        return from_official(unwrap(content), str(file)).eval()
    known = {field.name for field in fields(PretrainConfig)}  # an older checkpoint may have settings that are gone
    config = PretrainConfig(**{name: value for name, value in content["config"].items() if name in known})
    model = MoCo(config.depth, config.dim, config.queue_size, config.key_momentum, config.temperature, config.bn_groups)
    model.load_state_dict(content["model"])
    return model.eval()


def _check(config: PretrainConfig, count: int) -> None:
    check_settings(config, "height", "width", "dim", "bn_groups", "probe_every")
    if count < config.batch_size:
        raise InputError(
            f"{count} images are fewer than one batch of {config.batch_size}; give more or a smaller --batch-size"
        )
    if config.queue_size < config.batch_size:
        raise InputError(
            f"a queue of {config.queue_size} keys cannot take a batch of {config.batch_size}; give a larger --queue-size"
        )
    if config.batch_size % config.bn_groups or config.batch_size // config.bn_groups < 2:
        raise InputError(
            f"a batch of {config.batch_size} cannot be split into {config.bn_groups} equal groups of at least 2; "
            "change --batch-size or --bn-groups"
        )
    check_parts(config.bn_groups, config.accumulate)


def _start(config: PretrainConfig, init: str | Path | None, progress: bool) -> MoCo:
    """A new model. `init` fills the trunks of both encoders, and the heads too when the file has one of the same shape."""
    torch.manual_seed(config.seed)
    model = MoCo(config.depth, config.dim, config.queue_size, config.key_momentum, config.temperature, config.bn_groups)
    if config.compile:
        model.encoder_q.compile()
        model.encoder_k.compile()
    if init is None:
        return model
    report = load_trunk(model, init)
    if progress and is_first():
        print(report)
    state = unwrap(read_weights(resolve_weights(init)))
    head = {key: value for key, value in state.items() if key.startswith(("encoder_q.fc.", "encoder_k.fc."))}
    own = model.state_dict()
    if head and all(key in own and own[key].shape == value.shape for key, value in head.items()):
        model.load_state_dict(own | head)
    return model


def _view_batches(source: ImageSource | Sequence[str], config: PretrainConfig, places: Sequence[str]) -> ViewBatches:
    """The images as batches of views; with places they are cut-outs, and the places stay in memory.

    As a view shows a part of a place, it is kept larger than a view.
    """
    size = 2 * config.height, 2 * config.width
    scenes = Crops(places, lambda image: np.asarray(resize(image, *size)), replace=False) if len(places) else ()
    pictures = [scenes[number][0] for number in range(len(scenes))]
    views = Views(config.height, config.width, config.augmentation, places=pictures)
    crops = Crops(source, np.asarray, read=partial(read_image, cut_out=True) if len(places) else decode)
    return ViewBatches(crops, views, config.seed, config.bn_groups > 1, rank(), world_size())


def _row(step: int, epoch: int, lr: float, q: Tensor, k: Tensor, config: PretrainConfig) -> dict:
    """What the last batch looks like on the sphere, beside the means that `Meter` keeps."""
    return {
        "step": step,
        "epoch": epoch,
        "lr": lr,
        **dict.fromkeys(MEASURED),
        "chance_loss": math.log(config.queue_size + 1),
        # 1 when the projections fill the sphere evenly, 0 when all are the same (collapse)
        "feature_std": float(q.std(0).mean() * math.sqrt(q.shape[1])),
        "alignment": float(alignment(q, k)),
        "uniformity": float(uniformity(q)),
    }
