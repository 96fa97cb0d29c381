"""What a data set should hold: the published counts of each edition, and queries that cannot be answered."""

import numpy as np
import pandas as pd

from lab.data.splits import ReidDataset

MARKET = {"train": (12936, 751, 6), "query": (3368, 750, 6), "gallery": (15913, 751, 6)}
MSMT17 = {"train": (32621, 1041, 15), "query": (11659, 3060, 15), "gallery": (82161, 3060, 15)}
# of the classic CUHK03, who is in which split differs, and so do the images; one labelled person has no first view
CLASSIC = {"train": (None, 1367, 2), "query": (None, None, 1), "gallery": (None, 100, 1)}
# images, identities (pid 0 counts as one) and cameras after junk was dropped; source: each data set's own description
PUBLISHED_COUNTS = {
    "market1501": MARKET,
    "market1501-no-distractors": MARKET | {"gallery": (13115, 750, 6)},
    "market1501-500k": MARKET | {"gallery": (515913, 751, None)},
    "dukemtmc": {"train": (16522, 702, 8), "query": (2228, 702, 8), "gallery": (17661, 1110, 8)},
    "msmt17-v1": MSMT17,
    "msmt17-v2": MSMT17,
    "msmt17-market": MSMT17,
    "cuhk03-labeled": {"train": (7368, 767, 2), "query": (1400, 700, 2), "gallery": (5328, 700, 2)},
    "cuhk03-detected": {"train": (7365, 767, 2), "query": (1400, 700, 2), "gallery": (5332, 700, 2)},
    "cuhk03-classic-labeled": CLASSIC,
    "cuhk03-classic-detected": CLASSIC,
}


def other_test_set(dataset: str, queries: int, gallery: int) -> str:
    """How a test set differs in size from all published editions of `dataset`, in words; "" if it does not or none is known."""
    editions = [
        counts for name, counts in PUBLISHED_COUNTS.items() if name == dataset or name.startswith(f"{dataset}-")
    ]
    sizes = [(counts["query"][0], counts["gallery"][0]) for counts in editions if counts["query"][0]]
    if not sizes or (queries, gallery) in sizes:
        return ""
    return f"{queries:,} queries and {gallery:,} gallery crops, published {sizes[0][0]:,} and {sizes[0][1]:,}"


def count_report(dataset: ReidDataset) -> pd.DataFrame | None:
    """Our counts beside the published ones, or None for a data set that has none.

    One row per split and count (images, identities, cameras), columns found, published, and differs: empty where both
    agree, else by how much.
    """
    published = PUBLISHED_COUNTS.get(dataset.edition)
    if published is None:
        return None
    rows = []
    for name, counts in published.items():
        split = getattr(dataset, name)
        found = {"images": len(split), "identities": split.num_ids, "cameras": split.num_cameras}
        for (what, ours), theirs in zip(found.items(), counts, strict=True):
            if theirs is not None:
                rows.append((name, what, ours, theirs, f"{ours - theirs:+d}" if ours != theirs else ""))
    return pd.DataFrame(rows, columns=["split", "count", "found", "published", "differs"]).set_index(["split", "count"])


def count_differences(dataset: ReidDataset) -> str:
    """One sentence if a data set with published counts has others, else ""."""
    counts = count_report(dataset)
    if counts is None or not (counts["differs"] != "").any():
        return ""
    other = counts[counts["differs"] != ""]
    named = [f"{split} {what} {row.found} instead of {row.published}" for (split, what), row in other.iterrows()]
    return (
        f"this is not the published {dataset.edition} ({', '.join(named[:3])}{', …' if len(named) > 3 else ''}): figures on "
        "it are not comparable with published ones"
    )


def queries_without_match(dataset: ReidDataset) -> np.ndarray:
    """Positions of the queries whose person no other camera of the gallery saw: evaluation leaves them out."""
    seen = set(zip(dataset.gallery.pid.tolist(), dataset.gallery.camid.tolist(), strict=True))
    cameras: dict[int, set[int]] = {}
    for pid, camid in seen:
        cameras.setdefault(pid, set()).add(camid)
    pairs = zip(dataset.query.pid.tolist(), dataset.query.camid.tolist(), strict=True)
    return np.array(
        [i for i, (pid, camid) in enumerate(pairs) if not cameras.get(pid, set()) - {camid}], dtype=np.int64
    )
