# %% [markdown]
# # 07 · Attention: where does it look, and how would we know?
#
# | | |
# |---|---|
# | **Goal** | Make activation maps, Grad-CAM and similarity maps by hand; take a distance apart into the eight parts of the descriptor; score maps against the truth; know three ways in which a beautiful map misleads. |
# | **Needs** | A fine-tuned model of the demo (`shipped-100` if it is there, else `shipped-10`). What an MGN is: [04](04_finetuning.ipynb). |
# | **Makes** | Nothing: it only looks. |
# | **Minutes** | 45 to read, 1 to run; makes what is missing itself in 2 minutes. |
#
# The [last notebook](06_reranking.ipynb) took the features as given. This one asks where they come from. "The network looks at the bag" is easily said under a red-and-yellow picture, and a picture can always be made. Because our people are drawn, we know which pixels are theirs, and can do what is rarely possible: check.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
import copy
import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from ipywidgets import Dropdown, FloatSlider
from PIL import Image

from lab.data.crops import resize, to_tensor
from lab.data.splits import choose_subset
from lab.data.synthetic import load_ground_truth, render
from lab.demo import Demo
from lab.evaluate import attention
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.statistics import bootstrap_means, interval
from lab.finetune.mgn import BRANCHES, HEAD_DIM, HEADS, GeM
from lab.pixels import normalise
from lab.runs import Features, find_runs
from lab.show import figures, maps
from lab.show.live import explore, in_notebook

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT)

# %% [markdown]
# ## 1 · What a map can say
#
# A convolutional network keeps a coarse map of the crop until its very end: in an MGN each of the three **branches** ends in a map of `C` channels at `h x w` places, and only then it is pooled into a vector. A method to look inside turns the `C` numbers of each place into one:
#
# | map | question that it answers | needs |
# |---|---|---|
# | **activation map** | Where does the layer answer strongly? (whatever for) | one forward pass |
# | **Grad-CAM** | Where would *more* of what the layer found raise a *score*? | a score and one backward pass |
# | **similarity map** | Which place, taken alone, looks like *that other crop's* part? | another crop |
# | **intervention** | What happens to the score if this is *changed*? | many forward passes |
#
# Only the last one changes the picture and looks what happens. (A gradient is the effect of a tiny change, too, but of the *map*.) The first three are **summaries of a computation**, and what they leave out is not marked on them. Keep two sentences in mind: *a map never proves that a region is used*, and *a map that is no more on the person than a flat one does not prove that the person is not used*. You will see the second with your own eyes in section 9.

# %%
finished = {run.name for run in find_runs(Path(FOLDER) / "runs") if run.evals()}
name = "shipped-100" if "shipped-100" in finished else "shipped-10"
run, model, result = demo.run(name), demo.model(name), demo.result(name)
size = run.config["settings"]["height"], run.config["settings"]["width"]  # pixels that the model works at
print(f"{name}: mAP {100 * result.mAP:.1f} %, crops of {size[0]} x {size[1]} pixels")


# %% [markdown]
# We want a query of which the model finds the right person first and somebody else second. These three crops go with us: the **query**, the **right** one, the **wrong** one.

# %%
def load_crops(paths):
    """What the model takes: (B, 3, H, W) uint8."""
    return torch.stack([to_tensor(resize(Image.fromarray(demo.picture(path)), *size)) for path in paths])


query = int(np.argmax((result.match[:, 0] & ~result.match[:, 1]) * np.nan_to_num(result.ap)))
paths = [result.path[query], *result.gallery_path[result.index[query, :2]]]
crops = load_crops(paths)  # query, right, wrong
pictures = [crop.permute(1, 2, 0).numpy() for crop in crops]  # as the network sees them
figures.rank_list_figure(result, query, 5, demo.picture, "The query and its first five")

# %% [markdown]
# ## 2 · Activation maps: how loud is each place?
#
# The simplest summary of the map $A \in \mathbb{R}^{C \times h \times w}$ of a branch is the size of what stands at each place, either the mean over the channels or the length of the vector:
#
# $$M^{\text{mean}}_{ij} = \frac1C \sum_k A_{kij}, \qquad M^{\text{length}}_{ij} = \sqrt{\textstyle\sum_k A_{kij}^2}.$$
#
# By hand it is one line each.

# %%
with torch.no_grad():
    branch_maps = model.maps(crops)  # branch -> (3, C, h, w)
b1 = branch_maps["b1"][0]  # of the query
mean, length = b1.mean(dim=0), b1.square().sum(dim=0).sqrt()
assert torch.allclose(length, attention.activation_map(branch_maps["b1"])[0])
print(f"{b1.shape[0]} channels at {b1.shape[1]} x {b1.shape[2]} places")
print(f"mean of the channels {mean.min():.2f} … {mean.max():.2f}, length {length.min():.1f} … {length.max():.1f}")

# %% [markdown]
# The mean may be negative (the extra batch norm of [04](04_finetuning.ipynb) comes after the last ReLU and shifts each channel), and a channel at -3 cancels one at +3. The length does not cancel, so it is what we use.
#
# To lay the map over the crop it has to be drawn larger, by interpolation between the places. Look how few numbers the right picture is made of.

