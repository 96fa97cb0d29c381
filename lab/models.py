"""Any weights as a model that embeds: runs, released files, trunks, and the words for weights."""

from pathlib import Path

from torch import nn

from lab.backbone import Embedder, load_trunk
from lab.errors import InputError
from lab.finetune.mgn import MGN, from_official
from lab.finetune.train import FinetuneConfig
from lab.finetune.train import load as load_mgn
from lab.pixels import shown_statistics
from lab.pretrain.train import PretrainConfig
from lab.pretrain.train import load as load_moco
from lab.runs import Run
from lab.weights import SHIPPED, identify, read_weights, resolve_weights

SHIPPED_SIZE = {"height": 64, "width": 32}  # pixels of the views that it was pre-trained on (its model card)


def load_model(run: Run) -> nn.Module:
    """The model in a run's checkpoint, by the stage that wrote it; it has `embed(images)`."""
    loaders = {"pretrain": load_moco, "finetune": load_mgn}
    stage = run.config.get("stage")
    if stage not in loaders:
        raise InputError(
            f"{run.folder} holds stage '{stage}' and no model; expected a run of pretrain or finetune, or "
            "for weights from elsewhere --weights FILE with --out"
        )
    return loaders[stage](run.folder)


def load_descriptor(source: str) -> tuple[nn.Module, dict]:
    """A model with `embed(images)`, and the settings it was trained with as far as its file says them.

    `source` is a run folder, a fine-tuned MGN file (released or own), a file with a trunk, or a word of
    `resolve_weights`.
    """
    if Path(source).is_dir():
        run = Run.open(source)
        return load_model(run), run.config["settings"]
    file = resolve_weights(source)
    content = read_weights(file)
    given = identify(content)
    settings = SHIPPED_SIZE if source == SHIPPED else given.config
    if given.kind == "mgn":
        return from_official(given.state, settings.get("last_stride", 1), str(file)).eval(), settings
    model = Embedder(given.depth or 50)
    print(load_trunk(model, content, str(file)))
    print(shown_statistics(model))
    return model, settings


def image_size(source: str, model: nn.Module, settings: dict) -> tuple[int, int]:
    """Height and width in pixels that weights were trained at: their own settings, else the published recipe's."""
    if "height" in settings and "width" in settings:
        return settings["height"], settings["width"]
    if not any(".conv3." in key for key in model.state_dict()):
        raise InputError(
            f"{source} does not say at which image size it was trained, and none is published for a ResNet-18 or 34; "
            "give --height and --width"
        )
    published = FinetuneConfig() if isinstance(model, MGN) else PretrainConfig()
    return published.height, published.width
