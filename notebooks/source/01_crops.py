# %% [markdown]
# # 01 · Crops: where the pictures come from, and why they are hard
#
# | | |
# |---|---|
# | **Goal** | Follow a person from a frame of video to a crop in a store. Know what the filters drop, what a camera does to a picture, and measure what makes re-identification hard. Read any data set's file names. |
# | **Needs** | [00 · A tour](00_tour.ipynb) for the words *query*, *gallery*, *rank list*. No training, no GPU. |
# | **Makes** | A small store of drawn crops, in a temporary folder. Draws the synthetic people if they are missing. |
# | **Minutes** | 40 to read, under 1 to run; makes what is missing itself in 1 minute. |
#
# A re-ID model never sees the world. It sees **crops**: rectangles that a detector cut out of somebody's video. Everything that was lost or mixed up before that, no network brings back. So the series begins here.

# %% tags=["parameters"]
SIZE = "tiny"  # or "paper": the published settings, on real data and with a GPU
FOLDER = "../demo"  # data/ and runs/, shared by all notebooks and made where missing
ROOT = None  # for "paper": the folder of Market-1501

# %%
from collections import Counter
from dataclasses import replace
from inspect import getsource
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from lab.demo import Demo
from lab.show import cameras, figures
from lab.show.lines import lines_figure
from lab.show.live import explore, in_notebook

in_notebook()
demo = Demo(FOLDER, SIZE, ROOT)
drawn = demo if SIZE == "tiny" else Demo(Path(FOLDER) / "drawn")  # some cells need people whose truth is known
scratch = TemporaryDirectory(ignore_cleanup_errors=True)  # gone when the notebook ends

# %% [markdown]
# ## 1 · A video and its boxes
#
# LUPerson ([Fu et al., CVPR 2021](https://arxiv.org/abs/2012.03753), section 3) began with videos of streets, 46,260 of them. In each frame a **detector** (YOLOv5) marked the people. What it says of one person is five numbers: where the box begins ($x$, $y$), how large it is ($w$, $h$), and a **score** between 0 and 1, how sure it is.
#
# Our street is drawn, so nobody is filmed: eight frames, about half a second apart, and boxes with the mistakes that real detectors make. They shift a little, they are less sure of people who are far away or half hidden, and now and then they take head and shoulders for one more person.

# %%
from lab.data.synthetic.street import draw_street

frames, found = draw_street(frames=8, people=9, seed=0, camid=1)
size = frames[0].shape[:2]  # height, width in pixels
print(
    f"{len(frames)} frames of {size[1]} x {size[0]} pixels, {len(found)} boxes of {len(set(found.track.tolist()))} people"
)

# %% [markdown]
# Boxes travel in text files. The usual format is MOTChallenge's: a line per box with the frame (from 1), who it is if that is known (else -1), $x, y, w, h$ and the score. LUPerson released pickles instead; the lab reads both ([`lab/data/video/detections.py`](../lab/data/video/detections.py)).

# %%
from lab.data.video.detections import read_detections

rows = zip(found.frame, found.track, *found.box.T, found.score)
lines = [f"{frame},{track},{x:.2f},{y:.2f},{w:.2f},{h:.2f},{score:.3f}" for frame, track, x, y, w, h, score in rows]
file = Path(scratch.name) / "street.txt"
file.write_text("\n".join(lines))
boxes = read_detections(file)
print("\n".join(lines[:3]))
assert len(boxes) == len(found) and np.allclose(boxes.box, found.box, atol=0.01)

# %% [markdown]
# ### From one box to one crop, by hand
#
# A **crop** is a slice of the frame. The corners are rounded to whole pixels, and what reaches over the frame's edge is cut off. Then it becomes a JPEG file. That is all, and it is worth doing once by hand: a program that swaps $x$ and $y$, or counts frames from 0 where the file counts from 1, cuts out walls and never complains.
#
# Two steps of the lab come first. `prepare` brings boxes into the pixels of this video (here nothing changes), and `select` keeps those that pass the filters of section 2; the `Counter` counts what is dropped, and why.

# %%
from lab.data.video.cut import cut, encode, prepare
from lab.data.video.filters import select
from lab.data.video.settings import BuildConfig

config = BuildConfig()  # the published settings
chosen = select(prepare(boxes, size, config), size, config, Counter())
x, y, w, h = chosen.box[0]
left, right = (int(np.clip(round(edge), 0, size[1])) for edge in (x, x + w))
top, bottom = (int(np.clip(round(edge), 0, size[0])) for edge in (y, y + h))
by_hand = encode(frames[chosen.frame[0] - 1][top:bottom, left:right], quality=95)

