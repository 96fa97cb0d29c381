"""Published figures, shipped as a table: what LUPerson and its successors report, and where each number was read.

Column `provenance`: "repo" was read in a released repository, "2nd" is the paper's figure as another published
document quotes it. Figures are in per cent.
"""

from pathlib import Path

import pandas as pd

TABLE = Path(__file__).parent / "assets" / "paper_results.csv"
NAMES = {"cuhk03": "cuhk03-labeled"}  # the lab's name of a data set -> the table's
SETTINGS = {
    "full": "full",
    "small-scale": "small-scale (fraction of identities)",
    "few-shot": "few-shot (fraction of images)",
}
READ_IN = {"repo": "a released repository", "2nd": "another publication, which quotes it"}
PUBLISHED = [
    "published by", "head", "pre-training", "network", "labels used",
    "mAP", "rank-1", "mAP re-ranked", "rank-1 re-ranked", "read in",
]  # fmt: skip
SOURCES = {"LUPerson (CVPR 2021), released model": "released", "LUPerson (CVPR 2021), paper": "paper"}


def published_results() -> pd.DataFrame:
    """The whole table: source, method, pretraining, backbone, dataset, setting, ratio, rerank, mAP, rank1, provenance."""
    return pd.read_csv(TABLE)


def published_beside(dataset: str) -> pd.DataFrame:
    """What was published for a data set, one row per model: figures without and with re-ranking side by side, in per cent.

    `dataset` is the lab's name; columns are PUBLISHED. All labels first, then shares of them. Comparisons of augmentations
    are left out.
    """
    table = published_results()
    table = table[(table["dataset"] == NAMES.get(dataset, dataset)) & table["setting"].isin(SETTINGS.values())]
    table = table.sort_values("setting", key=lambda setting: setting != SETTINGS["full"], kind="stable")
    rows = {}  # both rankings of a model share a row
    for row in table.fillna({"method": ""}).itertuples():
        of = "images" if row.setting == SETTINGS["few-shot"] else "people"
        labels = "all" if row.setting == SETTINGS["full"] else f"{100 * row.ratio:g} % of {of}"
        who = (row.source, row.method, row.pretraining, row.backbone, labels, READ_IN[row.provenance])
        ending = " re-ranked" if row.rerank == "yes" else ""
        rows.setdefault(who, {}).update({f"mAP{ending}": row.mAP, f"rank-1{ending}": row.rank1})
    about, figures = [*PUBLISHED[:5], PUBLISHED[-1]], PUBLISHED[5:-1]
    table = [dict(zip(about, who, strict=True)) | found for who, found in rows.items()]
    return pd.DataFrame(table, columns=PUBLISHED).astype(dict.fromkeys(figures, float))


def published_datasets() -> list[str]:
    """The data sets that figures were published for, by the lab's name."""
    names = {theirs: ours for ours, theirs in NAMES.items()}
    return sorted(names.get(name, name) for name in published_results()["dataset"].unique())


def luperson_results(
    dataset: str, depth: int = 50, setting: str = "full", ratio: float = 1.0, pretraining: str | None = "LUP unsup."
) -> pd.DataFrame:
    """What LUPerson reports for MGN on a data set, one row per figure; empty if nothing was published.

    `dataset` is the lab's name, `setting` "full", "small-scale" (fraction of identities) or "few-shot" (of images).
    Column `kind` is "released" for the README of the released models, which come first, and "paper" for the paper.
    """
    table = published_results()
    wanted = {
        "dataset": NAMES.get(dataset, dataset),
        "backbone": f"resnet{depth}",
        "setting": SETTINGS[setting],
        "pretraining": pretraining,
        "method": "MGN",
    }
    for column, value in wanted.items():
        table = table[table[column] == value]
    table = table[(table["ratio"] - ratio).abs() < 1e-9]
    return table.assign(kind=table["source"].map(SOURCES)).sort_values("kind", ascending=False, kind="stable")


def published_map(
    dataset: str, setting: str, ratio: float, pretraining: str, rerank: bool = False, kind: str = "paper"
) -> float:
    """One published mAP of LUPerson's MGN with ResNet-50, in per cent; KeyError if there is none.

    Arguments are as in `luperson_results`; `setting` may be one of the table's own, such as "augmentation: default MoCo v2".
    """
    table = published_results()
    wanted = {
        "dataset": NAMES.get(dataset, dataset),
        "setting": SETTINGS.get(setting, setting),
        "ratio": ratio,
        "pretraining": pretraining,
        "rerank": "yes" if rerank else "no",
        "method": "MGN",
        "backbone": "resnet50",
    }
    for column, value in wanted.items():
        table = table[table[column] == value]
    table = table[table["source"].map(SOURCES) == kind]
    if len(table) != 1:
        raise KeyError(f"{len(table)} published figures of {wanted}")
    return float(table["mAP"].iloc[0])
