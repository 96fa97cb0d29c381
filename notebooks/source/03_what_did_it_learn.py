# %% [markdown]
# # 03 · What did it learn? Looking into features that never saw a label
#
# | | |
# |---|---|
# | **Goal** | Judge a representation before any fine-tuning: search with it as it is, measure alignment and uniformity, look at neighbours and maps. Find out whether it learned *people* or *places*. |
# | **Needs** | [02 · Pre-training](02_pretraining.ipynb) for views, queue and InfoNCE; [01 · Crops](01_crops.ipynb) for the colour histogram and the camera rule. |
# | **Makes** | `lessons/03` in the shared folder: the test crops with grey background and with grey people. Pre-trains for two minutes if the demo did not. |
# | **Minutes** | 40 to read, 1 to 2 to run; makes what is missing itself in 3 minutes. |
#
# A contrastive loss that falls proves one thing: the network finds its own view among others. *How* it finds it, the loss does not say. By the clothes? By the wall behind? Here we ask the features themselves.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501
UNLABELED = None  # for "paper": a folder of crops to pre-train on

# %%
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lab.demo import PRETRAINED, RELEASED, Demo
from lab.show import embedding, figures
from lab.show.live import explore, in_notebook
from lab.weights import SHIPPED

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT, UNLABELED)
drawn = demo if SIZE == "tiny" else Demo(Path(FOLDER) / "drawn")  # section 6 needs people whose outline is known

# %% [markdown]
# ## 1 · Searching without a label
#
# A representation is anything that turns a crop into a vector of length 1. We compare four, from knowing nothing to having seen much:
#
# * the **colour histogram** of [notebook 01](01_crops.ipynb), which learned nothing and needs no training;
# * an **untrained network**: random weights;
# * **pre-trained here**: the same network after the demo's pre-training, at size tiny a short one;
# * the **shipped trunk**: pre-trained for longer on other drawn people, who were put into other places for the views ([model card](../lab/assets/README.md)). At size "paper" it is LUPerson's own.
#
# No network among them has seen who is who. We take the **trunk's** feature, the one that fine-tuning starts from, and not MoCo's projection; exercise 1 asks which is better. It is the average of the last layer's map, 512 numbers in a ResNet-18, at length 1; an `Embedder` is a trunk that returns it.

# %%
from lab.backbone import Embedder, load_trunk, pick_device
from lab.evaluate.features import colour_histogram, extract

config, device = demo.config(PRETRAINED), pick_device("auto")
torch.manual_seed(0)
untrained, pretrained, shipped = Embedder(config.depth), demo.model(PRETRAINED), Embedder(config.depth)
source = SHIPPED if SIZE == "tiny" else RELEASED
report = load_trunk(shipped, source, source)
print(f"{report.source}: {len(report.loaded)} tensors loaded, {len(report.missing)} missing")

# %%
networks = {"untrained network": untrained, "pre-trained here": pretrained, f"{source} trunk": shipped}
size = config.height, config.width  # of the views in pre-training, in pixels
representations = {"colour histogram": (colour_histogram, 128, 64)}
representations |= {name: (network.to(device).eval(), *size) for name, network in networks.items()}

# %% [markdown]
# Each of them now ranks the gallery for every query, with the camera rule. As a floor we add **chance**: a random vector for each crop.

# %%
from lab.evaluate.metrics import evaluate_ranking


def search(embed, height, width, data=demo.data):
    """Features of query and gallery, and how they rank."""
    query, gallery = (extract(embed, split, height, width, device=device) for split in (data.query, data.gallery))
    return query, gallery, evaluate_ranking(query, gallery)


# %%
random = torch.Generator().manual_seed(0)
found = {"chance": search(lambda images: torch.randn(len(images), 128, generator=random).to(device), *size)}
found |= {name: search(*how) for name, how in representations.items()}

# %% [markdown]
# Are the differences real, or luck with these people? `compare` gives every mean a 95 % interval by drawing people again and again ([notebook 08](08_comparing_models.ipynb) explains how).

# %%
from lab.evaluate.compare import compare

