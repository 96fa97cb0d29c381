# %% [markdown]
# # 04 · Fine-tuning: from crops to classes and back
#
# | | |
# |---|---|
# | **Goal** | Know every part of the fine-tuning stage: which crops meet in a batch, what the network looks like, what each loss wants, when which part learns. Measure what pre-training is worth. |
# | **Needs** | [02 · Pre-training](02_pretraining.ipynb) and [03 · What did it learn](03_what_did_it_learn.ipynb), or their text. |
# | **Makes** | The runs `scratch-10`, `short-10` and `shipped-10` in `demo/runs`, where they are missing. |
# | **Minutes** | 60 to read, 1 to run; makes what is missing itself in 5 minutes on two CPU cores. |
#
# Pre-training ([notebook 02](02_pretraining.ipynb)) taught a network what crops look like, without a name for anybody. Now there are names. This notebook follows them into the network, and out of it again: the names are *not* what we want in the end.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501
UNLABELED = None  # for "paper": a store or folder of crops without labels, for `short` where it is not there yet

# %%
import inspect

import numpy as np
import pandas as pd
import torch
from ipywidgets import FloatSlider
from PIL import Image

from lab.backbone import Embedder, load_trunk
from lab.data.crops import resize, to_tensor
from lab.data.splits import choose_subset
from lab.demo import FINETUNED, PRETRAINED, RELEASED, Demo
from lab.evaluate.compare import intervals, paired
from lab.evaluate.features import extract
from lab.evaluate.metrics import evaluate_ranking
from lab.finetune import losses
from lab.finetune.augment import Augmentation
from lab.finetune.mgn import HEAD_DIM, HEADS, MGN
from lab.finetune.sampler import IdentitySampler
from lab.finetune.train import FinetuneConfig, frozen_steps, learning_rate, loss_settings, new_model, set_frozen
from lab.published import published_results
from lab.runs import find_runs
from lab.show import curves, figures, tables
from lab.show.branches import branches_figure
from lab.show.live import explore, in_notebook
from lab.show.losses import class_cosines_figure, margin_figure, mining_figure
from lab.show.planning import schedule_figure
from lab.weights import SHIPPED

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT, UNLABELED)

# %%
name = "shipped-10"  # 10 % of the training people have labels, and the trunk was pre-trained
demo.run(name)  # trains it now if it is not there
data, config, model = demo.data, demo.config(name), demo.model(name)
people = choose_subset(data.train, config.fraction, config.fraction_of, config.subset, config.seed)
print(
    f"labels for {len(people)} crops of {people.num_ids} people; {data.query.num_ids} other people are searched later"
)
assert not set(people.pid) & set(data.query.pid)


# %% [markdown]
# ## 1 · Why train a classifier when the test people are others?
#
# The last line above looks like a mistake. The network will learn to tell the training people apart, and *none* of them is ever searched. What is the use of a classifier whose classes do not occur?
#
# The classifier is a pretext. For each training person it keeps a **class direction**: a vector $w_j$, and a crop counts as person $j$ if its feature $f$ points that way. To make this work for all of them at once, the layers below must turn clothes, bags and build into numbers and drop light and background. After training the directions are thrown away, and the feature stays. A new person points somewhere else. We only need that all crops of the new person point to the *same* place.
#
# So: **crops → classes → back to features**. Here are crops of two test people from different cameras, and how much each points the way of each training person, by the cosine
#
# $$\cos(f, w_j) = \frac{f \cdot w_j}{\lVert f\rVert\,\lVert w_j\rVert}.$$
#
# (The network has eight *heads*, section 4. We look at one, `b1`, which sees the whole person.)

# %%
def pixels(path):
    """A crop as the network takes it: (3, H, W) uint8, resized; normalising is the network's own business."""
    return to_tensor(resize(Image.fromarray(demo.picture(path)), config.height, config.width))


def heads_of(paths, network):
    """What each head says about some crops: head name -> (B, 256), in double precision."""
    with torch.inference_mode():
        features = network.eval().features(torch.stack([pixels(path) for path in paths]))
    return {head: feature.double() for head, feature in features.items()}


# %%
pids, crops_each = np.unique(data.query.pid, return_counts=True)
rows = np.concatenate([np.flatnonzero(data.query.pid == pid)[:3] for pid in pids[crops_each >= 3][:2]])
new = data.query.take(rows)  # six crops of two people who are in no training set
feature, weight = heads_of(new.path, model)["b1"], model.class_weights()["b1"].detach().double()
cosine = losses.cosine_logits(feature, weight)  # (6, training people)

# %%
names = [f"pid {pid} · cam {camid}" for pid, camid in zip(new.pid, new.camid)]
pictures = [demo.picture(path) for path in new.path]
shown = slice(0, 16)  # of the training people
title = "Two new people among known ones (head b1)"
class_cosines_figure(cosine[:, shown], pictures, names, np.unique(people.pid)[shown], title)

# %% [markdown]
# No column is *right*: these people have none. But look at whole rows. Rows of one person should be alike, and unlike those of the other. That is all that retrieval needs, and it can be counted: the cosine between features of the same person under two cameras, and of two different people.

