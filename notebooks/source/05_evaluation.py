# %% [markdown]
# # 05 · Evaluation: from features to one number
#
# | | |
# |---|---|
# | **Goal** | Compute CMC, AP and INP of one rank list by hand, know every rule that stands behind a published mAP, and see how much each of them moves the number. |
# | **Needs** | The demo's runs `scratch-10`, `shipped-10` and `shipped-100` and its colour histogram. Python and a little NumPy; no GPU. |
# | **Makes** | Nothing: it ranks the features that the runs left. |
# | **Minutes** | 50 to read, 1 to run; makes what is missing itself in about 4 minutes. |
#
# In [04](04_finetuning.ipynb) each training ended in one number, such as "mAP 46 %". Between the features and that number lie a dozen decisions: which crops count, what happens to ties, which of two formulas is called AP. Two programs that decide otherwise print different numbers **for the same features**. After this notebook you can tell which of two numbers is better, or that the question makes no sense.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
from ipywidgets import IntSlider

from lab.backbone import pick_device
from lab.demo import Demo
from lab.evaluate.camera_pairs import camera_pairs, take
from lab.evaluate.compare import intervals
from lab.evaluate.distance import Rows, tile_shape
from lab.evaluate.metrics import count_matches, evaluate_ranking, hit_metrics
from lab.evaluate.verification import verify
from lab.show import bars, curves, figures, pairs, precision
from lab.show.circle import circle_figure
from lab.show.lines import lines_figure
from lab.show.live import explore, in_notebook

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT)

# %% [markdown]
# ## 1 · From features to a rank list
#
# The network is done: every **query** and every **gallery** crop has become a **feature**, a vector of length 1. From here on no picture is needed, only the vectors, the **pid** (who) and the **camid** (which camera) of each crop. We take a model that saw a tenth of the labels, because it makes interesting mistakes.

# %%
run = demo.run("shipped-10")
query, gallery = (run.features(demo.data.name, part) for part in ("query", "gallery"))
result = evaluate_ranking(query, gallery)
print(f"query {query.values.shape}, gallery {gallery.values.shape}: (crops, numbers per feature)")
print(f"lengths of the features: {np.linalg.norm(gallery.values, axis=1).round(4)[:5]} …")
print(f"mAP {100 * result.mAP:.1f} %")

# %% [markdown]
# A result keeps for each query its `ap`, its `inp`, `first_match` (the rank of the first right crop, 0 for none) and the first 50 entries of its rank list: `index` (their places in the gallery, -1 where there are fewer), `distance`, and `match` (right or wrong).
#
# Everything below first happens to **one query**. We let the computer choose one that is neither easy nor hopeless, and whose right crops all stand early enough to be drawn.

# %%
m = count_matches(query, gallery)  # right crops that there are for each query
last = m / result.inp  # rank of the last one, because INP = m / rank of the last
example = int(np.nanargmin(np.abs(result.ap - 0.7) + 0.1 * np.maximum(last - 14, 0) + 0.2 * (m < 4)))
same_person = gallery.pid == query.pid[example]
same_camera = gallery.camid == query.camid[example]
match = same_person & ~same_camera
print(f"query number {example}: person {query.pid[example]}, camera {query.camid[example]}, {match.sum()} right crops")

# %% [markdown]
# Now a handful of gallery crops: three right ones, the three wrong ones that the model likes best, two others at random, in the order in which they lie in the gallery.

# %%
rng = np.random.default_rng(0)
liked = result.index[example][(result.index[example] >= 0) & ~result.match[example]][:3]
others = rng.choice(np.flatnonzero(~same_person), 2, replace=False)
few = np.unique(np.concatenate([np.flatnonzero(match)[:3], liked, others]))
crops = [demo.picture(path) for path in (query.path[example], *gallery.path[few])]
titles = ["query", *(f"#{i}" for i in few)]
figures.contact_sheet(crops, titles, columns=9, title="A query and a handful of the gallery")

# %% [markdown]
# How alike are two features $q$ and $g$? The **cosine** of the angle between them: for vectors of length 1 it is simply the sum of products. The **cosine distance** turns it round, so that 0 is "the same" and larger is "further":
#
# $$d(q, g) = 1 - \frac{q \cdot g}{\lVert q \rVert\,\lVert g \rVert}$$
#
# The **rank list** is the gallery sorted by it. Three lines:

# %%
cosine = gallery.values[few] @ query.values[example]
distance = 1 - cosine
order = np.argsort(distance, kind="stable")

small = evaluate_ranking(take(query, np.array([example])), take(gallery, few))  # the lab, for the same handful
assert np.array_equal(order, small.index[0, : len(few)])
assert np.allclose(distance[order], small.distance[0, : len(few)], atol=1e-6)

# %%
words = [f"{distance[i]:.3f}\n{'right' if match[few[i]] else 'wrong'}" for i in order]
in_order = [crops[0], *(crops[1 + i] for i in order)]
figures.contact_sheet(in_order, ["query", *words], columns=9, title="The same, sorted")

# %% [markdown]
# **Ties.** What if two crops are equally far? It happens more often than one thinks: duplicated files, features stored with few digits, a broken network that gives every crop the same feature. `argsort` without `kind="stable"` may then return any order, another one on another machine, and a ranking that peeks at the labels could even put the right ones first. The lab's rule: *equal distances are ordered by their place in the gallery.*

