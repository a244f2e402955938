"""Results in an ASE database, a file or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crystalvae.errors import DataError
from crystalvae.files import shown

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit


def write_database(
    target: str,
    crystals: Sequence[AsymmetricUnit],
    names: Sequence[str],
    rows: Sequence[dict[str, Any]],
) -> None:
    """Add crystals to an ASE database; several processes may write to one at once.

    Args:
        target: path of an SQLite file (``.db``), or a ``postgresql://`` URL.
        crystals: what to add.
        names: their identifiers, kept as ``material_id``.
        rows: key-value pairs of each; only numbers, truth values and texts are kept.
            ASE takes no texts that look like numbers: these begin with ``id:``.

    Raises:
        DataError: the database cannot be opened or written.
    """
    import ase.db

    try:
        with ase.db.connect(target) as database:
            for crystal, name, row in zip(crystals, names, rows):
                database.write(
                    crystal.to_atoms(),
                    key_value_pairs={
                        "group_number": crystal.number,
                        **_plain({"material_id": name, **row}),
                    },
                    data={"wyckoff_letters": crystal.wyckoffs.tolist()},
                )
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot write to the database {shown(target)} ({text}); check the "
            "address and the rights, and for PostgreSQL install crystalvae[postgres]"
        ) from error


RESERVED = {"formula", "volume", "mass", "name", "source", "energy", "space_group"}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in row.items():
        if key in RESERVED or value == "":
            continue
        if isinstance(value, (bool, int, float)):
            kept[key] = value
        elif isinstance(value, str):
            kept[key] = f"id:{value}" if _is_number(value) else value
    return kept


def _is_number(text: str) -> bool:
    """Whether ASE would refuse a text as one that looks like a number."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True