# %%
maps.places_figure(pictures[0], length.numpy(), attention.enlarge(length, size), "Activation map of branch b1")

# %% [markdown]
# `attention.enlarge` also stretches the map so that its lowest place is 0 and its highest 1. **Two maps that look the same may differ a hundredfold, and a map that is nearly even looks as lively as any other.** Read the numbers in the middle before you read the colours on the right.
#
# > **Quick question.** Every crop, also one of an empty street, has an activation map with a bright region. Why is that not evidence of anything?
# > <details><summary>Answer</summary>Because of the stretching there always is a place with the value 1, and because the map has no target: it says where the layer answers, and the heads may well ignore these channels. An activation map is the same whatever the heads do with it. (Section 11 shows this: with random heads it does not change at all.)</details>
#
# ## 3 · Grad-CAM by hand
#
# **Grad-CAM** ([Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391)) asks about a *score* $s$. First: how much would $s$ grow if channel $k$ grew by the same small amount everywhere? By the sum of the gradient over the places. Grad-CAM takes the mean, which is the same but for a factor: one weight per channel. Then the channels are added up with these weights, and what speaks against the score is cut off:
#
# $$\alpha_k = \frac1{hw} \sum_{ij} \frac{\partial s}{\partial A_{kij}}, \qquad M_{ij} = \max\Bigl(0, \sum_k \alpha_k A_{kij}\Bigr).$$
#
# A re-ID network has no class for the people whom it is asked about. Our score is therefore a **similarity**: $s = \cos(\text{query}, \text{right})$, where the right crop's feature is a constant. In words: *which parts of the query make it like the other crop?*
#
# A *hook* keeps what a module returns; `torch.autograd.grad` gives the gradient there.

# %%
target = model.embed(crops[1:2]).clone()  # of the right crop; a clone may take part in gradients
kept = {}
hook = model.b1.register_forward_hook(lambda module, inputs, output: kept.update(b1=output))
score = F.cosine_similarity(model(crops[:1]), target)[0]
hook.remove()
gradient = torch.autograd.grad(score, kept["b1"])[0][0]  # (C, h, w)
alpha = gradient.mean(dim=(1, 2))  # (C,)
cam = F.relu((alpha[:, None, None] * kept["b1"][0]).sum(dim=0)).detach()  # (h, w)

# %% [markdown]
# The lab's `attention_map` does the same through the [grad-cam package](https://github.com/jacobgil/pytorch-grad-cam). To compare, we enlarge and stretch ours in the same way.

# %%
by_hand = F.interpolate(cam[None, None], size=size, mode="bilinear")[0, 0]
by_hand = (by_hand - by_hand.min()) / (by_hand.max() - by_hand.min()).clamp(min=1e-12)
by_package = attention.attention_map(model, pictures[0], target[0].numpy(), "b1")
assert np.allclose(by_hand, by_package, atol=0.005)
print(f"cosine {score:.3f}; largest difference of the two maps {np.abs(by_hand.numpy() - by_package).max():.1e}")

# %%
maps.places_figure(pictures[0], 1000 * cam.numpy(), by_package, "Grad-CAM of b1: why like the right crop? (x 1000)")

# %% [markdown]
# One crop at a time is slow, so the lab has a second form for many crops and several layers in one backward pass. It is short enough to read. (The `try … finally` is there so that the model is left as it was, whatever happens.)

# %%
print(inspect.getsource(attention.grad_cam))

# %%
together = attention.grad_cam(model, crops[:1], lambda images: F.cosine_similarity(model(images), target))
assert torch.allclose(together["b1"][0], cam, atol=1e-6)
overlays = {branch: [attention.enlarge(each[0], size)] for branch, each in together.items()}
maps.overlay_sheet(pictures[:1], overlays, title="Grad-CAM of the three branches")

# %% [markdown]
# > **Quick question.** `model.b1` ends before the extra batch norm. In eval mode that layer only scales and shifts each channel. What would Grad-CAM behind it look like?
# > <details><summary>Answer</summary>The same up to a constant. With y = a x + c per channel (a not 0), the weight behind the layer is α/a, and Σ (α/a)(a x + c) = Σ α x + Σ (α/a) c: before the ReLU the two maps differ by <b>one constant for all places</b>. That can matter: a large one lifts the whole map above the ReLU's cut, or below it.</details>
#
# ## 4 · Class target or similarity target?
#
# In its usual form Grad-CAM explains the score of a **class**. An MGN head has classes too: the training people. For a crop of such a person there are thus two questions, *what makes it person 17?* and *what makes it like that other crop?* They need not have the same answer. Here are both for a training crop, and the similarity to a stranger as well.

# %%
settings = [run.config["settings"][key] for key in ("fraction", "fraction_of", "subset", "seed")]
seen = choose_subset(demo.data.train, *settings)  # the crops that this model was trained on
first = np.unique(seen.pid, return_index=True)[1][:12]  # one crop each of up to 12 people
friend = [int(np.argmax((seen.pid == seen.pid[one]) & (seen.camid != seen.camid[one]))) for one in first]
trained = load_crops(seen.path[first])
partners = model.embed(load_crops(seen.path[friend])).clone()  # same person, other camera
directions = model.class_weights()["b1"][seen.labels[first]].detach()  # (12, 256): each person's in head b1

