"""What does each choice buy? Short trainings that differ in one thing.

    python benchmarks/ablations.py -o runs/ablations [--only base gated_encoder ...]

Every file of benchmarks/ablations changes one thing of base.toml. Each is trained with
the same seed; the table shows what is left on validation crystals in nats a crystal:
distortion and rate at the smallest β (what reconstruction suffers from), and the bound
on -log p (distortion + rate) at the largest (what generation suffers from).
"""

import argparse
import csv
import tomllib
from pathlib import Path
from typing import Any

from crystalvae.config import from_dict
from crystalvae.training.config import RunConfig
from crystalvae.training.trainer import Trainer

FOLDER = Path(__file__).resolve().parent / "ablations"


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the entries of ``change`` in the place of its own."""
    result = dict(base)
    for name, value in change.items():
        nested = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if nested else value
    return result


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="names of configs")
    args = parser.parse_args()
    names = args.only or sorted(p.stem for p in FOLDER.glob("*.toml"))
    names = sorted(names, key=lambda name: name != "base")
    base = read(FOLDER / "base.toml")
    print("| | distortion, β min | rate, β min | bound, β max | minutes |")
    print("|---|---|---|---|---|", flush=True)
    for name in names:
        change = {} if name == "base" else read(FOLDER / f"{name}.toml")
        config = from_dict(RunConfig, merged(base, change))
        output = args.output / name
        Trainer(config, FOLDER, output).fit(progress=True, resume=True)
        with (output / "metrics.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        bound = float(last["val_distortion_high"]) + float(last["val_kl_high"])
        print(
            f"| {name.replace('_', ' ')} | {float(last['val_distortion_low']):.2f} "
            f"| {float(last['val_kl_low']):.1f} | {bound:.2f} | {last['minutes']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
