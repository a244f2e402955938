"""Training crystals in memory, and the order in which they are met."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from crystalvae.batch import CrystalStore
from crystalvae.conditions import Quantity
from crystalvae.data.packed import PackedDataset
from crystalvae.decoder import DecoderConfig
from crystalvae.errors import ConfigError
from crystalvae.training.config import Source

logger = logging.getLogger(__name__)

MANY_OUTSIDE = 0.05
"""Share of crystals beyond the range of a condition that is worth a warning."""


@dataclass(frozen=True)
class BetaCaps:
    """Largest β of every training crystal, infinite where it is not limited."""

    all: Tensor
    """At which it is trained ``(M,)``."""
    label: Tensor
    """At which its composition and space group are learned ``(M,)``."""
    geometry: Tensor
    """At which its cell and coordinates are learned ``(M,)``."""


@dataclass(frozen=True)
class Crystals:
    """What a run trains on."""

    store: CrystalStore
    """All sources put together."""
    caps: BetaCaps
    """Largest β of each crystal."""
    taken: list[tuple[int, int]]
    """Crystals of each source, and how many of them an epoch meets."""
    labels: Tensor | None = None
    """Property of each that was asked for ``(M,)``."""
    told: Tensor | None = None
    """Properties that a decoder is told ``(M, P)``, NaN where one is not known."""

    def to(self, device: torch.device | str) -> Crystals:
        """The same with crystals and labels on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        told = None if self.told is None else self.told.to(device)
        return replace(self, store=self.store.to(device), labels=labels, told=told)

    def fingerprint(self) -> str:
        """Hash of the crystals and of what is told of them, to know them again."""
        store, parts = self.store, [self.labels, self.told]
        parts += [store.number, store.lattice_coords, store.site_offset]
        parts += [*store.comps.values()]
        parts += [store.sites[n] for n in ("wyckoff", "atomic_numbers", "frac_coords")]
        found = hashlib.sha256(repr(self.taken).encode())
        for part in parts:
            if part is not None:
                found.update(part.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def extent(self) -> dict[str, int | list[str]]:
        """Atoms of the largest primitive cell, ``max_atoms``, and all ``elements``."""
        owner = torch.repeat_interleave(self.store.comp_offset.diff().cpu())
        counts = self.store.comps["comp_count"].cpu()
        atoms = torch.zeros(len(self.store), dtype=torch.long)
        atoms.index_add_(0, owner, counts)
        seen = self.store.comps["comp_element"].unique().tolist()
        return {
            "max_atoms": int(atoms.max()),
            "elements": [chemical_symbols[z] for z in seen],
        }

    def rows(self, seed: int, epoch: int) -> np.ndarray:
        """Crystals that an epoch meets, as many in every epoch, not shuffled.

        Args:
            seed: of the run.
            epoch: number of the epoch.
        """
        parts, start = [], 0
        for place, (size, taken) in enumerate(self.taken):
            own = np.arange(size)
            if taken < size:
                own = np.random.default_rng([seed, place]).permutation(size)
                own = np.sort(own[(epoch * taken + np.arange(taken)) % size])
            parts.append(start + own)
            start += size
        return np.concatenate(parts)


def load_sources(
    sources: list[Source],
    root: Path,
    limits: DecoderConfig,
    label: str | None = None,
    told: Sequence[str] = (),
    need_told: bool = False,
) -> Crystals:
    """Put data sets together, leaving out what the model cannot emit.

    Args:
        sources: data sets.
        root: directory that their paths are relative to.
        limits: largest crystals of the decoder.
        label: a property that crystals must have; None asks for none.
        told: properties that crystals may have.
        need_told: whether crystals are left out that have none of these.

    Raises:
        ConfigError: nothing is left, or a set has no such property.
    """
    stores, caps, taken, labels, known = [], [], [], [], []
    for source in sources:
        dataset = PackedDataset(root / source.path)
        keep = np.ones(len(dataset), bool)
        column = None if label is None else source.columns.get(label, label)
        for name in {*source.at_most, *([column] if column else [])}:
            if name not in dataset.properties:
                raise ConfigError(f"{source.path} has no property {name!r}")
        for name, limit in source.at_most.items():
            keep &= np.nan_to_num(dataset.properties[name], nan=np.inf) <= limit
        if column is not None:
            keep &= np.isfinite(dataset.properties[column])
        unknown = np.full(len(dataset), np.nan)
        columns = [
            dataset.properties.get(source.columns.get(name, name), unknown)
            for name in told
        ]
        if need_told:
            keep &= np.isfinite(columns).any(0)
        fits = np.diff(dataset.site_offset) <= limits.max_sites
        fits &= np.diff(dataset.comp_offset) <= limits.max_elements
        largest = np.maximum.reduceat(dataset.comp_count, dataset.comp_offset[:-1])
        fits &= largest <= limits.max_count
        rows = np.flatnonzero(keep & fits)
        if not fits.all():
            logger.warning(
                f"{source.path}: {int((~fits).sum())} of {len(fits)} crystals are "
                f"larger than the model can emit ({limits.max_sites} sites, "
                f"{limits.max_elements} elements, {limits.max_count} atoms of one) and "
                "left out"
            )
        if not len(rows):
            logger.warning(f"{source.path}: no crystal of {len(fits)} is used")
        store = CrystalStore.from_packed(dataset, rows)
        if column is not None:
            labels.append(torch.tensor(dataset.properties[column][rows]).float())
        _require_columns(source, dataset, [*told, *([label] if label else [])])
        if told:
            known.append(torch.from_numpy(np.stack(columns, 1)[rows]).float())
        own = (source.beta_max, source.label_beta_max, source.geometry_beta_max)
        own = [inf if cap is None else cap for cap in own]
        stores.append(store)
        caps.append(torch.tensor(own).expand(len(store), 3))
        taken.append((len(store), math.ceil(source.share * len(store) - 1e-6)))
    if not stores or not sum(len(store) for store in stores):
        named = ", ".join(source.path for source in sources)
        raise ConfigError(
            f"nothing of {named} can be used: see at_most, and the model's limits"
            if named
            else "no crystals to load: name packed data sets in [data]"
        )
    return Crystals(
        join_stores(stores),
        BetaCaps(*torch.cat(caps).unbind(1)),
        taken,
        torch.cat(labels) if labels else None,
        torch.cat(known) if known else None,
    )


def _require_columns(
    source: Source, dataset: PackedDataset, asked: Sequence[str]
) -> None:
    """Refuse names of columns that nothing asks for, or that a set does not have.

    Raises:
        ConfigError: there is one.
    """
    for name, column in source.columns.items():
        if name not in asked:
            raise ConfigError(
                f"{source.path}: columns names {name!r}, which this training does not "
                f"ask for (it asks for {', '.join(asked) or 'no property'})"
            )
        if column not in dataset.properties:
            has = ", ".join(dataset.properties) or "none"
            raise ConfigError(
                f"{source.path} has no property {column!r}; its properties are: {has}"
            )


def require_known(
    crystals: Crystals,
    conditions: Sequence[Quantity],
    learned: Container[str] = (),
    table: str = "model.conditions",
) -> None:
    """Refuse properties that nothing can be learned of, and warn of others.

    Args:
        crystals: to train on.
        conditions: what the decoder is told, or a network judges.
        learned: names of those that the model has learned before.
        table: of the config that names them.

    Raises:
        ConfigError: no crystal has one of the others, or all have values out of range.
    """
    for place, condition in enumerate(conditions):
        values = crystals.told[:, place]
        values = values[values.isfinite()]
        name = condition.name
        if not len(values):
            if name in learned:
                continue
            raise ConfigError(
                f"no training crystal has the property {name!r} of [[{table}]]"
            )
        outside = (values < condition.low) | (values > condition.high)
        share = float(outside.double().mean())
        said = (
            f"{share:.0%} of the training crystals have a {name} outside "
            f"{condition.low:g} to {condition.high:g}; is it in the same unit?"
        )
        if share == 1:
            raise ConfigError(said)
        if share > MANY_OUTSIDE:
            logger.warning(said)


def join_stores(stores: list[CrystalStore]) -> CrystalStore:
    """Concatenate stores."""

    def offsets(name: str) -> Tensor:
        sizes = torch.cat([getattr(store, name).diff() for store in stores])
        return torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])

    first = stores[0]
    return CrystalStore(
        number=torch.cat([s.number for s in stores]),
        lattice_coords=torch.cat([s.lattice_coords for s in stores]),
        num_atoms=torch.cat([s.num_atoms for s in stores]),
        site_offset=offsets("site_offset"),
        comp_offset=offsets("comp_offset"),
        sites={n: torch.cat([s.sites[n] for s in stores]) for n in first.sites},
        comps={n: torch.cat([s.comps[n] for s in stores]) for n in first.comps},
    )


def epoch_batches(
    num_sites: Tensor,
    batch_size: int,
    bucket: int,
    seed: int,
    epoch: int,
    rows: np.ndarray | None = None,
) -> list[Tensor]:
    """Index batches of one epoch: shuffled, similar lengths together.

    Args:
        num_sites: sites of every crystal ``(M,)``.
        batch_size: crystals in a batch.
        bucket: batches sorted by length together.
        seed: of the run.
        epoch: number of the epoch; with the seed it decides the order.
        rows: crystals to meet; all of them if None.

    Returns:
        Index tensors. What does not fill a batch is left out, other crystals each
        epoch, unless there is nothing else.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(num_sites) if rows is None else rows)
    order = order[: len(order) // batch_size * batch_size or len(order)]
    sizes = num_sites.cpu().numpy()
    batches = []
    for start in range(0, len(order), batch_size * bucket):
        chunk = order[start : start + batch_size * bucket]
        chunk = chunk[np.argsort(sizes[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [torch.from_numpy(batches[i]) for i in rng.permutation(len(batches))]
