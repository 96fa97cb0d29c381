"""What a run is and what it cost, in words, from its config.json and log.csv: facts as rows, runs as columns."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lab.runs import Run
from lab.show.tables import initialisation, settings_of

COMMIT = 8  # letters of a commit that are enough to find it


def facts_table(runs: Mapping[str, tuple[Run, pd.DataFrame]]) -> pd.DataFrame:
    """One column per run, one row per fact that is known of at least one of them; "" where a run does not say."""
    table = pd.DataFrame({name: run_facts(run.config, log) for name, (run, log) in runs.items()}, dtype=object)
    table = table.fillna("")
    return table[(table != "").any(axis=1)]


def run_facts(config: dict, log: pd.DataFrame) -> dict[str, str]:
    """Stage, start, network, data, length, cost and origin of a run; "" for what its files do not say.

    `log` is log.csv, empty if there is none.
    """
    settings, batch = settings_of(config), batch_size(settings_of(config))
    seconds, steps = training_seconds(log, batch), _last(log, "step")
    speed = _column(log, "images_per_second")
    versions = config.get("versions") if isinstance(config.get("versions"), dict) else {}
    return {
        "stage": _said(config.get("stage")),
        "initialised from": initialisation(config),
        "network": f"ResNet-{settings['depth']}" if settings.get("depth") else "",
        "image size (height × width)": _size(settings),
        "data set": _said(_dict(config, "data").get("dataset")),
        "images in the training set": _count(_dict(config, "data").get("images")),
        "labels used": labels_used(config),
        "epochs": _said(settings.get("epochs")),
        "steps done": _count(steps),
        "images per step": _count(batch),
        "learning rate": _said(settings.get("lr")),
        "time in training": "" if seconds is None else spoken_time(seconds),
        "images per second (median)": f"{np.median(speed):,.0f}" if len(speed) else "",
        "seed": _said(config.get("seed")),
        "started": _said(config.get("started"))[:16].replace("T", " "),
        "commit": _said(config.get("commit"))[:COMMIT],
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("lab", "torch") if name in versions),
    }


def labels_used(config: dict) -> str:
    """The share of the training labels: "10 % of people", "30 % of images", a split file; "" where it is not said."""
    settings = settings_of(config)
    if settings.get("subset"):
        return str(settings["subset"]).replace("\\", "/").rsplit("/", 1)[-1]
    fraction = settings.get("fraction")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float):
        return ""
    of = "images" if settings.get("fraction_of") == "images" else "people"
    return "all" if fraction == 1 else f"{100 * fraction:g} % of {of}"


def batch_size(settings: dict) -> int | None:
    """Images per step of either stage; None where the settings do not say."""
    parts = [settings.get("batch_size")]
    if parts[0] is None:
        parts = [settings.get("ids_per_batch"), settings.get("images_per_id")]
    return int(np.prod(parts)) if all(isinstance(part, int) and part > 0 for part in parts) else None


def training_seconds(log: pd.DataFrame, batch: int | None) -> float | None:
    """How long the logged steps took, without probes and checkpoints: steps x images per step / images per second.

    A row without a speed gets the median of the others. None where speed, steps or batch are not known.
    """
    speed = _column(log, "images_per_second")
    if batch is None or not len(speed) or "step" not in log:
        return None
    rows = log[pd.to_numeric(log["step"], errors="coerce") > 0].sort_values("step")
    steps = rows["step"].diff().fillna(rows["step"])  # the first row tells of all steps up to it
    per_second = rows["images_per_second"].where(rows["images_per_second"] > 0).fillna(np.median(speed))
    return float((steps * batch / per_second).sum())


def spoken_time(seconds: float) -> str:
    """ "48 s", "3.2 min", "5.1 h" or "12.3 days"."""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < {"s": 90, "min": 5400, "h": 172800}[unit]:
            return f"{seconds / size:.0f} s" if unit == "s" else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _column(log: pd.DataFrame, name: str) -> np.ndarray:
    values = log[name].to_numpy(np.float64) if name in log else np.zeros(0)
    return values[np.isfinite(values) & (values > 0)]


def _last(log: pd.DataFrame, name: str) -> int | None:
    values = log[name].dropna() if name in log else ()
    return int(values.max()) if len(values) else None


def _size(settings: dict) -> str:
    height, width = settings.get("height"), settings.get("width")
    return f"{height} × {width} pixels" if height and width else ""


def _dict(config: dict, name: str) -> dict:
    return config[name] if isinstance(config.get(name), dict) else {}


def _said(value: object) -> str:
    return "" if value is None else str(value)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else _said(value)
