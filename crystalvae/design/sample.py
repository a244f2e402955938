"""Draw crystals, keep those that pass the checks, and account for the others."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from inspect import signature
from itertools import count
from numbers import Integral
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from crystalvae.design.alike import Listed
from crystalvae.design.batches import (
    SPARE,
    Checked,
    batch_size_for,
    batches,
    passing,
    workers_for,
)
from crystalvae.design.familiar import beyond_training
from crystalvae.design.settings import sampling_defaults
from crystalvae.errors import ConfigError, CrystalVAEError
from crystalvae.generation import Constraints
from crystalvae.parallel import ordered_map
from crystalvae.screening.base import Candidate, CheckResult, window_check
from crystalvae.screening.checks import (
    DEFAULT,
    first_failure,
    parse_checks,
    run_checks,
)
from crystalvae.screening.uniqueness import Distinct

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

logger = logging.getLogger(__name__)

MAX_DRAWS_PER_CRYSTAL = 50
UNLISTED = "unlisted"
"""Name of the check against known crystals."""
UNIQUE = "unique"
"""Name of the check against what was drawn before."""


@dataclass
class Draw:
    """One crystal that was kept, and what the checks said."""

    crystal: AsymmetricUnit
    """The crystal."""
    index: int
    """Number of the draw; with seed, options and batch size it names the crystal."""
    results: dict[str, CheckResult]
    """By name of the check."""


@dataclass
class DrawReport:
    """How many draws it took, and why the others fell."""

    batch_size: int
    """Latent vectors decoded together."""
    draws: int = 0
    """Latent vectors decoded."""
    kept: int = 0
    """Crystals returned."""
    fallen: Counter = field(default_factory=Counter)
    """Reason → draws that fell for it first: ``incomplete`` or the name of a check."""
    estimates: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Property of a window → smallest and largest estimate that was met."""

    def meet(self, name: str, result: CheckResult | None) -> None:
        """Note the estimate of a property, where there is one."""
        if result is not None and result.value is not None:
            low, high = self.estimates.get(name, (math.inf, -math.inf))
            self.estimates[name] = min(low, result.value), max(high, result.value)


def draws(model: CrystalVAE, **options) -> Iterator[AsymmetricUnit | None]:
    """Endless raw draws; None for one that could not be completed.

    The n-th draw depends on the seed, n and the options only.

    Args:
        model: the model.
        **options: of :func:`batches`.
    """
    for batch in map(batches(model, **options), count()):
        yield from (crystal for crystal, _ in batch)


def raw_draws(
    model: CrystalVAE, num: int, *, num_workers: int | None = None, **options
) -> list[AsymmetricUnit | None]:
    """The first of the :func:`draws`, in batches that suit their number.

    Args:
        model: the model.
        num: how many.
        num_workers: processes; None is one a core where they save time.
        **options: of :func:`batches`.
    """
    size = options.pop("batch_size", None) or batch_size_for(num, device=model.device)
    numbers = range(math.ceil(num / size))
    workers = workers_for(model, num, size, num_workers)
    each = ordered_map(batches(model, batch_size=size, **options), numbers, workers)
    return [crystal for batch in each for crystal, _ in batch][:num]