# %% [markdown]
# The same from the lab. `cut` takes frames as (number, picture) from anywhere: from memory as here, or from a video file, which needs [PyAV](https://pyav.basswood-io.com) (`pip install 'luperson-lab[video]'`).

# %%
numbered = list(enumerate(frames, start=1))
crops = list(cut(numbered, chosen, size, config, Counter()))
assert crops[0].jpeg == by_hand  # the same file, byte for byte
print(f"crop 1: {crops[0].width} x {crops[0].height} pixels, {len(crops[0].jpeg):,} bytes, from frame {crops[0].frame}")

# %% [markdown]
# ## 2 · What the filters drop
#
# Not every box is worth learning from. The paper's rules for what is kept:
#
# | rule | why |
# |---|---|
# | score above 0.72 | what the detector doubts is often no person |
# | wider than 48 pixels | far people are a few blurred pixels |
# | height / width from 1.5 to 5 | a standing person is about 2 to 3 times as high as wide |
# | key points: head and upper body seen, lower body at least in part | otherwise there is little to recognise |
#
# (The last rule needs a second network; in the lab it is off unless asked for with `--keypoints`. Our street goes without.)
#
# A box counts as large as what the *frame* shows of it: somebody who is half out of the picture is half as wide. By hand for five boxes, with the first rule that is broken:

# %%
from lab.data.video.detections import Boxes

five = np.array([[100, 50, 60, 150], [100, 50, 60, 150], [300, 80, 40, 100], [400, 50, 90, 100], [-30, 50, 78, 160]])
scores = np.array([0.95, 0.60, 0.95, 0.95, 0.95])
by_hand = []
for (x, y, w, h), score in zip(five, scores):
    seen_w, seen_h = min(x + w, size[1]) - max(x, 0), min(y + h, size[0]) - max(y, 0)
    broken = [score <= 0.72, seen_w <= 48, seen_h < 1.5 * seen_w, seen_h > 5 * seen_w]
    by_hand.append(["low score", "too narrow", "too flat", "too tall", "kept"][(broken + [True]).index(True)])
    print(f"{seen_w:3} x {seen_h} pixels seen, ratio {seen_h / seen_w:.2f}, score {score:.2f}: {by_hand[-1]}")

# %% [markdown]
# And the lab's own rules ([`lab/data/video/filters.py`](../lab/data/video/filters.py)) for the same five, one after the other, so that each reason can be compared. Short enough to read:

# %%
made_up = Boxes(np.ones(5, dtype=np.int64), five.astype(float), scores, np.full(5, -1))
for i, reason in enumerate(by_hand):
    dropped = Counter()
    kept = select(made_up[[i]], size, config, dropped)
    assert +dropped == ({} if len(kept) else {reason: 1}) and len(kept) == (reason == "kept")
print(getsource(select).split('"""')[2])


# %% [markdown]
# > **Quick question.** The last of the five boxes is 78 pixels wide and was dropped as too narrow. Why?
# > <details><summary>Answer</summary>It begins 30 pixels left of the frame, so the frame shows 78 - 30 = 48 pixels of it, and the rule asks for <i>more</i> than 48. Limits that are met exactly are where two programs differ. The paper's filter was not released (its files hold the boxes that were left); descriptions say "larger than", so the lab does too.</details>
#
# Now the whole street. For each box we ask `select` alone, so that we learn its reason:

# %%
def reason_of(box, config):
    """Why a box becomes no crop; None if it does."""
    counted = Counter()
    select(box, size, config, counted)
    return next((reason for reason, count in counted.items() if count), None)


reasons = [reason_of(boxes[[i]], config) for i in range(len(boxes))]
first = np.flatnonzero(boxes.frame == 1)
cameras.boxes_figure(frames[0], boxes.box[first], [reasons[i] for i in first], "Frame 1 of 8", boxes.score[first])

# %%
table = pd.Series(reasons).fillna("kept").value_counts().rename("boxes").to_frame()
table["share (%)"] = (100 * table["boxes"] / len(boxes)).round(1)
assert table.loc["kept", "boxes"] == len(crops)
table

# %% [markdown]
# Look at what goes and what stays. A count says how much was dropped, only a **contact sheet** says whether that was right:

# %%
from lab.data.video.filters import pixel_corners

corners = pixel_corners(boxes, size)
pieces = [frames[f - 1][y0:y1, x0:x1] for f, (x0, y0, x1, y1) in zip(boxes.frame, corners)]
stay = [i for i, reason in enumerate(reasons) if reason is None][:16]
names = [f"{boxes.score[i]:.2f}, {corners[i, 2] - corners[i, 0]} px" for i in stay]
figures.contact_sheet([pieces[i] for i in stay], names, columns=8, title="Kept (score, width)")

