"""Fine-tune a shipped model on a small database of your own.

    python examples/small_database.py [--cifs my_cifs/]

Without --cifs, 300 idealised spinels and perovskites of the built-in set stand for your
database. The script splits it, prepares it, fine-tunes the shipped MP-20 model with
small_database.toml, and draws from the model before and after: how many draws are in a
space group of the database, and how many of its held-out crystals are reconstructed.
"""

import argparse
import math
import random
import shutil
import time
from pathlib import Path

from crystalvae import CrystalVAE
from crystalvae.cli import main as crystalvae
from crystalvae.data.packed import PackedDataset
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.design.reconstruct import reconstruct

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / "runs" / "small"
FAMILIES = ("perovskite", "spinel")
SIZE = 300
LEAST = 10
"""Files that are worth a training."""
STEPS, EPOCHS, BATCH = 160, 20, 64
"""Fewest steps and passes, and crystals a step (of small_database.toml)."""


def stand_in(folder: Path) -> None:
    """Write CIFs of two families of the built-in data set."""
    folder.mkdir(parents=True)
    every = [
        (name, crystal)
        for name, crystal in prototype_crystals()
        if name.split("-")[0] in FAMILIES
    ]
    for name, crystal in random.Random(0).sample(every, min(SIZE, len(every))):
        (folder / f"{name}.cif").write_text(crystal.to_cif(name=name))


def split(folder: Path, share: float = 0.15) -> tuple[Path, Path]:
    """Copy the CIFs of a folder to a training and a validation folder."""
    files = sorted(folder.glob("*.cif"))
    random.Random(1).shuffle(files)
    held_out = max(1, round(share * len(files)))
    parts = {"val": files[:held_out], "train": files[held_out:]}
    for part, chosen in parts.items():
        target = ROOT / f"{part}_cifs"
        target.mkdir(parents=True)
        for file in chosen:
            shutil.copy(file, target)
    return ROOT / "train_cifs", ROOT / "val_cifs"


def judge(label: str, model: CrystalVAE, train: list, held_out: list) -> None:
    """Print what a model draws and what it reconstructs in one pass."""
    groups = {crystal.number for crystal in train}
    drawn = model.sample(200, seed=0)
    inside = sum(crystal.number in groups for crystal in drawn) / len(drawn)
    known = {crystal.formula for crystal in train}
    novel = sum(crystal.formula not in known for crystal in drawn) / len(drawn)
    again = reconstruct(model, held_out)
    right = sum(
        a is not None and a.composition == b.composition and a.number == b.number
        for a, b in zip(again, held_out)
    ) / len(held_out)
    print(
        f"{label:8s} draws in a group of the database {inside:6.1%}, with a formula "
        f"that it lacks {novel:6.1%}; held-out composition and group right {right:6.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifs", type=Path, help="folder of your own CIF files")
    args = parser.parse_args()
    cifs = args.cifs
    if cifs is not None and len(list(cifs.glob("*.cif"))) < LEAST:
        parser.error(f"{cifs} holds fewer than {LEAST} files *.cif")
    if ROOT.exists():
        parser.error(f"{ROOT} holds an earlier run; move it away or delete it")
    if cifs is None:
        cifs = ROOT / "cifs"
        stand_in(cifs)
    for folder in split(cifs):
        output = ROOT / folder.name.removesuffix("_cifs")
        if crystalvae(["prepare", str(folder), "-o", str(output)]):
            parser.exit(1)
    train, held_out = (list(PackedDataset(ROOT / part)) for part in ("train", "val"))
    judge("before", CrystalVAE.from_pretrained("mp_20"), train, held_out)
    began = time.perf_counter()
    config = HERE / "small_database.toml"
    epochs = max(EPOCHS, math.ceil(STEPS / max(1, len(train) // BATCH)))
    asked = ["--set", f"training.epochs={epochs}"]
    if crystalvae(["train", str(config), "-o", str(ROOT / "model"), *asked]):
        parser.exit(1)
    print(f"fine-tuned in {(time.perf_counter() - began) / 60:.1f} minutes")
    model = CrystalVAE.from_pretrained(ROOT / "model" / "best")
    judge("after", model, train, held_out)


if __name__ == "__main__":
    main()
