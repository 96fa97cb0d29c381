"""The evaluation stage: features in, a result in the run folder out.

* `features/<dataset>-{query,gallery}.npz` are made here and used again while crops and weights are the same; for
  multi-query with Market-1501's gt_bbox/ there is a third part, `multi`;
* `features/<dataset>-{query,gallery}.json` are notes of what they were made from, and while they are being made
  `features/<dataset>-….partial.*` lets a killed evaluation go on where it was;
* `eval/<dataset>[-aqe][-rerank]/` is the result, replaced as a whole.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from lab.backbone import Embedder, pick_device
from lab.data.readers.market import multi_query_crops
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError
from lab.evaluate.expansion import check_expansion, query_expansion
from lab.evaluate.features import Embed, PartialFile, Rows, colour_histogram, extract, hash_crops, read_note
from lab.evaluate.metrics import check_features, check_matches, check_names, evaluate_ranking
from lab.evaluate.multi_query import check_pooling, check_unit_length, count_crops, is_asked_for, multi_query
from lab.evaluate.rerank import check_parameters, rerank_blocks
from lab.evaluate.single_shot import check_shots
from lab.runs import EvalResult, Features, Run, write_json
from lab.weights import weights_digest

BASELINES = ("histogram", "untrained")
NAMED = 20  # queries without a match that a result names
LATER = ("flip", "multi_query")  # not done in a result that does not say: it is from before these settings existed


@dataclass(frozen=True)
class EvaluateConfig:
    """How to evaluate; the defaults are the published protocol."""

    distance: Literal["cosine", "euclidean"] = "cosine"  # or euclidean (squared, on the features as they are)
    ap: Literal["step", "trapezoid"] = "step"  # mean precision at each hit, as published; or trapezoid
    denominator: Literal["valid", "all"] = "valid"  # means go over queries with a match, or over all (as in lup_moco)
    # CMC of the whole gallery, or of one random crop per person in it; auto: as the data set's protocol has it, which is
    # single for the classic CUHK03 and all for the others
    gallery_shot: Literal["auto", "all", "single"] = "auto"
    repeats: int = 10  # single: draws that the CMC is the mean of, 10 as published for the classic CUHK03
    seed: int = 0  # single: of the draws
    flip: bool = False  # flip test: features of crop and mirrored crop are added; the published protocol has none
    # multi-query: all crops of the query's person under its camera are pooled, by mean or max
    multi_query: Literal["off", "mean", "max"] = "off"
    expand: bool = False  # query expansion of the features, before anything else
    expand_k: int = 5  # query expansion: nearest crops that are averaged, the crop itself included
    expand_alpha: float = 3.0  # query expansion: each counts with cosine ** alpha; 0 counts all alike
    expand_times: int = 1  # query expansion: rounds
    rerank: bool = False  # k-reciprocal re-ranking (Zhong et al., 2017); starts from its variant's own distance
    variant: Literal["luperson", "euclidean", "torchreid", "jaccard"] = "luperson"  # re-ranking: as which program
    k1: int = 20  # re-ranking: neighbours that make a neighbourhood
    k2: int = 6  # re-ranking: encodings that are averaged
    lambda_value: float = 0.3  # re-ranking: share of the original distance, 0..1
    height: int | None = None  # of the crops in pixels; None: as the run was trained
    width: int | None = None
    batch_size: int = 64  # crops that are embedded at a time
    num_workers: int = 2  # processes that read crops
    amp: Literal["off", "auto", "bfloat16", "float16"] = "off"  # mixed precision for the features; float16: on CUDA
    device: str = "auto"  # auto, cpu or cuda
    memory_gb: float = 0.25  # of distances held at a time

    def __post_init__(self):
        check_names(self.distance, self.ap, self.denominator, decide_shot(self.gallery_shot))
        check_shots(self.repeats, self.seed)
        if self.multi_query != "off":
            check_pooling(self.multi_query)
        check_expansion(self.expand_k, self.expand_alpha, self.expand_times)
        check_parameters(self.variant, self.k1, self.k2, self.lambda_value)


def evaluate_run(
    run: Run,
    embed: Embed | nn.Module,
    dataset: ReidDataset,
    config: EvaluateConfig | None = None,
    progress: bool = True,
    digest: str | None = None,
) -> EvalResult:
    """Extract (or reuse) the features of query and gallery, rank, and write eval/<dataset>[-aqe][-rerank]/.

    `embed` is a model with `embed(images)` or such a function. Features are used again only if crops, image size and
    the run's checkpoint are the same; a run without a checkpoint is always embedded anew, unless `digest` says which
    weights `embed` has.
    """
    config, splits, dropped, facts = _prepare(run, dataset, config, digest)
    check_matches(splits["query"], splits["gallery"])
    features = {}
    for part, split in splits.items():
        features[part] = _features(run, embed, split, f"{dataset.name}-{part}", facts["checkpoint"], config, progress)
    parts = features["query"], features["gallery"], features.get("multi")
    return _evaluate(run, dataset.name, *parts, config, facts, dropped, progress)


def stored_result(
    run: Run, dataset: ReidDataset, config: EvaluateConfig | None = None, digest: str | None = None
) -> EvalResult | None:
    """The run's result that `evaluate_run` would write once more: same weights, crops and settings; None without one."""
    config, _, _, facts = _prepare(run, dataset, config, digest)
    wanted = facts | protocol(config)
    name = eval_name(dataset.name, wanted)
    stored = (read_note(run.folder / "eval" / name / "result.json") or {}).get("settings", {})
    if facts["checkpoint"] is None or any(key not in stored or stored[key] != wanted[key] for key in wanted):
        return None
    try:
        return run.result(name)
    except InputError:
        return None  # a folder that is not whole is written anew


