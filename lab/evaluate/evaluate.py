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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lab.backbone import Embedder, pick_device
from lab.data.readers.market import multi_query_crops
from lab.data.splits import ReidDataset, Split
from lab.distributed import first_process_first, is_first, wait
from lab.errors import InputError
from lab.evaluate.approximate import approximate_search, report
from lab.evaluate.camera_pairs import FILE as CAMERAS
from lab.evaluate.camera_pairs import camera_pairs
from lab.evaluate.error_rates import Verification
from lab.evaluate.expansion import query_expansion
from lab.evaluate.features import Embed, colour_histogram
from lab.evaluate.metrics import check_features, check_matches, evaluate_ranking
from lab.evaluate.multi_query import check_unit_length, count_crops, is_asked_for, multi_query
from lab.evaluate.partial import read_note
from lab.evaluate.rerank import largest_reranked, rerank_blocks
from lab.evaluate.settings import EvaluateConfig, decide_shot, eval_name, protocol
from lab.evaluate.stored import carry_over, features_of, set_aside, source_of
from lab.evaluate.verification import PairCounter, verify
from lab.runs import EvalResult, Features, Run
from lab.weights import weights_digest

BASELINES = ("histogram", "untrained")
SAMPLE = 4096  # rows that features are told apart by
NAMED = 20  # queries without a match that a result names
PAIRS = "verification.npz"


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
        features[part] = features_of(run, embed, split, f"{dataset.name}-{part}", facts["checkpoint"], config, progress)
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
    asked = [CAMERAS] * config.cameras + [PAIRS] * config.verification
    if not all((run.folder / "eval" / name / file).is_file() for file in asked):
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
        "crops": {part: source_of(split, checkpoint, config)["crops"] for part, split in splits.items()},
        "height": config.height,
        "width": config.width,
        "amp": config.amp,
    }
    return config, splits, dropped, facts


def _boxes(dataset: ReidDataset, root: Path, query: Split, config: EvaluateConfig) -> dict[str, Split]:
    """The crops that Market-1501 has for multi-query, as the part "multi", if they are wanted and there."""
    market = config.multi_query != "off" and dataset.edition.startswith("market1501")
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
    with first_process_first():
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
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(("-rerank", "-aqe")):
        raise InputError(
            f"the evaluation's name is '{name}'; expected letters, digits, '.', '_' and '-', as in 'mine', and no "
            "-rerank or -aqe at its end, which the lab adds"
        )
    if config.flip:
        raise InputError("the flip test is made when features are, and these lie ready; leave flip out")
    query, junk_query = _drop_junk(query, "query")
    gallery, junk_gallery = _drop_junk(gallery, "gallery")
    check_features(query, gallery)
    with first_process_first():
        if not run.config and not run.evals():
            run = Run.create(run.folder, "features", config)
    facts = {"dataset": name, "model": run.config.get("stage"), "features": _digest(query, gallery), **(facts or {})}
    dropped = {"query": junk_query, "gallery": junk_gallery}
    return _evaluate(run, name, query, gallery, None, config, facts, dropped, progress)


def _digest(*parts: Features) -> str:
    """Tells feature sets apart: by their labels, and by some thousand rows."""
    digest = hashlib.sha256()
    for part in parts:
        rows = np.unique(np.linspace(0, len(part.pid) - 1, SAMPLE).astype(np.int64))
        values = np.ascontiguousarray(part.values[rows], dtype=np.float32)
        digest.update(str(part.values.shape).encode() + part.pid.tobytes() + part.camid.tobytes() + values.tobytes())
    return digest.hexdigest()[:12]


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
    device, progress = pick_device(config.device), progress and is_first()
    if config.multi_query != "off":
        query, pooled = _pool(query, extra, gallery, config)
        facts = facts | pooled
    if config.expand:
        query, gallery = _expand(query, gallery, config, device, progress)
    result, files = _rank(query, gallery, config, device, progress)
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
        "precision": config.precision,
        **result.settings,
    }
    result, target = replace(result, settings=settings), eval_name(name, settings)
    if is_first():
        kept = set_aside(run, target, protocol(config) | {key: facts[key] for key in ("features",) if key in facts})
        if kept and progress:
            print(f"the earlier result, of other features or ranked or averaged in another way, is kept as {kept}")
        keys = ("checkpoint", "crops", "features", "amp", "height", "width")
        source = {key: settings[key] for key in keys if key in settings}
        made = ["cameras.csv", "cameras.npz"] * config.cameras + [PAIRS] * config.verification
        files.append(carry_over(run, target, source | protocol(config), made))
        run.save_result(target, result, lambda folder: [write(folder) for write in files])
    wait()
    return result


def _rank(
    query: Features, gallery: Features, config: EvaluateConfig, device: torch.device, progress: bool
) -> tuple[EvalResult, list[Callable[[Path], None]]]:
    """The result, and what writes the further files that were asked for into its folder."""
    how = {"distance": config.distance, "memory_gb": config.memory_gb, "device": device, "progress": progress}
    blocks, counter, files, more = _reranked(query, gallery, config, device, progress), None, [], {}
    if config.verification and blocks is not None:
        counter = PairCounter(query, gallery, largest_reranked(config.variant, config.lambda_value), device)
        blocks = counter.watch(blocks)  # one pass serves both
    result = evaluate_ranking(
        query,
        gallery,
        ap=config.ap,
        blocks=blocks,
        denominator=config.denominator,
        gallery_shot=decide_shot(config.gallery_shot),
        repeats=config.repeats,
        seed=config.seed,
        precision=config.precision,
        **how,
    )
    if config.verification and is_first():
        try:
            found = verify(query, gallery, **how) if counter is None else Verification.of(counter.counts())
            files.append(lambda folder: found.save(folder / PAIRS))
            more["verification"] = found.summary()
        except InputError as error:  # there are no pairs of one kind; the ranking stands
            print(f"no verification: {error}")
    if config.cameras:
        pairs = camera_pairs(
            query, gallery, ap=config.ap, blocks=_reranked(query, gallery, config, device, progress), **how
        )
        files.append(pairs.save)
    if config.approximate != "off" and is_first():
        index = (config.approximate, config.nlist, config.nprobe, config.links, config.breadth, config.seed)
        more["approximate"] = report(approximate_search(query, gallery, config.distance, *index), result)
    return replace(result, settings=more), files


def _reranked(
    query: Features, gallery: Features, config: EvaluateConfig, device: torch.device, progress: bool
) -> Iterator[Tensor] | None:
    """Re-ranked distances, if they are wanted."""
    if not config.rerank:
        return None
    how = (config.variant, config.k1, config.k2, config.lambda_value, config.memory_gb, device, progress)
    return rerank_blocks(query.values, gallery.values, *how)


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
    values = crops.values.take(np.flatnonzero(keep), axis=0)  # what is on disk stays there
    return Features(values, crops.pid[keep], crops.camid[keep], crops.path[keep]), int(junk.sum())


def _size(run: Run, config: EvaluateConfig, name: str) -> int:
    value = getattr(config, name) or run.config.get("settings", {}).get(name)
    if not value:
        raise InputError(f"{run.folder} does not say the {name} of its images; give --height and --width in pixels")
    return int(value)
