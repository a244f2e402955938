"""Turn the best model of a run into a shipped one, with the card that it needs.

    python tools/ship_model.py runs/mp_20 mp_20 --summary "..." \
        --train mp_20/train --train "mp_20_extra/train (at small beta)" \
        --reconstruction runs/recon/summary.json --generation runs/bench/metrics.json

Called again with other metrics it adds them and leaves the weights alone.
"""

import argparse
import json
import subprocess
from pathlib import Path

import torch

from crystalvae.batch import CrystalStore
from crystalvae.config import from_dict
from crystalvae.data.packed import PackedDataset
from crystalvae.generation import Refinement
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import NETWORKS
from crystalvae.training.fit_prior import fit_prior

TOLD = ("likely_stable_sampling", "prediction_conditions", "design_conditions")
WEIGHTS = Path(__file__).resolve().parents[1] / "crystalvae" / "weights"


def commit() -> str:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return head.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--summary")
    parser.add_argument("--train", action="append", default=[])
    parser.add_argument("--validation")
    parser.add_argument(
        "--licence", help="(MIT; data CC-BY-4.0, where the card has none)"
    )
    parser.add_argument(
        "--sampling",
        type=json.loads,
        help='recommended: {"beta": 1, "temperature": 0.9, "part_temperature": {...}, '
        '"stop_bias": 0.0, "conditions": {...}}',
    )
    parser.add_argument(
        "--flow", type=Path, help="fit a flow prior to this prepared training set"
    )
    for name in NETWORKS:
        parser.add_argument(
            f"--{name}", type=Path, help=f"run of crystalvae train-{name}"
        )
    parser.add_argument(
        "--refinement",
        type=json.loads,
        help='recommended, fields of Refinement: {"passes": 4, "noise": 0.2, ...}',
    )
    parser.add_argument(
        "--prediction-refinement",
        type=json.loads,
        help="exceptions from these for predictions",
    )
    parser.add_argument(
        "--design-refinement",
        type=json.loads,
        help="exceptions for draws around known crystals",
    )
    parser.add_argument(
        "--neighborhood-beta", type=float, help="at which beta these are drawn"
    )
    for name in TOLD:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=json.loads,
            help="of the card: what is told where, and how draws that shall be stable "
            "differ from others",
        )
    parser.add_argument("--reconstruction", type=Path, action="append", default=[])
    parser.add_argument("--generation", type=Path)
    args = parser.parse_args()
    target = WEIGHTS / args.name
    fresh = not (target / "config.json").exists()
    if fresh:
        model = CrystalVAE.from_pretrained(args.run / "best", device="cpu")
        last = torch.load(args.run / "last.pt", map_location="cpu", weights_only=True)
        if last["progress"]["step"] == model.card["step"]:
            beside = {name: getattr(model, name) for name in NETWORKS}
            for name in NETWORKS:
                setattr(model, name, None)
            model.load_state_dict(last["model"])
            for name, network in beside.items():
                setattr(model, name, network)
        model.card["commit"] = commit()
        if args.flow is not None:
            store = CrystalStore.from_packed(PackedDataset(args.flow))
            model = fit_prior(
                model, store, steps=1500, beta_low=0.3, num_betas=3, progress=True
            )
        model.save_pretrained(target)
    for name, (load, save) in NETWORKS.items():
        run = getattr(args, name)
        if run is None:
            continue
        network = load(run / "best")
        if network is None:
            parser.error(f"{run / 'best'} holds nothing that train-{name} made")
        network.card["commit"] = commit()
        save(network, target)
    file = target / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    card = content["card"]
    if args.summary:
        card = {"summary": args.summary, **card}
    if args.train:
        card["training_sets"] = args.train
    if args.validation:
        card["validation_set"] = args.validation
    card.setdefault("licence", "MIT; data CC-BY-4.0")
    if args.licence:
        card["licence"] = args.licence
    if args.sampling is not None:
        card["sampling"] = args.sampling
    if args.neighborhood_beta is not None:
        card["neighborhood_beta"] = args.neighborhood_beta
    for name in ("refinement", "prediction_refinement", "design_refinement"):
        asked = getattr(args, name)
        if asked is not None:
            from_dict(Refinement, asked, f"--{name.replace('_', '-')}: ")
            card[name] = asked
    for name in TOLD:
        if getattr(args, name) is not None:
            card[name] = getattr(args, name)
    metrics = card.setdefault("metrics", {})
    for path in args.reconstruction:
        found = json.loads(path.read_text())
        kept = (
            "structures",
            "match_rate",
            "match_rate_valid",
            "rmse",
            "composition_right",
            "group_right",
        )
        label = "reconstruction" if found["search"] else "reconstruction_one_pass"
        metrics[label] = {k: found[k] for k in (*kept, "beta", "matcher")}
    if args.generation:
        found = json.loads(args.generation.read_text())
        found["settings"]["input"] = args.name
        metrics["generation"] = found
    content["card"] = card
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{target}: {sum(p.stat().st_size for p in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
