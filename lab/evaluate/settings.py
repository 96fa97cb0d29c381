"""The settings of an evaluation, and what of them decides what its numbers mean."""

from dataclasses import dataclass
from typing import Literal

from lab.errors import InputError
from lab.evaluate.approximate import check_settings, import_faiss
from lab.evaluate.expansion import check_expansion
from lab.evaluate.metrics import check_names
from lab.evaluate.multi_query import check_pooling
from lab.evaluate.rerank import check_parameters
from lab.evaluate.single_shot import check_shots


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
    memory_gb: float = 0.25  # of distances held at a time, with their copies; ranks do not depend on it
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of a GPU's products; ranks do not depend on it
    cameras: bool = False  # also rank every gallery camera alone: cameras.csv, and cameras.npz per query
    verification: bool = False  # also ask of all pairs whether they show one person: ROC, TPR at FPR, equal error rate
    approximate: Literal["off", "ivf", "hnsw"] = "off"  # also search an index of faiss and report its recall
    nlist: int | None = None  # ivf: cells of the index; None: 4 * sqrt(gallery)
    nprobe: int = 16  # ivf: cells that are searched
    links: int = 32  # hnsw: neighbours of each crop in the graph
    breadth: int = 128  # hnsw: candidates that building and searching keep

    def __post_init__(self):
        check_names(self.distance, self.ap, self.denominator, decide_shot(self.gallery_shot), self.precision)
        if not 0 < self.memory_gb < 1e6:
            raise InputError(f"memory_gb is {self.memory_gb}; expected gigabytes above 0, such as 0.25")
        for name, least in (("height", 1), ("width", 1), ("batch_size", 1), ("num_workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; expected a whole number from {least} on")
        check_shots(self.repeats, self.seed)
        if self.multi_query != "off":
            check_pooling(self.multi_query)
        check_expansion(self.expand_k, self.expand_alpha, self.expand_times)
        check_parameters(self.variant, self.k1, self.k2, self.lambda_value)
        if self.approximate != "off":
            self._check_approximate()

    def _check_approximate(self) -> None:
        import_faiss()
        check_settings(self.approximate, self.nlist, self.nprobe, self.links, self.breadth)
        if self.rerank:
            raise InputError(
                "an index finds neighbours by distance, not re-ranked ones; leave out approximate or rerank"
            )


def decide_shot(gallery_shot: str, single_shot: bool = False) -> str:
    """What "auto" means on a data set whose protocol is single-gallery-shot, or is not; other words stay."""
    return gallery_shot if gallery_shot != "auto" else "single" if single_shot else "all"


def eval_name(dataset: str, settings: dict) -> str:
    """What a result with these settings is called in eval/: the data set's name, and how its ranking was improved."""
    return dataset + ("-aqe" if settings.get("expand") else "") + ("-rerank" if settings.get("rerank") else "")


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