# %%
gone = sorted((i for i, reason in enumerate(reasons) if reason), key=lambda i: reasons[i])[:16]
names = [f"{reasons[i]}" for i in gone]
figures.contact_sheet([pieces[i] for i in gone], names, columns=8, title="Dropped, by reason")

# %% [markdown]
# Some of the dropped boxes show a person quite well. Filters are a bargain: with 46,260 videos one can afford to lose good crops. (What bad crops would cost was not published.) Your own shop with three cameras may bargain differently.
#
# How many crops would other limits give? To the right the least width goes up; each line has another least score:

# %%
widths = np.arange(0, 121, 4)
counts = {}
for least in (0.5, 0.72, 0.9):
    limits = [BuildConfig(min_score=least, min_width=width) for width in widths]
    counts[f"score above {least:g}"] = widths, [len(select(boxes, size, limit, Counter())) for limit in limits]
lines_figure(counts, "least width (pixels)", "crops kept", "Stricter filters, fewer crops", zero=True)

# %% [markdown]
# Move the limits and watch who goes (in a frame of your choice):

# %%
from ipywidgets import FloatSlider, IntSlider


def draw(frame, min_width, min_score):
    mine = np.flatnonzero(boxes.frame == frame)
    limits = BuildConfig(min_width=min_width, min_score=min_score)
    why = [reason_of(boxes[[i]], limits) for i in mine]
    return cameras.boxes_figure(frames[frame - 1], boxes.box[mine], why, f"Frame {frame}", boxes.score[mine])


limits = {
    "min_width": IntSlider(value=48, min=0, max=160, step=4),
    "min_score": FloatSlider(value=0.72, max=1, step=0.02),
}
explore(draw, frame=IntSlider(value=8, min=1, max=len(frames)), **limits)

# %% [markdown]
# ### In numbers: LUPerson
#
# | | images | scenes | people | labels |
# |---|---|---|---|---|
# | Market-1501 | 32,668 | 6 cameras | 1,501 | by hand |
# | MSMT17 | 126,441 | 15 cameras | 4,101 | by hand |
# | **LUPerson** | **4,180,243** | **46,260 videos** | over 200,000, an estimate | **none** |
#
# (Paper, section 3.) What made it possible is the last column: nobody had to say who is who. What may make it valuable is the column *scenes*: labelled sets know a handful of places, so what is learned from them need not hold in another one. (No experiment that we know separates what more scenes, more people and more images are each worth. And Market-1501's 32,668 counts its two `bounding_box` folders, junk included and queries not; the table of section 6 counts without junk.)

# %%
crops_in_all, videos = 4_180_243, 46_260
print(f"{crops_in_all / videos:.0f} crops per video; {crops_in_all / 126_441:.0f} times MSMT17's images")

# %% [markdown]
# ## 3 · The store
#
# Four million small files are a burden for any disk. LUPerson's scripts put the crops into one **LMDB**, a file that maps a key to bytes. (Its authors release video ids, boxes and these scripts, and the LMDB only on request.) The lab uses the same layout, and calls it a *store* ([`lab/data/store.py`](../lab/data/store.py)). The key says where a crop comes from: `CC_cc_vvvv_iiiiiiii`
#
# * `CC` the country, `cc` the city in it, `vvvv` the video in it, `iiiiiiii` the image in it,
# * each counted from 0 in alphabetical order.
#
# Let us fill one. Our street stands in Oslo, a park stands in Bergen. Crops go into folders country/city/video, and `import_images` (the command `lab data import`) makes the store:

# %%
park, in_park = draw_street(frames=4, people=7, seed=0, camid=3)
in_park = select(prepare(in_park, size, config), size, config, Counter())
crops_of = {
    "norway/oslo/street": crops,
    "norway/bergen/park": [*cut(enumerate(park, 1), in_park, size, config, Counter())],
}
source = Path(scratch.name) / "crops"
for place, cut_out in crops_of.items():
    (source / place).mkdir(parents=True, exist_ok=True)
    for number, crop in enumerate(cut_out):
        (source / place / f"{number:04d}.jpg").write_bytes(crop.jpeg)

# %%
from lab.data.importing import import_images

report = import_images(source, source.with_name("store"))
print(f"{report.imported} crops from a {report.kind}")

# %%
from lab.data.keys import make_key, parse_key
from lab.data.store import Store

store = Store(source.with_name("store"))
index = store.index(["key", "country", "city", "video", "path"])
index.groupby("city").head(2)

# %% [markdown]
# By hand: the last key is four numbers with underscores between them. Which city is number 1? Sort the cities and count.