# %%
unit = torch.nn.functional.normalize(feature)
same = torch.tensor(new.pid[:, None] == new.pid[None, :])
off_diagonal = ~torch.eye(len(rows), dtype=bool)
alike, unlike = (unit @ unit.T)[same & off_diagonal].mean(), (unit @ unit.T)[~same].mean()
print(f"mean cosine: {alike:.2f} between crops of one person, {unlike:.2f} between crops of two")

# %% [markdown]
# Six crops are an illustration, not a result; the result is in section 9.
#
# > **Quick question.** At test time, could one not simply use the vector of cosines to all class directions, one row of the picture, as the **descriptor** (the vector that people are searched by)?
# > <details><summary>Answer</summary>One could, but it keeps less. With C training people it has C numbers, and each is a fixed linear function of the (unit) feature. If C is smaller than the 256 numbers of a head, part of the feature is lost; if it is larger, nothing is gained. The published code and the lab use the feature itself.</details>
#
# ## 2 · Which crops meet in a batch
#
# An ordinary loader draws crops at random. Here that would be a waste: one of the losses compares crops *within* the batch, and needs for every crop (the **anchor**) another one of the same person (a **positive**) and one of somebody else (a **negative**). So a batch is drawn person by person: **P people with K crops each**. This is **P x K sampling**, or identity sampling ([`lab/finetune/sampler.py`](../lab/finetune/sampler.py)).

# %%
sampler = IdentitySampler(people.labels, config.ids_per_batch, config.images_per_id, config.seed)
batch = next(iter(sampler))  # positions in `people`
titles = [f"pid {pid} · {camid}" for pid, camid in zip(people.pid[batch], people.camid[batch])]
figures.contact_sheet(
    [demo.picture(path) for path in people.path[batch]], titles, 8,
    f"A batch: P = {config.ids_per_batch} people, K = {config.images_per_id} crops each (pid · camera)",
)  # fmt: skip

# %% [markdown]
# Count by hand. Every person must be there exactly $K$ times. Each of the $PK$ anchors then has $K-1$ positives and $(P-1)K$ negatives, so there are $PK\,(K-1)\,(P-1)K$ triplets (anchor, positive, negative).

# %%
P, K = config.ids_per_batch, config.images_per_id
who, times = np.unique(people.pid[batch], return_counts=True)
assert len(who) == P and set(times) == {K} and len(batch) == P * K == sampler.batch_size
triplets = sum(
    people.pid[a] == people.pid[p] != people.pid[n]
    for i, a in enumerate(batch) for j, p in enumerate(batch) for n in batch if i != j
)  # fmt: skip
assert triplets == P * K * (K - 1) * (P - 1) * K
print(f"{triplets:,} triplets in a batch of {len(batch)}; {len(set(batch))} of its crops are different ones")


# %% [markdown]
# Now the alternative: as many crops, drawn at random, from these people and from the whole training set. How many of them have a positive at all? And for a given batch size, what do more people or more crops per person buy?

# %%
def with_positive(pid):
    """Share of the crops whose person is there more than once."""
    _, place, count = np.unique(pid, return_inverse=True, return_counts=True)
    return (count[place] > 1).mean()


rng = np.random.default_rng(0)
for split in (people, data.train):
    found = [with_positive(rng.choice(split.pid, min(P * K, len(split)), replace=False)) for _ in range(200)]
    print(f"at random from {split.num_ids} people: {100 * np.mean(found):.0f} % of the crops have a positive in the batch")
assert with_positive(people.pid[batch]) == 1  # by identity all have

