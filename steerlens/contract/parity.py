"""Reading: logits, residuals and gradients are those of plain Hugging Face, row by row and without padding."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.contract.check import ANSWERS, CannotRun, Measurement, Subject, largest_difference
from steerlens.forward import forward
from steerlens.gradients.recorder import trace_gradients
from steerlens.memory import free_bytes
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.models.four_bits import four_bits, keep_gradients
from steerlens.models.identity import commit_hash, is_4bit
from steerlens.residuals.capture import capture_residuals
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.shared_prompts import completion_logits_after
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import encode_chat
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


@torch.no_grad()
def logits(subject: Subject) -> Measurement:
    """Against a second copy of the model, loaded by transformers (and peft) alone."""
    other = _loaded_again(subject)
    ours = forward(subject.model, subject.batch).logits[subject.batch.attention_mask]
    theirs = torch.cat([other(input_ids=row, use_cache=False).logits[0] for row in subject.singles()])
    return Measurement(largest_difference(ours, theirs), subject.rounding)


def _loaded_again(subject: Subject) -> Any:
    from transformers import AutoModelForCausalLM

    hf, device = huggingface_model(subject.model), parameters_device(subject.model)
    needed, free = weight_bytes(subject), free_bytes(device)
    if needed > 0.9 * free:
        raise CannotRun(f"a second copy of the weights takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    revision = commit_hash(subject.model)
    quantization = four_bits(hf.dtype) | {"device_map": {"": str(device)}} if is_4bit(subject.model) else {}
    other: Any = AutoModelForCausalLM.from_pretrained(
        str(hf.name_or_path), revision=revision, dtype=hf.dtype, **quantization
    )
    keep_gradients(other)
    if subject.adapter is not None:
        from peft import PeftModel

        other = PeftModel.from_pretrained(other, str(subject.adapter))
    return other.to(device).eval()


def weight_bytes(subject: Subject) -> int:
    """Memory that the weights take; shared ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in subject.plain.parameters())


@torch.no_grad()
def residuals(subject: Subject) -> Measurement:
    """Against `hidden_states`, whose slot 0 is the embedding and whose last is behind the final norm."""
    layers = range(subject.model.cfg.n_layers)
    ours = capture_residuals(subject.model, subject.chats, layers=layers, positions="all")
    rows = [subject.plain(input_ids=row, output_hidden_states=True).hidden_states for row in subject.singles()]
    theirs = [torch.cat([row[layer + 1][0] for row in rows]) for layer in layers]
    norm = subject.plain.get_submodule(subject.model.ln_final.name)
    last = norm(ours[-1].to(theirs[-1]))
    differences = [largest_difference(one, other) for one, other in zip([*ours[:-1], last], theirs, strict=True)]
    return Measurement(max(differences), subject.rounding, f"{len(layers)} layers")


@torch.no_grad()
def shared_prefix(subject: Subject) -> Measurement:
    """What all rows begin with runs once, and its cache is shared; fitting does so."""
    rows = [encode_chat(subject.model.tokenizer, chat) for chat in subject.chats]
    prefix, _ = rows[0]
    prompts, answers = [prefix[-1:] + prompt[:4] for prompt, _ in rows], [answer for _, answer in rows]
    batch = pad_rows(subject.model.tokenizer, prompts, answers, side="right").to(parameters_device(subject.model))
    ours = completion_logits_after(subject.model, prefix[:-1], batch)
    whole = pad_rows(subject.model.tokenizer, [prefix[:-1] + prompt for prompt in prompts], answers)
    theirs = [
        subject.plain(input_ids=tokens[mask][None].to(batch.tokens.device)).logits[0, -len(answer) - 1 : -1]
        for tokens, mask, answer in zip(whole.tokens, whole.attention_mask, answers, strict=True)
    ]
    return Measurement(
        largest_difference(ours, torch.cat(theirs)), subject.rounding, f"{len(prefix) - 1} shared tokens"
    )


def gradients(subject: Subject) -> Measurement:
    """A student's first step is traced; each row's loss is differentiated anew, through a plain hook."""
    model = subject.model
    if subject.adapter is not None:
        raise CannotRun("the model carries an adapter, and students are trained from models without one")
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    directions = torch.randn(n_layers, d_model, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector(tuple(range(n_layers)), directions, VectorSource.of(model, method="random"))
    recorder = trace_gradients(model, vector)

    @contextlib.contextmanager
    def watch(student) -> Iterator[None]:
        hf = huggingface_model(student)
        with recorder.watch(student):  # without dropout, which would be drawn anew for the judge
            handle = hf.register_forward_pre_hook(lambda *_: student.eval() and None)
            yield
            handle.remove()

    config = TrainConfig(rank=1, epochs=1, batch_size=len(ANSWERS))
    train_student(model, samples(subject), config, on_start=watch, on_step=recorder.record)
    order = torch.randperm(len(ANSWERS), generator=torch.Generator().manual_seed(config.seed))
    rows = torch.stack(list(_raw_gradients(subject)))[order]  # [batch layer d_model]
    pull, norm = -(rows * vector.unit).sum(-1), rows.norm(dim=-1)
    trace = recorder.trace
    worst = max(float(((trace.pull[0] - pull) / norm).abs().max()), float((trace.norm[0] / norm - 1).abs().max()))
    return Measurement(worst, subject.rounding, f"{n_layers} layers, {len(rows)} rows")


def samples(subject: Subject) -> SampleSet:
    """The subject's rows, to train on."""
    return SampleSet(tuple(Sample(i, *pair) for i, pair in enumerate(zip(subject.questions, ANSWERS, strict=True))))


def _raw_gradients(subject: Subject) -> Iterator[Float[Tensor, "layer d_model"]]:
    """sum_t d loss / d h_t of every row's own mean loss, [layer d_model]: the derivative by a zero that a hook adds."""
    lengths = subject.batch.completion_mask.sum(-1).tolist()
    for row, length in zip(subject.singles(), lengths, strict=True):
        zeros: list[Tensor] = []
        handles = [
            subject.block(layer).register_forward_hook(_adding_zero(zeros))
            for layer in range(subject.model.cfg.n_layers)
        ]
        try:
            predicted = subject.plain(input_ids=row, use_cache=False).logits[0, -length - 1 : -1].float()
        finally:
            for handle in handles:
                handle.remove()
        loss = torch.nn.functional.cross_entropy(predicted, row[0, -length:])
        yield torch.stack(torch.autograd.grad(loss, zeros)).float().cpu()


def _adding_zero(zeros: list[Tensor]):
    def hook(_module: torch.nn.Module, _inputs: tuple, output):
        resid = output[0] if isinstance(output, tuple) else output
        zeros.append(torch.zeros_like(resid[0, 0], requires_grad=True))
        return (resid + zeros[-1], *output[1:]) if isinstance(output, tuple) else resid + zeros[-1]

    return hook
