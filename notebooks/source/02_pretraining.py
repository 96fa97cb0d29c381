# %% [markdown]
# # 02 · Pre-training: people without names
#
# | | |
# |---|---|
# | **Goal** | Build contrastive learning from nothing: two views, the loss by hand, the queue, the momentum encoder, shuffled batch norm. Know what each is for and what goes wrong without it; read the curves of a run. |
# | **Needs** | [01 · Crops](01_crops.ipynb). PyTorch: a network, a loss, a step of an optimiser. |
# | **Makes** | A run of 20 steps in `lessons/02`, and, if `lab demo` has not made it yet, the short pre-training `pretrain-short`. |
# | **Minutes** | 60 to read, 1 to run; makes what is missing itself in 5 minutes. |
#
# Videos are free and labels are dear. Of 4.2 million crops nobody knows who is on them, and still a network can learn from them what makes one person look like *that* person. The trick is to invent a task whose answers are known without asking anybody.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501
UNLABELED = None  # for "paper": a folder of crops without labels

# %%
import copy
import math
from dataclasses import asdict, replace
from inspect import getsource
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ipywidgets import Checkbox, FloatLogSlider, FloatSlider
from torch import nn
from torch.nn import functional as F

from lab.demo import PRETRAINED, Demo
from lab.pretrain.augment import RECIPES, Recipe, Views
from lab.pretrain.moco import Contrast, MoCo
from lab.show import contrast, curves
from lab.show.lines import lines_figure
from lab.show.live import explore, in_notebook
from lab.show.views import eventful, pictures, recipe_sheet, steps_figure, view_sheet

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT, UNLABELED)

# %% [markdown]
# ## 1 · Two views of one crop
#
# Take a crop. Change it at random, twice: cut out another part, mirror it, blur it, cover a piece. That gives two **views**. Whoever is on the crop is on both, and *that* is the label that nobody had to write: these two belong together. Views of different crops (nearly always) do not.
#
# What the random changes are decides what is learned. The network is told: *whatever differs between two views does not matter.* So a change should take away what does not count (position, sharpness, half of the body; light, if one dares) and leave what does (the clothes, the build).
#
# Here is one view as it comes about. In reality most steps are left out by chance; for this picture all happen.

# %%
crops = [demo.picture(path) for path in demo.unlabeled[:4]]  # (H, W, 3) uint8 each
steps_figure(crops[0], Views(128, 64, "luperson"), eventful(seed=5), "One view, LUPerson's recipe")

# %% [markdown]
# The recipe is a handful of numbers ([`lab/pretrain/augment.py`](../lab/pretrain/augment.py)). `crop_area` is the share of the crop that a view shows, `crop_aspect` the width of that box divided by its height (both are ranges from which a value is drawn); then come four probabilities, and the share of the view that erasing may cover at most. Not in the table, as all recipes share it: a view is mirrored with probability 0.5.

# %%
pd.DataFrame({name: asdict(RECIPES[name]) for name in ("moco", "luperson", "whole")}).drop("move")

# %% [markdown]
# * `moco` is MoCo v2's own list. `luperson` is the paper's (section 4): **no colour jitter**, because the colour of clothes is what tells people apart; and **random erasing** of up to 0.6 of the view (the released scripts' choice, instead of 0.4), because people are often half hidden, and because a network from which any patch may be taken must not rest on one patch.
# * `whole` is the lab's own, for short runs. A person's crop is half as wide as high, and the published boxes are about as wide as high: they show two thirds of its height at most, and three times in four less than half. The published run used them for hundreds of millions of views; in a short run here the other boxes did better by the probe (section 9; one run each).
#
# Random views of four crops. Each pair in a row is a task of the training: *the same*.

# %%
view_sheet(crops, Views(128, 64, "luperson"), 8, title="LUPerson's views", names=[f"crop {n}" for n in range(4)])


# %% [markdown]
# > **Quick question.** The view in the first picture was mirrored, greyed, blurred *and* erased. How often does the published recipe do all four to one view?
# > <details><summary>Answer</summary>0.5 · 0.2 · 0.5 · 0.5 = 0.025: one view in forty.</details>
#
# Now pull at the recipe yourself. Ask of every setting: *would I still find the two views of one crop among those of the other?* If it is trivial, nothing is learned; if it is hopeless, neither.

# %%
def draw(smallest_box, erase, largest_erasing, jitter):
    recipe = Recipe((smallest_box, 1.0), erase=erase, erase_max_area=largest_erasing, color_jitter=0.8 * jitter)
    return view_sheet(crops[:2], Views(128, 64, recipe), 8, names=["crop 0", "crop 1"])


# %%
explore(
    draw,
    smallest_box=FloatSlider(value=0.2, min=0.05, max=1.0, step=0.05, description="smallest box"),
    erase=FloatSlider(value=0.5, min=0.0, max=1.0, step=0.1, description="erasing, p"),
    largest_erasing=FloatSlider(value=0.6, min=0.05, max=0.9, step=0.05, description="up to area"),
    jitter=Checkbox(value=False, description="colour jitter"),
)

