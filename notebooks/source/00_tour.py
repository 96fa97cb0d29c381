# %% [markdown]
# # 00 · A tour: from unlabelled crops to a rank list
#
# | | |
# |---|---|
# | **Goal** | See the whole path once: pre-training without labels, fine-tuning, ranking, re-ranking, attention. Know what each number and picture means. |
# | **Needs** | Python and a little PyTorch; nothing about re-ID. No GPU, no download. |
# | **Makes** | What `lab demo` has not made yet: synthetic people, a colour baseline, and two fine-tuned models (`scratch-10`, `shipped-10`). |
# | **Minutes** | 30 to read; 1 to run on the results of `lab demo`, 2 without them. |
#
# Every figure here comes from `lab.show`, the same code that the explorer uses. Where you would rather click than read, open it beside this notebook: `lab app demo/runs`. Nine notebooks follow, one for each stage; the [glossary](glossary.md) has every term in a line.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
from pathlib import Path

import numpy as np
import torch

from lab.demo import PRETRAINED, Demo
from lab.pretrain.augment import Views
from lab.runs import Run, find_runs
from lab.show import curves, figures, tables
from lab.show.live import in_notebook

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT)
data, picture = demo.data, demo.picture  # picture: path -> RGB (H, W, 3) uint8

# %% [markdown]
# ## 1 · The task
#
# A person walks past camera 1. Later somebody walks past camera 4. **Is it the same person?** That is person *re-identification* (re-ID). Faces are too small to help; what remains is clothes, build, bags and posture, seen in other light, from another side, through another sensor.
#
# It is posed as a search:
#
# * a **query** is one crop of a person, cut out by a detector;
# * the **gallery** is a heap of crops from all cameras;
# * a model turns each crop into a **feature** (a vector of unit length), and the gallery is sorted by its distance to the query. The sorted gallery is the **rank list**. The distance is $1 - \cos$ of the angle between two features: 0 for the same direction, 1 for a right angle. It stands under the crops of every rank list here (after re-ranking: the new distance).
#
# Each crop has a **pid** (which person) and a **camid** (which camera). Two rules make the search honest. The people of the test are *never* in training, so the model must learn what makes people differ, not who they are. And crops of the query's person from the query's *own* camera are left out of its rank list: finding the next video frame is no re-identification.
#
# The lab brings its own people, drawn by a program, so that everything runs at once and nobody's picture is used without asking. Their folder has the layout of Market-1501, the most used real data set.
#
# At `SIZE = "tiny"` the networks are ResNet-18 on crops of 64 x 32 pixels (height x width, as everywhere here), so that all of it runs on two CPU cores within minutes.

# %%
data.summary()

# %% [markdown]
# Here is one test person: first the query, then every gallery crop of the same person by *other* cameras. These are what a perfect model puts in front.

# %%
query = int(np.argmax([(data.gallery.pid == pid).sum() for pid in data.query.pid]))
pid, camid = data.query.pid[query], data.query.camid[query]
others = data.gallery.take((data.gallery.pid == pid) & (data.gallery.camid != camid))
crops = [picture(path) for path in (data.query.path[query], *others.path)]
names = [f"query, cam {camid}", *(f"cam {camera}" for camera in others.camid)]
figures.contact_sheet(crops, names, columns=8, title=f"Person {pid}")

# %% [markdown]
# Now the same six cameras with different people, a row for each. Look along a row: background, colour cast, sharpness and viewpoint are alike although the people differ. Look down a column: the people change *and* everything else does too. A model that compares pixels, or colours, will find **the same camera** rather than the same person. That is the whole difficulty.

# %%
rng = np.random.default_rng(0)
cameras = np.unique(data.gallery.camid)
chosen = [rng.choice(np.flatnonzero(data.gallery.camid == camera), 8, replace=False) for camera in cameras]
crops = [picture(path) for path in data.gallery.path[np.concatenate(chosen)]]
rows = [f"camera {camera}" for camera in cameras]
figures.contact_sheet(crops, columns=8, title="Six cameras, six places", row_titles=rows)

