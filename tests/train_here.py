"""Run by torchrun: a short pre-training and a short fine-tuning, and every process's state in OUT/<stage>-<rank>.pt.

torchrun --nproc-per-node 2 tests/train_here.py CROPS MARKET OUT '{"accumulate": 1}'
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lab.data.readers import list_images
from lab.data.readers import load as load_dataset
from lab.distributed import first_process_first, processes, rank
from lab.finetune.train import FinetuneConfig, finetune
from lab.pretrain.train import PretrainConfig, pretrain
from lab.runs import Run

PRETRAIN = replace(
    PretrainConfig.tiny(), height=32, width=16, dim=8, queue_size=160, batch_size=64, bn_groups=2, epochs=2, lr=0.02,
    key_momentum=0.9, log_every=1, num_workers=0, device="cpu", amp="off", warmup_epochs=0.0,
)  # fmt: skip
FINETUNE = replace(
    FinetuneConfig.tiny(), last_stride=1, height=48, width=24, epochs=1, steps_per_epoch=5, ids_per_batch=4, images_per_id=4,
    bn_groups=2, padding=3, log_every=1, device="cpu", amp="off", lr=1e-4, warmup=0.0,
)  # fmt: skip


def train(crops: Path, market: Path, out: Path, changes: dict) -> None:
    """Both stages in this process or, under torchrun, in all of them.

    From the shipped trunk: gradients of an untrained one depend on the order of additions in their third digit.
    """
    torch.set_num_threads(1)
    for stage, config in (("pretrain", PRETRAIN), ("finetune", FINETUNE)):
        config = replace(config, **changes.get(stage, {}))
        with first_process_first():
            run = Run.create(out / stage, stage, config)
        if stage == "pretrain":
            model = pretrain(
                run,
                list_images(crops),
                config,
                init="shipped",
                progress=False,
                after_epoch=lambda model, epoch: {"epoch_": epoch},
            )
        else:
            model = finetune(
                run, load_dataset("market1501", market).train, config, init=out / "pretrain", progress=False
            )
        torch.save(model.state_dict(), out / f"{stage}-{rank()}.pt")


if __name__ == "__main__":
    with processes():
        train(*map(Path, sys.argv[1:4]), json.loads(sys.argv[4]))