# %% [markdown]
# The same on paper: one crop, a row for each recipe, the same chance in each column.

# %%
published = RECIPES["luperson"]
recipes = {"published": published, "whole": RECIPES["whole"], "no erasing": replace(published, erase=0.0)}
recipes["erasing\nalways, to 0.9"] = replace(published, erase=1.0, erase_max_area=0.9)
recipes["boxes from\n0.05"] = replace(published, crop_area=(0.05, 1.0))
recipes["with jitter"] = replace(published, color_jitter=0.8)
makers = {name: Views(128, 64, recipe) for name, recipe in recipes.items()}
recipe_sheet(crops[1], makers, 8, title="What a recipe does")

# %% [markdown]
# What each change is *worth* cannot be seen, only measured: pre-train with it, fine-tune, evaluate. The paper did so on CUHK03 (labeled boxes, MGN on ResNet-50; Table 2; the figures as another published document quotes them):

# %%
from lab.published import published_results

table = published_results()
table = table[table["setting"].str.startswith("augmentation: ")]
table = table.set_index(table["setting"].str.removeprefix("augmentation: ").rename("recipe"))[["mAP", "rank1"]]
table.assign(**{"mAP gained": table["mAP"] - table["mAP"].iloc[0]}).round(1)

# %% [markdown]
# In these runs erasing gains 0.8, leaving out jitter 0.6, and both together 1.3; grey and blur make a difference of 0.2 or less, and the paper keeps both. They are single runs, as far as is known: [notebook 08](08_comparing_models.ipynb) says what that is worth.
#
# ## 2 · InfoNCE by hand
#
# A network turns each view into a vector of 128 numbers and of length 1: the **projection**. It is the **trunk's** feature (a ResNet without its classifier, the part that fine-tuning starts from), sent through two more layers that are thrown away after pre-training. The first views give $q_0 \dots q_3$ (MoCo calls them *queries*; they are not the queries of a re-ID search), the second views $k_0 \dots k_3$ (*keys*). As lengths are 1, the dot product $q_i \cdot k_j$ is the cosine of the angle between the two: 1 is the same direction.
#
# The network here is the demo's `pretrain-short`, at size tiny the work of two minutes; we come to that. Its similarities for the four crops:

# %%
model, config = demo.model(PRETRAINED), demo.config(PRETRAINED)
make_views = Views(config.height, config.width, config.augmentation)
view_q, view_k = make_views(crops, seed=26), make_views(crops, seed=39)  # (4, 3, h, w) each
q, k = model.project(view_q).clone(), model.project(view_k).clone()  # (4, C), of length 1
similarity = q @ k.T  # (4, 4)

# %%
contrast.similarity_figure(similarity.numpy(), range(4), pictures(view_q), pictures(view_k), "q · k for four crops")

# %% [markdown]
# Read it row by row. Each query has one **own key**, in the frame; it should be the largest number of its row, and after so short a training it often is not. The numbers of a row become probabilities by a softmax, after division by a **temperature** $\tau$, and the loss is the cross-entropy of picking the own key:
#
# $$\mathcal{L}_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}{\sum_{j} \exp(q_i \cdot k_j / \tau)}$$
#
# It is ordinary classification with as many classes as there are keys, where the right class is "mine". Its name is **InfoNCE**. By hand:

# %%
temperature, losses = 0.1, []
for i in range(4):
    exponentials = [math.exp(s / temperature) for s in similarity[i].tolist()]
    probability = exponentials[i] / sum(exponentials)
    losses.append(-math.log(probability))
    print(f"query {i}: probability of its own key {probability:.3f}, loss {losses[-1]:.3f}")
by_hand = sum(losses) / 4

# %% [markdown]
# `lab` keeps the own key in column 0, the others behind it, already divided by the temperature. Then the right class is 0 for every query:

# %%
own_first = torch.stack([similarity[i].roll(-i) for i in range(4)])  # row i begins with its own key
four = Contrast(own_first / temperature, q, k)
print(getsource(Contrast.loss.fget))
print(f"by hand {by_hand:.6f}, lab {four.loss:.6f}")
assert math.isclose(by_hand, four.loss, rel_tol=1e-5)

# %% [markdown]
# > **Quick question.** Two of 4.2 million crops may show the same person, from the same video. The loss treats them as strangers. Does that ruin it?
# > <details><summary>Answer</summary>It is a price. For LUPerson a small one: with some 20 crops per person, of which the queue holds 1.6 %, a query meets 0.3 keys of its own person. In the demo (10 crops of each of 240 people, 1,024 of 2,400 in the queue) it meets nearly 4, under other cameras too, and the loss pushes them away: one more reason why so small a run learns places (section 9). LUPerson's successor LUPerson-NL uses noisy labels from tracking people through the video.</details>
#
# ## 3 · The chance line
#
# What is a good loss? The number alone does not say: it depends on how many keys there are. A network that knows nothing gives all $K + 1$ keys (its own and $K$ others) the same similarity $s$. Then
#
# $$\mathcal{L} = -\log \frac{e^{s/\tau}}{(K+1)\, e^{s/\tau}} = \log(K + 1),$$
#
# whatever $s$ and $\tau$ are. This is the **chance line**. Below it the network tells its own key from the others, by whatever means (in section 5 even by none of its own). Above it it is surer than it has reason to be: random scores of some size already give a loss above $\log(K + 1)$.

