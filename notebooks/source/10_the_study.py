# %% [markdown]
# # 10 · The study: the paper's claims in miniature, with error bars
#
# | | |
# |---|---|
# | **Goal** | Ask each claim of the paper again, with trainings that are small enough to be repeated; compute by hand how sure the answer is, from seeds and from people; tell *supported*, *not supported* and *not decided* apart; know what a miniature can say about the original, and run one of your own. |
# | **Needs** | What a paired difference and a bootstrap over people are: [08](08_comparing_models.ipynb). No GPU, no training. |
# | **Makes** | Nothing: it reads the tables of finished studies, which come with the lab. |
# | **Minutes** | 45 to read, 1 to run. |
#
# [Notebook 08](08_comparing_models.ipynb) ended with a warning: two runs can say that *this model* is better, never that *this method* is. A paper speaks of methods. So here whole grids of trainings are read, each cell several times, and every sentence that the paper made its name with gets an error bar, or the honest answer "not decided".
#
# The text of this notebook names no result of ours. All of them are computed below from the tables of whichever study you give it.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU; for the commands of section 9
FOLDER = "../demo"  # where a study of your own would go: FOLDER/study
ROOT = None  # for section 9: the folder of Market-1501, if you have it
# finished studies: these come with the lab; a folder in which `lab study` worked may stand here as well
STUDIES = ["../benchmarks/results/study-synthetic", "../benchmarks/results/study-market1501"]

# %%
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from ipywidgets import Dropdown, IntSlider
from scipy.stats import norm
from scipy.stats import t as student

from lab.errors import InputError
from lab.finetune.train import FinetuneConfig
from lab.pretrain.train import PretrainConfig
from lab.published import luperson_results, published_map
from lab.runs import Run
from lab.show import curves
from lab.show.bars import bars_figure
from lab.show.lines import lines_figure
from lab.show.live import explore, in_notebook
from lab.show.study import claims_figure, shares_figure
from lab.show.uncertainty import sampling_figure
from lab.study import results as studies
from lab.study.designs import COLUMNS, Group
from lab.study.estimates import MARGIN, decide, estimate, simultaneous
from lab.study.report import study_figure
from lab.study.tables import (
    BY_SHARE,
    beside_table,
    claims_table,
    describe,
    gains_table,
    means_table,
    published_shares,
)
from lab.study.world import StudyConfig, World, tiny_pretraining

in_notebook()
pd.set_option("display.max_colwidth", None)  # claims are sentences

# %%
every = {}
for folder in map(Path, STUDIES):
    try:
        every[folder.name.removeprefix("study-")] = studies.load(folder)
    except InputError as missing:
        print(f"left out below: {missing}")
name, main = next(iter(every.items()))  # sections 2 to 5 look at the first one closely
print(f"read: {', '.join(every)}; in detail: {name}")

# %% [markdown]
# ## 1 · The question, and the published tables
#
# [LUPerson](https://arxiv.org/abs/2012.03753) pre-trains on millions of person crops without labels. Its message is in four tables:
#
# 1. Fine-tuned with **few labels**, such a start beats the usual one (ImageNet), and the fewer labels, the more.
# 2. With all labels it still does.
# 3. Among the random changes that make two views of a crop, **random erasing helps and colour jitter hurts**.
# 4. A **small temperature** suits people.
#
# The first, on Market-1501, from the table that comes with the lab:

# %%
small = main.studies["small-scale"]
paper = published_shares(small)
lines = {start: (100 * line["share"], line["mAP"]) for start, line in paper.groupby("start", sort=False)}
lines_figure(lines, "labelled identities used (%)", "mAP (%)", "As published: Market-1501, MGN, ResNet-50")

# %%
paper = paper.pivot(index="share", columns="start", values="mAP")
gain = paper["LUP unsup."] - paper["ImageNet sup."]
print("LUPerson's start over ImageNet's, points of mAP:")
print("\n".join(f"   {100 * share:3.0f} % of the identities: {value:+.1f}" for share, value in gain.items()))

# %% [markdown]
# The third, on CUHK03 with all labels. Everything else equal, the list of random changes moves mAP like this:

# %%
lists = {column: ("cuhk03-labeled", f"augmentation: {column}", 1.0, "LUP unsup.") for column in COLUMNS.values()}
bars_figure({column: published_map(*row) for column, row in lists.items()}, title="As published: augmentation")

