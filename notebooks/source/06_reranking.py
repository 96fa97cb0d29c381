# %% [markdown]
# # 06 · Re-ranking: ask the neighbours
#
# | | |
# |---|---|
# | **Goal** | Build k-reciprocal re-ranking by hand, step by step, for one query; see what each of its three numbers does; know when it helps, when it hurts, and why its results must not be mixed with plain ones. |
# | **Needs** | The demo's runs with the features that they left (`shipped-100` most of all). Notebook 05. No GPU, no training. |
# | **Makes** | Nothing: it re-ranks features that are there. |
# | **Minutes** | 45 to read, 1 to run; makes what is missing itself in about 8 minutes. |
#
# In [05](05_evaluation.ipynb) a rank list was final: features in, order out. But the order holds more than it uses. If crop A is near the query, and *A's own* nearest crops are the query's nearest crops too, then A fits into the company; if A is near the query but lives among quite other crops, it is suspicious. **Re-ranking** asks the neighbours. It needs no label and no training, and it lifted LUPerson's published mAP on MSMT17 from 66.1 to 79.9 %.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
import inspect

import numpy as np
import pandas as pd
import torch
from ipywidgets import FloatSlider, IntSlider

from lab.demo import BASELINES, FINETUNED, Demo
from lab.evaluate import rerank
from lab.evaluate.breakdown import per_query_table
from lab.evaluate.camera_pairs import take
from lab.evaluate.expansion import query_expansion
from lab.evaluate.metrics import count_matches, evaluate_ranking
from lab.published import published_results
from lab.show import comparison, figures, gains, neighbours
from lab.show.lines import lines_figure
from lab.show.live import explore, in_notebook

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT)

# %% [markdown]
# ## 1 · Before and after
#
# Re-ranking in the lab is one flag of `lab evaluate`, `--rerank`, and the demo evaluated every run with it and without. First the effect, then how it comes about. Here is the query of `shipped-100` that gains most:

# %%
run = demo.run("shipped-100")
query, gallery = (run.features(demo.data.name, part) for part in ("query", "gallery"))
before, after = demo.result("shipped-100"), demo.result("shipped-100", rerank=True)
gain = after.ap - before.ap
people = np.unique(query.pid)[:60]  # the people of sections 2 to 7: in the demo all, at size "paper" some
asked = np.flatnonzero(np.isin(query.pid, people))
best = int(asked[np.nanargmax(gain[asked])])
figures.rank_list_figure(before, best, 10, demo.picture, "Before")

# %%
figures.rank_list_figure(after, best, 10, demo.picture, "After re-ranking")

# %% [markdown]
# The features are the same; only the *distances* were made anew. The recipe ([Zhong et al., CVPR 2017](https://arxiv.org/abs/1701.08398)) has five steps:
#
# 1. Who is among my $k_1$ nearest, **and I among theirs**? The *k-reciprocal neighbours*.
# 2. Let the set grow a little by friends of friends who fit in.
# 3. Describe each crop by its set, near members with more weight, and compare two crops by how much their sets **overlap** (Jaccard distance).
# 4. Smooth each description over its $k_2$ nearest crops.
# 5. Mix the new distance with the old one, $\lambda$ of the old.
#
# We go through them with numbers that are small enough to draw: $k_1 = 10$, $k_2 = 3$. The published values are $k_1 = 20$, $k_2 = 6$, $\lambda = 0.3$.

# %%
K1, K2, LAMBDA = 10, 3, 0.3
kept = np.isin(gallery.pid, people)
kept[np.flatnonzero(gallery.pid == 0)[:120]] = True  # and passers-by
q, g = take(query, asked), take(gallery, np.flatnonzero(kept))
p = int(np.searchsorted(asked, best))  # our query among these
print(f"{len(q.pid)} queries and {len(g.pid)} gallery crops; our query has number {p}")

# %% [markdown]
# ## 2 · Mutual neighbours
#
# Queries and gallery are thrown together: everybody may be everybody's neighbour. Crops are numbered, queries first. $N(p, k)$ are the $k$ crops nearest to $p$. The **k-reciprocal neighbours** are those who return the favour:
#
# $$R(p, k) = \{\, g \in N(p, k) \;:\; p \in N(g, k) \,\}$$
#
# (In the code a crop is also its own first neighbour, which is why lists have $k + 1$ entries.) By hand, and by the lab:

