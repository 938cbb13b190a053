"""DATA -> WEIGHTS: fine-tune a student on samples, in one loop that reads from top to bottom."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.files import atomic_directory, write_json
from steerlens.forward import completion_logits
from steerlens.models import bridge, huggingface_model, model_name, parameters_device, unwrapped
from steerlens.prompts.chat import (
    TokenBatch,
    as_chat,
    chat_fingerprint,
    encode_completion,
    encode_prompt,
    pad_rows,
)
from steerlens.samples.sample_set import SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.optimizers import make_optimizer, make_schedule

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EncodedRow = tuple[list[int], list[int]]


@dataclass(frozen=True)
class TrainStep:
    """What `on_step` is given after each backward pass, before the optimizer moves the weights.

    `row_losses` is [batch], in nats a token; `gradient_norm` is the global norm before clipping.
    """

    step: int
    n_steps: int
    learning_rate: float
    row_losses: Float[Tensor, " batch"]
    gradient_norm: float
    model: "TransformerBridge"


@dataclass(frozen=True)
class Student:
    """A trained student.

    `model` is a bridge of its own; a LoRA student shares the frozen weights of its base, a fully trained one
    has a copy. Losses are in nats a completion token: `losses` at every step, `heldout_loss` at the end (NaN
    without held-out samples).
    """

    model: "TransformerBridge"
    config: TrainConfig
    losses: tuple[float, ...]
    heldout_loss: float
    chat_fingerprint: str
    _saveable: Any

    @property
    def loss(self) -> float:
        """Mean training loss over the last tenth of the steps."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail)

    def save(self, directory: str | Path) -> None:
        """Write a peft adapter, or for full fine-tuning a Hugging Face model, with tokenizer and student.json.

        Plain transformers and peft load it; so does `load_model(base, adapter=directory)`.
        """
        with atomic_directory(directory) as temporary, unwrapped(huggingface_model(self.model)):
            self._saveable.save_pretrained(temporary)
            self.model.tokenizer.save_pretrained(temporary)
            write_json(
                temporary / "student.json",
                {
                    "base": model_name(self.model),
                    "config": asdict(self.config),
                    "chat_fingerprint": self.chat_fingerprint,
                    "loss": self.loss,
                    "heldout_loss": self.heldout_loss,
                    "losses": list(self.losses),
                },
            )


def train_student(
    model: "TransformerBridge",
    samples: SampleSet,
    config: TrainConfig | None = None,
    *,
    heldout: SampleSet | None = None,
    on_start: Callable[["TransformerBridge"], contextlib.AbstractContextManager[None]] | None = None,
    on_step: Callable[[TrainStep], None] | None = None,
    checkpoints: str | Path | None = None,
) -> Student:
    """Fine-tune a student that starts from `model`; `model` itself is left as it is.

    The student sees each sample's prompt without any system prompt, and the loss covers the completion alone.

    Args:
        heldout: samples on which the final loss is measured.
        on_start: called with the student's own bridge; what it returns is entered around the training.
        on_step: called after every backward pass, before the step.
        checkpoints: directory for the checkpoints that `config.checkpoint_every` asks for, step-<n> each.

    Raises:
        ValueError: no samples, a sample that cannot be rendered or is longer than the context.
        FloatingPointError: the loss became NaN or infinite; says at which step.
    """
    config = config or TrainConfig()
    rows = _encoded(model, samples)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        student, saveable = _start(model, config)
    parameters = [p for p in huggingface_model(student).parameters() if p.requires_grad]
    n_steps = config.epochs * math.ceil(len(rows) / config.batch_size)
    optimizer = make_optimizer(parameters, config)
    schedule = make_schedule(optimizer, n_steps, config.warmup_share)
    losses: list[float] = []
    progress = tqdm(total=n_steps, desc=f"student ({config.optimizer} {config.learning_rate:g})", unit="step")
    watching = contextlib.nullcontext() if on_start is None else on_start(student)
    student.train()
    with progress, watching:
        for step, batch in enumerate(_batches(student, rows, config)):
            row_losses = completion_losses(student, batch)  # [batch]
            lengths = batch.completion_mask.sum(-1)
            loss = (row_losses * lengths).sum() / lengths.sum()
            loss.backward()
            gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"The loss became {losses[-1]} at step {step} of {n_steps}. "
                    f"Lower learning_rate={config.learning_rate} or set clip_norm."
                )
            if on_step is not None:
                on_step(
                    TrainStep(
                        step,
                        n_steps,
                        float(schedule.get_last_lr()[0]),
                        row_losses.detach(),
                        float(gradient_norm),
                        student,
                    )
                )
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            progress.update()
            progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            if checkpoints is not None and config.checkpoint_every and (step + 1) % config.checkpoint_every == 0:
                _finished(student, config, losses, saveable).save(Path(checkpoints) / f"step-{step + 1}")
    student.eval()
    return _finished(student, config, losses, saveable, heldout)


