"""Error rates of verification against a slow oracle that looks at every pair, and cases worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import InputError
from lab.evaluate.distance import distance_blocks
from lab.evaluate.error_rates import BINS, COARSE_BINS, STEPS, PairCounts, Verification, equal_error, thin
from lab.evaluate.verification import PairCounter, count_pairs, next_power_of_two, verify
from lab.runs import Features


def make(values, pid, camid) -> Features:
    return Features(np.asarray(values), np.asarray(pid, np.int64), np.asarray(camid, np.int64), np.full(len(pid), ""))


def random_set(seed: int, queries=12, gallery=40, people=6, cameras=3, spread=4) -> tuple[Features, Features]:
    """Integer features in two dimensions: squared distances are exact and full of ties."""
    rng = np.random.default_rng(seed)

    def part(count):
        values = rng.integers(-spread, spread + 1, (count, 2)).astype(np.float32)
        return make(values, rng.integers(0, people, count), rng.integers(9, 9 + cameras, count))

    return part(queries), part(gallery)


def oracle(query: Features, gallery: Features) -> tuple[list, list]:
    """(squared distance, query camid, gallery camid) of every true and of every false pair, one pair at a time."""
    true, false = [], []
    for q in range(len(query.pid)):
        for g in range(len(gallery.pid)):
            gap = [float(a) - float(b) for a, b in zip(query.values[q], gallery.values[g], strict=True)]
            pair = (sum(x * x for x in gap), int(query.camid[q]), int(gallery.camid[g]))
            if query.pid[q] != gallery.pid[g]:
                false.append(pair)
            elif query.camid[q] != gallery.camid[g]:
                true.append(pair)
    return true, false


def share(pairs: list, threshold: float) -> float:
    return sum(distance <= threshold for distance, *_ in pairs) / len(pairs)


def assert_equals_oracle(
    query: Features, gallery: Features, memory_gb: float, levels=(0.0, 0.01, 0.1, 0.5, 1.0)
) -> None:
    true, false = oracle(query, gallery)
    if not true or not false:
        with pytest.raises(InputError, match="another camid|two persons"):
            verify(query, gallery, "euclidean", memory_gb)
        return
    found = verify(query, gallery, "euclidean", memory_gb, fpr_levels=levels)
    assert (found.true_pairs, found.false_pairs) == (len(true), len(false))
    thresholds = [-found.width, *sorted({pair[0] for pair in true + false})]
    for level, tpr, threshold in zip(levels, found.tpr_at_fpr, found.thresholds, strict=True):
        assert tpr == max(share(true, at) for at in thresholds if share(false, at) <= level)
        assert share(true, threshold) == tpr
        assert share(false, threshold) <= level
    points = [(share(false, at), share(true, at)) for at in thresholds]
    known, *rates = count_pairs(query, gallery, "euclidean", memory_gb).curve()
    at = np.searchsorted(known, thresholds, side="right") - 1
    assert [(fpr, tpr) for fpr, tpr in zip(*(rate[at] for rate in rates), strict=True)] == points
    for threshold, point in zip(thresholds, points, strict=True):
        assert np.abs(np.array(found.rates(threshold)) - point).max() < 1 / STEPS
    assert found.eer == pytest.approx(crossing(points), abs=1e-12)
    assert_camera_pairs(found, true, false)


def crossing(points: list) -> float:
    """Where the polygon through the points of a ROC curve meets FPR = 1 - TPR, by halving."""
    low, high = 0.0, len(points) - 1.0
    for _ in range(80):
        middle = (low + high) / 2
        fpr, tpr = (np.interp(middle, range(len(points)), rates) for rates in zip(*points, strict=True))
        low, high = (middle, high) if fpr + tpr < 1 else (low, middle)
    return np.interp(high, range(len(points)), [fpr for fpr, _ in points])


def assert_camera_pairs(found: Verification, true: list, false: list) -> None:
    for counts, pairs in ((found.true, true), (found.false, false)):
        expected = np.zeros_like(counts)
        for distance, own, other in pairs:
            place = np.searchsorted(found.edges, distance, side="left") - 1  # edges[i] < distance <= edges[i + 1]
            cameras = found.query_camids.tolist().index(own), found.gallery_camids.tolist().index(other)
            expected[(*cameras, max(place, 0))] += 1
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_oracle(seed):
    assert_equals_oracle(*random_set(seed), memory_gb=0.25)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 6),
    gallery=st.integers(1, 30),
    people=st.integers(1, 9),
    cameras=st.integers(1, 5),
    spread=st.integers(0, 5),  # 0: all crops are the same
    entries=st.integers(20, 200),
)
def test_equals_the_oracle_for_any_small_set_and_tile_size(seed, queries, gallery, people, cameras, spread, entries):
    assert_equals_oracle(*random_set(seed, queries, gallery, people, cameras, spread), memory_gb=entries * 12 / 1e9)


def given_distances(true: list, false: list, largest=1.0, **keywords) -> Verification:
    """One query of person 7 under camera 1 and a gallery at these distances."""
    pid, camid = [7] * len(true) + [3] * len(false), [2] * (len(true) + len(false))
    query, gallery = make(np.zeros((1, 1)), [7], [1]), make(np.zeros((len(pid), 1)), pid, camid)
    return verify(query, gallery, blocks=[torch.tensor([[*true, *false]])], largest=largest, **keywords)


def test_rates_by_hand():
    found = given_distances([0.125, 0.25, 0.5, 0.75], [0.375, 0.625, 0.875, 0.9375, 1.0], fpr_levels=(0.0, 0.2, 0.5))
    assert found.tpr_at_fpr.tolist() == [2 / 4, 3 / 4, 4 / 4]  # before .375, before .625, before .875
    assert found.thresholds.tolist() == [0.25, 0.5, 0.75]  # the smallest that reach it
    assert found.eer == pytest.approx(0.25)  # at .5 to .625 FPR goes from 1/5 to 2/5 while 1/4 is refused
    assert found.eer_threshold == 0.5  # there FPR is 0.2, nearer to 0.25 than 0.4 is
    for threshold, rates in ((0.3, (0, 0.5)), (0.375, (0.2, 0.5)), (1.0, (1, 1)), (-0.1, (0, 0))):
        assert tuple(map(float, found.rates(threshold))) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("true", "false", "eer"),
    [
        ([0.25, 0.375], [0.5, 0.75], 0.0),  # apart
        ([0.5], [0.5], 0.5),  # one place: nothing can tell them
        ([0.75], [0.25], 1.0),  # the wrong way round
        ([0.25, 0.75], [0.5, 1.0], 0.5),
    ],
)
def test_equal_error_rates_by_hand(true, false, eer):
    assert given_distances(true, false).eer == pytest.approx(eer)


def test_a_stored_threshold_accepts_every_pair_that_it_was_counted_with():
    width = 2.0**-20
    true, false = [0.25 - 0.75 * width, 0.25, 0.25 + 0.25 * width], [0.25 + 1.25 * width, 0.75]
    found = given_distances(true, false, fpr_levels=(0.0, 0.5))
    assert found.width == width
    assert found.thresholds.tolist() == [0.25 + width, 0.25 + width]  # the upper end of the last true pair's bin
    for threshold in found.roc_threshold:
        expected = [np.mean(np.array(pairs) <= threshold) for pairs in (false, true)]
        assert list(found.rates(threshold)) == pytest.approx(expected)


def test_no_threshold_accepts_a_match_where_false_pairs_are_nearest():
    found = given_distances([0.5], [0.0, 0.25], fpr_levels=(0.1,))
    assert found.tpr_at_fpr.tolist() == [0]
    assert found.thresholds[0] < 0
    assert [float(rate) for rate in found.rates(found.thresholds[0])] == [0, 0]


def test_same_camera_is_left_out_and_other_people_of_that_camera_stay():
    query = make([[0.0]], [7], [1])
    gallery = make([[0.0], [1.0], [2.0]], [7, 3, 7], [1, 1, 2])
    found = verify(query, gallery, "euclidean")
    assert (found.true_pairs, found.false_pairs) == (1, 1)
    assert found.eer == 1.0
    assert found.gallery_camids.tolist() == [1, 2]
    assert found.false.sum(axis=2).tolist() == [[1, 0]]
    assert found.true.sum(axis=2).tolist() == [[0, 1]]


def test_cosine_distances_that_rounding_drives_out_of_0_to_2_count_as_0_and_2():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((64, 33)).astype(np.float32)
    pid = np.arange(64)
    query, gallery = make(values, pid, np.ones(64)), make(np.concatenate([values, -values]), [*pid, *pid], [2] * 128)
    block = torch.cat(list(distance_blocks(query.values, gallery.values)))
    same = [block[row, row + shift].item() for row in range(64) for shift in (0, 64)]
    assert min(same) < 0, "no rounding to look at"
    assert max(same) > 2
    counts = count_pairs(query, gallery)
    assert counts.true[[0, 1]].sum() == 64
    assert counts.true[[-2, -1]].sum() == 64
    assert counts.coarse_true[0, 0, [0, -1]].tolist() == [64, 64]
    assert counts.true.sum() + counts.false.sum() == block.numel()


def test_cosine_rates_lie_between_the_exact_ones_one_bin_lower_and_higher():
    rng = np.random.default_rng(1)
    pid, camid = rng.integers(0, 10, 260), rng.integers(0, 4, 260)
    values = rng.standard_normal((10, 24))[pid] + 1.5 * rng.standard_normal((260, 24))
    query, gallery = make(values[:60], pid[:60], camid[:60]), make(values[60:], pid[60:], camid[60:])
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    distance = 1 - unit[:60] @ unit[60:].T
    same, camera = (part[:60, None] == part[60:] for part in (pid, camid))
    true, false = np.sort(distance[same & ~camera]), np.sort(distance[~same])
    found = verify(query, gallery, memory_gb=1e-5, fpr_levels=(1e-3, 1e-2, 0.1))
    assert found.width == 2 / 2**20
    margin = found.width + 1e-6
    for level, tpr, threshold in zip(found.fpr_levels, found.tpr_at_fpr, found.thresholds, strict=True):
        exact = (true < false[int(level * len(false))]).mean()
        near = [(true <= false[int(level * len(false))] + shift).mean() for shift in (-margin, margin)]
        assert near[0] <= tpr <= near[1]
        assert abs(tpr - exact) <= near[1] - near[0]
        assert (true <= threshold - margin).mean() <= tpr <= (true <= threshold + margin).mean()
    shares = np.linspace(0, 1, 41)
    counts = count_pairs(query, gallery)
    for ours, values in zip(counts.quantiles(shares), (true, false), strict=True):
        np.testing.assert_allclose(ours, np.quantile(values, shares), atol=margin)


def test_quantiles_of_ties_and_of_single_pairs():
    counts = np.zeros(9, np.int64)
    counts[[2, 6]] = 3, 1  # distances of 1.5 to 2 bins, thrice, and of 5.5 to 6 bins
    rates = PairCounts(counts, counts[::-1], 0.5, *[np.zeros((1, 1, 2))] * 2, np.array([1]), np.array([1]))
    true, _ = rates.quantiles([0, 0.5, 2 / 3, 1])
    assert true.tolist() == pytest.approx([0.75, 0.75, 0.75, 2.75])  # the middle of the bin
    assert rates.quantiles([5 / 6])[0] == pytest.approx(np.quantile([0.75, 0.75, 0.75, 2.75], 5 / 6))


def test_a_thinned_curve_keeps_every_corner_that_matters():
    rng = np.random.default_rng(0)
    counts = [
        np.bincount(np.minimum(rng.gamma(shape, 9000, 400_000), 2**18).astype(int), minlength=2**18 + 1)
        for shape in (2, 9)
    ]
    counts[1][40_000] += 10**6  # and one distance that very many have
    tpr, fpr = (np.concatenate([[0], part.cumsum()]) / part.sum() for part in counts)
    kept = thin(fpr, tpr)
    assert len(kept) <= 2000
    assert kept[[0, -1]].tolist() == [0, len(fpr) - 1]
    for level in [0.0, *(float(f"{digit}e{power}") for power in range(-6, 0) for digit in (1,)), 0.25, 1.0]:
        at = np.searchsorted(fpr[kept], level, side="right") - 1
        if level in (0.0, 0.25) or level >= 1e-6:
            assert tpr[kept][at] == tpr[fpr <= level].max()
    apart = np.diff(kept) > 1
    assert apart.any()
    assert (np.diff(fpr[kept])[apart] < 1 / STEPS).all()
    assert (np.diff(tpr[kept])[apart] < 1 / STEPS).all()
    low, high = fpr[kept[:-1]][apart], fpr[kept[1:]][apart]
    small = low >= 1e-6
    assert small.any()
    assert (high[small] / low[small] < 1.05).all()


def test_an_fpr_that_is_exactly_the_level_counts_as_not_exceeding_it():
    found = given_distances([0.25, 0.75], [0.5, *[1.0] * 999], fpr_levels=(1e-3,))
    assert found.tpr_at_fpr.tolist() == [1.0]
    at = np.searchsorted(found.roc_fpr, 1e-3, side="right") - 1
    assert (found.roc_fpr[at], found.roc_tpr[at]) == (1e-3, 1.0)


def test_equal_error_lies_on_the_line_between_two_points():
    eer, threshold = equal_error(np.array([-1.0, 0, 1, 2]), np.array([0, 0.1, 0.3, 1]), np.array([0, 0.6, 0.9, 1]))
    # from (FPR 0.1, FNR 0.4) to (0.3, 0.1): equal after 3/5 of the way
    assert eer == pytest.approx(0.1 + 0.6 * 0.2)
    assert threshold == 1


def test_one_pass_serves_ranking_and_verification(monkeypatch):
    monkeypatch.setattr("lab.evaluate.verification.PART", 100)  # blocks are counted two rows at a time
    query, gallery = random_set(5)
    direct = count_pairs(query, gallery, "euclidean")
    counter = PairCounter(query, gallery, direct.width * BINS)
    blocks = list(distance_blocks(query.values, gallery.values, "euclidean", memory_gb=1))
    passed = list(counter.watch(block[None] for block in torch.cat(blocks).clone()))
    assert torch.equal(torch.cat(passed), torch.cat(blocks))
    watched = counter.counts()
    assert watched.width == direct.width
    for name in ("true", "false", "coarse_true", "coarse_false"):
        np.testing.assert_array_equal(getattr(watched, name), getattr(direct, name))


def test_features_that_stay_on_disk_are_counted_the_same(tmp_path):
    query, gallery = random_set(6)
    gallery.save(tmp_path / "gallery.npz")
    on_disk = Features.load(tmp_path / "gallery.npz", on_disk=True)
    assert not isinstance(on_disk.values, np.ndarray)
    found, expected = (count_pairs(query, part, "euclidean", memory_gb=3e-6) for part in (on_disk, gallery))
    np.testing.assert_array_equal(found.true, expected.true)
    np.testing.assert_array_equal(found.false, expected.false)


def test_without_cameras_and_with_too_many_there_is_one_histogram_for_all():
    query, gallery = random_set(2)
    found, pooled = verify(query, gallery, "euclidean"), verify(query, gallery, "euclidean", cameras=False)
    assert pooled.query_camids.tolist() == pooled.gallery_camids.tolist() == [-1]
    np.testing.assert_array_equal(pooled.true[0, 0], found.true.sum(axis=(0, 1)))
    np.testing.assert_array_equal(pooled.false[0, 0], found.histogram()[1])
    many = make(np.zeros((100, 1)), np.arange(100) // 2, np.arange(100))
    assert verify(many, many, "euclidean").true.shape == (1, 1, COARSE_BINS)


def test_the_histogram_of_one_pair_of_cameras():
    found = verify(*random_set(3), "euclidean")
    own, other = found.query_camids[1], found.gallery_camids[0]
    np.testing.assert_array_equal(found.histogram(own, other)[0], found.true[1, 0])
    np.testing.assert_array_equal(found.histogram(gallery_camid=other)[1], found.false[:, 0].sum(axis=0))
    with pytest.raises(InputError, match="no query camera 99 here; choose one of 9, 10, 11"):
        found.histogram(99)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    found = verify(*random_set(1), "euclidean")
    found.save(tmp_path / "verification.npz")
    loaded = Verification.load(tmp_path / "verification.npz")
    assert loaded.summary() == found.summary()
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
        assert type(getattr(loaded, name)) is type(value)
    assert [file.name for file in tmp_path.iterdir()] == ["verification.npz"]


def test_summary_has_plain_numbers_under_readable_names():
    summary = given_distances([0.25, 0.5], [0.75, 1.0]).summary()
    assert summary == {
        "eer": 0.0,
        "eer_threshold": 0.5,
        "tpr_at_fpr": {"0.0001": 1.0, "0.001": 1.0, "0.01": 1.0},
        "thresholds": {"0.0001": 0.5, "0.001": 0.5, "0.01": 0.5},
        "true_pairs": 2,
        "false_pairs": 2,
    }
    assert {type(value) for value in summary.values()} == {float, int, dict}


def test_files_that_hold_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    (tmp_path / "text.npz").write_text("no npz")
    for name in ("other.npz", "text.npz", "missing.npz"):
        with pytest.raises(InputError, match=f"{name} holds no verification"):
            Verification.load(tmp_path / name)


def test_sets_without_true_or_false_pairs_are_explained():
    one = make([[0.0], [1.0]], [1, 1], [1, 2])
    with pytest.raises(InputError, match="shows two persons"):
        verify(one, one, "euclidean")
    with pytest.raises(InputError, match="another camid"):
        verify(make([[0.0]], [1], [1]), make([[1.0]], [2], [2]), "euclidean")
    counter = PairCounter(make([[0.0]], [1], [1]), make([[1.0]], [2], [2]), 1.0)
    counter.add(0, 0, torch.zeros(1, 1))
    with pytest.raises(InputError, match="shows one person under two cameras"):
        counter.counts()


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match=r"levels of FPR are 2; expected shares in 0\.\.1"):
        given_distances([0.5], [0.5], fpr_levels=(2.0,))
    with pytest.raises(InputError, match="1 distances are larger than 1;"):
        given_distances([0.5], [1.5])
    with pytest.raises(ValueError, match="need `largest`"):
        given_distances([0.5], [0.5], largest=None)
    with pytest.raises(InputError, match="choose one of"):
        verify(*random_set(0), distance="city")
    query, gallery = random_set(0)
    with pytest.raises(ValueError, match="cover 40 pairs of 480"):
        verify(query, gallery, blocks=[torch.zeros(1, 40)], largest=1)


@pytest.mark.parametrize(("value", "power"), [(1, 1), (1.001, 2), (2, 2), (0.3, 0.5), (100, 128), (0, 2**-60)])
def test_bins_end_at_a_power_of_two(value, power):
    assert next_power_of_two(value) == power


def test_stored_rates_are_read_without_torch():
    code = "import sys, lab.evaluate.error_rates, lab.evaluate.camera_pairs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_a_gpu_counts_the_same():
    query, gallery = random_set(4, 50, 300)
    ours, cuda = (count_pairs(query, gallery, "euclidean", device=device) for device in ("cpu", "cuda"))
    for name in ("true", "false", "coarse_true", "coarse_false"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(cuda, name))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("true", np.zeros((2, 2)), r"true \(2, 2\); expected \(1, 1, 512\)"),
        ("roc_tpr", np.zeros(3), r"roc_tpr \(3,\); expected"),
        ("eer", np.zeros(2), r"eer \(2,\); expected \(\)"),
        ("gallery_camids", np.zeros((2, 2)), r"expected"),
        ("roc_fpr", np.full(4, "x"), "roc_fpr of type <U1; expected numbers"),
        ("false", np.zeros((1, 1, COARSE_BINS)), "without a pair of one kind"),
    ],
)
def test_stored_arrays_that_do_not_belong_together_are_refused(tmp_path, name, wrong, words):
    file = tmp_path / "verification.npz"
    given_distances([0.5], [0.75]).save(file)
    Verification.load(file)
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {name: wrong})
    with pytest.raises(InputError, match=words):
        Verification.load(file)
