"""Structures that a model is to start from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from crystalvae.files import shown

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

logger = logging.getLogger(__name__)


def encodable_inputs(
    model: CrystalVAE, path: str, most: int | None = None
) -> tuple[list[str], list[AsymmetricUnit], dict[str, str]]:
    """The structures of an input that a model knows how to describe.

    Encoded and decoded again without any freedom, a crystal must come back with its
    composition; one that does not is too large or too strange for the model, and what
    is drawn around it would have little to do with it.

    Args:
        model: the model.
        path: what ``prepare`` reads, or a prepared data set.
        most: of how many there is use.

    Returns:
        Identifiers, crystals, and identifier → reason of those that are left out.

    Raises:
        DataError: nothing is left, or there are more.
    """
    from crystalvae.data.load import named_crystals
    from crystalvae.design.familiar import too_large
    from crystalvae.design.reconstruct import reconstruct
    from crystalvae.errors import DataError

    found, unusable = named_crystals(path)
    if most is not None and len(found) > most:
        raise DataError(
            f"{shown(path)} holds {len(found)} structures, more than the {most} draws "
            "around them; draw more, or give fewer structures"
        )
    limits = model.config.decoder
    refused = dict(unusable)
    fitting = []
    for name, crystal in found:
        if limits.fits(len(crystal.wyckoffs), crystal.composition):
            fitting.append((name, crystal))
        else:
            refused[name] = too_large(model, crystal) or (
                f"{crystal.formula} has {len(crystal.wyckoffs)} sites; this model "
                f"emits up to {limits.max_sites}, and {limits.max_elements} elements"
            )
    names, crystals = [], []
    again = reconstruct(model, [crystal for _, crystal in fitting]) if fitting else []
    for (name, crystal), decoded in zip(fitting, again):
        if decoded is not None and decoded.composition == crystal.composition:
            names.append(name)
            crystals.append(crystal)
        else:
            refused[name] = too_large(model, crystal) or (
                f"{crystal.formula}, {crystal.num_primitive_atoms} atoms in the "
                "primitive cell, is not found again by this model; it is too unlike "
                "what the model was trained on"
            )
    if not crystals:
        name, reason = next(iter(refused.items()))
        raise DataError(
            f"{shown(path)} holds no structure that can be used ({name}: {reason})"
        )
    if refused:
        name, reason = next(iter(refused.items()))
        more = "; summary.json has all reasons" if len(refused) > 1 else ""
        logger.warning(
            f"{len(refused)} of {len(found) + len(unusable)} structures are left out "
            f"({name}: {reason}{more})"
        )
    return names, crystals, refused


def one_crystal(model: CrystalVAE, path: str) -> AsymmetricUnit:
    """The only structure of an input.

    Raises:
        DataError: there is none that can be used, or more than one.
    """
    from crystalvae.errors import DataError

    _, crystals, _ = encodable_inputs(model, path)
    if len(crystals) > 1:
        raise DataError(
            f"{shown(path)} holds {len(crystals)} structures; give a file of one"
        )
    return crystals[0]
