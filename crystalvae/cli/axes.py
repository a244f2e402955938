"""``crystalvae axes``: the main axes of the latent space and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import (
    add_machine_options,
    add_refine_option,
    at_least,
    positive,
    seed,
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "axes", help="main axes of the latent space: what goes with them, walks along"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument("dataset", help="structures, prepared or as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "--start", help="a structure in the middle of the walks (the mean of all)"
    )
    parser.add_argument(
        "--axes", type=at_least(1), default=8, help="how many (%(default)s)"
    )
    parser.add_argument(
        "--reach",
        type=positive,
        default=3.0,
        help="standard deviations to both sides (%(default)s)",
    )
    parser.add_argument(
        "--steps", type=at_least(2), default=7, help="points of a walk (%(default)s)"
    )
    parser.add_argument(
        "-n",
        type=at_least(3),
        default=2000,
        help="random structures used (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="of that choice (%(default)s)"
    )
    parser.add_argument("--beta", type=positive, help="the knob (0.3)")
    add_refine_option(parser)
    add_machine_options(parser, "device")


def run(args: argparse.Namespace) -> int:
    """Find the axes, walk along them, plot and write."""
    from dataclasses import asdict

    import numpy as np

    from crystalvae.cli.inputs import one_crystal
    from crystalvae.cli.walk import write_points
    from crystalvae.data.load import chosen_rows, usable_crystals
    from crystalvae.data.packed import PackedDataset
    from crystalvae.data.readers.prepared import is_prepared
    from crystalvae.design.output import open_directory, require_empty, write_table
    from crystalvae.design.settings import refinement_of
    from crystalvae.design.walk import axes_beta, latent_axes, plot_axes, walk_axis
    from crystalvae.errors import DataError
    from crystalvae.model import CrystalVAE

    require_empty(args.output)
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    beta = axes_beta(model) if args.beta is None else args.beta
    model.beta_tensor(beta, 1)
    start = None if args.start is None else one_crystal(model, args.start)
    properties = {}
    if is_prepared(args.dataset):
        dataset = PackedDataset(args.dataset)
        rows = list(chosen_rows(len(dataset), args.n, args.seed))
        crystals = [dataset[row] for row in rows]
        properties = {name: v[rows] for name, v in dataset.properties.items()}
    else:
        crystals = usable_crystals(args.dataset, args.n, args.seed)
    if len(crystals) < 3:
        raise DataError(f"{args.dataset} holds fewer than three usable structures")
    axes = latent_axes(model, crystals, num=args.axes, beta=beta, properties=properties)
    directory = open_directory(args.output)
    amounts = np.linspace(-args.reach, args.reach, args.steps)
    points, texts = [], []
    for axis in range(len(axes.share)):
        found = walk_axis(
            model,
            axes,
            axis,
            start=start,
            reach=args.reach,
            steps=args.steps,
            beta=beta,
            refine=args.refine,
        )
        points += [
            ({"axis": axis + 1, "amount": round(float(amount), 3)}, crystal)
            for amount, crystal in zip(amounts, found)
        ]
        texts.append([None if c is None else f"{c.formula} {c.symbol}" for c in found])
    rows = [
        {
            "axis": axis + 1,
            "variance_share": round(float(axes.share[axis]), 4),
            **{
                name: "" if np.isnan(v[axis]) else round(float(v[axis]), 3)
                for name, v in axes.meaning.items()
            },
        }
        for axis in range(len(axes.share))
    ]
    write_table(directory / "axes.csv", rows)
    plot_axes(axes, texts, directory / "axes.png")
    summary = {
        "model": str(args.model),
        "dataset": str(args.dataset),
        "structures": len(crystals),
        "start": None if start is None else start.formula,
        "n": args.n,
        "seed": args.seed,
        "reach": args.reach,
        "steps": args.steps,
        "beta": beta,
        "refine": asdict(refinement_of(model, args.refine, purpose="design")),
    }
    write_points(directory, points, summary)
    for axis, walk in enumerate(texts):
        known = [pair for pair in axes.meaning.items() if np.isfinite(pair[1][axis])]
        ranked = sorted(known, key=lambda pair: -abs(pair[1][axis]))
        meaning = ", ".join(f"{name} {v[axis]:+.2f}" for name, v in ranked[:4])
        print(f"axis {axis + 1} ({axes.share[axis]:.1%} of the variance): {meaning}")
        print("   " + " → ".join(text or "?" for text in walk))
    print(f"CIFs, axes.csv, axes.png and table in {directory}")
    return 0
