import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "crystalvae"
LAYER = {
    "errors": 0,
    "config": 0,
    "files": 0,
    "parallel": 1,
    "geometry": 1,
    "symmetry": 2,
    "cif": 2,
    "crystal": 2,
    "graph": 2,
    "data": 3,
    "batch": 3,
    "screening": 4,
    "nn": 4,
    "conditions": 5,
    "latent": 5,
    "encoders": 6,
    "heads": 6,
    "decoder": 7,
    "refinement": 7,
    "stability": 7,
    "properties": 7,
    "prior": 7,
    "model_config": 8,
    "model": 8,
    "pretrained": 8,
    "generation": 9,
    "benchmark": 9,
    "training": 10,
    "design": 10,
    "cli": 11,
    "__init__": 11,
    "__main__": 12,
}
MODULES = sorted(ROOT.rglob("*.py"))


def layer_of(path):
    return LAYER[path.relative_to(ROOT).with_suffix("").parts[0]]


def top_level_imports(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "crystalvae."
        ):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    for name in top_level_imports(path):
        assert LAYER[name] <= layer_of(path), f"{path} imports {name}"


def test_data_and_screening_know_no_model():
    for part in ("data", "screening"):
        for path in (ROOT / part).rglob("*.py"):
            assert not {"model", "nn", "decoder"} & set(top_level_imports(path))
            assert "import torch" not in path.read_text()


def test_imports_are_silent_and_change_nothing(tmp_path):
    names = [
        "crystalvae." + ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in MODULES
        if p.stem not in ("__init__", "__main__")
    ]
    code = f"import importlib\nfor n in {names!r}: importlib.import_module(n)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_no_file_is_too_long():
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 400, path