results = {name: result for name, (_, _, result) in found.items()}
table = compare(results).table
spans = zip(100 * table["mean"], 100 * table["low"], 100 * table["high"])
table["text"] = [f"{mean:.1f} ({low:.1f}..{high:.1f})" for mean, low, high in spans]
table.pivot(index="run", columns="metric", values="text").loc[list(results), ["mAP", "rank-1", "rank-10"]]

# %%
values = pd.DataFrame({name: {"mAP": 100 * r.mAP, "rank-1": 100 * r.cmc[0]} for name, r in results.items()}).T
embedding.bars_figure(values, "% of the test queries", "Search without labels")

# %% [markdown]
# Read the bars from left to right. Two things surprise most people:
#
# * **Colours are hard to beat.** A short pre-training usually does not. Keep that baseline in every table you make.
# * **An untrained network is better than chance.** Random filters still respond to colours and edges, and averaged over the crop they are crude statistics of these. So "better than nothing" must mean better than *this*.
#
# How far the pre-training of this notebook got depends on how many steps your machine could do in the demo's time. At LUPerson's scale (326,400 steps) the trunk is a better *start* than supervised ImageNet weights on four data sets (paper, section 5, after fine-tuning); how it searches without labels was not published. The shipped trunk stands between in effort: half an hour, and one trick that section 3 explains. (Its recipe was chosen on this very test split, so its bar is a little [too kind](../lab/assets/README.md).)
#
# ## 2 · Alignment and uniformity
#
# What does the contrastive loss ask for? Split it: with unit vectors $q_i$, $k_i$ for the two views of crop $i$ (temperature left aside),
#
# $$-\log \frac{e^{q_i \cdot k_i}}{\sum_j e^{q_i \cdot k_j}} = \underbrace{-\,q_i \cdot k_i}_{\text{own view near}} + \underbrace{\log \sum_j e^{q_i \cdot k_j}}_{\text{all keys far}}.$$
#
# (The sum includes the own key, one among many. For many keys Wang and Isola (2020) show that the second part asks for features that are spread evenly.)
#
# They give each part a number of its own:
#
# $$\text{alignment} = \frac{1}{B} \sum_i \lVert q_i - k_i \rVert^2, \qquad \text{uniformity} = \log \frac{1}{B(B-1)} \sum_{i \ne j} e^{-2 \lVert q_i - q_j \rVert^2}.$$
#
# **Alignment** is the mean squared distance of two views: 0 if views do not matter, 2 for vectors at right angles. **Uniformity** says how evenly crops cover the sphere: 0 if all are the same, about -4 when any two are at right angles. Lower is better in both, and a good representation needs *both*. By hand for four crops with two views each:

# %%
from lab.data.jpeg import decode
from lab.pretrain.augment import Views

paths = np.random.default_rng(0).permutation(demo.data.train.path)[:256]  # no pid is looked at
crops = [decode(Path(path).read_bytes()) for path in paths]
make_views = Views(*size, config.augmentation)
first, second = make_views(crops, seed=1), make_views(crops, seed=2)  # (256, 3, height, width) each
four = [*crops[:4], *(view.byte().permute(1, 2, 0).numpy() for views in (first[:4], second[:4]) for view in views)]
figures.contact_sheet(four, columns=4, title="Four crops, two views each", row_titles=["crop", "view 1", "view 2"])

# %%
q, k = (shipped.embed(views[:4].to(device)).cpu() for views in (first, second))  # (4, D) each, unit length
apart = [float(((q[i] - k[i]) ** 2).sum()) for i in range(4)]
pairs = [float(((q[i] - q[j]) ** 2).sum()) for i in range(4) for j in range(4) if i != j]
by_hand = sum(apart) / 4, np.log(sum(np.exp(-2 * distance) for distance in pairs) / len(pairs))
print(f"two views: {np.round(apart, 2)}, two crops: {np.round(pairs[:3], 2)} …")
print(f"alignment {by_hand[0]:.3f}, uniformity {by_hand[1]:.3f}")

# %% [markdown]
# And the functions that write the columns `alignment` and `uniformity` of every pre-training's log.csv ([`lab/training/health.py`](../lab/training/health.py)). Two lines each:

# %%
from inspect import getsource

from lab.training.health import alignment, uniformity

