# %% [markdown]
# # 08 · Comparing models: is the difference real?
#
# | | |
# |---|---|
# | **Goal** | Put an interval and a test behind a difference of two mAPs, by hand; know what these say and what they leave out; find out *where* two models differ; tell which published numbers may stand beside yours. |
# | **Needs** | Runs of the demo: `scratch-10`, `short-10`, `shipped-10`, and the colour histogram. What an AP is: [05](05_evaluation.ipynb). No GPU. |
# | **Makes** | Nothing: it reads results. |
# | **Minutes** | 50 to read, 1 to run; makes what is missing itself in 5 minutes. |
#
# "Ours 61.3, theirs 60.9." A table of a paper is read from its bold numbers, and a bold number may be luck: other test people, another seed, another way of counting. [The last notebook](07_attention.ipynb) asked *why* two crops are alike. This one asks when one **model** is better than another.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
from ipywidgets import Dropdown, IntSlider

from lab.demo import LABELS, Demo
from lab.errors import InputError
from lab.evaluate import statistics
from lab.evaluate.breakdown import break_down, most_changed
from lab.evaluate.camera_pairs import CameraPairs, take
from lab.evaluate.comparable import align, check_comparable
from lab.evaluate.compare import compare, counted_queries, intervals, paired
from lab.evaluate.metrics import evaluate_ranking
from lab.published import luperson_results, published_results
from lab.runs import Run, find_runs
from lab.show import comparison as show
from lab.show import curves, figures, published_tables, uncertainty
from lab.show.live import explore, in_notebook
from lab.show.pairs import camera_matrix_figure

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT)

# %% [markdown]
# ## 1 · Four rankings, two questions
#
# Four ways of ranking the same gallery for the same queries. A tenth of the labels for the three networks, which differ in where their trunk started: random weights, a very short pre-training, a long one.

# %%
names = ["baseline-histogram", "scratch-10", "short-10", "shipped-10"]
results = {name: demo.result(name) for name in names}
first = results[names[0]]
results = {name: align(first, result) for name, result in results.items()}  # queries in the same order
counted = counted_queries(first)  # those with a right crop in the gallery
pid = first.pid[counted]
ap = {name: result.ap[counted].astype(np.float64) for name, result in results.items()}
print(f"{len(pid)} queries of {len(np.unique(pid))} people")
pd.Series({name: f"{100 * values.mean():.1f} %" for name, values in ap.items()}, name="mAP").to_frame().T

# %%
curves.cmc_figure(results, title="The same queries, the same gallery, four rankings")

# %% [markdown]
# Two questions. **Is the long pre-training better than none?** And **does the short one change anything?** The means give an answer to both, as they always do. The question is what the answers are worth.
#
# ## 2 · The bootstrap: other people might have walked by
#
# The mAP is a mean over the queries that happen to be in the test set. Tomorrow others walk past the cameras. How much would it move? We have no other people, but we can pretend: draw from our own queries **with replacement**, as many as there are, and take the mean; a thousand times. The middle 95 % of these means are the **percentile interval** (the bootstrap is Efron's, 1979). By hand this is two lines.

# %%
values, rng = ap["shipped-10"], np.random.default_rng(0)
drawn = rng.integers(len(values), size=(1000, len(values)))  # each row: one other test set
over_queries = values[drawn].mean(axis=1)
low, high = np.quantile(over_queries, [0.025, 0.975])
print(f"mAP {100 * values.mean():.1f} %, from {100 * low:.1f} to {100 * high:.1f} if queries are drawn")

# %% [markdown]
# This is in many papers, and it is **too narrow**. The queries of one person are not independent: somebody in plain grey is hard to find from every camera. Five queries of one person are not five people. What the world draws are **people**, who bring all their queries along; so do the same with people (*cluster bootstrap*). The random numbers are those that the lab uses for seed 0, so that we can compare to the last digit.

# %%
people = np.unique(pid)
own = [values[pid == person] for person in people]  # everybody's APs
rng = np.random.default_rng([0, statistics.BOOTSTRAP])
drawn = rng.integers(len(people), size=(1000, len(people)))
over_people = np.array([np.concatenate([own[person] for person in row]).mean() for row in drawn])

