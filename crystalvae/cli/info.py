"""``crystalvae info``: what a model is and what it was trained on."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("info", help="describe a model, or list the shipped")
    parser.add_argument("model", nargs="?", help="shipped name or directory")


def run(args: argparse.Namespace) -> int:
    """Print the card."""
    import json

    from crystalvae.pretrained import load_model, shipped_models

    if args.model is None:
        for name, path in shipped_models().items():
            card = json.loads((path / "config.json").read_text(encoding="utf-8"))[
                "card"
            ]
            print(f"{name:12s} {card.get('summary', '')}")
        return 0
    model = load_model(args.model, "cpu")
    beside = {"refiner": model.refiner, "stability": model.stability}
    model.refiner = model.stability = None
    parameters = sum(p.numel() for p in model.parameters())
    print(f"model       {args.model}")
    print(f"parameters  {parameters / 1e6:.2f} million")
    print(f"encoder     {model.config.encoder.name}")
    latent = model.config.latent
    knob = f"beta {latent.beta_min} to {latent.beta_max}"
    print(f"latent      {latent.dim} dimensions, {knob}")
    for name, network in beside.items():
        if network is not None:
            size = sum(p.numel() for p in network.parameters())
            print(f"{name:11s} {size / 1e6:.2f} million parameters")
    for key, value in model.card.items():
        if key not in ("run", "parts"):
            text = json.dumps(value) if isinstance(value, (dict, list)) else value
            print(f"{key:11s} {text}")
    return 0
