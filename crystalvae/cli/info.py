"""``crystalvae info``: what a model is and what it was trained on."""

from __future__ import annotations

import argparse
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalvae.conditions import Quantity
    from crystalvae.model import CrystalVAE

LABEL = 16
"""Columns before the text of a line."""
WIDTH = 100
"""Columns of a line."""
FEW_ELEMENTS = 12
"""So many elements are all named."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("info", help="describe a model, or list the shipped")
    parser.add_argument("model", nargs="?", help="shipped name or directory")
    parser.add_argument(
        "--json", action="store_true", help="print the whole card (or all) as JSON"
    )


def run(args: argparse.Namespace) -> int:
    """Print what a model is, or its card."""
    import json

    from crystalvae.pretrained import load_model, shipped_models

    if args.model is not None:
        model = load_model(args.model, "cpu")
        if args.json:
            print(json.dumps(model.card, indent=1))
            return 0
        for label, text in described(str(args.model), model).items():
            print(_line(label, text))
        return 0
    cards = {
        name: json.loads((path / "config.json").read_text(encoding="utf-8"))["card"]
        for name, path in shipped_models().items()
    }
    if args.json:
        print(json.dumps(cards, indent=1))
        return 0
    for name, card in cards.items():
        print(f"{name:12s} {card.get('summary', '')}")
    return 0


def _line(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label.ljust(LABEL),
        subsequent_indent=" " * LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def described(name: str, model: CrystalVAE) -> dict[str, str]:
    """What to print of a model by label; what its card does not say is left out."""
    from crystalvae.design.neighbors import default_beta
    from crystalvae.design.settings import sampling_defaults

    card, config = model.card, model.config
    how = sampling_defaults(model)
    trained = card.get("trained_on", {})
    sets = card.get("training_sets") or _own_sets(card)
    largest = trained.get("max_atoms")
    lines = {
        "model": name,
        "what it is": card.get("summary"),
        "networks": _networks(model),
        "latent": f"{config.latent.dim} dimensions",
        "trained on": "; ".join(sets),
        "validated on": card.get("validation_set"),
        "elements": _elements(trained.get("elements", [])),
        "largest size": largest and f"{largest} atoms in the primitive cell",
        "beta": f"{config.latent.beta_min:g} to {config.latent.beta_max:g}; "
        f"{how['beta']:g} to sample, {default_beta(model):g} to search around crystals",
        "can be told": _ranges(config.conditions),
        "can estimate": _estimates(model),
        "sampling": _sampling(how),
        "told elsewhere": _told_elsewhere(card),
        "refinement": _refinement(how["refine"]),
        **_metrics(card.get("metrics", {})),
        "licence": card.get("licence"),
    }
    return {label: text for label, text in lines.items() if text}


def _own_sets(card: dict[str, Any]) -> list[str]:
    """What a model that is not shipped was trained on, from what and how long."""
    run = card.get("run", {})
    sources = run.get("data", {}).get("train", [])
    if not sources:
        return []
    said = ", ".join(Path(source["path"]).name for source in sources)
    if "crystals" in card:
        said += f" ({card['crystals']:,} crystals)"
    if run.get("init"):
        said += f", starting from {Path(run['init']).name}"
    if "step" in card:
        said += f", {card['step']:,} steps ({card['epoch']} passes)"
    loss = card.get("validation", {}).get("val_loss")
    return [said if loss is None else f"{said}, validation loss {loss:.2f}"]


def _networks(model: CrystalVAE) -> str:
    named = {
        f"encoder ({model.config.encoder.name})": (model.encoder, model.posterior),
        "decoder": (model.decoder,),
        "prior": (model.prior,),
        "refiner": (model.refiner,),
        "stability network": (model.stability,),
        "property network": (model.properties,),
    }
    found = []
    for name, networks in named.items():
        if networks[0] is not None:
            parameters = sum(p.numel() for n in networks for p in n.parameters())
            found.append(f"{name} {parameters / 1e6:.2f}")
    beside = ("refiner", "stability network", "property network")
    missing = [name for name in beside if named[name][0] is None]
    without = f"; no {', no '.join(missing)}" if missing else ""
    return f"{', '.join(found)} million parameters{without}"


def _elements(symbols: list[str]) -> str:
    from ase.data import atomic_numbers, chemical_symbols

    if len(symbols) <= FEW_ELEMENTS:
        return ", ".join(symbols)
    last = max(atomic_numbers[symbol] for symbol in symbols)
    missing = [s for s in chemical_symbols[1:last] if s not in symbols]
    if not missing:
        return f"{len(symbols)}, H to {chemical_symbols[last]}"
    if len(missing) > len(symbols):
        return f"{len(symbols)}: {', '.join(symbols)}"
    return f"{len(symbols)}, H to {chemical_symbols[last]} without {', '.join(missing)}"


def _sampling(how: dict[str, Any]) -> str:
    parts = [f"temperature {how['temperature']:g}"]
    parts += [f"{part} {value:g}" for part, value in how["part_temperature"].items()]
    if how["stop_bias"]:
        parts.append(f"stop bias {how['stop_bias']:g}")
    if biases := how["element_bias"]:
        low, high = min(biases.values()), max(biases.values())
        parts.append(f"element bias {low:g} to {high:g}")
    parts += [f"{name} {_told(value)}" for name, value in how["conditions"].items()]
    return ", ".join(parts)


def _told(value: float | list[float]) -> str:
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return f"as in the data ({min(value):g} to {max(value):g})"


def _told_elsewhere(card: dict[str, Any]) -> str:
    """What the decoder is told by default where draws are not free."""
    likely = card.get("likely_stable_sampling", {})
    places = {
        "with --likely-stable": likely.get("conditions", {}),
        "around known crystals": card.get("design_conditions", {}),
        "of given compositions": card.get("prediction_conditions", {}),
    }
    said = []
    for place, told in places.items():
        values = [f"{name} {_told(value)}" for name, value in told.items()]
        if values and told is likely.get("conditions"):
            values[-1] += f" (strength {likely.get('condition_strength', 1):g})"
        if values:
            said.append(f"{place} {', '.join(values)}")
    return "; ".join(said)


def _ranges(quantities: list[Quantity]) -> str:
    ranges = [f"{q.name} {q.low:g} to {q.high:g}" for q in quantities]
    return ", ".join(ranges)


def _estimates(model: CrystalVAE) -> str:
    energy = [] if model.stability is None else ["e_above_hull"]
    if model.properties is None:
        return ", ".join(energy)
    return ", ".join([*energy, _ranges(model.properties.config.quantities)])


def _refinement(refine: dict[str, Any]) -> str:
    if not refine["passes"]:
        return "none"
    text = f"{refine['passes']} passes from {refine['noise']:g} Å"
    if refine["limit"] is not None:
        text += f", up to {refine['repeats']} times more above {refine['limit']:g}"
    if refine["bonds"]:
        text += f", no bond below {refine['bonds']:g} of known ones"
    return text


def _metrics(metrics: dict[str, Any]) -> dict[str, str]:
    """The main ones of a card; those that it does not have are left out."""
    lines = {}
    with suppress(KeyError):
        found = metrics["reconstruction"]
        lines["reconstruction"] = (
            f"{_percent(found['match_rate'])} match, RMSE {found['rmse']:.3f} "
            f"({found['structures']:,} structures)"
        )
    with suppress(KeyError):
        found = metrics["generation"]["metrics"]
        lines["generation"] = (
            f"{_percent(found['valid'])} valid, {_percent(found['unique'])} unique, "
            f"{_percent(found['valid_and_novel'])} valid, unique and novel "
            f"({found['draws']:,} draws)"
        )
    with suppress(KeyError):
        found = metrics["prediction"]
        draws = found["draws"]
        best = found[f"best_of_{draws}"]["match_rate"]
        ranked = found.get("ranked_first", {}).get("match_rate")
        drawn = found.get("out_of", draws)
        chosen = "" if drawn == draws else f"of {drawn} draws "
        first = "" if ranked is None else f"{_percent(ranked)} with the best ranked, "
        lines["prediction"] = (
            f"{_percent(found['first']['match_rate'])} match with one structure, "
            f"{first}{_percent(best)} with {draws} "
            f"{chosen}({found['structures']:,} compositions)"
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