# %%
values = torch.from_numpy(np.concatenate([q.values, g.values]))
pid, path = np.concatenate([q.pid, g.pid]), np.concatenate([q.path, g.path])
# of each crop: its nearest (numbers, distances), and the largest distance to any crop, by which section 4 divides
lists, distances, furthest = rerank.k_nearest(values, K1 + 1, "cosine")
near = lists.numpy()

mutual = [crop for crop in near[p] if p in near[crop]]
print(f"the {K1} nearest of {p}: {near[p, 1:]}\nthose who have it too: {np.array(mutual[1:])}")
assert mutual == near[p][rerank.reciprocal(lists)[p].numpy()].tolist()

# %%
far = 1 - (values @ values.T).numpy()
others = near[p, 1:]
facts = {
    "mutual": np.isin(others, mutual),
    "right": pid[others] == pid[p],
    "back": [(far[crop] < far[crop, p]).sum() for crop in others],  # it stands itself at place 0
    "query_image": demo.picture(path[p]),
}
pictures = [demo.picture(one) for one in path[others]]
neighbours.reciprocal_figure(pictures, **facts, title=f"The {K1} nearest crops, and where each of them ranks the query")

# %% [markdown]
# Some of them may be crops by the query's own camera, or other queries. That is meant: the camera rule is about what *counts*, in the end; as company they are welcome.
#
# Is it true that being mutual is a sign of being right? Over all crops of people that are searched for, and their lists:

# %%
searched = np.flatnonzero(pid > 0)
right = pid[near[searched, 1:]] == pid[searched, None]
both_ways = rerank.reciprocal(lists)[searched, 1:].numpy()
print(f"of {right.sum():,} right neighbours {100 * both_ways[right].mean():.0f} % are mutual")
print(f"of {(~right).sum():,} wrong neighbours {100 * both_ways[~right].mean():.0f} % are mutual")
print(f"right among all neighbours {100 * right.mean():.0f} %, among mutual ones {100 * right[both_ways].mean():.0f} %")


# %% [markdown]
# > **Quick question.** $p$ is $g$'s nearest crop, but $g$ is only number 14 for $p$. How can that be?
# > <details><summary>Answer</summary>p lives in a crowd, g in a lonely place. Thirteen crops are nearer to p than g; for g, far from everybody, p is still the nearest. "Nearest" is not symmetric, though the distance is. A loner's neighbours are mostly one-sided for this reason. The opposite of a loner is a <i>hub</i>, which is near to everybody and can return few of the favours (exercise 3).</details>
#
# ## 3 · Friends of friends
#
# Mutual neighbours are trustworthy, but strict: a person seen from behind may be missing because the list was full. So the set may grow. Each member $g$ brings its own, *half-sized* set $R(g, k_1/2)$, and it is let in if more than two thirds of it are members already:
#
# $$R^*(p, k_1) = R(p, k_1) \cup \bigcup_{g \,\in\, R(p, k_1)} \Big\{ R(g, \tfrac{k_1}{2}) \;:\; \big| R(p, k_1) \cap R(g, \tfrac{k_1}{2}) \big| > \tfrac23 \big| R(g, \tfrac{k_1}{2}) \big| \Big\}$$

# %%
def mutual_set(crop, k):
    return {other for other in near[crop, : k + 1].tolist() if crop in near[other, : k + 1]}


def expanded_set(crop):
    own = mutual_set(crop, K1)
    halves = [mutual_set(member, round(K1 / 2)) for member in own]
    return own.union(*(half for half in halves if 3 * len(own & half) > 2 * len(half)))


# %%
half = round(K1 / 2) + 1  # the crop itself included
both_ways, both_ways_half = rerank.reciprocal(lists), rerank.reciprocal(lists[:, :half])
keys = rerank.expanded_neighbours(lists, both_ways, both_ways_half, slice(p, p + 1))
assert expanded_set(p) == set((keys % len(pid)).tolist())  # the lab names a pair (crop, member) by one number