# %% [markdown]
# Of the fourth only the words could be recovered: too high a temperature hardly separates positives from negatives, too low a one does not learn; the released program uses 0.1, where MoCo v2 has 0.2. (Where each figure was read is in [`lab/published.py`](../lab/published.py).)
#
# > **Quick question.** What is missing in both figures, that you would need in order to believe a difference of half a point?
# > <details><summary>Answer</summary>Error bars. Each number is <b>one</b> training, tested on one set of people. How much another seed would move it, and how much other people would, is not in the paper, as in nearly all papers of the field: a single pre-training took days on eight GPUs. For the first figure one hardly doubts the large gaps; the second is made of differences of about one point and less.</details>
#
# ## 2 · How a miniature is made
#
# What cannot be repeated at full size may be repeated in small. A **study** of the lab is a question, a grid of cells, and claims. A **cell** is one fine-tuning with its evaluation:
#
# $$\text{cell} = \text{start} \times \text{share of the labels} \times \text{seed}.$$
#
# The **start** is what the trunk begins with: `scratch` (random weights), a trunk pre-trained within the study (`in-domain`: on crops by the cameras of the data set; `other-domain`: on crops from elsewhere; and variants with one setting changed), or a file (`shipped`, the trunk that comes with the lab). The **seed** decides everything else that is left to chance: the pre-training, which people have labels, the heads' first weights, the batches. Arms of a comparison share it. And studies share cells: what one has made, the next one reads.

# %%
rows = {}
for study in main.studies.values():
    count = {"cells": len(study.cells), "done": main.done(study), "claims": len(study.claims)}
    rows[study.name] = count | {"CPU minutes": round(main.cost(study)), "question": study.question}
pd.DataFrame(rows).T.style.set_properties(**{"text-align": "left"})

# %%
facts = main.settings
people = main.people["queries"]
print(f"together {main.cost():,.0f} CPU minutes for {len(facts['cost_seconds'])} trainings, on: {'; '.join(facts['machine'])}")
print(f"tested on {facts['test']['queries']} queries of {len(people)} people in {facts['test']['gallery']} gallery crops")

# %% [markdown]
# (The minutes of a line include the pre-trainings that its cells start from; because of the sharing the lines add up to more than the total.)
#
# Nothing about a cell is special. It is a run folder as [every stage writes one](../README.md): `config.json`, `log.csv`, `eval/`. Here is one, and what its fine-tuning changes of the published recipe so that it takes no longer than it does:

# %%
cell = next(cell for cell in small.cells if cell.name in set(main.cells["cell"]))
steps = {key: facts[key] for key in ("pretrain_steps", "finetune_epochs") if facts.get(key)}
here = World(StudyConfig(size=facts["size"], **steps), Path()).finetuning(cell)
print(f"{cell.name}: {facts['cost_seconds'].get(cell.name, np.nan) / 60:.1f} CPU minutes\n{cell}")


def changes(published, here):
    """Settings in which two configurations differ."""
    pairs = {key: (value, asdict(here)[key]) for key, value in asdict(published).items()}
    differing = {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and key not in type(here).HOW}
    return pd.DataFrame(differing, index=["published", "here"], dtype=object).T


changes(FinetuneConfig(fraction=cell.share, fraction_of=cell.of, seed=cell.seed), here)

# %% [markdown]
# And the pre-training:

# %%
own = tiny_pretraining() if facts["size"] == "tiny" else PretrainConfig()
if facts["pretrain_steps"]:
    seen = facts["pretrain_steps"] * own.batch_size
    print(f"here {seen:,} crops pass through a pre-training: {facts['pretrain_steps']} steps of {own.batch_size}")
print(f"in the original {4_180_243 * PretrainConfig().epochs:,} did: {PretrainConfig().epochs} epochs of 4,180,243")
changes(PretrainConfig(), own).drop(["epochs", "warmup_epochs"], errors="ignore")  # they follow from the steps

# %% [markdown]
# The tables that come with the lab hold results and costs only; in the folder where `lab study` worked, each cell also has its log. If you gave such a folder, here is this cell's:

# %%
folder = Path(STUDIES[0]) / "runs" / cell.name
if (folder / "log.csv").is_file():
    display(curves.training_figure(Run(folder)))
else:
    print(f"{folder} is not there")


# %% [markdown]
# > **Quick question.** `scratch` has no pre-training. Is it then the paper's baseline?
# > <details><summary>Answer</summary>No. The paper's usual start is a network that learned ImageNet <i>with labels</i>, far better than random weights. A miniature of that start would need ImageNet. So our gains are over a weaker baseline, and a gain here says less than the same gain there. Remember this in section 8.</details>
#
# ## 3 · Few labels: our table beside the published one
#
# The same axes for both. Bars are 95 % intervals; where they come from is section 4. Points of a start stand a little side by side, so that the bars can be seen; the shares are the same.

# %%
def shares(results, study, where):
    """The published figures and ours."""
    ours = means_table(results, study)
    ours = ours[ours["re-ranked"] == "no"]
    return shares_figure(ours, published_shares(study), BY_SHARE[study.name], study.question, where)


for place, results in every.items():
    display(shares(results, results.studies["small-scale"], f"here: {place}"))

