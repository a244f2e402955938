"""How to draw and refine: what is asked for, else what a model's card recommends."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from crystalvae.conditions import Told, require_conditions
from crystalvae.config import from_dict
from crystalvae.design.familiar import unseen_elements
from crystalvae.errors import ConfigError
from crystalvae.generation import Refinement, SamplingOptions
from crystalvae.generation.options import MOST_BIAS

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE


def sampling_defaults(
    model: CrystalVAE,
    *,
    beta: float | None = None,
    temperature: float | None = None,
    part_temperature: dict[str, float] | None = None,
    stop_bias: float | None = None,
    element_bias: dict[str, float] | None = None,
    conditions: Told | None = None,
    condition_strength: float | None = None,
    refine: dict[str, float | None] | bool | None = None,
    likely_stable: float | None = None,
) -> dict[str, Any]:
    """How to draw: what is asked for, and otherwise what the model's card recommends.

    Args:
        model: the model.
        beta: the knob.
        temperature: of every choice; where given, the card's exceptions do not hold.
        part_temperature: exceptions for parts of the crystal, by the names of
            :data:`crystalvae.decoder.PARTS`.
        stop_bias: of :class:`~crystalvae.generation.SamplingOptions`; the card's is
            one of its exceptions.
        element_bias: likewise, but what is asked for is added to the card's.
        conditions: what the decoder is told; of other properties it is told what the
            card says.
        condition_strength: of :class:`~crystalvae.generation.SamplingOptions`.
        refine: of :func:`refinement_of`.
        likely_stable: where it is asked for, the card may have other recommendations.

    Returns:
        Values for all of these arguments but the last; of the conditions those that
        the decoder will hear.

    Raises:
        ConfigError: β is no number of the trained range, or it cannot be told what was
            asked for.
    """
    chosen = model.card.get("sampling", {})
    if likely_stable is not None:
        chosen = chosen | model.card.get("likely_stable_sampling", {})
    exceptions = {} if temperature is not None else chosen
    if part_temperature is None:
        part_temperature = exceptions.get("part_temperature", {})
    if stop_bias is None:
        stop_bias = exceptions.get("stop_bias", 0.0)
    unseen = set(unseen_elements(model))
    fitted = exceptions.get("element_bias", {})
    biases = Counter({s: bias for s, bias in fitted.items() if s not in unseen})
    biases.update(element_bias or {})
    if beta is None:
        beta = chosen.get("beta", model.config.latent.beta_max)
    model.beta_tensor(beta, 1)
    told = {} if conditions is None else conditions
    model.config.require_heard(told, beta)
    told = {**chosen.get("conditions", {}), **told}
    if beta < model.config.told_beta:
        told = {}
    told = {name: value for name, value in told.items() if value is not None}
    require_conditions(model.config.conditions, told)
    if condition_strength is None:
        condition_strength = chosen.get("condition_strength", 1.0)
    elif not told:
        raise ConfigError("nothing is told whose strength could be set")
    if temperature is None:
        temperature = chosen.get("temperature", 1.0)
    return {
        "beta": float(beta),
        "temperature": float(temperature),
        "part_temperature": dict(part_temperature),
        "stop_bias": float(stop_bias),
        "element_bias": dict(biases),
        "conditions": told,
        "condition_strength": condition_strength,
        "refine": asdict(refinement_of(model, refine)),
    }


def sampling_options(
    model: CrystalVAE, how: dict[str, Any], **others: Any
) -> SamplingOptions:
    """The part of :func:`sampling_defaults` that is said of every choice.

    Elements that the model never saw are not chosen, unless there is no other or they
    were given a bias of their own.

    Args:
        model: the model.
        how: what that function returns.
        **others: further fields.
    """
    names = (
        "temperature",
        "part_temperature",
        "stop_bias",
        "element_bias",
        "condition_strength",
    )
    asked = {name: how[name] for name in names}
    unseen = dict.fromkeys(unseen_elements(model), -float(MOST_BIAS))
    asked["element_bias"] = unseen | how["element_bias"]
    return SamplingOptions(**asked, **others)


def told_around(model: CrystalVAE, asked: Told | None, beta: float) -> Told:
    """What to tell around known crystals: the card's ``design_conditions`` and more.

    What the card tells draws from the prior is not told there.

    Args:
        model: the model.
        asked: what was asked for besides.
        beta: the knob.

    Raises:
        ConfigError: of :meth:`~crystalvae.model_config.ModelConfig.require_heard`.
    """
    asked = {} if asked is None else asked
    model.config.require_heard(asked, beta)
    if beta < model.config.told_beta:
        return {}
    prior = model.card.get("sampling", {}).get("conditions", {})
    own = model.card.get("design_conditions", {})
    return {**dict.fromkeys(prior), **own, **asked}


def prediction_conditions(model: CrystalVAE) -> Told:
    """What a model's card recommends to tell where compositions are given."""
    return model.card.get("prediction_conditions", {})


def refinement_of(
    model: CrystalVAE,
    refine: dict[str, float | None] | bool | None = None,
    *,
    purpose: str | None = None,
) -> Refinement:
    """How to refine: as asked, and otherwise as the model's card recommends.

    Args:
        model: the model; without a refiner it recommends 0 passes.
        refine: fields of :class:`~crystalvae.generation.Refinement` that are asked for;
            False leaves refinement out.
        purpose: ``prediction`` (of given compositions) or ``design`` (around known
            crystals), for which the card may have exceptions.

    Raises:
        ConfigError: there is no such field, its value is impossible, or something else
            than passes is asked of a model without a refiner.
    """
    if refine is False:
        refine = {"passes": 0}
    asked = {} if refine is None or refine is True else refine
    if asked and "passes" not in asked:
        model.require_refiner()
    chosen = {"passes": 0}
    if model.refiner is not None:
        chosen = model.card.get("refinement", {})
        if purpose is not None:
            chosen = chosen | model.card.get(f"{purpose}_refinement", {})
    return from_dict(Refinement, {**chosen, **asked}, "refine.")