# %%
questions = {
    "class:\nthis person": lambda images: F.cosine_similarity(model.features(images)["b1"], directions),
    "similarity:\nsame person": lambda images: F.cosine_similarity(model(images), partners),
    "similarity:\na stranger": lambda images: F.cosine_similarity(model(images), partners.roll(1, dims=0)),
}
cams = {title: attention.grad_cam(model, trained, ask, ["b1"])["b1"] for title, ask in questions.items()}
full = torch.stack([each.flatten(1).amax(dim=1) > 0 for each in cams.values()]).all(dim=0)
shown = torch.argsort(~full, stable=True)[:3]  # three crops of which no map is empty, if there are as many
sheet = {title: [attention.enlarge(each[one], size) for one in shown] for title, each in cams.items()}
three = [trained[one].permute(1, 2, 0).numpy() for one in shown]
maps.overlay_sheet(three, sheet, title="One crop, three questions")

# %% [markdown]
# How alike are the answers? The correlation of the places of two maps, in the mean over the people (without maps of which the ReLU left nothing):

# %%
flat = torch.stack([each[full].flatten(1) for each in cams.values()], dim=1)  # (people, 3 questions, places)
titles = [title.replace("\n", " ") for title in cams]
alike = np.mean([np.corrcoef(three) for three in flat.numpy()], axis=0)
pd.DataFrame(alike, titles, titles).round(2)

# %% [markdown]
# (The training loss scales the cosine with the class direction by a factor that gets no gradient; a positive factor does not change the map.)
#
# For a **test** crop only the similarity is left: none of its people was in training, so "which class?" has no true answer. This is what makes re-ID different from classification, and why from here on we explain *pairs*.
#
# ## 5 · Part by part: which of the eight parts made the distance?
#
# The next tool needs no gradient and leaves nothing out. The descriptor is eight parts of 256 numbers, side by side, with length 1 as a whole. For two descriptors $a$ and $b$ with parts $a_p, b_p$:
#
# $$\cos(a, b) = \sum_{p=1}^{8} a_p \cdot b_p, \qquad 1 - \cos(a, b) = \tfrac12 \lVert a - b \rVert^2 = \sum_{p=1}^{8} \tfrac12 \lVert a_p - b_p \rVert^2 .$$
#
# Both sums are exact. The second is easier to read: each part *adds* to the distance and none takes away.

# %%
features = model.embed(crops)  # query, right, wrong: (3, 2048)
query_parts, right_parts, wrong_parts = (dict(zip(HEADS, each.split(HEAD_DIM))) for each in features)
similar = {head: float(query_parts[head] @ right_parts[head]) for head in HEADS}
to_right = {head: float((query_parts[head] - right_parts[head]).square().sum() / 2) for head in HEADS}
to_wrong = {head: float((query_parts[head] - wrong_parts[head]).square().sum() / 2) for head in HEADS}
assert np.isclose(sum(similar.values()), float(features[0] @ features[1]), atol=1e-5)
assert np.isclose(sum(to_right.values()), 1 - sum(similar.values()), atol=1e-5)
assert np.allclose([sum(to_right.values()), sum(to_wrong.values())], result.distance[query, :2], atol=0.01)
pd.DataFrame({"cosine with right": similar, "distance to right": to_right, "distance to wrong": to_wrong}).T.round(3)

# %% [markdown]
# Now as bars beside the stripes that each part looks at: `b1`, `b2`, `b3` see the whole map of their branch, `b21` and `b22` its halves, `b31` to `b33` its thirds. The long bars say *where the two crops differ* in the eyes of the network.

# %%
rows, limit = b1.shape[1], 1.05 * max(*to_right.values(), *to_wrong.values())
title = f"To the right crop: distance {sum(to_right.values()):.3f}"
maps.parts_figure((pictures[0], pictures[1]), to_right, HEADS, rows, title, limit=limit)

# %%
title = f"To the wrong crop: distance {sum(to_wrong.values()):.3f}"
maps.parts_figure((pictures[0], pictures[2]), to_wrong, HEADS, rows, title, limit=limit)

# %% [markdown]
# One pair is an anecdote. Over all queries: how much does each part add to the distance to the nearest right crop, how much to the nearest wrong one? Their difference is the part's contribution to the **margin**, by which right is told from wrong.

# %%
wrong_ones = ~result.match & (result.index >= 0)
usable = np.flatnonzero(result.match.any(1) & wrong_ones.any(1))
nearest = [result.index[usable, each[usable].argmax(1)] for each in (result.match, wrong_ones)]  # right, wrong
q, g = (run.features(demo.data.name, part).values for part in ("query", "gallery"))
gaps = [(q[usable] - g[other]).reshape(len(usable), 8, HEAD_DIM) for other in nearest]
added = [np.square(gap).sum(axis=2).mean(axis=0) / 2 for gap in gaps]  # (8,) each
columns = {"nearest right": added[0], "nearest wrong": added[1], "margin": added[1] - added[0]}
table = pd.DataFrame(columns, index=list(HEADS))
table.assign(**{"margin, % of all": 100 * table["margin"] / table["margin"].sum()}).T.round(3)

