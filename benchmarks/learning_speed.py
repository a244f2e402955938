"""How soon is a model of one's own data usable? The goals against training minutes.

    python benchmarks/learning_speed.py configs/perov_5.toml \
        --val perov_5/val.csv.gz -o runs/learning

Full runs of 1, 3, 9, ... epochs, each from the config's ``init`` and from nothing, are
measured on validation crystals: reconstruction in one pass, validity of draws at the
largest β and temperature 1, and prediction from composition with one draw and 20.
Writes ``learning.csv`` and ``learning.png``.
"""

import argparse
import dataclasses
from itertools import islice
from pathlib import Path

from crystalvae.benchmark.generation import generation_metrics
from crystalvae.benchmark.matching import match_rate
from crystalvae.benchmark.prediction import compare
from crystalvae.config import read_toml
from crystalvae.data.load import usable_crystals
from crystalvae.design.output import write_table
from crystalvae.design.predict import predict
from crystalvae.design.reconstruct import reconstruct
from crystalvae.design.sample import draws
from crystalvae.model import CrystalVAE
from crystalvae.training.config import RunConfig
from crystalvae.training.trainer import Trainer

CURVES = {
    "reconstruction": "reconstructed in one pass",
    "valid": "draws valid in structure and charge",
    "unique": "draws unique",
    "predicted_1": "predicted, 1 draw",
    "predicted_20": "predicted, 20 draws",
}


def measure(model: CrystalVAE, crystals: list, num: int) -> dict[str, float]:
    known = [crystal.to_structure() for crystal in crystals]
    again = reconstruct(model, crystals)
    found = [None if c is None else c.to_structure() for c in again]
    match = match_rate(found, known)
    drawn = list(
        islice(draws(model, temperature=1.0, refine={"passes": 0}, batch_size=num), num)
    )
    made = generation_metrics(drawn, crystals)
    some = crystals[: num // 4]
    wanted = [crystal.composition for crystal in some]
    guesses = predict(model, wanted, 20, refine={"passes": 0})
    prediction = compare(guesses, some, polymorphs=False).metrics
    return {
        "reconstruction": match.rate,
        "rmse": match.rmse,
        "valid": made["valid"],
        "unique": made["unique"],
        "density_wasserstein": made["density_wasserstein"],
        "predicted_1": prediction["first"]["match_rate"],
        "predicted_20": prediction["best_of_20"]["match_rate"],
    }


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for start, line in (("init", "-"), ("nothing", ":")):
        own = [row for row in rows if row["start"] == start]
        for number, (name, label) in enumerate(CURVES.items()):
            axes.plot(
                [row["minutes"] for row in own],
                [100 * row[name] for row in own],
                line,
                marker="o",
                color=f"C{number}",
                label=label if start == "init" else None,
            )
    axes.set_xscale("log")
    minutes = sorted({row["minutes"] for row in rows})
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= minutes[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(minutes[0] / 1.2, minutes[-1] * 1.2)
    axes.set_xlabel("minutes of training (solid: fine-tuned, dotted: from nothing)")
    axes.set_ylabel("%")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--val", required=True, help="structures to measure on")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 9, 27])
    parser.add_argument("-n", type=int, default=400, help="crystals, and draws")
    args = parser.parse_args()
    base = read_toml(RunConfig, args.config)
    crystals = usable_crystals(args.val, args.n)
    rows: list[dict] = []
    for start in ("init", "nothing"):
        for epochs in args.epochs:
            config = dataclasses.replace(
                base,
                init=base.init if start == "init" else None,
                training=dataclasses.replace(base.training, epochs=epochs),
            )
            run = args.output / f"{start}_{epochs}"
            trainer = Trainer(config, args.config.parent, run)
            best = trainer.fit(progress=True, resume=True)
            model = CrystalVAE.from_pretrained(best)
            minutes = round(trainer.progress.seconds / 60, 2)
            row = {"start": start, "epochs": epochs, "minutes": minutes}
            rows.append(row | measure(model, crystals, args.n))
            print(
                ", ".join(
                    f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                    for k, v in rows[-1].items()
                ),
                flush=True,
            )
            write_table(args.output / "learning.csv", rows)
    plot(rows, args.output / "learning.png")


if __name__ == "__main__":
    main()