assert np.allclose(by_hand, (alignment(q, k).item(), uniformity(q).item()), atol=1e-4)
print(getsource(uniformity))


# %% [markdown]
# Now 256 crops, for all four:

# %%
def both(embed):
    """Alignment and uniformity of a representation on our 256 pairs of views."""
    embed = getattr(embed, "embed", embed)
    q, k = (torch.cat([embed(part.to(device)).cpu() for part in views.split(64)]) for views in (first, second))
    return {"alignment": alignment(q, k).item(), "uniformity": uniformity(q).item()}


plane = pd.DataFrame({name: both(embed) for name, (embed, _, _) in representations.items()}).T
embedding.alignment_uniformity_figure(plane, f"Alignment and uniformity of {len(crops)} crops")

# %%
plane.round(3)

# %% [markdown]
# The untrained network teaches the lesson. Its views lie close together, so its *alignment* is fine. But so does everything: its *uniformity* is near 0. It calls all crops alike, and views of one crop are no exception: good alignment is cheap where everything is close together. Where *nothing* but the common part is left, that is **collapse**. The untrained network is not there. Its features differ little, but a rank list does not mind the scale, and section 1 showed that it still ranks better than chance. The loss keeps a network from collapse by its second part, the keys in the queue.
#
# > **Quick question.** Both numbers can be had without any training. Give a representation with alignment 0. Give one with uniformity near -4.
# > <details><summary>Answer</summary>The same vector for every picture has alignment 0 (and uniformity 0, the worst). A random vector for every picture has uniformity near -4 (and alignment near 2). To have both low at once, a network must know which pictures belong together.</details>
#
# ## 3 · People or places?
#
# Here is the trouble. Alignment speaks about views of **one crop**: same person, same place, same moment. Uniformity speaks about all pairs of crops, and does not ask who is on them. What a search wants is the same person in **another** place. So take the same ruler, the mean squared distance, to other kinds of pairs, those of [notebook 01](01_crops.ipynb): query and gallery crop, same person or not, same camera or not. Unit vectors save work, for $\lVert a - b \rVert^2 = 2\,(1 - a \cdot b)$ is twice the cosine distance.

# %%
from lab.evaluate.distance import pairwise

query, gallery, _ = found["chance"]  # the same crops for all
person, place = query.pid[:, None] == gallery.pid, query.camid[:, None] == gallery.camid
kinds = {
    "same person, other camera": person & ~place,
    "other person, same camera": ~person & place,
    "other person, other camera": ~person & ~place,
}


# %%
def squared_distances(name):
    """Of every query and gallery crop, (Q, G), in a representation."""
    q, g, _ = found[name]
    return 2 * pairwise(torch.from_numpy(q.values), torch.from_numpy(g.values), "cosine").numpy()


apart = pd.DataFrame(columns=list(kinds))
for name in representations:
    squared = squared_distances(name)
    apart.loc[name] = [squared[mask].mean() for mask in kinds.values()]

# %%
query, gallery, _ = found[f"{source} trunk"]
rows, columns = np.nonzero(kinds["same person, other camera"])
same = alignment(torch.from_numpy(query.values[rows]), torch.from_numpy(gallery.values[columns]))
assert np.isclose(same.item(), apart.loc[f"{source} trunk", "same person, other camera"], rtol=1e-4)  # the same ruler
apart.round(3)

# %% [markdown]
# Representations have different scales (the untrained network calls everything near), so divide each row by its last number, two people under two cameras. What is left says: *how much nearer does it make two crops that they share the person? that they share the place?*

# %%
relative = 100 * apart.div(apart.iloc[:, -1], axis=0).iloc[:, :2]
embedding.bars_figure(
    relative, "squared distance,\n% of that of unrelated crops", "What brings two crops together?", digits=0
)

# %%
for name, (same_person, same_place) in relative.iterrows():
    nearer = "the same person" if same_person < same_place else "the same place"
    print(
        f"{name:18} {nearer} is nearer ({min(same_person, same_place):.0f} against {max(same_person, same_place):.0f} %)"
    )