# %%
tied = np.array([0.4, 0.2, 0.2, 0.1, 0.2], dtype=np.float32)
print("order with ties:", np.argsort(tied, kind="stable"))

one = take(query, np.array([example]))
alike = [replace(part, values=np.ones((len(part.pid), 4), np.float32)) for part in (one, gallery)]
constant = evaluate_ranking(*alike)  # all features equal: the gallery stays as it lies, without the removed ones
assert np.array_equal(constant.index[0], np.flatnonzero(~(same_person & same_camera))[:50])

# %% [markdown]
# > **Quick question.** A network has collapsed: all features are equal. What mAP would a program report that breaks ties in favour of right crops?
# > <details><summary>Answer</summary>100 %, the perfect score, for a model that knows nothing. A rule for ties must not look at the answer. Exercise 3 shows what the honest rule gives.</details>
#
# ## 2 · Three numbers from one rank list
#
# Here is the complete story of our query. The list stops after its last right crop; nothing that comes later can change any of the numbers. Below each entry stands the **precision** so far: of the entries up to this rank, which share is right? The right entries, the **hits**, are the green dots.

# %%
shown = min(int(last[example]), 20)
entries = result.index[example, :shown]
pictures = [demo.picture(path) for path in gallery.path[entries]]
captions = [f"{d:.2f}\ncam {c}" for d, c in zip(result.distance[example], gallery.camid[entries])]
title = f"Person {query.pid[example]}, camera {query.camid[example]}: rank list, and precision along it"
facts = {"query_image": crops[0], "captions": captions, "ap": result.ap[example], "title": title}
precision.precision_figure(result.match[example, :shown], pictures, **facts)

# %% [markdown]
# With right crops at ranks $r_1 < r_2 < \dots < r_m$ (and $m$ of them in the gallery):
#
# | | asks | formula |
# |---|---|---|
# | **CMC** at $k$, or **rank-k** | is there *any* right crop among the first $k$? | $1$ if $r_1 \le k$, else $0$ |
# | **AP**, average precision | do *all* right crops come early? | $\frac{1}{m}\sum_{i=1}^{m} \frac{i}{r_i}$ |
# | **INP**, inverse negative penalty | how far must one look to have found the *last*? | $\frac{m}{r_m}$ |
#
# At hit number $i$ exactly $i$ of the first $r_i$ entries are right, so the precision there is $i / r_i$. AP is the mean of the green dots. INP is the *last* green dot. (INP is [Ye et al.'s](https://arxiv.org/abs/2001.04193) measure.) By hand:

# %%
ranks = 1 + np.flatnonzero(result.match[example])  # 1 = nearest
at_hits = np.arange(1, len(ranks) + 1) / ranks
cmc = np.arange(1, 51) >= ranks[0]
print("right at ranks", ranks, " precision there", at_hits.round(3))
print(f"AP {at_hits.mean():.4f}   INP {at_hits[-1]:.4f}   rank-1 {cmc[0]:d}   rank-5 {cmc[4]:d}")

assert len(ranks) == m[example]  # no right crop beyond the 50 entries that a result keeps
assert np.isclose(at_hits.mean(), result.ap[example]) and np.isclose(at_hits[-1], result.inp[example])
assert ranks[0] == result.first_match[example]

# %% [markdown]
# The lab does the same for all queries at once, from the ranks alone. `rank` holds the ranks of all right crops of all queries one after the other, `row` says whose they are:

# %%
print(inspect.getsource(hit_metrics))

# %% [markdown]
# ([`lab/evaluate/metrics.py`](../lab/evaluate/metrics.py).) Where the three disagree is worth knowing by heart. Each row is a list of three right crops among many wrong ones:

# %%
lists = {"perfect": [1, 2, 3], "one is late": [1, 2, 30], "first is late": [4, 5, 6], "poor": [20, 25, 30]}
rows = {}
for name, places in lists.items():
    found = hit_metrics(np.array(places), np.zeros(3, int), 1)
    rows[name] = {"ranks": places, "rank-1": float(places[0] == 1), "AP": found["ap"][0], "INP": found["inp"][0]}
pd.DataFrame.from_dict(rows, orient="index").round(3)


# %% [markdown]
# For rank-1 *perfect* and *one is late* are the same; for INP *one is late* and *poor* are the same. AP tells all four apart. (It came with Market-1501, where a query has several right crops: Zheng et al., ICCV 2015.) Move the hits yourself: which move changes AP most, one at the top of the list or one at its end?

# %%
def draw(first, second, third):
    places = np.unique([first, second, third])
    found = hit_metrics(places, np.zeros(len(places), int), 1)
    title = f"hits at {places.tolist()}: AP {100 * found['ap'][0]:.1f} %, INP {100 * found['inp'][0]:.1f} %"
    return precision.steps_figure(places, 30, found["ap"][0], title)


sliders = {name: IntSlider(value, 1, 30) for name, value in (("first", 2), ("second", 5), ("third", 20))}
explore(draw, **sliders)

# %% [markdown]
# And the answer as a curve: three hits, of which one moves while the two others stay.

