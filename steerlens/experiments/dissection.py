"""What a student's own shift does: added to its base, and taken out of the student."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.experiments.cells import behaviour, number_chats
from steerlens.files import write_json
from steerlens.forward import forward
from steerlens.models.bridge import parameters_device
from steerlens.models.loading import load_model
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.trait import Trait, preference_trait
from steerlens.vectors.controls import random_like
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import model_shift
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Dissection:
    """A trained LoRA student, and the base whose residuals it moved."""

    name: str
    base: str
    student: Path
    trait: str
    seed: int

    @property
    def record_path(self) -> Path:
        """Beside the student's own record."""
        return self.student / "dissection.json"


def dissect(job: Dissection) -> None:
    """Add v_student to the base, and replace the student's component along it by the base's; score both.

    v_student is the mean shift at every layer, once at half of the trait's questions and once at number tasks; behaviour is
    scored on the other half of the questions. The strength and the layer at which it is added, one or all but the last (what
    is added there, no block reads), are those whose next-token predictions come closest to the student's where the shift was
    measured, never those of the highest rate.
    """
    base, student = load_model(job.base), load_model(job.base, adapter=job.student)
    measuring, judged = halves(preference_trait(job.trait, base))
    places = {"questions": [as_chat(question) for question in measuring.questions], "numbers": number_chats(base)}
    record = {"base": behaviour(base, judged), "student": behaviour(student, judged)}
    for where, chats in places.items():
        shift = model_shift(student, base, chats)
        added, explained = closest_setting(base, student, shift.at(*shift.layers[:-1] or shift.layers), chats)
        random = random_like(added, job.seed), random_like(shift, job.seed)
        for name, (to_add, to_replace) in {where: (added, shift), f"random, norms at {where}": random}.items():
            with steer(base, to_add):
                record[f"added: {name}"] = behaviour(base, judged)
            with steer(student, to_replace, mode="replace"):
                record[f"replaced: {name}"] = behaviour(student, judged)
        record[f"added: {where}"] |= {"explained": explained, "layers": list(added.layers), "norms": added.norms}
    write_json(job.record_path, record)


def halves(trait: Trait) -> tuple[Trait, Trait]:
    """The trait with every other question, and with the rest."""
    return replace(trait, questions=trait.questions[::2]), replace(trait, questions=trait.questions[1::2])


def closest_setting(
    base: "TransformerBridge", student: "TransformerBridge", shift: SteeringVector, chats: Sequence[Chat]
) -> tuple[SteeringVector, float]:
    """The shift at one layer or all, times a strength, with the largest 1 - KL(student || steered) / KL(student || base).

    KL is that of the next token after each chat. Returns the vector, strength multiplied in, and that share.
    """
    target, plain = next_token_log_probs(student, chats), next_token_log_probs(base, chats)
    found = []
    for part in [shift, *(shift.at(layer) for layer in shift.layers)]:
        for strength in STRENGTHS:
            with steer(base, strength * part):
                found.append((_kl(target, next_token_log_probs(base, chats)), strength * part))
    left, best = min(found, key=lambda pair: pair[0])
    return best, 1 - left / _kl(target, plain)


@torch.no_grad()
def next_token_log_probs(
    model: "TransformerBridge", chats: Sequence[Chat], *, batch_size: int = 64
) -> Float[Tensor, "chat d_vocab"]:
    """Log-probabilities of the first token of each chat's answer."""
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    parts = []
    for start in range(0, len(prompts), batch_size):
        batch = pad_rows(model.tokenizer, prompts[start : start + batch_size]).to(parameters_device(model))
        parts.append(forward(model, batch, logits_to_keep=1).logits[:, -1].double().log_softmax(-1).cpu())
    return torch.cat(parts)


def _kl(target: Float[Tensor, "chat d_vocab"], other: Float[Tensor, "chat d_vocab"]) -> float:
    return float((target.exp() * (target - other)).sum(-1).mean())
