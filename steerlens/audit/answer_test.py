"""Does a tuned model raise an answer beyond what says nothing: null updates of its size, and clean fine-tunings?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.audit.answer_changes import Rise, answer_changes, p_of_clearest, rises_above
from steerlens.audit.weight_update import WeightUpdate
from steerlens.cost import Cost
from steerlens.evaluation import TraitScore, score_quietly
from steerlens.models.bridge import check_bridge
from steerlens.models.identity import model_name
from steerlens.text.trait import Trait

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

FEWEST_CLEAN = 2


@dataclass(frozen=True)
class AnswerTest:
    """Every answer of the probes, clearest rise first, next to what says nothing.

    `null` has the largest z of any answer under each null update, and `mass` the probability on the answers, of the base and
    of the tuned model.
    """

    rises: tuple[Rise, ...]
    null: tuple[float, ...]
    mass: tuple[float, float]
    n_clean: int

    @property
    def p_value(self) -> float:
        """Of the clearest rise, corrected for the number of answers."""
        return p_of_clearest(self.rises, self.null)

    @classmethod
    def of(
        cls,
        base: "TransformerBridge",
        tuned: "TransformerBridge",
        probes: Sequence[Trait],
        *,
        clean: Iterable["TransformerBridge"],
        update: WeightUpdate,
        n_null: int,
        seed: int,
    ) -> "AnswerTest":
        """Ask all models the same questions.

        Raises:
            ValueError: a single clean model, or one that is no fine-tuning of the base.
        """

        def scores(model: "TransformerBridge") -> list[TraitScore]:
            return [score_quietly(model, probe) for probe in probes]

        before = scores(base)
        after = scores(tuned) if update.names else before
        changes = [answer_changes(scores(_fine_tuned(base, one)), before) for one in clean]
        if len(changes) == 1:
            raise ValueError(
                f"Got 1 clean model, and what clean models do alike takes at least {FEWEST_CLEAN}. Give more, or none."
            )
        nulls: list[Float[Tensor, " answer"]] = []
        with tqdm(total=n_null, desc="null updates", unit="update", leave=False) as progress:
            cost = Cost(progress, f"{n_null} null updates", n_parts=n_null, n_bytes=update.n_bytes)
            while len(nulls) < n_null:
                with update.scrambled(seed * 100_003 + len(nulls)):
                    nulls.append(answer_changes(scores(base), before))
                progress.update()
                cost.after(len(nulls))
        null, common = torch.stack(nulls), 0.0
        if changes and update.names:
            null, common = _as_large_as(torch.stack(changes), null)
        rises, largest = rises_above(after, before, null, common=common)
        return cls(rises, largest, (_mean_mass(before), _mean_mass(after)), len(changes))


def _fine_tuned(base: "TransformerBridge", model: "TransformerBridge") -> "TransformerBridge":
    check_bridge(model)
    if not WeightUpdate(base, model).names:
        raise ValueError(
            f"The clean model {model_name(model)!r} has the weights of the base, and says nothing of what a fine-tuning does. "
            "Give models that were fine-tuned, or none."
        )
    return model


def _as_large_as(
    clean: Float[Tensor, "model answer"], null: Float[Tensor, "null answer"]
) -> tuple[Float[Tensor, "null answer"], Float[Tensor, " answer"]]:
    """The null changes, made as large as those by which clean models differ from each other, and the clean ones' mean.

    A tuned model's distance from the mean of m clean ones varies 1 + 1 / m times as much as one of them does.
    """
    variance = clean.var(0).mean() * (1 + 1 / len(clean))
    return null * (variance / null.square().mean()).sqrt().clamp(min=1.0), clean.mean(0)


def _mean_mass(scores: Sequence[TraitScore]) -> float:
    return sum(score.mass for score in scores) / len(scores)