def _prepare(
    run: Run, dataset: ReidDataset, config: EvaluateConfig | None, digest: str | None
) -> tuple[EvaluateConfig, dict[str, Split], dict[str, int], dict]:
    """Settings without anything open, the crops of query and gallery, junk left out, and what features depend on."""
    config = config or EvaluateConfig()
    shot = decide_shot(config.gallery_shot, dataset.single_shot)
    config = replace(config, height=_size(run, config, "height"), width=_size(run, config, "width"), gallery_shot=shot)
    splits, dropped = {}, {}
    for part in ("query", "gallery"):
        splits[part], dropped[part] = _drop_junk(getattr(dataset, part), part)
    checkpoint = weights_digest(run.checkpoint) if run.checkpoint.is_file() else digest
    root = os.path.commonpath([*dataset.query.path, *dataset.gallery.path])
    splits |= _boxes(dataset, Path(root), splits["query"], config)
    facts = {
        "dataset": dataset.name,
        "root": root,
        "model": run.config.get("stage"),
        "checkpoint": checkpoint,
        "crops": {part: _source(split, checkpoint, config)["crops"] for part, split in splits.items()},
        "height": config.height,
        "width": config.width,
        "amp": config.amp,
    }
    return config, splits, dropped, facts


def _boxes(dataset: ReidDataset, root: Path, query: Split, config: EvaluateConfig) -> dict[str, Split]:
    """The crops that Market-1501 has for multi-query, as the part "multi", if they are wanted and there."""
    market = config.multi_query != "off" and dataset.name.startswith("market1501")
    boxes = multi_query_crops(root) if market else None
    if boxes is None:
        return {}
    wanted = boxes.take(is_asked_for(boxes, query))
    if not len(wanted):
        raise InputError(
            f"{root / 'gt_bbox'} holds {len(boxes)} crops and none shows a query's person under its camera; expected "
            "Market-1501's own gt_bbox/: replace the folder, or take it away to pool query and gallery crops"
        )
    return {"multi": wanted}


