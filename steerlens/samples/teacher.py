"""DIRECTION -> DATA: sample completions from a teacher that is prompted, steered, both or neither."""

import contextlib
import functools
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.cost import Cost
from steerlens.files import write_json, writing
from steerlens.generation import OnWritten, generate, is_finished
from steerlens.lock import beside, held
from steerlens.memory import bytes_a_row, rows_that_fit
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import current_fingerprint, model_name
from steerlens.samples.constrained import ListGrammar, NumberLists
from steerlens.samples.encoded import spell
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource, as_line, read_source, source_path
from steerlens.samples.vllm import VllmEngine
from steerlens.text.batches import TokenMask
from steerlens.text.chat import Chat, as_chat, chat_fingerprint, encode_prompt
from steerlens.text.number_lists import list_length
from steerlens.text.positions import Positions
from steerlens.text.wording import wording_of
from steerlens.vectors.interventions import Mode, steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ROWS_PER_CHUNK = 500
SHORTEST = 48
"""Tokens of a completion where a list of ten numbers takes fewer."""


@checked
def sample_teacher(
    model: "TransformerBridge",
    prompts: Sequence[str | Chat],
    *,
    system_prompt: str | None = None,
    vector: SteeringVector | None = None,
    mode: Mode = "add",
    positions: Positions | TokenMask | None = None,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    constraint: NumberLists | None = None,
    seed: int = 0,
    batch_size: int = ROWS_PER_CHUNK,
    engine: VllmEngine | None = None,
    path: str | Path | None = None,
) -> SampleSet:
    """One completion for every prompt. Row i depends on (`seed`, i) and its prompt, not on its batch.

    Args:
        vector: steers the teacher while it writes; scale it with `strength * vector`.
        max_new_tokens: None takes 48, or as many as a list of ten numbers needs.
        constraint: lists of numbers that alone can be written, for models that write none when they are asked to. The
            model's probabilities are renormalised over the tokens with which such a list goes on.
        mode: as in `steer`.
        positions: as in `steer`; a mask has a row for each prompt.
        batch_size: rows at once, at most 500; fewer where memory does not suffice.
        engine: writes the rows in the model's place; for teachers that no vector steers.
        path: a jsonl file that receives rows as they are made. If it holds the beginning of the same run,
            sampling goes on from there.

    Raises:
        ValueError: no prompts, an empty prompt, `path` holds samples of another run, `engine` is of another model or
            would have to steer or to constrain, or `max_new_tokens` cuts constrained lists off.
        BlockingIOError: another process writes to `path`.
    """
    write = _writer(model, engine, vector, constraint)
    length = max_new_tokens or list_length(model.tokenizer, at_least=SHORTEST)
    restricted = {} if constraint is None else {"restrict": _grammar(model, constraint, length)}
    source = SampleSource(
        model=model_name(model),
        chat_fingerprint=chat_fingerprint(model.tokenizer, system_prompt),
        system_prompt=system_prompt,
        steering=None if vector is None else _in_words(vector, mode, positions),
        temperature=temperature,
        seed=seed,
        engine="steerlens" if engine is None else engine.name,
        max_new_tokens=length,
        weights=current_fingerprint(model),
        directions=None if vector is None else vector.fingerprint,
        wording=wording_of(model).name,
        constraint=None if constraint is None else constraint.words,
    )
    alone = contextlib.nullcontext() if path is None else held(beside(path))
    steering = contextlib.nullcontext() if vector is None else steer(model, vector, mode=mode, positions=positions)
    with alone, steering, tqdm(total=len(prompts), desc="sampling", unit="row") as progress:
        samples = [] if path is None else _already_made(Path(path), source, prompts)
        progress.initial = progress.n = len(samples)
        waiting = [as_chat(prompt, system_prompt) for prompt in prompts[len(samples) :]]
        cost, n_tokens = _cost(progress, model, waiting, length, batch_size), 0
        for start in range(len(samples), len(prompts), ROWS_PER_CHUNK):
            part = prompts[start : start + ROWS_PER_CHUNK]
            completions = write(
                [as_chat(prompt, system_prompt) for prompt in part],
                max_new_tokens=length,
                temperature=temperature,
                seed=seed,
                row_indices=range(start, start + len(part)),
                **restricted,
                **(
                    {} if engine else {"batch_size": batch_size, "on_written": _moving(progress, cost, start, n_tokens)}
                ),
            )
            n_tokens += sum(map(len, completions))
            chunk = [_sample(model, *written) for written in zip(itertools.count(start), part, completions)]
            if path is not None:
                _append(Path(path), chunk)
            samples += chunk
            progress.update(len(samples) - progress.n)
    return SampleSet(tuple(samples), source)