# %%
sums, count = statistics.sum_by_person(pid, np.column_stack(list(ap.values())))  # (P, 4), (P,)
same = statistics.bootstrap_means(sums, count, draws=1000, seed=0)  # (1000, 4)
assert np.allclose(over_people, same[:, names.index("shipped-10")])
table = intervals(results["shipped-10"], draws=1000, seed=0)  # mean, low, high of all metrics
assert np.allclose(table.loc["mAP", ["low", "high"]], np.quantile(over_people, [0.025, 0.975]), atol=1e-6)
(100 * table).round(1)

# %%
two = {"queries drawn": over_queries, "people drawn": over_people}
ends = {name: tuple(np.quantile(sample, [0.025, 0.975])) for name, sample in two.items()}
uncertainty.sampling_figure(two, ends, {"mAP": values.mean()}, "A thousand other test sets for shipped-10")

# %%
wider = np.diff(ends["people drawn"])[0] / np.diff(ends["queries drawn"])[0]
print(f"the interval over people is {wider:.2f} times as wide as that over queries:")
print(f"{len(pid)} queries of {len(people)} people are worth about {len(pid) / wider**2:.0f} independent ones")

# %% [markdown]
# The lab's version does all draws with one matrix product; it is three lines, too:

# %%
print(inspect.getsource(statistics.bootstrap_means))

# %% [markdown]
# > **Quick question.** 1,000 draws or 10,000? What does their number change, and what not?
# > <details><summary>Answer</summary>Only how exactly the ends of the interval are computed (<i>Monte Carlo error</i>): with other random numbers they move a little, ten times as many draws make that about three times less. The interval does not get narrower with more draws; for that one needs more people. The lab's default is 10,000.</details>

# %%
again = statistics.interval(statistics.bootstrap_means(sums, count, 1000, seed=1))[:, names.index("shipped-10")]
for seed, (low, high) in enumerate((ends["people drawn"], again)):
    print(f"random numbers {seed}: {100 * low:.2f} to {100 * high:.2f}")

# %% [markdown]
# ## 3 · Paired: the same queries
#
# Now a *difference*. Both models answered the **same** queries. A hard query is hard for both, and in the difference this common part cancels. With $\bar a$ and $\bar b$ the mAPs of two models, which vary with the people who are drawn:
#
# $$\operatorname{Var}(\bar b - \bar a) = \operatorname{Var}(\bar a) + \operatorname{Var}(\bar b) - 2 \operatorname{Cov}(\bar a, \bar b).$$
#
# To use it, draw **one** set of people and take both means over it. If each model gets people of its own, the covariance is thrown away. The more alike two models are, the more this matters, so we look at two pairs: `scratch-10` against `shipped-10`, and `shipped-10` against **itself with re-ranking** ([06](06_reranking.ipynb)).

# %%
reranked = align(first, demo.result("shipped-10", rerank=True))
columns = [ap["scratch-10"], ap["shipped-10"], reranked.ap[counted].astype(np.float64)]
sums3, count = statistics.sum_by_person(pid, np.column_stack(columns))
once = statistics.bootstrap_means(sums3, count, 10_000, seed=0)  # the same people for all three
other = statistics.bootstrap_means(sums3, count, 10_000, seed=1)  # and other people
pair_of = {"shipped-10 - scratch-10": (1, 0), "re-ranked - shipped-10": (2, 1)}

# %%
rows = {}
for name, (b, a) in pair_of.items():
    one, two = once[:, b] - once[:, a], once[:, b] - other[:, a]
    spread = np.sqrt(once[:, a].var() + once[:, b].var() - 2 * np.cov(once[:, a], once[:, b], ddof=0)[0, 1])
    assert np.isclose(one.std(), spread)  # the formula
    width = [100 * np.diff(statistics.interval(each))[0] for each in (one, two)]
    correlation = np.corrcoef(once[:, a], once[:, b])[0, 1]
    rows[name] = {"correlation": correlation, "paired width": width[0], "unpaired width": width[1]}
pd.DataFrame(rows).T.round(2)

# %%
name, (b, a) = "re-ranked - shipped-10", pair_of["re-ranked - shipped-10"]
two = {"unpaired: people of their own": once[:, b] - other[:, a], "paired: the same people": once[:, b] - once[:, a]}
ends = {each: tuple(statistics.interval(sample)) for each, sample in two.items()}
POINTS = "difference of mAP (points)"
uncertainty.sampling_figure(two, ends, {"no difference": 0.0}, f"{name}: why one pairs", POINTS)