# %%
lines = {}
for a, b in ((1, 2), (3, 4), (8, 9)):
    moving = np.arange(b + 1, 31)
    aps = [100 * hit_metrics(np.array([a, b, third]), np.zeros(3, int), 1)["ap"][0] for third in moving]
    lines[f"others at {a} and {b}"] = (moving, aps)
lines_figure(lines, "rank of the third right crop", "AP (%)", "What one late crop costs")

# %% [markdown]
# > **Quick question.** A query has one right crop, at rank 4. What are its AP and INP? And which metric can you no longer tell from which?
# > <details><summary>Answer</summary>Both are 1/4. With a single right crop AP = INP = 1 / rank (the "reciprocal rank"). Where galleries hold one match per query, mAP and mINP are the same number.</details>
#
# ## 3 · All queries
#
# Over the queries one takes means: **mAP**, **mINP**, and the **CMC curve** (cumulative matching characteristic), which is the share of queries whose first right crop is at rank $k$ or better.

# %%
valid = result.first_match > 0  # queries that have a right crop at all
by_hand = [(result.first_match[valid] <= k).mean() for k in range(1, 51)]
assert np.allclose(by_hand, result.cmc)
assert np.isclose(result.ap[valid].mean(), result.mAP) and np.isclose(result.inp[valid].mean(), result.mINP)

names = ["baseline-histogram", "scratch-10", "shipped-10", "shipped-100"]
results = {name: demo.result(name) for name in names}
curves.cmc_figure(results, title="CMC: how soon the first right crop comes")

# %% [markdown]
# Reading it:
#
# * **Rank-1** is where the curve starts. It is decided by the *easiest* right crop of each query, so it rises with the number of right crops: a query with ten chances is easily served.
# * A CMC curve can only rise. One that is steep at the start has its first hits just behind wrong ones.
# * Every right crop that comes late lowers **mAP**, the late ones least; **mINP** is decided by the latest one alone. On real data rank-1 saturates first: on Market-1501 LUPerson's pre-training raised it from 95.1 to 96.4 %, and mAP from 87.5 to 91.0 %.
#
# A mean hides a crowd. Below, the queries of each run are sorted by AP; the area under a line is its mAP.

# %%
shares = np.linspace(0, 1, 21)
lines = {name: (100 * shares, 100 * np.nanquantile(results[name].ap, shares)) for name in names}
lines_figure(lines, "share of the queries (%), worst first", "AP (%)", "AP of all queries, sorted")

# %% [markdown]
# **The level of chance.** What does a ranking at random get? If $m$ of $n$ entries are right, rank $r$ holds a right one with probability $m/n$, and then each of the $r-1$ entries before it is right with probability $\frac{m-1}{n-1}$. Put into AP's formula, with $H_n = 1 + \frac12 + \dots + \frac1n$:
#
# $$\mathbb{E}[\text{rank-1}] = \frac{m}{n}, \qquad \mathbb{E}[\mathrm{AP}] = \frac{1}{n}\left(H_n + \frac{m-1}{n-1}\,(n - H_n)\right)$$

# %%
removed = np.array([((gallery.pid == p) & (gallery.camid == c)).sum() for p, c in zip(query.pid, query.camid)])
n = len(gallery.pid) - removed
H = np.cumsum(1 / np.arange(1, len(gallery.pid) + 1))[n - 1]
chance = ((H + (m - 1) / (n - 1) * (n - H)) / n)[m > 0].mean()
print(f"by the formulas: rank-1 {100 * (m / n)[m > 0].mean():.2f} %, mAP {100 * chance:.2f} %")

# %%
tried = []
for _ in range(20):
    values = [rng.standard_normal((len(part.pid), 64)).astype(np.float32) for part in (query, gallery)]
    tried.append(evaluate_ranking(replace(query, values=values[0]), replace(gallery, values=values[1])))
print(f"random features: rank-1 {100 * np.mean([t.cmc[0] for t in tried]):.2f} %,", end=" ")
print(f"mAP {100 * np.mean([t.mAP for t in tried]):.2f} %, the mean of 20 tries")

# %% [markdown]
# Compare baselines with this line, not with 0. It depends on the gallery: in Market-1501, with some fifteen right crops among sixteen thousand, it is about 0.15 %.
#
# **Which mean?** mAP gives each *query* one vote (a **micro** average). A person who was seen by six cameras has six votes, one who was seen by two has two. Giving each *person* one vote (a **macro** average) is just as sensible, only another number. Say which it is; the programs in the table of section 4 all take the first.

# %%
per_query = pd.DataFrame({"pid": result.pid, "camid": result.camid, "ap": 100 * result.ap})
print(f"one vote per query:  {per_query['ap'].mean():.2f} %")
print(f"one vote per person: {per_query.groupby('pid')['ap'].mean().mean():.2f} %")
print(f"one vote per camera: {per_query.groupby('camid')['ap'].mean().mean():.2f} %")

