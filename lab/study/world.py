"""What a study works on: a labelled data set, crops without labels by where they come from, and how both are trained.

    in-domain      the training images without their labels, and further crops of the same cameras
    other-domain   crops of other people under other cameras
    cut-outs       people of the same cameras cut out, to be put into other places (synthetic people alone can be)

At size tiny everything is small enough for minutes on two cores; at size paper the settings are LUPerson's.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from lab.data import ReidDataset, load
from lab.data.images import Files, ImageSource, Several, Some, open_images
from lab.data.readers import CLASSIC, DatasetName, list_images
from lab.data.synthetic import SyntheticConfig, write
from lab.data.synthetic.dataset import MARKER
from lab.errors import InputError
from lab.finetune.train import FinetuneConfig
from lab.pretrain.augment import COLUMNS
from lab.pretrain.train import PretrainConfig
from lab.study.designs import Cell, Start
from lab.weights import describe_init, resolve_weights

NAME = re.compile(r"\w[\w.+-]*")  # of a start, which is part of the names of folders
SYNTHETIC = {  # folder below data/ -> the people in it
    "people": SyntheticConfig(num_test_ids=120),
    "others": SyntheticConfig(seed=100, num_train_ids=1, num_test_ids=1, num_distractors=0, num_junk=0, num_unlabeled=4000,
                              people_unlabeled=1000),
    "cut-outs": SyntheticConfig(num_train_ids=1, num_test_ids=1, num_distractors=0, num_junk=0, num_unlabeled=4000,
                                people_unlabeled=1000, num_places=400),
}  # fmt: skip
WARMUP = 0.1  # tiny: share of a pre-training with rising learning rate


@dataclass(frozen=True)
class StudyConfig:
    """What a study trains on, and for how long."""

    dataset: DatasetName = "synthetic"  # layout of the labelled data set; synthetic people are drawn into OUT/data
    root: Path | None = None  # its folder; none: the synthetic people
    unlabeled: tuple[Path, ...] = ()  # further in-domain crops beside the training images: stores or folders
    other: tuple[Path, ...] = ()  # crops of another domain to pre-train on
    weights: tuple[str, ...] = ("shipped",)  # further starts: NAME=FILE, or a name such as lup-r50 or imagenet-r50
    size: Literal["tiny", "paper"] = "tiny"  # minutes on two cores, or LUPerson's settings
    seeds: int = 4  # trainings of each cell that a claim is about, pre-training included
    pretrain_steps: int = 150  # tiny: steps of each pre-training; size paper keeps the published 200 epochs
    finetune_epochs: int = 8  # tiny: passes over the labels, so that more labels mean more steps; paper: 60
    workers: int = 1  # processes that each do a cell at a time
    shard: str = "1/1"  # i/n does the i-th of n parts, as on one of n machines; their runs/ go together for the report
    keep_weights: bool = False  # keep checkpoints of fine-tunings: 140 MB each at size tiny

    def __post_init__(self):
        for name in ("seeds", "pretrain_steps", "finetune_epochs", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected 1 or more")
        if self.dataset == "synthetic" and (self.root or self.unlabeled or self.other):
            raise InputError(
                "the synthetic study draws its own people; leave out --root, --unlabeled and --other, or give --dataset"
            )
        if self.dataset in CLASSIC:
            raise InputError(f"--dataset is {self.dataset}, whose protocol is 20 splits; a study takes one: use cuhk03")
        if self.dataset != "synthetic" and self.root is None:
            raise InputError(f"--dataset is {self.dataset} and --root is missing; give the folder of the data set")
        self.part()

    def part(self) -> tuple[int, int]:
        """i (from 0) and n of --shard i/n."""
        words = self.shard.split("/")
        if len(words) != 2 or not all(word.isdigit() for word in words) or not 1 <= int(words[0]) <= int(words[1]):
            raise InputError(f"--shard is {self.shard}; expected i/n such as 1/4, with i from 1 to n")
        return int(words[0]) - 1, int(words[1])

    @property
    def domains(self) -> list[str]:
        """The kinds of crops that there are."""
        if self.dataset == "synthetic":
            return ["in-domain", "other-domain", "cut-outs"]
        return ["in-domain", "other-domain"] if self.other else ["in-domain"]

    def files(self) -> list[Start]:
        """The starting points that are weights in files. Raises InputError for one that is not there, and twice a name."""
        found = []
        for words in self.weights:
            name, _, file = words.rpartition("=")
            name, file = (name, file) if name else (Path(words).stem, words)
            resolve_weights(file)
            found.append(Start(name, weights=file))
        names = [start.name for start in found]
        own = [
            NAME.fullmatch(name) and not name.startswith(("scratch", "in-", "other-", "pretrain-")) for name in names
        ]
        if len(set(names)) < len(names) or not all(own):
            raise InputError(
                f"--weights are called {', '.join(names)}; give each a name of its own as NAME=FILE, of letters, digits, '.', "
                "'_', '+' and '-', that does not begin as the study's own starts do (scratch, in-, other-, pretrain-)"
            )
        return found

    def facts(self) -> dict:
        """What results depend on, as study.json keeps it: no paths, weights by name and digest."""
        files = self.files()
        return {
            "dataset": self.dataset,
            "domains": self.domains,
            "weights": [start.name for start in files],
            "weights_sha256": {start.name: describe_init(start.weights)["sha256"] for start in files},
            "size": self.size,
            "seeds": self.seeds,
            "pretrain_steps": self.pretrain_steps if self.size == "tiny" else None,
            "finetune_epochs": self.finetune_epochs if self.size == "tiny" else None,
        }


class World:
    """The data of a study in `folder`, read or drawn when it is first asked for, and the settings of each training."""

    def __init__(self, config: StudyConfig, folder: Path):
        self.config, self.folder = config, folder

    @cached_property
    def data(self) -> ReidDataset:
        """The labelled data set. Raises InputError."""
        if self.config.dataset == "synthetic":
            return load("synthetic", self.folder / "data" / "people")
        return load(self.config.dataset, self.config.root)

    def draw(self, workers: int) -> None:
        """Draw the synthetic people that are not there yet."""
        for name, people in SYNTHETIC.items() if self.config.dataset == "synthetic" else ():
            if not (self.folder / "data" / name / MARKER).is_file():
                print(f"drawing synthetic people: {name}", flush=True)
                write(self.folder / "data" / name, people, workers=workers)

    def check(self) -> None:
        """Open everything that the user named, before hours are spent. Raises InputError."""
        if self.config.dataset != "synthetic":
            for kind in self.config.domains:
                source, least = self._all_crops(kind), self.pretraining_base().batch_size
                if len(source) < least:
                    raise InputError(
                        f"there are {len(source)} {kind} crops; expected a batch of {least} or more: give more"
                    )

    def pretraining_base(self) -> PretrainConfig:
        """The settings of pre-training that all starts share."""
        return PretrainConfig() if self.config.size == "paper" else tiny_pretraining()

    def crops(self, start: Start, seed: int) -> ImageSource:
        """The crops that a pre-training takes: all of a kind, or a random share of them. Raises InputError."""
        source = self._all_crops(start.crops)
        if start.share == 1:
            return source
        kept = np.random.default_rng(seed).choice(len(source), max(1, round(start.share * len(source))), replace=False)
        return Some(source, np.sort(kept))

    def _all_crops(self, kind: str) -> ImageSource:
        if self.config.dataset == "synthetic":
            folder = self.folder / "data"
            if kind == "in-domain":
                return open_images(folder / "people" / "bounding_box_train", folder / "people" / "unlabeled")
            return open_images(folder / {"other-domain": "others", "cut-outs": "cut-outs"}[kind] / "unlabeled")
        if kind == "other-domain":
            return open_images(*self.config.other)
        return Several([Files(self.data.train.path), *map(open_images, self.config.unlabeled)])

    def places(self, kind: str) -> list[str]:
        """Pictures without a person that cut-outs are put into."""
        return list_images(self.folder / "data" / kind / "places") if kind == "cut-outs" else []

    def pretraining(self, cell: Cell, images: int) -> PretrainConfig:
        """Settings of the pre-training that a cell starts from, on so many images: as many steps for each share of them."""
        changes = dict(cell.start.changes)
        longer, rate, queue = (float(changes.pop(f"times_{name}", 1)) for name in ("steps", "lr", "queue"))
        base = self.pretraining_base()
        if self.config.size == "tiny" and changes.get("augmentation") in COLUMNS:
            changes["augmentation"] = f"whole-{changes['augmentation']}"
        config = replace(base, seed=cell.seed, lr=base.lr * rate, **changes)
        # no crop should meet itself in the queue, where it would count as somebody else
        queue = max(base.batch_size, min(int(base.queue_size * queue), images // 2))
        per_epoch = max(1, images // base.batch_size)
        steps = self.config.pretrain_steps * longer if self.config.size == "tiny" else base.epochs * longer * per_epoch
        epochs = max(1, round(steps / per_epoch))
        warmup = WARMUP * epochs if self.config.size == "tiny" else base.warmup_epochs
        return replace(config, queue_size=queue, epochs=epochs, warmup_epochs=warmup)

    def finetuning(self, cell: Cell) -> FinetuneConfig:
        """Settings of a cell's fine-tuning."""
        labels = {"fraction": cell.share, "fraction_of": cell.of, "seed": cell.seed}
        if self.config.size == "paper":
            return FinetuneConfig(**labels)
        return replace(tiny_finetuning(), epochs=self.config.finetune_epochs, **labels)


def tiny_pretraining() -> PretrainConfig:
    """Half the batch of tiny on small views, so that a minute holds more steps."""
    small = {"height": 64, "width": 32, "batch_size": 64, "log_every": 20}
    return replace(PretrainConfig.tiny(), **small)


def tiny_finetuning() -> FinetuneConfig:
    """Tiny on small crops, with half the published batch."""
    small = {"height": 64, "width": 32, "last_stride": 1, "padding": 3, "ids_per_batch": 8, "images_per_id": 4}
    return replace(FinetuneConfig.tiny(), **small)