# %% [markdown]
# Same data, same difference. An unpaired comparison of two mAPs, which is all that a table in a paper allows, can miss what a paired one sees. (Whether only one of the two intervals above contains 0 depends on your run; that the paired one is narrower follows from the correlation.) It is the reason why a result should be kept **query by query**: `queries.csv` in every run folder.
#
# Does it also follow that intervals of two models which overlap mean "no difference"? Look at the four means:

# %%
every = compare(results, demo.data.name)
show.interval_figure(every.table, "Each model's own interval")


# %% [markdown]
# > **Quick question.** Two models have intervals that overlap. Is their difference undecided?
# > <details><summary>Answer</summary>Not necessarily. Each interval contains the common part (hard and easy people), which cancels in the difference. Overlap of single intervals is no test; the interval of the <i>difference</i> is.</details>
#
# ## 4 · The permutation test
#
# The interval asked how large the difference might be. A **test** asks: could it be nothing at all? Suppose that for every person it is chance which model got which result. (This is a little more than "equally good in the mean": a person's difference must be as likely upwards as downwards, by any amount.) Then we may *swap* the two for any person, i.e. flip the sign of that person's difference. Do it at random for everybody, many times: this is how large the difference gets **by chance alone**. The p-value is the share of flips with a difference as far from 0 as the one that was seen.

# %%
def differences(a, b):
    """Sum of AP differences of each person: (P,)."""
    return sums[:, names.index(b)] - sums[:, names.index(a)]


def flip(difference, draws=10_000):
    """Mean differences if signs are flipped at random, with the lab's random numbers for seed 0."""
    rng = np.random.default_rng([0, statistics.FLIPS])
    signs = 2.0 * rng.integers(0, 2, size=(draws, len(difference)), dtype=np.int8) - 1
    return signs @ difference / len(pid)


# %%
found = {}
for a, b in (("scratch-10", "short-10"), ("scratch-10", "shipped-10")):
    seen, flipped = differences(a, b).sum() / len(pid), flip(differences(a, b))
    p = (1 + np.sum(np.abs(flipped) >= abs(seen) - 1e-12)) / (1 + len(flipped))
    by_lab = paired(results[a], results[b], names=(a, b))
    few = len(people) <= 200  # then the lab makes its flips in one go, as we do: the same random numbers
    assert np.isclose(p, by_lab.p_value, rtol=0, atol=1e-9 if few and not by_lab.exact else 0.01)
    print(f"{b} - {a}: {100 * seen:+.1f} points, p = {p:.4f} by hand, {by_lab.p_value:.4f} by the lab")
    found[a, b] = seen, flipped

# %% [markdown]
# (The seen arrangement counts as one of the flips, hence the 1 +; so p is never 0.)

# %%
seen, flipped = found["scratch-10", "short-10"]
marks = {"seen": seen, "as far": -seen}
chance = {"signs flipped at random": flipped}
uncertainty.sampling_figure(chance, None, marks, "short-10 - scratch-10 if it were chance", POINTS)

# %%
seen, flipped = found["scratch-10", "shipped-10"]
marks = {"seen": seen, "as far": -seen}
chance = {"signs flipped at random": flipped}
uncertainty.sampling_figure(chance, None, marks, "shipped-10 - scratch-10 if it were chance", POINTS)

# %% [markdown]
# The lab puts both together into a sentence that one may quote:

# %%
for a, b in found:
    print(paired(results[a], results[b], names=(a, b)).sentence())

# %% [markdown]
# What **p** says and does not:
#
# * p = 0.03 says: *if* it were chance who got what, a difference at least this large would come up in 3 of 100 such test sets.
# * It does **not** say that they are equally good with probability 3 %.
# * A large p does **not** say that they are equal. It says that these people do not decide it (section 8: how many would).
# * A small p does not say that the difference is **large**, or worth its cost. That is read from the interval.
# * It speaks of these **trained weights**, not of the method (section 6).
#
# ## 5 · Many comparisons
#
# Whoever tests twenty models against a baseline at p < 0.05 expects one "significant" difference among twenty that are none. We can watch it: let the lab's own flips play twenty comparisons in which there is **chance only**. (Independent ones. Models that share a baseline share its luck, and then a false alarm is somewhat rarer than here.)