# %% [markdown]
# > **Quick question.** Model A has rank-1 90 % and mAP 60 %, model B 85 % and 70 %. An investigator wants every sighting of a missing child. Which model?
# > <details><summary>Answer</summary>B: all sightings means all right crops early, which is AP, and to be sure of the last one, INP. Rank-1 is the number for whoever needs one confirmation only.</details>
#
# ## 4 · Two formulas, one name
#
# "AP" is the area under the curve of precision against recall, and there are several ways to draw that curve between its points. Re-ID programs use two. The **step** rule takes the precision *at* each hit, as above. The **trapezoid** rule takes the mean of the precision at the hit and *just before* it, where the wrong ones have piled up and the hit has not yet come:
#
# $$\mathrm{AP}_\text{step} = \frac1m\sum_{i=1}^m \frac{i}{r_i}, \qquad
# \mathrm{AP}_\text{trapezoid} = \frac1m\sum_{i=1}^m \frac12\left(\frac{i-1}{r_i-1} + \frac{i}{r_i}\right)$$
#
# (where nothing comes before, at $r_1 = 1$, the first term counts as 1). By hand for our query:

# %%
i = np.arange(1, len(ranks) + 1)
before = np.where(ranks > 1, (i - 1) / np.maximum(ranks - 1, 1), 1.0)
step, trapezoid = (i / ranks).mean(), ((before + i / ranks) / 2).mean()
row = np.zeros(len(ranks), int)
assert np.isclose(step, hit_metrics(ranks, row, 1, "step")["ap"][0])
assert np.isclose(trapezoid, hit_metrics(ranks, row, 1, "trapezoid")["ap"][0])
precision.area_figure(ranks, step, trapezoid, "The same rank list, two areas")

# %% [markdown]
# How far do they differ over all queries? The same ranks, both formulas:

# %%
other = evaluate_ranking(query, gallery, ap="trapezoid")
gap = 100 * (other.mAP - result.mAP)
print(f"mAP step {100 * result.mAP:.2f} %, trapezoid {100 * other.mAP:.2f} %: {gap:+.2f} points")
assert (other.ap[valid] <= result.ap[valid] + 1e-12).all()
precision.two_ap_figure(result.ap, other.ap, "Two APs of the same rank lists, each dot a query")

# %% [markdown]
# The trapezoid is never larger. The gap vanishes at 100 % and at 0 %, and it is wide for single queries in between. A query whose only right crop stands at rank 2 has AP 50 % by one rule and 25 % by the other.
#
# | program | AP | a query without a right crop |
# |---|---|---|
# | fast-reid (LUPerson's fine-tuning), torchreid, TransReID, SOLIDER | step | left out of the mean |
# | LUPerson's *pre-training* code (its probe during MoCo) | trapezoid | counts as 0 |
# | the original MATLAB evaluation of Market-1501 | trapezoid | counts as 0 |
#
# All figures in LUPerson's README and tables are the step kind, and it is the lab's default; `lab evaluate --ap trapezoid` gives the other ([docs](../docs/evaluation.md)). How far do they differ in a gallery as large as Market-1501's? We draw 100 lists of 15,000 crops at random, of which 15 are right and score higher by a fixed margin, and count the ranks:

# %%
draws, simulated, whose = np.random.default_rng(0), {}, np.repeat(np.arange(100), 15)
for margin in (1.2, 2, 3, 4, 5):  # in standard deviations of a score
    wrong = np.sort(draws.standard_normal((100, 14_985)), axis=1)
    own = -np.sort(-(margin + draws.standard_normal((100, 15))), axis=1)  # best first
    closer = [14_985 - np.searchsorted(others, mine) for others, mine in zip(wrong, own)]
    places = (np.array(closer) + np.arange(1, 16)).ravel()  # wrong ones and earlier hits stand before a hit
    both = [100 * hit_metrics(places, whose, 100, kind)["ap"].mean() for kind in ("step", "trapezoid")]
    simulated[margin] = {"step": both[0], "trapezoid": both[1], "difference": both[1] - both[0]}
pd.DataFrame.from_dict(simulated, orient="index").rename_axis("margin").round(2)

# %% [markdown]
# Next to nothing at both ends, and about a point in between. With few right crops per query, as in our data, it is more:

# %%
gaps = {}
for name in names:
    parts = [demo.run(name).features(demo.data.name, part) for part in ("query", "gallery")]
    gaps[name] = [100 * evaluate_ranking(*parts, ap=kind).mAP for kind in ("step", "trapezoid")]
table = pd.DataFrame(gaps, index=["step", "trapezoid"]).T
table.assign(difference=table["trapezoid"] - table["step"]).round(2)

# %% [markdown]
# > **Quick question.** Prove that the trapezoid is never larger. For which lists are the two equal?
# > <details><summary>Answer</summary>The hit's precision is i / r. Just before it, it was (i − 1) / (r − 1), which is not larger: (i − 1) r ≤ i (r − 1) is the same as i ≤ r, and there are never more right entries than entries. They are equal only where i = r at every hit: in the perfect list.</details>
#
# ## 5 · Who counts
#
# **The camera rule.** Crops of the query's person *by the query's own camera* are removed from its rank list. Why throw away right answers? Because they are too right: the same place, the same light, often the next frame of the same walk. Here is our query's list with them left in, greyed:

