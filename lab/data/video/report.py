"""What became of the videos and their boxes, in numbers and names."""

from collections import Counter
from collections.abc import Iterable

NAMED = 10  # videos or files that are named under each problem


def summarise(notes: Iterable[dict], unused: list[str]) -> dict:
    """The report of a build, plain JSON: totals over the notes of all videos; `unused` detection files have no video.

    `boxes` is `kept` plus all `dropped`. `problems` counts videos by what is wrong with them and names the first.
    """
    report = dict.fromkeys(("videos", "frames", "boxes", "kept", "clipped"), 0)
    dropped: Counter[str] = Counter()
    problems: dict[str, list[str]] = {}
    for note in notes:
        report["videos"] += 1
        for count in ("frames", "boxes", "kept", "clipped"):
            report[count] += note[count]
        dropped.update(note["dropped"])
        if note["problem"]:
            detail = f" ({note['detail']})" if note["detail"] else ""
            problems.setdefault(note["problem"], []).append(f"{note['video']}{detail}")
    if unused:
        problems["detection file without a video"] = unused
    report["dropped"] = dict(sorted(dropped.items()))
    report["problems"] = {
        problem: {"count": len(names), "first": names[:NAMED]} for problem, names in sorted(problems.items())
    }
    return report


def describe_report(report: dict) -> str:
    """The report of a build as text."""
    lines = [f"{report['videos']:,} video(s), {report['frames']:,} frames decoded, {report['boxes']:,} boxes"]
    lines.append(f"{report['kept']:>12,}  crops kept")
    if report["clipped"]:
        lines[-1] += f", {report['clipped']:,} of them cut at the frame's edge"
    lines += [f"{count:>12,}  dropped: {reason}" for reason, count in report["dropped"].items() if count]
    for problem, found in report["problems"].items():
        lines.append(f"{found['count']:>12,}  {problem}: " + "; ".join(found["first"]))
        if found["count"] > len(found["first"]):
            lines[-1] += "; …"
    return "\n".join(lines)
