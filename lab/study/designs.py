"""What a study is: starting points, shares of the labels and seeds (cells), and claims about the means of cells.

The paper's tables are grids, and so are these: `small-scale` and `few-shot` (paper, section 5.3), `augmentation`
(section 5.2), `temperature`, `pretraining-data`, `rerank`, and `pretraining-effort` for what was tried beyond. Cells have
names that say what they are, so that studies in one folder share them. No torch: the explorer reads this too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SHARES = (0.1, 0.3, 0.5, 1.0)  # of the identities
FEW_SHARES = (0.1, 0.3, 1.0)  # of the images of each identity
FEW_SEEDS = 3  # of augmentations, whose pre-trainings are what costs most
TWO_SEEDS = 2  # of shares that no claim is about, and of questions beside the paper's main one
COLUMNS = {  # of the paper's table: the lab's augmentation -> how the published figures call it
    "moco": "default MoCo v2",
    "moco+erase": "+ random erasing",
    "moco-grayscale": "- grayscale",
    "moco-blur": "- gaussian blur",
    "luperson-erase": "- colour jitter",
    "luperson": "- colour jitter + random erasing",
}
TEMPERATURES = (0.05, 0.07, 0.1, 0.2)
CROP_SHARES = (0.1, 0.3, 1.0)
STANDARD = {"augmentation": "luperson", "temperature": 0.1}  # what "in-domain" is pre-trained with


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from: random weights, a trunk pre-trained here, or one from a file.

    `crops` are those of the pre-training, "in-domain", "other-domain" or "cut-outs" of `lab.study.world`, None without
    one; `share` of them is used. `changes` are settings of pre-training that differ from the study's, "times_steps" among
    them. `weights` is a file or a name.
    """

    name: str
    crops: str | None = None
    share: float = 1.0
    changes: tuple[tuple[str, object], ...] = ()
    weights: str | None = None


SCRATCH = Start("scratch")
IN_DOMAIN = Start("in-domain", "in-domain")
OTHER_DOMAIN = Start("other-domain", "other-domain")


@dataclass(frozen=True)
class Cell:
    """One fine-tuning and its evaluations: from `start`, on a share of the "ids" or "images", with a seed for everything."""

    start: Start
    share: float
    of: Literal["ids", "images"]
    seed: int

    @property
    def name(self) -> str:
        labels = "all" if self.share == 1 else f"{self.of}{100 * self.share:g}"
        return f"{self.start.name}-{labels}-seed{self.seed}"

    @property
    def pretraining(self) -> str | None:
        """Name of the run that its trunk comes from."""
        return None if self.start.crops is None else f"pretrain-{self.start.name}-seed{self.seed}"


@dataclass(frozen=True)
class Group:
    """Cells that differ in their seed alone, without or with re-ranking; all labels are the same for ids and images."""

    start: str
    share: float = 1.0
    of: str = "ids"
    rerank: bool = False


@dataclass(frozen=True)
class Claim:
    """A sentence that holds if a weighted sum of groups' mean mAP is above 0, and the same sum of published figures.

    With `presupposes`, the key of another claim, that one has to hold as well: a gain that is not there cannot shrink.
    `published` are weights and arguments of `lab.published.published_map`.
    """

    key: str
    sentence: str
    contrast: tuple[tuple[float, Group], ...]
    published: tuple[tuple[float, tuple], ...] = ()
    presupposes: str | None = None

    @property
    def groups(self) -> list[Group]:
        return [group for _, group in self.contrast]


@dataclass(frozen=True)
class Study:
    """A question, the cells that it needs and the claims that they decide. `starts` is the order of tables and figures."""

    name: str
    question: str
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]

    @property
    def starts(self) -> list[str]:
        return list(dict.fromkeys(cell.start.name for cell in self.cells))


def make_studies(seeds: int, files: Sequence[Start] = (), domains: Sequence[str] = ()) -> dict[str, Study]:
    """All studies by name, for so many seeds, further starting points from files, and the kinds of crops that there are."""
    pretrained = [start for start in (IN_DOMAIN, OTHER_DOMAIN) if start.crops in domains]
    starts = [SCRATCH, *pretrained, *files]
    found = [_small_scale(seeds, starts), _few_shot(seeds, starts), _rerank(seeds, starts)]
    if IN_DOMAIN in pretrained:
        found += [_augmentation(seeds), _temperature(seeds), _pretraining_data(seeds), _effort(seeds, domains)]
    return {study.name: study for study in found}


