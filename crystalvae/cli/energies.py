"""``crystalvae energies``: what a potential says of a data set, to train with."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options, at_least, named

MAKER = "energies"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "energies",
        help="add energies in a potential, and above a hull, to a data set",
    )
    parser.add_argument("data", type=Path, help="data set made by prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="data set")
    parser.add_argument(
        "--reference",
        action="append",
        required=True,
        metavar="DATA",
        help="data set of known crystals that make the hull; may be given several "
        "times",
    )
    parser.add_argument(
        "--potential",
        default="chgnet",
        help="chgnet, sevennet, mace, emt or MODULE:CALLABLE (what makes an ASE "
        "calculator) (%(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=at_least(0),
        default=0,
        help="most steps of a relaxation; 0 takes crystals as they are (%(default)s)",
    )
    parser.add_argument(
        "--relax-some",
        type=at_least(0),
        default=0,
        metavar="N",
        help="relax N crystals, and multiply all energies above the hull by what that "
        "leaves of them in the median: nearly as good for many drafts as relaxing all, "
        "a hundred times faster (%(default)s)",
    )
    add_machine_options(parser, "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Evaluate and write."""
    import numpy as np
    from tqdm import tqdm

    from crystalvae.data.load import open_known
    from crystalvae.data.packed import PackedDataset, require_place, write_packed
    from crystalvae.errors import ConfigError
    from crystalvae.screening.energies import energy_file
    from crystalvae.screening.hull import energies_above
    from crystalvae.screening.potentials import file_name, load_potential
    from crystalvae.screening.stability import FAR_BELOW

    if args.steps and args.relax_some:
        raise ConfigError("with --steps all are relaxed; leave out --relax-some")
    crystals = PackedDataset(args.data)
    known = open_known(args.reference)
    require_place(args.output, MAKER)
    with tqdm(unit="crystal", disable=None if args.progress else True) as bar:
        found = energies_above(
            crystals,
            known,
            load_potential(args.potential),
            energy_file(args.data, args.potential, args.data),
            [energy_file(part, args.potential, args.data) for part in args.reference],
            steps=args.steps,
            relaxed=args.relax_some,
            num_workers=args.workers,
            advance=bar.update,
        )
    doubted = found.above < -FAR_BELOW
    name = file_name(args.potential)
    columns = {
        f"energy_{name}": found.energy,
        f"e_above_hull_{name}": np.where(doubted, np.nan, found.above),
    }
    info = {
        "made_by": MAKER,
        "source": args.data.name,
        "options": {
            "potential": args.potential,
            "reference": named(args.reference),
            "steps": args.steps,
            "relax_some": args.relax_some,
        },
        "left_by_relaxing": found.left,
    }
    write_packed(
        args.output,
        crystals.arrays(),
        crystals.material_ids,
        {**crystals.properties, **columns},
        info,
    )
    judged = int(np.isfinite(found.above).sum())
    print(
        f"{int(np.isfinite(found.energy).sum())} of {len(crystals)} crystals have an "
        f"energy, {judged} of them can be compared with known ones; "
        f"{', '.join(columns)} in {args.output}"
    )
    if args.relax_some:
        print(f"  relaxing leaves {found.left:.0%} of an energy above the hull")
    if doubted.any():
        print(
            f"  {int(doubted.sum())} lie more than {FAR_BELOW} eV/atom below the hull, "
            "whose reference must lack what competes with them: they get no value"
        )
    return 0
