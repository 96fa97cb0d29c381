"""The tables of a report, in per cent and points of mAP: what figures, the explorer and the notebook show. No torch."""

import math
from collections.abc import Mapping

import pandas as pd

from lab.published import SETTINGS, SOURCES, published_map, published_results
from lab.study.designs import COLUMNS, Group, Study
from lab.study.results import Judged, Results, published_effect

PAPER_STARTS = ("ImageNet sup.", "ImageNet unsup.", "LUP unsup.")
BY_SHARE = {"small-scale": "identities", "few-shot": "images"}  # studies whose figure has shares on its x axis


def means_table(results: Results, study: Study) -> pd.DataFrame:
    """One row per group: what it is, mAP with its interval and the two parts of its error, mean rank-1 and mINP."""
    table = results.means(study)
    labels = [
        "all" if share == 1 else f"{100 * share:g} % of {'people' if of == 'ids' else 'images'}"
        for share, of in zip(table["share"], table["of"], strict=True)
    ]
    figures = ["mAP", "low", "high", "sd_seeds", "se_people", "rank-1", "mINP"]
    shown = table[["start", "share"]].assign(labels=labels)
    shown["re-ranked"] = table["rerank"].map({True: "yes", False: "no"})
    return pd.concat([shown, table[["seeds", "steps"]], 100 * table[figures]], axis=1)


def claims_table(judged: list[Judged]) -> pd.DataFrame:
    """One row per claim: its effect with interval, the two parts of the error, the published effect, verdict, seeds needed."""
    rows = []
    for one in judged:
        found, published = one.estimate, published_effect(one.claim)
        rows.append(
            {
                "claim": one.claim.sentence,
                "effect": 100 * found.mean,
                "low": 100 * found.low,
                "high": 100 * found.high,
                "se_seeds": 100 * found.sd_seeds / math.sqrt(found.seeds),
                "se_people": 100 * found.se_people,
                "seeds": found.seeds,
                "published": math.nan if published is None else published,
                "verdict": one.verdict.word,
                "note": "" if one.alone == one.verdict else f"the gain itself is {one.verdict.word}",
                "seeds needed": describe_need(one),
            }
        )
    return pd.DataFrame(rows)


def describe_need(one: Judged) -> str:
    """How many seeds would decide, in words for a table."""
    needed = one.verdict.seeds_needed
    if needed is None:
        return "-"
    if math.isnan(needed):
        return "two or more"
    return "more people, not seeds" if math.isinf(needed) else f"{needed:g}"


def describe(one: Judged) -> str:
    """A claim with its verdict, effect and interval in a sentence that may be quoted."""
    found, published = one.estimate, published_effect(one.claim)
    words = f"{one.claim.sentence}: {one.verdict.word}. {100 * found.mean:+.1f} points of mAP"
    if found.seeds > 1:
        words += f", interval {100 * found.low:+.1f} to {100 * found.high:+.1f}"
    words += f" ({found.seeds} seed{'s' * (found.seeds != 1)})"
    words += "" if published is None else f"; published {published:+.1f}"
    needed = one.verdict.seeds_needed
    if needed is None:
        return f"{words}."
    if math.isinf(needed):
        return f"{words}. More seeds alone would not decide it."
    return (
        f"{words}. {'Two or more' if math.isnan(needed) else f'{needed:g}'} seeds would decide it, if all else stayed."
    )


def gains_table(results: Results, study: Study) -> pd.DataFrame:
    """What each start gains over the first by share of the labels, with 95 % intervals, and what was published beside it.

    Published is LUPerson over ImageNet with labels on Market-1501; NaN for shares without a figure.
    """
    published = published_shares(study).pivot(index="share", columns="start", values="mAP")
    published = published["LUP unsup."] - published["ImageNet sup."]
    of = {cell.share: cell.of for cell in study.cells}
    rows = []
    for start in study.starts[1:]:
        for share in sorted(of):
            pair = (1.0, Group(start, share, of[share])), (-1.0, Group(study.starts[0], share, of[share]))
            if (found := results.estimate(pair, 0.95)) is not None:
                effect = {"gain": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
                row = {"start": start, "share": share, "seeds": found.seeds} | effect
                rows.append(row | {"published": published.get(share, math.nan)})
    return pd.DataFrame(rows)


def beside_table(every: Mapping[str, Results]) -> pd.DataFrame:
    """One row per claim and data set, in the order of studies and claims: study, claim, data, and `claims_table`'s columns."""
    rows = []
    for name, results in every.items():
        for study in results.studies.values():
            judged = results.judge(study)
            about = {"study": study.name, "key": [one.claim.key for one in judged], "data": name}
            rows.append(claims_table(judged).assign(**about))
    table = pd.concat(rows, ignore_index=True)
    order = {key: number for number, key in enumerate(dict.fromkeys(zip(table["study"], table["key"], strict=True)))}
    place = [order[key] for key in zip(table["study"], table["key"], strict=True)]
    front = ["study", "claim", "data"]
    table = table.assign(place=place).sort_values("place", kind="stable").drop(columns=["place", "key"])
    return table[front + [column for column in table if column not in front]].reset_index(drop=True)


def published_shares(study: Study) -> pd.DataFrame:
    """What LUPerson published for the labels of a study, on Market-1501: start, share, mAP (%)."""
    table = published_results()
    paper = (table["source"].map(SOURCES) == "paper") & (table["method"] == "MGN") & (table["rerank"] == "no")
    paper &= (table["dataset"] == "market1501") & (table["backbone"] == "resnet50")
    table = table[paper & table["setting"].isin([SETTINGS[study.name], SETTINGS["full"]])]
    table = table.rename(columns={"pretraining": "start", "ratio": "share"})
    order = table["start"].map({name: number for number, name in enumerate(PAPER_STARTS)})
    return table.assign(order=order).sort_values(["order", "share"])[["start", "share", "mAP"]].reset_index(drop=True)


def dots_table(results: Results, study: Study) -> pd.DataFrame:
    """For studies at one share of the labels: each start's mAP, and how it differs from the first, with 95 % intervals."""
    groups = [Group(start, 0.1) for start in study.starts]
    rows = []
    for group in groups:
        one = results.estimate(((1.0, group),), 0.95)
        other = results.estimate(((1.0, group), (-1.0, groups[0])), 0.95)
        if one is None or other is None:
            continue
        row = {"start": group.start, "mAP": one.mean, "low": one.low, "high": one.high}
        row |= {"difference": other.mean, "difference_low": other.low, "difference_high": other.high}
        rows.append({name: value if name == "start" else 100 * value for name, value in row.items()})
    return pd.DataFrame(rows)


def published_dots(study: Study) -> dict[str, float]:
    """The published differences to the first column, by our start; empty where none were published."""
    if study.name != "augmentation":
        return {}
    figures = [published_map("cuhk03-labeled", f"augmentation: {name}", 1.0, "LUP unsup.") for name in COLUMNS.values()]
    return {start: figure - figures[0] for start, figure in zip(study.starts, figures, strict=True)}
