"""What every generated crystal must obey."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from crystalvae.errors import ConfigError
from crystalvae.generation.parsing import (
    MAX_GROUP,
    parse_elements,
    parse_formula,
    parse_required,
    parse_sizes,
    parse_space_groups,
    symbols_of,
)
from crystalvae.symmetry.completion import can_complete
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.decoder import DecoderConfig

MOST_UNITS = 13
"""Numbers of formula units below this are tried."""
ALL_ELEMENTS = frozenset(range(1, len(chemical_symbols)))


@dataclass(frozen=True)
class Constraints:
    """What every crystal must obey, as masks on the choices."""

    composition: dict[int, int] | None = None
    """Atomic number → count in the primitive cell."""
    elements: frozenset[int] | None = None
    """Atomic numbers that may occur."""
    space_groups: frozenset[int] | None = None
    """Space-group numbers that may occur."""
    min_atoms: int = 1
    """Fewest atoms in the primitive cell."""
    max_atoms: int | None = None
    """Most atoms in the primitive cell."""
    required: frozenset[int] = frozenset()
    """Atomic numbers that must occur."""
    excluded: frozenset[int] = frozenset()
    """Atomic numbers that must not occur."""
    any_of: tuple[frozenset[int], ...] = ()
    """Sets of atomic numbers; of each at least one must occur."""

    @classmethod
    def of(
        cls,
        *,
        elements: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        require: Iterable[str] | None = None,
        composition: str | None = None,
        space_groups: Iterable[int | str] | int | str | None = None,
        num_atoms: int | tuple[int, int] | str | None = None,
    ) -> Constraints:
        """From symbols and a formula; None asks nothing.

        Args:
            elements: symbols of those that may occur, or a text with commas.
            exclude: of those that must not occur, likewise.
            require: of those that must occur, likewise; ``Mn/Fe/Co`` is at least one
                of these.
            composition: all atoms of the primitive cell, such as ``Li2Fe2P2O8``.
            space_groups: numbers or symbols of those that may occur, as
                :func:`parse_space_groups` takes them.
            num_atoms: in the primitive cell; a number, the fewest and the most, or a
                text such as ``4-12``.

        Raises:
            ConfigError: a symbol, a number or the formula cannot be understood.
        """
        low, high = parse_sizes(num_atoms)
        required, any_of = parse_required(symbols_of(require, "required elements"))
        if space_groups is not None:
            space_groups = parse_space_groups(space_groups)
        return cls(
            composition=None if composition is None else parse_formula(composition),
            elements=None
            if elements is None
            else parse_elements(symbols_of(elements, "elements")),
            space_groups=space_groups,
            min_atoms=low,
            max_atoms=high,
            required=required,
            excluded=parse_elements(symbols_of(exclude, "excluded elements")),
            any_of=any_of,
        )

    @property
    def needs(self) -> list[frozenset[int]]:
        """Sets of atomic numbers that may occur, of each of which one must."""
        sets = [frozenset([z]) for z in sorted(self.required)]
        sets += [own for own in self.any_of if not own & self.required]
        allowed = self.allowed
        return sets if allowed is None else [own & allowed for own in sets]

    @property
    def allowed(self) -> frozenset[int] | None:
        """Atomic numbers that may occur and are not excluded; None is all."""
        if not self.excluded:
            return self.elements
        elements = ALL_ELEMENTS if self.elements is None else self.elements
        return elements - self.excluded

    def allow(self, crystal: AsymmetricUnit) -> bool:
        """Whether a crystal obeys them."""
        size, composition = crystal.num_primitive_atoms, crystal.composition
        allowed = self.allowed
        return (
            self.min_atoms <= size
            and (self.max_atoms is None or size <= self.max_atoms)
            and (allowed is None or composition.keys() <= allowed)
            and (self.space_groups is None or crystal.number in self.space_groups)
            and (self.composition is None or composition == self.composition)
            and all(own & composition.keys() for own in self.needs)
        )

    def check(self, limits: DecoderConfig) -> None:
        """Refuse what no crystal of a model could obey.

        Args:
            limits: the largest crystals of the model.

        Raises:
            ConfigError: the constraints contradict each other or the model.
        """
        most = self.max_atoms
        if self.min_atoms < 1 or (most is not None and most < self.min_atoms):
            raise ConfigError(f"no number of atoms is {self.min_atoms} to {most}")
        if self.elements is not None and not self.elements:
            raise ConfigError("no element is allowed")
        self._check_excluded()
        allowed = self.allowed
        groups = self.space_groups
        if groups is not None and not groups <= frozenset(range(1, MAX_GROUP + 1)):
            raise ConfigError(f"space groups go from 1 to {MAX_GROUP}")
        if groups is not None and not groups:
            raise ConfigError("no space group is allowed")
        wanted = len(self.needs)
        if wanted > limits.max_elements or (most is not None and wanted > most):
            raise ConfigError(f"{wanted} elements are required, and fewer fit")
        for possible in (self.elements, self.composition):
            if possible is not None and not self.required <= set(possible):
                raise ConfigError("an element that is required is not allowed")
        for own in self.any_of:
            possible = own if allowed is None else own & allowed
            if self.composition is not None:
                possible = possible.intersection(self.composition)
            if not possible:
                names = "/".join(chemical_symbols[z] for z in sorted(own))
                raise ConfigError(f"none of {names} is allowed, and one is required")
        counts = self.counts_of_one(limits.max_count)
        if counts is not None and most is not None:
            fewest = max(1, wanted) * counts[0] if counts else math.inf
            if fewest > most:
                raise ConfigError(
                    f"in the space groups asked for the primitive cell has at least "
                    f"{fewest} atoms, and at most {most} are allowed"
                )
        if self.composition is None:
            kinds = limits.max_elements
            if allowed is not None:
                kinds = min(kinds, len(allowed))
            if self.min_atoms > kinds * limits.max_count:
                raise ConfigError(
                    f"{self.min_atoms} atoms are more than this model can emit of "
                    f"{kinds} elements ({kinds * limits.max_count})"
                )
            return
        limits.require(self.composition)
        size = sum(self.composition.values())
        if size < self.min_atoms or (most is not None and size > most):
            raise ConfigError(
                f"the composition has {size} atoms, and the number of atoms excludes it"
            )
        if self.elements is not None and not self.composition.keys() <= self.elements:
            raise ConfigError("the composition has elements that are not allowed")
        counts = [n for _, n in sorted(self.composition.items())]
        if not self.can_hold(counts):
            more = ([k * n for n in counts] for k in range(2, MOST_UNITS))
            found = next((other for other in more if self.can_hold(other)), None)
            remedy = "give other groups"
            if found is not None:
                times = found[0] // counts[0]
                remedy = f"{times} times the formula can, for example"
            raise ConfigError(
                "in no space group asked for can the primitive cell hold this "
                f"composition; {remedy}"
            )

    def _check_excluded(self) -> None:
        wrong = {"is required": self.required & self.excluded}
        if self.composition is not None:
            in_composition = self.excluded.intersection(self.composition)
            wrong["is in the composition"] = in_composition
        for what, elements in wrong.items():
            if elements:
                symbol = chemical_symbols[min(elements)]
                raise ConfigError(f"{symbol} {what}, and it is excluded")
        if self.excluded and not self.allowed:
            raise ConfigError("every element that may occur is excluded")

    def counts_of_one(self, most: int) -> list[int] | None:
        """How many atoms of one element a primitive cell of an allowed group can have.

        Args:
            most: largest count.

        Returns:
            Ascending counts; None where all groups are allowed, or the composition is
            given.
        """
        if self.space_groups is None or self.composition is not None:
            return None
        return list(_counts_of_one(self.space_groups, most))

    def can_hold(self, counts: Sequence[int]) -> bool:
        """Whether a group that is allowed has positions for these counts.

        Args:
            counts: of each element in the primitive cell, by ascending atomic number.
        """
        if self.space_groups is None:
            return True
        centring = symmetry_tables().centring
        return any(
            can_complete(group, -1, 0, tuple(n * int(centring[group]) for n in counts))
            for group in self.space_groups
        )


@lru_cache(maxsize=1000)
def _counts_of_one(groups: frozenset[int], most: int) -> tuple[int, ...]:
    limits = Constraints(space_groups=groups)
    return tuple(n for n in range(1, most + 1) if limits.can_hold([n]))