# %%
for others in (3, config.queue_size, 65536):
    clueless = Contrast(torch.full((2, 1 + others), 0.7) / temperature, q, k)
    print(f"K = {others:6,d}: loss {clueless.loss:.3f}, log(K + 1) = {math.log(others + 1):.3f}")
    assert math.isclose(clueless.loss, math.log(others + 1), rel_tol=1e-5)

# %% [markdown]
# > **Quick question.** Our four crops have a loss per query above. Which is their chance line, and are they below it?
# > <details><summary>Answer</summary>Four keys, one of them the own: K = 3, and log 4 = 1.386. Compare the four losses with that.</details>
#
# ## 4 · Temperature: who gets the gradient
#
# Cosines lie between -1 and 1, so without a temperature the largest probability could be only $e^2 \approx 7$ times the smallest. Dividing by $\tau < 1$ stretches them. What it does is best seen in the gradient. With $s_{ij} = q_i \cdot k_j$, and $p_j$ the probability that query $i$ gives key $j$,
#
# $$\frac{\partial \mathcal{L}_i}{\partial s_{ij}} = \frac{p_j}{\tau} \;\text{ for other keys}, \qquad \frac{\partial \mathcal{L}_i}{\partial s_{ii}} = \frac{p_i - 1}{\tau} \;\text{ for the own key.}$$
#
# The own key is pulled, the others are pushed, each by *its probability*. Let autograd confirm it for the first of our queries:

# %%
s = similarity[0].clone().requires_grad_()  # own key first
F.cross_entropy(s[None] / temperature, torch.tensor([0])).backward()
p = torch.softmax(s.detach() / temperature, dim=0)
by_hand = (p - torch.tensor([1.0, 0.0, 0.0, 0.0])) / temperature
print("pull and push:", [f"{value:+.2f}" for value in by_hand.tolist()])
assert torch.allclose(s.grad, by_hand, atol=1e-5)

# %% [markdown]
# So the temperature decides *who gets the push*. Take one query, its own key and 127 others, and look at the probabilities for six temperatures:

# %%
more = [demo.picture(path) for path in demo.unlabeled[:224]]  # the last 96 are for section 5
keys = model.project(make_views(more[:128], seed=39))
row = (keys @ q[0]).clone()  # similarities of query 0 with 128 keys, the own one first
temperatures = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
contrast.softmax_figure(row.numpy(), {t: torch.softmax(row / t, 0).numpy() for t in temperatures})

# %% [markdown]
# * **Cold** (0.02): the push concentrates on the keys that resemble the query most; each panel says how many share half of it. These are the hard cases, and also the likeliest to be *the same person* on another crop.
# * **Hot** (1.0): all are pushed nearly alike, the stranger as much as the double. Nothing asks for fine differences.
# * MoCo v2 takes 0.2, LUPerson's released scripts **0.1** (a survey says 0.07; the paper's own comparison could not be had for this lab). A guess at the reason: people look more alike than the objects of ImageNet.

# %%
explore(
    lambda temperature: contrast.softmax_figure(
        row.numpy(),
        {round(temperature, 3): torch.softmax(row / temperature, 0).numpy()},
        title="One query and 128 keys",
    ),
    temperature=FloatLogSlider(value=0.1, base=10, min=-2, max=0, step=0.1),
)

# %% [markdown]
# > **Quick question.** The loss of the same similarities at temperature 0.05 is another number than at 0.1. May one compare the losses of two runs with different temperatures?
# > <details><summary>Answer</summary>No. The chance line stays where it is, but the distance from it depends on the temperature. Compare what the features are good for: the retrieval probe, or fine-tuning.</details>
#
# ## 5 · The queue
#
# Four keys make an easy task: one gets far by knowing who wears red. With 65,536 keys many wear red, and the network has to look closer. But keys cost computation, and a batch of 65,536 crops fits on no GPU. MoCo's answer: **keep the keys of earlier batches**, in a ring of $K$ places. Each step overwrites the oldest.
#
# By hand, with $K = 8$ places and batches of 3 (8 is no multiple of 3, so that the ring has to close):

