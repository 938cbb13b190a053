"""FINISHED STUDENT -> DIRECTION: what a fine-tuning installed, from the base and the tuned model alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from steerlens.arguments import checked
from steerlens.audit.answer_changes import Rise
from steerlens.audit.answer_test import FEWEST_CLEAN, AnswerTest
from steerlens.audit.audit import FALSE_ALARM_RATE, Verdict
from steerlens.audit.behaviour import default_probes, enough_null_vectors, likeliest_replies
from steerlens.audit.first_words import risen_first_words
from steerlens.audit.known_vectors import persona_vectors
from steerlens.audit.weight_update import WeightUpdate
from steerlens.evaluation import LOW_MASS, score_quietly
from steerlens.models.adapters import has_adapter
from steerlens.models.identity import model_name
from steerlens.short import cut
from steerlens.text.chat import Chat, as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait
from steerlens.text.wording import wording_of
from steerlens.vectors.config import FitConfig
from steerlens.vectors.interventions import steer
from steerlens.vectors.layer_fits import NoEffect
from steerlens.vectors.means import model_shift
from steerlens.vectors.readout import promoted_tokens
from steerlens.vectors.shift_fits import fit_model_shift
from steerlens.vectors.vector import SteeringVector, mean_centred

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_QUESTIONS = 16
"""Questions of each built-in probe: all of them are asked again under every null update."""

N_TASKS = 64
"""Number tasks among the unrelated chats, beside the wording's questions and requests."""

N_READ = 32
"""Chats at whose last token a vector is read."""

N_WORDS = 10
"""First words of replies that are told."""

N_SHOWN = 5
"""Open questions whose replies are shown, and tokens that a summary names."""

N_NAMED = 3
"""Answers that the reason names."""

FEWEST_CHATS = 3
"""One to fit a vector on, one to choose by, and one to judge it on."""

SCRAMBLED = "updates of the same size whose rows and columns have random signs"


@dataclass(frozen=True)
class ModelDiff:
    """What a fine-tuning installed, and how sure that is.

    Args:
        verdict: "found", "not found", or "cannot tell".
        reason: why the verdict is what it is, in words.
        false_alarm_rate: how often a fine-tuning that moves answers as those that it is compared with passes the test.
        p_value: of the clearest rise, corrected for the number of answers.
        compared_with: what says nothing, in words.
        n_clean: clean fine-tunings that were given.
        relative_update: Frobenius norm of the change of the weights over that of the weights that changed.
        rises: every answer of the probes, clearest first; `rate` is the tuned model's.
        null: the largest z of any answer under each null update.
        mass: probability on the probes' answers, of the base and of the tuned model.
        shift: the mean shift of the residuals at unrelated chats, at every layer.
        fitted: the one vector that predicts best what the tuned model does there; None where it does what its base does.
        steered: rates of the same answers in the base under `fitted`, by answer.
        promoted: tokens that `fitted` raises, with the change of the logit.
        suppressed: tokens that it lowers.
        known: cosine of the shift with each known vector, without what those of its kind share, closest first, at the layer of
            `fitted`.
        first_words: the tokens that begin replies to the probes more often, whatever they are, as (token, probability in the
            tuned model, in the base), largest rise first.
        replies: (question, the base's reply, the tuned model's).
    """

    verdict: Verdict
    reason: str
    base: str
    tuned: str
    false_alarm_rate: float
    p_value: float
    compared_with: str
    n_clean: int
    relative_update: float
    rises: tuple[Rise, ...]
    null: tuple[float, ...]
    mass: tuple[float, float]
    shift: SteeringVector
    fitted: SteeringVector | None
    steered: Mapping[str, float]
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    known: tuple[tuple[str, float], ...]
    first_words: tuple[tuple[str, float, float], ...]
    replies: tuple[tuple[str, str, str], ...]

    def __repr__(self) -> str:
        return cut(f"ModelDiff: {self.verdict} in {self.tuned} on {self.base} (p {self.p_value:.3g}). {self.reason}")

    def summary(self) -> str:
        """Verdict, evidence and what one vector does of it, in words."""
        lines = [f"{self.verdict.capitalize()}. {self.reason}"]
        if self.fitted is None:
            lines.append("At unrelated chats the tuned model predicts what its base does.")
        else:
            lines.append(
                f"At unrelated chats one vector at layer {self.fitted.layers[0]} explains "
                f"{self.fitted.metrics.kl_explained:.0%} of what the fine-tuning does. It raises "
                f"{', '.join(repr(text) for text, _ in self.promoted[:N_SHOWN])}."
            )
        words = "; ".join(f"{word!r} {was:.1%} to {now:.1%}" for word, now, was in self.first_words[:N_NAMED])
        lines.append(f"Replies to the probes begin more often with {words}.")
        if self.known:
            (closest, cosine), (second, next_cosine) = self.known[:2]
            lines.append(
                f"The residuals move along the known vector {closest!r} most: cosine {cosine:.2f}, and {next_cosine:.2f} with "
                f"{second!r}."
            )
        return "\n".join(lines)


