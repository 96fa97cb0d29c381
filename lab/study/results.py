"""What a study found, as tables: read from its runs or from the files of an earlier reading, which are enough for a report.

    cells.csv    one row per cell and ranking: start, share, of, seed, rerank, mAP, rank-1, mINP (fractions), steps
    people.csv   one row per person: how many queries, and in the column of each cell the sum of their AP
    study.json   settings, data, machine, commits, CPU seconds of each run

Nothing of a picture is in them. No torch.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lab.errors import InputError
from lab.evaluate.statistics import sum_by_person
from lab.files import replacing, write_json
from lab.published import published_map
from lab.runs import EvalResult, Run
from lab.study.designs import Cell, Claim, Group, Start, Study, make_studies
from lab.study.estimates import Estimate, Verdict, both, decide, estimate, simultaneous

SETTINGS, CELLS, PEOPLE, COST = "study.json", "cells.csv", "people.csv", "cost.json"
KEY = ["start", "share", "of", "rerank"]
PERSON = ["pid", "queries"]


@dataclass(frozen=True)
class Judged:
    """A claim with what was found about it; `alone` is the verdict without what the claim presupposes."""

    claim: Claim
    estimate: Estimate
    alone: Verdict
    verdict: Verdict
    level: float  # of the estimate's interval: all claims of the study hold together at 95 %


@dataclass(frozen=True, eq=False)
class Results:
    """`cells` (one row per cell and ranking), `people` (pid, queries, and a column per row of cells), `settings`."""

    cells: pd.DataFrame
    people: pd.DataFrame
    settings: dict

    @cached_property
    def studies(self) -> dict[str, Study]:
        """Those that the folder's settings make, done or not."""
        files = [Start(name, weights=name) for name in self.settings["weights"]]
        return make_studies(self.settings["seeds"], files, self.settings["domains"])

    def done(self, study: Study) -> int:
        """How many of a study's cells have a result."""
        return len({cell.name for cell in study.cells} & set(self.cells["cell"]))

    def estimate(self, contrast: Sequence[tuple[float, Group]], level: float) -> Estimate | None:
        """Of a weighted sum of groups, over the seeds that all of them have; None if there is none."""
        rows = [self._rows(group) for _, group in contrast]
        seeds = sorted(set.intersection(*(set(found.index) for found in rows)))
        if not seeds:
            return None
        columns = [self.people[found.loc[seeds, "column"]].to_numpy().T for found in rows]  # each (S, P)
        sums = sum(weight * values for (weight, _), values in zip(contrast, columns, strict=True))
        return estimate(sums, self.people["queries"].to_numpy(), level)

    def judge(self, study: Study) -> list[Judged]:
        """Each claim that there are results for; their intervals hold together."""
        level = simultaneous(len(study.claims))
        found = {claim.key: self.estimate(claim.contrast, level) for claim in study.claims}
        verdicts = {key: decide(one, level) for key, one in found.items() if one is not None}
        judged = []
        for claim in study.claims:
            if claim.key in verdicts:
                alone = verdict = verdicts[claim.key]
                if claim.presupposes in verdicts:
                    verdict = both(alone, verdicts[claim.presupposes])
                judged.append(Judged(claim, found[claim.key], alone, verdict, level))
        return judged

    def means(self, study: Study) -> pd.DataFrame:
        """Each group's mAP with its 95 % interval over seeds and people, mean rank-1 and mINP, cost; in the study's order."""
        rows = []
        for group in self._groups(study):
            one, cells = self.estimate(((1.0, group),), 0.95), self._rows(group)
            about = asdict(group) | {"seeds": len(cells), "steps": int(cells["steps"].max())}
            spread = {
                "mAP": one.mean,
                "low": one.low,
                "high": one.high,
                "sd_seeds": one.sd_seeds,
                "se_people": one.se_people,
            }
            rows.append(about | spread | cells[["rank-1", "mINP"]].mean().to_dict())
        return pd.DataFrame(rows)

    def cost(self, study: Study | None = None) -> float:
        """CPU minutes of a study's cells and the pre-trainings that they come from, or of all."""
        costs = self.settings["cost_seconds"]
        names = costs if study is None else self._names(study)
        return sum(costs[name] for name in names if name in costs) / 60

    def _names(self, study: Study) -> set[str]:
        return {cell.name for cell in study.cells} | {cell.pretraining for cell in study.cells if cell.pretraining}

    def _groups(self, study: Study) -> list[Group]:
        groups = [Group(cell.start.name, cell.share, cell.of) for cell in study.cells]
        groups = list(dict.fromkeys(groups)) + [
            group for claim in study.claims for group in claim.groups if group.rerank
        ]
        order = {name: number for number, name in enumerate(study.starts)}
        groups = sorted(dict.fromkeys(groups), key=lambda group: (group.rerank, group.share, order[group.start]))
        return [group for group in groups if len(self._rows(group))]

    def _rows(self, group: Group) -> pd.DataFrame:
        """The rows of cells of a group, by seed."""
        wanted = asdict(group) | {"of": "ids" if group.share == 1 else group.of}
        found = self.cells
        for name, value in wanted.items():
            found = found[found[name] == value]
        return found.set_index("seed")

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in ((CELLS, self.cells), (PEOPLE, self.people)):
            with replacing(folder / name) as temporary:
                table.to_csv(temporary, index=False, float_format="%.6g")
        write_json(folder / SETTINGS, self.settings)


