"""What a model was trained on, and what is asked beyond that."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ase.data import atomic_numbers, chemical_symbols

from crystalvae.generation import Constraints

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

TRAINED_ON = "trained_on"
"""Key of a card: ``max_atoms`` in the primitive cell, and the symbols ``elements``."""


def unseen_elements(model: CrystalVAE) -> list[str]:
    """Symbols that no training crystal had; none where the card does not say."""
    seen = set(model.card.get(TRAINED_ON, {}).get("elements", ()))
    return [s for s in chemical_symbols[1:] if s not in seen] if seen else []


def without_unseen(
    model: CrystalVAE, constraints: Constraints | None, wanted: Container[str] = ()
) -> Constraints | None:
    """Constraints that exclude what no training crystal had and nobody asks for.

    Args:
        model: the model.
        constraints: what crystals must obey; where it says which elements may occur,
            or gives the composition, it stays as it is.
        wanted: symbols that are asked for in another way.
    """
    limits = constraints or Constraints()
    unseen = {atomic_numbers[s] for s in unseen_elements(model) if s not in wanted}
    unseen = unseen.difference(*limits.needs)
    if not unseen or limits.elements is not None or limits.composition is not None:
        return constraints
    return replace(limits, excluded=limits.excluded | unseen)


def too_large(model: CrystalVAE, crystal: AsymmetricUnit) -> str | None:
    """A sentence with the sizes where a crystal is larger than all the model saw."""
    size = crystal.num_primitive_atoms
    most = model.card.get(TRAINED_ON, {}).get("max_atoms")
    if most is None or size <= most:
        return None
    return (
        f"{crystal.formula} has {size} atoms in the primitive cell, and this model was "
        f"trained on at most {most}"
    )


def beyond_training(
    model: CrystalVAE,
    constraints: Constraints | None = None,
    compositions: Iterable[dict[int, int]] = (),
) -> str | None:
    """A sentence on what a model never saw of what is asked; None where it saw all.

    Args:
        model: the model.
        constraints: what crystals must obey.
        compositions: atomic number → count in the primitive cell, of those asked for.
    """
    compositions, sizes, wanted = list(compositions), [1], set()
    if constraints is not None:
        if constraints.composition is not None:
            compositions.append(constraints.composition)
        sizes.append(constraints.min_atoms)
        unseen = {atomic_numbers[symbol] for symbol in unseen_elements(model)}
        for own in constraints.needs:
            wanted |= own if own <= unseen else set()
        allowed = constraints.allowed
        if allowed is not None and allowed <= unseen:
            wanted |= allowed
    for composition in compositions:
        sizes.append(sum(composition.values()))
        wanted |= composition.keys()
    missing = [s for s in unseen_elements(model) if atomic_numbers[s] in wanted]
    most = model.card.get(TRAINED_ON, {}).get("max_atoms")
    faults = []
    if missing:
        faults.append(f"of no crystal with {', '.join(missing)}")
    if most is not None and max(sizes) > most:
        faults.append(f"of crystals of at most {most} atoms, not {max(sizes)}")
    if not faults:
        return None
    return (
        f"this model learned {' and '.join(faults)} in the primitive cell; what it "
        "makes of that is a guess"
    )


def cells_left_out(
    model: CrystalVAE, cells: Sequence[dict[int, int]], units: int
) -> str | None:
    """A sentence on cells of a formula that a model is too small for; None if none.

    Args:
        model: the model.
        cells: what is tried: a formula once, twice and so on.
        units: formula units that would be tried of a small formula.
    """
    most = model.card.get(TRAINED_ON, {}).get("max_atoms")
    size = sum(cells[0].values())
    if most is None or len(cells) >= units or (len(cells) + 1) * size <= most:
        return None
    return (
        f"cells of {(len(cells) + 1) * size} and more atoms are left out, for this "
        f"model was trained on crystals of at most {most} atoms; if the compound has "
        "such a cell, its structure is not among these (--formula-units tries it "
        "nonetheless)"
    )
