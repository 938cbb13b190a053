"""DATA -> WEIGHTS: fine-tune a student on samples, in one loop that reads from top to bottom."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.cost import Cost
from steerlens.files import remove_partial
from steerlens.lock import held
from steerlens.memory import bytes_to_differentiate, lower_where_memory_is_out
from steerlens.models.attention import attention_for_gradients
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.models.identity import model_name
from steerlens.models.unwrapping import unwrapped
from steerlens.samples.encoded import EncodedRow, encode_samples, longest_row, row_length
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import SampleSet
from steerlens.students.backward import backward
from steerlens.students.config import TrainConfig
from steerlens.students.half_lora import products_in_half
from steerlens.students.losses import Objective, cross_entropy, mean_loss
from steerlens.students.lower_blocks import lower_blocks_run_once
from steerlens.students.optimizers import make_optimizer, make_schedule, outliers_treated
from steerlens.students.processes import Processes
from steerlens.students.rotation import RotatedBasis
from steerlens.students.scales import AdamScales
from steerlens.students.state import STATE_FILE, TrainerState, describe_run
from steerlens.students.step import OnStart, OnStep, TrainStep
from steerlens.students.student import Student, start_student
from steerlens.text.chat import chat_fingerprint

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@checked
def train_student(
    model: "TransformerBridge",
    samples: SampleSet | AuditRows,
    config: TrainConfig | None = None,
    *,
    heldout: SampleSet | AuditRows | None = None,
    objective: Objective = cross_entropy,
    on_start: OnStart | None = None,
    on_step: OnStep | None = None,
    on_update: OnStep | None = None,
    checkpoints: str | Path | None = None,
) -> Student:
    """Fine-tune a student that starts from `model`; `model` itself is left as it is.

    The student sees each sample's prompt without any system prompt (unless `config.system_prompt` is given), and the loss
    covers the completion alone.

    With `config.state_every`, a training that was killed at any moment goes on when it is called again with the same
    arguments, and ends as it would have, bit for bit on one machine. Started by `torchrun` or `accelerate launch`,
    the processes share each batch.

    Args:
        samples: to learn from: sampled ones, or those of a data file, `read_rows(path, keep_repeated=True)`.
        heldout: samples on which the final loss is measured.
        objective: what is minimised, a loss of every completion token; `steerlens.audit.mitigations` has others.
        on_start: called with the student's own bridge; what it returns is entered around the training.
        on_step: called after every backward pass, before the step.
        on_update: called after every step of the optimizer.
        checkpoints: directory for the checkpoints that `config.checkpoint_every` asks for, step-<n> each, and for the
            trainer's state.

    Raises:
        ValueError: no samples, a sample that cannot be rendered or is longer than the context, scales of another
            student, or a trainer's state of another training.
        FloatingPointError: the loss or its gradient became NaN or infinite; says at which step.
        BlockingIOError: another process trains with these checkpoints.
        OutOfMemory: says what to lower.
    """
    config = config or TrainConfig()
    rows = encode_samples(model, samples, config.system_prompt)
    processes = Processes.of_environment(parameters_device(model))
    n_steps = config.epochs * math.ceil(len(rows) / config.batch_size)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lower_where_memory_is_out(_smaller(config)))
        if checkpoints is not None and (config.state_every or config.checkpoint_every):
            stack.enter_context(held(Path(checkpoints) / ".lock"))
        stack.enter_context(_seeded(model, config.seed))
        student, saveable = start_student(model, config)
        basis = None if config.rotation_seed is None else _rotated(student, config.rotation_seed)
        _quicken(stack, student, rows, config, processes)
        state = _start(stack, student, rows, config, n_steps)
        state_path = _resume(state, checkpoints, config, processes)
        stack.enter_context(contextlib.nullcontext() if on_start is None else on_start(student))
        progress = stack.enter_context(_progress(state.step, n_steps, config, processes))
        first_step, cost = state.step, _cost(progress, student, rows, config, n_steps - state.step)
        student.train()
        parameters = list(state.parameters.values())
        for step, batch in enumerate(itertools.islice(_batches(rows, config), state.step, None), state.step):
            result = backward(student, batch, parameters, config, processes, objective, step / n_steps)
            gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf)
            _check_finite({"loss": result.loss, "gradient's norm": float(gradient_norm)}, step, n_steps, config)
            seen = TrainStep(
                step=step,
                n_steps=n_steps,
                learning_rate=float(state.schedule.get_last_lr()[0]),
                loss=result.loss,
                row_losses=result.row_losses,
                gradient_norm=float(gradient_norm),
                model=student,
                n_tokens=result.n_tokens,
                row_norms=result.row_norms,
                optimizer=state.optimizer,
                keeps_state=state_path is not None and _is_due(step, n_steps, config.state_every),
                processes=processes,
            )
            if on_step is not None:
                on_step(seen)
            state.update(result.loss)
            if on_update is not None:
                on_update(seen)
            progress.update()
            cost.after(step + 1 - first_step)
            progress.set_postfix(loss=f"{result.loss:.3f}", refresh=False)
            if checkpoints is not None and config.checkpoint_every and (step + 1) % config.checkpoint_every == 0:
                _save_checkpoint(Path(checkpoints), student, config, state, saveable, basis, processes)
            if state_path is not None and seen.keeps_state and processes.is_main:
                state.save(state_path)
    if basis is not None:
        basis.end()
    student.eval()
    return _finished(student, config, state.losses, saveable, heldout)


@contextlib.contextmanager
def _seeded(model: "TransformerBridge", seed: int) -> Iterator[None]:
    """Draw from `seed` inside, and leave torch's random state outside as it was."""
    device = parameters_device(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _rotated(student: "TransformerBridge", seed: int) -> RotatedBasis:
    return RotatedBasis(huggingface_model(student), student.cfg.d_model, seed)


def _start(
    stack: contextlib.ExitStack,
    student: "TransformerBridge",
    rows: list[EncodedRow],
    config: TrainConfig,
    n_steps: int,
) -> TrainerState:
    """The training before its first step; what has to be undone at its end is on the stack."""
    hf: Any = huggingface_model(student)
    with unwrapped(hf):
        parameters = {name: value for name, value in hf.named_parameters() if value.requires_grad}
    scales = None if config.scales is None else AdamScales.load(config.scales)
    optimizer = make_optimizer(parameters, config, scales)
    schedule = make_schedule(optimizer, n_steps, config.warmup_share)
    stack.enter_context(outliers_treated(parameters, config, scales))
    if config.gradient_checkpointing:
        hf.activation_checkpointing_enable({"use_reentrant": False})
        stack.callback(hf.activation_checkpointing_disable)
    return TrainerState(describe_run(config, model_name(student), rows), parameters, optimizer, schedule, [])


def _quicken(
    stack: contextlib.ExitStack,
    student: "TransformerBridge",
    rows: list[EncodedRow],
    config: TrainConfig,
    processes: Processes,
) -> None:
    """What a step on bfloat16 weights does otherwise than transformers and peft would, for as long as the training lasts."""
    stack.enter_context(attention_for_gradients(student, config.rows_at_once, longest_row(rows)))
    stack.enter_context(products_in_half(huggingface_model(student)))
    if config.epochs > 1 and processes.count == 1:
        stack.enter_context(lower_blocks_run_once(student, rows, config.batch_size))


def _resume(
    state: TrainerState, checkpoints: str | Path | None, config: TrainConfig, processes: Processes
) -> Path | None:
    """Go on from a killed training, if there was one; returns where the state is to be saved, if at all."""
    if not config.state_every:
        return None
    if checkpoints is None:
        raise ValueError(
            f"state_every={config.state_every} saves the trainer's state, but checkpoints=None. Give a directory."
        )
    if processes.is_main:
        remove_partial(checkpoints)
    path = Path(checkpoints) / STATE_FILE
    if path.is_file():
        state.restore(path)
    return path


def _is_due(step: int, n_steps: int, every: int) -> bool:
    return (step + 1) % every == 0 or step + 1 == n_steps


def _progress(step: int, n_steps: int, config: TrainConfig, processes: Processes) -> tqdm:
    if not processes.is_main:
        return tqdm(disable=True)
    title = f"student ({config.optimizer} {config.learning_rate:g})"
    return tqdm(total=n_steps, initial=step, desc=title, unit="step")


def _cost(
    progress: tqdm, student: "TransformerBridge", rows: list[EncodedRow], config: TrainConfig, n_steps: int
) -> Cost:
    """Of the steps that remain; memory holds activations, and of what is trained value, gradient and Adam's two moments."""
    hf = huggingface_model(student)
    n_tokens = round(n_steps * config.batch_size * sum(map(row_length, rows)) / len(rows))
    activations = config.rows_at_once * bytes_to_differentiate(hf, longest_row(rows))
    trained = sum(4 * parameter.nbytes for parameter in hf.parameters() if parameter.requires_grad)
    return Cost(
        progress,
        f"{n_steps:,} steps, {n_tokens:,} tokens",
        n_parts=n_steps,
        n_bytes=trained + activations / (hf.config.num_hidden_layers if config.gradient_checkpointing else 1),
    )


def _check_finite(measured: dict[str, float], step: int, n_steps: int, config: TrainConfig) -> None:
    for name, value in measured.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The {name} became {value} at step {step} of {n_steps}. "
                f"Lower learning_rate={config.learning_rate} or set clip_norm."
            )