def _small_scale(seeds: int, starts: list[Start]) -> Study:
    ends = _cells(starts, (SHARES[0], SHARES[-1]), "ids", seeds)
    between = _cells(starts, SHARES[1:-1], "ids", min(TWO_SEEDS, seeds))
    claims = [claim for start in starts[1:] for claim in _label_claims(start.name, "ids", "identities", "small-scale")]
    question = "What is a pre-trained trunk worth when few people have labels?"
    return Study("small-scale", question, (*ends, *between), tuple(claims))


def _few_shot(seeds: int, starts: list[Start]) -> Study:
    cells = _cells(starts, FEW_SHARES, "images", min(TWO_SEEDS, seeds))
    claims = [claim for start in starts[1:] for claim in _label_claims(start.name, "images", "images", "few-shot")]
    question = "What is it worth when everybody has labels, but few images?"
    return Study("few-shot", question, cells, tuple(claims))


def _label_claims(start: str, of: str, what: str, setting: str) -> tuple[Claim, Claim]:
    """That a start helps at 10 % of the labels, and that its gain shrinks as they grow."""
    few, few_scratch = Group(start, 0.1, of), Group("scratch", 0.1, of)
    all_, all_scratch = Group(start), Group("scratch")
    paper = {
        (ratio, start): ("market1501", "full" if ratio == 1 else setting, ratio, start)
        for ratio in (0.1, 1.0)
        for start in ("LUP unsup.", "ImageNet sup.")
    }
    gain = ((1.0, paper[0.1, "LUP unsup."]), (-1.0, paper[0.1, "ImageNet sup."]))
    later = ((-1.0, paper[1.0, "LUP unsup."]), (1.0, paper[1.0, "ImageNet sup."]))
    helps = Claim(
        f"{start}-helps-at-{of}10",
        f"Starting from {start} beats random weights at 10 % of the {what}",
        ((1.0, few), (-1.0, few_scratch)),
        gain,
    )
    shrinks = Claim(
        f"{start}-gain-shrinks-{of}",
        f"What {start} gains over random weights is there at 10 % of the {what}, and more than with all",
        ((1.0, few), (-1.0, few_scratch), (-1.0, all_), (1.0, all_scratch)),
        (*gain, *later),
        presupposes=helps.key,
    )
    return helps, shrinks


def _augmentation(seeds: int) -> Study:
    names = {column: _in_domain("augmentation", column) for column in COLUMNS}

    def claim(better: str, worse: str, sentence: str) -> Claim:
        paper = [("cuhk03-labeled", f"augmentation: {COLUMNS[name]}", 1.0, "LUP unsup.") for name in (better, worse)]
        contrast = ((1.0, Group(names[better].name, 0.1)), (-1.0, Group(names[worse].name, 0.1)))
        return Claim(f"{better}-over-{worse}", sentence, contrast, ((1.0, paper[0]), (-1.0, paper[1])))

    claims = (
        claim("moco+erase", "moco", "Random erasing, added to MoCo's list, helps"),
        claim("luperson-erase", "moco", "Leaving out colour jitter helps"),
        claim("luperson", "moco", "Both together, LUPerson's list, help"),
        claim("moco", "moco-grayscale", "Turning views grey at times is worth keeping"),
        claim("moco", "moco-blur", "Blur is worth keeping"),
    )
    cells = _cells(list(names.values()), (0.1,), "ids", min(FEW_SEEDS, seeds))
    return Study("augmentation", "Which random changes of a view should pre-training use?", cells, claims)


