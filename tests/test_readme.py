import re
from pathlib import Path

import pytest

from crystalvae.cli import VERBS
from crystalvae.pretrained import shipped_models

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
CI = (Path(__file__).resolve().parents[1] / ".ci" / "run").read_text()


def test_ci_runs_the_command_of_the_readme():
    block = re.search(r"## Install and test\n\n```sh\n(.*?)\n```", README, re.DOTALL)
    steps = [step.strip() for step in block.group(1).split("&&")]
    assert steps[-1] in CI
    extras = re.search(r"\[.*\]", steps[-2]).group()
    assert extras in CI


def test_every_verb_is_in_the_readme():
    for verb in VERBS:
        assert f"crystalvae {verb}" in README


def test_python_example_runs():
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert len(scope["again"]) == 5
    assert scope["mine"].composition == scope["crystals"][0].composition