# %%
own = mutual_set(p, K1)
members = [crop for crop in near[p, 1:].tolist() if crop in own]  # nearest first
halves = [mutual_set(member, round(K1 / 2)) for member in members]
added = [[demo.picture(path[crop]) for crop in sorted(half - own)] for half in halves]
common, size = [len(own & half) for half in halves], [len(half) for half in halves]
pictures = [demo.picture(path[member]) for member in members]
neighbours.expansion_figure(pictures, common, size, added, f"From {len(own)} to {len(expanded_set(p))} members")

# %% [markdown]
# (The count includes the query itself. The paper writes "at least two thirds", the authors' program and all that descend from it take "more than"; so does the lab.)
#
# Who has joined? Over all searched people: how pure is the set, and how large?

# %%
for name, make in (("mutual", lambda crop: mutual_set(crop, K1)), ("expanded", expanded_set)):
    sets = [np.array(sorted(make(crop) - {crop})) for crop in range(len(q.pid))]
    size = sum(map(len, sets))
    good = sum((pid[one] == pid[crop]).sum() for crop, one in enumerate(sets) if len(one))
    print(f"{name:9} {size / len(sets):.1f} members per query, {100 * good / size:.0f} % of them right")

# %% [markdown]
# > **Quick question.** Why half-sized sets and a rule of two thirds, rather than all friends of all friends?
# > <details><summary>Answer</summary>One wrong member would bring all its friends, they theirs, and soon everybody is related. Half-sized sets hold the surest friends only, and two thirds in common means that they are mostly the same company anyway. It is a way to fill small gaps, not to explore.</details>
#
# ## 4 · Comparing two sets
#
# Now each crop gets a new description: a long row with a place for every crop there is, empty but for the members of its set, where near members weigh more:
#
# $$V_{p,g} = \begin{cases} e^{-d(p, g)} & g \in R^*(p, k_1) \\ 0 & \text{else} \end{cases} \qquad \text{scaled to } \sum_g V_{p,g} = 1$$
#
# For $d$ the program behind LUPerson's figures takes $(1 - \cos)^2$, divided by the largest one of the row. (Section 9 has the other programs' choices. The scaling to 1 is in all of them, though not in the paper's formula.) Two crops are alike if their rows overlap. Where sets have weights, the share that they have in common, $|A \cap B| \,/\, |A \cup B|$, becomes smaller weights over larger weights: the **Jaccard distance**
#
# $$d_J(p, g) = 1 - \frac{\sum_j \min(V_{p,j}, V_{g,j})}{\sum_j \max(V_{p,j}, V_{g,j})}$$

# %%
scaled = far.clip(min=0) ** 2
scaled = scaled / scaled.max(axis=1, keepdims=True)
V = np.zeros_like(scaled)  # small enough here; the lab keeps the members only
for crop in range(len(pid)):
    members = sorted(expanded_set(crop))
    V[crop, members] = np.exp(-scaled[crop, members])
V = V / V.sum(axis=1, keepdims=True)

# %%
code = rerank.encode(values, lists, distances.square(), furthest.square(), half, rerank.VARIANTS["luperson"])
rows, place = code.rows(torch.arange(len(pid)))
assert np.allclose(V[rows, code.member[place]], code.weight[place], atol=1e-5)
assert len(place) == (V > 0).sum()

# %% [markdown]
# Our query against two gallery crops: the right one that is farthest by the plain distance among its first fifty, and the nearest wrong one. Hatched is what both have.

# %%
to_gallery = far[p, len(q.pid) :]
allowed = ~((g.pid == q.pid[p]) & (g.camid == q.camid[p]))
is_right = (g.pid == q.pid[p]) & allowed
wrong = int(np.argmin(np.where(is_right | ~allowed, np.inf, to_gallery)))
nearby = is_right & (to_gallery <= np.sort(to_gallery)[:50].max())
late = int(np.argmax(np.where(nearby, to_gallery, -np.inf)))
names = {late: f"right, plain distance {to_gallery[late]:.3f}", wrong: f"wrong, plain distance {to_gallery[wrong]:.3f}"}

# %%
drawn = {}
for crop, name in names.items():
    a, b = V[p], V[len(q.pid) + crop]
    d = 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()
    union = np.flatnonzero(a + b)
    union = union[np.argsort(-np.minimum(a, b)[union], kind="stable")]  # shared members first
    pictures = [demo.picture(path[member]) for member in union]
    titles = ("query", name), f"Jaccard distance {d:.3f}"
    drawn[crop] = neighbours.overlap_figure(a[union], b[union], pictures, *titles)
