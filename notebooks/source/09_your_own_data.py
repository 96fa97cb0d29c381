# %% [markdown]
# # 09 · Your own data: from a folder of crops to a model in use
#
# | | |
# |---|---|
# | **Goal** | Bring your own crops and cameras, start from released weights, fine-tune, evaluate, look, and take the results and the model elsewhere. Know how much data a claim needs. |
# | **Needs** | [04 · Fine-tuning](04_finetuning.ipynb) and [05 · Evaluation](05_evaluation.ipynb). For the ONNX section the packages of the extra `export` (`pip install -e '.[export]'`); the conda environment has them. |
# | **Makes** | A small foreign data set in `demo/lessons/09`; the runs `09-mine`, `09-trunk` and `09-elsewhere` in `demo/runs`. Two large files are deleted again after they were looked at. |
# | **Minutes** | 40 to read, 1 to run; makes what is missing itself in 2 minutes on two CPU cores. It needs nothing of the other notebooks. |
#
# All notebooks so far used the people that the lab draws, in a layout that the lab wrote. Yours will have other names, other cameras and other mistakes in it. Here a stranger's data set goes the whole way, and each step is also given as a command. It is drawn, so that nobody's picture is used without asking, but nothing below knows that.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ipywidgets import IntSlider
from PIL import Image

from lab import verbs
from lab.backbone import Embedder, load_trunk
from lab.convert import convert
from lab.data import load
from lab.data.crops import resize, to_tensor
from lab.data.synthetic import render
from lab.data_verbs import data_check
from lab.demo import finetune_config
from lab.errors import InputError
from lab.evaluate.compare import intervals, paired, query_values
from lab.evaluate.evaluate import evaluate_run
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.settings import EvaluateConfig
from lab.export import export_onnx, run_onnx
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig, finetune
from lab.pretrain.moco import MoCo
from lab.released import RELEASED, TERMS
from lab.runs import Run
from lab.show import curves, figures, tables
from lab.show.images import read_picture
from lab.show.live import explore, in_notebook
from lab.show.planning import precision_figure
from lab.weights import resolve_weights, weights_digest

in_notebook()
folder = Path(os.path.relpath(FOLDER))
lesson, runs = folder / "lessons" / "09", folder / "runs"
lesson.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1 · Before the first image: may you?
#
# Re-identification finds people who did not ask to be found. Settle these questions before you collect anything, and write the answers down beside the data:
#
# * **Consent and law.** Pictures in which a person can be recognised are personal data in many countries, and features made to recognise someone again may be biometric data, with stricter rules. Who is on the images, what were they told, what did they agree to, and which law applies? An ethics board or a data protection officer is the right first reader of your plan.
# * **Licence.** That a data set can be downloaded does not mean that you may use it. DukeMTMC was withdrawn by its owners, and copies that still circulate do not change that. LUPerson's crops come from street scenes on YouTube, whose passers-by knew nothing of it; its authors release it, and the weights made from it, for research only. Weights inherit the terms of the data behind them.
# * **Purpose and harm.** What happens to somebody after a *wrong* match? A rank list always has a first entry, also when the person is not in the gallery at all. Are errors equally frequent for all groups of people in your data? ([Notebook 08](08_comparing_models.ipynb) shows how to look.)
# * **Less is better.** Crops instead of frames, blurred faces if they are not needed, no longer than needed, access for few, and a date on which it is deleted.
#
# If you only want to learn or to compare methods, use the drawn people: that is what they are for.
#
# ## 2 · A folder and a CSV
#
# The example: a shop with three cameras, called by their names. Somebody has cut out the people and noted who is who. File names follow no rule that the lab knows. Half of the people are to learn from, half are to be searched. A few strangers passed one camera only.