# %%
nobody = replace(query, camid=np.full_like(query.camid, -1))  # a camera that took no gallery crop: no rule
without_rule = evaluate_ranking(nobody, gallery)
entries = without_rule.index[example, :14]
out = (same_person & same_camera)[entries]
pictures = [demo.picture(path) for path in gallery.path[entries]]
captions = [f"{d:.2f}\ncam {c}" for d, c in zip(without_rule.distance[example], gallery.camid[entries])]
facts = {"query_image": crops[0], "removed": out, "captions": captions}
title = "Out: same person, same camera as the query"
precision.precision_figure(without_rule.match[example, :14], pictures, **facts, title=title)

# %% [markdown]
# What would mAP and rank-1 be without the rule? To switch it off we need no new code: tell the lab that the queries come from a camera that no gallery crop has.

# %%
rows = {}
for name in names:
    parts = [demo.run(name).features(demo.data.name, part) for part in ("query", "gallery")]
    free = evaluate_ranking(replace(parts[0], camid=np.full_like(parts[0].camid, -1)), parts[1])
    ruled = results[name]
    rows[name] = np.array([ruled.mAP, free.mAP, ruled.cmc[0], free.cmc[0]]) * 100
table = pd.DataFrame(rows, index=["mAP", "mAP, no rule", "rank-1", "rank-1, no rule"]).T
print("gains most rank-1 without the rule:", (table["rank-1, no rule"] - table["rank-1"]).idxmax())
table.round(1)

# %% [markdown]
# Look at the colour histogram. It compares colours, and colours are mostly the place: without the rule it finds the same walk by the same camera again, and that looks like a re-ID model. The rule is what makes the task *re*-identification. Note what it does not do: *other people's* crops by the query's camera stay in the list. They are the hardest wrong ones, because they share the query's background.
#
# **Junk and distractors.** Two kinds of gallery crops that are nobody's match, treated in opposite ways. Market-1501 marks both in the file name; the drawn people use the same two numbers.

# %%
junk = sorted(str(path) for path in (demo.root / "bounding_box_test").glob("-1_*"))[:8]
distractors = gallery.path[gallery.pid == 0][:8]
crops_below = [demo.picture(path) for path in (*junk, *distractors)]
kinds = ["junk\npid -1", "distractor\npid 0"]
figures.contact_sheet(crops_below, columns=8, title="Nobody's match", row_titles=kinds)

# %% [markdown]
# * **Junk** (pid -1) are boxes that nobody should be judged by. In Market-1501 they fit a person only in part (an overlap of 20 to 50 % with a box drawn by hand); in the drawn set they are badly cut or empty. They are dropped when the data set is read; a ranking should neither be punished nor rewarded for them.
# * **Distractors** (pid 0) are nobody's match: in Market-1501 mostly false alarms of the detector (overlap below 20 %), here well-cut passers-by whom no query shows, which are the harder kind. They stay, as wrong answers, because a real gallery is full of such crops. Dropping them makes the task easier:

# %%
people_only = take(gallery, np.flatnonzero(gallery.pid != 0))
no_distractors = evaluate_ranking(query, people_only)
print(f"with {(gallery.pid == 0).sum()} distractors: mAP {100 * result.mAP:.1f} %")
print(f"without:             mAP {100 * no_distractors.mAP:.1f} %")

# %% [markdown]
# A trap for those who write their own reader: in MSMT17 pid 0 is an ordinary person. "Drop all pids below 1" is wrong for both sets that have a pid 0.
#
# **Queries without a right crop.** On a data set of your own some people will have been seen by one camera only. Let us make such a query: take our example's right crops out of the gallery. Its AP is $0/0$, no number at all. What should the mean do with it?

# %%
poorer = take(gallery, np.flatnonzero(~match))
left_out = evaluate_ranking(query, poorer)
as_zero = evaluate_ranking(query, poorer, denominator="all")
print(f"AP of the query: {left_out.ap[example]}; first_match: {left_out.first_match[example]} (it has no right crop)")
print(f"left out, {left_out.num_valid_query} of {left_out.num_query} queries count: mAP {100 * left_out.mAP:.3f} %")
print(f"counted as 0, all count: mAP {100 * as_zero.mAP:.3f} %")
assert np.isclose(left_out.mAP, np.nanmean(left_out.ap))
assert np.isclose(as_zero.mAP, np.nansum(left_out.ap) / len(left_out.ap))

# %% [markdown]
# The lab leaves it out, as fast-reid does, and says how many were left out, by name (`queries_without_match_named` in `result.json`). With `--denominator all` it counts as 0 in mAP, mINP and CMC, as in LUPerson's pre-training code. On Market-1501 every query has a right crop, so nobody notices the difference; on your own data it can be large.
#
# > **Quick question.** Somebody removes, for each query, *all* crops of the query's camera and not just those of the same person. Does mAP rise or fall?
# > <details><summary>Answer</summary>It rises, or stays: no right crop is lost (the rule removed those already), while wrong ones with the query's own background disappear. It makes the task easier. Exercise 1 measures it.</details>
#
# ## 6 · Cosine or Euclid?
#
# Some programs sort by the Euclidean distance instead. For features of length 1 that cannot matter:
#
# $$\lVert q - g \rVert^2 = \lVert q \rVert^2 + \lVert g \rVert^2 - 2\,q \cdot g = 2 - 2\,q\cdot g = 2\,d(q, g)$$
#
# One grows exactly when the other does, so the order is the same. In a picture: the farther round the circle, the longer the chord.