def _temperature(seeds: int) -> Study:
    names = {value: _in_domain("temperature", value) for value in TEMPERATURES}

    def claim(better: float, worse: float, sentence: str) -> Claim:
        contrast = ((1.0, Group(names[better].name, 0.1)), (-1.0, Group(names[worse].name, 0.1)))
        return Claim(f"{better:g}-over-{worse:g}", sentence, contrast)

    claims = (
        claim(0.1, 0.2, "A temperature of 0.1, LUPerson's, is better than MoCo v2's 0.2"),
        claim(0.1, 0.05, "A temperature of 0.1 is better than 0.05: too small a one does not learn"),
    )
    cells = _cells(list(names.values()), (0.1,), "ids", min(TWO_SEEDS, seeds))
    return Study("temperature", "How sharply should pre-training tell crops apart?", cells, claims)


def _pretraining_data(seeds: int) -> Study:
    starts = [
        IN_DOMAIN if share == 1 else Start(f"in-domain-crops{100 * share:g}", "in-domain", share)
        for share in CROP_SHARES
    ]
    contrast = ((1.0, Group(IN_DOMAIN.name, 0.1)), (-1.0, Group(starts[0].name, 0.1)))
    claim = Claim("all-over-tenth", "Ten times the crops, at the same number of steps, are better", contrast)
    cells = _cells(starts, (0.1,), "ids", min(TWO_SEEDS, seeds))
    return Study("pretraining-data", "How much does the amount of unlabelled data matter?", cells, (claim,))


def _effort(seeds: int, domains: Sequence[str]) -> Study:
    """What else may be the reason where pre-training does not pay: its length, batch norm, learning rate, queue."""
    tried = {
        Start("in-domain-longer", "in-domain", changes=(("times_steps", 3.0),)): "Three times the steps",
        Start("in-domain-one-bn-group", "in-domain", changes=(("bn_groups", 1),)): "Batch norm over the whole batch",
        Start("in-domain-half-lr", "in-domain", changes=(("times_lr", 0.5),)): "Half the learning rate",
        Start("in-domain-short-queue", "in-domain", changes=(("times_queue", 0.25),)): "A quarter of the queue",
    }
    if "cut-outs" in domains:
        tried[Start("in-other-places", "cut-outs")] = "People cut out and put into other places"
    base = Group(IN_DOMAIN.name, 0.1)
    claims = []
    for start, what in tried.items():
        contrast = ((1.0, Group(start.name, 0.1)), (-1.0, base))
        claims.append(Claim(f"{start.name}-helps", f"{what}: in-domain pre-training is better with it", contrast))
    cells = _cells([SCRATCH, IN_DOMAIN, *tried], (0.1,), "ids", min(TWO_SEEDS, seeds))
    question = "Where pre-training does not pay: is it too short, or set up badly?"
    return Study("pretraining-effort", question, cells, tuple(claims))


def _rerank(seeds: int, starts: list[Start]) -> Study:
    claims = []
    for start in (starts[0], starts[-1]):
        for share, which in ((0.1, "10 % of the identities"), (1.0, "all labels")):
            contrast = ((1.0, Group(start.name, share, rerank=True)), (-1.0, Group(start.name, share)))
            paper = ("market1501", "full", 1.0, "LUP unsup.")
            released = ((1.0, (*paper, True, "released")), (-1.0, (*paper, False, "released")))
            published = released if share == 1 else ()
            sentence = f"Re-ranking improves the lists of {start.name} with {which}"
            claims.append(Claim(f"rerank-{start.name}-{100 * share:g}", sentence, contrast, published))
    cells = _cells(starts, (SHARES[0], SHARES[-1]), "ids", seeds)
    return Study("rerank", "What does k-reciprocal re-ranking add?", cells, tuple(claims))


def _in_domain(setting: str, value: object) -> Start:
    """In-domain pre-training with one setting changed; the study's own value is the ordinary start."""
    if value == STANDARD[setting]:
        return IN_DOMAIN
    return Start(
        f"in-domain-{'' if setting == 'augmentation' else setting}{value}", "in-domain", changes=((setting, value),)
    )


def _cells(starts: Sequence[Start], shares: Sequence[float], of: str, seeds: int) -> tuple[Cell, ...]:
    """Seeds last, so that a study that is stopped early has each group; all labels are those of all identities."""
    return tuple(
        Cell(start, share, "ids" if share == 1 else of, seed)
        for seed in range(seeds)
        for start in starts
        for share in shares
    )
