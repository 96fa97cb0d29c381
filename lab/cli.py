"""The `lab` command: finds the verb, parses its settings, and turns bad input into one sentence and exit code 2.

The verbs themselves are the functions of `lab.verbs` and `lab.data_verbs`, which are imported only when one is called, so that
`lab --help` answers at once.
"""

import contextlib
import functools
import importlib
import inspect
import os
import sys

from lab import __version__
from lab.errors import InputError, Stopped

VERBS = {
    "demo": "the whole story at size tiny on synthetic people, then the explorer",
    "data check": "layout, counts against the published ones, what was skipped and why",
    "data synth": "write the synthetic people as a Market-1501 style folder",
    "data download": "LUPerson's list of videos, or yours, as a manifest and yt-dlp commands",
    "data build": "cut the people out of videos into a store of crops",
    "data merge": "the shards of a build on several machines become one store",
    "data import": "LUPerson's LMDB, image folders or tar shards become a store",
    "data export": "a store as JPEG files or as WebDataset tar shards",
    "data info": "counts, sizes, colours, tracklets and keys of a store or folder",
    "data overlap": "are images of a test set among the crops to pre-train on?",
    "pretrain": "pre-train a trunk without labels (MoCo v2 with LUPerson's changes)",
    "finetune": "fine-tune MGN on a labelled data set",
    "evaluate": "rank lists, CMC, mAP, mINP of a run, of weights, a baseline or feature files",
    "compare": "runs beside one another: intervals of their means, paired tests, where they differ",
    "matrix": "every model on every data set: mAP and rank-1, and what each was trained on",
    "convert": "weights from one layout into another, with a load report",
    "download": "a file that LUPerson's authors released, with its terms and a checksum",
    "export": "the descriptor of a run or a weights file as an ONNX file, checked against torch",
    "reproduce": "LUPerson's table: our numbers beside the published ones, with commands and GPU hours",
    "study": "the paper's claims in miniature: a grid of runs with several seeds, and a verdict for each claim",
    "study report": "tables, figures and verdicts of a study, from its runs or from its committed tables",
    "app": "open the explorer on a folder of runs",
}

SHARED = ("pretrain", "finetune", "evaluate")  # verbs whose work several processes share
APART = ("data build",)  # each process does a share on its own


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 success, 2 wrong usage or bad input, 130 interrupted, 141 not read to the end.

    A training that SIGTERM stopped has saved everything and counts as a success.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["-h"], ["--help"], ["data", "-h"], ["data", "--help"]):
        print(overview("data" if "data" in arguments else ""))
        return
    if arguments == ["--version"]:
        print(f"lab {__version__}")
        return
    words = 2 if arguments[:1] == ["data"] or arguments[:2] == ["study", "report"] else 1
    verb = " ".join(arguments[:words])
    if verb not in VERBS:
        _fail(f"there is no verb '{verb}'; choose among {', '.join(VERBS)} (lab --help explains them)")
    try:
        with _processes(verb):
            call(verb, arguments[words:])
    except InputError as error:
        # one that was raised in a data-loading process arrives with that process's traceback in front of it
        _fail(str(error).strip().splitlines()[-1].removeprefix("lab.errors.InputError: "))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        sys.exit(141)  # as the shell reports a program that nobody reads any more
    except Stopped as stop:
        if os.environ.get("RANK", "0") == "0":
            print(f"\nlab: {stop}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":
            print(f"\nlab: {str(stop) or 'stopped; what was written so far is kept'}", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def _processes(verb: str):
    """Join the other processes if torchrun started this one; only the first of them prints."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or verb in APART:
        yield
        return
    if verb not in SHARED:
        raise InputError(f"{verb} runs in one process and torchrun started {os.environ['WORLD_SIZE']}; start it alone")
    from lab.distributed import is_first, processes

    with processes(), open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
        if not is_first():
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


def overview(group: str = "") -> str:
    """What `lab --help` prints, or with a group, `lab data --help`."""
    lines = [f"  lab {verb:<14} {sentence}" for verb, sentence in VERBS.items() if verb.startswith(group)]
    usage = f"usage: lab {group and f'{group} '}VERB [OPTIONS]"
    return "\n".join(
        [usage, "", *lines, "", f"lab {group and f'{group} '}VERB --help lists every setting with its default."]
    )


def call(verb: str, arguments: list[str]) -> None:
    """Let tyro make the verb's command line from its signature; --size picks the defaults of its settings."""
    import tyro

    module = importlib.import_module("lab.data_verbs" if verb.startswith("data ") else "lab.verbs")
    function = getattr(module, verb.replace(" ", "_"))
    parameters = inspect.signature(function).parameters
    if "size" in parameters and _value_of("--size", arguments) == "tiny":
        function = functools.partial(function, config=type(parameters["config"].default).tiny())
    description = inspect.getdoc(getattr(module, verb.replace(" ", "_"))).split("\n\nArgs:")[0]
    tyro.cli(function, args=arguments, prog=f"lab {verb}", description=description)


def _value_of(option: str, arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def _fail(sentence: str) -> None:
    rank = int(os.environ.get("RANK", 0))  # of the processes that torchrun started, any may be the one that fails
    print(f"lab{f' (process {rank})' if rank else ''}: {sentence}", file=sys.stderr)
    sys.exit(2)