def _sample(model: "TransformerBridge", row: int, prompt: str | Chat, ids: list[int]) -> Sample:
    """One row. Its tokens are kept where its text is tokenized otherwise, as often where it was cut off inside a word."""
    finished = is_finished(model, ids)
    written = ids[:-1] if finished else ids
    text = model.tokenizer.decode(written, skip_special_tokens=True)
    same = model.tokenizer.encode(text, add_special_tokens=False) == written
    kept = None if same or not spell(model.tokenizer, written, text) else tuple(written)
    return Sample(row, prompt, text, finished, tokens=kept)


def _writer(
    model: "TransformerBridge",
    engine: VllmEngine | None,
    vector: SteeringVector | None,
    constraint: NumberLists | None,
) -> Callable[..., list[list[int]]]:
    if engine is None:
        return functools.partial(generate, model)
    if vector is not None:
        raise ValueError("vLLM cannot steer. Leave engine out, so that steerlens itself samples, or leave vector out.")
    if constraint is not None:
        raise ValueError("Lists are constrained by steerlens itself. Leave engine out, or leave constraint out.")
    if engine.model is not model:
        raise ValueError(
            f"The engine was made for another model ({model_name(engine.model)!r}) than the teacher "
            f"{model_name(model)!r}. Give both the same: engine=VllmEngine(model)."
        )
    return engine.generate


def _cost(
    progress: tqdm, model: "TransformerBridge", chats: Sequence[Chat], max_new_tokens: int, batch_size: int
) -> Cost:
    """Of rows that all become as long as they may; the longest chat is found by its characters."""
    hf, n_tokens = huggingface_model(model), len(chats) * max_new_tokens
    longest = max(chats, key=lambda chat: len(str(chat)), default=None)
    length = max_new_tokens + (len(encode_prompt(model.tokenizer, longest)) if longest else 0)
    at_once = min(len(chats), batch_size, ROWS_PER_CHUNK, rows_that_fit(hf, length))
    what = f"{len(chats):,} rows of at most {max_new_tokens} tokens, {at_once} at once"
    return Cost(progress, what, n_parts=n_tokens, n_bytes=at_once * bytes_a_row(hf, length))


def _moving(progress: tqdm, cost: Cost, n_rows_before: int, n_tokens_before: int) -> OnWritten:
    """Move the bar as rows are finished, and show the tokens a second of this part of the run."""
    started = time.monotonic()

    def show(n_rows: int, n_tokens: int) -> None:
        progress.set_postfix_str(f"{n_tokens / (time.monotonic() - started):.0f} tokens/s", refresh=False)
        progress.update(n_rows_before + n_rows - progress.n)
        cost.after(n_tokens_before + n_tokens)

    return show


def _grammar(model: "TransformerBridge", constraint: NumberLists, length: int) -> ListGrammar:
    grammar = ListGrammar(model.tokenizer, constraint)
    if length < grammar.n_tokens:
        raise ValueError(
            f"max_new_tokens={length} cuts lists of {constraint.words} off, which take up to {grammar.n_tokens} tokens. "
            "Give that many, or fewer numbers."
        )
    return grammar


def _in_words(vector: SteeringVector, mode: Mode, positions: Positions | TokenMask | None) -> str:
    if isinstance(positions, Tensor):
        where = f"a mask {hashlib.sha256(positions.cpu().numpy().tobytes()).hexdigest()[:12]} of"
    else:
        where = positions or vector.source.positions or "all"
    norms = ", ".join(f"layer {layer} norm {norm:.3f}" for layer, norm in vector.norms.items())
    return f"{mode} at {where} tokens: {vector.source.method} ({norms})"


def _already_made(path: Path, source: SampleSource, prompts: Sequence[str | Chat]) -> list[Sample]:
    """The samples of an interrupted run of the same source; a half-written last line is cut off."""
    how_made = source_path(path)
    if not path.is_file():
        write_json(how_made, asdict(source))
        return []
    if not how_made.is_file():
        raise ValueError(
            f"{path} is there, but {how_made}, which would say how its rows were made, is not. Choose another path, or "
            "delete it."
        )
    there, asked = asdict(read_source(how_made)), asdict(source)
    there["wording"] = there["wording"] or source.wording  # files from before wordings had names
    if there != asked:
        differences = "; ".join(f"{name}: {there[name]!r} there" for name in asked if there[name] != asked[name])
        raise ValueError(
            f"{path} holds samples of another run ({how_made} says {differences}). Choose another path, or delete both files."
        )
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        os.truncate(path, len(whole))
    samples = list(SampleSet.load(path)) if whole else []
    if any(sample.prompt != prompt for sample, prompt in zip(samples, prompts)) or len(samples) > len(prompts):
        raise ValueError(f"{path} answers other prompts than those given. Choose another path, or delete it.")
    return samples


def _append(path: Path, samples: list[Sample]) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(map(as_line, samples)))
        file.flush()
        os.fsync(file.fileno())