# %%
key = store.name(len(store) - 1)
country, city, video, image = (int(number) for number in key.split("_"))
print(f"{key}: country {country}, city {city}, video {video}, image {image}")
assert parse_key(key) == (country, city, video, image) and make_key(country, city, video, image) == key
assert sorted(["oslo", "bergen"])[city] == index["city"].iloc[-1]
assert store.read_key(key.encode()) == crops[-1].jpeg  # what went in comes out, byte for byte

# %% [markdown]
# > **Quick question.** Why are the numbers padded with zeros?
# > <details><summary>Answer</summary>An LMDB keeps its keys sorted <i>as text</i>. Padded, "0009" comes before "0010", so text order is number order and neighbours in the file are neighbours in the video. Without padding, image 10 would stand before image 9. (A store with more than 100 countries simply pads more.)</details>
#
# For real videos all of this is one command. To each video it does what you did, in the order in which you did it: `read_detections`, `prepare`, `select`, then frames out of the file (with PyAV), `cut`, and the crops into the store ([`lab/data/video/cutting.py`](../lab/data/video/cutting.py)). It uses several processes or machines, counts what is broken, and goes on where it was killed ([docs/data.md](../docs/data.md)):
#
# ```bash
# lab data build --videos videos --detections detections --out STORE
# lab data info STORE
# ```
#
# ## 4 · Cameras
#
# Now the labelled people of the lab: six cameras that watch six places. Because they are drawn, one can do what no real data set allows: send the *same* person past *all* cameras.

# %%
from lab.data.synthetic import render

views = range(1, 7)
people = [pid for pid in np.unique(drawn.data.query.pid)[:3] for _ in views]
pictures = [render(int(pid), camid, 0, drawn.seed, 256, 128).image for pid, camid in zip(people, [*views] * 3)]
rows = [f"person {pid}" for pid in people[::6]]
figures.contact_sheet(
    pictures, [f"camera {camid}" for camid in views] + [""] * 12, 6, "Three people, six cameras", rows
)

# %% [markdown]
# What differs from column to column:
#
# * the **place** behind the person,
# * the **viewpoint**: how steeply the camera looks down, and from which side people come,
# * the **sensor**: colour cast, brightness and contrast, saturation, blur, noise, and how hard the JPEG was compressed.
#
# A sensor's answer to light is a curve for each colour. A faithful one would store every grey level as it is. Here is what each of ours adds or takes away: lines that part are a colour cast, lines that all rise are a brighter picture.

# %%
from lab.data.synthetic.cameras import camera, sense

worlds = {f"camera {camid}": camera(drawn.seed, camid) for camid in views}
cameras.sensor_figure({name: view.levels[0] for name, view in worlds.items()})

# %% [markdown]
# By hand: hold a grey card (128, 128, 128) in front of each camera. The curve gives each colour its level; then saturation pulls the colours towards their grey $y = 0.299\,r + 0.587\,g + 0.114\,b$: each becomes $y + s\,(c - y)$, with $c$ the level of red, green or blue and $s$ the camera's saturation (1 changes nothing). The lab's `sense` does this too, then adds noise and JPEG. We switch off the noise and compress as little as possible; what is left are two roundings to whole grey levels.

# %%
card, weights = np.full((64, 64, 3), 128.0), np.array([0.299, 0.587, 0.114])
stored = {}
for name, view in worlds.items():
    answer = view.levels[0, 128]
    by_hand = answer @ weights + view.saturation * (answer - answer @ weights)
    quiet = replace(view, noise=0.0, quality=100)
    seen = sense(quiet, card, np.random.default_rng(0), exposure=1.0)
    assert np.abs(seen.mean(axis=(0, 1)) - by_hand).max() < 2
    stored[name] = by_hand.round()
pd.DataFrame(stored, index=["red", "green", "blue"]).astype(int)

# %% [markdown]
# One grey card, six colours. That is what clothes go through as well. And in the crops of the gallery, whichever data set it is? Mean colour, and **sharpness**: the variance of the Laplacian, near 0 for a blurred picture and large for a sharp or a noisy one.

# %%
from lab.data.video.filters import sharpness

data, rng = demo.data, np.random.default_rng(0)
measured = {}
for camid in np.unique(data.gallery.camid):
    some = rng.permutation(np.flatnonzero(data.gallery.camid == camid))[:60]
    crops_there = [demo.picture(path) for path in data.gallery.path[some]]
    colour = np.mean([crop.mean(axis=(0, 1)) for crop in crops_there], axis=0).round(1)
    measured[f"camera {camid}"] = [*colour, round(np.median([sharpness(crop) for crop in crops_there]))]