# %%
null = np.abs(flip(differences("scratch-10", "shipped-10"), 8000))
p_of = 1 - np.searchsorted(np.sort(null), null, side="left") / len(null)  # p of each, among all
sets = p_of.reshape(400, 20)  # 400 papers with 20 models each
raw = (sets.min(axis=1) < 0.05).mean()
corrected = np.mean([statistics.holm(each).min() < 0.05 for each in sets])
print(f"papers that announce at least one improvement: {100 * raw:.0f} % (expected {100 * (1 - 0.95**20):.0f} %)")
print(f"with Holm's correction: {100 * corrected:.0f} % (meant to be at most 5 %)")

# %% [markdown]
# **Holm's correction** (1979): sort the m p-values; multiply the smallest by m, the next by m - 1, and so on; never let a corrected value be smaller than the one before. By hand, for the three models against the colour histogram:

# %%
p = np.array([pair.p_value for pair in every.pairs if pair.metric == "mAP"])
by_hand, before = np.empty(len(p)), 0.0
for place, number in enumerate(np.argsort(p)):
    before = max(before, min(1.0, (len(p) - place) * p[number]))
    by_hand[number] = before
assert np.allclose(by_hand, statistics.holm(p))
pd.DataFrame({"p": p, "Holm": by_hand}, index=names[1:]).round(4)

# %% [markdown]
# `lab compare RUN RUN …` prints all of this. With up to three runs every pair is tested, with more each against the first:

# %%
print(show.describe_comparison(every))

# %% [markdown]
# > **Quick question.** You trained with 12 learning rates, took the one with the best mAP *on the test queries*, and its paired test against the baseline says p = 0.01. What is wrong?
# > <details><summary>Answer</summary>The best of twelve is the luckiest of twelve, and the test does not know of the other eleven. Choose on a validation split of the training people; then one comparison is left for the test set. Otherwise correct for all twelve. (No correction helps against choosing after a look at the test set without saying so.)</details>
#
# ## 6 · What the interval does not contain: the seed
#
# All of the above resampled people. Train again with another **seed** (other initial weights of all that is not pre-trained, other batches, and at 10 % other people with labels) and the same test people give another number. How much? Three seeds from each start were trained on the drawn people ([table](../benchmarks/results/synthetic-10.md)); notebook 10 does so for all claims of the paper:

# %%
seeds = pd.read_csv("../benchmarks/results/synthetic-10.csv")
plain = seeds[~seeds["rerank"]].pivot(index="seed", columns="start", values="mAP")
spread = plain.std(ddof=1)
plain.round(1)

# %%
own = every.table[every.table["metric"] == "mAP"].set_index("run")
half = {start: 50 * (own.loc[f"{start}-10", "high"] - own.loc[f"{start}-10", "low"]) for start in plain}
for start in plain:
    over_people = half[start] / 1.96
    print(
        f"{start:8s} standard deviation: seeds {spread[start]:.1f} points (of {len(plain)}), people {over_people:.1f}"
    )
gap = plain["shipped"] - plain["scratch"]
print(f"shipped - scratch, seed by seed: {', '.join(f'{value:+.1f}' for value in gap)}")

# %% [markdown]
# (The people's part is that of your runs, a quarter of the width of their interval; the seeds' runs were trained a little longer.) Seeds from random weights differ by up to ten points in that table, those from the shipped trunk by less than one. (Three runs each, and what a seed changes is not the same: from the shipped trunk only the heads are drawn anew.) If the two doubts have nothing to do with each other, they add up as squares (that a seed may be better for some people than for others is left out here): $\sigma^2 = \sigma^2_{\text{people}} + \sigma^2_{\text{seeds}} / \text{number of seeds}$. An interval from one run has only the first term. So the claim "*this model* is better" can be made from two runs, the claim "*this method* is better" **cannot**: it needs several seeds of both. (Three are few: a standard deviation from three values is itself uncertain by half.)
#
# ## 7 · Where do they differ?
#
# A mean is one number; the fix is elsewhere. Every query is a point here: AP of `scratch-10` to the right, of `shipped-10` upwards.

# %%
a, b = "scratch-10", "shipped-10"
two = compare({a: results[a], b: results[b]})
folders = {name: demo.run(name).folder / "eval" / demo.data.name for name in (a, b)}
detail = break_down(two, folders)[0]
show.ap_scatter(detail.queries, (a, b), "AP of each query")

# %% [markdown]
# Even a model that is far better in the mean loses queries. **Failure groups** say what kind: right or wrong at rank 1, and, for the wrong ones, who stands there instead.

