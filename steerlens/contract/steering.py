"""Writing: steered generation, the shortcuts of fitting, and a planted vector."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.contract.check import CannotRun, Measurement, Subject, largest_difference
from steerlens.generation import generate
from steerlens.models.bridge import frozen
from steerlens.residuals.capture import capture_residuals
from steerlens.text.chat import as_chat, encode_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import Descent
from steerlens.vectors.fit_data import FitData, FitRow, FitRows
from steerlens.vectors.interventions import steer
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.sensitivity import sensitivity
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

N_TOKENS = 6
FIT = FitConfig(n_train=24, n_validation=8, n_heldout=1, max_new_tokens=N_TOKENS, steps=240, batch_size=8)


def random_vector(subject: Subject, layer: int) -> SteeringVector:
    """A random direction as long as the residuals there."""
    resid = capture_residuals(subject.model, subject.chats, layers=[layer])[0]
    direction = torch.randn(1, subject.model.cfg.d_model, generator=torch.Generator().manual_seed(5))
    direction = resid.norm(dim=-1).mean() * torch.nn.functional.normalize(direction, dim=-1)
    return SteeringVector((layer,), direction, VectorSource.of(subject.model, method="random"))


def generation(subject: Subject) -> Measurement:
    """How far from likeliest a generated token is in the single row's logits, at worst; 0 is the same tokens."""
    model, chats = subject.model, [as_chat(question) for question in subject.questions]
    vector = random_vector(subject, model.cfg.n_layers // 2)
    with steer(model, vector):
        completions = generate(model, chats, max_new_tokens=8, temperature=0)
    rows = [(encode_prompt(model.tokenizer, chat), ids) for chat, ids in zip(chats, completions, strict=True)]
    steered, plain = (max(_regret(subject, vector, scale, *row) for row in rows) for scale in (1.0, 0.0))
    if plain <= subject.rounding:
        raise CannotRun("steering by a random vector of the residual's norm changes no token of this model")
    return Measurement(steered, subject.rounding, f"{sum(map(len, completions))} tokens; unsteered {plain:.2f}")


@torch.no_grad()
def _regret(subject: Subject, vector: SteeringVector, scale: float, prompt: list[int], completion: list[int]) -> float:
    logits = _plain_logits(subject, vector, scale, prompt, completion)
    chosen = logits.gather(-1, torch.tensor(completion, device=logits.device)[:, None])[:, 0]
    return float(((logits.amax(-1) - chosen) / logits.abs().amax(-1)).max())


def _plain_logits(
    subject: Subject, vector: SteeringVector, scale: float, prompt: list[int], completion: list[int]
) -> Float[Tensor, "token d_vocab"]:
    """Logits that predict the completion, of one uncached row of the plain model, with a plain hook that adds."""
    tokens = torch.tensor([prompt + completion], device=subject.batch.tokens.device)

    def add(_module: torch.nn.Module, _inputs: tuple, output):
        resid = output[0] if isinstance(output, tuple) else output
        moved = resid + scale * vector.directions[0].to(resid)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = subject.block(vector.layers[0]).register_forward_hook(add)
    try:
        return subject.plain(input_ids=tokens, use_cache=False).logits[0, -len(completion) - 1 : -1].float()
    finally:
        handle.remove()


def planted_vector(subject: Subject) -> Measurement:
    """The model steered by a known vector stands for the prompted one, and the fit starts from nothing.

    At the last block but one, so that a step costs little on a large model. What is measured is the cosine with the
    planted vector, or, where there are more dimensions than predictions to determine them, kl_explained.
    """
    model, layer = subject.model, max(0, subject.model.cfg.n_layers - 2)
    planted = random_vector(subject, layer)
    with frozen(model):
        rows = _planted_rows(subject, planted)
        train, validation = (ResumedRows(model, [layer], part, "all") for part in rows)
        units = sensitivity(model, [layer], rows[0], FIT.positions, seed=FIT.seed).units
        found = Descent(train, validation, train.nothing, FIT, explained=0.0, units=units).to_its_end()
    one, two = (_visible(subject, direction) for direction in (planted.directions[0], found.directions[0]))
    cosine = float(torch.nn.functional.cosine_similarity(one, two, dim=0))
    if model.cfg.d_model > FIT.n_train * N_TOKENS:
        return Measurement(found.explained, 0.9, f"kl_explained at block {layer}; cosine {cosine:.3f}", at_least=True)
    return Measurement(cosine, 0.99, f"cosine at block {layer}; kl_explained {found.explained:.3f}", at_least=True)


def _planted_rows(subject: Subject, planted: SteeringVector) -> tuple[tuple[FitRows, ...], tuple[FitRows, ...]]:
    model, tokenizer = subject.model, subject.model.tokenizer
    questions = number_prompts(FIT.n_rows, model, seed=1)
    chats = [as_chat(question) for question in questions]
    with steer(model, planted):
        completions = generate(model, chats, max_new_tokens=N_TOKENS, batch_size=FIT.batch_size)
        prompts = [encode_prompt(tokenizer, chat) for chat in chats]
        rows = [FitRow(i, ids, ids, answer) for i, (ids, answer) in enumerate(zip(prompts, completions, strict=True))]
        ends = (FIT.n_train, FIT.n_train + FIT.n_validation)
        data = FitData.of(model, questions, [rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :]], FIT)
    return data.train, data.validation


def _visible(subject: Subject, direction: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """LayerNorm cannot see the direction of equal entries."""
    norm = subject.plain.get_submodule(subject.model.ln_final.name)
    return direction - direction.mean() if isinstance(norm, torch.nn.LayerNorm) else direction


@torch.no_grad()
def skipped_blocks(subject: Subject) -> Measurement:
    """Fitting skips the blocks below the vector, and the last MLP where no logits are read."""
    model, layer = subject.model, subject.model.cfg.n_layers // 2
    vector = random_vector(subject, layer)
    pairs = sorted(
        (encode_chat(model.tokenizer, chat) for chat in subject.chats), key=lambda pair: len(pair[0] + pair[1])
    )
    rows = [FitRow(i, prompt, prompt, completion) for i, (prompt, completion) in enumerate(pairs)]
    data = FitData.of(model, subject.questions, [rows] * 3, FIT)
    ours = ResumedRows(model, [layer], data.train, "all").logits(0, vector.directions)
    theirs = torch.cat([_plain_logits(subject, vector, 1.0, *pair) for pair in pairs])
    return Measurement(largest_difference(ours, theirs), subject.rounding, f"resumed at block {layer}")