# %%
toy, names = MoCo(depth=18, dim=4, queue_size=8), ["random"] * 8
places, states = toy.queue.T.clone(), [contrast.QueueState("at first", list(names), 0)]  # its queue is (dim, K)
for letter, slots in (("a", (0, 1, 2)), ("b", (3, 4, 5)), ("c", (6, 7, 0))):
    batch = F.normalize(torch.randn(3, 4))  # three keys of length 1
    for number, place in enumerate(slots):
        places[place], names[place] = batch[number], f"{letter}{number}"
    toy.enqueue(batch)
    assert torch.equal(toy.queue, places.T)
    states.append(contrast.QueueState(f"after batch {letter}", list(names), toy.queue_ptr.item()))
assert [state.pointer for state in states] == [0, 3, 6, 1]

# %%
contrast.queue_figure(states, "A queue of eight places, batches of three")

# %% [markdown]
# At first the queue holds **random vectors**. That has a consequence that fools beginners. A random direction among 128 dimensions is nearly at a right angle to everything, while an untrained network gives *all* crops similar directions (below: the mean cosine of two of its keys). So the own key is found at once: not because the network recognises anybody, but because the others are no keys at all.
#
# Watch it in a network that is **not trained at all**. Only the queue changes: 16 random vectors leave with each batch, 16 real keys come.

# %%
torch.manual_seed(0)
untrained, losses, accuracy = MoCo(depth=18, queue_size=128).train(), [], []
for step in range(14):
    batch = more[16 * step : 16 * step + 16]  # crops that no key in the queue shows
    with torch.no_grad():
        found = untrained(make_views(batch, seed=100 + step), make_views(batch, seed=200 + step))
    losses.append(found.loss.item())
    accuracy.append(found.accuracy.item())
alike = (found.k @ found.k.T).fill_diagonal_(0).sum() / (16 * 15)
print(f"mean cosine of two crops' keys: {alike:.2f}; accuracy in steps 1 to 4:", np.round(accuracy[:4], 2))

# %%
title, marks = "An untrained network, while its queue fills with real keys", {"last random vector leaves": 8}
chance = ("chance: log(128 + 1)", math.log(129))
lines_figure({"loss": (range(1, 15), losses)}, "step", "loss", title, chance, marks)

# %% [markdown]
# A loss that **rises** in the first steps of a training is therefore no bug, and one that starts low is no success. (`lab pretrain` warns when all projections become alike, when a network tells only the age of keys, or when a run stays at chance; but not in the first 200 steps, nor before its queue has been replaced twice.)
#
# > **Quick question.** LUPerson's queue holds 65,536 keys and its batch 2,560. After how many steps is the last random vector gone?
# > <details><summary>Answer</summary>65,536 / 2,560 = 25.6: after 26 steps. It is also the age of the oldest key from then on.</details>
#
# ## 6 · The momentum encoder
#
# A key in the queue was made some steps ago, by the network as it was *then*. If the network changes quickly, old and new keys are not comparable. MoCo's second idea: keys are made by a network of their own, `encoder_k`, which is not trained but follows `encoder_q` slowly, as an **exponential moving average** of its weights $\theta$:
#
# $$\theta_k \leftarrow m\, \theta_k + (1 - m)\, \theta_q, \qquad m = 0.999$$
#
# One weight by hand. We move a weight of `encoder_q` by 1 and let the model encode some keys, which begins with that update:

# %%
m, weights_q, weights_k = untrained.key_momentum, untrained.encoder_q.fc[2].bias, untrained.encoder_k.fc[2].bias
with torch.no_grad():
    weights_q += 1.0
theta_k, theta_q = weights_k[0].item(), weights_q[0].item()
untrained.encode_keys(make_views(batch), torch.arange(16))
print(f"{m} · {theta_k:.4f} + {1 - m:.3f} · {theta_q:.4f} = {m * theta_k + (1 - m) * theta_q:.4f}")
assert math.isclose(weights_k[0].item(), m * theta_k + (1 - m) * theta_q, abs_tol=1e-6)

# %% [markdown]
# How slow is slow? Suppose a weight of `encoder_q` jumps from 0 to 1 and stays there. After $t$ steps `encoder_k` has come to $1 - m^t$; half of the way takes $\log 0.5 / \log m$ steps.

# %%
steps = np.arange(0, 501)
lines = {f"m = {m} (half after {math.log(0.5) / math.log(m):.0f})": (steps, 1 - m**steps) for m in (0.9, 0.99, 0.999)}
lines_figure(lines, "steps after the jump", "weight of encoder_k", "How the key encoder follows a jump")