# %%
total = table.sum()
print(f"{len(usable)} queries: right {total.iloc[0]:.3f}, wrong {total.iloc[1]:.3f}, margin {total['margin']:.3f}")
best, worst = table["margin"].idxmax(), table["margin"].idxmin()
print(f"{best} gives most of the margin, {worst} least" + (", even less than 0" if table["margin"].min() < 0 else ""))

# %% [markdown]
# > **Quick question.** With four rows of places, the *upper third* `b31` is not a third. Why, and what is it? And does `b33` see the feet only?
# > <details><summary>Answer</summary>Four rows do not divide by three: the stripes have 2, 1 and 1 rows, so <code>b31</code> sees the upper half. (At the published 384 x 128 pixels there are 24 rows, and three times eight.) And no: each place of the last map depends on a large part of the crop, its <b>receptive field</b>, which in a ResNet is far larger than the distance between two places. "The lower stripe" means the lower places of the map, not the lower pixels.</details>
#
# ## 6 · Similarity maps: where in the gallery crop is the query's upper half?
#
# A head maps the pooled stripe to 256 numbers. It can just as well be shown **one place alone**; then each place of a crop has a feature of its own, which can be compared with a part feature of another crop:
#
# $$M_{ij} = \cos\bigl(\text{head}(A_{\cdot ij}),\ \text{part feature of the other crop}\bigr).$$

# %%
part = model.features(crops)["b21"].detach()  # the upper halves: (3, 256)
place = branch_maps["b2"][1:2, :, 1:2, :1]  # of the right crop: second row, first column (1, C, 1, 1)
by_hand = F.cosine_similarity(model.b21_head(place), part[:1])[0]
whole = attention.similarity_map(branch_maps["b2"][1:2], model.b21_head, part[:1])[0]  # (h, w)
assert torch.isclose(by_hand, whole[1, 0], atol=1e-5)
large = attention.enlarge(whole, size)
maps.places_figure(pictures[1], whole.numpy(), large, "Right crop: how like the query's b21?")

# %%
columns = {"b21": "upper half", "b22": "lower half", "b31": "upper third", "b33": "lower third"}
sheet, parts = {}, model.features(crops[:1])  # of the query
for head, title in columns.items():
    branch = HEADS[head][0]  # HEADS: head -> (its branch, into how many stripes that is cut, which one it sees)
    places, head_of = branch_maps[branch][1:], model.get_submodule(f"{head}_head")
    found = attention.similarity_map(places, head_of, parts[head].expand(2, -1))  # of right and wrong crop
    sheet[f"query's\n{title}"] = [attention.enlarge(each, size) for each in found]
maps.overlay_sheet(pictures[1:], sheet, ["right", "wrong"], title="Where is it like the …")


# %% [markdown]
# A similarity map is not a decomposition: the head's pooling (GeM, a power mean) is not a sum, so the cosines of the places do not add up to that of the stripe. It answers "what if this place were all there is".
#
# ## 7 · Touch it
#
# First four queries side by side, so that a printed page shows the range: their three kinds of map in branch `b1`, each against its nearest gallery crop. Then choose yourself.

# %%
def three_maps(query, branch):
    """The three kinds of map of a query in a branch, against its nearest gallery crop."""
    pair = load_crops([result.path[query], result.gallery_path[result.index[query, 0]]])
    other, head = model.embed(pair[1:]).clone(), model.get_submodule(f"{branch}_head")
    with torch.no_grad():
        activations, wanted = model.maps(pair[:1])[branch], model.features(pair[1:])[branch]
    grad = attention.grad_cam(model, pair[:1], lambda images: F.cosine_similarity(model(images), other), [branch])
    found = {"activation": attention.activation_map(activations), "Grad-CAM": grad[branch]}
    found["similarity"] = attention.similarity_map(activations, head, wanted)
    return pair[0].permute(1, 2, 0).numpy(), {kind: attention.enlarge(each[0], size) for kind, each in found.items()}


# %%
chosen = np.linspace(0, len(result.path) - 1, 6).astype(int)
four = [three_maps(number, "b1") for number in chosen[1:5]]
sheet = {kind: [each[kind] for _, each in four] for kind in four[0][1]}
names = [f"query {number}" for number in chosen[1:5]]
maps.overlay_sheet([image for image, _ in four], sheet, names, title="Three kinds of map, branch b1")


# %%
def draw(query, branch, strength):
    image, found = three_maps(query, branch)
    who = "the same person" if result.match[query, 0] else "another person"
    return figures.attention_overlay(image, found, strength=strength, title=f"Query {query}: nearest is {who}")


queries = Dropdown(options=sorted({query, *chosen.tolist()}), value=query)
branches, strength = Dropdown(options=BRANCHES, value="b1"), FloatSlider(value=0.65, min=0, max=1, step=0.05)
explore(draw, query=queries, branch=branches, strength=strength)

# %% [markdown]
# ## 8 · Scored against the truth
#
# Pictures can be picked. So we take one random query each of 40 test people and score all maps. The people are drawn, so for each crop there is a **mask** of their visible pixels (this part uses drawn people at every size). Two scores:
#
# * **energy**: add up the values of the map; which share of that sum lies on the person? A map that is even everywhere has the person's share of the crop: that is **chance**.
# * **pointing game**: does the map's highest point lie on the person? Chance is the same share.
#
# Chance is a low floor. People stand in the middle of their crops, so a map that has never seen *this* crop, and knows only that, does better than an even one. We therefore score such a map too: the mean of the **other people's masks**.
#
# The target is the cosine with a gallery crop of the same person by another camera.