def draw_checked(
    model: CrystalVAE,
    num: int,
    *,
    raw: bool = False,
    checks: str | Sequence[str] | None = None,
    known: Callable[..., list[bool]] | None = None,
    distinct: bool = False,
    progress: bool = False,
    max_draws: int | None = None,
    num_workers: int | None = None,
    **options,
) -> tuple[list[Draw], DrawReport]:
    """Draw until ``num`` crystals pass the checks.

    The same options and seed give the same crystals up to rounding (some 1e-5 Å),
    whatever the number of workers.

    Args:
        model: the model.
        num: crystals wanted.
        raw: keep every complete draw among the first ``num``, whatever the checks say.
        checks: names of what must hold, of
            :data:`crystalvae.screening.checks.CHECKS`; None is all but ``smact``.
        known: says which of several crystals are known, as
            :class:`~crystalvae.design.alike.Listed` does; these fall. None asks
            nothing.
        distinct: whether crystals fall that StructureMatcher finds equal to one that
            was kept; not asked where ``raw``.
        progress: show a bar on stderr.
        max_draws: give up after so many; None is 50 a crystal.
        num_workers: processes; None is one a core where they save time.
        **options: of :func:`batches`.

    Returns:
        The crystals with their checks, and the account of all draws. Fewer than
        ``num``, with a warning, where the constraints leave too few.

    Raises:
        ConfigError: ``num`` is no positive integer, or an option is impossible.
        CrystalVAEError: they leave none.
    """
    _refuse_unknown(options)
    if not isinstance(num, Integral):
        raise ConfigError(f"the number of crystals must be an integer, not {num!r}")
    if num < 1:
        raise ConfigError(f"the number of crystals must be at least 1, not {num}")
    strange = beyond_training(model, options.get("constraints"))
    if strange is not None:
        logger.warning(strange)
    names = parse_checks(checks)
    limit = num if raw else max_draws or MAX_DRAWS_PER_CRYSTAL * max(num, 20)
    kept: list[Draw] = []
    size = options.pop("batch_size", None) or batch_size_for(
        num, checked=not raw, device=model.device
    )
    report = DrawReport(batch_size=size)
    seen = Distinct() if distinct and not raw else None
    each = batches(
        model,
        batch_size=size,
        checks=partial(check_crystal, names=names, stop_at_failure=not raw),
        **options,
    )

    def drawn() -> Iterator[Checked]:
        # in rounds of as many batches as are likely to be enough
        start, share = 0, 1.0 if raw else 1 / SPARE
        while len(kept) < num and report.draws < limit:
            enough = math.ceil((num - len(kept)) / share / size)
            more = min(enough, 2 * start or enough, math.ceil(limit / size) - start)
            workers = workers_for(model, more * size, size, num_workers)
            for batch in ordered_map(each, range(start, start + more), workers):
                if known is not None:
                    _drop_known(batch, known)
                yield from batch
            start, share = start + more, max(len(kept), 1) / report.draws

    with tqdm(total=num, unit="crystal", disable=None if progress else True) as bar:
        for index, (crystal, results) in enumerate(drawn()):
            if len(kept) >= num or index >= limit:
                break
            report.draws += 1
            if crystal is None:
                report.fallen["incomplete"] += 1
                continue
            if seen is not None and first_failure(results) is None:
                results[UNIQUE] = CheckResult(UNIQUE, seen.add(crystal))
            for name in options.get("within") or ():
                report.meet(name, results.get(window_check(name)))
            failed = first_failure(results)
            if failed is not None:
                report.fallen[failed] += 1
            if failed is None or raw:
                kept.append(Draw(crystal, index, results))
                bar.update()
    report.kept = len(kept)
    if not raw and len(kept) < num:
        reasons = ", ".join(f"{n} {reason}" for reason, n in report.fallen.items())
        message = (
            f"only {len(kept)} of {num} crystals passed the checks in {report.draws} "
            f"draws ({reasons} fell); loosen the constraints"
        )
        for name, (low, high) in report.estimates.items():
            message += f"; estimates of {name} were {low:.3g} to {high:.3g}"
        if not kept:
            raise CrystalVAEError(message)
        logger.warning(message)
    return kept, report


def _drop_known(batch: list[Checked], known: Callable[..., list[bool]]) -> None:
    """Add the verdict ``unlisted`` to what passed everything else."""
    passed = passing(batch)
    old = known([crystal for crystal, _ in passed], num_workers=1)
    for (_, results), is_old in zip(passed, old):
        results[UNLISTED] = CheckResult(UNLISTED, not is_old)


def check_crystal(
    crystal: AsymmetricUnit,
    *,
    names: Sequence[str] = DEFAULT,
    stop_at_failure: bool = False,
) -> dict[str, CheckResult]:
    """Run checks on a crystal's primitive cell."""
    return run_checks(Candidate.of(crystal), names, stop_at_failure=stop_at_failure)


def draw(
    model: CrystalVAE,
    num: int,
    *,
    seed: int = 0,
    distinct: bool = True,
    unlisted: Any = None,
    **options,
) -> list[AsymmetricUnit]:
    """The crystals of :func:`draw_checked` alone, no two of them equal.

    Args:
        model: the model.
        num: crystals wanted.
        seed: any integer.
        distinct: of :func:`draw_checked`.
        unlisted: known crystals, which fall, as
            :meth:`~crystalvae.design.alike.Listed.of` takes them.
        **options: of :func:`draw_checked`.

    Raises:
        ConfigError: an option is unknown or impossible.
        CrystalVAEError: they leave no crystal.
    """
    _refuse_unknown(options, draw, type(model).sample)
    if unlisted is not None:
        if options.get("known") is not None:
            raise ConfigError("give known or unlisted, not both")
        options["known"] = Listed.of(unlisted)
    kept, _ = draw_checked(model, num, seed=seed, distinct=distinct, **options)
    return [item.crystal for item in kept]


def _refuse_unknown(options: dict[str, Any], *functions: Callable) -> None:
    """Name the first option that nothing takes, and those that are named alike.

    Args:
        options: what was given.
        *functions: what takes options, besides those that drawing takes itself.
    """
    own = (draw_checked, batches, sampling_defaults)
    taken = {
        name
        for function in (*own, *functions)
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in options:
        if name not in taken:
            begun = sorted(other for other in taken if other.startswith(name))
            near = begun or get_close_matches(name, sorted(taken))
            hint = f"; did you mean {' or '.join(near)}" if near else ""
            if name in signature(Constraints.of).parameters:
                hint = f"; give constraints=Constraints.of({name}=...)"
            raise ConfigError(f"there is no argument {name!r}{hint}")
