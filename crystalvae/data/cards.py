"""Data-set cards, and fetching what can be fetched."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import urllib.error
import urllib.request
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crystalvae.errors import DataError
from crystalvae.files import replacing

TIMEOUT = 30


@cache
def load_cards() -> dict[str, dict[str, Any]]:
    """All cards by name: title, source, licence, citation, columns, splits, URLs."""
    file = resources.files("crystalvae.data") / "cards.json"
    return json.loads(file.read_text(encoding="utf-8"))


def fetch(name: str, directory: Path, *, progress: bool = False) -> list[Path]:
    """Download a data set, or make the built-in one.

    Args:
        name: of a card.
        directory: where to put ``<split>.csv`` (or ``train.csv.gz``).
        progress: show a bar on stderr.

    Returns:
        The files.

    Raises:
        DataError: unknown name, no network, or no URL; the message says what to do.
    """
    cards = load_cards()
    if name not in cards:
        raise DataError(f"no data set {name!r}; known are {', '.join(cards)}")
    card = cards[name]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {directory} ({error})") from error
    if name == "prototypes":
        return [write_prototypes(directory / "train.csv.gz", progress=progress)]
    if not card["urls"]:
        raise DataError(f"{name} cannot be fetched by URL: {card['manual']}")
    return [
        _download(url, directory / f"{split}.csv", card["sha256"].get(split), progress)
        for split, url in card["urls"].items()
    ]


def _download(url: str, path: Path, checksum: str | None, progress: bool) -> Path:
    digest = hashlib.sha256()
    try:
        with (
            replacing(path) as partial,
            urllib.request.urlopen(url, timeout=TIMEOUT) as response,
            partial.open("wb") as file,
            tqdm(
                total=int(response.headers.get("Content-Length") or 0) or None,
                unit="B",
                unit_scale=True,
                desc=path.name,
                disable=None if progress else True,
            ) as bar,
        ):
            while block := response.read(1 << 16):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
            if bar.total is not None and file.tell() != bar.total:
                raise DataError(
                    f"{url} broke off after {file.tell()} of {bar.total} bytes; try "
                    "again"
                )
            if checksum is not None and digest.hexdigest() != checksum:
                raise DataError(
                    f"{url} has another checksum than its card; try again later"
                )
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(
            f"cannot fetch {url} ({error}); download it where there is a network, save "
            f"it as {path}, and pass that to `crystalvae prepare`"
        ) from error
    return path


def write_prototypes(path: Path, *, progress: bool = False) -> Path:
    """Write the built-in data set as CSV(.gz) with a ``cif`` column."""
    from crystalvae.cif import write_cif
    from crystalvae.data.prototypes import prototype_crystals

    crystals = tqdm(
        prototype_crystals(), unit="crystal", disable=None if progress else True
    )
    with (
        replacing(path) as partial,
        gzip.open(partial, "wt", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        for name, crystal in crystals:
            writer.writerow([name, write_cif(crystal, name=name)])
    return path