# %%
names_few = [f"{'right' if match[i] else 'wrong'} #{i}: {d:.2f}" for i, d in zip(few, distance)]
circle_figure(cosine, names_few, "A handful of crops at their true angle to the query")

# %%
squared = ((gallery.values[few] - query.values[example]) ** 2).sum(axis=1)
assert np.allclose(squared, 2 * distance, atol=1e-5)
assert np.array_equal(np.argsort(squared, kind="stable"), order)

euclid = evaluate_ranking(query, gallery, distance="euclidean")
assert np.isclose(euclid.mAP, result.mAP, atol=1e-4)
print(f"mAP cosine {100 * result.mAP:.3f} %, Euclid {100 * euclid.mAP:.3f} %")
print(f"identical lists of the first 50: {100 * (euclid.index == result.index).all(axis=1).mean():.1f} %")

# %% [markdown]
# (Where a few lists differ, two crops are closer than single precision can tell.) It *does* matter as soon as lengths differ, which they do when a program forgets to normalise. Let us give each gallery feature a random length between a half and two: same directions, other lengths.

# %%
longer = replace(gallery, values=gallery.values * rng.uniform(0.5, 2, (len(gallery.pid), 1)).astype(np.float32))
for kind in ("cosine", "euclidean"):
    print(f"{kind}: mAP {100 * evaluate_ranking(query, longer, distance=kind).mAP:.1f} %")


# %% [markdown]
# > **Quick question.** A model's feature joins eight parts of 256 numbers. Program A normalises the whole 2,048 once, program B each part. Same ranking?
# > <details><summary>Answer</summary>No. B gives every part the same say; A lets parts with long vectors weigh more. MGN's published numbers come from one joint normalisation, and so do the lab's.</details>
#
# ## 7 · Without the big matrix
#
# The textbook program computes all distances, a matrix of $Q \times G$, and sorts every row. How large is that? The dashed line is the lab's default budget for distances, 0.25 GB (`--memory-gb`); what is hatched does not fit.

# %%
def gigabytes(rows, columns):
    return rows * columns * 4 / 1e9  # float32: four bytes


sizes = {
    "this data set": gigabytes(len(query.pid), len(gallery.pid)),
    "Market-1501: 3,368 x 15,913": gigabytes(3368, 15913),
    "re-ranking it: 19,281 x 19,281": gigabytes(19281, 19281),
    "MSMT17: 11,659 x 82,161": gigabytes(11659, 82161),
    "1,000 queries in a million": gigabytes(1000, 1e6),
    "re-ranking MSMT17: 93,820 x 93,820": gigabytes(93820, 93820),
    "a million in a million": gigabytes(1e6, 1e6),
}
bars.memory_figure(sizes, 0.25, "One matrix of distances")

# %% [markdown]
# Sorting makes it worse: the order is a second matrix, of eight-byte integers. And it is all for nothing, because the metrics do not need the order. They need **the ranks of the right crops**, and a rank can be *counted*:
#
# $$r = 1 + \#\{\text{entries that are closer than this right crop}\}$$
#
# A count is a sum, and a sum can be collected block by block, forgetting each block after it was looked at. By hand for our query, in six blocks of the gallery:

# %%
exact = gallery.values.astype(np.float64) @ query.values[example].astype(np.float64)
far = 1 - exact.astype(np.float32)  # as the lab: summed in float64, rounded to float32
far[same_person & same_camera] = np.inf  # removed: closer than nobody

# %%
own, place = far[match], np.flatnonzero(match)
closer = {}
for block in np.array_split(np.arange(len(far)), 6):
    tie = (far[block] == own[:, None]) & (block < place[:, None])  # equally far: by place in the gallery
    nearer = (far[block] < own[:, None]) | tie
    closer[f"crops {block[0]} to {block[-1]}"] = nearer.sum(axis=1)
table = pd.DataFrame(closer, index=[f"right crop #{i}" for i in place]).T

# %%
counted = 1 + table.sum()
assert np.array_equal(np.sort(counted), ranks)
pd.concat([table, table.sum().rename("all closer").to_frame().T, counted.rename("rank").to_frame().T])

# %% [markdown]
# Add up a column, add 1: the rank of that right crop, the same as before, and never more than a sixth of the distances in sight. The lab works in **tiles** (some queries x some gallery crops), keeps the counts and the 50 nearest so far, and drops the rest. `memory_gb` bounds a tile together with its copies. The result must not depend on it, and not just about: to the last bit.

# %%
demo_device = pick_device("cpu")
# very little: a twentieth of what all distances need, each as three float32 (it, its sorted copy, a mask)
budgets = {"a quarter of a GB": 0.25, "very little": len(query.pid) * len(gallery.pid) * 12 / 1e9 / 20}
found = {}
for name, budget in budgets.items():
    crops_there = Rows(gallery.values, "cosine", demo_device, budget)
    rows, columns = tile_shape(len(query.pid), crops_there, budget, (m + removed).max())
    found[name] = evaluate_ranking(query, gallery, memory_gb=budget)
    print(f"{name} ({budget * 1000:.2f} MB): tiles of {rows} x {columns}, mAP {100 * found[name].mAP:.6f} %")
