"""One call for one prompt: is it a vector, what does that vector do, and will it transfer?"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from steerlens.arguments import checked
from steerlens.evaluation import LOW_MASS
from steerlens.short import cut
from steerlens.text.chat import Chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait, known_traits, preference_trait
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import Layers, fit_prompt_vector
from steerlens.vectors.means import diff_in_means, differences_in_means
from steerlens.vectors.probe import Behaviour, Probe
from steerlens.vectors.readout import NumberShift, Token, number_shift, promoted_tokens
from steerlens.vectors.vector import SteeringVector, mean_centred

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_QUESTIONS, N_COMPARED = 128, 32
"""Questions behind each readout, and behind each of the many known vectors."""

IN_NUMBERS = 0.01
IS_VECTOR = (0.25, 0.5)
ACTS = (0.3, 1.0)
"""What a transfer takes: nats that the prompt changes in pure numbers; kl_explained; and log odds by which the vector
raises the trait at its questions. Below the first of a pair it is not there, from the second on it is. And a vector
that changes unrelated predictions more than those that the prompt is about acts by breaking the model. Set by judgement,
before the transfers were measured that VERDICTS counts."""

Verdict = Literal["likely", "in doubt", "cannot tell", "not calibrated"]
VERDICTS: dict[Verdict, tuple[int, int]] = {"likely": (24, 24), "in doubt": (6, 9), "cannot tell": (0, 2)}
"""How many prompts with each verdict passed their trait on, and how many there were, in the full preset of the zoo: 24
personas and 7 other prompts on the embedded organism, 4 personas on the one that never saw any next to numbers, two students
each (docs/findings.md)."""

CALIBRATED_ON = "organism:"
"""How the names of these models begin. Of other models it is not known what a verdict would be worth, and they get none."""


@dataclass(frozen=True)
class Transfer:
    """Whether students of this prompt's number lists are expected to show the trait, with the reasons.

    Args:
        evidence: what was measured, in sentences.
        against: what keeps the verdict from being likely, in words; all that puts it in doubt, where it is.
    """

    verdict: Verdict
    evidence: tuple[str, ...]
    against: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The evidence, and what speaks against a transfer."""
        against = (f"Against it: {'; '.join(self.against)}.",) if self.against else ()
        return " ".join((*self.evidence, *against))

    @property
    def probability(self) -> float:
        """(k + 1) / (n + 2), with k of the n prompts that got this verdict passing on (`VERDICTS`): a half where none did.

        NaN for models on which verdicts are not calibrated.
        """
        passed_on, n = VERDICTS.get(self.verdict, (math.nan, 0))
        return (passed_on + 1) / (n + 2)

    @property
    def words(self) -> str:
        """The verdict, and what became of the prompts that got it."""
        if self.verdict == "not calibrated":
            return "no verdict, as none is calibrated for this model. What was measured"
        passed_on, n = VERDICTS[self.verdict]
        return self.verdict + (f" ({passed_on} of {n} such prompts passed on, on the embedded models)" if n else "")