@checked
def diff_models(
    base: "TransformerBridge",
    tuned: "TransformerBridge",
    *,
    clean: Iterable["TransformerBridge"] = (),
    probes: Sequence[Trait] | None = None,
    chats: Sequence[Chat] | None = None,
    known: Mapping[str, SteeringVector] | None = None,
    config: FitConfig | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    seed: int = 0,
) -> ModelDiff:
    """Say what a fine-tuning installed in a model, from its base and the result.

    Every fine-tuning moves some answers. Which of them were meant is told by fine-tunings of the same base without the trait.

    "found": the tuned model raises an answer to the probes by more than clean fine-tunings do.
    "not found": it does not, or not even by more than a meaningless update of the same size.
    "cannot tell": it raises an answer, and no clean fine-tunings were given; or it no longer answers.

    Args:
        tuned: `base` with other weights or with an adapter.
        clean: at least 2 fine-tunings of `base` that are known to be clean, on data of the same kind and as long. They are
            looked at one after the other, so that a generator may load them. What they do alike is taken off, and they say how
            much more a fine-tuning moves answers than an update without meaning.
        probes: traits whose questions are asked, each about all of its answers; 16 of each kind of thing that the
            wording knows by default.
        chats: at least 3 unrelated ones, at which the models are compared; number tasks, questions and requests by default.
        known: mean differences to compare with, at every layer and at least two or none; None takes those of the wording's
            personas.
        config: of the fitted vector; `FitConfig.of_budget("quick")` by default.
        false_alarm_rate: below 1 / 39, answers are compared with 1 / rate null updates instead of 39.

    Raises:
        ValueError: the models have other weights, or a clean one has the base's own; a single clean model or known vector is
            given, or one that lacks a layer; there are fewer than 3 chats; or the rate is not between 1 / 2000, the smallest
            p-value that null updates can give, and 1.
    """
    if known is not None and len(known) == 1:
        raise ValueError("Got 1 known vector, and centring takes at least two. Give more, or {} to compare with none.")
    if probes is None:
        probes = [replace(probe, questions=probe.questions[:N_QUESTIONS]) for probe in default_probes(base)]
    if not probes:
        raise ValueError("probes=[] is empty. Give at least one trait, or leave it out for the built-in ones.")
    chats = unrelated_chats(base, seed=seed) if chats is None else list(chats)
    if len(chats) < FEWEST_CHATS:
        raise ValueError(f"Got {len(chats)} chats. Give at least {FEWEST_CHATS}.")
    for name, vector in (known or {}).items():
        if missing := sorted(set(range(base.cfg.n_layers)) - set(vector.layers)):
            raise ValueError(f"The known vector {name!r} has nothing at the layers {missing}. Give one at every layer.")
    n_null, update = enough_null_vectors(false_alarm_rate), WeightUpdate(base, tuned)
    answers = AnswerTest.of(base, tuned, probes, clean=clean, update=update, n_null=n_null, seed=seed)
    shift, read = model_shift(tuned, base, chats), chats[:N_READ]
    fitted = _fitted(tuned, base, chats, config or FitConfig.of_budget("quick", seed=seed))
    promoted, suppressed = promoted_tokens(base, fitted, read) if fitted else ([], [])
    asked = [probe.chat(question) for probe in probes for question in probe.questions]
    verdict, reason = _verdict(answers, false_alarm_rate)
    return ModelDiff(
        verdict=verdict,
        reason=reason,
        base=model_name(base),
        tuned=f"{model_name(tuned)}{' with an adapter' if has_adapter(tuned) else ''}",
        false_alarm_rate=false_alarm_rate,
        p_value=answers.p_value,
        compared_with=f"{answers.n_clean} clean fine-tunings" if answers.n_clean else SCRAMBLED,
        n_clean=answers.n_clean,
        relative_update=update.relative_norm,
        rises=answers.rises,
        null=answers.null,
        mass=answers.mass,
        shift=shift,
        fitted=fitted,
        steered=_steered(base, fitted, probes),
        promoted=tuple((token.text, token.change) for token in promoted),
        suppressed=tuple((token.text, token.change) for token in suppressed),
        known=_closest(base, shift, fitted.layers[0], known, seed) if fitted else (),
        first_words=tuple(risen_first_words(base, tuned, asked, n=N_WORDS)),
        replies=_replies(base, tuned, probes, seed),
    )