# %%
drawn, rng = Demo(FOLDER), np.random.default_rng(0)  # drawn people, whose masks are known
truth, gallery = load_ground_truth(drawn.root), drawn.data.gallery
people = np.unique(drawn.data.query.pid)[:40]
asked = drawn.data.query.take([rng.choice(np.flatnonzero(drawn.data.query.pid == pid)) for pid in people])
partner = [int(np.argmax((gallery.pid == pid) & (gallery.camid != cam))) for pid, cam in zip(asked.pid, asked.camid)]
crops = load_crops(asked.path)
targets = model.embed(load_crops(gallery.path[partner])).clone()
masks = np.stack([truth[Path(path).name][0] for path in asked.path])  # (40, 128, 64) bool
chance = masks.mean()
print(f"{len(asked)} crops; the person covers {100 * chance:.1f} % of a crop in the mean")


# %% [markdown]
# Before we score the maps, score the *places*. What is the best that a map with so few places could get? If all its weight stood in one place, its energy would be about the person's share of that place:

# %%
def shares_of_places(shape, masks=masks):
    """The person's share of each place of a map: (B, h, w)."""
    return F.adaptive_avg_pool2d(torch.from_numpy(masks).float(), shape)


shares = shares_of_places(tuple(b1.shape[1:]))
best, worst = shares.amax(dim=(1, 2)).mean(), shares.amin(dim=(1, 2)).mean()
print(f"always the best place of the crop: {100 * best:.0f} %, always the worst: {100 * worst:.0f} %")
maps.place_shares_figure(shares.mean(dim=0).numpy(), "What one place alone is worth", "person's share of the place")

# %% [markdown]
# At tiny the columns of the map run *through* the person, who stands in the middle: even the best place is half background. So we add three more rows. A **finer layer** further down the network (layer 2, `backbone.5`: twice as many rows and columns); for each layer the **mask itself, shrunk to that layer's places** and enlarged again, which is what a map would get that knew the truth; and the **others' masks**, shrunk in the same way. (`backbone` is the trunk that the branches share: 0 to 3 are the stem, 4 and 5 layers 1 and 2, 6 the first block of layer 3. In a branch, `b1.0` is the rest of layer 3 and `b1.1` is layer 4.)

# %%
FINER, layers = "backbone.5", [*BRANCHES, "backbone.5"]


def to_right_person(images):
    return F.cosine_similarity(model(images), targets)


# %%
with torch.no_grad():
    active = model.maps(crops) | {FINER: model.backbone[:6](normalise(model, crops))}
    wanted = model.features(load_crops(gallery.path[partner]))

# %%
cams = attention.grad_cam(model, crops, to_right_person, layers)
heads = {branch: model.get_submodule(f"{branch}_head") for branch in BRANCHES}
scored = {("Grad-CAM", layer): cams[layer] for layer in layers}
scored |= {("activation", layer): attention.activation_map(active[layer]) for layer in layers}
scored |= {("similarity", b): attention.similarity_map(active[b], heads[b], wanted[b]) for b in BRANCHES}
others = (masks.sum(axis=0) - masks.astype(np.float32)) / (len(masks) - 1)  # of each crop: the mean of all other masks
places = {layer: tuple(active[layer].shape[2:]) for layer in layers}
scored |= {("others' masks", layer): shares_of_places(places[layer], others) for layer in layers}
scored |= {("the mask, shrunk", layer): shares_of_places(places[layer]) for layer in layers}


# %% [markdown]
# Chance is another number for each crop, so we look at the **gain**: energy minus the person's share *of that crop*, with its 95 % bootstrap interval ([08](08_comparing_models.ipynb) explains it). A map that is zero everywhere, because the ReLU left nothing, has no energy and is counted as *empty*.

# %%
def with_interval(values):
    """Mean of one value per person, and its 95 % interval."""
    low, high = interval(bootstrap_means(values[:, None], np.ones(len(values)), draws=2000))[:, 0]
    return {"mean": values.mean(), "low": low, "high": high}


# %%
def energy_of(cams, masks=masks):
    """Of each map; NaN for an empty one."""
    large = [attention.enlarge(cam, masks.shape[1:]) for cam in cams]
    return np.array([attention.energy_on_mask(cam, mask) for cam, mask in zip(large, masks)])


def score_maps(cams, masks=masks):
    """The gain over chance with its interval, energy, pointing game, and how many maps are empty."""
    energy, large = energy_of(cams, masks), [attention.enlarge(cam, masks.shape[1:]) for cam in cams]
    full = ~np.isnan(energy)
    hits = np.mean([attention.pointing_game(cam, mask) for cam, mask, one in zip(large, masks, full) if one])
    gain = with_interval((energy - masks.mean(axis=(1, 2)))[full])
    return gain | {"energy": energy[full].mean(), "pointing": hits, "empty": (~full).sum()}