# %%
groups = detail.failures[detail.failures["by"].isin(["at rank 1", "at rank 1 instead"])]
names_of = {"right in A only": f"right in {a} only", "right in B only": f"right in {b} only"}
groups = groups.replace({"run": {"A": a, "B": b}, "group": names_of}).set_index(["by", "run", "group"])
titles = {"share": "share, %", "ap_a": f"mAP in {a}, %", "ap_b": f"mAP in {b}, %"}
groups.mul([1, 100, 100, 100]).round(1).rename(columns=titles)


# %% [markdown]
# "Other person, own camera" at rank 1 means: the model fell for the *place*. Now look at those that lost most, and at the ones that gained most: the query, and what each model put first.

# %%
def show_changed(rows, title):
    """A row each: queries, first entry in A, first entry in B."""
    images, captions = [*map(demo.picture, rows["path"])], [f"{100 * gain:+.0f}" for gain in rows["gain"]]
    for result in (results[a], results[b]):
        images += [demo.picture(result.gallery_path[result.index[q, 0]]) for q in rows.index]
        captions += ["✓" if result.match[q, 0] else "✗" for q in rows.index]
    return figures.contact_sheet(images, captions, len(rows), title, ["query", a, b])


gained, lost = most_changed(detail.queries, 8)
show_changed(lost, f"Lost most in {b}: change of AP in points, and who stood first")

# %%
show_changed(gained, f"Gained most in {b}")

# %% [markdown]
# And by **pairs of cameras**: each query searched in the crops of one camera alone (rows: the query's camera). First `shipped-10` as it is, then the difference.

# %%
matrices = {name: CameraPairs.load(folder).matrix("mAP") for name, folder in folders.items()}
camera_matrix_figure(matrices[b], f"{b}: mAP by camera")

# %%
uncertainty.difference_matrix_figure(matrices[b] - matrices[a], f"{b} - {a} by camera")


# %% [markdown]
# Each cell is a mean over the few people who passed both cameras, so single cells are noisy; whole rows and columns say more. Section 5 holds here too: among thirty cells some will stand out by chance.
#
# > **Quick question.** A matrix shows that camera 4 loses 6 points, all others gain. May you report "hurts at camera 4" with the p-value of that row?
# > <details><summary>Answer</summary>Not with that p: you chose the row because it stood out. Either correct for all rows, or say it as a guess and test it on other people.</details>
#
# ## 8 · How many people would it take?
#
# "Undecided" is about the test set as much as about the models. Let $\sigma$ be the standard deviation of a *person's* difference. The mean over $n$ people has standard error $\sigma / \sqrt n$. To see a true difference $\delta$ at p < 0.05 in 80 % of all tries (the **power**), the usual normal approximation asks for the following. (1.96 is what a standard normal variable exceeds in 2.5 % of all cases, one of the two sides of 5 %; 0.84 is what it stays below in 80 %.)
#
# $$n \approx \Bigl(\frac{(1.96 + 0.84)\,\sigma}{\delta}\Bigr)^2 .$$

# %%
def person_effects(a, b):
    """Each person's part of the difference of the means, centred: (P,); a person with more queries counts more."""
    sums_ab = differences(a, b)
    return (sums_ab - sums_ab.sum() / count.sum() * count) / count.mean()


effects = {f"{b} - {a}": person_effects(a, b) for a, b in found}
for name, effect in effects.items():
    sigma = effect.std(ddof=1)
    needed = (2.8 * sigma / 0.01) ** 2
    print(f"{name}: people's differences vary by {100 * sigma:.0f} points: {needed:,.0f} people to see 1 point")

# %% [markdown]
# Do not believe a formula that can be tried. We draw $n$ people from our own, add a true difference of 5 points, and count how often the test (here its normal approximation) sees it:

# %%
effect, delta, rng = effects["short-10 - scratch-10"], 0.05, np.random.default_rng(0)
needed = (2.8 * effect.std(ddof=1) / delta) ** 2
for n in (int(needed / 4), int(needed / 2), round(needed), int(2 * needed)):
    tries = delta + effect[rng.integers(len(effect), size=(2000, max(2, n)))]
    z = tries.mean(axis=1) / (tries.std(axis=1, ddof=1) / np.sqrt(tries.shape[1]))
    formula = " (the formula: 80 %)" if n == round(needed) else ""
    print(f"{n:5d} people: {100 * np.mean(np.abs(z) > 1.96):.0f} % of the tries see 5 points{formula}")


