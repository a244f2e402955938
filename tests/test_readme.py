import re
from pathlib import Path

import pytest

from crystalvae.cli import VERBS
from crystalvae.pretrained import shipped_models

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()


def test_ci_runs_the_command_of_the_readme():
    block = re.search(r"## Install and test\n\n```sh\n(.*?)\n```", README, re.DOTALL)
    steps = [step.strip() for step in block.group(1).split("&&")]
    assert steps[-1] in CI
    extras = re.search(r"\[.*\]", steps[-2]).group()
    assert extras in CI


def test_every_verb_is_in_the_readme():
    for verb in VERBS:
        assert f"crystalvae {verb}" in README


def run_example(text, name):
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    scope = {}
    exec(compile(code, name, "exec"), scope)
    return scope


def test_python_example_runs():
    scope = run_example(README, "README.md")
    assert len(scope["again"]) == 5
    assert scope["mine"].composition == scope["crystals"][0].composition


def test_python_example_of_design_runs():
    scope = run_example(DESIGN, "design.md")
    assert len(scope["quick_signs"]) == len(scope["found"]) > 0
    assert scope["between"][0].composition == scope["first"].composition


def test_links_lead_somewhere():
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", file.read_text()):
            if "://" not in link:
                assert (file.parent / link).exists(), f"{file.name} links to {link}"
