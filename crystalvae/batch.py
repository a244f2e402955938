"""Crystals as tensors: a flat store, and padded batches gathered from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from crystalvae.graph import orbit_graph

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset


@dataclass
class CrystalBatch:
    """A batch of asymmetric units, padded to the largest, with their orbit graphs.

    Padding is 0 everywhere; ``site_mask`` and ``comp_element > 0`` tell what is real.
    """

    number: Tensor
    """Space-group number, ``(B,)``."""
    lattice_coords: Tensor
    """Log-Cholesky coordinates of the conventional lattice (Å), ``(B, 6)``."""
    num_atoms: Tensor
    """Atoms in the conventional cell, ``(B,)``."""
    num_sites: Tensor
    """Symmetry-distinct sites, ``(B,)``."""
    comp_element: Tensor
    """Atomic numbers of the composition, ascending, ``(B, C)``."""
    comp_count: Tensor
    """Their counts in the primitive cell, ``(B, C)``."""
    wyckoff: Tensor
    """Wyckoff letter indices, ``(B, S)``."""
    atomic_numbers: Tensor
    """Element of each site, ``(B, S)``."""
    frac_coords: Tensor
    """Representative on the position's first triplet, ``(B, S, 3)``."""
    multiplicity: Tensor
    """Atoms of the orbit in the conventional cell, ``(B, S)``."""
    site_mask: Tensor
    """True for real sites, ``(B, S)``."""
    neighbor: Tensor
    """Site index of each neighbour within its crystal, ``(B, S, K)``."""
    distance: Tensor
    """Distance to it in Å, ascending, ``(B, S, K)``."""
    direction: Tensor
    """Unit vector to it, Cartesian in the Cholesky frame, ``(B, S, K, 3)``."""

    def __len__(self) -> int:
        return len(self.number)

    def to(self, device: torch.device | str) -> CrystalBatch:
        """Copy to a device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return CrystalBatch(**moved)


class CrystalStore:
    """All crystals of a data set as flat tensors on one device.

    A batch is one gather; there is no Python per crystal.

    Args:
        number: space-group numbers ``(M,)``.
        lattice_coords: ``(M, 6)``.
        num_atoms: ``(M,)``.
        site_offset: ``(M + 1,)`` start of each crystal in the site tensors.
        comp_offset: ``(M + 1,)`` start of each crystal in the composition tensors.
        sites: flat per-site tensors by the names of :class:`CrystalBatch`.
        comps: flat ``comp_element`` and ``comp_count``.
    """

    def __init__(
        self,
        number: Tensor,
        lattice_coords: Tensor,
        num_atoms: Tensor,
        site_offset: Tensor,
        comp_offset: Tensor,
        sites: dict[str, Tensor],
        comps: dict[str, Tensor],
    ):
        self.number = number
        self.lattice_coords = lattice_coords
        self.num_atoms = num_atoms
        self.site_offset = site_offset
        self.comp_offset = comp_offset
        self.sites = sites
        self.comps = comps
        self.num_sites = site_offset.diff()

    def __len__(self) -> int:
        return len(self.number)

    @classmethod
    def from_packed(
        cls, dataset: PackedDataset, index: np.ndarray | None = None
    ) -> CrystalStore:
        """Load a packed data set (or the rows ``index`` of it) into memory."""
        index = np.arange(len(dataset)) if index is None else np.asarray(index)

        def ragged(offset: np.ndarray) -> tuple[np.ndarray, Tensor]:
            size = np.diff(offset)[index]
            start = np.zeros(len(index) + 1, np.int64)
            np.cumsum(size, out=start[1:])
            rows = np.repeat(offset[index] - start[:-1], size) + np.arange(start[-1])
            return rows, torch.from_numpy(start)

        site_rows, site_offset = ragged(np.asarray(dataset.site_offset))
        comp_rows, comp_offset = ragged(np.asarray(dataset.comp_offset))

        def site(name: str, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(np.asarray(getattr(dataset, name)[site_rows])).to(
                dtype
            )

        def row(name: str, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(np.asarray(getattr(dataset, name)[index])).to(dtype)

        def comp(name: str) -> Tensor:
            return torch.as_tensor(np.asarray(getattr(dataset, name)[comp_rows])).long()

        return cls(
            number=row("number", torch.long),
            lattice_coords=row("lattice_coords", torch.float),
            num_atoms=row("num_atoms", torch.long),
            site_offset=site_offset,
            comp_offset=comp_offset,
            sites={
                "wyckoff": site("wyckoff", torch.long),
                "atomic_numbers": site("atomic_number", torch.long),
                "frac_coords": site("frac_coords", torch.float),
                "multiplicity": site("multiplicity", torch.long),
                "neighbor": site("neighbor", torch.long),
                "distance": site("distance", torch.float),
                "direction": site("direction", torch.float),
            },
            comps={
                "comp_element": comp("comp_element"),
                "comp_count": comp("comp_count"),
            },
        )

    @classmethod
    def from_crystals(
        cls,
        crystals: Iterable[AsymmetricUnit],
        graphs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    ) -> CrystalStore:
        """Pack crystals in memory.

        Args:
            crystals: what to pack.
            graphs: their orbit graphs; None builds them.
        """
        from crystalvae.geometry.lattice import lattice_to_coords

        crystals = list(crystals)
        graphs = graphs or [orbit_graph(crystal) for crystal in crystals]
        compositions = [sorted(crystal.composition.items()) for crystal in crystals]

        def flat(arrays: list[np.ndarray], dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(np.concatenate(arrays)).to(dtype)

        def offsets(sizes: list[int]) -> Tensor:
            return torch.tensor([0, *np.cumsum(sizes)], dtype=torch.long)

        lattices = torch.as_tensor(np.stack([c.lattice for c in crystals]))
        return cls(
            number=torch.tensor([c.number for c in crystals]),
            lattice_coords=lattice_to_coords(lattices).float(),
            num_atoms=torch.tensor([c.num_atoms for c in crystals]),
            site_offset=offsets([len(c.wyckoffs) for c in crystals]),
            comp_offset=offsets([len(c) for c in compositions]),
            sites={
                "wyckoff": flat([c.wyckoffs for c in crystals], torch.long),
                "atomic_numbers": flat(
                    [c.atomic_numbers for c in crystals], torch.long
                ),
                "frac_coords": flat([c.frac_coords for c in crystals], torch.float),
                "multiplicity": flat([c.multiplicities for c in crystals], torch.long),
                "neighbor": flat([g[0] for g in graphs], torch.long),
                "distance": flat([g[1] for g in graphs], torch.float),
                "direction": flat([g[2] for g in graphs], torch.float),
            },
            comps={
                "comp_element": torch.tensor([z for c in compositions for z, _ in c]),
                "comp_count": torch.tensor([n for c in compositions for _, n in c]),
            },
        )

    def to(self, device: torch.device | str) -> CrystalStore:
        """Copy to a device."""
        return CrystalStore(
            self.number.to(device),
            self.lattice_coords.to(device),
            self.num_atoms.to(device),
            self.site_offset.to(device),
            self.comp_offset.to(device),
            {name: value.to(device) for name, value in self.sites.items()},
            {name: value.to(device) for name, value in self.comps.items()},
        )

    def batch(self, index: Tensor) -> CrystalBatch:
        """Gather the crystals ``index`` ``(B,)`` into one padded batch."""
        sites, site_mask = _gather(self.sites, self.site_offset, index)
        comps, _ = _gather(self.comps, self.comp_offset, index)
        return CrystalBatch(
            number=self.number[index],
            lattice_coords=self.lattice_coords[index],
            num_atoms=self.num_atoms[index],
            num_sites=self.num_sites[index],
            site_mask=site_mask,
            **sites,
            **comps,
        )


def _gather(
    flat: dict[str, Tensor], offset: Tensor, index: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    start, size = offset[index], offset[index + 1] - offset[index]
    slot = torch.arange(int(size.max()), device=size.device)
    mask = slot < size[:, None]
    rows = torch.where(mask, start[:, None] + slot, start[:, None])
    padded = {}
    for name, value in flat.items():
        taken = value[rows]
        keep = mask.view(*mask.shape, *(1,) * (taken.dim() - 2))
        padded[name] = taken.masked_fill(~keep, 0)
    return padded, mask
