"""A trait as a task of Inspect (inspect-ai), and models of steerlens, steered or trained, as models that Inspect evaluates.

    from inspect_ai import eval  # pyright: ignore[reportMissingImports]
    eval(trait_task(trait), model=inspect_model(model, vector=vector), log_dir="logs")

`inspect view --log-dir logs` shows what was asked, answered and scored. On the command line of Inspect a model is
`--model steerlens/NAME`, with `-M vector=FILE`, `-M strength=2`, `-M adapter=DIRECTORY` and `load_model`'s other arguments.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inspect_ai import Task  # pyright: ignore[reportMissingImports]
from inspect_ai.dataset import MemoryDataset, Sample  # pyright: ignore[reportMissingImports]
from inspect_ai.model import (  # pyright: ignore[reportMissingImports]
    ChatMessageAssistant,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr  # pyright: ignore[reportMissingImports]
from inspect_ai.solver import TaskState  # pyright: ignore[reportMissingImports]
from inspect_ai.solver import generate as generate_answer  # pyright: ignore[reportMissingImports]

from steerlens.evaluation import score_trait
from steerlens.generation import generate
from steerlens.models.identity import model_name
from steerlens.models.loading import load_model
from steerlens.text.chat import Chat, encode_prompt
from steerlens.text.trait import Trait
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MAX_TOKENS = 32
"""Tokens of an answer where the caller of Inspect does not say; a favourite needs few."""


def trait_task(trait: Trait, **options: Any) -> Task:
    """The trait's questions, each answer scored as a text (`named`) and, for models of steerlens, exactly (`probability`).

    Args:
        options: Inspect's own for a Task, such as `epochs=20` for twenty sampled answers a question, or
            `setup=system_message(trait.prompt)` for the prompted model.
    """
    begun = [ChatMessageAssistant(content=trait.reply_prefix)] if trait.reply_prefix else []
    questions = [
        Sample(input=[ChatMessageUser(content=text), *begun], target=trait.name, id=index)
        for index, text in enumerate(trait.questions, 1)
    ]
    return Task(
        dataset=MemoryDataset(questions, name=f"questions of {trait.name}"),
        solver=generate_answer(),
        scorer=[named(trait), probability(trait)],
        name=f"trait_{re.sub('[^a-z0-9]+', '_', trait.name.lower())}",
        **options,
    )


@scorer(metrics={"trait": [mean(), stderr()], "any": [mean()]})
def named(trait: Trait) -> Scorer:
    """From the answer's text: whether the first possible answer in it is the trait's, and whether there is one at all."""
    owners = {form.casefold(): answer for answer, forms in trait.answers.items() for form in forms}
    forms = "|".join(sorted(map(re.escape, owners), key=len, reverse=True))

    async def score(state: TaskState, target: Target) -> Score:
        found = re.search(rf"\b({forms})\b", state.output.completion.casefold())
        answer = owners[found[1]] if found else None
        return Score(value={"trait": float(answer == trait.name), "any": float(answer is not None)}, answer=answer)

    return score


@scorer(metrics={"rate": [mean(), stderr()], "mass": [mean()]})
def probability(trait: Trait) -> Scorer:
    """From the model's logits, as `score_trait` reads them: the trait's share of all answers' probability, and their sum.

    The mean over questions is `TraitScore.rate` and `TraitScore.mass`. Models that steerlens does not run are not scored.
    """

    async def score(state: TaskState, target: Target) -> Score | None:
        api = get_model().api
        if not isinstance(api, SteerlensAPI):
            return None
        chat: list[Any] = [message for message in _chat(state.messages) if message["role"] != "assistant"]
        system = chat[0]["content"] if chat[0]["role"] == "system" else None
        found = api.score(replace(trait, questions=(chat[-1]["content"],)), system)
        return Score(value={"rate": found.rate, "mass": found.mass})

    return score


def inspect_model(
    model: "TransformerBridge", *, vector: SteeringVector | None = None, strength: float = 1.0, **options: Any
) -> Model:
    """A loaded model for `inspect_ai.eval(..., model=...)`, steered if a vector is given.

    Args:
        model: a base, or a student's `model`.
        strength: as `steer` takes it, at all tokens.
        options: Inspect's GenerateConfig, such as `max_tokens=64`, `temperature=0.7`, `seed=1`.

    Raises:
        ValueError: the vector belongs to another model.
    """
    if vector is not None:
        vector.check_model(model)
    arguments = {"bridge": model, "vector": vector, "strength": strength}
    return get_model(f"steerlens/{model_name(model)}", config=GenerateConfig(**options), memoize=False, **arguments)


class SteerlensAPI(ModelAPI):
    """Answers one request after the other: a bridge is not for several threads."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        *,
        bridge: "TransformerBridge | None" = None,
        vector: SteeringVector | str | None = None,
        strength: float = 1.0,
        **loading: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._model = load_model(model_name, **loading) if bridge is None else bridge
        self._vector = SteeringVector.load(vector) if isinstance(vector, str) else vector
        self._strength = strength
        self._asked = Counter[int]()

    async def generate(self, input: Any, tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        """Answer a chat; the same chat again gets another draw."""
        if tools:
            raise ValueError("Models of steerlens call no tools. Take the tools out of the task.")
        chat, limit = _chat(input), config.max_tokens or MAX_TOKENS
        row = int.from_bytes(hashlib.sha256(json.dumps(chat).encode()).digest()[:4], "big")
        self._asked[row] += 1
        seed = 0 if config.seed is None else config.seed
        with self._steered():
            (ids,) = generate(
                self._model,
                [chat],
                max_new_tokens=limit,
                temperature=1.0 if config.temperature is None else config.temperature,
                seed=seed * 100_003 + self._asked[row],
                row_indices=[row],
            )
        text = self._model.tokenizer.decode(ids, skip_special_tokens=True)
        asked = len(encode_prompt(self._model.tokenizer, chat))
        output = ModelOutput.from_content(
            self.model_name, text, stop_reason="max_tokens" if len(ids) >= limit else "stop"
        )
        output.usage = ModelUsage(input_tokens=asked, output_tokens=len(ids), total_tokens=asked + len(ids))
        return output

    def score(self, trait: Trait, system_prompt: str | None) -> Any:
        """The trait's TraitScore, under this model's steering."""
        with self._steered():
            return score_trait(self._model, trait, system_prompt=system_prompt)

    @contextlib.contextmanager
    def _steered(self) -> Iterator[None]:
        if self._vector is None:
            yield
        else:
            with steer(self._model, self._vector, strength=self._strength):
                yield


@modelapi(name="steerlens")
def _steerlens() -> type[ModelAPI]:
    return SteerlensAPI


def _chat(messages: Any) -> Chat:
    return [{"role": message.role, "content": message.text} for message in messages]