# %% [markdown]
# *Too slow* for a short run is $m = 0.999$: after 100 steps nine tenths of the key encoder would still be its random start. *Too fast* is worse, because it looks like success. If the key encoder changes from step to step, each batch of keys carries the mark of its time, and the own key is always **the newest**. "Which key is new?" is an easier question than "which key is the same person?". The lab measured it ([how a short MoCo run can fool itself](../benchmarks/results/pretraining-recipe.md)). Each row is one logged batch of one run: ResNet-18, 64 x 32 pixels, batch 64, queue 512; in the last row queue 1,024 and more crops. Guessing gets 1/513 = 0.002 (last row 0.001) and 1/64 = 0.016:
#
# | key momentum | step | accuracy among K + 1 keys | accuracy among the keys of the batch | what it tells |
# |---|---|---|---|---|
# | 0.9 | 60 | **0.95** | 0.00 | the age of keys, and nothing else |
# | 0.99 | 60 | 0.17 | 0.09 | both |
# | 0.998 | 930 | 0.08 | **0.19** | the crop itself, by its person or by its place |
#
# The second accuracy gives it away: the other keys *of the same batch* are all as new as the own one, so age does not help. (At step 300 the third run had 0.06 and 0.13. It differs from the others in more than $m$, so the table shows how the mistake looks, not what cured it.) `log.csv` has both, as `accuracy` and `batch_accuracy`.
#
# > **Quick question.** Why not simply train `encoder_k` by gradient as well, and use one network for both?
# > <details><summary>Answer</summary>In one step one could (SimCLR does, without a queue). But gradients cannot go back into keys that were computed 20 steps ago, and with a network that changes at the speed of training the keys in the queue would be of 20 different networks: the age of the keys again.</details>
#
# ## 7 · Why batch norm leaks
#
# **Batch norm** subtracts the mean of a batch and divides by its standard deviation, so what it makes of a crop depends on *which other crops are in the batch*. On eight GPUs each normalises its own eighth (a **group**). By hand for four crops in two groups, with one number per crop:

# %%
from lab.batch_norm import in_groups

norm, x = nn.BatchNorm1d(1, affine=False), torch.tensor([[1.0], [3.0], [10.0], [30.0]])
by_hand = torch.cat([(part - part.mean()) / (part.var(unbiased=False) + norm.eps).sqrt() for part in x.chunk(2)])
# in_groups(model, what to call for each group, the groups); here both are the layer itself
print("in groups of two:", [f"{value:+.2f}" for value in by_hand.flatten()])
print("in one group:    ", [f"{value:+.2f}" for value in norm(x).flatten()])
assert torch.allclose(torch.cat(in_groups(norm, norm, x.chunk(2))), by_hand, atol=1e-5)


# %% [markdown]
# In groups of two, 3 and 30 have become the same number, because each is the larger of its pair. The output says more about the company than about the crop.
#
# Now suppose that the query of a crop and its own key are normalised **with the same company**: GPU 0 holds both views of crops 0 to 319. All keys in the queue had other company. Then a network need not recognise people. It can learn to recognise *the group*. (The MoCo paper, section 3.3, saw a low loss with poor features, and gives this as the probable reason.)
#
# Can it really? We test it with **a task that cannot be solved**. Crops come in pairs; each pair is a group. The "own key" of a crop is *its neighbour in the group*: another crop, usually another person. Which crops are paired is drawn anew in each step, so there is nothing to learn about people. If the network finds its key more often than by guessing, only the normalisation can have told it. A network of three layers will do:

# %%
def layer(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


# %%
def small_moco(groups):
    torch.manual_seed(0)
    model = MoCo(depth=18, dim=64, queue_size=128, key_momentum=0.99, bn_groups=groups)
    layers = (*layer(3, 16), *layer(16, 32), *layer(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.encoder_q = nn.Sequential(*layers, nn.Linear(64, 64))
    model.encoder_k = copy.deepcopy(model.encoder_q).requires_grad_(False)
    return model


# %% [markdown]
# One step is what MoCo always does: encode keys, compare, enqueue, improve. `order` is the order in which keys are encoded. Without **shuffling** it is that of the queries, so that both share their groups. With it, keys are encoded in random company and put back afterwards.

# %%
neighbour = torch.arange(16).view(-1, 2).flip(1).flatten()  # 1, 0, 3, 2, 5, 4, …


# %%
def step_of(model, optimizer, shuffle):
    images = pool[torch.randperm(len(pool))[:16]]
    order = torch.randperm(16) if shuffle else torch.arange(16)
    keys = model.encode_keys(images[neighbour][order], order)
    found = model.contrast(images, keys, model.bn_groups)
    model.enqueue(keys)
    optimizer.zero_grad()
    found.loss.backward()
    optimizer.step()
    return found.batch_accuracy.item()


# %%
plain = Recipe((1.0, 1.0), (0.4, 0.6), grayscale=0, blur=0, erase=0)  # the whole crop as it is
pool = Views(32, 16, plain)([demo.picture(path) for path in demo.unlabeled[:512]])
threads, models, curve = torch.get_num_threads(), {}, {}
torch.set_num_threads(1)  # layers as small as these are fastest on one core
for name, shuffle in (("keys in the same groups", False), ("keys shuffled", True)):
    models[name] = small_moco(groups=8)
    optimizer = torch.optim.AdamW(models[name].encoder_q.parameters(), lr=0.005)
    right = [step_of(models[name], optimizer, shuffle) for _ in range(160)]
    curve[name] = (np.arange(10, 161, 10), 100 * np.reshape(right, (16, 10)).mean(1))

# %%
title, chance = "A task without a solution, and batch norm", ("chance: 1 of 16", 100 / 16)
lines_figure(curve, "step (means of 10)", "own key found (%)", title, chance)

# %% [markdown]
# Where a curve climbs above chance, the network finds its neighbour's key on pictures that say nothing about it; and it passes over another of the 16 keys, which shows *the query's very own picture*. How? Batch norm makes of two numbers $x_i, x_j$ in a group $(x_i - x_j)/2$ and $(x_j - x_i)/2$, over their spread. If query and key have the same company, they are the same up to the sign: a mark of the pair that no other pair has. With shuffled keys the own key is $(x_j - x_l)/2$ with some $l$. All it still shares with the query is $x_j$.
#
# Are these networks any good? The same question with the running statistics of batch norm, as in every test, where each crop is normalised alone (its own picture is left out of the keys here):

# %%
alone = {}
for name, trained in models.items():
    features = trained.project(pool[torch.randperm(len(pool))]).clone().view(-1, 16, 64)
    found = features @ features.transpose(1, 2) - 3 * torch.eye(16)  # without the query's own picture
    alone[name] = 100 * (found.argmax(2) == neighbour).float().mean().item()
torch.set_num_threads(threads)
last = {name: values[-4:].mean() for name, (_, values) in curve.items()}
pd.DataFrame({"last 40 steps (chance 6.2 %)": last, "each crop alone (chance 6.7 %)": alone}).round(1)

# %% [markdown]
# * *Same groups, last steps*: what the leak is worth. *Each crop alone*: what was learned about crops, which is nothing, as there was nothing. In this task, where nothing can be learned, the gap between the two columns *is* the leak. (In a real training such a gap can have other reasons too.)
# * *Shuffled* need not come down to chance in this task, because of the $x_j$ that query and key still share: the wanted key shows the neighbour. In a real training the own key shows the crop itself, and who stood beside it in the batch is of no use.
# * Groups of two are the extreme, where it takes seconds. With the published 320 crops per group the mark of a group is faint. But there are 326,400 steps to find it, and MoCo's authors, with 256 images on eight GPUs, saw it at 32 per group.
#
# So shuffling is part of the method: `encode_keys` gets the second views in a random `order` and puts the keys back ([`lab/pretrain/moco.py`](../lab/pretrain/moco.py)). In `lab` the groups (`bn_groups`) do not depend on the number of GPUs: one GPU goes through eight groups one after the other and pre-trains the same network ([training](../docs/training.md#many-gpus)).

# %%
print(getsource(MoCo.encode_keys))

# %% [markdown]
# > **Quick question.** Why is it enough to shuffle the keys? The queries keep their order.
# > <details><summary>Answer</summary>A leak needs query and own key to share something that the other keys lack. If the company of the key is random, it says nothing about the company of the query, whatever that is.</details>
#
# ## 8 · The loop
#
# Now everything together, as `lab pretrain` does it: views, keys, loss, gradient, queue ([`lab/pretrain/train.py`](../lab/pretrain/train.py)). One step:

# %%
from lab.pretrain import train

print(getsource(train._step))

# %% [markdown]
# Five lines carry the algorithm: keys (`model.encode_keys`), contrast (`model.contrast`), loss, `backward`, `enqueue`. The rest serves larger machines: `section` only measures time, `precision` is mixed precision, `encode` is `encoder_q`, and with one process `world_size()` is 1 and `rank()` is 0. `finish` makes the rest of the views for the whole batch at once. `accumulate` goes through a batch in parts where memory is short, with the same result (`postponed` and `statistics_kept` see to that); with 1, as usual, the inner loop runs once. The three measures at the end are loss, `accuracy` and `batch_accuracy`. The optimiser's step comes after it.
#
# Let it run: 20 steps of 16 crops, a ResNet-18 on 64 x 32 pixels, a queue of 160 keys, logging each step. In the table `feature_std` is the spread of the projections: 1 is even in all directions, 0.2 or more is healthy, near 0 is collapse. (A finished run is not repeated; delete its folder to see it again.)

# %%
from lab.runs import Run

few, small = demo.unlabeled[:320], replace(train.PretrainConfig.tiny(), height=64, width=32, epochs=1, log_every=1)
small = replace(small, batch_size=16, queue_size=160, warmup_epochs=0.25)
run = Run.create(Path(FOLDER) / "lessons" / "02" / "twenty-steps", "pretrain", small, data={"images": len(few)})
train.pretrain(run, few, small, progress=False)
shown = ["step", "lr", "loss", "chance_loss", "accuracy", "batch_accuracy", "feature_std"]
run.log()[shown].iloc[[0, 4, 9, 14, 19]].round(3).set_index("step")

# %%
log = run.log()
marks, chance = {"last random vector leaves": 10}, ("chance: log(160 + 1)", math.log(161))
title, values = "Twenty steps of pre-training", {"loss": (log["step"], log["loss"])}
lines_figure(values, "step", "loss", title, chance, marks)

# %% [markdown]
# It starts low and climbs while real keys replace the random ones; you know why. From then on it should stand at the chance line, as 20 steps teach nobody what people look like. If it is lower all the same, ask the other accuracy:

# %%
rows = log.iloc[10:]
print(f"steps 11 to 20: loss {rows['loss'].mean():.2f} (chance {math.log(161):.2f}),", end=" ")
print(f"own key found among the batch's 16: {100 * rows['batch_accuracy'].mean():.1f} % (chance {100 / 16:.1f} %)")

# %% [markdown]
# As long as the second number is near its chance, a loss below the chance line is no sign that anybody is recognised. What is easier to tell is that new keys look unlike old ones: section 6 at work, in the steps in which the network changes fastest.
#
# ## 9 · Two minutes, and 326,400 steps
#
# `pretrain-short` went on for longer. At size tiny it has the settings `PretrainConfig.tiny()`, on crops of 64 x 32 pixels:

# %%
short = demo.run(PRETRAINED)
curves.loss_curves(short.log(), "pretrain-short")

# %% [markdown]
# * **loss** and **accuracy**: once the queue holds real keys they mean something (at size tiny 1,024 places and 128 new ones in each step: within the first epoch). Is the loss below its chance line, and does `batch_accuracy` (below) rise as well? Then it is more than the age of the keys.
# * **retrieval probe**: after each epoch the network ranks the test gallery as it is; no label is learned from. The first point is an untrained network. This curve says what the features are good for *without* labels. What they are worth as a start for fine-tuning is another question, and the two need not agree (table below).
# * **spread of the features** (`feature_std`): near 0 all crops have the same projection. That is *collapse*, the death of a contrastive run.
#
# The log has two more measures of the last batch of each row. **Alignment** says how far apart two views of a crop lie (0 is best), **uniformity** how evenly the crops fill the sphere (the more negative, the more even). [Notebook 03](03_what_did_it_learn.ipynb) computes both by hand and asks what the network has learned.

# %%
columns = ["epoch", "loss", "chance_loss", "accuracy", "batch_accuracy", "alignment", "uniformity", "probe_mAP"]
log = short.log()
log[log["probe_mAP"].notna()].set_index("step")[columns].round(3)

# %%
probe = log["probe_mAP"].dropna()
print(
    f"probe: {100 * probe.iloc[0]:.1f} % untrained, {100 * probe.iloc[-1]:.1f} % at the end, {100 * probe.max():.1f} % at best"
)
print(
    "learned to find people without labels"
    if probe.iloc[-1] > 1.5 * probe.iloc[0]
    else "no large step, in so short a run"
)

# %% [markdown]
# In a run of two minutes the probe moves little. **Places come before people**: what tells two crops apart most easily is the wall behind the person, and a search across cameras wants the same person before another wall. Here is how far other recipes came with a ResNet-18 on 64 x 32 pixels, trained on other drawn people ([measured](../benchmarks/results/pretraining-recipe.md), mAP in %; fine-tuned is MGN on 10 % of the people, 120 steps):
#
# | views | steps of 128 | probe | fine-tuned |
# |---|---|---|---|
# | untrained network | 0 | 9.2 | 30.2 |
# | published boxes | 750 | 5.1 | |
# | `whole` | 750 | 11.4 | 19.9 |
# | `whole`, cut-outs put before another wall in four views of five | 300 | 19.8 | 26.3 |
# | the same, the trunk that the lab ships | 1,872 | 45.3 | 44.1 |
#
# One run each; the published boxes were stopped early in a longer learning-rate schedule, and the 300 steps were a prototype that cannot be repeated as it was. Compare the two columns: a short pre-training can search better than random weights and still be a *worse start* than they are (with two other seeds random weights came to 23.2 and 32.8). Only the longest run is ahead in both.
#
# LUPerson's crops are no cut-outs, and more scenes do not remove the short cut. On the contrary: only one or two of the queue's 65,536 keys are from the query's own video (below), so whoever recognises the wall has nearly found the key. How far LUPerson's trunk is from knowing places we have not measured: the paper's figures are after fine-tuning, where labels from several cameras teach what places are worth. What LUPerson has more of is people, and steps:

# %%
paper, steps_per_epoch = train.PretrainConfig(), 4_180_243 // 2560
paper_steps = paper.epochs * steps_per_epoch
here = int(log["step"].iloc[-1]), demo.config(PRETRAINED).batch_size
print(f"LUPerson: {paper.queue_size / 46_260:.1f} of {paper.queue_size:,} keys from the query's own video (of 46,260)")
print(f"LUPerson: {paper_steps:,} steps of {paper.batch_size:,} crops = {paper_steps * paper.batch_size:,} images")
print(f"this run: {here[0]:,} steps of {here[1]:,} crops = {here[0] * here[1]:,} images")
assert paper_steps == 326_400

# %%
speed = log["images_per_second"].median()
print(
    f"at {speed:.0f} images per second LUPerson's run would take {paper_steps * paper.batch_size / speed / 86400:.1f} days"
)

# %% [markdown]
# With ResNet-50 on 256 x 128 pixels, of course, each image is far more work. Each of the 4.2 million crops was seen 200 times. The paper's first contribution is a *data set*; the method is mostly MoCo's. (Its table of pre-training with a part of LUPerson is not among the figures of this lab, so what size is worth by itself stays open here.)
#
# > **Quick question.** A contrastive run shows a loss of 5.2 with chance at 6.9, accuracy 0.35, `batch_accuracy` 0.02 at 64 crops per batch. Would you let it run?
# > <details><summary>Answer</summary>No. Among keys of the same age it guesses (1/64 = 0.016), so what it tells is the age of keys. A larger key momentum or a smaller learning rate is needed. <code>lab pretrain</code> says so by itself.</details>
#
# ## Exercises
#
# **1. The two ends of temperature.** What does the loss of the four crops tend to for $\tau \to \infty$? And for $\tau \to 0$, if one query is closer to a wrong key than to its own? Think first, then compute.
#
# <details><summary>Answer</summary>
#
# Very hot, all logits are nearly 0: the loss tends to the chance line, log 4. Very cold, the softmax becomes a maximum: the loss is 0 for a query whose own key is nearest, and (best wrong similarity minus own)/τ for any other, which grows without bound.
#
# ```python
# for tau in (100.0, 1.0, 0.1, 0.01, 0.001):
#     each = F.cross_entropy(own_first / tau, torch.zeros(4, dtype=torch.long), reduction="none")
#     print(f"temperature {tau:7.3f}: " + ", ".join(f"{value:8.3f}" for value in each.tolist()))
# ends = F.cross_entropy(own_first / 1e6, torch.zeros(4, dtype=torch.long)).item()
# assert math.isclose(ends, math.log(4), rel_tol=1e-4)
# ```
# </details>
#
# **2. How old may a key be?** A queue of $K$ keys and a batch of $B$ make keys up to $K/B$ steps old. How far has the key encoder moved towards the trained one in that time, if that one stood still? Compare LUPerson's run, the lab's `tiny`, and the run of section 6 that told only ages ($K$ 512, $B$ 64, $m$ 0.9).
#
# <details><summary>Answer</summary>
#
# ```python
# tiny = train.PretrainConfig.tiny()
# runs = {
#     "LUPerson": (paper.queue_size, paper.batch_size, paper.key_momentum),
#     "tiny": (tiny.queue_size, tiny.batch_size, tiny.key_momentum),
#     "ages only": (512, 64, 0.9),
# }
# for name, (length, size, momentum) in runs.items():
#     age = length / size
#     print(f"{name}: keys up to {age:.1f} steps old, the encoder has moved by {100 * (1 - momentum**age):.1f} %")
# ```
#
# A few per cent in the two healthy ones, more than half in the third: there the oldest key was made by another network than the newest.
# </details>
#
# **3. Larger groups.** Repeat the task without a solution with groups of four instead of two (pairs stay neighbours, each group holds two of them), without shuffling. Does batch norm still tell?
#
# <details><summary>Answer</summary>
#
# ```python
# torch.set_num_threads(1)
# of_four = small_moco(groups=4)
# optimizer = torch.optim.AdamW(of_four.encoder_q.parameters(), lr=0.005)
# right = [step_of(of_four, optimizer, shuffle=False) for _ in range(160)]
# torch.set_num_threads(threads)
# print(f"last 40 steps: {100 * np.mean(right[-40:]):.1f} % (chance 6.2 %)")
# print(f"in groups of two: {curve['keys in the same groups'][1][-4:].mean():.1f} %")
# ```
#
# The mean of four crops says less about one of them than the mean of two, and now two neighbours could be meant by each mark. In this many steps one sees far less of it, perhaps nothing. "Not in 160 steps" is no proof of "never".
# </details>
#
# ## Where next
#
# * The paper: [Fu et al., *Unsupervised Pre-training for Person Re-identification*](https://arxiv.org/abs/2012.03753), section 4. MoCo: [He et al. 2020](https://arxiv.org/abs/1911.05722), section 3.3 for shuffled batch norm; [MoCo v2](https://arxiv.org/abs/2003.04297).
# * The code: [`augment.py`](../lab/pretrain/augment.py), [`batches.py`](../lab/pretrain/batches.py), [`moco.py`](../lab/pretrain/moco.py), [`train.py`](../lab/pretrain/train.py). In earnest: [docs/training.md](../docs/training.md).
# * The explorer: `lab app demo/runs`, page *Training*: [localhost:8501/training](http://localhost:8501/training), shows these curves for any run.
# * Next: [03 · What did it learn?](03_what_did_it_learn.ipynb)