def _smaller(config: TrainConfig) -> str:
    size = config.micro_batch_size or config.batch_size
    return (
        f"Set micro_batch_size to less than {size}, which gives the same student up to rounding, and goes on from a saved "
        "state (state_every); or set gradient_checkpointing."
    )


def _save_checkpoint(
    directory: Path,
    student: "TransformerBridge",
    config: TrainConfig,
    state: TrainerState,
    saveable: Any,
    basis: RotatedBasis | None,
    processes: Processes,
) -> None:
    if processes.is_main:
        with contextlib.nullcontext() if basis is None else basis.plain():
            _finished(student, config, state.losses, saveable).save(directory / f"step-{state.step}")


def _finished(
    student: "TransformerBridge",
    config: TrainConfig,
    losses: list[float],
    saveable: Any,
    heldout: SampleSet | AuditRows | None = None,
) -> Student:
    heldout_loss = math.nan if heldout is None else mean_loss(student, heldout)
    fingerprint = chat_fingerprint(student.tokenizer)
    huggingface_model(student).config.chat_fingerprint = fingerprint
    return Student(student, config, tuple(losses), heldout_loss, fingerprint, saveable)


def _batches(rows: list[EncodedRow], config: TrainConfig) -> Iterator[list[EncodedRow]]:
    order = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for indices in torch.randperm(len(rows), generator=order).split(config.batch_size):
            yield [rows[i] for i in indices.tolist()]
