"""What CrystalVAE exists to beat: mean squared errors, a free lattice, no symmetry.

    python benchmarks/naive.py runs/data/mp_20_train runs/data/mp_20_val -o naive
    crystalvae benchmark naive/generated.extxyz --reference ... --train ... -o out
    python benchmarks/naive.py ... --coords cartesian -o naive_cartesian

A β-VAE over padded lists of atoms: a perceptron encodes elements, coordinates and the
3×3 lattice into a latent of the same size as ours; another emits the elements (cross
entropy) and plain numbers for coordinates and lattice (mean squared error, no minimum
image, no group). Atoms are sorted by element and coordinates. Prints the match rate of
reconstructions at the benchmark's tolerances and writes draws from N(0, I) to extxyz.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import write
from pymatgen.core import Lattice, Structure
from torch import Tensor, nn

from crystalvae.benchmark.matching import match_rate
from crystalvae.data.packed import PackedDataset

SLOTS = 20
ELEMENTS = 119


def to_rows(dataset: PackedDataset, limit: int, cartesian: bool) -> tuple[Tensor, ...]:
    """Elements ``(N, 20)``, coordinates ``(N, 20, 3)`` and lattices ``(N, 9)``."""
    species, coords, lattices = [], [], []
    for row in range(len(dataset)):
        if len(species) >= limit:
            break
        lattice, frac, z, _ = dataset[row].expand_primitive()
        if len(z) > SLOTS:
            continue
        frac = frac - np.floor(frac)
        order = np.lexsort((*frac.T[::-1], z))
        place = frac[order] @ lattice if cartesian else frac[order]
        species.append(np.pad(z[order], (0, SLOTS - len(z))))
        coords.append(np.pad(place, ((0, SLOTS - len(z)), (0, 0))))
        lattices.append(lattice.ravel())
    return (
        torch.as_tensor(np.array(species), dtype=torch.long),
        torch.as_tensor(np.array(coords), dtype=torch.float),
        torch.as_tensor(np.array(lattices), dtype=torch.float),
    )


class NaiveVAE(nn.Module):
    """Perceptrons on both sides of a Gaussian latent."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.embed = nn.Embedding(ELEMENTS, 32)
        size = SLOTS * (32 + 3) + 9

        def perceptron(into: int, out: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(into, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, out),
            )

        self.encoder = perceptron(size, 2 * dim)
        self.decoder = perceptron(dim, SLOTS * (ELEMENTS + 3) + 9)

    def encode(self, species: Tensor, coords: Tensor, lattice: Tensor):
        parts = [self.embed(species).flatten(1), coords.flatten(1), lattice]
        mu, logvar = self.encoder(torch.cat(parts, -1)).chunk(2, -1)
        return mu, logvar.clamp(-12, 3)

    def decode(self, z: Tensor):
        out = self.decoder(z)
        atoms = out[:, :-9].view(len(z), SLOTS, ELEMENTS + 3)
        return atoms[..., :ELEMENTS], atoms[..., ELEMENTS:], out[:, -9:]


def train(model, rows, epochs: int, beta: float) -> None:
    steps = epochs * (len(rows[0]) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        index = torch.randint(len(rows[0]), (128,))
        species, coords, lattice = (values[index] for values in rows)
        mu, logvar = model.encode(species, coords, lattice)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        logits, placed, cell = model.decode(z)
        real = (species > 0)[..., None]
        element = nn.functional.cross_entropy(
            logits.flatten(0, 1), species.flatten(), reduction="sum"
        )
        errors = ((placed - coords) ** 2 * real).sum() + ((cell - lattice) ** 2).sum()
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        loss = (element + 10 * errors + beta * kl) / len(index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 1000 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss:.3f}, rate {kl / len(index):.1f} nats")


def to_atoms(species, coords, lattices, cartesian: bool) -> list[Atoms]:
    """Crystals of the rows of :func:`to_rows`, whatever they look like."""
    kind = "positions" if cartesian else "scaled_positions"
    return [
        Atoms(z[z > 0], **{kind: place[z > 0]}, cell=cell, pbc=True)
        for z, place, cell in zip(
            species.numpy(), coords.numpy(), lattices.view(-1, 3, 3).numpy()
        )
    ]


@torch.no_grad()
def emit(model, z: Tensor, cartesian: bool) -> list[Atoms]:
    logits, coords, lattices = model.decode(z)
    return to_atoms(logits.argmax(-1), coords, lattices, cartesian)


def as_structure(atoms: Atoms) -> Structure | None:
    if not len(atoms) or abs(atoms.cell.volume) < 0.1:
        return None
    return Structure(
        Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--coords", choices=("fractional", "cartesian"))
    parser.add_argument("--beta", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    torch.manual_seed(0)
    cartesian = args.coords == "cartesian"
    rows = to_rows(PackedDataset(args.train), 10**9, cartesian)
    held_out = to_rows(PackedDataset(args.val), 500, cartesian)
    model = NaiveVAE(256, 1024)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")
    train(model, rows, args.epochs, args.beta)
    with torch.no_grad():
        mu, _ = model.encode(*held_out)
    again = [as_structure(atoms) for atoms in emit(model, mu, cartesian)]
    truth = [as_structure(atoms) for atoms in to_atoms(*held_out, cartesian)]
    found = match_rate(again, truth)
    print(f"reconstruction: match rate {found.rate:.4f}, RMSE {found.rmse:.4f}")
    args.output.mkdir(parents=True, exist_ok=True)
    draws = emit(model, torch.randn(args.draws, 256), cartesian)
    write(args.output / "generated.extxyz", draws)


if __name__ == "__main__":
    main()