drawn[late]

# %%
drawn[wrong]

# %% [markdown]
# The lab computes this for all pairs at once, and never touches two crops that share no member. Both rows sum to 1, so larger and smaller weights together make 2, and one sum is enough:

# %%
print(inspect.getsource(rerank.jaccard))


# %%
def reranked(**settings):
    return torch.cat(list(rerank.rerank_blocks(q.values, g.values, **settings))).numpy()


least = np.minimum(V[p], V[len(q.pid) :]).sum(axis=1)
by_hand = 1 - least / np.maximum(V[p], V[len(q.pid) :]).sum(axis=1)
assert np.allclose(by_hand, 1 - least / (2 - least), atol=1e-6)
assert np.allclose(by_hand, reranked(k1=K1, k2=1, lambda_value=0)[p], atol=1e-4)
print(f"Jaccard distance below 1 for {(by_hand < 1 - 1e-6).sum()} of {len(by_hand)} gallery crops")

# %% [markdown]
# That last number is a weakness. All other crops share nothing with the query and get exactly 1: they are *all tied*. Which is one reason for the last two steps.
#
# > **Quick question.** Two crops have the same set with the same weights. What is their Jaccard distance? And two whose sets have no member in common, though each crop is near the other's members?
# > <details><summary>Answer</summary>0 and 1. Overlap is all that counts; how near the members of one set are to those of the other is not asked.</details>
#
# ## 5 · Smoothing, and mixing
#
# **Local query expansion.** A single row is noisy: a neighbour more or less, and it changes. So each row becomes the mean of the rows of its $k_2$ nearest crops, the crop itself being the first:
#
# $$\bar V_p = \frac{1}{k_2} \sum_{g \,\in\, N(p, k_2)} V_g$$
#
# **The mixture.** And because the neighbours know nothing about crops far away, some of the old distance stays:
#
# $$d^*(p, g) = (1 - \lambda)\, d_J(p, g) + \lambda\, d(p, g)$$
#
# ($d$ is the scaled distance of section 4 here too. It sorts one query's gallery in the same order as $1 - \cos$.)

# %%
smooth = V[near[:, :K2]].mean(axis=1)  # (crops, K2, crops) -> (crops, crops)
least = np.minimum(smooth[p], smooth[len(q.pid) :]).sum(axis=1)
mixed = (1 - LAMBDA) * (1 - least / (2 - least)) + LAMBDA * scaled[p, len(q.pid) :]
assert np.allclose(mixed, reranked(k1=K1, k2=K2, lambda_value=LAMBDA)[p], atol=1e-4)
print("by hand and by the lab the same, for all", len(mixed), "gallery crops")

# %% [markdown]
# That is the whole method. The program in [`lab/evaluate/rerank.py`](../lab/evaluate/rerank.py) differs from these lines in one thing: no matrix of all crops against all crops is ever held, so that it also works for MSMT17 (section 8).
#
# ## 6 · Who gains, who loses
#
# All queries, published settings. Above the diagonal a query gained:

# %%
changes = per_query_table(before, after)
comparison.ap_scatter(changes, ("plain ranking", "re-ranking"), "AP of each query")

# %%
for name, one in (("plain", before), ("re-ranked", after)):
    print(f"{name:9}: mAP {100 * one.mAP:.1f} %, mINP {100 * one.mINP:.1f} %, rank-1 {100 * one.cmc[0]:.1f} %")
first = pd.crosstab(before.first_match == 1, after.first_match == 1)
first.index = ["plain wrong at rank 1" if not right else "plain right at rank 1" for right in first.index]
first.columns = ["re-ranked wrong" if not right else "re-ranked right" for right in first.columns]
first

# %% [markdown]
# mAP and mINP profit most here: look at the *late* right crops in the lists of section 1. On the drawn people rank-1 hardly moves, or falls, as the table says: the neighbours sometimes talk a query out of a right first choice. On real data it rose for all of LUPerson's released models, by 0.5 to 8 points (section 10). Here is the query that lost most, before and after:

# %%
worst = int(np.nanargmin(gain))
figures.rank_list_figure(before, worst, 10, demo.picture, f"Lost {-100 * gain[worst]:.0f} points of AP: before")