# %% [markdown]
# > **Quick question.** The gallery also holds crops with pid 0. Whose are they, and why keep them?
# > <details><summary>Answer</summary>They are <i>distractors</i>, crops that are nobody's match: here passers-by whom no query shows, in Market-1501 false alarms of its detector. A real camera network is full of both, and a search that only ever sees the right candidates looks better than it is. Crops with pid -1 (<i>junk</i>: boxes that are neither right nor wrong) are dropped when the data set is read.</details>
#
# ## 2 · How a ranking is scored
#
# Take the rank list of one query and mark each entry right (same pid, other camera) or wrong.
#
# * **Rank-k**, read off the **CMC** curve (*cumulative matching characteristic*): is at least one right crop among the first *k*? Averaged over the queries.
# * **AP**, average precision: walk down the list; at each right crop note the precision so far, $\frac{\text{right ones so far}}{\text{rank}}$; average these. With right crops at ranks $r_1 < \dots < r_m$
#
# $$\mathrm{AP} = \frac{1}{m}\sum_{i=1}^{m} \frac{i}{r_i}, \qquad \mathrm{INP} = \frac{m}{r_m}.$$
#
# AP asks for *all* right crops early, INP (*inverse negative penalty*) only how far down one must look until the *last* is found. Their means over the queries are **mAP** and **mINP**.
#
# Let us do it by hand for one query of the colour-histogram ranking, a baseline that has learned nothing: it describes a crop by the shares of the colours in six horizontal stripes ([01](01_crops.ipynb) builds it). The result keeps the first 50 entries of every rank list, so we take a query whose right crops are all among these.

# %%
histogram = demo.result("baseline-histogram")
same_person = histogram.gallery_pid == histogram.pid[:, None]  # (queries, gallery)
right = same_person & (histogram.gallery_camid != histogram.camid[:, None])
missed = np.flatnonzero(histogram.first_match > 1)  # queries whose first entry is wrong
complete = missed[histogram.match[missed].sum(1) == right[missed].sum(1)]
example = int(complete[np.argmax(histogram.ap[complete])])
figures.rank_list_figure(histogram, example, 10, picture, "Colour histogram")

# %% [markdown]
# The ranks of its right crops, the precision at each of them, and the mean of these:

# %%
ranks = 1 + np.flatnonzero(histogram.match[example])  # ranks of the right crops, 1 = nearest
m = right[example].sum()  # right crops in the gallery
ap, inp = sum(i / rank for i, rank in enumerate(ranks, start=1)) / m, m / ranks[-1]
print(f"{m} right crops, at ranks {ranks.tolist()}: AP {ap:.3f}, INP {inp:.3f}")
print(f"in the result:  AP {histogram.ap[example]:.3f}, INP {histogram.inp[example]:.3f}")
assert np.isclose(ap, histogram.ap[example]) and np.isclose(inp, histogram.inp[example])

# %% [markdown]
# The code that does this for all queries at once, and without the limit of 50, is [`lab/evaluate/metrics.py`](../lab/evaluate/metrics.py).
#
# ## 3 · Pre-training: learning without labels
#
# Labels are dear: somebody must watch the video and say who is who. Crops are free. LUPerson ([Fu et al., CVPR 2021](https://arxiv.org/abs/2012.03753), section 4) therefore first trains the network on 4 million crops **without labels**, with MoCo v2 (*momentum contrast*). The idea in three sentences. Take a crop and change it twice at random (cut out a box, mirror it, blur it, now and then make it grey, cover a piece): two *views*. Ask the network to recognise that they belong together among thousands of views of other crops. To succeed it has to keep what both views share (the person, but also the wall behind) and ignore what changed (position, sharpness, the covered piece).
#
# With $q$ and $k_+$ the features of the two views, and $k_1 \dots k_K$ those of other crops that wait in a *queue*, and the *temperature* $\tau$, a constant (0.1 here) that stretches the similarities ([02](02_pretraining.ipynb) shows what it does):
#
# $$\mathcal{L} = -\log \frac{\exp(q \cdot k_+ / \tau)}{\exp(q \cdot k_+ / \tau) + \sum_{i=1}^{K} \exp(q \cdot k_i / \tau)}$$
#
# These are views as the network gets them. Which rows are easy? Some views hardly share a pixel, and grey rectangles hide a part: whoever passes this exam cannot rely on one detail.

