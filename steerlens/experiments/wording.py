"""How the models of an experiment are spoken to."""

import functools

from steerlens.models.loading import load_model
from steerlens.text.trait import Trait, preference_trait
from steerlens.text.wording import Wording, wording_of


@functools.cache
def wording_at(model: str) -> Wording:
    """The wording of the model that `load_model` loads from here."""
    return wording_of(load_model(model))


def trait_at(name: str, model: str) -> Trait:
    """The built-in trait, in that model's wording."""
    return preference_trait(name, wording_at(model))