# %%
choices = [(P * K // k, k) for k in (1, 2, 4, 8, 16) if P * K // k >= 2]
pd.DataFrame(
    [{"P": p, "K": k, "positives of an anchor": k - 1, "negatives of an anchor": (p - 1) * k} for p, k in choices]
)

# %% [markdown]
# From a dozen people nearly all crops of a batch have a positive by luck, from 120 about a quarter, and from Market-1501's 751 people (batches of 64) about one in ten. So the more people there are, the more a batch must be arranged.
#
# More people in a batch make the hardest negative harder; more crops per person make the hardest positive harder, as it may come from any camera. The published recipe takes P = 4 and K = 16. The tiny settings take more people and fewer crops, because a drawn person has a dozen crops in all. The rules of the published sampler, which decide who comes next:

# %%
print(inspect.getsource(IdentitySampler._cycle))

# %%
print(inspect.getsource(IdentitySampler._shuffled))

# %% [markdown]
# > **Quick question.** A data set has 8 crops of each person and K is 16. What does a batch hold? What if a person has 20?
# > <details><summary>Answer</summary>With 8 crops they are drawn with replacement: all 16 places are filled, with duplicates (augmentation makes them differ a little). Of 20, a batch gets 16 different ones; 4 remain, fewer than K, so the person leaves the pool and these 4 are not used in this cycle. In the next cycle the order is drawn anew.</details>
#
# ## 3 · Augmentation: less than in pre-training
#
# Pre-training tore crops apart to make the task hard. Fine-tuning is gentler ([`lab/finetune/augment.py`](../lab/finetune/augment.py)): a mirror image half of the time; 10 black pixels around the crop and a cut back to size at a random place (in tiny settings fewer, as crops are smaller); and half of the time a black rectangle, 2 to 40 % of the area, is erased. The last one punishes a network that relies on one detail.

# %%
augment = Augmentation(config.flip, config.padding, config.erase)
original = pixels(people.path[batch[0]]).permute(1, 2, 0).numpy()  # (H, W, 3)
draws = [augment(original, np.random.default_rng((config.seed, number))) for number in range(15)]
titles = ["resized", *map(str, range(1, 16))]
figures.contact_sheet([original, *draws], titles, 8, "One crop, fifteen draws of augmentation")

# %% [markdown]
# **What is not there** matters as much. There is no colour jitter: the colour of a jacket is the best evidence that there is. (LUPerson found the same for pre-training: leaving colour jitter out and adding random erasing gained 1.3 points of mAP on CUHK03.) And nothing is zoomed: a detector's box mostly holds the whole person.
#
# Two checks by hand. How often is something erased, and how dark is *black* for the network? It subtracts the mean pixel $\mu$ of LUPerson and divides by the deviation $\sigma$, so a black pixel arrives as $(0-\mu)/\sigma$. (Pre-training erases to the mean, which arrives as 0. The published fine-tuning does not; the lab follows it.)

# %%
white = np.full_like(original, 255)
erase_only = Augmentation(flip=0, padding=0, erase=config.erase)
black = np.array([(erase_only(white, np.random.default_rng((1, number))) == 0).mean() for number in range(500)])
least, most = 100 * black[black > 0].min(), 100 * black.max()
print(f"erased in {100 * (black > 0).mean():.0f} % of the draws, then {least:.0f} to {most:.0f} % of the crop")
print("a black pixel arrives as", ((0 - model.pixel_mean) / model.pixel_std).flatten().numpy().round(2))
assert abs((black > 0).mean() - config.erase) < 0.1

# %% [markdown]
# ## 4 · The network: one trunk, three branches, eight heads
#
# One vector for a whole person blurs: shoes, trousers and hat end up in one average. **MGN**, the *multiple granularity network* (Wang et al., 2018), which the paper fine-tunes in [section 5](https://arxiv.org/abs/2012.03753), looks three times:
#
# * branch **b1** at the whole person;
# * branch **b2** at the whole, and at the upper and lower half;
# * branch **b3** at the whole, and at three thirds.
#
# A ResNet is cut inside `layer3`. What lies before is shared; of what follows, each branch gets its own copy. Each branch ends in a **feature map**: a grid of places with a vector at each. Before it is cut, the map passes one more batch norm per branch, the **extra batch norm**. (The published recipe adds it unless the trunk comes from ImageNet with labels; here it is always there.) The grid is cut into horizontal **stripes**, because people stand upright. Each whole and each stripe goes to a **head** of its own, which says 256 numbers. The map sizes below come from sending a crop through the network.

# %%
one = pixels(new.path[0])[None]  # (1, 3, H, W)
with torch.inference_mode():
    maps = model.maps(one)  # branch -> (1, C, h, w)
sizes = {branch: tuple(map_.shape[2:]) for branch, map_ in maps.items()}
branches_figure(pictures[0], sizes, HEADS, f"What each head sees, at {config.height} x {config.width} pixels")

# %% [markdown]
# The bar below is the **descriptor**, the vector that people are searched by, in its fixed order: first the three wholes, then the stripes. White lines are the places of the map. With few rows the thirds cannot be equal; then the upper ones get a row more. (A place also *sees* beyond its own cell, through the convolutions below. A stripe is a matter of emphasis, not a blindfold.)
#
# The published network is a ResNet-50 on 384 x 128 pixels. It has more of everything, in the same arrangement:

# %%
published = FinetuneConfig()
largest = MGN(num_classes=751, depth=published.depth).eval()  # for Market-1501's training people
with torch.inference_mode():
    print({branch: tuple(map_.shape) for branch, map_ in largest.maps(torch.zeros(1, 3, 384, 128)).items()})


# %%
def millions(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6


rows = {}
for title, network in (("here", model), ("published", largest)):
    classifiers = millions(*(head.classifier for head in network.heads()))
    parts = {"shared trunk": millions(network.backbone), "each branch": millions(network.b1)}
    heads = {"eight heads": millions(*network.heads()) - classifiers, "classifiers (thrown away)": classifiers}
    rows[f"{title}, ResNet-{(config if network is model else published).depth}"] = parts | heads
pd.DataFrame(rows).T.round(2).rename_axis("millions of parameters")

# %% [markdown]
# Most of the parameters are in the three branches. In both, `layer4` does not halve its map (`last_stride` 1 instead of a ResNet's 2), so the final map has a sixteenth of the crop's rows and columns and not a thirty-second. The published code does so in all three branches; the MGN paper halves it in b1.
#
# ### Inside a head: pooling
#
# A head first turns its stripe into one vector: **GeM**, generalised-mean pooling, over the $n$ places $x_1 \dots x_n$ of each channel,
#
# $$\mathrm{GeM}_p(x) = \Big(\frac{1}{n}\sum_{i=1}^{n} x_i^{\,p}\Big)^{1/p}.$$
#
# With $p=1$ it is the average, with $p\to\infty$ the maximum. The original MGN takes the maximum; the published LUPerson models take GeM, start at $p=3$ and *learn* $p$ with everything else. By hand, for one channel of one crop:

# %%
channel = int(maps["b1"][0].amax(dim=(1, 2)).argmax())  # the one that fires most
x = maps["b1"][0, channel].clamp(min=1e-6).flatten()  # values below 0 count as (almost) 0
p = float(model.b1_head.pool_layer.p.detach())
by_hand = (x**p).mean() ** (1 / p)
with torch.inference_mode():
    assert torch.isclose(by_hand, model.b1_head.pool_layer(maps["b1"])[0, channel, 0, 0], rtol=1e-4)
pooled = {f"p = {power:g}": float((x.double() ** power).mean() ** (1 / power)) for power in (1, p, 10, 100)}
pd.Series({"average": float(x.mean()), **pooled, "maximum": float(x.max())}, name=f"channel {channel} of b1").round(4)

# %% [markdown]
# Then a 1 x 1 convolution reduces the pooled channels to 256, and a batch norm centres and scales these. This vector has three jobs: it goes to the classifier, to the triplet loss, and into the descriptor. The eight vectors side by side, divided by their common length, are the descriptor:

# %%
print(inspect.getsource(MGN.features))

# %%
features = heads_of(new.path[:1], model)
by_hand = torch.cat([features[head] for head in HEADS], dim=1)[0]  # (2048,)
by_hand = by_hand / by_hand.norm()
assert torch.allclose(by_hand.float(), model.embed(one)[0], atol=1e-5)
share = by_hand.square().view(len(HEADS), HEAD_DIM).sum(1)
print("share of each head in the descriptor's squared length:")
print(pd.Series(100 * share, list(HEADS)).round(1).astype(str).add(" %").to_frame().T.to_string(index=False))

# %% [markdown]
# Only the whole has length 1, not each part: a head that says little has little weight in the search.
#
# > **Quick question.** All three branches start as copies of the same pre-trained layers. Why do they not stay the same?
# > <details><summary>Answer</summary>Their heads start at random and differ, and their heads look at different stripes with a loss of their own. So the gradients that come back into the branches differ from the first free step on. b1 learns from one head, b2 from three, b3 from four.</details>
#
# ## 5 · The first loss: who is it?
#
# Take crops of three training people from the batch. From here on, *by hand* means: a few plain lines, and then an `assert` that [`lab/finetune/losses.py`](../lab/finetune/losses.py) gives the same.

# %%
few = np.concatenate([batch[K * person : K * person + 3] for person in range(3)])  # 3 people x up to 3 crops
labels = torch.tensor(people.labels[few])  # 0 .. C-1: the position of a pid among the training people
known = heads_of(people.path[few], model)
feature = known["b1"]
cosine = losses.cosine_logits(feature, weight)
by_hand = feature[0] @ weight[labels[0]] / (feature[0].norm() * weight[labels[0]].norm())
assert torch.isclose(by_hand, cosine[0, labels[0]])
print(f"C = {len(weight)} training people; the first crop's cosine to its own direction is {by_hand:.3f}")

# %% [markdown]
# **From cosines to logits.** A softmax over plain cosines could never be certain: between -1 and 1 there is no room for that. The recipe turns each cosine $c$ into a logit that pushes hardest where most is left to do (**circle loss**, Sun et al., 2020, in its classification form). With scale $s=64$ and margin $m=0.35$,
#
# $$\ell_{\text{right}} = s\,[\,1+m-c\,]_+\,(c-(1-m)), \qquad \ell_{\text{wrong}} = s\,[\,c+m\,]_+\,(c-m).$$
#
# The right cosine should be above $1-m$, a wrong one below $m$. The brackets $[\cdot]_+ = \max(0,\cdot)$ are weights: the farther from the goal, the larger, and no gradient flows through them.

# %%
s, m = config.scale, config.margin
by_hand = s * (cosine + m).clamp(min=0) * (cosine - m)  # as if all were wrong ones
for row, label in enumerate(labels):
    c = cosine[row, label]
    by_hand[row, label] = s * max(0, 1 + m - c) * (c - (1 - m))
logits = losses.circle_logits(cosine, labels, s, m)
assert torch.allclose(by_hand, logits)

# %% [markdown]
# **From logits to a loss.** A softmax makes of the $C$ logits a probability $\pi_j$ for each person $j$. Plain cross entropy would ask for $\pi=1$ on the right one; **label smoothing** asks for 0.9 and shares $\varepsilon = 0.1$ among the $C-1$ others, because a training set of few people invites overconfidence:
#
# $$\mathcal{L}_{\text{cls}} = -(1-\varepsilon)\log \pi_{\text{right}} - \frac{\varepsilon}{C-1}\sum_{j\,\ne\,\text{right}}\log \pi_j .$$

# %%
C, epsilon = len(weight), config.smoothing
by_hand = []
for row, label in zip(logits, labels):
    log_pi = row - row.exp().sum().log()
    wrong = log_pi.sum() - log_pi[label]
    by_hand.append(-(1 - epsilon) * log_pi[label] - epsilon / (C - 1) * wrong)
assert torch.isclose(torch.stack(by_hand).mean(), losses.smoothed_cross_entropy(logits, labels, epsilon))
print("loss of each crop:", [round(float(value), 2) for value in by_hand])

# %% [markdown]
# What do scale and margin do? The blue curve is the logit of the right person as its cosine grows, the dashed one that of a wrong person, the dotted one the plain scaled cosine. A crop is classified with confidence when its blue value is above all its dashed ones. A small $m$ is strict, a large one lenient: the larger $m$, the *sooner* the right logit is above 0 and the later a wrong one is. Above each panel is the loss of the first crop under that setting.
#
# (A detail of the published formula: for cosines below $-m$ the bracket is 0, and so is the wrong person's logit. It is higher there than at 0, but has no gradient: nobody is pushed further away than that.)

# %%
grid = np.linspace(-0.5, 1, 151)  # cosines
first, target = torch.tensor(grid)[:, None].repeat(1, 2), torch.zeros(len(grid), dtype=int)


def panel(margin, scale=s):
    """Title and curves of one setting: the logit of column 0, which is right, of column 1, which is wrong, and plain."""
    right, wrong = losses.circle_logits(first, target, scale, margin).T.numpy()
    crop = losses.smoothed_cross_entropy(losses.circle_logits(cosine, labels, scale, margin)[:1], labels[:1], epsilon)
    return {f"m = {margin:g}, s = {scale:g}: loss {crop:.2f}": (right, wrong, scale * grid)}


margin_figure(grid, panel(0.0) | panel(0.2) | panel(0.35) | panel(0.5), "Circle logits for four margins")

# %%
explore(
    lambda margin, scale: margin_figure(grid, panel(margin, scale), "Your own margin and scale"),
    margin=FloatSlider(value=0.35, min=0, max=0.6, step=0.05),
    scale=FloatSlider(value=64, min=4, max=128, step=4),
)

# %% [markdown]
# Two numbers to know before reading a training curve. **The floor**: label smoothing never lets the loss reach 0. The best answer is exactly (0.9, and 0.1 shared), and its loss is the entropy of that. **The start**: class directions are random, cosines are near 0, and the right person's logit is $64 \cdot 1.35 \cdot (-0.65) \approx -56$ against about $-8$ for the others. The loss begins far above the $\log C$ of an ordinary softmax.

# %%
floor = -(1 - epsilon) * np.log(1 - epsilon) - epsilon * np.log(epsilon / (C - 1))
any_label = torch.tensor([0])
start = losses.smoothed_cross_entropy(losses.circle_logits(torch.zeros(1, C), any_label, s, m), any_label, epsilon)
log = demo.run(name).log()
print(f"floor {floor:.2f}, log C {np.log(C):.2f}, all cosines 0: {start:.1f}")
print(
    f"in the log of {name}: {log['loss_cls'].iloc[0]:.1f} in the first row, the mean of {log['step'].iloc[0]} steps,",
    end=" ",
)
print(f"and {log['loss_cls'].iloc[-1]:.2f} in the last")

# %% [markdown]
# > **Quick question.** The recipe compares *directions*: features and class weights are normalised before their product. What does the length of a feature change then?
# > <details><summary>Answer</summary>Nothing in this loss: a feature twice as long has the same cosines. But the same vector also goes to the triplet loss, which uses plain distances and does see the length, and into the descriptor, where longer heads have more weight.</details>
#
# ## 6 · The second loss: nearer to me than anybody else
#
# Classification says nothing about two crops; retrieval is all about two crops. The **triplet loss** therefore compares distances within the batch. Of all the triplets it takes, for each anchor $a$, only the hardest (**batch-hard mining**, Hermans et al., 2017): the *farthest* crop of the same person, and the *nearest* of anybody else. Anchor and these two are a **hard triplet**,
#
# $$\mathcal{L}_{\text{tri}} = \frac1B\sum_a \log\!\Big(1+e^{\,d^+_a-\,d^-_a}\Big),\qquad d^+_a=\max_{\text{same person}} d(a,p),\quad d^-_a=\min_{\text{others}} d(a,n).$$
#
# $B$ is the number of crops in the batch, and $d$ the Euclidean distance of two features, which are *not* normalised. $\log(1+e^x)$ is the **soft margin**: it goes to 0 as the positive gets nearer than the negative, and never quite arrives.

# %%
distance = torch.stack([torch.stack([(one - other).norm() for other in feature]) for one in feature])
same = labels[:, None] == labels[None, :]
positive = [max((j for j in range(len(few)) if same[i, j]), key=lambda j: distance[i, j]) for i in range(len(few))]
negative = [min((j for j in range(len(few)) if not same[i, j]), key=lambda j: distance[i, j]) for i in range(len(few))]
gap = torch.stack([distance[i, positive[i]] - distance[i, negative[i]] for i in range(len(few))])
by_hand = torch.log1p(gap.exp()).mean()
assert torch.isclose(by_hand, losses.hard_triplet(feature, labels))
print(f"triplet loss of these {len(few)} crops: {by_hand:.3f}")

# %%
names = [f"pid {people.pid[i]} · cam {people.camid[i]}" for i in few]
pictures = [demo.picture(path) for path in people.path[few]]
mining_figure(distance, pictures, names, positive, negative, "Batch-hard mining among nine crops (head b1)")

# %% [markdown]
# Read a row: the anchor stands at the left, + is its hardest positive, − its hardest negative. Where the number at + is smaller than that at −, the anchor is content. The gradient works hardest on the *other* rows.

# %%
each = range(len(few))
table = pd.DataFrame({"anchor": names, "d+": distance[each, positive], "d-": distance[each, negative]})
table["loss"] = np.log1p(np.exp(table["d+"] - table["d-"]))
content = (table["d+"] < table["d-"]).sum()
print(f"{content} of {len(table)} anchors are content: their hardest positive is nearer than their hardest negative")
table.round(2)

# %% [markdown]
# > **Quick question.** Among nine crops the hardest negative is one of six. In the whole batch it is one of how many, and is the loss larger or smaller there?
# > <details><summary>Answer</summary>One of (P − 1)·K, and the hardest positive is one of K − 1. A minimum over more candidates cannot be larger and a maximum cannot be smaller, so an anchor's term can only grow. The batch size is part of the loss: this is why the published 64 (and several GPUs that share one batch) matters.</details>
#
# ## 7 · Which head gets which loss
#
# All eight heads classify, each with its own class directions; their mean counts. The triplet loss looks at five vectors: the three wholes, and the stripes of a branch *side by side*, since an upper half alone need not tell two people in black coats apart.

# %%
rows = [("classification", f"each of {', '.join(HEADS)}", HEAD_DIM, f"1/{len(HEADS)}")]
for joined in losses.TRIPLETS.values():
    rows.append(("triplet", " + ".join(joined), HEAD_DIM * len(joined), f"1/{len(losses.TRIPLETS)}"))
pd.DataFrame(rows, columns=["loss", "on", "numbers", "weight"]).set_index("loss")

# %%
weights = {head: value.detach().double() for head, value in model.class_weights().items()}
total = 0.0
for head in HEADS:
    own = losses.circle_logits(losses.cosine_logits(known[head], weights[head]), labels, s, m)
    total += losses.smoothed_cross_entropy(own, labels, epsilon) / 8
for joined in losses.TRIPLETS.values():
    total += losses.hard_triplet(torch.cat([known[head] for head in joined], dim=1), labels) / 5
terms, accuracy = losses.mgn_losses(known, weights, labels, **loss_settings(config))
assert torch.isclose(total, sum(terms.values()))
print(f"{len(terms)} terms, together {total:.3f}; {100 * accuracy:.0f} % of the heads' answers are right")

# %% [markdown]
# ## 8 · When does what learn?
#
# Two things are new and random at the start: the heads and the class directions. Their first gradients are large and mean little, and would tear up the pre-trained trunk. The recipe protects it twice:
#
# * **freezing**: in the first sixth of the steps (published: 10 of 60 epochs) trunk and branches keep their weights *and* their batch-norm statistics; only the heads and the extra batch norm in front of them learn. A network that starts from scratch has nothing to protect, and nothing is frozen;
# * **warm-up**: meanwhile the learning rate rises in a line from a hundredth of its value. Then it stays, and from half of the run on falls along a cosine.
#
# $$\eta(t) = \begin{cases}\eta_{\max}\,(0.01 + 0.99\,t/t_w) & t < t_w \\ \eta_{\max} & t_w \le t \le t_f \\ \eta_{\text{end}} + (\eta_{\max}-\eta_{\text{end}})\,\tfrac12\big(1+\cos\pi\tfrac{t-t_f}{T-t_f}\big) & t > t_f\end{cases}$$
#
# $t$ is the step and $T$ their number, $t_w = T/6$ the end of the warm-up, $t_f = T/2$ the end of the flat part, $\eta_{\max} = 3.5 \cdot 10^{-4}$ and $\eta_{\text{end}} = 7.7 \cdot 10^{-7}$ (the tiny settings have a larger $\eta_{\max}$). By hand for every step of the published run:

# %%
published_steps = 60 * (12936 // 64)  # Market-1501: 12,936 training crops, batches of 64, 60 passes
warm, flat = round(published.warmup * published_steps), round(published.flat * published_steps)
rate = [learning_rate(step, published_steps, published) for step in range(published_steps)]
t, T, highest, end = np.arange(published_steps), published_steps, 3.5e-4, 7.7e-7
falling = end + (highest - end) * (1 + np.cos(np.pi * (t - flat) / (T - flat))) / 2
by_hand = np.where(t < warm, highest * (0.01 + 0.99 * t / warm), np.where(t <= flat, highest, falling))
assert np.allclose(by_hand, rate, rtol=1e-6, atol=0)

# %%
steps = config.epochs * (config.steps_per_epoch or max(1, len(people) * config.repeat // sampler.batch_size))
ours = [learning_rate(step, steps, config) for step in range(steps)]
schedules = {
    "published, Market-1501": (np.array(rate), frozen_steps(published_steps, published.freeze, True)),
    name: (np.array(ours), frozen_steps(steps, config.freeze, True)),
}
schedule_figure(schedules)

# %% [markdown]
# How much of the network learns while it is frozen? Count the parameters that want a gradient:

# %%
fresh, report = new_model(config, people.num_ids, None)  # random weights, for counting
for frozen in (True, False):
    set_frozen(fresh, frozen)
    learning = sum(parameter.numel() for parameter in fresh.parameters() if parameter.requires_grad) / 1e6
    print(f"{'frozen' if frozen else 'free  '}: {learning:5.1f} million parameters learn")

# %%
print(inspect.getsource(set_frozen))

# %% [markdown]
# Why `part.train(not frozen)` and not only `requires_grad_`? A batch norm in training mode updates its running mean and variance at every step, gradient or not. A trunk that is frozen only by `requires_grad` would drift all the same.
#
# Here is a whole training. The first panel has the sum of the losses and its two parts; the second the share of the heads' answers that are right, *on augmented training crops*. The learning rate is the right half of the figure above once more.

# %%
curves.loss_curves(log, f"Fine-tuning {name}: {log['step'].iloc[-1]:,} steps")

# %% [markdown]
# The drop at the beginning is mostly the classification loss leaving its start (section 5); a run of some dozens of steps ends far above the floor. Accuracy says how well the network knows the *training* people, and in a longer run it gets high long before the search for others is good, above all when few people have labels. What counts is the rank list of people it has never seen.
#
# ## 9 · From scratch against pre-trained
#
# The paper's **small-scale** experiment (section 5; a part of the identities, where **few-shot** is a part of everybody's images), made small: three networks learn from the *same* 10 % of the training people, with the same steps, batches and augmentation (only freezing needs something to freeze). They differ in where the trunk starts: from random weights (`scratch`), from the short pre-training of notebook 02 (`short`), or from the trunk that comes with the lab, which was pre-trained for longer and with other places behind each person (`shipped`; [how and what it is worth](../benchmarks/results/pretraining-recipe.md)).

# %%
for run in ("scratch-10", "short-10", "shipped-10"):
    demo.run(run)  # makes it if it is missing
runs = [run for run in find_runs(demo.folder / "runs") if run.name in FINETUNED]
table = tables.metrics_table(runs)
plain = table[(table["data set"] == data.name) & (table["re-ranking"] == "no")].sort_values("mAP")
plain[["run", "initialised from", "identities used", *tables.METRICS]].round(1)

# %%
curves.initialisation_figure(plain, "mAP on people without labels, by starting point")

# %% [markdown]
# Whether the order is more than luck of the draw of test people can be tested: a paired test over people ([notebook 08](08_comparing_models.ipynb)).

# %%
for other in ("short-10", "shipped-10"):
    print(paired(demo.result("scratch-10"), demo.result(other), names=("scratch-10", other)).sentence())

# %% [markdown]
# Expect `shipped` to be far ahead. Between `short` and `scratch` the test will hardly decide, and that is no proof that they are equal: on real crops, with a small budget too and at 10 % of the people, the pre-trained runs were *lower* than those from random weights ([three seeds](../benchmarks/results/market1501-budget.md)). A student project that pre-trained on Market-1501's own crops found the same: 31.4 % mAP at 10 % of the people, against 53.1 from ImageNet ([CMPE597](https://github.com/omerfarukcavass/CMPE597_DL_LUPerson)).
#
# And what did the *labels* do for `shipped-10`? Its trunk found people before it had seen any ([notebook 03](03_what_did_it_learn.ipynb)). Beside each other:

# %%
trunk, views = Embedder(config.depth), demo.config(PRETRAINED)  # searched at the size of its views, as in notebook 03
load_trunk(trunk, SHIPPED if SIZE == "tiny" else RELEASED)
parts = [extract(trunk, split, views.height, views.width) for split in (data.query, data.gallery)]
before = evaluate_ranking(*parts)
print(paired(before, demo.result(name), names=("the trunk without labels", name)).sentence())

# %% [markdown]
# At 10 % of the labels the lead of `shipped` is what its trunk knew already. It had seen ten thousand drawn people; that twelve more, with names, add anything in so few steps, the test does not show. From random weights *all* is learned here. (Real people are another matter: without labels nothing was published of LUPerson's trunk, and with labels the gains are in the next table.)
#
# So here is the paper's own table: MGN with a ResNet-50 on Market-1501, at 10 to 90 % of the training identities. *ImageNet sup.* are the usual weights, trained with ImageNet's labels; *unsup.* is MoCo without labels, on ImageNet or on LUPerson (*LUP*).

# %%
paper = published_results()
paper = paper[(paper["setting"] == "small-scale (fraction of identities)") & (paper["dataset"] == "market1501")]
wide = paper.pivot(index="pretraining", columns="ratio", values="mAP").rename(columns="{:.0%}".format)
wide.loc["gain over ImageNet sup."] = wide.loc["LUP unsup."] - wide.loc["ImageNet sup."]
wide.round(1)

# %%
paper = paper.assign(**{"identities used": [f"{100 * ratio:g} %" for ratio in paper["ratio"]]})
paper = paper.rename(columns={"pretraining": "initialised from"})
curves.initialisation_figure(paper, "The paper: Market-1501 with few people, mAP")

# %% [markdown]
# **What may be compared?** *Within* a column of the paper's table: same data and steps. The initial weights differ, and with them two details: the "ImageNet sup." rows are fine-tuned *without* the extra batch norm and with ImageNet's pixel statistics. There the gain is largest where labels are fewest (11.5 points at 10 %, 3.6 at 90 %). *Within* our table likewise. **Not** across the two: drawn people against real ones, ResNet-18 at two thousand pixels against ResNet-50 at fifty thousand, some dozens of steps against thousands. Our 10 % bar being higher or lower than the paper's 10 % bar means nothing. What carries over is the question: what does a start save? The answers differ from start to start.
#
# One more trap. In the paper, a column with fewer people also has fewer *steps* (an epoch is shorter: 1,080 steps at 10 % against 12,120 at 100 %), so columns differ in two things.
#
# ## 10 · What one seed means
#
# The test above draws other *people*. It knows nothing of another *training*: other random heads, other batches, and, at 10 %, another choice of who has labels. The lab's benchmark repeated scratch and shipped for three seeds, at 120 steps each:

# %%
seeds = pd.read_csv("../benchmarks/results/synthetic-10.csv").query("not rerank")
seeds.pivot(index="start", columns="seed", values="mAP").assign(range=lambda t: t.max(axis=1) - t.min(axis=1)).round(1)

# %%
interval = 100 * intervals(demo.result("scratch-10")).loc["mAP"]
print(f"scratch-10 here: {interval['mean']:.1f} % mAP,", end=" ")
print(f"95 % interval over test people {interval['low']:.1f} to {interval['high']:.1f}")

# %% [markdown]
# From scratch, the seed alone moved mAP by almost ten points; from the shipped trunk by less than one. So one run from scratch says little, and a difference of three points between two *recipes* from scratch with one seed each says nothing. Yet the worst of the three shipped runs is ten points above the best of three from scratch, so *that* difference is hardly luck of the seed. Rule of thumb: at least three seeds, report the range, and test over people besides.
#
# ## Exercises
#
# **1. Which heads find people?** The descriptor has eight parts of 256 numbers. Rank the gallery by each part alone, and by all of them. Guess first: wholes or stripes? Is the best part as good as the whole?
#
# <details><summary>Answer</summary>
#
# The features lie in the run folder, so this takes a moment:
#
# ```python
# from dataclasses import replace
#
# run = demo.run(name)
# query, gallery = (run.features(data.name, part) for part in ("query", "gallery"))
# found = {}
# for head, at in [*zip(HEADS, range(0, 2048, HEAD_DIM)), ("all", None)]:
#     part = slice(None) if at is None else slice(at, at + HEAD_DIM)
#     parts = (replace(crops, values=np.asarray(crops.values)[:, part]) for crops in (query, gallery))
#     found[head] = 100 * evaluate_ranking(*parts).mAP
# print(pd.Series(found).round(1).to_string())
# ```
#
# In our runs all together is best, by up to two points over the best part. Which stripe is worst differs: the lower third in `shipped-10`, the upper third or the upper half from weaker starts.
# </details>
#
# **2. The camera's pull, in the batch.** In the whole batch, how often does the hardest negative come from the *anchor's own camera*? (Take head `b1`; `heads_of(people.path[batch], model)` gives the features.) Compare it with the share of such crops among all negatives.
#
# <details><summary>Answer</summary>
#
# ```python
# pid, camid = people.pid[batch], people.camid[batch]
# far = torch.cdist(*[heads_of(people.path[batch], model)["b1"]] * 2).numpy()
# other = pid[:, None] != pid[None, :]
# hardest = np.where(other, far, np.inf).argmin(1)
# share = (camid[hardest] == camid).mean()
# expected = (other & (camid[:, None] == camid[None, :])).sum() / other.sum()
# print(f"own camera: {100 * share:.0f} % of the hardest negatives, {100 * expected:.0f} % of all negatives")
# ```
#
# More than its share means that another person in the same place still looks nearer than others do: mining serves the loss exactly these. One batch is a small sample; draw several before you conclude.
# </details>
#
# **3. Hard margin or soft?** `hard_triplet(…, margin=0.3)` is $\max(0, d^+-d^-+0.3)$. For the nine crops, how many anchors have a gradient with it, and how many with the soft margin?
#
# <details><summary>Answer</summary>
#
# ```python
# hard, soft = (gap + 0.3 > 0), torch.sigmoid(gap)  # the slope of log(1 + exp(x)) is sigmoid(x)
# print(f"margin 0.3: loss {losses.hard_triplet(feature, labels, 0.3):.3f}, {int(hard.sum())} of {len(gap)} anchors have a gradient")
# print("soft margin: slopes", [round(float(value), 3) for value in soft])
# ```
#
# With a fixed margin an anchor has slope 1 until its negative is 0.3 farther than its positive, and 0 from then on; with the soft margin every anchor keeps a slope between 0 and 1, below 1/2 where it is content. The loss never falls asleep, and needs no margin to be chosen, but it also never stops pushing distances apart.
# </details>
#
# ## Where next
#
# * The paper: [LUPerson, section 5](https://arxiv.org/abs/2012.03753). MGN: Wang et al., *Learning Discriminative Features with Multiple Granularities*, ACM MM 2018.
# * The code: [`mgn.py`](../lab/finetune/mgn.py), [`losses.py`](../lab/finetune/losses.py), [`sampler.py`](../lab/finetune/sampler.py), [`augment.py`](../lab/finetune/augment.py), and the loop that puts them together, [`train.py`](../lab/finetune/train.py). Recipes and speed: [docs/training.md](../docs/training.md).
# * The explorer: `lab app demo/runs`, page *Training*: [localhost:8501/training](http://localhost:8501/training) shows the curves of all runs.
# * Next: [05 · Evaluation](05_evaluation.ipynb), how the mAP in these tables comes about.