# %%
scores = pd.DataFrame([{"kind": kind, "layer": layer} | score_maps(each) for (kind, layer), each in scored.items()])
sizes = {layer: f"{layer} ({' x '.join(map(str, shape))} places)" for layer, shape in places.items()}
scores["layer"] = scores["layer"].map(sizes)
percent = dict.fromkeys(("mean", "low", "high", "energy", "pointing"), 100) | {"empty": 1}
scores.set_index(["kind", "layer"]).mul(percent).round(1).rename(columns={"mean": "gain"})

# %%
label = "share of the map on the person, minus the person's share (points)"
maps.score_figure(scores, 0, "How much more of a map than chance lies on the person?", label)


# %% [markdown]
# Read the figure from the *right*: the shrunk mask is what a map of that size gets if it knows the truth. (A map with all its weight in the best place would get still more. Energy rewards pointing at the chest; it does not ask for the whole person.) Then compare the maps with the chance line and, the harder floor, with the others' masks. For the second comparison we take the difference crop by crop:

# %%
def verdict(values, floor):
    """In words: are these differences above or below 0, in the mean over the people?"""
    row = with_interval(values[~np.isnan(values)])
    where = "above" if row["low"] > 0 else "below" if row["high"] < 0 else "not to be told from"
    return f"{100 * row['mean']:+5.1f} points, {where} {floor}"


for (kind, layer), each in scored.items():
    if "mask" not in kind:
        energy, blind = energy_of(each), energy_of(scored["others' masks", layer])
        both = verdict(energy - masks.mean(axis=(1, 2)), "chance"), verdict(energy - blind, "others' masks")
        print(f"{kind:10s} {sizes[layer]:25s}", "; ".join(both))

# %%
who = scores["kind"].where(scores["kind"].str.contains("mask"), "the network's maps")
print(f"pointing game, % (chance: {100 * chance:.0f})")
(100 * scores.pivot_table("pointing", "layer", who, sort=False)).round(0)

# %% [markdown]
# In our `shipped-10` (16 steps of fine-tuning) the activation maps of the last layer gained 4 to 5 points over an even map, Grad-CAM none that could be told from zero, and the pointing game of the branches fell far **below** chance. The finer layer gained 10 to 14 points. That looks like an eye for people, until one sees what the others' masks gain: 9 points at 4 x 2 places, 24 at the finer layer. **By energy, no map of the network did better than one that has not seen the crop.** (In the pointing game one did, the activation map of the finer layer: 95 % against 82 %. What holds for yours is printed above.) So energy does not show that the network finds the person. Does it look at the wall, then? Before you say so, two suspicions about the *instrument*:
#
# * **Resolution.** A map with two columns cannot point at somebody who stands in the middle. Interpolation makes it worse: between two columns a straight ramp has its top at the border, so the highest point always lies in the outer quarters of the crop. At tiny even the mask itself, once it is that coarse, does no better than chance in the pointing game.
# * **Receptive field.** A place of the last map has seen nearly the whole crop. What stands at the left column *is about* the person in the middle.
#
# > **Quick question.** What would the energy of the *worst* possible network be, one that looks only at the background?
# > <details><summary>Answer</summary>With a fine map, 0 %. With these few places it cannot fall below what the place with the least person is worth (the figure above): the same coarseness that hides a good network hides a bad one.</details>
#
# ## 9 · The better question: change something
#
# Since a map may be blind, ask the network directly. **Take the person out and put them into another place**; drawn people can be cut out along their masks. Or leave the place and **put another person into it**: into the same spot without the first one, who would else be seen beside the second. If the network goes by the person, the feature should survive the first and not the second.

# %%
originals = [drawn.picture(path) for path in asked.path]
cameras = asked.camid % 6 + 1  # the next of the six drawn cameras
elsewhere = [render(10**8 + place, cam, 0, drawn.seed, empty=True).image for place, cam in enumerate(cameras)]
moved = [np.where(mask[..., None], image, place) for mask, image, place in zip(masks, originals, elsewhere)]
turn = np.roll(np.arange(len(masks)), 1)  # somebody else
spots = [render(int(pid), int(cam), 0, drawn.seed, empty=True).image for pid, cam in zip(asked.pid, asked.camid)]
pasted = [np.where(masks[other][..., None], originals[other], spot) for other, spot in zip(turn, spots)]
rows, some = ["as it is", "elsewhere", "another\nperson"], [*originals[:7], *moved[:7], *pasted[:7]]
figures.contact_sheet(some, columns=7, row_titles=rows, title="Two interventions")


# %%
def embed_pictures(images):
    return model.embed(torch.stack([to_tensor(resize(Image.fromarray(image), *size)) for image in images]))


before = model.embed(crops)
cases = {"person in another place": embed_pictures(moved), "another person in the same place": embed_pictures(pasted)}
cases["another person in another place"] = before[turn]
likeness = pd.DataFrame({case: (before * after).sum(dim=1).numpy() for case, after in cases.items()})
likeness.describe().loc[["mean", "std", "min", "max"]].T.round(2)

# %% [markdown]
# The cosine of the untouched crop with the changed one. If the first row is near 1 and the second near the third, the feature goes with the **person**, not with the place, and the maps of the last layer were simply too coarse to show it. A poor map was no proof of looking at the wall. (The pasted edges are a change of their own, and a little of both drops is theirs.)

