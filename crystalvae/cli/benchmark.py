"""``crystalvae benchmark``: metrics of a model's raw draws, or of any structures."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import (
    add_draw_options,
    add_machine_options,
    draw_options,
    named,
)
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "benchmark", help="generation metrics of a model or of any structures"
    )
    parser.add_argument(
        "input", help="shipped model, model directory, or structures as for prepare"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "--reference", help="data set whose distributions are the target (held out)"
    )
    parser.add_argument(
        "--train",
        action="append",
        metavar="DATA",
        help="data set against which novelty is judged; may be given several times, "
        "the first is the one that the reference's own distances are taken from",
    )
    parser.add_argument(
        "-n", type=int, default=1000, help="draws, or structures used (%(default)s)"
    )
    add_draw_options(parser)
    parser.add_argument(
        "--coverage",
        choices=("mp_20", "perov_5", "carbon_24"),
        help="also COV-R and COV-P with this benchmark's cut-offs (slow)",
    )
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Measure and write."""
    import json
    import random

    from tqdm import tqdm

    from crystalvae.benchmark.coverage import (
        CUTOFFS,
        coverage,
        fingerprints,
        require_featurizers,
    )
    from crystalvae.benchmark.generation import generation_metrics
    from crystalvae.benchmark.report import metrics_table
    from crystalvae.data.load import load_crystals, usable_crystals
    from crystalvae.design.output import open_directory, write_text
    from crystalvae.design.sample import raw_draws
    from crystalvae.design.settings import sampling_defaults
    from crystalvae.errors import ConfigError
    from crystalvae.model import CrystalVAE
    from crystalvae.pretrained import CONFIG_FILE, shipped_models

    if args.n < 2:
        raise ConfigError("-n must be at least 2")
    if args.coverage is not None and args.reference is None:
        raise ConfigError("--coverage needs a --reference")
    if args.coverage is not None:
        require_featurizers()
    drawn = args.input in shipped_models() or (Path(args.input) / CONFIG_FILE).exists()
    asked = [*draw_options(args).values(), args.prior]
    if not drawn and any(option is not None for option in asked):
        raise ConfigError(
            f"{shown(args.input)} holds structures; how to draw can be said of models "
            "only"
        )
    if drawn:
        model = CrystalVAE.from_pretrained(args.input, device=args.device)
        how = sampling_defaults(model, **draw_options(args))
    reference = None if args.reference is None else usable_crystals(args.reference)
    sets = [usable_crystals(path) for path in args.train or ()]
    train = [crystal for part in sets for crystal in part] if sets else None
    directory = open_directory(args.output)
    settings = {
        "input": shown(args.input),
        "n": args.n,
        "seed": args.seed,
        "reference": args.reference and shown(args.reference),
        "train": named(args.train),
    }
    if drawn:
        crystals = raw_draws(
            model,
            args.n,
            seed=args.seed,
            num_workers=args.workers,
            **draw_options(args),
            prior=args.prior,
        )
        settings |= how
        settings |= {"prior": args.prior} if args.prior else {}
    else:
        crystals = load_crystals(args.input, args.n, args.seed)
    metrics = generation_metrics(crystals, reference, train, num_workers=args.workers)
    floor, chance = None, random.Random(args.seed)
    if reference is not None:
        held_out = chance.sample(reference, min(args.n, len(reference)))
        first = sets[0] if sets else None
        floor = generation_metrics(held_out, first, train, num_workers=args.workers)
    if args.coverage is not None:
        cutoffs = CUTOFFS[args.coverage]
        disable = None if args.progress else True

        def features(drawn: list, home: Path) -> tuple:
            kept = [crystal for crystal in drawn if crystal is not None]
            with tqdm(total=len(kept), unit="crystal", disable=disable) as bar:
                return fingerprints(
                    kept,
                    num_workers=args.workers,
                    cached=home / "coverage.npz",
                    advance=bar.update,
                )

        target = features(held_out, _home(args.reference, directory))
        own = features(crystals, directory)
        metrics.update(coverage(own, target, cutoffs, len(crystals)))
        if train is not None:
            known = chance.sample(sets[0], min(len(sets[0]), len(crystals)))
            own = features(known, _home(args.train[0], directory))
            floor.update(coverage(own, target, cutoffs, len(known)))
    table = metrics_table(metrics, floor)
    content = {"settings": settings, "metrics": metrics, "data": floor}
    write_text(directory / "metrics.json", json.dumps(content, indent=1) + "\n")
    write_text(directory / "metrics.md", table + "\n")
    print(table)
    return 0


def _home(path: str, otherwise: Path) -> Path:
    """Where the fingerprints of a set are kept: beside it if it is packed."""
    from crystalvae.data.readers.prepared import is_prepared

    return Path(path) if is_prepared(path) else otherwise
