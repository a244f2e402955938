"""Universal potentials, through ASE, by name."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
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
        return CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")


def _sevennet() -> Calculator:
    """SevenNet-l3i5 (Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024)).

    Weights included; more accurate than CHGNet, and a fifth as fast.
    """
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-l3i5", device="cpu")


def _mace() -> Calculator:
    """MACE-MP (I. Batatia et al., 2023); it downloads its weights once."""
    from mace.calculators import mace_mp

    return mace_mp(model="small", default_dtype="float32", device="cpu")


def _emt() -> Calculator:
    """Effective medium theory of some fcc metals: fast, for trying things out."""
    from ase.calculators.emt import EMT

    return EMT()


POTENTIALS: dict[str, Callable[[], Calculator]] = {
    "chgnet": _chgnet,
    "sevennet": _sevennet,
    "mace": _mace,
    "emt": _emt,
}


def load_potential(name: str) -> Calculator:
    """A fresh calculator.

    Args:
        name: of :data:`POTENTIALS` (on the CPU), or ``MODULE:CALLABLE`` of what makes
            an ASE calculator without arguments, such as
            ``mattersim.forcefield:MatterSimCalculator``.

    Raises:
        ConfigError: an unknown name, or its package is not installed.
    """
    module, colon, attribute = name.partition(":")
    if not colon and name not in POTENTIALS:
        raise ConfigError(
            f"unknown potential {name!r}; known are {', '.join(POTENTIALS)} and "
            "MODULE:CALLABLE"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not colon:
                return POTENTIALS[name]()
            found = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        raise ConfigError(
            f"the potential {name!r} is not installed ({error}); install "
            "crystalvae[stability] for chgnet, crystalvae[sevennet] for sevennet, or "
            "mace-torch for mace"
        ) from error
    except Exception as error:
        raise ConfigError(f"{name} makes no calculator: {error}") from error
    if not hasattr(found, "get_potential_energy"):
        raise ConfigError(f"{name} makes no ASE calculator but {found!r}")
    return found


def file_name(name: str) -> str:
    """The name of a potential as part of a file's name."""
    return re.sub(r"[^\w.-]", "-", name)