# %%
cameras = {"entrance": 1, "aisle": 2, "till": 3}  # the name in your files -> a number
PEOPLE, STRANGERS, CROPS = 48, 20, 4
people = [(person, name, crop) for person in range(PEOPLE) for name in cameras for crop in range(CROPS)]
strangers = [(PEOPLE + number, list(cameras)[number % 3], 0) for number in range(STRANGERS)]
for person, name, crop in people + strangers:
    file = lesson / "shop" / name / f"frame{person:02d}{crop}.jpg"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(person, cameras[name], crop, seed=7, num_cameras=3).image).save(file, quality=92)

# %% [markdown]
# All that the lab needs to know is a CSV with four columns:
#
# | column | what it says |
# |---|---|
# | `path` | the image, relative to the CSV |
# | `pid` | who it is, a whole number; -1 for *junk* (a bad box), which is dropped |
# | `camid` | which camera, a whole number |
# | `split` | `train`, `query` or `gallery` |
#
# Who trains is never searched. Of those who are searched, one crop per camera becomes a query and the rest go to the gallery, as Market-1501 does it. Strangers are gallery only.

# %%
rows = []
for person, name, crop in people + strangers:
    searched = "query" if crop == 0 and person < PEOPLE else "gallery"
    split = "train" if person < PEOPLE // 2 else searched
    rows.append((f"shop/{name}/frame{person:02d}{crop}.jpg", person, cameras[name], split))
table = pd.DataFrame(rows, columns=["path", "pid", "camid", "split"])
table.to_csv(lesson / "shop.csv", index=False)
table.sample(5, random_state=0).sort_index()

# %%
mine = load("folder", lesson / "shop.csv")  # put your own CSV here
mine.summary()