pd.DataFrame(measured, index=["red", "green", "blue", "sharpness"])

# %% [markdown]
# ### The truth about a drawn crop
#
# A drawn crop also knows what no real one does: which pixels are the person (the **mask**), and where head, torso and legs are. Later notebooks use it to score attention maps, and to paint the background grey. People walk in front of each other, so masks have holes and some parts are cut off.

# %%
from lab.data.synthetic import load_ground_truth

truth = load_ground_truth(drawn.root)  # file name -> mask, part boxes
chosen = [int(np.flatnonzero(drawn.data.query.camid == camid)[2]) for camid in views]
paths = drawn.data.query.path[chosen]
masks, parts = zip(*(truth[Path(path).name] for path in paths))
names = [f"camera {camid}\n{100 * mask.mean():.0f} % person" for camid, mask in zip(views, masks)]
cameras.ground_truth_figure([drawn.picture(path) for path in paths], masks, parts, names, "Mask and parts")

# %% [markdown]
# ## 5 · Why it is hard, measured
#
# Enough looking; let us measure. We need some distance between two crops, and take the simplest that works a little: the **colour histogram**. Cut the crop into 6 horizontal stripes (hair, chest, … shoes); in each stripe count how many pixels have which colour, with 8 levels of red, green and blue, so $8^3 = 512$ colours. Two stripes with shares $p_c$ and $q_c$ are compared by how much they overlap, and the distance of the crops is
#
# $$d = 1 - \frac{1}{6} \sum_{\text{stripes}} \sum_{c=1}^{512} \sqrt{p_c\, q_c}.$$
#
# It is 0 for the same colours in the same stripes and 1 for no colour in common. By hand, for a query and two gallery crops: the same person under *another* camera, and *another* person under the query's camera.

# %%
query, gallery = data.query, data.gallery
answered = [i for i in range(len(query)) if ((gallery.pid == query.pid[i]) & (gallery.camid != query.camid[i])).any()]
example = answered[0]
same_person, same_camera = gallery.pid == query.pid[example], gallery.camid == query.camid[example]
other_camera = np.flatnonzero(same_person & ~same_camera)[0]
other_person = np.flatnonzero(~same_person & same_camera & (gallery.pid > 0))[0]
paths = [query.path[example], gallery.path[other_camera], gallery.path[other_person]]
names = ["query", "same person", "same camera"]
figures.contact_sheet([demo.picture(path) for path in paths], names, title="Which is nearer to the query?")

# %%
from PIL import Image

from lab.data.crops import resize