# %% [markdown]
# The heights may not be compared: other people, other network, other size of picture. What may be compared is the **shape**: which line is above which, and whether they come together to the right. As numbers, what each start gains over random weights (the published column: over ImageNet):

# %%
gains_table(main, small).set_index(["start", "share"]).round(1)


# %% [markdown]
# A table like this invites one to pick the nicest line. A study says *beforehand* what it will ask. These are its **claims**; each is a weighted sum of means of cells that should be above 0:

# %%
def claims(results, study, title=""):
    """A study's claims as a figure."""
    table = claims_table(results.judge(study))
    return claims_figure(table, title or study.question) if len(table) else None


def say(results, study):
    """The same in sentences."""
    lines = [f"* {describe(one)}" for one in results.judge(study)]
    display(Markdown("\n".join(lines) or "No claim can be judged yet."))


display(claims(main, small))
say(main, small)

# %% [markdown]
# The second kind of claim ("gains more with few labels") has to be read together with the first: a start that *loses* everywhere also "gains more" where it loses less.
#
# The other way of having few labels: some images of *everybody* (few-shot), rather than all images of some.

# %%
few = main.studies["few-shot"]
if main.done(few):
    display(shares(main, few, f"here: {name}"))
    say(main, few)

# %% [markdown]
# > **Quick question.** The second kind of claim, "gains more with few labels than with all", is a difference of differences. Why is its interval usually wider than that of the gain itself?
# > <details><summary>Answer</summary>Four means enter it instead of two, each with an error of its own, and errors add up as squares. Pairing helps (all four share seeds and people), but the common part that cancels is smaller between different shares of the labels.</details>
#
# ## 4 · Where an error bar comes from
#
# Take one claim and do it by hand. It compares two arms, so `people.csv` is all we need: one row per person, and for every cell the sum of the AP of this person's queries.

# %%
judged = [one for study in main.studies.values() for one in main.judge(study)]
two_arms = [one for one in judged if len(one.claim.contrast) == 2]
chosen = next((one for one in two_arms if one.estimate.seeds > 1), two_arms[0])
print(f"{chosen.claim.sentence}\n   {chosen.claim.contrast}")
queries = main.people["queries"].to_numpy()  # (P,)
main.people.iloc[:5, :4].round(2)