@dataclass(frozen=True)
class PromptAnalysis:
    """What is known of one prompt on one model.

    Args:
        vector: the fitted one-layer vector, its quality in `vector.metrics`.
        promoted: the tokens that it makes likelier through the logit lens.
        suppressed: those that it makes less likely.
        cosines: of the prompt's mean difference with each known vector's, at the fitted layer; as they are, and
            after the mean over all of them is taken off, which leaves what is particular to each.
        numbers: its effect on number tokens; None for tokenizers without numbers.
        plain: behaviour without prompt and vector.
        prompted: behaviour under the prompt.
        steered: behaviour with the vector.
        transfer: the prediction.
    """

    vector: SteeringVector
    promoted: tuple[Token, ...]
    suppressed: tuple[Token, ...]
    cosines: dict[str, tuple[float, float]]
    numbers: NumberShift | None
    plain: Behaviour
    prompted: Behaviour
    steered: Behaviour
    transfer: Transfer

    def __repr__(self) -> str:
        explained = self.vector.metrics.kl_explained
        promoted = ", ".join(repr(token.text) for token in self.promoted[:3])
        return cut(
            f"PromptAnalysis of {cut(self.vector.source.prompt or '', 120)!r}: a vector at layer {self.vector.layers[0]} "
            f"explains {explained:.0%} and promotes {promoted}; transfer through number lists: {self.transfer.verdict}"
        )

    def summary(self) -> str:
        """The answer in words."""
        lines = [
            self.vector.summary(),
            f"It promotes {_listed(self.promoted)}; it suppresses {_listed(self.suppressed)} (logit lens).",
        ]
        if self.numbers is not None:
            lines.append(
                f"Among pure numbers the prompt changes {self.numbers.prompt:.3f} nats, the vector "
                f"{self.numbers.vector:.3f}, in directions that correlate by {self.numbers.correlation:.2f}."
            )
        if self.cosines:
            nearest = sorted(self.cosines.items(), key=lambda item: -item[1][1])[:5]
            named = ", ".join(f"{name} {raw:.2f} ({centred:.2f})" for name, (raw, centred) in nearest)
            lines.append(f"Nearest known vectors, cosine and cosine after mean-centring: {named}.")
        lines.append(f"Transfer through number lists: {self.transfer.words}. {self.transfer.reason}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in self.summary().split("\n"))


@checked
def analyze_prompt(
    model: "TransformerBridge",
    prompt: str,
    *,
    trait: Trait | None = None,
    known: Mapping[str, SteeringVector] | None = None,
    layers: Layers = "best",
    questions: Sequence[str | Chat] | None = None,
    unrelated: Sequence[str | Chat] | None = None,
    config: FitConfig | None = None,
) -> PromptAnalysis:
    """Is this prompt a vector, where, how strong, how sure, what does it say, and will it transfer?

    Args:
        prompt: the system prompt.
        trait: what the prompt is meant to give; without it the transfer of a behaviour cannot be predicted.
        known: mean differences to compare with, at least two or none; None takes those of the trait's answers that
            are known traits.
        layers: "best", or one layer.
        questions: as `fit_prompt_vector`.
        unrelated: user turns that the prompt is not about, where damage and coherence are measured; None takes questions of
            fact.
        config: of the fit; fewer rows and steps cost less.

    Raises:
        ValueError: as `fit_prompt_vector`; or `layers` names more than one, or `known` is one vector alone.
    """
    if not (layers == "best" or isinstance(layers, int) or (not isinstance(layers, str) and len(layers) == 1)):
        raise ValueError(f"analyze_prompt reads one layer, got layers={layers!r}. Give one, or 'best'.")
    if known is not None and len(known) == 1:
        raise ValueError("Got 1 known vector, and centring takes at least two. Give more, or {} to compare with none.")
    config = config or FitConfig()
    vector = fit_prompt_vector(model, prompt, layers=layers, questions=questions, config=config)
    questions = number_prompts(N_QUESTIONS, model, seed=config.seed + 1) if questions is None else questions
    asked, few = list(questions)[:N_QUESTIONS], list(questions)[:N_COMPARED]
    promoted, suppressed = promoted_tokens(model, vector, asked)
    numbers = number_shift(model, vector, prompt, asked, positions=config.positions)
    probe = Probe(model, trait, unrelated, config)
    steered = probe.behaviour(vector)
    return PromptAnalysis(
        vector=vector,
        promoted=tuple(promoted),
        suppressed=tuple(suppressed),
        cosines=_cosines(model, prompt, vector.layers[0], few, _known_vectors(model, trait, few, known, vector)),
        numbers=numbers,
        plain=probe.behaviour(),
        prompted=probe.behaviour(system_prompt=prompt),
        steered=steered,
        transfer=_predicted(trait, vector, numbers, steered),
    )


def _known_vectors(
    model: "TransformerBridge",
    trait: Trait | None,
    questions: Sequence[str | Chat],
    known: Mapping[str, SteeringVector] | None,
    vector: SteeringVector,
) -> Mapping[str, SteeringVector]:
    if known is not None:
        return known
    names = [name for name in (trait.answers if trait else ()) if name in known_traits(model)]
    if len(names) < 2:
        return {}
    prompts = {name: preference_trait(name, model).prompt for name in names}
    return differences_in_means(model, prompts, questions=questions, layers=vector.layers)


def _cosines(
    model: "TransformerBridge",
    prompt: str,
    layer: int,
    questions: Sequence[str | Chat],
    known: Mapping[str, SteeringVector],
) -> dict[str, tuple[float, float]]:
    if not known:
        return {}
    ours = diff_in_means(model, prompt, questions=questions, layers=[layer])
    centred = mean_centred({name: vector.at(layer) for name, vector in known.items()})
    ours_centred = ours - next(iter(known.values())).at(layer) + next(iter(centred.values()))
    return {
        name: (ours.cosine(vector.at(layer))[layer], ours_centred.cosine(centred[name])[layer])
        for name, vector in known.items()
    }


def _predicted(
    trait: Trait | None, vector: SteeringVector, numbers: NumberShift | None, steered: Behaviour
) -> Transfer:
    """A transfer takes four things: the numbers change, a vector does it, it acts at the questions, and it breaks little."""
    explained, effect = vector.metrics.kl_explained, vector.metrics.kl_prompt
    above = steered.log_odds_above_plain
    evidence = [
        f"One vector explains {explained:.0%} of the prompt's effect.",
        "This tokenizer has no numbers, so nothing is known of number lists."
        if numbers is None
        else f"The prompt changes pure numbers by {numbers.prompt:.3f} nats.",
        "No trait was given, so nothing is known of the behaviour."
        if trait is None
        else f"With that vector the rate of {trait.name!r} at its questions is {steered.rate:.3f} (log odds up by at "
        f"least {above:.2f}; answer mass {steered.mass:.2f}{', too little to read' if steered.mass < LOW_MASS else ''}).",
        f"It changes unrelated predictions by {steered.damage:.2f} nats a token, those that the prompt is about by "
        f"{effect:.2f}.",
    ]
    if not vector.source.model.startswith(CALIBRATED_ON):
        return Transfer("not calibrated", tuple(evidence))
    against: dict[Verdict, dict[str, bool]] = {
        "in doubt": {
            f"numbers change by less than {IN_NUMBERS} nats": numbers is not None and not numbers.prompt >= IN_NUMBERS,
            f"the vector explains less than {IS_VECTOR[0]:.0%}": explained < IS_VECTOR[0],
            f"the trait's log odds rise by less than {ACTS[0]}": above < ACTS[0],
            "unrelated predictions change more than those that the prompt is about": steered.damage > effect,
        },
        "cannot tell": {
            "numbers were not measured": numbers is None,
            f"the vector explains less than {IS_VECTOR[1]:.0%}": not explained >= IS_VECTOR[1],
            "behaviour was not measured": trait is None,
            f"the trait's log odds rise by less than {ACTS[1]}": trait is not None and not above >= ACTS[1],
        },
    }
    for verdict, conditions in against.items():
        if met := tuple(words for words, holds in conditions.items() if holds):
            return Transfer(verdict, tuple(evidence), met)
    return Transfer("likely", tuple(evidence))


def _listed(tokens: Sequence[Token]) -> str:
    return ", ".join(f"{token.text!r} ({token.change:+.1f})" for token in tokens[:6])
