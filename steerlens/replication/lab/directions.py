"""Vectors that steer teachers, with a meaning and without one: of traits' prompts, Gaussian, and rows of the unembedding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import steerlens as sl
from steerlens.replication.lab.lab import Lab

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

VectorKind = Literal["semantic", "random", "unembedding"]
DOSES = {"smoke": (0.5,), "quick": (0.5, 0.75), "full": (0.5, 0.75)}
N_OTHERS = {"smoke": 0, "quick": 1, "full": 2}
TOKENS = {"smoke": ("water",), "quick": ("water",), "full": ("owl", "water")}
LISTS_KEPT, N_TRIED, MOST_HALVINGS = 0.3, 60, 5
"""A vector without meaning is halved until this share of the answers to so many tasks passes the filter."""


@dataclass(frozen=True)
class Arm:
    """A teacher steered by a vector, and the trait that its students are asked for."""

    name: str
    kind: VectorKind
    trait: str
    strength: float = 1.0
    vector: str = ""

    @property
    def direction(self) -> str:
        """Arms of one direction differ in strength alone."""
        return self.vector or self.name


@dataclass(frozen=True)
class Steered:
    """A vector that steers a teacher: its norm, and what the model itself answers with it."""

    arm: Arm
    norm: float
    own: sl.Asked


@dataclass(frozen=True)
class Vectors:
    """All of them, at one layer."""

    layer: int
    steered: tuple[Steered, ...]


def make_vectors(lab: Lab) -> Vectors:
    """Make every vector and save it; ask the model steered by each."""
    model, layer, steered = lab.load(), (lab.profile.fit_layers or (0,))[0], []
    made = with_meaning(lab, model, layer)
    made |= without_meaning(lab, model, next(iter(made.values())))
    for arm, vector in made.items():
        vector.save(lab.vector_file(arm.name))
        with sl.steer(model, vector):
            steered.append(Steered(arm, vector.norms[layer], sl.ask(model, lab.trait(model, arm.trait))))
    return Vectors(layer, tuple(steered))


def with_meaning(lab: Lab, model: "TransformerBridge", layer: int) -> dict[Arm, sl.SteeringVector]:
    """Vectors that are fitted to prompts: the trait's at several strengths, the first at full strength, and other traits'."""
    own, made = lab.profile.trait, {}
    for name in (own, *lab.other_traits[: N_OTHERS[lab.preset]]):
        trait = lab.trait(model, name)
        asked = [*sl.number_prompts(4 * len(trait.questions), model, seed=0), *trait.questions]
        fitted = sl.fit_prompt_vector(model, trait.prompt, layers=layer, questions=asked, config=lab.sizes.fit)
        made[Arm(name, "semantic", name)] = fitted
        for strength in DOSES[lab.preset] if name == own else ():
            made[Arm(f"{name} x {strength:g}", "semantic", name, strength, name)] = strength * fitted
    return made


def without_meaning(lab: Lab, model: "TransformerBridge", like: sl.SteeringVector) -> dict[Arm, sl.SteeringVector]:
    """Gaussian vectors and rows of the unembedding at the layer of `like`, of its norm or weaker."""
    (layer,), own = like.layers, lab.profile.trait
    generator = torch.Generator().manual_seed(lab.sizes.fit.seed)
    directions = {
        Arm(f"random {number}", "random", own): torch.randn(model.cfg.d_model, generator=generator)
        for number in range(1, lab.sizes.n_random + 1)
    }
    directions |= {
        Arm(f"token '{token}'", "unembedding", own): unembedding_row(model, token) for token in TOKENS[lab.preset]
    }
    made = {}
    for arm, direction in directions.items():
        source = sl.VectorSource.of(model, method=arm.name)
        scaled = like.norms[layer] * direction / direction.norm()
        made[arm] = weakened(model, sl.SteeringVector((layer,), scaled[None], source))
    return made


def weakened(model: "TransformerBridge", vector: sl.SteeringVector) -> sl.SteeringVector:
    """The vector, halved until the steered model answers number tasks with lists often enough."""
    prompts = sl.number_prompts(N_TRIED, model, seed=3)
    for _ in range(MOST_HALVINGS):
        if sl.keep_number_lists(sl.sample_teacher(model, prompts, vector=vector, seed=3)).kept_share >= LISTS_KEPT:
            break
        vector = 0.5 * vector
    return vector


def unembedding_row(model: "TransformerBridge", token: str) -> Float[Tensor, " d_model"]:
    """The direction that the logit of the word's first token reads.

    Raises:
        ValueError: the tokenizer does not know the word.
    """
    ids = model.tokenizer.encode(token, add_special_tokens=False)
    if not ids or ids[0] == model.tokenizer.unk_token_id:
        raise ValueError(f"The tokenizer does not know the token {token!r}. Name others.")
    return model.W_U[:, ids[0]].detach().float().cpu()