# %%
config = demo.config(PRETRAINED)
make_views = Views(config.height, config.width, config.augmentation)
crops = [picture(data.train.path[number]) for number in (0, len(data.train) // 2, len(data.train) - 1)]
views = torch.stack([make_views(crops, seed) for seed in range(7)], dim=1).flatten(0, 1)  # (3 x 7, 3, h, w)
tiles = views.permute(0, 2, 3, 1).round().byte().numpy().reshape(3, 7, config.height, config.width, 3)
pictures = [tile for crop, row in zip(crops, tiles) for tile in (crop, *row)]
figures.contact_sheet(pictures, ["crop", *["view"] * 7] * 3, columns=8, title="Three crops, seven views of each")

# %% [markdown]
# A network that cannot tell views apart gives all $K+1$ candidates the same probability, and the loss is $\log(K+1)$: **the chance line**. It is the number to compare a pre-training loss with.

# %%
print(f"K = {config.queue_size}: chance is log({config.queue_size} + 1) = {np.log(config.queue_size + 1):.2f}")

# %% [markdown]
# `lab demo` and [notebook 02](02_pretraining.ipynb) pre-train for two minutes. If one of them has been here, this is the run:

# %%
short = Run(demo.folder / "runs" / PRETRAINED)
curves.loss_curves(short.log(), "Two minutes of pre-training") if short.checkpoint.is_file() else print(
    "not trained yet"
)

# %% [markdown]
# What to look at:
#
# * **loss** against its chance line, and **accuracy**: how often the right view gets the highest score. In the very first steps both can look good for a bad reason: the queue is still filled with random vectors, which are easy to tell from anything. Only when it holds real keys do they mean something.
# * the **retrieval probe**: from time to time the network ranks the test gallery as it is, without having seen a label. It says more than the loss, because a falling loss does not prove that *people* were learned. It is not the last word: in our own measurements short pre-trainings raised the probe, and most of them were still no better a start for fine-tuning than random weights ([table](../benchmarks/results/pretraining-recipe.md)). In a run as short as this it moves little, because *places* are learned first: what tells two crops apart most easily is the wall behind them, and the search wants the same person in front of another wall.
# * the **spread** of the features (`feature_std` in the log): their standard deviation, scaled so that 1 is even in all directions. 0.2 to 1 is healthy, near 0 all crops get the same feature (*collapse*).
#
# Two minutes are nothing: LUPerson's run had 326,400 steps of 2,560 crops. So the lab also ships a small **trunk** (a ResNet-18 without its classifier; what is put on top of it later are called *heads*) that the same command made from many more synthetic people. Because they are drawn, it could cut them out and put them into another place in four views of five: then the wall tells little, and the person is what is left to recognise (`lab pretrain --places`; [what that is worth](../benchmarks/results/pretraining-recipe.md)).
#
# ## 4 · Fine-tuning: what is pre-training worth?
#
# Now come labels. The trunk grows three branches with eight heads, the **MGN** model, which look at the whole person, at halves and at thirds; it learns to tell the training people apart ([`lab/finetune/mgn.py`](../lab/finetune/mgn.py)). The question of the paper's small-scale experiment (section 5): *how many labels does a good start save?* The demo's fine-tunings differ in
#
# * where the trunk **starts**: from random weights (*scratch*), from the two minutes above (*short*: the run `pretrain-short`), or from the *shipped* trunk;
# * how many of the training people have **labels**: 10 % or 100 %.
#
# A run is called by both, as `short-10`. Runs with the same labels have the same number of steps. (One thing differs besides: a pre-trained trunk is frozen for the first sixth of them, as [04](04_finetuning.ipynb) explains; random weights learn from the first step.) Two of them are trained here if they are not there yet (half a minute each); the table shows all that there are. `lab demo` makes six.

# %%
names = ["baseline-histogram", "scratch-10", "shipped-10"]
results = {name: demo.result(name) for name in names}

# %%
table = tables.metrics_table(find_runs(demo.folder / "runs"))
table = table[(table["data set"] == data.name) & table["stage"].isin(["baseline", "finetune"])]
plain = table[table["re-ranking"] == "no"].sort_values("mAP")
plain[["run", "initialised from", "identities used", *tables.METRICS]].round(1)

# %%
curves.initialisation_figure(plain[plain["stage"] == "finetune"], "mAP after fine-tuning, by starting point")

# %% [markdown]
# Read it in this order. *Baselines*: what can be had without learning. *Within a group of bars*: what the start is worth. *Between the groups*: what labels are worth. Do not be surprised if `short` is no better than `scratch`, and both are below the colour histogram: a few dozen steps teach little. The shipped trunk is what a longer pre-training looks like, and it brings its skill along: without any label it finds about 45 % mAP ([03](03_what_did_it_learn.ipynb)), so that a dozen labelled people hardly add to it. [04](04_finetuning.ipynb) comes back to both.
#
# On real data, Market-1501 and DukeMTMC, the paper finds that the start matters most where labels are few (11.5 points of mAP at 10 % of the people, 3.6 at 90 % on Market-1501); on MSMT17 the gain is about as large at all fractions (1.8 to 2.7). Does your table agree with the one or the other?
#
# One run per bar is thin evidence: another seed moves each by a few points. Before you believe a difference, repeat it: `lab study` runs several seeds (notebook 10).
#
# The CMC curves say how soon the *first* right crop comes:

# %%
curves.cmc_figure(results, title="CMC without re-ranking")

# %% [markdown]
# ## 5 · Look at the rank lists
#
# A mean hides what a model confuses. Take the model that started from the shipped trunk and saw 10 % of the labels. First a query that it answers well, with several right crops from several cameras:

# %%
result = results["shipped-10"]
best = int(np.nanargmax(result.ap + 0.001 * result.match.sum(1)))
figures.rank_list_figure(result, best, 10, picture, "shipped-10: a good query")

# %% [markdown]
# And the query with the lowest AP. Look at the wrong crops: what do they share with the query? Clothes of that colour, the same bag, the same background?

# %%
worst = int(np.nanargmin(result.ap))
figures.rank_list_figure(result, worst, 10, picture, "shipped-10: its worst query")

# %% [markdown]
# The same query in the ranking by colours, and by the model that started from random weights:

# %%
figures.rank_list_figure(results["baseline-histogram"], worst, 10, picture, "Colour histogram, the same query")

# %%
figures.rank_list_figure(results["scratch-10"], worst, 10, picture, "scratch-10, the same query")

# %% [markdown]
# The list as a table, with file names, to take elsewhere (`.to_csv(...)`):

# %%
tables.rank_list_table(result, worst, 5)

# %% [markdown]
# ## 6 · Re-ranking: ask the neighbours
#
# Two crops of one person should have the same neighbours. **k-reciprocal re-ranking** (Zhong et al., CVPR 2017) uses this: the distance becomes a mix of the old one and of how much the neighbourhoods of query and candidate overlap, where only *mutual* neighbours count. It needs no training and no label, only the features.
#
# Here is the query of `shipped-10` that gains most by it, before and after.

# %%
reranked = demo.result("shipped-10", rerank=True)
gain = reranked.ap - result.ap
most = int(np.nanargmax(gain))
figures.rank_list_figure(result, most, 10, picture, "before")

# %%
figures.rank_list_figure(reranked, most, 10, picture, "after re-ranking")

# %% [markdown]
# It does not help every query: where the first neighbours are wrong, they vote for more wrong ones. Over all queries:

# %%
print(f"better {np.sum(gain > 0.001)}, worse {np.sum(gain < -0.001)} of {len(gain)} queries")
both = table[table["stage"] == "finetune"].pivot(index="run", columns="re-ranking", values="mAP")
both.assign(gain=both["yes"] - both["no"]).round(1).rename(columns={"no": "mAP", "yes": "mAP re-ranked"})

# %% [markdown]
# ## 7 · Where does it look?
#
# **Grad-CAM** asks at which places of a layer's map those channels are active that would raise a *score*. Here the score is a *similarity*: which parts of the query make its feature like that of its nearest gallery crop? Each MGN branch gives a map: `b1` is the branch for the whole person, `b2` that for halves, `b3` that for thirds. Because the people are drawn, we know the truth: the white line is the person, and the share of the map inside it is a score that real data could not give.

# %%
from PIL import Image

from lab.data.crops import resize, to_tensor
from lab.data.synthetic import load_ground_truth
from lab.evaluate.attention import attention_map, energy_on_mask

model, config = demo.model("shipped-10"), demo.config("shipped-10")
size = config.height, config.width  # pixels that the model works at

# %%
path, nearest = result.path[best], result.gallery_path[result.index[best, 0]]
pixels = to_tensor(resize(Image.fromarray(picture(nearest)), *size))  # (3, H, W) uint8: embed does the rest
target = model.embed(pixels[None])[0].numpy()
maps = {branch: attention_map(model, picture(path), target, branch, size) for branch in ("b1", "b2", "b3")}
truth = load_ground_truth(demo.root) if SIZE == "tiny" else {}  # file name -> mask, part boxes; drawn people only
mask, _ = truth.get(Path(path).name, (None, None))
figures.attention_overlay(picture(path), maps, mask, title="Why is it like its nearest gallery crop?")

# %% [markdown]
# A map is coarse: in the demo the last layer has only 4 x 2 places, and the picture is drawn by interpolation between them. Read it as "about the torso", never as "this button". Add up the values of the map: the share of that sum that lies on the person is its score. A map that is the same everywhere scores the person's share of the crop. [Notebook 07](07_attention.ipynb) measures it over many crops.

# %%
if mask is not None:
    print(f"the person covers {100 * mask.mean():.0f} % of the crop")
    for branch, values in maps.items():
        print(f"{branch}: {100 * energy_on_mask(values, mask):.0f} % of the map is on the person")

# %% [markdown]
# ## Exercises
#
# **1. Chance.** Which mAP does a ranking get that sorts the gallery at random? Guess first, then compute it for these queries.
#
# <details><summary>Answer</summary>
#
# One might expect the share of right crops in the list, about 1 % here. The AP of chance is about twice that: precision is read off *at the hits*, where at least one crop is right, and among $n$ crops that adds about $(1 + 1/2 + \dots + 1/n)\,/\,n$. [Notebook 05](05_evaluation.ipynb) has the formula.
#
# ```python
# rng = np.random.default_rng(0)
# aps, shares = [], []
# for pid, camid in zip(data.query.pid, data.query.camid):
#     removed = (data.gallery.pid == pid) & (data.gallery.camid == camid)
#     right = rng.permutation((data.gallery.pid == pid)[~removed])
#     ranks = 1 + np.flatnonzero(right)
#     if len(ranks):
#         aps.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
#         shares.append(right.mean())
# print(f"mAP of chance: {100 * np.mean(aps):.1f} %, share of right crops: {100 * np.mean(shares):.1f} %")
# ```
#
# The untrained network and the colours must be compared with this, not with 0.
# </details>
#
# **2. The camera's pull.** In how many of the wrong first entries of the colour histogram does the crop come from the *query's own camera*? And for `shipped-10`?
#
# <details><summary>Answer</summary>
#
# ```python
# for name in ("baseline-histogram", "shipped-10"):
#     r = results[name]
#     wrong = r.first_match > 1
#     same_camera = r.gallery_camid[r.index[wrong, 0]] == r.camid[wrong]
#     print(f"{name}: {wrong.sum()} wrong at rank 1, {100 * same_camera.mean() if wrong.any() else 0:.0f} % from the query's camera")
# ```
#
# With six cameras chance would be about 17 %. Far more for colours means: they find the place, not the person. Training with people who appear under several cameras is what breaks it.
# </details>
#
# **3. The hardest camera.** Which camera's queries are hardest for `shipped-10`, and by how much? Look at its row in the contact sheet: why?
#
# <details><summary>Answer</summary>
#
# ```python
# by_camera = tables.query_table(results["shipped-10"]).groupby("camid")["AP"].agg(["mean", "count"])
# print(by_camera.round(1).sort_values("mean"))
# ```
#
# Usually the one that is darkest, most blurred or looks from above. With some forty queries per camera a difference of a few points is noise.
# </details>
#
# ## Where next
#
# * The paper: [Fu et al., CVPR 2021](https://arxiv.org/abs/2012.03753), sections 3 (the crops), 4 (pre-training) and 5 (what it is worth).
# * `lab app demo/runs` opens the explorer on these runs: [*Rank lists*](http://localhost:8501/rank_lists) for any query, [*Attention*](http://localhost:8501/attention) for any pair.
# * The code, in reading order, is listed in [`lab/__init__.py`](../lab/__init__.py).
# * [Notebook 01](01_crops.ipynb) begins at the beginning: where crops come from.