def stripe_shares(path):
    """Shares (6, 512) of the colours in six stripes."""
    pixels = np.array(resize(Image.fromarray(demo.picture(path)), 128, 64)).astype(int)
    colour = (pixels // 32) @ [64, 8, 1]  # 256 / 8 = 32 grey levels share a bin
    stripe = np.arange(128) * 6 // 128
    counts = np.array([np.bincount(colour[stripe == s].ravel(), minlength=512) for s in range(6)])
    return counts / counts.sum(axis=1, keepdims=True)


p, *others = [stripe_shares(path) for path in paths]
by_hand = [1 - np.sqrt(p * q).sum(axis=1).mean() for q in others]
print(f"same person, other camera: {by_hand[0]:.3f}; other person, same camera: {by_hand[1]:.3f}")

# %% [markdown]
# The lab does it for all crops at once: `extract` reads them and calls a model (here `colour_histogram`, [`lab/evaluate/features.py`](../lab/evaluate/features.py)), `pairwise` compares by $1 - \cos$. That is our $d$: `colour_histogram` returns the numbers $\sqrt{p_c}$ of all six stripes, divided by their length. As the shares of a stripe sum to 1, this length is $\sqrt 6$, so the dot product of two such features is the mean over the stripes of $\sum_c \sqrt{p_c\,q_c}$.

# %%
import torch

from lab.evaluate.distance import pairwise
from lab.evaluate.features import colour_histogram, extract

some = np.random.default_rng(0).permutation(len(query))[:500]  # enough for any figure below
some = np.sort(np.union1d(some, [example]))
q, g = (extract(colour_histogram, split, 128, 64) for split in (query.take(some), gallery))
distance = pairwise(*(torch.from_numpy(part.values) for part in (q, g)), "cosine").numpy()  # (queries, gallery)
row = distance[np.flatnonzero(some == example)[0]]
assert np.allclose(row[[other_camera, other_person]], by_hand, atol=1e-5)

# %% [markdown]
# Every pair of a query and a gallery crop is of one of four kinds: the same person or not, the same camera or not. Here they are:

# %%
person, place = q.pid[:, None] == g.pid, q.camid[:, None] == g.camid
kinds = {
    "same person, same camera": person & place,
    "same person, other camera": person & ~place,
    "other person, same camera": ~person & place,
    "other person, other camera": ~person & ~place,
}
groups = {name: distance[kind] for name, kind in kinds.items() if kind.any()}
cameras.distances_figure(groups, "Four kinds of pairs", "distance of the colour histograms (0: same colours)")


# %% [markdown]
# The second panel is what a search must find; the third is what it must not. If the second lay wholly to the left of the two below it, every search would be perfect. (It would be enough that this holds for each query by itself.) How often does it lose? For each query take every right crop (same person, other camera) and every wrong crop *by the query's own camera*, and count the pairs in which the wrong one is nearer. A coin would lose 50 % of them.

# %%
def share_lost(right, wrong):
    """How often a wrong crop is nearer than a right one, over all pairs of the two."""
    return float((wrong[None, :] < right[:, None]).mean())


right = kinds["same person, other camera"]
for name in ("other person, same camera", "other person, other camera"):
    lost = [share_lost(d[a], d[b]) for d, a, b in zip(distance, right, kinds[name]) if a.any() and b.any()]
    print(f"{name}: nearer than the right crop in {100 * np.mean(lost):.0f} % of the pairs")

# %% [markdown]
# The more the first share exceeds the second, the more a camera is worth to a stranger: another person, seen by the *query's* camera, shares the place, the light and the sensor, and these are in every pixel. The person is only in some of them.
#
# ### The camera rule
#
# What if one simply asks for the nearest crop?

# %%
nearest = distance.argmin(axis=1)
own = (g.camid[nearest] == q.camid).mean()
print(
    f"nearest crop from the query's own camera: {100 * own:.0f} % of the queries; by chance: {100 * place.mean():.0f} %"
)
print(f"nearest crop shows the query's person:    {100 * (g.pid[nearest] == q.pid).mean():.0f} %")

# %% [markdown]
# If the second number looks wonderful, distrust it. The gallery holds other crops of the same walk past the same camera, taken a moment later, and finding the next frame is no re-identification. Therefore the **camera rule**: crops of the query's person by the query's camera are left out of its rank list. Other people of that camera stay.
#
# `evaluate_ranking` applies the rule by comparing camera numbers. Lying about the queries' cameras turns it off:

# %%
from lab.evaluate.metrics import evaluate_ranking

with_rule = evaluate_ranking(q, g)
without = evaluate_ranking(replace(q, camid=np.full_like(q.camid, -1)), g)  # no gallery crop has camera -1
for name, result in {"without the rule": without, "with the rule": with_rule}.items():
    print(f"{name:17} rank-1 {100 * result.cmc[0]:5.1f} %   mAP {100 * result.mAP:5.1f} %")

# %% [markdown]
# Same features, same crops, and the whole difference is what was asked. With the rule on, where do the *wrong* first entries come from?

# %%
first = with_rule.index[:, 0]
wrong = ~with_rule.match[:, 0]
from_own = (g.camid[first] == q.camid)[wrong].mean() if wrong.any() else 0
print(f"{wrong.sum()} of {len(first)} queries are wrong at rank 1")
print(f"{100 * from_own:.0f} % of those crops are from the query's own camera")


# %% [markdown]
# A few queries without the rule: the first entries, with the person (✓ the query's, ✗ another) and the camera. Look how the camera number repeats.

# %%
def row_of(number, count=7):
    """The query and its nearest crops, as pictures and titles."""
    order = distance[number].argsort(kind="stable")[:count]
    marks = [f"{'✓' if g.pid[i] == q.pid[number] else '✗'} camera {g.camid[i]}" for i in order]
    return [demo.picture(path) for path in (q.path[number], *g.path[order])], [f"query, cam {q.camid[number]}", *marks]


rows = [row_of(number) for number in np.linspace(0, len(q.pid) - 1, 3).astype(int)]
pictures, names = (sum(part, []) for part in zip(*rows))
figures.contact_sheet(pictures, names, columns=8, title="Nearest crops by colour, no rule")


# %% [markdown]
# Pick a query yourself:

# %%
def draw(number):
    return figures.contact_sheet(*row_of(number, 9), columns=10, title=f"Query {number}: person {q.pid[number]}")


explore(draw, number=IntSlider(value=len(q.pid) // 3, min=0, max=len(q.pid) - 1))


# %% [markdown]
# > **Quick question.** Would it be fairer to leave out *all* crops of the query's camera, whoever is on them?
# > <details><summary>Answer</summary>It would make the task easier: other people under the query's camera are the strongest distraction, as you measured, and a search in a real camera network meets them. The rule removes only what is too easy, not what is too hard.</details>
#
# ## 6 · How data sets lie on disk
#
# A labelled data set says *who* and *which camera* for each crop, usually in the file name. Market-1501's form is the most copied:
#
# ```
# bounding_box_train/0002_c1s1_000451_03.jpg
#                    pid  │ │  frame  └ which box of the frame
#                  camera ┘ └ sequence
# ```
#
# By hand for a whole data set, against the reader ([`lab/data/readers/market.py`](../lab/data/readers/market.py)):

# %%
def decode(path):
    """Person and camera of a Market-1501 file name."""
    pid, rest = Path(path).name.split("_c", maxsplit=1)
    return int(pid), int(rest.split("s")[0])


for part in (data.train, data.query, data.gallery):
    assert [decode(path) for path in part.path] == list(zip(part.pid, part.camid))
print(f"{Path(data.train.path[0]).name}: person {data.train.pid[0]}, camera {data.train.camid[0]}")

# %% [markdown]
# The layouts that the lab reads:
#
# | data set | on disk | to watch for |
# |---|---|---|
# | Market-1501 | `bounding_box_train`, `query`, `bounding_box_test` | pid -1 is junk, pid 0 a distractor (below) |
# | DukeMTMC-reID | the same, names `0001_c2_f0046182.jpg` | withdrawn by its owners: local copies only |
# | MSMT17 | lists `list_*.txt` and folders by person, or a Market-style copy | 15 cameras: **two digits**; pid 0 is a **real person** |
# | CUHK03 | Market-style copy of the new protocol, or the original `.mat` | two protocols and two kinds of boxes: say which |
# | your own | a CSV `path,pid,camid,split` | [notebook 09](09_your_own_data.ipynb) |
#
# `lab data check --dataset NAME --root DIR` compares what it finds with the published counts:

# %%
from lab.data.readers import PUBLISHED_COUNTS

published = {"images": 0, "people": 1, "cameras": 2}
table = {
    name: {
        f"{split}, {what}": counts[at]
        for split, counts in PUBLISHED_COUNTS[name].items()
        for what, at in published.items()
    }
    for name in ("market1501", "dukemtmc", "msmt17-v1", "cuhk03-labeled")
}
pd.DataFrame(table)

# %% [markdown]
# ### Junk and distractors
#
# Not every box of a detector fits. In Market-1501 each was compared with a box drawn by hand ([its rules](https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html)): the *overlap* is the area that both share, divided by the area that they cover together. Above one half it is a crop of that person. Else, in the gallery folder,
#
# * **junk**, pid -1: an overlap between a fifth and a half, such as half a person. Such a box is neither right nor wrong, and is dropped when the data set is read, as if it was not there. (Some programs keep junk and skip it query by query: the same numbers, until one re-ranks, where junk fills places among the neighbours);
# * **distractors**, pid 0: an overlap below a fifth, false alarms of the detector. They are nobody's match and stay, as wrong answers.
#
# The drawn set uses the same numbers a little differently: its junk is badly cut or an empty street, and its distractors are well-cut passers-by whom no query shows, which are the harder kind.

# %%
print("\n".join(data.notes))
folder = Path(data.gallery.path[0]).parent
junk = sorted(folder.glob("-1_*"))
distractors = data.gallery.path[data.gallery.pid == 0]
assert len(junk) + len(data.gallery) == len([*folder.glob("*.jpg")])  # every file is accounted for

# %%
pictures = [demo.picture(str(path)) for path in [*junk[:8], *distractors[:8]]]
figures.contact_sheet(pictures, columns=8, title="What is nobody's match", row_titles=["junk", "distractors"])

# %% [markdown]
# What do distractors cost? Take them away and the same features look better. Numbers with and without distractors, like numbers with and without the camera rule, must never stand in one table.

# %%
people = g.pid != 0
bare = evaluate_ranking(
    q, replace(g, **{name: getattr(g, name)[people] for name in ("values", "pid", "camid", "path")})
)
share = 100 * (~people).mean()
print(f"{share:.0f} % of the gallery are distractors")
print(f"mAP {100 * with_rule.mAP:.1f} % with them, {100 * bare.mAP:.1f} % without")
assert bare.mAP >= with_rule.mAP  # fewer wrong crops can only move right ones forward

# %% [markdown]
# ## 7 · Train, query, gallery
#
# In most of machine learning the test asks about the *same classes* with new pictures. Not here: a re-ID system is set up once and then meets people it has never seen. So the people of the test are **disjoint** from those of the training. Query and gallery share people, and must: otherwise there is nothing to find.

# %%
from lab.data.readers import queries_without_match

train, test = set(data.train.pid.tolist()), set(data.query.pid.tolist())
assert not train & test  # nobody of the test was in the training
assert test <= set(data.gallery.pid.tolist())
assert not set(data.query.path) & set(data.gallery.path)  # no picture is its own answer
print(f"{len(train)} people to learn from, {len(test)} others to find")
print(f"{len(queries_without_match(data))} of {len(data.query)} queries have no right answer under another camera")
data.summary()

# %% [markdown]
# > **Quick question.** Training gives each person a class. What use is that classifier on the test?
# > <details><summary>Answer</summary>None: its classes are the training people, who never appear. It is thrown away. What is kept is the <i>feature</i> before it, which had to become good at telling people apart, and, so one hopes, does so with strangers. Notebook 04 trains one.</details>
#
# ## Exercises
#
# **1. The same person, eight times.** In a video, one person gives nearly the same crop frame after frame. `BuildConfig(min_change=…)` keeps a crop only if its perceptual hash (64 bits) differs in so many bits from the last kept crop of that person. Guess how many crops of the street survive at 8, 16 and 24 bits, then count.
#
# <details><summary>Answer</summary>
#
# ```python
# for bits in (0, 8, 16, 24):
#     thin = BuildConfig(min_change=bits)
#     chosen = select(prepare(boxes, size, thin), size, thin, Counter())
#     print(f"{bits:2} bits: {len(list(cut(numbered, chosen, size, thin, Counter())))} crops")
# ```
#
# What is dropped depends on the video. Our frames are half a second apart, and between them a leg swings and the background slides by, so small limits drop little. In a video with 25 frames a second they drop most. LUPerson has no such rule.
# </details>
#
# **2. Is it the colour?** Repeat the measurement of section 5 with crops in grey: write a function from images (B, 3, H, W) uint8 to features (B, D) of length 1, and give it to `extract` in place of `colour_histogram`. Does the mAP fall? Does the pull of the own camera?
#
# <details><summary>Answer</summary>
#
# ```python
# def grey_histogram(images):
#     grey = (images.float() * images.new_tensor([[0.299], [0.587], [0.114]], dtype=float).view(3, 1, 1)).sum(1, keepdim=True)
#     return colour_histogram(grey.round().byte().expand(-1, 3, -1, -1))
#
# q2, g2 = (extract(grey_histogram, split, 128, 64) for split in (query.take(some), gallery))
# grey = evaluate_ranking(q2, g2)
# for name, result in {"colour": with_rule, "grey": grey}.items():
#     own = (g.camid[result.index[:, 0]] == q.camid).mean()
#     print(f"{name:6} mAP {100 * result.mAP:.1f} %, first entry from the query's camera {100 * own:.0f} %")
# ```
#
# Clothes are told apart by colour, so grey costs the search a lot. The camera's pull changes too, since walls and sensors have colours as well, but compare it with the share by chance printed in section 5: brightness and contrast of a place are left. Colour serves both sides, and one cannot throw it away for one of them. LUPerson's pre-training leaves out colour jitter, which gained 0.6 points of mAP in its ablation (Table 2): jitter teaches a network to ignore colour, which helps to tell people apart. Notebook 02 looks into it.
# </details>
#
# **3. Two digits.** A reader finds the camera with the pattern `_c(\d)`. What does it make of MSMT17's `0000_c12_0036.jpg`, and what would that do to the evaluation?
#
# <details><summary>Answer</summary>
#
# ```python
# import re
#
# from lab.data.readers.market import NAME
#
# name = "0000_c12_0036.jpg"
# print("one digit:", re.search(r"_c(\d)", name)[1], "  the lab:", NAME.match(name)[2])
# assert int(NAME.match(name)[2]) == 12
# ```
#
# Cameras 10 to 15 would become camera 1. The camera rule would then remove right answers (a person under cameras 1 and 12 counts as one camera), and the queries left are others: a number that looks like mAP and is comparable with nothing.
# </details>
#
# ## Where next
#
# * The paper's section 3 (the data set); [docs/data.md](../docs/data.md), everything about videos, stores and released files.
# * The code of this notebook: [`lab/data/video/`](../lab/data/video/filters.py), [`lab/data/keys.py`](../lab/data/keys.py), [`lab/data/synthetic/`](../lab/data/synthetic/cameras.py), [`lab/data/readers/`](../lab/data/readers/market.py).
# * `lab app demo/runs`, page *Rank lists*: [localhost:8501/rank_lists](http://localhost:8501/rank_lists): choose the run `baseline-histogram` and see how far colours go.
# * Next: [02 · Pre-training](02_pretraining.ipynb) learns from crops without a single label.