# %%
def columns_of(group):
    """The columns of people.csv that hold a group's cells, by seed."""
    wanted = {"start": group.start, "share": group.share, "rerank": group.rerank}
    wanted["of"] = group.of if group.share < 1 else "ids"
    rows = main.cells[(main.cells[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return rows.set_index("seed")["column"]


(_, better), (_, worse) = chosen.claim.contrast
a, b = columns_of(worse), columns_of(better)
seeds = sorted(set(a.index) & set(b.index))  # those that both arms have
A, B = (main.people[which.loc[seeds]].to_numpy().T for which in (a, b))  # sums of AP: (S, P)
mean_a, mean_b = A.sum(axis=1) / queries.sum(), B.sum(axis=1) / queries.sum()  # mAP of each run: (S,)
labels = [f"{group.start}{' re-ranked' if group.rerank else ''}" for group in (worse, better)]
table = pd.DataFrame({labels[0]: 100 * mean_a, labels[1]: 100 * mean_b, "difference": 100 * (mean_b - mean_a)}, seeds)
table.rename_axis("seed").round(2)

# %%
lines = {label: (seeds, 100 * mean) for label, mean in zip(labels, (mean_a, mean_b), strict=True)}
lines_figure(lines, "seed", "mAP (%)", "One dot per training")

# %% [markdown]
# **Seeds.** The differences in the last column are as many tries of the same experiment. Their mean is the effect; their standard deviation $s$ says how much one try varies, so the mean of $S$ tries has the standard error $s / \sqrt S$:

# %%
difference = mean_b - mean_a
S, effect = len(seeds), difference.mean()
sd = difference.std(ddof=1) if S > 1 else np.nan
se_seeds = sd / np.sqrt(S)
print(f"effect {100 * effect:+.2f} points; a single seed varies by {100 * sd:.2f}, the mean of {S} by {100 * se_seeds:.2f}")

# %% [markdown]
# **People.** That would be all if these test people were all people there are. But the same people answer for every seed. Who is easy to find is a matter of luck that no further seed can even out. [Notebook 08](08_comparing_models.ipynb) has the remedy: average over the seeds, then draw **people** again and again, each with all their queries, and see how the mean moves.

# %%
D = (B - A).mean(axis=0)  # each person's sum of differences, over seeds: (P,)
P = len(D)
drawn = np.random.default_rng(0).integers(P, size=(10_000, P))  # each row: other people
means = D[drawn].sum(axis=1) / queries[drawn].sum(axis=1)
print(f"{P} people: the mean varies by {100 * means.std():.2f} points")
marks = {"the effect": effect, "no difference": 0.0}
sampling_figure({"other people": means}, None, marks, chosen.claim.sentence, "difference of mAP (points)")


# %% [markdown]
# There is a formula for it, too, which a study uses because it needs no random numbers. With $D_p$ the sum of a person's differences and $n_p$ the number of their queries, the mean is a ratio of two sums, $\bar d = \sum_p D_p / \sum_p n_p$. A person moves it by what they deviate from it:
#
# $$\mathrm{se}_{\text{people}} = \frac{1}{\sum_p n_p} \sqrt{\frac{P}{P - 1} \sum_p \bigl(D_p - \bar d\, n_p\bigr)^2} .$$
#
# A person with many queries that are all a little off counts as one large deviation, not as many small ones that cancel: five queries of one person are not five people.

# %%
def people_error(sums):
    """Standard error of the mean over the choice of people, from each person's sum (P,)."""
    deviations = sums - sums.sum() / queries.sum() * queries
    return np.sqrt(P / (P - 1) * (deviations**2).sum()) / queries.sum()


se_people = people_error(D)
print(f"by the formula {100 * se_people:.2f} points, by drawing people {100 * means.std():.2f}")


# %% [markdown]
# **Both.** The two kinds of luck have nothing to do with each other, so their errors add up as squares:
#
# $$\mathrm{se}^2 = \frac{s^2}{S} + \mathrm{se}_{\text{people}}^2 .$$
#
# How many standard errors make an interval of 95 %? With a well-known error 1.96. But an $s$ from a handful of seeds is itself a guess, and Student's t distribution pays for that: with $S$ seeds it has $S - 1$ **degrees of freedom**, and few of them make it wide. Our error is a sum of a badly known part ($S - 1$) and a well known one ($P - 1$ for $P$ people). Welch and Satterthwaite give the sum
#
# $$\mathrm{df} = \frac{\mathrm{se}^4}{\dfrac{(s^2 / S)^2}{S - 1} + \dfrac{\mathrm{se}_{\text{people}}^4}{P - 1}}$$
#
# degrees of freedom: never fewer than the smaller of $S - 1$ and $P - 1$, near $S - 1$ where seeds are most of the error, and near $P - 1$ where people are.

# %%
def half_width(sd, se_people, S, P, level):
    """Half an interval's width, and the degrees of freedom: the two formulas."""
    parts = np.array([sd**2 / S, se_people**2])
    df = parts.sum() ** 2 / (parts**2 / [S - 1, P - 1]).sum()
    return student.ppf((1 + level) / 2, df) * np.sqrt(parts.sum()), df


reach, df = half_width(sd, se_people, S, P, 0.95) if S > 1 else (np.nan, np.nan)
print(f"se {100 * np.hypot(se_seeds, se_people):.2f} points: {100 * se_seeds:.2f} from seeds, {100 * se_people:.2f} from people")
print(f"{df:.1f} degrees of freedom: {student.ppf(0.975, df):.2f} standard errors instead of {norm.ppf(0.975):.2f}")
print(f"effect {100 * effect:+.1f} points, interval {100 * (effect - reach):+.1f} to {100 * (effect + reach):+.1f}")

# %%
found = estimate(B - A, queries)  # the lab's: (S, P) and (P,)
assert np.allclose([found.mean, found.sd_seeds, found.se_people], [effect, sd, se_people], equal_nan=True)
assert np.allclose([found.df, found.low, found.high], [df, effect - reach, effect + reach], equal_nan=True)

# %% [markdown]
# **Paired against unpaired.** Both arms shared seeds (so the labelled people of a small share, too) and queries, and we took the difference *before* the spread. From two separate columns of a paper one would have to add the errors of both arms:

# %%
unpaired = np.array([
    np.hypot(mean_a.std(ddof=1), mean_b.std(ddof=1)) / np.sqrt(S) if S > 1 else np.nan,
    np.hypot(people_error(A.mean(axis=0)), people_error(B.mean(axis=0))),
])  # fmt: skip
paired = np.array([se_seeds, se_people])
errors = pd.DataFrame({"paired": 100 * paired, "unpaired": 100 * unpaired}, ["seeds", "people"])
errors.loc["both"] = np.sqrt((errors**2).sum(skipna=False))
errors.assign(ratio=errors["unpaired"] / errors["paired"]).round(2)

# %% [markdown]
# The people's part mostly gains much by pairing: somebody who is hard to find is hard for both. For seeds it depends. They share who has labels, which ties the arms together; the rest of the luck (weights, batches) acts on each arm in its own way and does not cancel. With few seeds the estimate of this is rough, and a ratio below 1 may come out by chance.
#
# > **Quick question.** Somebody trains 30 seeds of both arms and tests them on 20 people. The error bar over seeds is tiny. What is wrong with reporting it alone?
# > <details><summary>Answer</summary>It says how well we know the difference <i>on these 20 people</i>. Twenty others would give another number, and no seed tells by how much. Below the people's part the error cannot go, however many seeds there are.</details>
#
# ### Several claims at once
#
# A study with $k$ claims has $k$ chances to be wrong. If each interval misses the truth in 5 % of all studies, how many studies have at least one wrong interval? **Bonferroni**: if each of $k$ intervals has the level $1 - 0.05 / k$, all hold *together* in at least 95 %. Try it, with independent errors:

# %%
rng = np.random.default_rng(0)
rows = {}
for k in (1, 2, 5, 10):
    far = np.abs(rng.standard_normal((20_000, k)))  # how far estimates are from the truth, in standard errors
    level = simultaneous(k)
    wrong = [100 * (far > norm.ppf((1 + each) / 2)).any(axis=1).mean() for each in (0.95, level)]
    rows[k] = {"some wrong at 95 % each": f"{wrong[0]:.1f} %", "Bonferroni's level": f"{100 * level:.2f} %"}
    rows[k] |= {"some wrong then": f"{wrong[1]:.1f} %"}
    rows[k] |= {f"t, {dof} df": f"{student.ppf((1 + level) / 2, dof):.2f}" for dof in (1, 3, 10, 50)}
pd.DataFrame(rows).T.rename_axis("claims")

# %% [markdown]
# The last columns are how many standard errors an interval reaches: with many degrees of freedom the price of more claims is modest, with few it is steep. That is why a study should have few claims, stated before. ([08](08_comparing_models.ipynb) used Holm's correction, which is a little kinder, but corrects p-values and gives no intervals.) For our claim:

# %%
print(f"one of {round(0.05 / (1 - chosen.level))} claims, so its own level is {100 * chosen.level:.2f} %")
if S > 1:
    alone, (wide, _) = reach, half_width(sd, se_people, S, P, chosen.level)
    assert np.isclose(wide, (chosen.estimate.high - chosen.estimate.low) / 2)
    print(f"+- {100 * alone:.1f} points if it were the only one, +- {100 * wide:.1f} among them")

# %% [markdown]
# ## 5 · Verdicts
#
# From the interval follows a **verdict**, by a rule that was fixed before:

# %%
print(f"""supported        the whole interval lies above 0
not supported    the whole interval lies below {100 * MARGIN:g} point: if there is a gain, it is too small to matter
not decided      anything else""")

# %%
table = beside_table({name: main})
table.groupby("verdict")["claim"].count().rename("claims").to_frame()

# %% [markdown]
# "Not supported" is a result; "not decided" is none. The interval then holds both a gain that would matter and none at all, and to write "no effect was found" would turn our lack of seeds into a fact about the world.
#
# What would decide? More seeds shrink one of the two parts. Suppose mean and spread stay as they are:

# %%
table.loc[table["verdict"] == "not decided", ["study", "claim", "effect", "low", "high", "seeds", "seeds needed"]].round(1)

# %%
more = np.arange(3, 31)
known = next((one for one in judged if one.estimate.seeds > 1 and one.verdict.seeds_needed), chosen)
found = known.estimate
widths = [100 * half_width(found.sd_seeds, found.se_people, n, found.people, known.level)[0] for n in more]
limit = 100 * norm.ppf((1 + known.level) / 2) * found.se_people
lines_figure({known.claim.sentence: (more, widths)}, "seeds", "half the interval (points)", "What seeds can do", zero=True,
             level=("with endless seeds: people alone", limit))  # fmt: skip

# %% [markdown]
# Two things happen on the left, and both make the first few more seeds the best investment there is: $1 / \sqrt S$ falls fastest there, and the degrees of freedom leave the region where Student's t is enormous (with two seeds, which the curve leaves out, it may be ten times wider). To the right the curve flattens at what the **people** leave open. Beyond that only a larger test set helps.
#
# Touch it: choose a claim and a number of seeds. The first row is what was found, the second what the same mean and spread would give with that many.

# %%
can_move = {f"{one.claim.sentence} ({one.verdict.word})": one for one in judged if one.estimate.seeds > 1}
first = next((text for text, one in can_move.items() if one.verdict.seeds_needed), next(iter(can_move), None))


def draw(claim, n):
    one = can_move[claim]
    found, rows = one.estimate, []
    for seeds in (found.seeds, n):
        reach, _ = half_width(found.sd_seeds, found.se_people, seeds, found.people, one.level)
        low, high = found.mean - reach, found.mean + reach
        word = decide(replace(found, low=low, high=high), one.level).word
        rows.append([f"{seeds} seeds", 100 * found.mean, 100 * low, 100 * high, np.nan, word, ""])
    columns = ["claim", "effect", "low", "high", "published", "verdict", "note"]
    return claims_figure(pd.DataFrame(rows, columns=columns), one.claim.sentence)


if can_move:
    explore(draw, claim=Dropdown(options=list(can_move), value=first), n=IntSlider(value=8, min=2, max=50))


# %% [markdown]
# > **Quick question.** A claim is "not decided" with 4 seeds, so you add seeds until it is "supported", and stop. May you report the verdict as it is?
# > <details><summary>Answer</summary>No. Whoever looks after each seed and stops at the first pleasant moment gives chance many tries, and the interval holds less often than it says. The "seeds needed" of this table is for planning: fix the number, train that many more, and judge once.</details>
#
# ## 6 · Augmentation, temperature, data, effort
#
# The paper's other claims are about the pre-training itself. Each study below changes one setting of it, then fine-tunes at 10 % of the identities. The left panel has the means, the right one what each differs by from the first line, with the published difference beside it where there is one.

# %%
def show(study):
    """A study in all data sets: means, claims, sentences."""
    for place, results in every.items():
        one = results.studies.get(study)
        if one is None or not results.done(one):
            print(f"{place}: no results of {study}")
            continue
        display(Markdown(f"**{place}**: {results.done(one)} of {len(one.cells)} cells"))
        for figure in (study_figure(results, one), claims(results, one, "Claims and verdicts")):
            display(*[figure] if figure else [])
        say(results, one)


show("augmentation")

# %% [markdown]
# Before you read a verdict off these, compare the size of the published effects with the width of our intervals. An experiment whose error bar is several points wide cannot see an effect of half a point, however true it is.

# %%
published = [published_map(*lists[column]) for column in COLUMNS.values()]
print(f"largest published difference between two lists: {max(published) - min(published):.1f} points")
for place, results in every.items():
    if "augmentation" in results.studies and (found := results.judge(results.studies["augmentation"])):
        half = [50 * (one.estimate.high - one.estimate.low) for one in found]
        print(f"{place}: half the width of our intervals is {min(half):.1f} to {max(half):.1f} points")

# %% [markdown]
# A thing to know about size tiny: its views are not cut out of the crop as tightly as the published ones (the lists are called `whole-…` in the configs), because a short pre-training on tight cuts [learns places before people](../benchmarks/results/pretraining-recipe.md). The six lists differ in the rest.
#
# **Temperature.** It divides the similarities before the softmax ([02](02_pretraining.ipynb)):

# %%
show("temperature")

# %% [markdown]
# **The amount of data.** A tenth, three tenths, or all of the crops without labels, for equally many steps. So more data here means *other* crops instead of the same ones again, not longer training:

# %%
show("pretraining-data")

# %% [markdown]
# **Effort.** A pre-training that helps nobody leaves open whether the idea is at fault or the miniature. First, is there anything to explain? The pre-training on the data set's own crops, against random weights, at 10 % of the identities:

# %%
few_labels = (1.0, Group("in-domain", 0.1)), (-1.0, Group("scratch", 0.1))
for place, results in every.items():
    if (found := results.estimate(few_labels, 0.95)) is not None:
        ends = f", interval {100 * found.low:+.1f} to {100 * found.high:+.1f}" if found.seeds > 1 else ""
        print(f"{place}: in-domain - scratch {100 * found.mean:+.1f} points{ends}; seeds: {found.seeds}")

# %% [markdown]
# So these were tried: three times the steps (is it too short?), batch norm over the whole batch (do small groups spoil the statistics?), half the learning rate (is it unstable?), a quarter of the queue (are there too many of the same people among the "others"?), and, for the drawn people, the same people cut out and put into other places (does it learn places?):

# %%
show("pretraining-effort")

# %% [markdown]
# Whatever you see above: a short pre-training that does not pay is no contradiction to the paper. It has been seen before: a student report on LUPerson ran MoCo v2 for 100 epochs on the training images of Market-1501 alone, with a small batch and the learning rate of the large one, and ended *below* the ImageNet start at every share of the labels.
#
# > **Quick question.** `pretraining-effort` tries several remedies. Suppose just one of them is "supported". Why was it right to widen all the intervals?
# > <details><summary>Answer</summary>Because among several harmless changes the luckiest one looks like a remedy. The wider intervals are the price for having tried more than one; what is still supported after paying it is not merely the best of several throws.</details>
#
# ## 7 · Re-ranking
#
# [Re-ranking](06_reranking.ipynb) changes no weight, so this pair shares everything: the model, the people, the features. No comparison can be paired more closely; look at its intervals beside those of section 6. As published, with the released weights:

# %%
rows = luperson_results("market1501")
rows[rows["kind"] == "released"][["kind", "pretraining", "backbone", "rerank", "mAP", "rank1"]].reset_index(drop=True)

# %%
show("rerank")

# %%
for place, results in every.items():
    table = means_table(results, results.studies["rerank"])
    table = table.pivot_table(index=["start", "labels"], columns="re-ranked", values="mAP", sort=False).dropna()
    display(Markdown(f"mAP, **{place}**"), table.round(1).rename_axis(columns="re-ranked"))

# %% [markdown]
# Re-ranking trusts the first neighbours. With a weak model these are often wrong, and it then confirms the mistake; see whether the gain differs between 10 % and all labels.
#
# ## 8 · Both data sets, and the paper
#
# Now everything beside everything. First the claims about few labels, on each data set:

# %%
table = beside_table(every)
core = table[table["study"] == "small-scale"]
core = core.assign(claim=[f"{row.data}: {row.claim}" for row in core.itertuples()])
claims_figure(core, "Few labels, on each data set")

# %%
cells = [f"{row.effect:+.1f} ({row.low:+.1f} to {row.high:+.1f}), {row.verdict}" for row in table.itertuples()]
wide = table.assign(found=cells).pivot_table(
    index=["study", "claim"], columns="data", values="found", aggfunc="first", sort=False
)
published = table.groupby(["study", "claim"], sort=False)["published"].first()
wide.insert(0, "published", published.map("{:+.1f}".format).replace("+nan", ""))
wide.fillna("").style.set_properties(**{"text-align": "left"})

# %% [markdown]
# Which agree with the paper? All claims are worded in its direction. So *supported* agrees, *not supported* does not (here, in miniature), and *not decided* says nothing either way. (Mind the second kind of section 3 where its first kind is not supported.) Those that have a published number:

# %%
says = {"supported": "agree with the paper", "not supported": "do not", "not decided": "are open"}
for place in every:
    asked = table[(table["data"] == place) & table["published"].notna()]
    count = asked["verdict"].map(says).value_counts()
    words = ", ".join(f"{count.get(what, 0)} {what}" for what in says.values())
    print(f"{place}: of {len(asked)} claims with a published number {words}")
    for row in asked[asked["verdict"] == "not supported"].itertuples():
        print(f"   not here: {row.claim} ({row.effect:+.1f}, published {row.published:+.1f})")

# %%
if len(every) > 1:
    both = table.groupby(["study", "claim"], sort=False)["verdict"].agg(["nunique", "count"])
    both = both[both["count"] == len(every)]
    print(f"{len(both)} claims were asked on all data sets; the verdict is the same for {(both['nunique'] == 1).sum()}")
else:
    print("there is one data set only, so nothing can be compared")

# %% [markdown]
# A claim that agrees in such a small world is encouraging: it does not need the giant. One that does not is a question, not a refutation. What differs:
#
# | | the paper | the miniature | so |
# |---|---|---|---|
# | crops seen in pre-training | 840 million (4.18 million crops, 200 times) | at size tiny some thousands (section 2) | a gain that comes from scale cannot show |
# | whose | 46,260 street videos | the data set's own cameras, or a few thousand drawn crops | few places and few people; a network can learn the *places* instead |
# | baseline | ImageNet, with labels | random weights | gains are over less; "helps" is easier to reach, and means less |
# | network and picture | ResNet-50, 384 x 128 pixels | ResNet-18, 64 x 32 | faces, bags and logos are gone; colour is most of what is left, so changes of colour weigh differently |
# | fine-tuning | 60 passes over the labels | a few (section 2) | the start matters more when there is little time to leave it |
# | synthetic people | - | drawn in front of drawn places | places are few and repeat; a person's looks have fewer dimensions |
# | Market-1501 | official test set, 750 people | a development split: people held out of the training part | fewer people and another gallery; heights are not comparable at all |
# | how often | once | several seeds | here, and only here, there is an error bar |
#
# (Section 2 computed the exact settings; size paper, section 9, has fewer of these differences.)
#
# > **Quick question.** A claim is supported on drawn people and not on real ones. Which of the two do you believe?
# > <details><summary>Answer</summary>Both, of what they speak of. The drawn people show that the mechanism <i>can</i> work where nothing else disturbs it, and let one vary places and people at will. Whether it works on streets, only real crops say. The difference between the two is where to look next: which property of real pictures is missing in the drawn ones?</details>
#
# ## 9 · Your own
#
# A study is one command. It can be stopped at any moment and goes on; processes and machines share the cells. In words of your settings above:

# %%
data = f" --dataset market1501 --root {ROOT}" if ROOT else ""
where = f"--out {FOLDER.removeprefix('../')}/study{data}{' --size paper' if SIZE == 'paper' else ''}"
print(f"lab study small-scale {where}                # one study; all: everything")
print(f"lab study small-scale {where} --workers 2    # two cells at a time on this machine")
print(f"lab study small-scale {where} --shard 1/4    # the first of four machines; put their runs/ together afterwards")
print(f"lab study report --out {FOLDER.removeprefix('../')}/study    # tables, figures, verdicts: no training")

# %%
for study in main.studies.values():
    if main.done(study) == len(study.cells):
        print(f"lab study {study.name}: about {main.cost(study) / 60:.1f} hours of one core like ours, less what is done already")

# %% [markdown]
# With real data, `--dataset market1501 --root DIR`, `--unlabeled` for further crops by the same cameras and `--other` for crops from elsewhere, each a folder or a [store](01_crops.ipynb). With a GPU, `--size paper` trains with the published settings, and `--weights imagenet-r50 lup-r50` adds the paper's own two starts: then the baseline is the right one, and the third row of the table above falls away.
#
# Both commands write the three files that this notebook reads (`cells.csv`, `people.csv`, `study.json`; [docs/study.md](../docs/study.md) says what is in them). Put the folder into `STUDIES` at the top, and every number above is yours. A new question is a few lines in [`lab/study/designs.py`](../lab/study/designs.py): starts, cells, and claims.
#
# ## Exercises
#
# **1. Without the correction.** Which verdicts of the first study folder change if every claim is judged as if it were the only one, at 95 %? Why should you not report these?
#
# <details><summary>Answer</summary>
#
# ```python
# for one in judged:
#     alone = main.estimate(one.claim.contrast, 0.95)
#     if (word := decide(alone).word) != one.alone.word:
#         print(f"{one.claim.sentence}: {one.alone.word} -> {word}")
# print(f"{len(judged)} claims were judged")
# ```
#
# Each line that is printed (there may be none) is a claim whose interval at 95 % is just narrow enough. With so many claims, some such lines are expected by luck alone.
# </details>
#
# **2. The jackknife.** A third way to the people's part of the error: leave out one person at a time, take the mean each time, and sum the squared deviations of these $P$ means from their own mean; times $(P - 1) / P$ that is the squared standard error. Does it agree with the other two for the claim of section 4?
#
# <details><summary>Answer</summary>
#
# ```python
# left_out = (D.sum() - D) / (queries.sum() - queries)
# jackknife = np.sqrt((P - 1) / P * ((left_out - left_out.mean()) ** 2).sum())
# print(f"jackknife {100 * jackknife:.3f} points, formula {100 * se_people:.3f}, bootstrap {100 * means.std():.3f}")
# ```
#
# They are within a few per cent of each other: three estimates of one thing. The jackknife needs no formula for the quantity at hand, and P means instead of ten thousand; the bootstrap also gives the shape of the distribution.
# </details>
#
# **3. Wrong pairs.** What is pairing by seed worth? Shift one arm's seeds by one, so that no pair shares its seed any more, and compare the standard deviation of the differences. Over all claims with two arms, does the right pairing make it smaller?
#
# <details><summary>Answer</summary>
#
# ```python
# right, shifted = [], []
# for one in two_arms:
#     first, second = (columns_of(group) for group in one.claim.groups)
#     both = sorted(set(first.index) & set(second.index))
#     if len(both) < 3:
#         continue
#     x, y = (main.people[which.loc[both]].sum().to_numpy() / queries.sum() for which in (first, second))
#     right.append((x - y).std(ddof=1))
#     shifted.append((x - np.roll(y, 1)).std(ddof=1))
# if right:
#     smaller = np.mean(np.array(right) < np.array(shifted))
#     print(f"{len(right)} claims: mean deviation {100 * np.mean(right):.2f} points in right pairs, {100 * np.mean(shifted):.2f} in wrong ones")
#     print(f"the right pairs vary less in {100 * smaller:.0f} % of them")
# ```
#
# Re-ranking pairs, which share the very model, profit most. With three or four seeds each single comparison is rough, so look at the mean over all claims.
# </details>
#
# ## Where next
#
# * The paper: [LUPerson, sections 5.2 and 5.3](https://arxiv.org/abs/2012.03753); how close the lab comes at full size, and what can still differ: [docs/reproducing.md](../docs/reproducing.md).
# * The code: [`lab/study/designs.py`](../lab/study/designs.py) (what is asked), [`estimates.py`](../lab/study/estimates.py) (error bars and verdicts, 100 lines), [`results.py`](../lab/study/results.py), [`work.py`](../lab/study/work.py) (how cells are shared); figures: [`lab/show/study.py`](../lab/show/study.py).
# * The words: [glossary](glossary.md).
# * The explorer reads a study's runs like all others: `lab app demo/study/runs`, page *Study*: [localhost:8501/study](http://localhost:8501/study), two cells beside each other: [localhost:8501/compare](http://localhost:8501/compare).
# * Back to the start with fresh eyes: [00 · A tour](00_tour.ipynb).
