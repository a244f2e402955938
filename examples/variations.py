"""Crystals around a known one: encode it, step away in the latent, decode, write CIFs.

    python examples/variations.py material.cif -o variations --model mp_20

Small steps change coordinates, larger ones elements, then the structure type.
"""

import argparse
from pathlib import Path

import torch
from pymatgen.core import Structure

from crystalvae import AsymmetricUnit, CrystalVAE
from crystalvae.design.sample import check_crystal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cif", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("variations"))
    parser.add_argument("--model", default="mp_20")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("-n", type=int, default=8, help="draws at each step size")
    args = parser.parse_args()
    model = CrystalVAE.from_pretrained(args.model)
    known = AsymmetricUnit.from_structure(Structure.from_file(args.cif))
    print(f"around {known}")
    mean = model.encode([known], args.beta).mu
    generator = torch.Generator().manual_seed(0)
    args.output.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for size in (0.0, 0.2, 0.4, 0.7, 1.0):
        noise = torch.randn(args.n, mean.shape[1], generator=generator)
        for crystal in model.decode(mean + size * noise, beta=args.beta):
            if crystal is None or repr(crystal) in seen:
                continue
            seen.add(repr(crystal))
            failed = [
                name
                for name, result in check_crystal(crystal).items()
                if result.passed is False
            ]
            print(f"step {size:.1f}  {crystal}  {', '.join(failed) or 'passes'}")
            name = f"{len(seen):03d}-{crystal.formula}.cif"
            (args.output / name).write_text(crystal.to_cif())


if __name__ == "__main__":
    main()
