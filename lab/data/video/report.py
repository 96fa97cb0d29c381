"""What became of the videos and their boxes, in numbers and names."""

from collections import Counter
from collections.abc import Iterable

COUNTS = ("frames", "boxes", "unscored", "kept", "clipped")  # of a video's note
LIMITS = {  # which setting drops boxes for a reason, and what it says
    "low score": ("min_score", "{:g} or less"),
    "too narrow": ("min_width", "{:g} pixels or less"),
    "too flat": ("min_aspect", "height / width below {:g}"),
    "too tall": ("max_aspect", "height / width above {:g}"),
    "blurred": ("min_sharpness", "below {:g}"),
    "near-duplicate": ("min_change", "fewer than {:g} bits"),
    "key points": ("keypoints", "{}"),
}
NAMED = 10  # videos or files that are named under each problem


def summarise(notes: Iterable[dict], others: dict[str, list[str]]) -> dict:
    """The report of a build, plain JSON: totals over the notes of all videos.

    `boxes` is `kept` plus all `dropped`. `problems` counts videos by what is wrong with them and names the first, and
    so for `others`, such as detection files without a video.
    """
    report = dict.fromkeys(("videos", *COUNTS), 0)
    dropped: Counter[str] = Counter()
    problems = {problem: list(names) for problem, names in others.items()}
    for note in notes:
        report["videos"] += 1
        for count in COUNTS:
            report[count] += note[count]
        dropped.update(note["dropped"])
        if note["problem"]:
            detail = f" ({note['detail']})" if note["detail"] else ""
            problems.setdefault(note["problem"], []).append(f"{note['video']}{detail}")
    report["dropped"] = dict(sorted(dropped.items()))
    report["problems"] = {
        problem: {"count": len(names), "first": [_printable(name) for name in names[:NAMED]]}
        for problem, names in sorted(problems.items())
    }
    return report


def _limit(reason: str, settings: dict) -> str:
    """The setting that a reason follows from, as in (48 pixels or less: --min-width)."""
    if reason not in LIMITS:
        return ""
    name, words = LIMITS[reason]
    return f" ({words.format(settings[name])}: --{name.replace('_', '-')})"


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def describe_report(report: dict, settings: dict) -> str:
    """The report of a build as text, with the limits of its `settings` (BuildConfig as a dict)."""
    lines = [f"{report['videos']:,} video(s), {report['frames']:,} frames decoded, {report['boxes']:,} boxes"]
    lines.append(f"{report['kept']:>12,}  crops kept")
    if report["clipped"]:
        lines[-1] += f", {report['clipped']:,} of them cut at the frame's edge"
    if report["unscored"]:
        lines.append(f"{report['unscored']:>12,}  boxes have no score: --min-score does not apply to them")
    lines += [
        f"{count:>12,}  dropped: {reason}{_limit(reason, settings)}"
        for reason, count in report["dropped"].items()
        if count
    ]
    for problem, found in report["problems"].items():
        lines.append(f"{found['count']:>12,}  {problem}: " + "; ".join(found["first"]))
        if found["count"] > len(found["first"]):
            lines[-1] += "; …"
    return "\n".join(lines)
