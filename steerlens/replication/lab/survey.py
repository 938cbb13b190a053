"""One prompt of the survey: how much of it is a vector, in number tasks and in questions, and what could have told so before."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import steerlens as sl
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.teachers import file_name, load

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ORDINARY = Path(__file__).parents[1] / "prompts.toml"
NUMBERS, QUESTIONS = "number tasks", "questions"
N_PROMOTED = 8


@dataclass(frozen=True)
class InContext:
    """A prompt in one kind of text; `fitted` to `carried` are kl_explained on held-out rows.

    Args:
        fitted: of the vector at its best layer, `layer`.
        joint: of a direction at each of the compared layers, fitted together.
        mean_difference: at the layer and strength that are best on validation rows.
        shuffled: of a vector fitted to the predictions of other rows.
        carried: of the fitted vector in the other kind of text.
        kl_prompt: what the prompt changes, nats a token.
        consistency: share of the prompt's mean squared shift of the residual stream at `layer` that is its mean's.
        principal: cosine of the shifts' principal direction with their mean; where it is near 1, PCA finds the mean difference.
        promoted: tokens that the vector makes likelier.
    """

    layer: int
    fitted: sl.Interval
    converged: bool
    joint: float
    mean_difference: float
    random: float
    shuffled: float
    carried: float
    kl_prompt: float
    consistency: float
    principal: float
    promoted: tuple[str, ...]


@dataclass(frozen=True)
class Rates:
    """The trait's rate without and with the prompt, and with the vector; `negated` is that at negated questions."""

    plain: float
    prompted: float
    steered: float
    negated: float


@dataclass(frozen=True)
class Surveyed:
    """What was measured of one prompt, by kind of text; `rates` where it gives a trait."""

    kind: str
    prompt: str
    by_text: dict[str, InContext]
    rates: Rates | None


@dataclass(frozen=True)
class Survey:
    """A prompt to examine, as the profile fits vectors."""

    name: str
    kind: str
    prompt: str
    trait: str | None
    weights: str
    dtype: str | None
    fit: sl.FitConfig
    layers: tuple[int, ...] | None
    n_mean: int
    begun: bool
    record_path: Path
    record_kind = Surveyed

    def run(self) -> Surveyed:
        """Fit a vector in each kind of text, and measure both in both."""
        model = load(self.weights, self.dtype)
        asked = {NUMBERS: sl.number_prompts(2 * self.fit.n_rows, model, seed=0), QUESTIONS: questions(model)}
        vectors = {
            where: sl.fit_prompt_vector(model, self.prompt, questions=texts, config=self.fit)
            for where, texts in asked.items()
        }
        found = {where: self._in_context(model, asked, vectors, where) for where in asked}
        return Surveyed(self.kind, self.prompt, found, self._rates(model, vectors[QUESTIONS]))

    def _in_context(
        self,
        model: "TransformerBridge",
        asked: dict[str, list[str]],
        vectors: dict[str, sl.SteeringVector],
        where: str,
    ) -> InContext:
        vector, texts, (other,) = vectors[where], asked[where], set(asked) - {where}
        metrics, layer = vector.metrics, vector.layers[0]
        joint = sl.fit_prompt_vector(
            model, self.prompt, layers=self.layers or "all", questions=texts, config=self.fit
        ).metrics
        sampled = texts[: self.n_mean]
        mean, principal = (
            make(model, self.prompt, questions=sampled, layers=[layer]).directions[0]
            for make in (sl.diff_in_means, sl.principal_difference)
        )
        return InContext(
            layer=layer,
            fitted=metrics.interval,
            converged=bool(metrics.converged),
            joint=joint.kl_explained,
            mean_difference=metrics.kl_explained_mean_difference,
            random=metrics.kl_explained_random,
            shuffled=metrics.kl_explained_shuffled,
            carried=sl.explained(model, vector, self.prompt, questions=asked[other], config=self.fit).kl_explained,
            kl_prompt=metrics.kl_prompt,
            consistency=consistency(model, self.prompt, sampled, layer),
            principal=float(mean @ principal / (mean.norm() * principal.norm())),
            promoted=tuple(token.text for token in sl.promoted_tokens(model, vector, sampled, n=N_PROMOTED)[0]),
        )

    def _rates(self, model: "TransformerBridge", vector: sl.SteeringVector) -> Rates | None:
        if self.trait is None:
            return None
        trait = sl.preference_trait(self.trait, model, begun=self.begun)
        plain, prompted = (sl.score_trait(model, trait, system_prompt=said) for said in (None, self.prompt))
        with sl.steer(model, vector):
            steered = sl.score_trait(model, trait)
            negated = None if trait.negated is None else sl.score_trait(model, trait.negated)
        return Rates(plain.rate, prompted.rate, steered.rate, float("nan") if negated is None else negated.rate)


def questions(model: "TransformerBridge") -> list[str]:
    """What people ask: requests, open questions, questions of fact, and of preference."""
    wording = sl.wording_of(model)
    preferences = sl.preference_trait(wording.kinds[0].items[0][0], model).questions
    return [*wording.requests, *wording.open_questions, *wording.fact_questions, *preferences]


def consistency(model: "TransformerBridge", prompt: str, texts: Sequence[str], layer: int) -> float:
    """|mean shift|^2 / mean |shift|^2 of the residuals at the last prompt token: 1 where the prompt always does the same."""
    prompted, plain = (
        sl.capture_residuals(model, [sl.as_chat(text, said) for text in texts], layers=[layer])[0]
        for said in (prompt, None)
    )
    shifts = prompted - plain
    return float(shifts.mean(0).square().sum() / shifts.square().sum(-1).mean())


def surveys(lab: Lab, n_personas: int, n_of_kind: int) -> dict[str, Survey]:
    """Personas of the profile's traits, and of each kind of ordinary prompt so many, on models that speak a natural language."""
    model, profile = lab.load(), lab.profile

    def survey(name: str, kind: str, prompt: str, trait: str | None = None) -> Survey:
        path = lab.directory / "prompts" / f"{file_name(name)}.json"
        return Survey(
            name=name, kind=kind, prompt=prompt, trait=trait, weights=profile.weights, dtype=profile.dtype, fit=lab.sizes.fit,
            layers=profile.fit_layers, n_mean=lab.sizes.n_mean, begun=profile.begun, record_path=path,
        )  # fmt: skip

    names = (profile.trait, *profile.other_traits)[:n_personas]
    found = [survey(f"persona, {name}", "persona", lab.trait(model, name).prompt, name) for name in names]
    if not profile.weights.startswith("organism:"):
        ordinary = tomllib.loads(ORDINARY.read_text(encoding="utf-8"))
        found += [
            survey(f"{kind}, {name}", kind, prompt)
            for kind, prompts in ordinary.items()
            for name, prompt in list(prompts.items())[:n_of_kind]
        ]
    return {one.name: one for one in found}
