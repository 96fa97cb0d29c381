"""eval_cuhk.npz: a set with two cameras, as in CUHK03."""

from golden_eval import GoldenEvalWithoutDuplicates


class TestCuhk(GoldenEvalWithoutDuplicates):
    name = "cuhk"