# %%
person, place = 1 - likeness["another person in the same place"].mean(), 1 - likeness["person in another place"].mean()
print(f"changing the person costs {person:.2f} of the cosine, changing the place {place:.2f}")
print("→ the feature follows the", "person" if person > place else "place")

# %% [markdown]
# Does Grad-CAM at least stay where it was when only the place changes?

# %%
inputs = torch.stack([to_tensor(resize(Image.fromarray(image), *size)) for image in moved])
after = attention.grad_cam(model, inputs, to_right_person, layers)
for layer in layers:
    pairs = zip(cams[layer].flatten(1).numpy(), after[layer].flatten(1).numpy())
    alike = [np.corrcoef(a, b)[0, 1] for a, b in pairs if a.any() and b.any()]
    print(f"{layer:11s} correlation of the maps before and after: {np.mean(alike):.2f}")

# %% [markdown]
# ## 10 · How to read the shape of a map
#
# What to take from sections 8 and 9 for a picture in a paper:
#
# * Ask for the **number of places**. 8 places make a smooth heat map as well as 192 do.
# * Ask for the **scale**. Stretching hides whether a map is even.
# * Ask what **chance** is, and whether it is the right floor. A person fills the middle of every crop, so a map that always points at the middle scores well and knows nothing. In our run of section 8 it had more energy than any map of the network.
# * Ask **what else** was tried: other crops, other layers, an intervention.
#
# ## 11 · A sanity check: randomise the network
#
# [Adebayo et al. (2018)](https://arxiv.org/abs/1810.03292) proposed a test that every method should pass. Replace the weights of the network by random ones, **from the top to the bottom**, and make the maps again. A map that explains what the network *learned* must change; a map that stays the same shows something else, such as edges in the picture or the architecture. How alike two maps are is said by the **rank correlation** of their places: 1 the same order, 0 no relation.
#
# First the parts, from the top.

# %%
names = [each for each, _ in model.named_children()]
stages = {
    "nothing": [],
    "heads": [f"{head}_head" for head in HEADS],
    "+ layer 4": [each for each in names if "extra_bn" in each] + [f"{branch}.1" for branch in BRANCHES],
    "+ layer 3": ["backbone.6", *(f"{branch}.0" for branch in BRANCHES)],
    "+ layers 2, 1": ["backbone.5", "backbone.4"],
    "+ stem": ["backbone.0", "backbone.1"],
}
subset, subset_partner = crops[:16], load_crops(gallery.path[partner[:16]])


# %% [markdown]
# `reset_parameters` draws the weights of a layer anew, as before any training; a head's pooling has one learned number, its power p, which goes back to 3. The randomised network explains the similarity that *it* sees, so the partner's feature is computed anew too.

# %%
def randomise(network, parts):
    for module in (each for part in parts for each in network.get_submodule(part).modules()):
        if isinstance(module, GeM):
            torch.nn.init.constant_(module.p, 3.0)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()


def all_maps(network):
    wanted = network.embed(subset_partner).clone()
    similar = lambda images: F.cosine_similarity(network(images), wanted)
    found = attention.grad_cam(network, subset, similar, ["b1", FINER])
    with torch.no_grad():
        active = attention.activation_map(network.maps(subset)["b1"])
    return {"Grad-CAM, b1": found["b1"], "Grad-CAM, layer 2": found[FINER], "activation, b1": active}


# %%
torch.manual_seed(0)
network, cascade = copy.deepcopy(model), {}
for stage, parts in stages.items():
    randomise(network, parts)
    cascade[stage] = all_maps(network)


# %%
def rank_correlation(a, b):
    """Of two maps; NaN if one of them is the same everywhere."""
    return pd.Series(a.flatten().numpy()).rank().corr(pd.Series(b.flatten().numpy()).rank())


# %%
rows = []
for kind in cascade["nothing"]:
    for stage in stages:
        found = np.array([rank_correlation(*pair) for pair in zip(cascade["nothing"][kind], cascade[stage][kind])])
        rows.append({"kind": kind, "stage": stage} | with_interval(found[~np.isnan(found)]))
maps.cascade_figure(pd.DataFrame(rows), "Do the maps notice that the network forgot everything?")

# %%
full = [each.flatten(1).amax(dim=1) > 0 for kinds in cascade.values() for each in kinds.values()]
example = int(torch.stack(full).sum(dim=0).argmax())  # a crop with few empty maps
sheet = {stage: [attention.enlarge(each[example], size) for each in cascade[stage].values()] for stage in stages}
small = subset[example].permute(1, 2, 0).numpy()
rows_of = ["Grad-CAM\nb1", "Grad-CAM\nlayer 2", "activation\nb1"]
maps.overlay_sheet([small] * 3, sheet, rows_of, title="One crop while its network is randomised")

# %% [markdown]
# How to read it:
#
# * The **activation map** cannot change when the heads do: it does not know them. A method without a target explains no decision.
# * A correlation that stays clearly above 0 with **all** weights random means: that much of the map came from the picture and the architecture (an untrained convolution also answers where there are edges), not from learning.
# * With few places the correlation of *one* crop is noise; hence the mean over crops and its interval.