# %% [markdown]
# (With a dozen people the normal approximation is itself off: it cries "seen" too often. The permutation test does not have this fault.)
#
# Widths fall with $1/\sqrt n$: **four times the people for half the interval**. Dots: intervals from random subsets of our people; dashed: the rule, continued to the size of real test sets (Market-1501 has 750 people).

# %%
def width(people, name, seed=0):
    """Width of the paired interval from a random subset of people."""
    b, a = name.split(" - ")
    chosen = np.random.default_rng(seed).permutation(len(sums))[:people]
    means = statistics.bootstrap_means(sums[chosen], count[chosen], 1000, seed)
    return np.diff(statistics.interval(means[:, names.index(b)] - means[:, names.index(a)]))[0]


# %%
sizes, far, lines = np.unique(np.geomspace(10, len(people), 5).astype(int)), np.geomspace(10, 3000, 30), {}
for name in effects:
    lines[name] = sizes, [np.mean([width(n, name, seed) for seed in range(5)]) for n in sizes]
    lines[f"rule, {name}"] = far, width(len(people), name) * np.sqrt(len(people) / far)
uncertainty.width_figure(lines, "How wide is the interval of a difference?")


# %% [markdown]
# Touch it: choose a pair and how many of the people the test set has. Watch when the interval leaves 0.

# %%
def draw(pair, n):
    b, a = pair.split(" - ")
    chosen = np.random.default_rng(0).permutation(len(sums))[:n]
    means = statistics.bootstrap_means(sums[chosen], count[chosen], 2000, 0)
    difference = means[:, names.index(b)] - means[:, names.index(a)]
    ends = {f"{n} people": tuple(statistics.interval(difference))}
    return uncertainty.sampling_figure({f"{n} people": difference}, ends, {"no difference": 0.0}, pair, POINTS)


