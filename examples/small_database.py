"""Fine-tune a shipped model on a small database of your own.

    python examples/small_database.py [--cifs my_cifs/]

Without --cifs, 300 idealised spinels and perovskites of the built-in set stand for your
database. The script prepares it, drops copies, splits it, fine-tunes the shipped MP-20
model with small_database.toml, and draws from the model before and after, both at the
largest β: how many draws are in a space group of the database, how many have new
formulas, how many are distinct, and how many of its held-out crystals come back. It
trains at three learning rates and takes the model of the least validation loss.
"""

import argparse
import math
import random
import time
from pathlib import Path

from crystalvae import CrystalVAE
from crystalvae.cli import main as crystalvae
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.design.reconstruct import reconstruct
from crystalvae.design.sample import draw_checked
from crystalvae.screening.uniqueness import duplicate_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / "runs" / "small"
FAMILIES = ("perovskite", "spinel")
SIZE = 300
LEAST = 10
"""Different crystals that are worth a training."""
BETA = 3.0
"""At which z says next to nothing: draws are what the model has learned of all."""
STEPS, EPOCHS, BATCH = 160, 20, 64
"""Fewest steps and passes, and crystals a step (of small_database.toml)."""
RATES = (2e-4, 1e-4, 5e-5)
"""Learning rates that are tried: crystals all alike, and unlike the shipped model's,
want the largest, varied ones the smallest."""


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


def split(prepared: PackedDataset, share: float = 0.15) -> dict[str, list]:
    """Training and validation crystals of a data set, copies left out."""
    crystals = list(prepared)
    firsts = enumerate(duplicate_of(crystals))
    rows = [row for row, first in firsts if row == first]
    random.Random(1).shuffle(rows)
    held_out = max(1, round(share * len(rows)))
    parts = {"val": rows[:held_out], "train": rows[held_out:]}
    for part, own in parts.items():
        names = [prepared.material_ids[row] for row in own]
        numbers = {name: v[own] for name, v in prepared.properties.items()}
        write_packed(ROOT / part, pack([crystals[row] for row in own]), names, numbers)
    return {part: [crystals[row] for row in own] for part, own in parts.items()}


def judge(label: str, model: CrystalVAE, train: list, held_out: list) -> None:
    """Print what a model draws and what it reconstructs in one pass."""
    groups = {crystal.number for crystal in train}
    kept, _ = draw_checked(model, 200, seed=0, beta=BETA, temperature=1.0)
    drawn = [draw.crystal for draw in kept]
    inside = sum(crystal.number in groups for crystal in drawn) / len(drawn)
    known = {crystal.formula for crystal in train}
    novel = sum(crystal.formula not in known for crystal in drawn) / len(drawn)
    distinct = len(set(duplicate_of(drawn))) / len(drawn)
    again = reconstruct(model, held_out)
    right = sum(
        a is not None and a.composition == b.composition and a.number == b.number
        for a, b in zip(again, held_out)
    ) / len(held_out)
    print(
        f"{label:8s} draws in a group of the database {inside:6.1%}, with a formula "
        f"that it lacks {novel:6.1%}, distinct {distinct:6.1%}; held-out composition "
        f"and group right {right:6.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifs", type=Path, help="your own: what prepare reads")
    args = parser.parse_args()
    if ROOT.exists():
        parser.error(f"{ROOT} holds an earlier run; move it away or delete it")
    cifs = args.cifs
    if cifs is None:
        cifs = ROOT / "cifs"
        stand_in(cifs)
    if crystalvae(["prepare", str(cifs), "-o", str(ROOT / "all")]):
        parser.exit(1)
    parts = split(PackedDataset(ROOT / "all"))
    train, held_out = parts["train"], parts["val"]
    if len(train) + len(held_out) < LEAST:
        parser.error(f"{cifs} holds fewer than {LEAST} different crystals")
    judge("before", CrystalVAE.from_pretrained("mp_20"), train, held_out)
    began = time.perf_counter()
    config = HERE / "small_database.toml"
    epochs = max(EPOCHS, math.ceil(STEPS / max(1, len(train) // BATCH)))
    losses = {}
    for rate in RATES:
        output = ROOT / f"model_{rate:g}"
        asked = ["--set", f"training.epochs={epochs}"]
        asked += ["--set", f"training.learning_rate={rate}"]
        if crystalvae(["train", str(config), "-o", str(output), *asked]):
            parser.exit(1)
        best = output / "best"
        losses[best] = CrystalVAE.from_pretrained(best).card["validation"]["val_loss"]
    minutes = (time.perf_counter() - began) / 60
    print(f"fine-tuned {len(RATES)} times in {minutes:.1f} minutes")
    best = min(losses, key=losses.get)
    judge("after", CrystalVAE.from_pretrained(best), train, held_out)
    print(f"the best of these models is {best}")


if __name__ == "__main__":
    main()