# %% [markdown]
# Do not trust the mean yet. A search is not decided by the average stranger but by the *nearest* one, and there are many strangers. Count them; then ask of each query what stands in front: is a stranger under its own camera nearer than every right crop? And of the *wrong* first entries, how many are from the query's own camera? **Chance** says what to expect where neither person nor place has any pull.

# %%
answered = results["chance"].first_match > 0
right, strangers = (kinds[kind][answered] for kind in list(kinds)[:2])
print(
    f"a query has {right.sum(1).mean():.0f} right crops, and {strangers.sum(1).mean():.0f} strangers under its own camera"
)
front = pd.DataFrame(
    columns=["own-camera stranger before any right crop (%)", "wrong first entries from own camera (%)"]
)
for name in found:
    squared, r = squared_distances(name)[answered], results[name]  # below, 9 is more than any of them: at most 4
    before = np.where(strangers, squared, 9).min(1) < np.where(right, squared, 9).min(1)
    own = r.gallery_camid[r.index[:, 0]] == r.camid
    front.loc[name] = 100 * before.mean(), 100 * own[~r.match[:, 0]].mean()
front.round(0)


# %% [markdown]
# So the mean can be on the person's side and the search still be lost to the place. On the drawn people colours show it best: on average they put the same person nearer, and yet almost every mistake they make is a stranger in front of the query's own wall. Compare your pre-trained row with the untrained one: did training weaken the place's pull, or strengthen it?
#
# In a short contrastive training it can be strengthened, and once you see why, it is hard to unsee:
#
# > The task is to find my other view among $K$ others. With six cameras, whoever recognises the *wall* has ruled out five in six of them at once. The wall fills more than half of the picture, and it stands still while people turn and walk. **Places come before people, because places are easier.**
#
# > **Quick question.** Why is the second column not zero for chance, and what would a perfect representation have?
# > <details><summary>Answer</summary>By chance a wrong first entry is from the query's camera as often as strangers in the gallery are: with six cameras about one in six. A perfect representation makes no mistakes, so its share is undefined (NaN); one that knows people and is blind to places stays near chance.</details>
#
# And no loss curve shows it, because the loss falls for either reason. Only a question about *people*, such as a retrieval probe, does. What was measured about it, with the same small network on drawn people (mAP in %; *person alone* is section 6's test, all but the person painted grey; *fine-tuned* is MGN with a dozen labelled people). These are single runs, and not all can be repeated, as some scripts were not kept ([what is known of each](../benchmarks/results/pretraining-recipe.md)):
#
# | pre-training views | steps | without labels | the same, person alone | fine-tuned |
# |---|---|---|---|---|
# | none: random weights | 0 | 9.2 | 24.6 | 30.2 |
# | published boxes | 750 | 5.1 | | |
# | most of the person (`whole`) | 750 | 11.4 | 34.7 | 19.9 |
# | `whole`, person put into another place | 300 | 19.8 | 28.5 | 26.3 |
# | the same for longer: the shipped trunk | 1,872 | 45.3 | | 44.1 |
#
# Look at the second row: after 750 steps the search is *worse* than with random weights. By the column *person alone* the views of the third row teach people, but places too. Where four views in five stand in front of another wall, the wall tells little, and the person is what is left. (28.5 against 34.7 does not say that this hurts: the rows differ in steps and schedule.)
#
# Now the last column. As a *start* for fine-tuning the trunk of the third row was worse than random weights, although it searches better than they do: **what a representation finds without labels does not say what it is worth with them.** Only the longest run is ahead in both.
#
# Only drawn people can be cut out so easily. LUPerson's trunk saw 46,260 places and 840 million images; by the argument above more places make the wall a *better* hint, and whether it got past the walls its published figures do not say: they are measured after fine-tuning with labels.
#
# ## 4 · Neighbours
#
# Numbers say how much, neighbours say *what*. The nearest gallery crops of one query under each representation; ✓ is the query's person, and the number is the camera:

# %%
def neighbours(number, count=7):
    """The query, then its first gallery crops, a row for each representation."""
    pictures, titles = [], []
    for r in (results[name] for name in representations):
        entries = r.index[number, :count]
        pictures += [demo.picture(path) for path in (r.path[number], *r.gallery_path[entries])]
        marks = [f"{'✓' if hit else '✗'} cam {r.gallery_camid[i]}" for i, hit in zip(entries, r.match[number])]
        titles += [f"query, cam {r.camid[number]}", *marks]
    rows = [name.replace(" ", "\n") for name in representations]
    return figures.contact_sheet(pictures, titles, 1 + count, f"Query {number}: nearest first", rows)