n = IntSlider(value=len(people) // 3, min=5, max=len(people))
explore(draw, pair=Dropdown(options=list(effects), value=list(effects)[-1]), n=n)

# %% [markdown]
# ## 9 · The published tables, beside ours
#
# Figures of LUPerson and its successors come with the lab ([`lab/published.py`](../lab/published.py), `lab/assets/paper_results.csv`); column `provenance` says whether a number was read in a released repository (*repo*) or as another publication quotes it (*2nd*). Here is what LUPerson reports for its central claim, the better start, on Market-1501, and what this folder has:

# %%
found_runs = {run.name for run in find_runs(demo.folder / "runs") if demo.data.name in run.evals()}
cells = [(start, percent) for start in ("scratch", "short", "shipped") for percent in ("10", "100")]
cells = [(start, percent) for start, percent in cells if f"{start}-{percent}" in found_runs]
values = [100 * Run(demo.folder / "runs" / f"{s}-{p}").result(demo.data.name).mAP for s, p in cells]
starts, ratios = [LABELS[start] for start, _ in cells], [int(percent) / 100 for _, percent in cells]
ours = pd.DataFrame({"start": starts, "ratio": ratios, "mAP": values})
where = "drawn people, small network" if SIZE == "tiny" else demo.data.name
title = "What the starting point is worth"
published_tables.published_figure(published_results(), ours, our_data=where, title=title)

# %% [markdown]
# Same question, and the panels may be compared in their **shape** (on Market-1501 a better start helps most where labels are few). Their **numbers** may not: at size tiny the people, the network, the crops, the number of steps and the pre-training are all others. 64.6 % on the left and whatever stands on the right say nothing about each other.
#
# How far may numbers from *one* paper be compared? The same network and start, once as the paper prints it and once as measured with the weights that its authors released; once more with re-ranking; once with a deeper trunk:

# %%
rows = pd.concat([luperson_results("market1501", depth) for depth in (50, 101)])
rows = pd.concat([rows, luperson_results("market1501", 50, pretraining="ImageNet sup.")])
rows[["kind", "pretraining", "backbone", "rerank", "mAP", "rank1", "provenance"]].reset_index(drop=True)

# %%
value = {(row.kind, row.pretraining, row.backbone, row.rerank): row.mAP for row in rows.itertuples()}
lup = value["released", "LUP unsup.", "resnet50", "no"]
paper = value["paper", "LUP unsup.", "resnet50", "no"]
gains = {
    "better start (ImageNet labels → LUPerson, paper)": paper - value["paper", "ImageNet sup.", "resnet50", "no"],
    "deeper trunk (ResNet-50 → 101, released)": value["released", "LUP unsup.", "resnet101", "no"] - lup,
    "re-ranking (released)": value["released", "LUP unsup.", "resnet50", "yes"] - lup,
    "released weights instead of the paper's own": lup - paper,
}
pd.Series(gains, name="points of mAP on Market-1501").round(2).to_frame()

# %% [markdown]
# Re-ranking, which changes no weight, moves this number more than the better start does. Whoever puts a re-ranked number beside one that is not, compares nothing. Protocol can do the same. Here is what three decisions of the **evaluation** do to one and the same set of features, ours:

# %%
q, g = (demo.run("shipped-10").features(demo.data.name, part) for part in ("query", "gallery"))
plain = replace(evaluate_ranking(q, g), settings=demo.result("shipped-10").settings)
trapezoid = replace(evaluate_ranking(q, g, ap="trapezoid"), settings=plain.settings | {"ap": "trapezoid"})
smaller = replace(evaluate_ranking(q, take(g, np.flatnonzero(g.pid != 0))), settings=plain.settings)
cases = {"AP as a trapezoid": trapezoid, "gallery without distractors": smaller}
cases["re-ranked"] = demo.result("shipped-10", rerank=True)
changes = {case: 100 * (result.mAP - plain.mAP) for case, result in cases.items()}
pd.Series(changes, name="change of mAP, points").round(1).to_frame()


# %% [markdown]
# `lab compare` refuses what means different things, and says in what it differs; another *method* is let through with a note:

# %%
def may_be_compared(case, result):
    """What the lab says about a result beside the plain one."""
    try:
        notes = check_comparable(plain, result, ("plain", case))
        return "compared, with the note: " + "; ".join(notes)
    except InputError as refused:
        return f"refused: {refused}"


# %%
for case, result in cases.items():
    print(f"{case}\n   {may_be_compared(case, result)}\n")

# %% [markdown]
# A published number comes without its queries, so the lab cannot check it; you have to. **The checklist:**
#
# | ask | because | who can check it |
# |---|---|---|
# | the same **test set**, edition and counts? | CUHK03 has two protocols and two ways of boxing, MSMT17 two editions | `lab data check`, `lab compare` |
# | the same **gallery**, distractors in, junk out? | fewer wrong crops, higher numbers (measured above) | `lab compare` |
# | the **camera rule**, one crop or all crops per query? | easy matches from the own camera; multi-query pools the features of all crops of the query's person under its camera | `lab compare` |
# | the same **AP** (step or trapezoid)? queries without a match left out? | measured above and in [05](05_evaluation.ipynb) | `lab compare` |
# | **re-ranking**, query expansion, flip test (the feature of the mirrored crop is added)? | several points without any training | noted by `lab compare` |
# | **image size**, **backbone**? | 384 x 128 against 256 x 128; ResNet-50 against -101 or a ViT | noted as far as the result says it |
# | **pre-training data**: how many crops, of whom, with labels? test images among them? | the successors below used other crops, or noisy labels | you; `lab data overlap` for images |
# | **training data**: with the validation people? other data sets? | MSMT17 with and without its validation part | you |
# | chosen on the **test set**? how many **seeds**? | sections 5 and 6 | you: read the code |
#
# With that list in hand, the successors on Market-1501 without re-ranking. Which of these lines differ in *one* thing only?

# %%
full = published_results().query("dataset == 'market1501' and setting == 'full' and rerank == 'no'")
full[["source", "pretraining", "backbone", "mAP", "rank1", "provenance"]].sort_values("mAP").reset_index(drop=True)

# %% [markdown]
# > **Quick question.** The top of that table is several points above LUPerson. How much of this is better pre-training?
# > <details><summary>Answer</summary>The table cannot say. The upper lines have a transformer instead of a ResNet-50, and some larger inputs and other data as well. Only lines that share the backbone, and that were fine-tuned in the same way, isolate the pre-training: the ResNet-50 ones. And even there the fine-tuning may differ.</details>
#
# ## Exercises
#
# **1. The narrow interval.** How often does the interval over *queries* miss the truth, if people are what varies? Take your test people as the whole world, draw test sets of as many people from it, and count how often each kind of interval contains the world's mAP. (200 test sets are enough.)
#
# <details><summary>Answer</summary>
#
# ```python
# rng, hits = np.random.default_rng(0), {"queries": 0, "people": 0}
# values, world = ap["shipped-10"], ap["shipped-10"].mean()
# own = [values[pid == person] for person in people]
# for _ in range(200):
#     chosen = [own[i] for i in rng.integers(len(own), size=len(own))]
#     flat = np.concatenate(chosen)
#     by_query = flat[rng.integers(len(flat), size=(300, len(flat)))].mean(axis=1)
#     s, c = np.array([each.sum() for each in chosen]), np.array([len(each) for each in chosen])
#     picks = rng.integers(len(own), size=(300, len(own)))
#     by_person = s[picks].sum(axis=1) / c[picks].sum(axis=1)
#     for kind, sample in (("queries", by_query), ("people", by_person)):
#         low, high = np.quantile(sample, [0.025, 0.975])
#         hits[kind] += low <= world <= high
# print({kind: f"{hit / 2:.0f} % contain the truth (meant: 95 %)" for kind, hit in hits.items()})
# ```
#
# The interval over queries holds less often than it claims. The one over people comes closer; with few people it is still a little too narrow, and the lab warns below 20.
# </details>
#
# **2. The best of many.** Take ten copies of `scratch-10` with a little noise on every AP (standard deviation 0.05, as if ten seeds). Report the best. By how much does its mAP beat the mean of the ten, and what does the paired test of best against worst say, without and with correction for the 45 pairs?
#
# <details><summary>Answer</summary>
#
# ```python
# rng = np.random.default_rng(1)
# base = sums[:, names.index("scratch-10")] / count
# copies = np.clip(base + rng.normal(0, 0.05, (10, len(base))), 0, 1)  # noise per person: a seed shifts all their queries
# means = copies.mean(axis=1)
# best, worst = copies[means.argmax()], copies[means.argmin()]
# p = statistics.sign_flip_test((best - worst)[:, None])[0][0]
# print(f"best {100 * means.max():.1f}, mean of ten {100 * means.mean():.1f}, worst {100 * means.min():.1f}")
# print(f"p = {p:.3f} for the chosen pair, at most {min(1, 45 * p):.2f} by Holm for 45 pairs")
# ```
#
# Nothing distinguishes the ten but noise, and still the best looks better. Choosing the pair after the look is what breaks the test.
# </details>
#
# **3. Rank-1 or mAP?** Which of the two metrics decides a difference with fewer people? Compare, for `shipped-10` and its re-ranked result, difference, interval and p of both. (`paired(a, b, "rank-1")`.)
#
# <details><summary>Answer</summary>
#
# ```python
# result = results["shipped-10"]
# for metric in ("mAP", "rank-1"):
#     pair = paired(result, reranked, metric, names=("plain", "re-ranked"))
#     print(pair.sentence())
#     print(f"   difference / half width: {abs(pair.difference) / ((pair.high - pair.low) / 2):.2f}")
# ```
#
# Rank-1 is 0 or 1 per query and so varies more; the same difference needs more people. Re-ranking is also a case where the two may disagree: it moves all right crops forward and may push the first one back.
# </details>
#
# ## Where next
#
# * The paper: section 5, of which the figure above shows the small-scale setting ([Fu et al., 2021](https://arxiv.org/abs/2012.03753)); how close the lab comes, and what can still differ: [docs/reproducing.md](../docs/reproducing.md).
# * The code: [`lab/evaluate/statistics.py`](../lab/evaluate/statistics.py), [`compare.py`](../lab/evaluate/compare.py), [`comparable.py`](../lab/evaluate/comparable.py), [`breakdown.py`](../lab/evaluate/breakdown.py); figures: [`lab/show/comparison.py`](../lab/show/comparison.py), [`uncertainty.py`](../lab/show/uncertainty.py).
# * The command: `lab compare demo/runs/scratch-10 demo/runs/shipped-10`; all of it as CSV: `--out FILE.csv`.
# * The explorer: `lab app demo/runs`, page *Compare two*: [localhost:8501/compare](http://localhost:8501/compare), sections 3 and 7 for any two runs; page *Overview*: [localhost:8501](http://localhost:8501/), all runs beside each other.
# * Next: [09 · Your own data](09_your_own_data.ipynb).