def evaluate_baseline(
    run: Run,
    baseline: str,
    dataset: ReidDataset,
    config: EvaluateConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> EvalResult:
    """Evaluate what any training has to beat: "histogram" (colours of six stripes) or "untrained" (random weights).

    The run folder is started with stage "baseline" if it is new; crops are 128 x 64 pixels unless `config` says
    otherwise. `seed` is that of the random weights of a ResNet-18.
    """
    if baseline not in BASELINES:
        raise InputError(f"there is no baseline '{baseline}'; choose one of {', '.join(BASELINES)}")
    config = config or EvaluateConfig()
    config = replace(config, height=config.height or 128, width=config.width or 64)
    settings = {"baseline": baseline, "height": config.height, "width": config.width, "seed": seed}
    run = Run.create(run.folder, "baseline", settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embed = colour_histogram if baseline == "histogram" else Embedder(18)
    return evaluate_run(run, embed, dataset, config, progress)


def evaluate_features(
    run: Run,
    name: str,
    query: Features,
    gallery: Features,
    config: EvaluateConfig | None = None,
    facts: dict | None = None,
    progress: bool = True,
) -> EvalResult:
    """Evaluate features that lie ready and write eval/<name>[-aqe][-rerank]/; junk (pid -1) is dropped and counted.

    A new run folder is started with stage "features"; in a run that exists the result joins the others. `facts` are
    more entries for the result's settings, such as the files' names.
    """
    config = config or EvaluateConfig()
    if config.flip:
        raise InputError("the flip test is made when features are, and these lie ready; leave flip out")
    query, junk_query = _drop_junk(query, "query")
    gallery, junk_gallery = _drop_junk(gallery, "gallery")
    check_features(query, gallery)
    if not run.config and not run.evals():
        run = Run.create(run.folder, "features", config)
    facts = {"dataset": name, "model": run.config.get("stage"), **(facts or {})}
    dropped = {"query": junk_query, "gallery": junk_gallery}
    return _evaluate(run, name, query, gallery, None, config, facts, dropped, progress)


def decide_shot(gallery_shot: str, single_shot: bool = False) -> str:
    """What "auto" means on a data set whose protocol is single-gallery-shot, or is not; other words stay."""
    return gallery_shot if gallery_shot != "auto" else "single" if single_shot else "all"


def eval_name(dataset: str, settings: dict) -> str:
    """What a result with these settings is called in eval/: the data set's name, and how its ranking was improved."""
    return dataset + ("-aqe" if settings.get("expand") else "") + ("-rerank" if settings.get("rerank") else "")


def _evaluate(
    run: Run,
    name: str,
    query: Features,
    gallery: Features,
    extra: Features | None,
    config: EvaluateConfig,
    facts: dict,
    dropped: dict[str, int],
    progress: bool,
) -> EvalResult:
    device, blocks = pick_device(config.device), None
    if config.multi_query != "off":
        query, pooled = _pool(query, extra, gallery, config)
        facts = facts | pooled
    if config.expand:
        query, gallery = _expand(query, gallery, config, device, progress)
    if config.rerank:
        blocks = rerank_blocks(
            query.values,
            gallery.values,
            variant=config.variant,
            k1=config.k1,
            k2=config.k2,
            lambda_value=config.lambda_value,
            memory_gb=config.memory_gb,
            device=device,
            progress=progress,
        )
    result = evaluate_ranking(
        query,
        gallery,
        distance=config.distance,
        ap=config.ap,
        blocks=blocks,
        memory_gb=config.memory_gb,
        device=device,
        progress=progress,
        denominator=config.denominator,
        gallery_shot=decide_shot(config.gallery_shot),
        repeats=config.repeats,
        seed=config.seed,
    )
    lonely = np.flatnonzero(result.first_match == 0)
    settings = {
        **facts,
        **protocol(config),
        "removed": "same pid and same camid as the query",
        "junk_dropped": dropped,
        "queries_without_match": len(lonely),
        "queries_without_match_named": [str(query.path[i]) or f"row {i}" for i in lonely[:NAMED]],
        "torch": torch.__version__,
        "device": device.type,
    }
    result = replace(result, settings=settings)
    kept = set_aside(run, eval_name(name, settings), protocol(config))
    if kept and progress:
        print(f"the earlier result, which was ranked or averaged in another way, is kept as {kept}")
    run.save_result(eval_name(name, settings), result)
    return result


def set_aside(run: Run, name: str, settings: dict) -> str | None:
    """Rename an earlier result `name` whose protocol is another one, so that a new one does not replace it.

    The new name says in what it was other, such as market1501-ap_trapezoid; returns it, or None.
    """
    file = run.folder / "eval" / name / "result.json"
    before = (read_note(file) or {}).get("settings", {})
    other = _differences(dict.fromkeys(LATER) | before if before else {}, settings)
    if not other:
        return None
    kept = f"{name}-{'-'.join(other)}"
    if (run.folder / "eval" / kept).exists():
        shutil.rmtree(run.folder / "eval" / kept)
    (run.folder / "eval" / name).rename(run.folder / "eval" / kept)
    return kept


def _differences(before: dict, now: dict) -> list[str]:
    """key_value of what was other before; keys that are missing there are from before they existed, or not ours."""
    found = []
    for key, value in now.items():
        if key not in before or before[key] == value:
            continue
        if isinstance(before[key], dict) and isinstance(value, dict):
            found += _differences(before[key], value)
        else:
            found.append(re.sub(r"[^\w.]+", "_", f"{key}_{before[key]}"))
    return found


def _pool(query: Features, extra: Features | None, gallery: Features, config: EvaluateConfig) -> tuple[Features, dict]:
    """The queries of multi-query, and what a result says about the crops that they were made of."""
    if config.distance == "euclidean" or config.rerank:
        check_unit_length(gallery)  # for the cosine distance lengths do not matter
    count = np.maximum(count_crops(query, extra, gallery), 1)
    crops = {"from": "query and gallery" if extra is None else "gt_bbox", "mean": float(count.mean())}
    pooled = multi_query(query, extra, gallery, config.multi_query)
    return pooled, {"multi_query_crops": crops | {"queries_of_one_crop": int((count == 1).sum())}}


def _expand(
    query: Features, gallery: Features, config: EvaluateConfig, device: torch.device, progress: bool
) -> tuple[Features, Features]:
    how = (config.expand_k, config.expand_alpha, config.expand_times)
    new_query, new_gallery = query_expansion(query.values, gallery.values, *how, device, progress)
    return replace(query, values=new_query), replace(gallery, values=new_gallery)


def protocol(config: EvaluateConfig) -> dict:
    """How it was ranked and averaged, as a result's settings say it; None for what was not done."""
    shot = decide_shot(config.gallery_shot)
    rerank = {"variant": config.variant, "k1": config.k1, "k2": config.k2, "lambda": config.lambda_value}
    expand = {"k": config.expand_k, "alpha": config.expand_alpha, "times": config.expand_times}
    return {
        "distance": None if config.rerank else config.distance,
        "ap": config.ap,
        "denominator": config.denominator,
        "gallery_shot": shot,
        "repeats": config.repeats if shot == "single" else None,
        "seed": config.seed if shot == "single" else None,
        "flip": config.flip or None,
        "multi_query": None if config.multi_query == "off" else config.multi_query,
        "expand": expand if config.expand else None,
        "rerank": rerank if config.rerank else None,
    }


def _drop_junk(crops: Split | Features, part: str) -> tuple[Split | Features, int]:
    """Leave out the crops that nobody can be found in (pid -1), and say how many they were."""
    junk = crops.pid == -1
    if len(junk) and junk.all():
        raise InputError(f"the {part} holds {len(junk)} crops, all of them junk (pid -1); expected people")
    if not junk.any():
        return crops, 0
    keep = ~junk
    if isinstance(crops, Split):
        return crops.take(keep), int(junk.sum())
    kept = Features(crops.values[keep], crops.pid[keep], crops.camid[keep], crops.path[keep])
    return kept, int(junk.sum())


def _size(run: Run, config: EvaluateConfig, name: str) -> int:
    value = getattr(config, name) or run.config.get("settings", {}).get(name)
    if not value:
        raise InputError(f"{run.folder} does not say the {name} of its images; give --height and --width in pixels")
    return int(value)


def _features(
    run: Run,
    embed: Embed | nn.Module,
    split: Split,
    name: str,
    checkpoint: str | None,
    config: EvaluateConfig,
    progress: bool,
) -> Features:
    """The features of a split: stored ones if their note says that they were made from the same, else new ones."""
    dataset, part = name.rsplit("-", 1)
    note = run.folder / "features" / f"{name}.json"
    source = _source(split, checkpoint, config)
    if checkpoint is not None and {"flip": False} | (read_note(note) or {}) == source:
        return run.features(dataset, part)
    size, device = (config.height, config.width), pick_device(config.device)
    how = (config.batch_size, config.num_workers, device, config.amp, progress, part, config.flip)
    partial = run.folder / "features" / name
    rows = Rows() if checkpoint is None else PartialFile(partial, {"checkpoint": checkpoint})
    found = extract(embed, split, *size, *how, rows)
    try:
        note.unlink(missing_ok=True)  # a note never lies beside features that it does not vouch for
        run.save_features(dataset, part, found)
        write_json(note, source)
        rows.remove()
    except OSError as error:
        raise InputError(f"cannot write {note} ({error.strerror}); give a run folder that is writable") from error
    return run.features(dataset, part)  # large ones stay on disk


def _source(split: Split, checkpoint: str | None, config: EvaluateConfig) -> dict:
    """What features depend on. Crops are told apart by path, size and time, people and cameras by their numbers."""
    digest = hash_crops(hashlib.sha256(), split.path)
    digest.update(split.pid.tobytes() + split.camid.tobytes())
    size = {"height": config.height, "width": config.width}
    return {"checkpoint": checkpoint, "crops": digest.hexdigest(), **size, "amp": config.amp, "flip": config.flip}