a, b = found.values()
for key in ("ap", "inp", "first_match", "index"):
    np.testing.assert_array_equal(getattr(a, key), getattr(b, key))

# %% [markdown]
# There is one catch, which makes the real code longer than the idea. A matrix product rounds, and it rounds differently for tiles of another shape; two crops that are nearly equally far might swap places. So the product's scores decide only what is clear. What is too close to call is computed again in float64 ([`lab/evaluate/ranking.py`](../lab/evaluate/ranking.py), [the rules](../docs/evaluation.md)). What it costs was measured on two CPU threads, with features of 2,048 numbers:

# %%
folder = "../benchmarks/results/evaluation"
measured = {name: pd.read_csv(f"{folder}-{name}.csv") for name in ("market", "msmt17", "million")}
table = pd.concat(measured, names=["size"]).reset_index("size")
table = table[table["job"].str.contains("ranking")].set_index("size")
table[["what", "seconds", "GB beyond features"]].round(2)

# %% [markdown]
# (`million` is 1,000 queries against a million crops of 256 numbers. [Market-1501's size](../benchmarks/results/evaluation-market.md), [MSMT17's](../benchmarks/results/evaluation-msmt17.md), [a million](../benchmarks/results/evaluation-million.md).)
#
# > **Quick question.** Which of the three numbers (rank-1, AP, INP) could you compute if you only kept the 50 nearest crops of each query?
# > <details><summary>Answer</summary>Rank-k for k up to 50. AP and INP need the rank of <i>every</i> right crop, also of one at rank 3,000. That is why counting goes through the whole gallery, and why an approximate index gives bounds of mAP only.</details>
#
# ## 8 · Another question: same or not?
#
# Ranking asks *which of these is nearest?* A gate asks *is it the same person, yes or no?* That is **verification**: choose a threshold on the distance and accept all pairs below it. Two kinds of pairs, two kinds of error:
#
# * **TPR**: the share of pairs of one person (under two cameras) that are accepted; should be 1.
# * **FPR**: the share of pairs of two persons that are accepted; should be 0.

# %%
pairs_found = verify(query, gallery)
pairs.distance_histogram_figure(pairs_found, "All pairs of query and gallery")

# %% [markdown]
# Where the hills overlap, every threshold errs. Sliding it from left to right draws the **ROC** curve; where both errors are equally frequent is the **equal error rate**. One point of the curve by hand: the threshold at which at most 1 % of the wrong pairs pass.

# %%
threshold = pairs_found.thresholds[-1]  # that for an FPR of 1 %
all_far = 1 - query.values @ gallery.values.T  # small enough here to be held
same = query.pid[:, None] == gallery.pid
true_pairs, false_pairs = same & (query.camid[:, None] != gallery.camid), ~same
tpr, fpr = (all_far[true_pairs] <= threshold).mean(), (all_far[false_pairs] <= threshold).mean()
print(f"distance up to {threshold:.3f}: TPR {100 * tpr:.2f} %, FPR {100 * fpr:.3f} %")
assert np.isclose(tpr, pairs_found.tpr_at_fpr[-1], atol=1e-3) and fpr <= 0.01 + 1e-4

# %%
rocs = {}
for name in names:
    parts = [demo.run(name).features(demo.data.name, part) for part in ("query", "gallery")]
    rocs[name] = verify(*parts)
pairs.roc_figure(rocs)

# %% [markdown]
# > **Quick question.** Add 0.3 to all distances of one query. What happens to its AP, and what to the ROC curve?
# > <details><summary>Answer</summary>Nothing to AP: the order within the query's list is the same. The ROC curve changes, as a rule for the worse, because one threshold must serve all queries. A good ranker can be a poor verifier.</details>
#
# ## 9 · Which camera sees whom?
#
# mAP also averages over cameras. Ranking each gallery camera's crops *alone* shows who does not understand whom: rows are the query's camera, columns the camera that is searched.

# %%
matrix = camera_pairs(query, gallery).matrix("mAP")
above = (matrix.to_numpy() > result.mAP).sum()
print(f"{above} of {matrix.notna().to_numpy().sum()} cells lie above the overall mAP of {100 * result.mAP:.1f} %")
pairs.camera_matrix_figure(matrix, "mAP by camera of the query and of the gallery")

# %% [markdown]
# The diagonal is empty: that is the camera rule. And why do so many cells lie above the overall mAP, though features and queries are the same? Each list is shorter and holds fewer wrong crops. Which leads to the last point.
#
# ## 10 · Traps of a single number
#
# **Another gallery, another task.** The same features, but only some of the people (queries and gallery alike), and a part of the distractors; the mean of five draws each.

# %%
people, sizes, values = np.unique(query.pid), [], []
for share in np.repeat([0.1, 0.2, 0.4, 0.7, 1.0], 5):
    kept = rng.choice(people, max(2, int(share * len(people))), replace=False)
    passers = (gallery.pid == 0) & (rng.random(len(gallery.pid)) < share)
    crops_kept = np.flatnonzero(np.isin(gallery.pid, kept) | passers)
    part = take(query, np.flatnonzero(np.isin(query.pid, kept))), take(gallery, crops_kept)
    sizes.append(len(crops_kept))
    values.append(100 * evaluate_ranking(*part).mAP)
