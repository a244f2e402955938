"""Universal potentials, through ASE, by name."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from crystalvae.errors import ConfigError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def _chgnet() -> Calculator:
    """CHGNet (B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023)); weights included."""
    from chgnet.model.dynamics import CHGNetCalculator

    with contextlib.redirect_stdout(io.StringIO()):
        return CHGNetCalculator(use_device="cpu")


def _mace() -> Calculator:
    """MACE-MP (I. Batatia et al., 2023); it downloads its weights once."""
    from mace.calculators import mace_mp

    return mace_mp(model="small", default_dtype="float32")


def _emt() -> Calculator:
    """Effective medium theory of some fcc metals: fast, for trying things out."""
    from ase.calculators.emt import EMT

    return EMT()


POTENTIALS: dict[str, Callable[[], Calculator]] = {
    "chgnet": _chgnet,
    "mace": _mace,
    "emt": _emt,
}


def load_potential(name: str) -> Calculator:
    """A fresh calculator.

    Raises:
        ConfigError: an unknown name, or its package is not installed.
    """
    if name not in POTENTIALS:
        raise ConfigError(
            f"unknown potential {name!r}; known are {', '.join(POTENTIALS)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return POTENTIALS[name]()
    except ImportError as error:
        raise ConfigError(
            f"the potential {name!r} is not installed ({error}); install "
            "crystalvae[stability] for chgnet, or the package of that name"
        ) from error
