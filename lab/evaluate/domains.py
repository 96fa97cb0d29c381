"""Where a model is at home: the data set it learnt from, and whether an evaluation shows it people that it has seen."""

import os
import re
from pathlib import Path

from lab.runs import Run

HOME = "home"  # the model learnt from the training half of this very data set
SEEN = "seen"  # it learnt from another division of the same people: some who are searched here are old acquaintances
OWN = ("folder", "synthetic")  # names that any number of data sets have
RELEASED = "lup-mgn-"  # the authors' fine-tuned models are called after their data set


def trained_on(run: Run) -> str:
    """The labelled data set that a run learnt from, with its split if it has several; "" if it learnt from none.

    A run that only holds weights from elsewhere says so by the name of a released model, "" for other weights.
    """
    if run.config.get("stage") == "finetune":
        data = _entries(run, "data")
        split = data.get("split")
        return str(data.get("dataset", "")) + (f"-split{split:02d}" if split is not None else "")
    weights = str(_entries(run, "init").get("weights", ""))
    return weights.removeprefix(RELEASED) if weights.startswith(RELEASED) else ""


def acquaintance(run: Run, name: str, root: str | Path) -> str:
    """HOME, SEEN or "": how far the people of the data set `name` at `root` are known to the run's model.

    Variants of one data set have the same training people: Market-1501 with other distractors, CUHK03 with other boxes.
    The new protocol of CUHK03 and the 20 classic splits divide the same people in other ways.
    """
    learnt, asked = _division(trained_on(run)), _division(name)
    if not learnt:
        return ""
    if learnt != asked:
        return SEEN if learnt.startswith("cuhk03") and asked.startswith("cuhk03") else ""
    place = _entries(run, "data").get("root")
    elsewhere = asked in OWN and place is not None and os.path.realpath(place) != os.path.realpath(root)
    return "" if elsewhere else HOME


def _entries(run: Run, key: str) -> dict:
    value = run.config.get(key)
    return value if isinstance(value, dict) else {}  # a folder that another program made may say anything


def _division(name: str) -> str:
    """The name of a data set without what changes nothing in who trains."""
    if name.startswith("market1501"):
        return "market1501"
    return re.sub("-(labeled|detected)", "", name)