def _finished(
    student: "TransformerBridge",
    config: TrainConfig,
    losses: list[float],
    saveable: Any,
    heldout: SampleSet | None = None,
) -> Student:
    heldout_loss = math.nan if heldout is None else mean_loss(student, heldout)
    fingerprint = chat_fingerprint(student.tokenizer)
    huggingface_model(student).config.chat_fingerprint = fingerprint
    return Student(student, config, tuple(losses), heldout_loss, fingerprint, saveable)


def completion_losses(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, " batch"]:
    """Each row's mean negative log-likelihood over its completion tokens, in nats."""
    targets = batch.tokens[batch.completion_mask]
    losses = torch.nn.functional.cross_entropy(completion_logits(model, batch), targets, reduction="none")
    lengths = batch.completion_mask.sum(-1)
    rows = torch.arange(len(batch), device=losses.device).repeat_interleave(lengths)
    return losses.new_zeros(len(batch)).index_add(0, rows, losses) / lengths


@torch.no_grad()
def mean_loss(model: "TransformerBridge", samples: SampleSet, *, batch_size: int = 128) -> float:
    """Mean negative log-likelihood of all completion tokens, in nats, under no system prompt."""
    rows = _encoded(model, samples)
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = _padded(model, rows[start : start + batch_size])
        lengths = batch.completion_mask.sum(-1)
        total += float((completion_losses(model, batch) * lengths).sum())
        count += int(lengths.sum())
    return total / count


def _start(model: "TransformerBridge", config: TrainConfig) -> tuple["TransformerBridge", Any]:
    """A student at its beginning, and the object that saves it."""
    hf = huggingface_model(model)
    lora = config.method == "lora"
    with unwrapped(hf):
        shared = {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]} if lora else {}
        student_hf: Any = copy.deepcopy(hf, shared)
    if lora:
        from peft import LoraConfig, get_peft_model
        from transformers.pytorch_utils import Conv1D

        saveable = get_peft_model(
            student_hf,
            LoraConfig(
                r=config.rank,
                lora_alpha=config.lora_alpha,  # pyright: ignore[reportArgumentType]
                target_modules="all-linear" if config.target_modules == ("all-linear",) else [*config.target_modules],
                fan_in_fan_out=any(isinstance(module, Conv1D) for module in student_hf.modules()),
                task_type="CAUSAL_LM",
            ),
        )
        student_hf = saveable.get_base_model()
    else:
        saveable = student_hf.requires_grad_(True)
    return bridge(student_hf, model.tokenizer, name=model_name(model)), saveable


def _encoded(model: "TransformerBridge", samples: SampleSet) -> list[EncodedRow]:
    if not len(samples):
        raise ValueError("There are no samples to train or measure on. Sample more, or loosen the filter.")
    return [
        (encode_prompt(model.tokenizer, as_chat(sample.prompt)), encode_completion(model.tokenizer, sample.completion))
        for sample in samples
    ]


def _padded(model: "TransformerBridge", rows: list[EncodedRow]) -> TokenBatch:
    batch = pad_rows(model.tokenizer, [row[0] for row in rows], [row[1] for row in rows])
    return batch.to(parameters_device(model))


def _batches(model: "TransformerBridge", rows: list[EncodedRow], config: TrainConfig) -> Iterator[TokenBatch]:
    order = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for indices in torch.randperm(len(rows), generator=order).split(config.batch_size):
            yield _padded(model, [rows[i] for i in indices.tolist()])