# %%
table = pd.DataFrame(rows).set_index(["kind", "stage"])
for kind in cascade["nothing"]:
    last = table.loc[(kind, "+ stem")]
    verdict = "passes, not to be told from 0" if last["low"] <= 0 else "something is left that was never learned"
    print(f"{kind:18s} {last['mean']:+.2f} ({last['low']:+.2f}..{last['high']:+.2f}), all random: {verdict}")

# %% [markdown]
# > **Quick question.** A method passes the test. Is it now known to be faithful?
# > <details><summary>Answer</summary>No. The test is necessary, not sufficient: a map of random noise that depends on the weights passes as well. Faithfulness is about cause and effect, so the next test is an intervention (section 9, exercise 2).</details>
#
# ## 12 · Limits, in one list
#
# * **Floors**: an even map is easy to beat; a map that has not seen the crop may not be.
# * **Resolution**: at tiny 4 x 2 places, at the published size 24 x 8. Everything finer is interpolation.
# * **Receptive field**: a place stands for much more than its pixels.
# * **Grad-CAM's mean gradient** is, but for a factor, the effect of raising a channel *everywhere*; what only matters in one corner is averaged away. Its ReLU drops what speaks *against* the similarity, and may leave nothing.
# * **Cosine of parts** is exact, but about parts of the *descriptor*.
# * **Interventions** are the strongest, and create pictures that the network has never seen (pasted edges, grey boxes).
# * **Drawn people** have masks; with real data the energy score would need segmentation by somebody else.
#
# ## Exercises
#
# **1. One part alone.** Rank the gallery with a single part (256 numbers) instead of all eight. Which part is best, which worst, and how far is the best from all of them together?
#
# <details><summary>Answer</summary>
#
# ```python
# query_side, gallery_side = (run.features(demo.data.name, part) for part in ("query", "gallery"))
# alone = {}
# for number, head in enumerate(HEADS):
#     columns = slice(number * HEAD_DIM, (number + 1) * HEAD_DIM)
#     sides = [Features(s.values[:, columns], s.pid, s.camid, s.path) for s in (query_side, gallery_side)]
#     alone[head] = 100 * evaluate_ranking(*sides).mAP
# print(pd.Series(alone).round(1).to_string())
# print(f"all eight: {100 * result.mAP:.1f} %")
# ```
#
# `evaluate_ranking` takes each part to length 1 first. The parts make different mistakes, so together they are usually better than the best alone. A stripe alone sees (nominally) less of the person; in our best run all stripes did worse than the wholes, in one that had started from random weights they did not.
# </details>
#
# **2. Occlusion.** Cover one place after the other by the mean colour and measure how far the cosine with the right crop falls. This is an intervention: a map of causes. How much of it lies on the person, and does Grad-CAM agree with it?
#
# <details><summary>Answer</summary>
#
# ```python
# few, (h, w) = crops[:12], active[FINER].shape[2:]
# grey = few.float().mean(dim=(0, 2, 3)).byte()[None, :, None, None]
# full = (model.embed(few) * targets[:12]).sum(dim=1)
# drop, tall, wide = torch.zeros(len(few), h, w), size[0] // h, size[1] // w
# for i in range(h):
#     for j in range(w):
#         covered = few.clone()
#         covered[:, :, i * tall : (i + 1) * tall, j * wide : (j + 1) * wide] = grey
#         drop[:, i, j] = full - (model.embed(covered) * targets[:12]).sum(dim=1)
# print({key: round(float(value), 3) for key, value in score_maps(F.relu(drop), masks[:12]).items()})
# agree = [rank_correlation(a, b) for a, b in zip(drop, cams[FINER])]
# print(f"rank correlation with Grad-CAM of layer 2: {np.nanmean(agree):.2f}")
# ```
#
# Covering pixels is a question about pixels, so it can be asked as finely as one likes; here 32 places at tiny.
# </details>
#
# **3. The pair or the crop?** A similarity target should give another map when the partner is another one. Make Grad-CAM maps of the same crops against *somebody else's* partner. How alike are they to those against the right partner?
#
# <details><summary>Answer</summary>
#
# ```python
# others = targets.roll(1, dims=0)
# against = attention.grad_cam(model, crops, lambda images: F.cosine_similarity(model(images), others), layers)
# for layer in layers:
#     alike = [rank_correlation(a, b) for a, b in zip(cams[layer], against[layer])]
#     print(f"{layer:11s} rank correlation right partner / stranger: {np.nanmean(alike):.2f}")
# ```
#
# Near 1 would mean that the map belongs to the crop and not to the question. Well below 1 it does depend on the partner, as it should.
# </details>
#
# ## Where next
#
# * The network: section 5.1 of the paper ([Fu et al., 2021](https://arxiv.org/abs/2012.03753)), and where MGN comes from, [Wang et al., 2018](https://arxiv.org/abs/1804.01438).
# * The code: [`lab/evaluate/attention.py`](../lab/evaluate/attention.py), the figures [`lab/show/maps.py`](../lab/show/maps.py), the network [`lab/finetune/mgn.py`](../lab/finetune/mgn.py).
# * The explorer: `lab app demo/runs`, page *Attention*: [localhost:8501/attention](http://localhost:8501/attention), for any query and any pair.
# * Next: [08 · Comparing models](08_comparing_models.ipynb): when is a difference a difference?
