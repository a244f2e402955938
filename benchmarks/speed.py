"""How fast is it? Decoding, decoding to checked CIFs, preparing, training.

    python benchmarks/speed.py mp_20 [--data mp_20/val.csv.gz]

Each figure is the median of three runs on all cores.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from crystalvae.data.prepare import prepare
from crystalvae.design.output import describe, write_crystals
from crystalvae.design.sample import draw_checked, raw_draws
from crystalvae.model import CrystalVAE
from crystalvae.parallel import num_cores


def median_rate(count: int, work) -> float:
    seconds = []
    for run in range(3):
        began = time.perf_counter()
        work(run)
        seconds.append(time.perf_counter() - began)
    return count / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=2048)
    parser.add_argument("--data", type=Path, help="input of `prepare` to time")
    args = parser.parse_args()
    model = CrystalVAE.from_pretrained(args.model)

    def decode(run: int) -> list:
        return raw_draws(model, args.n, seed=run)

    def to_files(run: int) -> None:
        kept, _ = draw_checked(model, args.n, seed=run, raw=True)
        crystals, rows = [draw.crystal for draw in kept], []
        for draw in kept:
            verdicts = {name: r.passed for name, r in draw.results.items()}
            rows.append({**describe(draw.crystal), **verdicts})
        names = [f"{i:05d}" for i in range(len(crystals))]
        with tempfile.TemporaryDirectory() as folder:
            write_crystals(Path(folder), crystals, names, rows, {})

    decode(99)
    print(f"cores                       {num_cores()}")
    print(f"decoding                    {median_rate(args.n, decode):8.0f} crystals/s")
    print(
        f"decoding to checked CIFs    {median_rate(args.n, to_files):8.0f} crystals/s"
    )
    if args.data:
        with tempfile.TemporaryDirectory() as folder:
            report = prepare(args.data, Path(folder) / "set")
        rate = report.total / report.seconds
        print(f"preparing                   {rate:8.0f} structures/s")


if __name__ == "__main__":
    main()
