"""eval_msmt.npz: a set with 15 cameras, no junk."""

from golden_eval import GoldenEvalWithoutDuplicates


class TestMsmt(GoldenEvalWithoutDuplicates):
    name = "msmt"
