"""The report of a study folder: report.md with its figures, and all tables that it follows from."""

import math
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from lab.errors import InputError
from lab.files import replacing
from lab.show.study import claims_figure, dots_figure, shares_figure
from lab.study.designs import Study
from lab.study.estimates import MARGIN
from lab.study.results import Results
from lab.study.tables import BY_SHARE, claims_table, dots_table, means_table, published_dots, published_shares

HOW_TO_READ = f"""
Intervals and verdicts: each mean has two sources of error, the seed of the training (pre-training, labelled people,
batches) and the people who are searched. The standard error has a part for each (between seeds; between people, who bring
all of their queries), arms are paired by seed and query, and intervals use Student's t with Welch's degrees of freedom.
Those of claims hold together at 95 % for all claims of a study (Bonferroni). A claim is *supported* if its interval lies
above 0, *not supported* if it lies below {100 * MARGIN:g} point of mAP, and else *not decided*, with the number of seeds
that would decide if mean and spread stayed. Published effects are differences of published figures of one run each, on
Market-1501 (augmentation: CUHK03 labeled), over ImageNet weights where ours are over random weights.
""".strip()


def write_report(results: Results, folder: Path) -> list[str]:
    """Write report.md with its figures and tables, and return one line per claim. Raises InputError if it cannot."""
    lines, sections = [], []
    try:
        results.save(folder)
        for study in results.studies.values():
            if results.judge(study):  # without a claim it has no more than cells that another study made
                section, words = _section(results, study, folder)
                sections.append(section)
                lines += words
        with replacing(folder / "report.md") as temporary:
            temporary.write_text("\n\n".join([_head(results), HOW_TO_READ, *sections]) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); give --to a writable place") from error
    return [*lines, f"wrote {folder / 'report.md'}"]


def study_figure(results: Results, study: Study) -> Figure | None:
    """Means of a study beside the published ones; None where claims say it all, or where there is too little yet."""
    if study.name in BY_SHARE:
        ours = means_table(results, study)
        ours = ours[ours["re-ranked"] == "no"]
        published, where = published_shares(study), f"here: {results.settings['dataset']}"
        return shares_figure(ours, published, BY_SHARE[study.name], study.question, where)
    if study.name == "rerank" or len(table := dots_table(results, study)) < 2:
        return None
    return dots_figure(table, published_dots(study), study.question)


def _section(results: Results, study: Study, folder: Path) -> tuple[str, list[str]]:
    """The Markdown of a study and a line per claim; its figures are written."""
    means, claims = means_table(results, study).drop(columns="share"), claims_table(results.judge(study))
    done = f"{results.done(study)} of {len(study.cells)} cells"
    parts = [
        f"## {study.name}",
        f"{study.question} {done}; {results.cost(study):.0f} CPU minutes with the pre-trainings.",
    ]
    figures = {
        study.name: study_figure(results, study),
        f"{study.name}-claims": claims_figure(claims, "Claims and verdicts"),
    }
    for name, figure in figures.items():
        if figure is not None:
            _save(figure, folder / f"{name}.svg")
            parts.append(f"![{name}]({name}.svg)")
    parts += [_markdown(claims, 1), _markdown(means, 1)]
    for name, table in (("means", means), ("claims", claims)):
        with replacing(folder / f"{study.name}-{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.3f")
    words = [f"{study.name}: {row.claim}: {row.verdict} ({_effect(row)})" for row in claims.itertuples()]
    return "\n\n".join(parts), words


def _effect(row) -> str:
    effect = f"{row.effect:+.1f} points"
    return f"{effect} from one seed" if math.isnan(row.low) else f"{effect}, {row.low:.1f} to {row.high:.1f}"


def _head(results: Results) -> str:
    facts = results.settings
    test = facts["test"]
    size = f"size {facts['size']}"
    if facts["size"] == "tiny":
        size += f", {facts['pretrain_steps']} steps of pre-training, {facts['finetune_epochs']} passes of fine-tuning"
    return "\n".join(
        [
            f"# Study on {facts['dataset']}",
            "",
            f"- {size}, {describe_seeds(facts)}",
            f"- {test['queries']} queries of {len(results.people)} people, {test['gallery']} gallery crops",
            f"- {len(set(results.cells['cell']))} cells and their pre-trainings: {results.cost():.0f} CPU minutes",
            f"- command: `{command(facts)}`",
            f"- machine: {'; '.join(facts['machine'])}",
            f"- commit {', '.join(facts['commit'])}; torch {', '.join(facts['torch'])}",
        ]
    )


def command(facts: dict) -> str:
    """What makes these results once more."""
    data = "" if facts["dataset"] == "synthetic" else f" --dataset {facts['dataset']} --root DIR"
    data += " --other CROPS" * ("other-domain" in facts["domains"] and facts["dataset"] != "synthetic")
    names = ("size", "seeds", "pretrain_steps", "finetune_epochs")
    settings = [f"--{name.replace('_', '-')} {facts[name]}" for name in names if facts[name] is not None]
    return " ".join(["lab study all --out OUT" + data, *settings, "--weights", *facts["weights"]])


def describe_seeds(facts: dict) -> str:
    """How many seeds there are, and that some were added later."""
    words = f"{facts['seeds']} seeds"
    if earlier := facts.get("seeds_before"):
        words += (
            f" ({', then '.join(map(str, earlier))} at first: added after a look, so intervals are a little too narrow)"
        )
    return words


def _markdown(table: pd.DataFrame, digits: int) -> str:
    shown = table.map(lambda value: f"{value:.{digits}f}" if isinstance(value, float) else str(value)).replace(
        "nan", "-"
    )
    rows = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _save(figure: Figure, file: Path) -> None:
    """As SVG whose bytes follow from the figure alone."""
    with matplotlib.rc_context({"svg.hashsalt": "lab"}), replacing(file) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