# %%
pid = mine.query.pid[len(mine.query) // 2]
one = mine.gallery.take(mine.gallery.pid == pid)
titles = [f"cam {camid}" for camid in one.camid]
figures.contact_sheet([read_picture(path) for path in one.path], titles, 9, f"Person {pid} in the gallery of the shop")

# %% [markdown]
# (Without a CSV, `--dataset folder` also takes two sub-folders, one per camera, with names that begin with the person's number; data sets in the layouts of Market-1501, MSMT17 and CUHK03 are read as they are: [docs/data.md](../docs/data.md).)
#
# ## 3 · Check before you train
#
# An hour of training on wrong labels looks like an hour of training. The check reads every image and counts. As a command: `lab data check --dataset folder --root demo/lessons/09/shop.csv`.

# %%
data_check("folder", lesson / "shop.csv")

# %% [markdown]
# Now three mistakes on purpose, each of a kind that has cost people weeks.
#
# **The wrong layout.** The folder is called what it is not. The lab does not guess; it says what it found and what it expected.

# %%
try:
    data_check("market1501", lesson / "shop")
except InputError as error:
    print("InputError:", str(error).replace(f"{lesson.resolve()}/", ""))

# %% [markdown]
# **A person in two splits.** Of two searched people some crops are trained on. Nothing fails: the model is asked about people whom it has learned to tell from all others, and its numbers flatter it. Look at the notes below the table.

# %%
leak = table.copy()
two = leak["pid"].isin([PEOPLE // 2, PEOPLE // 2 + 1])  # the first two who are searched
leak.loc[two & (leak["split"] == "gallery") & (leak["camid"] == cameras["till"]), "split"] = "train"
leak.to_csv(lesson / "leak.csv", index=False)
data_check("folder", lesson / "leak.csv")

# %% [markdown]
# **People whom one camera saw.** Of five people only the crops at the entrance were kept. Their queries have no answer: what the query's own camera took does not count ([notebook 05](05_evaluation.ipynb)). Such queries are left out of the means, and one should know how many they are.

# %%
lonely = np.unique(mine.query.pid)[:5]
dropped = table["pid"].isin(lonely) & (table["camid"] != 1)
table[~dropped].to_csv(lesson / "one_camera.csv", index=False)
data_check("folder", lesson / "one_camera.csv")

# %% [markdown]
# (Images that no line names are reported too: here the ones that were just left out.) What the check *cannot* see: two people under one number, one person under two, a camera that was moved and is two places now. Look at contact sheets.
#
# > **Quick question.** Your detector cuts each person out 25 times a second. May neighbouring frames be query and gallery?
# > <details><summary>Answer</summary>Yes, if they carry the same <code>camid</code>: then the rule "same person and same camera is left out" removes them for that query, and finding the next frame earns nothing. If one camera's frames were given two numbers, for instance one per day, next frames would count as hits. A new <code>camid</code> for a new day is right only when the day is a new situation, with other light and other clothes.</details>
#
# ## 4 · Pre-trained weights in
#
# LUPerson's authors released trunks that were pre-trained on 4 million crops, and models fine-tuned on the four data sets of [the paper](https://arxiv.org/abs/2012.03753):

# %%
print(TERMS)
pd.DataFrame([{"name": name, "what": file.what} for name, file in RELEASED.items()]).set_index("name")

# %% [markdown]
# `lab download lup-r50` fetches one; after that the name works wherever weights are asked for (`--init lup-r50`). Here nothing is downloaded. A **stand-in** plays its part: the small trunk that comes with the lab, written in exactly the layout of the released trunks, a flat dictionary with torchvision's names and nothing about pixels in it. And a second one in the layout of a *raw* pre-training checkpoint, as the published code saves it (random weights, for its layout alone).

# %%
flat, raw = lesson / "standin_r18.pth", lesson / "standin_raw.pth"
if not flat.is_file():
    print(convert("shipped", flat, to="fastreid").split(": ", 1)[1])
if not raw.is_file():
    state = MoCo(depth=18, queue_size=256).state_dict()
    named = {f"module.{key}": value for key, value in state.items() if not key.startswith("pixel")}
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": named}, raw)
for file in (flat, raw):
    content = torch.load(file, weights_only=True)
    print(f"{file.name}: {len(content)} entries, {', '.join(list(content)[:4])}, …")

# %% [markdown]
# **Loading is where silent failures live.** The published fine-tuning reads the file with `strict=False`: give it the raw checkpoint and *no* key fits, a line in the log says so, and training starts from random weights. Months later somebody wonders about the numbers. `load_trunk` understands both, says what became of every key, and refuses what does not fit.

# %%
for file in (flat, raw):
    print(load_trunk(Embedder(18), file, file.name), "\n")

# %% [markdown]
# All of the trunk was loaded from either file. *Not used* are the parts of pre-training that have no place in a trunk, such as the projection head. Now wrong files: a fine-tuned model in place of a trunk, a trunk of another depth, and a file whose names nobody knows.

# %%
wrong = {
    "a fine-tuned MGN": (18, {"model": MGN(10, depth=18).state_dict()}),
    "another depth": (50, torch.load(flat, weights_only=True)),
    "unknown names": (18, {f"my_net.part.{key}": value for key, value in torch.load(flat, weights_only=True).items()}),
}
for name, (depth, content) in wrong.items():
    try:
        load_trunk(Embedder(depth), content, name)
    except InputError as error:
        print("InputError:", error, "\n")

# %% [markdown]
# ## 5 · Fine-tune
#
# As a command: `lab finetune --dataset folder --root demo/lessons/09/shop.csv --init FILE --out demo/runs/09-mine --size tiny`. In Python it is three lines, which is all that the command does. At size tiny this takes some dozens of steps, less than half a minute on quiet cores, and a finished run is opened again. At size paper it starts from `lup-r50` itself, with the published recipe.

# %%
weights = "lup-r50" if SIZE == "paper" else flat
config = FinetuneConfig() if SIZE == "paper" else finetune_config(fraction=1.0, epochs=4, seed=0)
facts = {"data": {"dataset": "folder", "images": len(mine.train)}, "init": {"weights": Path(weights).stem}}
run = Run.create(runs / "09-mine", "finetune", config, **facts)
model = finetune(run, mine.train, config, weights)

# %%
curves.loss_curves(run.log(), f"Fine-tuning on {mine.train.num_ids} people of the shop")

# %% [markdown]
# ## 6 · Evaluate, and against what
#
# A number alone says nothing. Beside the fine-tuned model stands the trunk as it was *before*, ranked without a single label. The difference is what your labels *and* the larger model with its stripes bought, in one run; it can be below 0 where labels are few. Each is ranked plainly and re-ranked ([notebook 06](06_reranking.ipynb)). As commands: `lab evaluate --run demo/runs/09-mine --dataset folder --root …`, with `--rerank`, and `lab evaluate --weights FILE --height 64 --width 32 … --out demo/runs/09-trunk`.

# %%
before = Embedder(config.depth)
load_trunk(before, weights)
digest = weights_digest(resolve_weights(weights))  # features are made once for the same weights
size = {"height": config.height, "width": config.width}
trunk = Run.create(runs / "09-trunk", "weights", size, init={"weights": Path(weights).stem})
for rerank in (False, True):
    how = EvaluateConfig(rerank=rerank, num_workers=0, **size)
    evaluate_run(run, model, mine, how, progress=False)
    evaluate_run(trunk, before, mine, how, progress=False, digest=digest)

# %%
found = tables.metrics_table([trunk, run])
found[["run", "re-ranking", *tables.METRICS, "queries", "gallery"]].round(1)

# %%
plain, start = run.result("folder"), trunk.result("folder")
print(paired(start, plain, names=("trunk alone", "fine-tuned")).sentence())

# %% [markdown]
# ## 7 · Look
#
# The best and the worst query of the fine-tuned model. With your own data this is the most useful quarter of an hour: wrong labels show up here as confident "errors".

# %%
best, worst = int(np.nanargmax(plain.ap + 0.001 * plain.match.sum(1))), int(np.nanargmin(plain.ap))
figures.rank_list_figure(plain, best, 10, read_picture, "Best query")

# %%
figures.rank_list_figure(plain, worst, 10, read_picture, "Worst query")

# %%
by_camera = tables.query_table(plain).groupby("camid")["AP"].agg(["mean", "min", "count"]).round(1)
by_camera.rename(index={number: name for name, number in cameras.items()}).rename_axis("camera of the query")

# %% [markdown]
# A query in the middle, or any other:

# %%
typical = int(np.argsort(plain.ap)[len(plain.ap) // 2])  # half of the queries are better
explore(
    lambda query: figures.rank_list_figure(plain, query, 10, read_picture, f"Query {query}"),
    query=IntSlider(value=typical, min=0, max=len(plain.pid) - 1),
)

# %% [markdown]
# ## 8 · Take the rank lists elsewhere
#
# A rank list is a table: one row per query and place. As CSV it goes into a spreadsheet or another program. (The run folder's `eval/folder/` has the same in `queries.csv`, `gallery.csv` and `ranks.npz`.)

# %%
names = [Path(path).name for path in plain.path]
lists = [tables.rank_list_table(plain, query, 10).assign(query=name) for query, name in enumerate(names)]
exported = pd.concat(lists)[["query", "rank", "match", "distance", "pid", "camid", "file"]]
exported["file"] = [f"{Path(path).parent.name}/{Path(path).name}" for path in exported["file"]]
exported.to_csv(lesson / "rank_lists.csv", index=False)
right = (exported.query("rank == 1")["match"] == "right").sum()
assert right == round(plain.cmc[0] * plain.num_valid_query)  # rank-1, counted in the table
exported.head(3).round(3)

# %% [markdown]
# ## 9 · Take the model elsewhere: ONNX
#
# **ONNX** is a file format for networks that many runtimes read, without torch. The export puts the normalisation *into* the file, once: uint8 RGB images in, features of unit length out. It runs the file and torch on the same images, and writes nothing if they disagree. As a command: `lab export demo/runs/09-mine --out mine.onnx`.

# %%
onnx_file = lesson / "mine.onnx"
began = time.perf_counter()
try:
    print(export_onnx(model, onnx_file, config.height, config.width))
    print(f"exported in {time.perf_counter() - began:.0f} s")
except InputError as error:  # the packages of the extra are not installed: it says how to
    print(error)

# %% [markdown]
# The other program has to do one thing itself: resize each crop, with Pillow's bicubic filter, to the size that is fixed in the file. By hand, two crops of the best query's person, through the file and through torch:

# %%
crops = [Image.open(plain.path[best]), Image.open(plain.gallery_path[plain.index[best, 0]])]
images = torch.stack([to_tensor(resize(crop, config.height, config.width)) for crop in crops])
ours = model.embed(images).numpy()
print(f"distance by torch: {1 - ours[0] @ ours[1]:.4f}, in the rank list: {plain.distance[best, 0]:.4f}")
if onnx_file.is_file():
    theirs = run_onnx(onnx_file, images.numpy())  # (2, 2048)
    print(f"distance by onnxruntime: {1 - theirs[0] @ theirs[1]:.4f}")
    assert np.allclose(ours, theirs, atol=1e-4)

# %% [markdown]
# That was the last use of two large files: the ONNX file (125 MB at size tiny) and the raw checkpoint of section 4 (92 MB). They are deleted, so that the demo's folder stays small. To keep yours, leave the next cell out, or use the command.

# %%
for file in (onnx_file, raw):
    file.unlink(missing_ok=True)


# %% [markdown]
# > **Quick question.** A colleague feeds the file images from OpenCV, already divided by 255 and normalised. What goes wrong?
# > <details><summary>Answer</summary>The file takes uint8 only, so onnxruntime refuses floats: lucky. The silent mistake comes with the cure. Cast to uint8, 2.3 becomes 2 and -1.3 becomes 255 (on most machines): a picture of nearly black and nearly white speckles, which the file then normalises a second time. And OpenCV gives the channels in the order B, G, R, so red coats become blue ones; that, too, nothing reports. Features still have length 1. Compare one distance with the lab's, as above.</details>
#
# ## 10 · Results of a model that was trained elsewhere
#
# The other direction: you have a model in another framework, and want its rank lists, metrics and tests here. Then two files of features are enough: `values` (N, D), `pid`, `camid` and, if known, `path`. The "other framework" of this example is plain numpy: the mean colour of six stripes.

# %%
def mean_colours(path):
    """18 numbers: mean red, green and blue of six stripes, in -0.5..0.5."""
    stripes = np.array_split(np.asarray(Image.open(path).convert("RGB")) / 255 - 0.5, 6)
    return np.concatenate([stripe.mean(axis=(0, 1)) for stripe in stripes])


for part in ("query", "gallery"):
    crops = getattr(mine, part)
    values = np.stack([mean_colours(path) for path in crops.path])
    np.savez(lesson / f"{part}.npz", values=values, pid=crops.pid, camid=crops.camid, path=crops.path)

# %% [markdown]
# `lab evaluate --query-features query.npz --gallery-features gallery.npz --name folder --out demo/runs/09-elsewhere`, which is this function:

# %%
verbs.evaluate(
    query_features=lesson / "query.npz",
    gallery_features=lesson / "gallery.npz",
    name="folder",
    out=runs / "09-elsewhere",
)

# %%
elsewhere = Run.open(runs / "09-elsewhere")
columns = ["run", "stage", "initialised from", *tables.METRICS]
together = tables.metrics_table([elsewhere, trunk, run])
together[together["re-ranking"] == "no"][columns].round(1)

# %%
curves.cmc_figure({one.name: one.result("folder") for one in (elsewhere, trunk, run)}, title="CMC on the shop")

# %% [markdown]
# Same queries, same gallery, same camera rule, same AP: these rows may be compared. A number from somebody's paper about *another* test may not.
#
# ## 11 · Open it in the explorer
#
# All of this lies in run folders, which the explorer reads without torch. `lab app demo/runs`, then page *Overview* ([localhost:8501](http://localhost:8501/)) for the table, *Rank lists* ([localhost:8501/rank_lists](http://localhost:8501/rank_lists)) for any query of `09-mine` beside `09-elsewhere`, *Compare two* ([localhost:8501/compare](http://localhost:8501/compare)) for their difference with its interval, and *Your own image* ([localhost:8501/search](http://localhost:8501/search)) to search the gallery for a picture that you bring along.
#
# ## 12 · How much data does a claim need?
#
# The shop has two dozen people to search. How sure is its mAP? Queries of one person are not independent, so *people* are what counts. Each person has a mean AP over their queries; let $\sigma$ be the standard deviation of these means. The mean over $n$ people then has a 95 % interval of about
#
# $$\pm\,1.96\,\sigma/\sqrt{n}.$$
#
# By hand for this test, and beside it the interval that [`lab.evaluate.compare`](../lab/evaluate/compare.py) gets by drawing people with replacement (notebook 08):

# %%
ap = query_values(plain)[:, 0]  # of each query
valid = plain.first_match > 0
per_person = np.array([ap[valid & (plain.pid == pid)].mean() for pid in np.unique(plain.pid[valid])])
sigma, n = per_person.std(ddof=1), len(per_person)
low, high = intervals(plain).loc["mAP", ["low", "high"]]
by_hand, by_bootstrap = 196 * sigma / n**0.5, 50 * (high - low)  # in points
print(f"{n} people, sigma {100 * sigma:.1f} points: ± {by_hand:.1f} by hand, ± {by_bootstrap:.1f} by bootstrap")
assert np.isclose(by_hand * ((n - 1) / n) ** 0.5, by_bootstrap, rtol=0.15)  # the bootstrap divides by n, not by n - 1

# %%
counts = np.array([10, 20, 50, 100, 200, 500, 1000])
title = "How sure is an mAP, if people differ as in this test?"
precision_figure(counts, 196 * sigma / counts**0.5, (n, by_bootstrap), title)

# %% [markdown]
# (With so few people an interval by hand would take a little more than 1.96, from the t distribution.) Four times the people halve the interval. Market-1501's 750 test people put a single mAP within a point or two; a *paired* comparison of two models on the same queries is sharper, because people who are hard are hard for both.
#
# **A decision guide.** It is a rule of thumb: your σ decides, and the cell above computes it.
#
# | you have | you can | you cannot |
# |---|---|---|
# | crops, no labels | look at rank lists of released weights; pre-train on them | give any number |
# | fewer than 20 test people | find mistakes, show a demo | state an mAP (the lab warns that such intervals are too narrow) |
# | 50 to 100 test people, 2 or more cameras each | tell models apart that differ by ten points or so | rank models that are close |
# | several hundred test people | tell models apart that differ by a few points, paired | speak about another place |
# | one pair of cameras | say how well *this pair* is bridged | say "cross-camera" in general: cameras are a sample too, of size one pair |
# | 75 training people (10 % of Market-1501) | fine-tune: 64.6 % mAP from LUPerson's trunk, 53.1 % from ImageNet's (paper, small-scale setting) | expect that from scratch |
# | one training run | describe it | say that recipe A beats B: seeds (notebook 04) |
#
# And for each test person: at least two cameras (else the query has no answer). More people narrow the interval; more crops of the same people do so much less, because they succeed and fail together ([notebook 08](08_comparing_models.ipynb), section 2). Put in people who are nobody's match: a gallery in which everybody has a match is easier than the world. Keep a part of the people untouched until the end: whoever tunes on the test people measures the tuning.
#
# ## Exercises
#
# **1. Names, not numbers.** Your CSV has camera *names* in the column `camid`, and people called by letters. What does the reader say, and how do you number them so that the numbers are the same tomorrow? (Make such a CSV from `table`: the camera's name is the second part of `path`.)
#
# <details><summary>Answer</summary>
#
# ```python
# named = table.assign(camid=table["path"].str.split("/").str[1], pid=[f"person-{pid}" for pid in table["pid"]])
# named.to_csv(lesson / "named.csv", index=False)
# try:
#     load("folder", lesson / "named.csv")
# except InputError as error:
#     print("InputError:", str(error).replace(f"{lesson.resolve()}/", ""))
# for column in ("camid", "pid"):
#     order = sorted(named[column].unique())  # sorted: does not depend on the order of the lines
#     named[column] = named[column].map({name: number for number, name in enumerate(order, start=1)})
# named.to_csv(lesson / "named.csv", index=False)
# print(load("folder", lesson / "named.csv").summary())
# ```
#
# Sorting makes the numbering independent of the order of lines. It still changes when a name is added; keep the mapping in a file if results must stay comparable.
# </details>
#
# **2. The OpenCV mistake.** Rank the shop with images whose channels are turned round (B, G, R). How much mAP does it cost the fine-tuned model? Why does nothing complain? And if only the queries are turned? (`evaluate_run` also takes a function from images to features; give it a run of its own by `Run.create`. A run's `features("folder", part)` can be ranked by `evaluate_ranking`.)
#
# <details><summary>Answer</summary>
#
# ```python
# bgr = Run.create(folder / "lessons" / "09" / "bgr", "weights", size)
# how = EvaluateConfig(num_workers=0, **size)
# turned = evaluate_run(bgr, lambda images: model.embed(images.flip(1)), mine, how, progress=False)
# print(f"RGB {100 * plain.mAP:.1f} %, BGR {100 * turned.mAP:.1f} % mAP")
# one_side = evaluate_ranking(bgr.features("folder", "query"), run.features("folder", "gallery"))
# print(f"only the queries turned: {100 * one_side.mAP:.1f} %")
# ```
#
# Queries and gallery are turned alike, so a good part still works: shapes and brightness are as before, and equal colours stay equal. That is why the mistake goes unnoticed. It is far worse when only *one* of the two sides is turned (one run of ours: 63 % became 48 %, and 10 % with the queries alone). (`lab convert --bgr` repairs weights that were trained that way.)
# </details>
#
# **3. How many people for this difference?** Of the fine-tuned model against the colours of section 10: how many test people would make the interval of the *difference* narrower than ± 3 points?
#
# <details><summary>Answer</summary>
#
# ```python
# gap = query_values(plain)[:, 0] - query_values(elsewhere.result("folder"))[:, 0]
# per_person_gap = np.array([gap[valid & (plain.pid == pid)].mean() for pid in np.unique(plain.pid[valid])])
# sigma_gap = per_person_gap.std(ddof=1)
# print(f"mean difference {100 * per_person_gap.mean():.1f} points, sigma {100 * sigma_gap:.1f}")
# print(f"+- 3 points need {int(np.ceil((196 * sigma_gap / 3) ** 2))} people")
# print(paired(elsewhere.result("folder"), plain, names=("colours", "fine-tuned")).sentence())
# ```
#
# The rows of both results are the same queries in the same order, which is what makes the difference per person possible. If the difference is large, far fewer people are enough to show that there *is* one: what the test in the last line asks.
# </details>
#
# ## Where next
#
# * The paper: [LUPerson, section 5](https://arxiv.org/abs/2012.03753), whose small-scale and few-shot settings are about data sets as small as yours may be.
# * The code: the reader of CSVs [`folder.py`](../lab/data/readers/folder.py), weights [`backbone.py`](../lab/backbone.py) and [`convert.py`](../lab/convert.py), [`export.py`](../lab/export.py), the command's verbs [`verbs.py`](../lab/verbs.py). From videos to crops: [docs/data.md](../docs/data.md). Training on GPUs: [docs/training.md](../docs/training.md).
# * The explorer: `lab app demo/runs`, page *Your own image*: [localhost:8501/search](http://localhost:8501/search).
# * Next: [10 · The study](10_the_study.ipynb), the paper's claims with error bars.
