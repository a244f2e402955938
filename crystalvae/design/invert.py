"""Find the crystal whose encoding is a given latent: the encoder judges the decoder.

A decoder reads a latent in one pass, and a wrong element is not noticed. But the latent
of the right crystal is known: it is the one that was given. So several candidates are
drawn from it, each is encoded again, and the one that comes nearest wins; then its free
coordinates and its cell are moved until the encodings agree (Levenberg-Marquardt on
μ(crystal) - z, in the handful of numbers that the space group leaves free). Nothing
enters but z and the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from crystalvae.errors import InvalidStructureError
from crystalvae.generation import Constraints, SamplingOptions, generate
from crystalvae.geometry.lattice import (
    FREE_COORDS,
    bound_coords,
    complete_coords,
    coords_to_lattice,
    lattice_to_coords,
)
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

DRAW = SamplingOptions(
    temperature=1.0, part_temperature={"lattice": 0.3, "coords": 0.6}, restarts=1
)
"""How candidates are drawn."""
STEP = 1e-3
"""Of the finite differences, in fractional and log-Cholesky coordinates."""
LARGEST_MOVE = 0.1
"""Largest change of a coordinate in one step."""
HOPELESS = 0.7
"""Share of the distance that no move of cell and coordinates explains, above which a
candidate is given up."""


@dataclass(frozen=True)
class SearchOptions:
    """How hard to look for the crystal of a latent."""

    rounds: int = 4
    """Times that new candidates are drawn for the latents still open."""
    draws: int = 6
    """Candidates drawn in a round; before the first there is the greedy one."""
    refined: int = 2
    """The nearest so many of each round are refined."""
    steps: int = 6
    """Largest number of Levenberg-Marquardt steps."""
    tolerance: float = 0.02
    """Distance of the encodings at which the crystal counts as found."""
    max_free: int = 64
    """Crystals with more free numbers than this are not refined."""


@dataclass
class Found:
    """A candidate for a latent."""

    crystal: AsymmetricUnit
    """The crystal."""
    distance: float
    """Euclidean distance of its encoding to the latent."""


def invert(
    model: CrystalVAE,
    z: Tensor,
    *,
    beta: float | Tensor | None = None,
    search: SearchOptions | None = None,
    constraints: Constraints | None = None,
    seed: int = 0,
) -> list[Found | None]:
    """The best crystal found for each latent, None where no draw was completed.

    Args:
        model: the model.
        z: latent vectors ``(B, D)``, as :meth:`CrystalVAE.encode` gives in ``mu``.
        beta: the β that they were encoded with; None is the smallest.
        search: how hard to look.
        constraints: what must hold.
        seed: of the draws.
    """
    search = search or SearchOptions()
    z = z.to(model.device)
    betas = model.beta_tensor(beta, len(z))
    generator = torch.Generator().manual_seed(seed)
    waiting: list[dict[tuple, Found]] = [{} for _ in z]
    tried: list[set[tuple]] = [set() for _ in z]
    best: list[Found | None] = [None] * len(z)
    rows = torch.arange(len(z), device=z.device)
    for turn in range(search.rounds + 1):
        copies = search.draws if turn else 1
        owner = rows.repeat_interleave(copies)
        drawn = generate(
            model,
            z[owner],
            beta=betas[owner],
            options=DRAW if turn else None,
            constraints=constraints,
            generator=generator,
        ).crystals()
        pairs = [(r, c) for r, c in zip(owner.tolist(), drawn) if c is not None]
        for row, found in _judged(model, pairs, z, betas):
            key = _coarse(found.crystal)
            if key not in tried[row]:
                known = waiting[row].get(key)
                if known is None or found.distance < known.distance:
                    waiting[row][key] = found
        chosen: list[tuple[int, Found]] = []
        for row in rows.tolist():
            nearest = sorted(waiting[row].items(), key=lambda item: item[1].distance)
            for key, _ in nearest[: search.refined]:
                tried[row].add(key)
                chosen.append((row, waiting[row].pop(key)))
        for row, found in _refine(model, chosen, z, betas, search):
            if best[row] is None or found.distance < best[row].distance:
                best[row] = found
        still = [
            best[row] is None or best[row].distance > search.tolerance
            for row in rows.tolist()
        ]
        rows = rows[torch.tensor(still, device=rows.device)]
        if not len(rows):
            break
    return best


def _judged(
    model: CrystalVAE,
    pairs: Sequence[tuple[int, AsymmetricUnit]],
    z: Tensor,
    beta: Tensor,
) -> Iterator[tuple[int, Found]]:
    """Each (row, crystal) with its distance; what has no orbit graph is left out."""
    if not pairs:
        return
    rows = torch.tensor([row for row, _ in pairs], device=z.device)
    means = _means(model, [crystal for _, crystal in pairs], beta[rows])
    distances = np.linalg.norm(means - z[rows].cpu().numpy(), axis=1)
    for (row, crystal), distance in zip(pairs, distances.tolist()):
        if np.isfinite(distance):
            yield row, Found(crystal, distance)


@torch.no_grad()
def _means(
    model: CrystalVAE, crystals: Sequence[AsymmetricUnit], beta: Tensor
) -> np.ndarray:
    """Posterior means ``(N, D)``, NaN where a crystal has no orbit graph."""
    from crystalvae.batch import CrystalStore
    from crystalvae.graph import orbit_graph

    usable, graphs = [], []
    for row, crystal in enumerate(crystals):
        try:
            graphs.append(orbit_graph(crystal))
        except InvalidStructureError:
            continue
        usable.append(row)
    means = np.full((len(crystals), model.config.latent.dim), np.nan, np.float32)
    if not usable:
        return means
    store = CrystalStore.from_crystals([crystals[i] for i in usable], graphs)
    order = store.num_sites.argsort(stable=True)
    for index in order.split(1024):
        batch = store.batch(index).to(model.device)
        rows = torch.tensor(usable)[index]
        mu = model.encode_batch(batch, beta[rows.to(beta.device)]).mu
        means[rows.numpy()] = mu.float().cpu().numpy()
    return means


def _coarse(crystal: AsymmetricUnit) -> tuple:
    """The discrete part of a crystal and roughly where its atoms are."""
    places = np.floor(crystal.frac_coords * 8).astype(int) % 8
    sites = zip(crystal.wyckoffs.tolist(), crystal.atomic_numbers.tolist())
    return crystal.number, tuple(sites), tuple(places.flatten().tolist())


class _Free:
    """The free numbers of a crystal: of its cell, then of its sites."""

    def __init__(self, crystal: AsymmetricUnit):
        tables = symmetry_tables()
        self.crystal = crystal
        self.system = int(tables.system[crystal.number])
        self.cell = np.array(FREE_COORDS[self.system])
        self.sites = tables.free[crystal.number, crystal.wyckoffs]
        coords = lattice_to_coords(torch.as_tensor(crystal.lattice)).numpy()
        self.lattice = coords
        self.values = np.concatenate(
            [coords[self.cell], crystal.frac_coords[self.sites]]
        )

    def build(self, values: np.ndarray) -> AsymmetricUnit:
        """The crystal with other free numbers."""
        tables = symmetry_tables()
        size = int(self.cell.sum())
        lattice = self.lattice.copy()
        lattice[self.cell] = values[:size]
        complete = complete_coords(
            bound_coords(torch.as_tensor(lattice)), torch.tensor(self.system)
        )
        coords = self.crystal.frac_coords.copy()
        coords[self.sites] = values[size:]
        letters = self.crystal.wyckoffs
        embed = tables.embed[self.crystal.number, letters]
        exact = np.einsum("sij,sj->si", embed, coords)
        exact = exact + tables.offset[self.crystal.number, letters]
        return dataclasses.replace(
            self.crystal,
            lattice=coords_to_lattice(complete).numpy(),
            frac_coords=exact - np.floor(exact),
        )


@dataclass
class _Descent:
    """One crystal on its way to its latent."""

    row: int
    free: _Free
    target: np.ndarray
    best: np.ndarray
    distance: float
    damping: float = 1e-3
    trial: np.ndarray | None = None
    over: bool = False

    def around(self) -> list[np.ndarray]:
        """Where μ is needed for its derivatives."""
        return [self.best, *(self.best + STEP * np.eye(len(self.best)))]

    def propose(self, means: np.ndarray) -> None:
        """Set ``trial`` from μ at :meth:`around`, ``(1 + P, D)``.

        The descent is over where the cell and coordinates cannot explain what is left
        of the distance: then something discrete is wrong.
        """
        residual = means[0] - self.target
        jacobian = ((means[1:] - means[0]) / STEP).T
        if not np.isfinite(means).all():
            self.over = True
            return
        nearest = residual - jacobian @ np.linalg.lstsq(jacobian, residual, 1e-6)[0]
        if np.linalg.norm(nearest) > HOPELESS * np.linalg.norm(residual):
            self.over = True
            return
        normal = jacobian.T @ jacobian
        damped = normal + self.damping * np.diag(np.diag(normal) + 1e-9)
        step = -np.linalg.solve(damped, jacobian.T @ residual)
        largest = max(float(np.abs(step).max()), 1e-12)
        self.trial = self.best + step * min(1.0, LARGEST_MOVE / largest)

    def judge(self, mean: np.ndarray, tolerance: float) -> None:
        """Take the trial if it is nearer, else damp more."""
        distance = float(np.linalg.norm(mean - self.target))
        if np.isfinite(distance) and distance < self.distance:
            self.best, self.distance = self.trial, distance
            self.damping = max(self.damping / 10, 1e-9)
        else:
            self.damping = 30 * self.damping
        self.over = self.distance < 0.1 * tolerance


def _refine(
    model: CrystalVAE,
    candidates: Sequence[tuple[int, Found]],
    z: Tensor,
    beta: Tensor,
    search: SearchOptions,
) -> Iterator[tuple[int, Found]]:
    """Move the free numbers of each (row, candidate) towards its latent."""
    latents = z.double().cpu().numpy()
    descents = []
    for row, found in candidates:
        free = _Free(found.crystal)
        descents.append(_Descent(row, free, latents[row], free.values, found.distance))
    for _ in range(search.steps):
        active = [
            d for d in descents if not d.over and 0 < len(d.best) <= search.max_free
        ]
        if not active:
            break
        for descent, means in zip(active, _at(model, active, _Descent.around, beta)):
            descent.propose(means)
        active = [d for d in active if not d.over]
        if not active:
            break
        for descent, means in zip(
            active, _at(model, active, lambda d: [d.trial], beta)
        ):
            descent.judge(means[0], search.tolerance)
    for descent in descents:
        yield descent.row, Found(descent.free.build(descent.best), descent.distance)


def _at(
    model: CrystalVAE,
    descents: Sequence[_Descent],
    points: Callable[[_Descent], list[np.ndarray]],
    beta: Tensor,
) -> list[np.ndarray]:
    """μ at some points of each descent, ``(points, D)`` each."""
    crystals, rows, sizes = [], [], []
    for descent in descents:
        found = points(descent)
        crystals += [descent.free.build(values) for values in found]
        rows += [descent.row] * len(found)
        sizes.append(len(found))
    means = _means(model, crystals, beta[torch.tensor(rows, device=beta.device)])
    return np.split(means.astype(np.float64), np.cumsum(sizes)[:-1])