sizes, values = (np.array(column).reshape(-1, 5).mean(axis=1) for column in (sizes, values))

# %%
title = "One model, galleries of all sizes"
lines_figure({"mAP": (sizes, values)}, "crops in the gallery (logarithmic)", "mAP (%)", title, log_x=True)

# %% [markdown]
# So "90 % on Market-1501" and "66 % on MSMT17" do not say that a model is worse on the second: there the gallery is five times as large, with more than twice the cameras. Numbers can be compared **within one data set, one gallery and one protocol**, and not otherwise.
#
# **Another protocol, another number.** All bars below come from the same features:

# %%
choices = {
    "the published rules": result.mAP,
    "trapezoid AP": other.mAP,
    "without the camera rule": without_rule.mAP,
    "without distractors": no_distractors.mAP,
    "after re-ranking (06)": demo.result("shipped-10", rerank=True).mAP,
}
bars.bars_figure({name: 100 * value for name, value in choices.items()}, title="One set of features, five mAPs")

# %% [markdown]
# **A mean of few is uncertain.** How far would the number move if other *people* had been in the test set? One line, a bootstrap over people, gives the interval; [08](08_comparing_models.ipynb) explains it and compares models with it.

# %%
(100 * intervals(result)).round(1)

# %% [markdown]
# If another model's mAP lies within the interval, do not write "better" before you have done the paired test of notebook 08. And the interval knows nothing of another training seed: that takes another training.
#
# ## Exercises
#
# **1. The whole camera.** Remove, for each query, *all* gallery crops of the query's camera. How much does mAP rise for `shipped-10`?
#
# <details><summary>Answer</summary>
#
# Ranks by hand, metrics by `hit_metrics`:
#
# ```python
# aps = []
# for q in range(len(query.pid)):
#     kept = gallery.camid != query.camid[q]
#     far_kept = 1 - gallery.values[kept] @ query.values[q]
#     hits = 1 + np.flatnonzero((gallery.pid[kept] == query.pid[q])[np.argsort(far_kept, kind="stable")])
#     if len(hits):
#         aps.append(hit_metrics(hits, np.zeros(len(hits), int), 1)["ap"][0])
# print(f"mAP {100 * np.mean(aps):.1f} % instead of {100 * result.mAP:.1f} %")
# assert np.mean(aps) >= result.mAP - 1e-6
# ```
#
# The wrong crops that go share the query's background. The more a model looks at the background, the more it gains by this mistake: try it with the colour histogram.
# </details>
#
# **2. The most valuable swap.** A list has hits at ranks 2, 3 and 8. You may move one hit one rank up (swap it with the wrong entry before it; a hit cannot swap with a hit). Which move gains most AP? Which gains INP?
#
# <details><summary>Answer</summary>
#
# ```python
# base = hit_metrics(np.array([2, 3, 8]), np.zeros(3, int), 1)
# for moved in ([1, 3, 8], [2, 3, 7]):
#     after = hit_metrics(np.array(moved), np.zeros(3, int), 1)
#     print(moved, f"AP {after['ap'][0] - base['ap'][0]:+.3f}", f"INP {after['inp'][0] - base['inp'][0]:+.3f}")
# ```
#
# From rank 2 to 1 the precision of that hit jumps from 1/2 to 1. AP gains most at the top of the list: 0.167, against 0.018 at its end. INP is the other way round: nothing, against 0.054. (The hit at 3 cannot move: above it stands a hit.)
# </details>
#
# **3. The honest collapse.** All features equal: what mAP does the lab report, and how does it compare with chance? Why is it not exactly chance?
#
# <details><summary>Answer</summary>
#
# ```python
# equal = [replace(part, values=np.ones((len(part.pid), 4), np.float32)) for part in (query, gallery)]
# collapsed = evaluate_ranking(*equal)
# print(f"mAP {100 * collapsed.mAP:.2f} %, chance {100 * chance:.2f} %")
# ```
#
# Every query gets the gallery as it lies, sorted by file name and so by person. The right crops of a person stand side by side, which is a block at a place that depends on the pid: early for small pids, late for large ones. One order for all is not the mean over all orders, but it is of the same small size.
# </details>
#
# ## Where next
#
# * The paper: [Fu et al., CVPR 2021](https://arxiv.org/abs/2012.03753), section 5.1 (data sets and measures); Zheng et al., ICCV 2015, brought mAP and Market-1501.
# * The code, in this order: [`distance.py`](../lab/evaluate/distance.py), [`blocks.py`](../lab/evaluate/blocks.py), [`counting.py`](../lab/evaluate/counting.py), [`ranking.py`](../lab/evaluate/ranking.py), [`metrics.py`](../lab/evaluate/metrics.py), [`verification.py`](../lab/evaluate/verification.py); the command is `lab evaluate`, its rules are in [docs/evaluation.md](../docs/evaluation.md).
# * Explorer: `lab app demo/runs`, page *Rank lists*: [localhost:8501/rank_lists](http://localhost:8501/rank_lists), for any query what section 2 did for one; page *Distances*: [localhost:8501/distances](http://localhost:8501/distances), the thresholds and cameras of sections 8 and 9.
# * Next: [06 · Re-ranking](06_reranking.ipynb) gains points of mAP without any training.