# %%
gains = results[f"{source} trunk"].ap - results["colour histogram"].ap
neighbours(int(np.nanargmax(gains)))

# %% [markdown]
# This is the query that gained most over colours. Now the one that lost most:

# %%
neighbours(int(np.nanargmin(gains)))

# %% [markdown]
# Look along a row and say in one word what its crops share. A colour? A wall? A way of standing? Then pick queries yourself; the camera numbers tell you when a row has fallen for the place.

# %%
from ipywidgets import IntSlider

explore(neighbours, number=IntSlider(value=len(gains) // 2, min=0, max=len(gains) - 1))

# %% [markdown]
# ## 5 · A map
#
# A feature has hundreds of numbers, a page has two. **PCA** keeps the two directions in which features differ most. It is honest, because linear, and usually hides nearly everything. By the lab, and by torch:

# %%
names, rng = [*representations], np.random.default_rng(0)
chosen_pids = rng.permutation(np.unique(query.pid))[:60]
few = np.flatnonzero(np.isin(gallery.pid, chosen_pids))  # crops on the maps
values = {name: found[name][1].values[few] for name in names}
points, share = embedding.pca(values[f"{source} trunk"])
centred = torch.from_numpy(values[f"{source} trunk"]).double()
_, singular, _ = torch.pca_lowrank(centred, q=8, niter=10)
assert np.allclose((points**2).sum(axis=0), singular[:2].numpy() ** 2, rtol=1e-3)
print(f"{len(few)} crops; the two directions hold {100 * share.sum():.0f} % of the variance")

# %% [markdown]
# **t-SNE** gives up on directions and distances. It tries to keep for each crop only its nearest neighbours near. What lies together on such a map was *mostly* near in the features (exercise 3 counts how mostly); how far apart two islands are, and how large they are, means nothing.
#
# The same points twice: coloured by *who* (seven people), and by *where* (all cameras). A colour that forms islands is something that the representation knows; other things that it may know do not show.

# %%
maps = {name: embedding.tsne(values[name]) for name in names[2:]}  # the two trained ones


# %%
def colouring(pids):
    """Labels of the crops on the map: some people by name, and every camera."""
    people = [f"person {pid}" if pid in pids else "" for pid in gallery.pid[few]]
    return {"person": people, "camera": [f"camera {camid}" for camid in gallery.camid[few]]}


most_seen = sorted(chosen_pids, key=lambda pid: -(gallery.pid == pid).sum())[:7]
embedding.map_figure(maps, colouring(most_seen), "The same points twice (t-SNE)", "by ")


# %% [markdown]
# Follow one person over both maps: is it one island, or one crop on every camera's island? Choose whom to follow (the number counts the people on the map):

# %%
def follow(number):
    pids = chosen_pids[number : number + 1]
    return embedding.map_figure(maps, colouring(pids), f"Where is person {pids[0]}?", "by ")


explore(follow, number=IntSlider(value=0, min=0, max=len(chosen_pids) - 1))

# %% [markdown]
# A number for what the eye sees: the share of crops whose nearest neighbour *in the features* shows the same person, and the share for which it comes from the same camera.

# %%
for name in names:
    near = pairwise(*[torch.from_numpy(values[name])] * 2, "cosine").fill_diagonal_(9).argmin(dim=1).numpy()
    who, where = gallery.pid[few], gallery.camid[few]
    shares = 100 * (who[near] == who).mean(), 100 * (where[near] == where).mean()
    print(f"{name:18} same person {shares[0]:3.0f} %, same camera {shares[1]:3.0f} %")

# %% [markdown]
# (Here the camera rule is off, so the next frame of the same walk counts, and both shares are high. A map shows *all* neighbours, and so does this count.)
#
# Points hide what they stand for. The same map with the crops themselves:

# %%
spread = rng.permutation(len(few))[:130]
pictures = [demo.picture(path) for path in gallery.path[few][spread]]
embedding.picture_map(maps[f"{source} trunk"][spread], pictures, f"{source} trunk: crops where their features are")

# %% [markdown]
# ## 6 · Take the place away
#
# The cleanest test of all needs people whose outline is known, so it uses the drawn ones at any size. Paint everything but the person grey, and search again. Then the other way round: paint the *person* grey and leave the place. The grey is the mean colour that networks subtract, so it reads as "nothing here".

# %%
from PIL import Image

from lab.data.synthetic import load_ground_truth
from lab.pixels import LUPERSON_MEAN

truth = load_ground_truth(drawn.root)  # file name -> mask of the person, part boxes
lesson = Path(FOLDER) / "lessons" / "03"


# %%
def paint(split, name, shown):
    """The crops of a split with all grey but the person (shown=True) or but the place (False); reused if there."""
    files = [lesson / name / f"{Path(path).stem}.png" for path in split.path]
    for path, file in zip(split.path, files):
        if not file.is_file():
            mask = truth[Path(path).name][0][..., None] == shown
            pixels = np.where(mask, drawn.picture(path), np.round(LUPERSON_MEAN))
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return replace(split, path=[str(file) for file in files])


# %%
painted = {"as they are": drawn.data}
for name, shown in (("person alone", True), ("place alone", False)):
    folder = name.replace(" ", "-")
    (lesson / folder).mkdir(parents=True, exist_ok=True)
    parts = {part: paint(getattr(drawn.data, part), folder, shown) for part in ("query", "gallery")}
    painted[name] = replace(drawn.data, **parts)

# %%
six = np.linspace(0, len(drawn.data.query) - 1, 6).astype(int)
examples = [data.query.path[i] for data in painted.values() for i in six]
pictures, rows = [drawn.picture(path) for path in examples], ["as they are", "person\nalone", "place\nalone"]
figures.contact_sheet(pictures, columns=6, title="Three versions of six queries", row_titles=rows)

# %%
versions = pd.DataFrame(columns=list(painted))
for name, how in representations.items():
    versions.loc[name] = [100 * search(*how, data)[2].mAP for data in painted.values()]
embedding.bars_figure(versions, "mAP (%)", "Who still finds the person?")

# %% [markdown]
# *Person alone*: where this bar is much higher than *as they are*, the representation knows people and is distracted by places. The gap is what the background costs, and for colours it is enormous: the clothes of drawn people have clean colours, and without walls they are a very good answer. (Real clothes fold, fade and change with the light; do not expect this of real crops.) What share of its skill does each keep in front of a wall?

# %%
for name, row in versions.iterrows():
    print(f"{name:18} keeps {100 * row['as they are'] / row['person alone']:.0f} % of its mAP on the person alone")

# %% [markdown]
# The shipped trunk is a case of its own: in its training four views in five stood somewhere else, so the background was seldom worth looking at.
#
# *Place alone*: no person to see but their outline. A search by place does not score like chance, it may score **below** it. Why is the next question.

# %%
dice = np.random.default_rng(0)
*parts, _ = search(colour_histogram, 128, 64, drawn.data)
chances = []
for _ in range(20):
    dealt = [replace(part, values=dice.standard_normal((len(part.pid), 64), dtype=np.float32)) for part in parts]
    chances.append(100 * evaluate_ranking(*dealt).mAP)
below = versions.index[versions["place alone"] < min(chances)]
print(f"chance: {np.mean(chances):.1f} %, in 20 draws from {min(chances):.1f} to {max(chances):.1f} %")
print(f"by place alone below all of these: {', '.join(below) or 'none'}")

# %% [markdown]
# > **Quick question.** How can a search be *worse* than chance?
# > <details><summary>Answer</summary>The right answers are by the rule under <i>other</i> cameras. Whoever ranks by place puts the query's own camera first, and everything there is wrong. The right crops are pushed behind all of it. A coin does not know places, so it does better.</details>
#
# ## What to remember
#
# * Ask a representation about *people* before you believe its loss: a retrieval probe costs seconds, and says whether people can be found *without* labels. It is no forecast of fine-tuning.
# * Always beside it: colours, random weights, chance.
# * Alignment is cheap where all is close together; alignment and uniformity together still do not say *what* was learned.
# * A mean over pairs can look right while the front of the rank list is wrong: look at neighbours.
# * Places come before people, unless the data or the views make places useless.
#
# ## Exercises
#
# **1. Trunk or projection?** MoCo's loss sees the trunk's feature through a small head only, which projects it to `config.dim` numbers first, and the published probe ranks with that projection. Which of the two finds people better? Guess, then try (`pretrained.project`).
#
# <details><summary>Answer</summary>
#
# ```python
# for name, embed in (("trunk", pretrained.embed), ("projection", pretrained.project)):
#     print(f"{name:10} mAP {100 * search(embed, *size)[2].mAP:.1f} %")
# ```
#
# The projection is trained to forget whatever does not help the contrastive task, and that may be what retrieval needs, so for other tasks the layer before it is usually the better one (Chen et al. 2020, SimCLR, section 4.2). In a short run the difference can go either way. Never compare one model's trunk with another's projection.
# </details>
#
# **2. Subtract the camera.** If features say *where* first, remove it: subtract from each feature the mean of its camera, then make it unit length again. No pid is needed, only camera numbers, which every network of cameras has. What does it do to the mAP of each representation?
#
# <details><summary>Answer</summary>
#
# ```python
# def without_camera(features, means):
#     values = features.values - np.stack([means[camid] for camid in features.camid])
#     return replace(features, values=(values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))
#
# for name in names:
#     q, g, plain = found[name]
#     means = {camid: g.values[g.camid == camid].mean(axis=0) for camid in np.unique([*q.camid, *g.camid])}
#     centred = evaluate_ranking(without_camera(q, means), without_camera(g, means))
#     print(f"{name:18} mAP {100 * plain.mAP:5.1f} % -> {100 * centred.mAP:5.1f} %")
# ```
#
# What rises was held down by a constant per camera, the simplest form of "place"; for the colours of drawn people that is most of it. What is left of the gap to *person alone* is no constant: another bit of wall behind every spot. It costs no label, but one needs some crops of every camera before the search. (A camera without gallery crops has no mean; then this fails.)
# </details>
#
# **3. How much does the map lie?** For each crop take its 10 nearest neighbours in the features, and its 10 nearest on the t-SNE map. What share do they have in common? And on the PCA map?
#
# <details><summary>Answer</summary>
#
# ```python
# def nearest(values, count=10):
#     apart = torch.cdist(*[torch.from_numpy(values).double()] * 2).fill_diagonal_(torch.inf)
#     return apart.argsort(dim=1)[:, :count].tolist()
#
# full = nearest(values[f"{source} trunk"])
# for name, flat in (("t-SNE", maps[f"{source} trunk"]), ("PCA", points)):
#     kept = [len(set(a) & set(b)) for a, b in zip(full, nearest(flat))]
#     print(f"{name}: {10 * np.mean(kept):.0f} % of the ten neighbours are kept; at random {1000 / len(few):.0f} %")
# ```
#
# t-SNE keeps far more, since that is all it tries to do, and still loses a good part: two dimensions have no room for ten equal neighbours each. Never argue with a map; argue with the features, and use the map to find out what to ask.
# </details>
#
# ## Where next
#
# * The paper ([Fu et al., CVPR 2021](https://arxiv.org/abs/2012.03753)), sections 4 (pre-training) and 5 (what it is worth); [how a short run can fool itself](../benchmarks/results/pretraining-recipe.md).
# * Wang and Isola, *Understanding contrastive representation learning through alignment and uniformity on the hypersphere*, ICML 2020: [arXiv 2005.10242](https://arxiv.org/abs/2005.10242).
# * The code: [`lab/training/health.py`](../lab/training/health.py), [`lab/evaluate/probe.py`](../lab/evaluate/probe.py), [`lab/show/embedding.py`](../lab/show/embedding.py).
# * `lab app demo/runs`, page *Training*: [localhost:8501/training](http://localhost:8501/training): the probe, alignment and spread of `pretrain-short` while it trained.
# * Next: [04 · Fine-tuning](04_finetuning.ipynb) adds labels, and asks what this start is worth.