# %%
figures.rank_list_figure(after, worst, 10, demo.picture, "After re-ranking")

# %% [markdown]
# Look at who came up together: a group of crops that are alike among themselves. When the query's neighbourhood belongs to *another* person, re-ranking makes the mistake unanimous. It strengthens what is there, right or wrong. So one might expect it to help a good model more than a poor one. Here (section 10 has the published ones):

# %%
names = [*BASELINES, *FINETUNED]
plain, again = ([100 * demo.result(name, rerank=kind).mAP for name in names] for kind in (False, True))
for which, place in (("best", np.argmax(plain)), ("weakest", np.argmin(plain))):
    print(f"the {which} plain run, {names[place]}, gains {again[place] - plain[place]:+.1f} points")
gains.before_after_figure(names, plain, again, title="What re-ranking gives to each run")


# %% [markdown]
# ## 7 · Three knobs
#
# What do $k_1$, $k_2$ and $\lambda$ do? We measure the gain in mAP over plain ranking on a grid, with $\lambda = 0.3$. The published setting is framed.

# %%
def gain_of(k1, k2, lambda_value=LAMBDA, parts=(q, g)):
    blocks = rerank.rerank_blocks(parts[0].values, parts[1].values, k1=k1, k2=k2, lambda_value=lambda_value)
    return 100 * (evaluate_ranking(*parts, blocks=blocks).mAP - evaluate_ranking(*parts).mAP)


k1s, k2s = (2, 5, 10, 20, 30), (1, 2, 3, 6)
surface = np.array([[gain_of(k1, k2) for k1 in k1s] for k2 in k2s])
gains.surface_figure(surface, k1s, k2s, (20, 6), "Gain in mAP, in points (lambda 0.3)")

# %%
m = count_matches(q, g)
row, column = np.unravel_index(surface.argmax(), surface.shape)
published = surface[k2s.index(6), k1s.index(20)]
print(f"best here: k1 = {k1s[column]}, k2 = {k2s[row]} with {surface.max():+.1f} points; 20 and 6: {published:+.1f}")
company = [(pid == one).sum() - 1 for one in q.pid]
print(f"the median query has {np.median(m):.0f} right crops; {np.median(company):.0f} other crops show the same person")

# %% [markdown]
# Those two lines suggest a rule of thumb: $k_1$ near **the number of crops that show one person** (queries and the same camera's included), and $k_2$ well below it, or rows are averaged with strangers' rows. It is one grid on one test set, chosen by looking at that test set, and section 10 has a case against it: what a larger $k_1$ lets in are only strangers who choose back. (20 is the authors' setting for Market-1501, where a person has some 17 gallery crops and 4 queries.)
#
# $\lambda$ needs no new run: the result is a straight mixture, so the two ends ($\lambda = 0$: neighbours only, $\lambda = 1$: the old distance only) give all between.

# %%
lambdas, lines = np.linspace(0, 1, 11), {}
for k1, k2 in ((5, 2), (10, 3), (20, 6)):
    ends = [torch.from_numpy(reranked(k1=k1, k2=k2, lambda_value=end)) for end in (0.0, 1.0)]
    mixtures = [torch.lerp(*ends, float(value)) for value in lambdas]
    lines[f"k1 {k1}, k2 {k2}"] = (lambdas, [100 * evaluate_ranking(q, g, blocks=[one]).mAP for one in mixtures])
lines_figure(lines, "lambda: share of the old distance", "mAP (%)", "From neighbours to distance")

# %% [markdown]
# All lines meet at $\lambda = 1$: there only the plain distance is left (squared, which changes no order).
#
# Try it: our query in a gallery of those people who stand in its first fifty, which is small enough to be re-ranked while you move a slider.

# %%
company = np.unique(before.gallery_pid[before.index[best][before.index[best] >= 0]])
near_people = np.union1d(company[company > 0], query.pid[best])
few = take(q, np.flatnonzero(np.isin(q.pid, near_people))), take(g, np.flatnonzero(np.isin(g.pid, near_people)))
me = int(np.flatnonzero(few[0].path == query.path[best])[0])


