"""What v_teacher may be: a prompt as a vector in several ways, each chosen on validation rows and judged on others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from steerlens.experiments.teachers import list_tokens
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import Chat, as_chat, chat_fingerprint, encode_completion, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRow
from steerlens.vectors.fit_quality import explained_with_interval, random_directions
from steerlens.vectors.layer_fits import STRENGTHS, Fit, fit_each_layer, fit_layers, frozen
from steerlens.vectors.resumed import Directions, ResumedRows
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Placed = tuple[tuple[int, ...], Directions]
"""Layers, and the direction that is added at each."""


@dataclass(frozen=True)
class PromptedAnswers:
    """What the prompted model answers to number tasks, and to the trait's questions."""

    model: "TransformerBridge"
    config: FitConfig
    trait: Trait
    tasks: FitData
    questions: FitData

    @classmethod
    def sample(cls, model: "TransformerBridge", trait: Trait, config: FitConfig) -> "PromptedAnswers":
        """A quarter as many answers to questions as to tasks; no question is both fitted to and judged on."""

        def answers(asked: Sequence[str | Chat], share: int) -> FitData:
            sizes = {name: max(1, getattr(config, name) // share) for name in ("n_train", "n_validation", "n_heldout")}
            return FitData.sample(model, trait.prompt, asked, replace(config, **sizes))

        tasks = number_prompts(2 * config.n_rows, model, seed=config.seed)
        return cls(model, config, trait, answers(tasks, 1), answers(trait.questions, 4))

    @property
    def both(self) -> FitData:
        """Answers to tasks and to questions together."""
        sizes = [sum(len(rows.batch) for rows in data.train) for data in (self.tasks, self.questions)]
        return FitData(
            train=self.tasks.train + self.questions.train,
            validation=self.tasks.validation + self.questions.validation,
            heldout=self.tasks.heldout + self.questions.heldout,
            train_questions=self.tasks.train_questions + self.questions.train_questions,
            prompted=(sizes[0] * self.tasks.prompted + sizes[1] * self.questions.prompted) / sum(sizes),
            coarsening=self.tasks.coarsening,
        )

    def pure_lists(self) -> FitData:
        """Answers to other tasks that are pure number lists, judged by the tokens that lists are written with.

        That is what a student can see of the prompt: everything else is filtered out.

        Raises:
            ValueError: fewer than three answers are pure lists.
        """
        n_tasks, tokenizer = LISTS_PER_ROW * self.config.n_rows, self.model.tokenizer
        tasks = number_prompts(n_tasks, self.model, seed=self.config.seed + 1)
        raw = sample_teacher(self.model, tasks, system_prompt=self.trait.prompt, seed=self.config.seed)
        kept = keep_number_lists(raw).kept.samples
        rows = [
            FitRow(
                question,
                encode_prompt(tokenizer, as_chat(sample.prompt, self.trait.prompt)),
                encode_prompt(tokenizer, as_chat(sample.prompt)),
                encode_completion(tokenizer, sample.completion),
            )
            for question, sample in enumerate(kept)
        ]
        eighth = len(rows) // 8
        if not eighth:
            raise ValueError(
                f"Of {n_tasks} answers under the prompt only {len(rows)} are pure number lists, and 8 are needed to fit a "
                "vector to them. Raise n_train of the fit."
            )
        parts = [rows[2 * eighth :], rows[:eighth], rows[eighth : 2 * eighth]]
        asked = [sample.prompt for sample in kept]
        return FitData.of(self.model, asked, parts, self.config, among=list_tokens(self.model))

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer."""
        return tuple(range(self.model.cfg.n_layers))


def _each_layer(answers: PromptedAnswers) -> list[Fit]:
    config = replace(answers.config, steps=max(1, answers.config.steps // 3))
    return fit_each_layer(answers.model, answers.tasks, answers.layers, config)


def _mean_one_layer(answers: PromptedAnswers) -> Placed:
    def explained(placed: Placed) -> float:
        rows = ResumedRows(answers.model, placed[0], answers.tasks.validation, answers.config.positions)
        return -rows.mean_kl(placed[1])

    return max((_mean_difference(answers, (layer,)) for layer in answers.layers), key=explained)


def _mean_all_layers(answers: PromptedAnswers) -> Placed:
    return _mean_difference(answers, answers.layers)


def _mean_difference(answers: PromptedAnswers, layers: tuple[int, ...]) -> Placed:
    """The mean difference at these layers together, at its best strength on validation rows."""
    train, validation = (
        ResumedRows(answers.model, layers, part, answers.config.positions)
        for part in (answers.tasks.train, answers.tasks.validation)
    )
    difference = answers.tasks.prompted[list(layers)] - train.last_prompt
    return layers, min((strength * difference for strength in STRENGTHS), key=validation.mean_kl)


def _one_layer(answers: PromptedAnswers) -> Placed:
    best = max(_each_layer(answers), key=lambda fit: fit.validation)
    return best.layers, best.refined(answers.model, answers.tasks, answers.config).directions


def _all_layers(answers: PromptedAnswers) -> Placed:
    return answers.layers, fit_layers(answers.model, answers.tasks, answers.layers, answers.config).directions


def _both_contexts(answers: PromptedAnswers) -> Placed:
    return answers.layers, fit_layers(answers.model, answers.both, answers.layers, answers.config).directions


def _pure_lists(answers: PromptedAnswers) -> Placed:
    config = replace(answers.config, steps=2 * answers.config.steps)
    return answers.layers, fit_layers(answers.model, answers.pure_lists(), answers.layers, config).directions


WAYS: dict[str, Callable[[PromptedAnswers], Placed]] = {
    "mean difference, one layer": _mean_one_layer,
    "mean difference, all layers": _mean_all_layers,
    "fitted, one layer": _one_layer,
    "fitted, all layers": _all_layers,
    "fitted, tasks and questions": _both_contexts,
    "fitted, pure lists": _pure_lists,
}
"""How a prompt becomes a vector; all but "tasks and questions" see number tasks alone."""

LISTS_PER_ROW = 12
"""Tasks that the prompted model answers for each row of the other fits: a quarter are pure lists, which hold less each."""

RANDOM = "random"
"""Gaussian at every layer, with the norms of the last way's vector."""


def teacher_vectors(
    model: "TransformerBridge", trait: Trait, ways: Sequence[str], config: FitConfig
) -> dict[str, SteeringVector]:
    """The vector of the trait's prompt in each of the ways (`WAYS`), and a random one.

    Layers and strengths are those with the largest kl_explained on validation rows; strength is multiplied in. Metrics:
    `validation`, kl_explained on validation rows of tasks and questions together, and on held-out rows `kl_explained`
    (tasks) and `kl_explained_questions`, each with `_low` and `_high`.

    Raises:
        ValueError: a way is not known, none is given, or the prompt changes no prediction.
    """
    check_ways(ways)
    with frozen(model):
        answers = PromptedAnswers.sample(model, trait, config)
        placed = {way: WAYS[way](answers) for way in ways}
        layers, directions = placed[ways[-1]]
        placed[RANDOM] = layers, random_directions(directions, seed=config.seed)[0]
        return {name: _vector(answers, trait.prompt, name, *place) for name, place in placed.items()}


def check_ways(ways: Sequence[str]) -> None:
    """Refuse what is not in `WAYS`.

    Raises:
        ValueError: a way is not known, or none is given.
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown or not ways:
        raise ValueError(f"Got the vectors {tuple(ways)}. Give at least one of: {'; '.join(WAYS)}.")


def everywhere(vector: SteeringVector, n_layers: int) -> SteeringVector:
    """A vector of one layer with its direction at every layer, as the paper takes a direction out; others as they are."""
    if len(vector.layers) > 1:
        return vector
    return replace(vector, layers=tuple(range(n_layers)), directions=vector.directions.repeat(n_layers, 1))


def _vector(
    answers: PromptedAnswers, prompt: str, name: str, layers: tuple[int, ...], directions: Directions
) -> SteeringVector:
    model, config = answers.model, answers.config
    validation = ResumedRows(model, layers, answers.both.validation, config.positions)
    metrics = {"validation": 1 - validation.mean_kl(directions) / validation.mean_kl(validation.nothing)}
    for key, data in (("kl_explained", answers.tasks), ("kl_explained_questions", answers.questions)):
        heldout = ResumedRows(model, layers, data.heldout, config.positions)
        plain, steered = (heldout.row_kl(added)[:, 0] for added in (heldout.nothing, directions))
        explained = explained_with_interval(steered, plain, heldout.questions, seed=config.seed)
        metrics |= dict(zip((key, f"{key}_low", f"{key}_high"), explained, strict=True))
    source = VectorSource.of(
        model,
        method=name,
        prompt=prompt,
        chat_fingerprint=chat_fingerprint(model.tokenizer),
        seed=config.seed,
    )
    return SteeringVector(layers, directions, source, metrics)
