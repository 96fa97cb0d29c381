"""Who may import whom (design): stages use the layers below and never one another; nothing imports the faces."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).parents[1] / "lab"
BELOW = {"errors": set(), "files": set()}
BELOW["data"] = {"errors", "files"}
BELOW["features_on_disk"] = {"errors"}
BELOW["log_file"] = {"errors", "files"}
BELOW["runs"] = {"errors", "files", "data", "features_on_disk", "log_file"}
BELOW["distributed"] = {"errors"}
BELOW["small_maps"] = set()
BELOW["batch_norm"] = set()
BELOW["pixels"] = {"errors"}
BELOW["published"] = set()
BELOW["released"] = {"errors", "files"}
BELOW["weights"] = {"errors", "runs", "released"}
BELOW["backbone"] = {"errors", "files", "data", "runs", "distributed", "small_maps", "batch_norm", "pixels", "weights"}
BELOW["training"] = BELOW["backbone"] | {"backbone"}
for stage in ("pretrain", "finetune", "evaluate"):
    BELOW[stage] = BELOW["backbone"] | {"backbone", "features_on_disk"}
for stage in ("pretrain", "finetune"):
    BELOW[stage] |= {"training"}
BELOW["convert"] = BELOW["backbone"] | {"backbone", "pretrain", "finetune"}
BELOW["export"] = {"errors", "files", "runs", "weights", "backbone"}
BELOW["models"] = BELOW["convert"]
BELOW["machine"] = set()
BELOW["show"] = {"errors", "data", "runs", "backbone", "pretrain", "finetune", "evaluate"}
BELOW["study"] = BELOW["show"] | {"show", "files", "published", "machine", "weights"}
FACES = {
    "cli",
    "verbs",
    "data_verbs",
    "demo",
    "matrix",
    "reproduce",
    "__main__",
}  # may use anything, and nothing uses them but one another


def layer(file: Path) -> str:
    return file.relative_to(LAB).parts[0].removesuffix(".py")


def imported_layers(file: Path) -> set[str]:
    """Layers of `lab` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            names = [node.module] if node.module != "lab" else [f"lab.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("lab.")}
    return found - {"__version__"}


@pytest.mark.parametrize("file", sorted(LAB.rglob("*.py")), ids=lambda file: str(file.relative_to(LAB)))
def test_a_module_imports_only_layers_below_its_own(file):
    own = layer(file)
    if own in FACES or own == "__init__":
        return
    assert own in BELOW, f"{own} is a new layer: say here what it may import"
    assert imported_layers(file) <= BELOW[own] | {own}


@pytest.mark.parametrize(
    "module", ["lab.errors", "lab.runs", "lab.data.readers", "lab.data_verbs", "lab.show.figures", "lab.show.tables"]
)
def test_results_can_be_read_and_shown_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=LAB.parent).returncode == 0


@pytest.mark.parametrize("module", ["lab.verbs", "lab.demo", "lab.evaluate.attention"])
def test_what_runs_on_a_bare_gpu_machine_needs_neither_streamlit_nor_grad_cam(module):
    code = f"import sys, {module}; sys.exit(bool({{'streamlit', 'pytorch_grad_cam'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=LAB.parent).returncode == 0
