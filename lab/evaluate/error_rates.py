"""How often "the same person?" is answered wrongly at a threshold, read off counts of pairs by distance.

A pair of crops is *accepted* as the same person if its distance is at most the threshold. TPR is the share of true pairs
that are accepted, FPR the share of false pairs. This module needs numpy alone, so that stored figures can be shown
without torch. Legend: K bins, T points of a curve, L levels of FPR, C_q and C_g cameras of queries and gallery, H coarse
bins.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from lab.errors import InputError
from lab.files import replacing

FPRS = (1e-4, 1e-3, 1e-2)
BINS = 1 << 20
COARSE_BINS = 512
STEPS = 300  # a thinned curve keeps a corner at every 1/300 of TPR and of FPR, and 50 to a factor of 10 in small FPR


@dataclass(frozen=True, eq=False)
class PairCounts:
    """How many true and false pairs lie at which distance: (K + 1,) int64 each.

    Entry 0 counts distances up to 0, entry k those from (k - 1) * width (not included) to k * width (included), so that
    a threshold of k * width accepts exactly the entries 0..k. `coarse_true` and `coarse_false` (C_q, C_g, H) are the same
    in H wider bins for every pair of cameras (query, gallery).
    """

    true: np.ndarray
    false: np.ndarray
    width: float
    coarse_true: np.ndarray
    coarse_false: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Threshold, FPR and TPR (K + 2,), rising; the first threshold is below 0 and accepts nothing."""
        threshold = self.width * np.arange(-1, len(self.true))
        return threshold, *(np.concatenate([[0], counts.cumsum()]) / counts.sum() for counts in (self.false, self.true))

    def quantiles(self, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances below which these shares (0..1) of the true and of the false pairs lie, to half a bin."""
        return self._quantiles(self.true, np.asarray(shares)), self._quantiles(self.false, np.asarray(shares))

    def _quantiles(self, counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """As numpy.quantile: between the two values in order that stand beside the wanted place."""
        below = counts.cumsum()
        place = shares * (below[-1] - 1)
        low = np.floor(place).astype(np.int64)
        first, second = (np.searchsorted(below, at, side="right") for at in (low, np.minimum(low + 1, below[-1] - 1)))
        middle = self.width * np.maximum(np.stack([first, second]) - 0.5, 0)
        return middle[0] + (place - low) * (middle[1] - middle[0])


@dataclass(frozen=True, eq=False)
class Verification:
    """The error rates of one evaluation, compact enough to be stored beside it.

    * `eer` is the equal error rate, where as many false pairs are accepted as true pairs are refused, on the straight
      line between the two nearest points of the curve; `eer_threshold` is that of the nearer one.
    * `tpr_at_fpr` (L,) is the largest TPR whose FPR does not exceed `fpr_levels` (L,), `thresholds` (L,) the smallest
      threshold that reaches it. A threshold below 0 accepts nothing; distances that rounding made negative count as 0.
    * `roc_threshold`, `roc_fpr`, `roc_tpr` (T,) are the curve in at most 2,000 points: neighbours are one bin apart, or
      differ by less than 1/300 in both rates and by less than 5 % of an FPR above 1e-6.
    * `edges` (H + 1,), `true` and `false` (C_q, C_g, H): histograms of distances for every pair of cameras; bin i holds
      edges[i] < distance <= edges[i + 1], the first also 0. With camid -1 they go over all cameras.

    Rates and distances are exact but for pairs that share a bin of `width`: 2^-19 = 1.9e-6 for the cosine distance, where
    float32 features of size 2,048 err by up to 3e-7 anyway.
    """

    eer: float
    eer_threshold: float
    fpr_levels: np.ndarray
    tpr_at_fpr: np.ndarray
    thresholds: np.ndarray
    roc_threshold: np.ndarray
    roc_fpr: np.ndarray
    roc_tpr: np.ndarray
    width: float
    edges: np.ndarray
    true: np.ndarray
    false: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray
    true_pairs: int
    false_pairs: int

    @classmethod
    def of(cls, counts: PairCounts, fpr_levels: tuple[float, ...] = FPRS) -> "Verification":
        """The rates of some counts. Raises InputError for a level of FPR outside 0..1."""
        levels = np.array(fpr_levels, np.float64)
        if not ((levels >= 0) & (levels <= 1)).all():
            raise InputError(
                f"levels of FPR are {', '.join(f'{level:g}' for level in levels)}; expected shares in 0..1"
            )
        curve = threshold, fpr, tpr = counts.curve()
        reached = tpr[np.searchsorted(fpr, levels, side="right") - 1]
        kept = thin(fpr, tpr)
        bins = counts.coarse_true.shape[2]
        eer, eer_threshold = equal_error(*curve)
        return cls(
            eer=eer,
            eer_threshold=eer_threshold,
            fpr_levels=levels,
            tpr_at_fpr=reached,
            thresholds=threshold[np.searchsorted(tpr, reached, side="left")],
            roc_threshold=threshold[kept],
            roc_fpr=fpr[kept],
            roc_tpr=tpr[kept],
            width=counts.width,
            edges=counts.width * (len(counts.true) - 1) / bins * np.arange(bins + 1),
            true=counts.coarse_true,
            false=counts.coarse_false,
            query_camids=counts.query_camids,
            gallery_camids=counts.gallery_camids,
            true_pairs=int(counts.true.sum()),
            false_pairs=int(counts.false.sum()),
        )

    def rates(self, threshold: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """FPR and TPR at any threshold, on straight lines between the stored points."""
        return tuple(np.interp(threshold, self.roc_threshold, rates) for rates in (self.roc_fpr, self.roc_tpr))

    def histogram(
        self, query_camid: int | None = None, gallery_camid: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (H,) of true and of false pairs by distance, of one camera against another or of all (None)."""
        chosen = []
        for camid, known, part in (
            (query_camid, self.query_camids, "query"),
            (gallery_camid, self.gallery_camids, "gallery"),
        ):
            if camid is not None and camid not in known:
                raise InputError(f"there is no {part} camera {camid} here; choose one of {', '.join(map(str, known))}")
            chosen.append(np.flatnonzero(known == camid) if camid is not None else np.arange(len(known)))
        return tuple(counts[np.ix_(*chosen)].sum(axis=(0, 1)) for counts in (self.true, self.false))

    def summary(self) -> dict:
        """The figures as plain numbers for a JSON file; levels of FPR are keys such as "0.001"."""
        names = [f"{level:g}" for level in self.fpr_levels]
        return {
            "eer": self.eer,
            "eer_threshold": self.eer_threshold,
            "tpr_at_fpr": dict(zip(names, self.tpr_at_fpr.tolist(), strict=True)),
            "thresholds": dict(zip(names, self.thresholds.tolist(), strict=True)),
            "true_pairs": self.true_pairs,
            "false_pairs": self.false_pairs,
        }

    def save(self, file: Path) -> None:
        with replacing(Path(file)) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> "Verification":
        """Read what `save` wrote; a file that is missing or another one is an InputError."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                data = {field.name: arrays[field.name] for field in fields(cls)}
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(
                f"{file} holds no verification ({type(error).__name__}: {error}); expected an npz that an evaluation "
                "wrote: evaluate again"
            ) from error
        _check_stored(file, data)
        return cls(**{name: values.item() if values.ndim == 0 else values for name, values in data.items()})


def _check_stored(file: Path, data: dict[str, np.ndarray]) -> None:
    """Raise InputError unless all are numbers of the shapes that belong together."""
    curve, levels = data["roc_threshold"].shape[:1], data["fpr_levels"].shape[:1]
    cameras = tuple(data[name].size for name in ("query_camids", "gallery_camids"))
    histograms = (*cameras, data["edges"].size - 1)
    shapes = dict.fromkeys(("eer", "eer_threshold", "width", "true_pairs", "false_pairs"), ())
    shapes |= dict.fromkeys(("roc_threshold", "roc_fpr", "roc_tpr"), curve or (0,))
    shapes |= dict.fromkeys(("fpr_levels", "tpr_at_fpr", "thresholds"), levels or (0,))
    shapes |= dict.fromkeys(("true", "false"), histograms) | {"edges": (histograms[-1] + 1,)}
    shapes |= {"query_camids": cameras[:1], "gallery_camids": cameras[1:]}
    for name, values in data.items():
        if values.dtype.kind not in "iuf":
            raise InputError(f"{file} holds {name} of type {values.dtype}; expected numbers: evaluate again")
        if values.shape != shapes[name] or not values.size:
            raise InputError(f"{file} holds {name} {values.shape}; expected {shapes[name]}: evaluate again")
    if not data["true"].any() or not data["false"].any():
        raise InputError(f"{file} holds histograms without a pair of one kind; expected both: evaluate again")


def equal_error(threshold: np.ndarray, fpr: np.ndarray, tpr: np.ndarray) -> tuple[float, float]:
    """The rate at which a rising curve (T,) crosses FPR = 1 - TPR, and the threshold of the nearer of the two points."""
    gap = fpr + tpr - 1  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    part = gap[before] / (gap[before] - gap[after])
    nearer = np.searchsorted(gap, gap[before] if -gap[before] < gap[after] else gap[after])  # the first of equal points
    return float(fpr[before] + part * (fpr[after] - fpr[before])), float(threshold[nearer])


def thin(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """Which points of a rising curve to keep: the ends, and both ends of every step over one of the levels.

    Levels are equally spaced in TPR and FPR, and in the logarithm of FPR from 1e-6 to 1.
    """
    even = np.linspace(0, 1, STEPS + 1)
    # powers of ten as they are written, so that an FPR of exactly 0.001 is found at 1e-3
    powers = np.array([float(f"1e{digit}") for digit in range(-6, 1)])
    small = np.union1d(10 ** np.linspace(-6, 0, STEPS + 1)[np.arange(STEPS + 1) % (STEPS // 6) > 0], powers)
    last = [
        np.searchsorted(rates, levels, side="right") - 1 for rates, levels in ((tpr, even), (fpr, even), (fpr, small))
    ]
    last = np.concatenate([*last, [0, len(fpr) - 1]])
    return np.unique(np.minimum(np.concatenate([last, last + 1]), len(fpr) - 1))