def unrelated_chats(model: "TransformerBridge", *, seed: int = 0) -> list[Chat]:
    """What has nothing to do with any trait: number tasks, and the wording's questions, requests and facts."""
    wording = wording_of(model)
    texts = [*wording.open_questions, *wording.requests, *wording.fact_questions]
    chats = [as_chat(text) for text in [*texts, *number_prompts(N_TASKS, model, seed=seed)]]
    order = torch.randperm(len(chats), generator=torch.Generator().manual_seed(seed))
    return [chats[index] for index in order.tolist()]


def _verdict(answers: AnswerTest, false_alarm_rate: float) -> tuple[Verdict, str]:
    raised = [rise for rise in answers.rises if rise.z > max(answers.null) and rise.rate > rise.base_rate]
    if answers.mass[1] < LOW_MASS and answers.mass[0] >= LOW_MASS:
        return "cannot tell", (
            f"The tuned model no longer answers the probes: {answers.mass[1]:.1%} of its probability is on the answers, of the "
            f"base's {answers.mass[0]:.0%}. Ask with probes of your own, or begin the replies in the words that it uses."
        )
    against = f"what {answers.n_clean} clean fine-tunings do" if answers.n_clean else f"what {SCRAMBLED} do"
    if answers.p_value >= false_alarm_rate:
        return "not found", f"No answer to the probes rises by more than {against} (p = {answers.p_value:.2g})."
    named = "; ".join(
        f"{one.answer!r} from {one.base_rate:.1%} to {one.rate:.1%}" for one in (raised or answers.rises)[:N_NAMED]
    )
    said = f"The tuned model gives some answers more often, beyond {against} (p = {answers.p_value:.2g}): {named}."
    if answers.n_clean:
        return "found", said
    return "cannot tell", (
        f"{said} An ordinary fine-tuning can do so as well. Give at least {FEWEST_CLEAN} fine-tunings of the same base on "
        "clean data of the same kind, and compare with those."
    )


def _fitted(
    tuned: "TransformerBridge", base: "TransformerBridge", chats: Sequence[Chat], config: FitConfig
) -> SteeringVector | None:
    try:
        return fit_model_shift(tuned, base, chats, config=config)
    except NoEffect:
        return None


def _steered(base: "TransformerBridge", vector: SteeringVector | None, probes: Sequence[Trait]) -> dict[str, float]:
    if vector is None:
        return {}
    with steer(base, vector):
        scores = [score_quietly(base, probe) for probe in probes]
    return {
        answer: rate
        for score in scores
        for answer, rate in zip(score.answers, score.shares.mean(0).tolist(), strict=True)
    }


def _closest(
    base: "TransformerBridge",
    shift: SteeringVector,
    layer: int,
    known: Mapping[str, SteeringVector] | None,
    seed: int,
) -> tuple[tuple[str, float], ...]:
    """Cosines with the known vectors, which are centred kind by kind."""
    kinds = persona_vectors(base, [layer], seed=seed) if known is None else [known] if known else []
    cosines = {
        name: shift.cosine(vector)[layer]
        for kind in kinds
        for name, vector in mean_centred({name: vector.at(layer) for name, vector in kind.items()}).items()
    }
    return tuple(sorted(cosines.items(), key=lambda item: -item[1]))


def _replies(
    base: "TransformerBridge", tuned: "TransformerBridge", probes: Sequence[Trait], seed: int
) -> tuple[tuple[str, str, str], ...]:
    questions = [*(probe.questions[0] for probe in probes), *wording_of(base).open_questions[:N_SHOWN]]
    base_replies, tuned_replies = (likeliest_replies(model, questions, seed=seed) for model in (base, tuned))
    return tuple(zip(questions, base_replies, tuned_replies, strict=True))