def published_effect(claim: Claim) -> float | None:
    """What the published figures say about a claim, in points of mAP; None if they were not published, or not recovered."""
    if not claim.published:
        return None
    return sum(weight * published_map(*row) for weight, row in claim.published)


def column_name(cell: str, rerank: bool) -> str:
    return cell + ("-rerank" if rerank else "")


def load(folder: str | Path) -> Results:
    """The tables of a folder that `lab study` or its report wrote. Raises InputError if they are not there or do not fit."""
    folder, settings = Path(folder), read_settings(folder)
    try:
        cells, people = pd.read_csv(folder / CELLS), pd.read_csv(folder / PEOPLE)
        columns = {*KEY, "cell", "seed", "mAP", "column", "steps"}
        missing = columns - set(cells) | {*PERSON, *cells["column"]} - set(people)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the study in {folder} cannot be read ({error}); write it anew with lab study report"
        ) from error
    if missing:
        raise InputError(
            f"the study in {folder} lacks {', '.join(sorted(missing))}; write it anew with lab study report"
        )
    return Results(cells, people, settings)


def read_settings(folder: str | Path) -> dict:
    """study.json of a folder. Raises InputError if there is none, or a broken one."""
    file = Path(folder) / SETTINGS
    if not file.is_file():
        raise InputError(f"{folder} holds no study: there is no {SETTINGS}; give --out a folder of lab study")
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"the study in {folder} cannot be read ({file.name}: {error}); restore that file") from error


def collect(folder: Path, settings: dict) -> Results:
    """The tables from the runs of a study's folder: every cell of every study that is done. Raises InputError for none."""
    files = [Start(name, weights=name) for name in settings["weights"]]
    studies = make_studies(settings["seeds"], files, settings["domains"])
    cells = {cell.name: cell for study in studies.values() for cell in study.cells}
    rows, columns, costs, first = [], {}, {}, None
    where = {"machine": set(), "commit": set(), "torch": set()}
    for name, cell in cells.items():
        run = Run(folder / "runs" / name)
        for rerank in (False, True):
            if (result := _result(run, settings["dataset"], rerank)) is None:
                continue
            first = first or result
            rows.append(_row(cell, run, result, rerank))
            columns[rows[-1]["column"]] = _sums_by_person(result, first, run)
    if not rows:
        raise InputError(f"{folder} holds no finished cell yet; run lab study NAME --out {folder} first")
    for run in sorted((folder / "runs").iterdir()):
        if (run / COST).is_file():
            cost, config = json.loads((run / COST).read_text()), Run(run).config
            costs[run.name] = round(cost["cpu_seconds"], 1)
            where["machine"].add(f"{cost['machine']}, {cost['threads']} threads for each cell")
            where["commit"].add(config.get("commit"))
            where["torch"].add(config["versions"]["torch"])
    pid, count = np.unique(first.pid[first.first_match > 0], return_counts=True)
    people = pd.DataFrame({"pid": pid, "queries": count} | columns)
    facts = {"queries": int(count.sum()), "gallery": first.num_gallery}
    more = {"cost_seconds": costs, "test": facts} | {name: sorted(filter(None, found)) for name, found in where.items()}
    return Results(pd.DataFrame(rows), people, settings | more)


def _result(run: Run, dataset: str, rerank: bool) -> EvalResult | None:
    name = dataset + ("-rerank" if rerank else "")
    return run.result(name) if name in run.evals() else None


def _row(cell: Cell, run: Run, result: EvalResult, rerank: bool) -> dict:
    about = {"start": cell.start.name, "share": cell.share, "of": cell.of, "seed": cell.seed, "rerank": rerank}
    figures = {"mAP": result.mAP, "rank-1": float(result.cmc[0]), "mINP": result.mINP}
    steps = int(run.log()["step"].max())
    return {"cell": cell.name, **about, **figures, "steps": steps, "column": column_name(cell.name, rerank)}


def _sums_by_person(result: EvalResult, first: EvalResult, run: Run) -> np.ndarray:
    """Each person's sum of AP (P,), over the queries with a match; InputError if the queries are not those of the others."""
    if not (np.array_equal(result.pid, first.pid) and np.array_equal(result.first_match > 0, first.first_match > 0)):
        raise InputError(
            f"{run.folder} was evaluated on other queries than the other cells; evaluate it again or delete it"
        )
    counted = result.first_match > 0
    return sum_by_person(result.pid[counted], result.ap[counted, None])[0][:, 0]
