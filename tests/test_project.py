"""The set-up files agree with one another and with the README."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_conda_environment_installs_this_project_and_no_other_python():
    text = (ROOT / "environment.yml").read_text()
    assert re.findall(r"^\s+- python(\S+)$", text, re.M) == [PROJECT["requires-python"]]
    pip_section = text.split("- pip:")[1]
    installed = re.findall(r"^\s+- (.+)$", pip_section, re.M)
    assert installed == ["-e .[dev]"], "the pip section installs the project, pyproject.toml says what it needs"
    assert "dev" in PROJECT["optional-dependencies"]
    conda_section = text.split("dependencies:")[1].split("- pip:")[0]
    names = {re.split(r"[<>=]", name)[0] for name in re.findall(r"^\s+- (.+)$", conda_section, re.M)}
    packages = {re.split(r"[<>=\[]", name)[0] for name in PROJECT["dependencies"]}
    assert not names & packages, "a package in both lists could get two versions"


def test_every_dependency_has_a_lower_bound():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert [name for group in groups for name in group if ">=" not in name] == []


def test_the_packages_that_the_lab_is_made_of_are_dependencies():
    names = {re.split(r"[<>=\[]", name)[0] for name in PROJECT["dependencies"]}
    assert names >= {"jupyterlab", "streamlit", "torch", "torchvision", "matplotlib", "plotly", "pandas", "grad-cam"}


def test_the_readme_names_commands_that_exist():
    from lab.cli import VERBS

    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", readme, re.M):
        assert f"\n{target}:" in makefile
    for line in re.findall(r"^lab (\S+ ?\S*)", readme, re.M):
        assert any(line == verb or line.startswith(f"{verb} ") or line.split()[0] == verb for verb in VERBS), line


def test_ci_runs_the_readme_s_own_commands():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script
    assert "make demo APP=0" in script