# %%
def draw(k1, k2, lambda_value):
    blocks = rerank.rerank_blocks(few[0].values, few[1].values, k1=k1, k2=k2, lambda_value=lambda_value)
    result = evaluate_ranking(*few, blocks=blocks)
    title = f"k1 {k1}, k2 {k2}, lambda {lambda_value:.2f}: mAP of this small set {100 * result.mAP:.1f} %"
    return figures.rank_list_figure(result, me, 10, demo.picture, title)


share = FloatSlider(value=0.3, min=0, max=1, step=0.05)
explore(draw, k1=IntSlider(10, 1, 30), k2=IntSlider(3, 1, 12), lambda_value=share)

# %% [markdown]
# > **Quick question.** Your test set has one gallery crop per person and one query each. Which $k_1$ do you choose?
# > <details><summary>Answer</summary>None: leave re-ranking out. The only useful neighbour of a query is the one crop you are looking for. With k1 = 1 a pair that chose each other can be confirmed, and that is all.</details>
#
# ## 8 · When it hurts
#
# **Few right crops.** First an observation: the gain of the queries above, by how many right crops each has.

# %%
every = count_matches(query, gallery)
table = pd.DataFrame({"right crops": every, "gain": 100 * gain}).dropna()
table = table.groupby("right crops")["gain"].agg(["mean", "count"])
table = table[table["count"] >= 5]
lines = {"mean gain": (table.index, table["mean"])}
lines_figure(lines, "right crops in the gallery", "gain in AP (points)", "Gain by right crops", zero=True)

# %% [markdown]
# An observation is no proof: people with many crops might be the easier ones. So let us *make* right crops few: keep at most $t$ gallery crops of every fourth person, at random, ask for these people only, and re-rank with a small and with the published $k_1$. All others stay as they are, so that the gallery keeps its size.

# %%
rng, most, lines = np.random.default_rng(0), (1, 2, 3, 5, 8, 12), {"k1 3, k2 1": [], "k1 20, k2 6": []}
thinned, some = np.isin(g.pid, people[::4]), take(q, np.flatnonzero(np.isin(q.pid, people[::4])))
for t in most:
    number = pd.Series(rng.permutation(len(g.pid))).groupby(g.pid).rank()  # 1, 2, … within a person, at random
    thin = some, take(g, np.flatnonzero((number <= t) | ~thinned))
    lines["k1 3, k2 1"].append(gain_of(3, 1, parts=thin))
    lines["k1 20, k2 6"].append(gain_of(20, 6, parts=thin))
    print(f"at most {t:2}: {lines['k1 3, k2 1'][-1]:+.1f} and {lines['k1 20, k2 6'][-1]:+.1f} points")

# %%
lines = {name: (most, values) for name, values in lines.items()}
label = "at most so many gallery crops of a person"
lines_figure(lines, label, "gain in mAP (points)", "Thinned galleries", zero=True)

# %% [markdown]
# Look at the left end. With one or two crops of a person there is hardly any company that could vouch for anybody. Where a line is below zero, plain ranking is better. (These are the queries of a quarter of the people: read it as a direction, not to the point.) On data of your own, count the crops per person before you copy the 20, and measure on people whom you do not test on.
#
# **It looks at the other queries.** A plain rank list depends on the query and the gallery. A re-ranked one also depends on *which other queries were asked at the same time*, because they are neighbours too. The same queries, each asked alone:

# %%
sample = np.flatnonzero(m > 0)[:: max(1, len(q.pid) // 8)][:8]
together = evaluate_ranking(q, g, blocks=rerank.rerank_blocks(q.values, g.values))
alone = []
for one in sample:
    asks = take(q, np.array([one]))
    alone.append(evaluate_ranking(asks, g, blocks=rerank.rerank_blocks(asks.values, g.values)).ap[0])
table = pd.DataFrame({"plain": evaluate_ranking(q, g).ap, "together": together.ap}).iloc[sample].assign(alone=alone)
print(f"AP changes for {(np.abs(table['together'] - table['alone']) > 1e-6).sum()} of {len(sample)} queries")
(100 * table.describe().loc[["mean"]]).round(1)

# %% [markdown]
# In a test set the other queries are company for free: further pictures of the same people, picked by somebody who knew them. A guard who types in one query has no such company. (This is what *transductive* means: the test set itself is used to make the predictions.) The gallery serves as context in the same way: add people, and old results change.
#
# **It costs.** Plain ranking compares queries with the gallery, $Q \times G$. Re-ranking needs everybody's neighbours, $(Q + G)^2 / 2$ pairs:

# %%
measured = {name: pd.read_csv(f"../benchmarks/results/evaluation-{name}.csv") for name in ("market", "msmt17")}
table = pd.concat(measured, names=["size"]).reset_index("size")
jobs = table["job"].str.contains("ranking")
table[jobs][["size", "what", "seconds", "GB beyond features"]].round(2).set_index("size")

# %% [markdown]
# (Measured on two CPU threads, [Market-1501's size](../benchmarks/results/evaluation-market.md) and [MSMT17's](../benchmarks/results/evaluation-msmt17.md).) The authors' program holds several full matrices; for MSMT17 one alone has 35 GB. And a new gallery crop means starting again: its arrival changes others' neighbours.
#
# **Not a fair comparison.** For all these reasons a re-ranked number belongs beside other re-ranked numbers, with its $k_1, k_2, \lambda$ and program. Tables that mix them compare a model with a model plus the test set.
#
# ## 9 · Four programs, one name
#
# "We apply k-reciprocal re-ranking with $k_1 = 20$, $k_2 = 6$, $\lambda = 0.3$" leaves open what $d$ is, and the programs in use differ there:
#
# | lab's name | from | distance $d$ | |
# |---|---|---|---|
# | `luperson` | fast-reid of 2020: **LUPerson's published re-ranked figures** | $(1-\cos)^2$ / largest of the row | the lab's default |
# | `euclidean` | the authors' own programs | squared Euclid / largest of the row | |
# | `torchreid` | torchreid | squared Euclid, *squared once more*, of features as they come | the same as `luperson` for features of length 1 |
# | `jaccard` | newer fast-reid | weights from squared Euclid, mixed with a plain $1-\cos$, nothing divided | a crop counts as one of its own $k_1$ neighbours; in the other three it comes on top of them |

# %%
x = np.linspace(0, float(far.max()), 13)
lines = {
    "luperson, torchreid": (x, np.exp(-((x / x[-1]) ** 2))),
    "euclidean": (x, np.exp(-x / x[-1])),
    "jaccard": (x, np.exp(-2 * x)),
}
lines_figure(lines, "cosine distance of a member", "weight before scaling", "How much a neighbour counts")

# %%
found = {variant: reranked(variant=variant) for variant in rerank.VARIANTS}
rows = {}
for variant, d in found.items():
    result = evaluate_ranking(q, g, blocks=[torch.from_numpy(d)])
    rows[variant] = [100 * result.mAP, 100 * result.cmc[0], 100 * result.mINP]
assert np.allclose(found["luperson"], found["torchreid"], atol=1e-4)  # the features have length 1
pd.DataFrame(rows, index=["mAP", "rank-1", "mINP"]).T.round(2)

# %% [markdown]
# Same features, same $k_1, k_2, \lambda$, and another number from another program: a reason to name it. (One more difference lies in the data: programs that keep Market-1501's junk crops in the gallery let them sit among the neighbours. Plain numbers do not change by that, re-ranked ones do.)
#
# ## 10 · The published gains
#
# What LUPerson's released models gain, from the [table of published figures](../lab/published.py), all by the first variant; ours below.

# %%
table = published_results()
released = table[table["source"].str.contains("released")]
released = released.assign(model=released["backbone"].str.replace("resnet", "R"))
wide = released.pivot(index=["dataset", "model"], columns="rerank", values=["mAP", "rank1"])
labels = [f"{dataset}, {model}" for dataset, model in wide.index] + ["here, shipped-100", "here, shipped-10"]
shown = ("shipped-100", "shipped-10")
ours = {kind: [100 * demo.result(name, rerank=kind).mAP for name in shown] for kind in (False, True)}
plain, again = [*wide["mAP"]["no"], *ours[False]], [*wide["mAP"]["yes"], *ours[True]]
gains.before_after_figure(labels, plain, again, title="mAP of LUPerson's released models, and ours")

# %%
wide.columns = ["mAP", "mAP re-ranked", "rank-1", "rank-1 re-ranked"]
wide["mAP gain"] = wide["mAP re-ranked"] - wide["mAP"]
wide["rank-1 gain"] = wide["rank-1 re-ranked"] - wide["rank-1"]
wide.round(2)

# %% [markdown]
# The same picture on real data: mAP gains 4 to 14 points, rank-1 half a point to eight. Least is gained on Market-1501, whose models are the best before re-ranking, most on MSMT17, whose models are the poorest: the reverse of what section 6 expected of good models. And a warning against our own rule of thumb: on CUHK03 a person has fewer than eight gallery crops (5,328 of 700 people), 20 is far above that, and mAP still gains 11 points. Perhaps strangers seldom choose each other where features are as good as these; it was not measured. Measure on your own.
#
# ## Exercises
#
# **1. The cheaper cousin.** *Query expansion* replaces each feature by a weighted mean of its nearest features and ranks as usual. How near does it come to re-ranking on `shipped-100`? ([`query_expansion(query, gallery, k, alpha)`](../lab/evaluate/expansion.py) returns both sides anew: each feature becomes the mean of its `k` nearest, itself included, each with the weight cosine to the power `alpha`. Usual are 5 and 3.)
#
# <details><summary>Answer</summary>
#
# ```python
# from dataclasses import replace
#
# new_q, new_g = query_expansion(q.values, g.values, 5, 3.0)
# expanded = evaluate_ranking(replace(q, values=new_q), replace(g, values=new_g))
# for name, found in (("plain", evaluate_ranking(q, g)), ("expanded", expanded), ("re-ranked", together)):
#     print(f"{name}: mAP {100 * found.mAP:.1f} %, rank-1 {100 * found.cmc[0]:.1f} %")
# ```
#
# It uses the same knowledge (the neighbours), but not whether they are mutual, and it stays a plain search: the expanded features can be put into any index. It too makes use of the test set.
# </details>
#
# **2. Which step matters?** Switch the steps off one by one: only Jaccard ($\lambda = 0$, $k_2 = 1$), with smoothing, with the mixture. Which one brings most?
#
# <details><summary>Answer</summary>
#
# ```python
# steps = (("Jaccard alone", 1, 0.0), ("+ smoothing", K2, 0.0), ("+ mixture", 1, LAMBDA), ("+ both", K2, LAMBDA))
# for name, k2, lambda_value in steps:
#     print(f"{name:14} {gain_of(K1, k2, lambda_value):+.1f} points")
# ```
#
# Without the mixture all crops that share no neighbour with the query are tied at distance 1 and stand in gallery order: a price that mAP pays at the end of the list. Smoothing makes more crops share something.
# </details>
#
# **3. Hubs.** In spaces of many dimensions some points are among the nearest of very many others. Find the most popular crop of all: how many lists is it in, and how many of these have it as a mutual neighbour? Compare with the average crop.
#
# <details><summary>Answer</summary>
#
# ```python
# listed = np.bincount(near[:, 1:].ravel(), minlength=len(pid))
# hub = int(listed.argmax())
# returned = np.isin(near[hub, 1:], np.flatnonzero((near[:, 1:] == hub).any(axis=1))).sum()
# print(f"crop {hub} is in {listed[hub]} lists (the average crop in {listed.mean():.0f}), and {returned} of these are mutual")
# ```
#
# A hub can return at most k1 of the favours, so most of its neighbourships are one-sided, and step 1 cuts them. How much of the gain comes from hubs, this does not say.
# </details>
#
# ## Where next
#
# * The method: [Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding](https://arxiv.org/abs/1701.08398), section 3. LUPerson's re-ranked figures are in the README of the released models; the tables of the paper ([Fu et al.](https://arxiv.org/abs/2012.03753)) that the lab quotes are without.
# * The code: [`lab/evaluate/rerank.py`](../lab/evaluate/rerank.py), which follows the steps of this notebook in the same order; `lab evaluate --rerank --k1 20 --k2 6 --lambda-value 0.3 --variant luperson`, [docs/evaluation.md](../docs/evaluation.md).
# * Explorer: `lab app demo/runs`, page *Rank lists*: [localhost:8501/rank_lists](http://localhost:8501/rank_lists), where the switch *Re-ranked* changes between the two evaluations of each run.
# * Next: [07 · Attention](07_attention.ipynb) asks which parts of a crop made two features alike.
