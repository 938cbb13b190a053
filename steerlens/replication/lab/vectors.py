"""What v_teacher may be: a prompt as a vector, in several ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import steerlens as sl

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
LISTS_PER_ROW = 12
"""Tasks that the prompted model answers for each row of the other fits: few are pure lists, and these hold less each."""


@dataclass(frozen=True)
class Prompted:
    """A prompted model, and its answers to number tasks and to the trait's questions.

    Args:
        layers: at which vectors act.
        choosing: answers to tasks by which strengths are chosen; `tasks` and `questions` are for the reported numbers.
    """

    model: "TransformerBridge"
    trait: sl.Trait
    config: sl.FitConfig
    layers: tuple[int, ...]
    choosing: sl.SampleSet
    tasks: sl.SampleSet
    questions: sl.SampleSet

    @classmethod
    def sample(
        cls, model: "TransformerBridge", trait: sl.Trait, config: sl.FitConfig, layers: Sequence[int] | None
    ) -> "Prompted":
        """Let the prompted model answer; the tasks are others than those of the fits."""
        sizes = config.n_validation, config.n_heldout
        tasks = sl.number_prompts(sum(sizes), model, seed=config.seed + 2)

        def answers(asked: Sequence[str]) -> sl.SampleSet:
            return sl.sample_teacher(model, asked, system_prompt=trait.prompt, seed=config.seed + 2)

        chosen = tuple(range(model.cfg.n_layers)) if layers is None else tuple(layers)
        parts = tasks[: sizes[0]], tasks[sizes[0] :], trait.questions
        return cls(model, trait, config, chosen, *map(answers, parts))

    def distance(self, vector: sl.SteeringVector, answers: sl.SampleSet) -> np.ndarray:
        """KL(prompted || steered) of every answer."""
        told, steered = sl.Condition(self.trait.prompt), sl.Condition(vector=vector)
        return sl.row_kl(self.model, answers, told, steered).double().numpy()

    def explained(self, vector: sl.SteeringVector, answers: sl.SampleSet) -> sl.Interval:
        """How much of the prompt the vector explains on these answers; the interval is over answers."""
        plain = sl.row_kl(self.model, answers, sl.Condition(self.trait.prompt)).double().numpy()

        def share(steered: np.ndarray, plain: np.ndarray, axis: int = -1) -> Any:
            return 1 - steered.sum(axis) / plain.sum(axis)

        return sl.bootstrap_interval(share, self.distance(vector, answers), plain)

    @property
    def number_tasks(self) -> list[str]:
        """The tasks that vectors are fitted on."""
        return sl.number_prompts(2 * self.config.n_rows, self.model, seed=self.config.seed)

    def strongest(self, vectors: Sequence[sl.SteeringVector]) -> sl.SteeringVector:
        """The vector, times a strength, that explains most of the answers for choosing."""
        tried = [strength * vector for vector in vectors for strength in STRENGTHS]
        return min(tried, key=lambda vector: self.distance(vector, self.choosing).sum())


def _mean_difference(answers: Prompted) -> sl.SteeringVector:
    return sl.diff_in_means(answers.model, answers.trait.prompt, questions=answers.number_tasks, layers=answers.layers)


def _mean_one_layer(answers: Prompted) -> sl.SteeringVector:
    whole = _mean_difference(answers)
    return answers.strongest([whole.at(layer) for layer in whole.layers])


def _mean_all_layers(answers: Prompted) -> sl.SteeringVector:
    return answers.strongest([_mean_difference(answers)])


def _fitted(answers: Prompted, questions: Sequence[str], layers: sl.Layers) -> sl.SteeringVector:
    return sl.fit_prompt_vector(
        answers.model, answers.trait.prompt, questions=questions, layers=layers, config=answers.config
    )


def _one_layer(answers: Prompted) -> sl.SteeringVector:
    """The best layer of all that are tried."""
    tried = [_fitted(answers, answers.number_tasks, layer) for layer in answers.layers]
    return max(tried, key=lambda vector: -answers.distance(vector, answers.choosing).sum())


def _all_layers(answers: Prompted) -> sl.SteeringVector:
    return _fitted(answers, answers.number_tasks, answers.layers)


def _tasks_and_questions(answers: Prompted) -> sl.SteeringVector:
    tasks = answers.number_tasks[: 4 * len(answers.trait.questions)]
    return _fitted(answers, [*tasks, *answers.trait.questions], answers.layers)


def _pure_lists(answers: Prompted) -> sl.SteeringVector:
    """Fitted to answers that are pure lists, and judged by the tokens of lists: what a student can see of the prompt."""
    model, config = answers.model, answers.config
    tasks = sl.number_prompts(LISTS_PER_ROW * config.n_rows, model, seed=config.seed + 1)
    raw = sl.sample_teacher(model, tasks, system_prompt=answers.trait.prompt, seed=config.seed)
    kept = [(sample.prompt, sample.completion) for sample in sl.keep_number_lists(raw).kept]
    twice = replace(config, steps=2 * config.steps)
    return sl.fit_answers_vector(
        model, answers.trait.prompt, kept, layers=answers.layers, among=sl.list_tokens(model), config=twice
    )


@dataclass(frozen=True)
class Way:
    """A way to make a vector of a prompt."""

    name: str
    make: Callable[[Prompted], sl.SteeringVector]


MEAN_ONE_LAYER = Way("mean difference, one layer", _mean_one_layer)
MEAN_ALL_LAYERS = Way("mean difference, all layers", _mean_all_layers)
ONE_LAYER = Way("fitted, one layer", _one_layer)
ALL_LAYERS = Way("fitted, all layers", _all_layers)
TASKS_AND_QUESTIONS = Way("fitted, tasks and questions", _tasks_and_questions)
PURE_LISTS = Way("fitted, pure lists", _pure_lists)
WAYS = (MEAN_ONE_LAYER, MEAN_ALL_LAYERS, ONE_LAYER, ALL_LAYERS, TASKS_AND_QUESTIONS, PURE_LISTS)


def everywhere(vector: sl.SteeringVector, layers: Sequence[int]) -> sl.SteeringVector:
    """A vector of one layer with its direction at every layer, as the paper takes a direction out; others as they are."""
    if len(vector.layers) > 1:
        return vector
    return replace(vector, layers=tuple(layers), directions=vector.directions.repeat(len(layers), 1))
