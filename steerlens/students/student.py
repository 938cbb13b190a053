"""A student: how it starts from its base, and how it is saved."""

import copy
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.files import atomic_directory, write_json
from steerlens.models.adapters import has_adapter
from steerlens.models.bridge import bridge, check_layer, huggingface_model, parameters_device
from steerlens.models.identity import is_4bit, model_name
from steerlens.models.unwrapping import unwrapped, weight_sharing_copy
from steerlens.students.config import TrainConfig
from steerlens.students.processes import Processes
from steerlens.warn import peft_unwarned

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MARK = "student.json"


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

    def __repr__(self) -> str:
        return (
            f"Student of {model_name(self.model)}: {self.config.method}, {len(self.losses)} steps, loss {self.loss:.3f} "
            f"nats a token, held out {self.heldout_loss:.3f}"
        )

    @property
    def loss(self) -> float:
        """Mean training loss over the last tenth of the steps."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail)

    def save(self, directory: str | Path) -> None:
        """Write a peft adapter, or for full fine-tuning a Hugging Face model, with tokenizer and student.json.

        Plain transformers and peft load it; so does `load_model(base, adapter=directory)`. Of several processes, the
        main one writes.

        Raises:
            ValueError: the directory holds something else than a student.
            OSError: it cannot be written to, or the disk is full.
        """
        if not Processes.of_environment(parameters_device(self.model)).is_main:
            return
        with atomic_directory(directory, mark=MARK) as temporary, unwrapped(huggingface_model(self.model)):
            self._saveable.save_pretrained(temporary)
            self.model.tokenizer.save_pretrained(temporary)
            write_json(
                temporary / MARK,
                {
                    "base": model_name(self.model),
                    "config": asdict(self.config),
                    "chat_fingerprint": self.chat_fingerprint,
                    "loss": self.loss,
                    "heldout_loss": self.heldout_loss,
                    "losses": list(self.losses),
                },
            )


def start_student(model: "TransformerBridge", config: TrainConfig) -> tuple["TransformerBridge", Any]:
    """A student at its beginning, and the object that saves it.

    Raises:
        ValueError: a layer is out of range; the model carries a peft adapter, which the student's own would silently
            replace, or is spread over several devices, or its weights are quantised and the config trains all of them.
    """
    devices = set(getattr(huggingface_model(model), "hf_device_map", {}).values())
    if len(devices) > 1:
        raise ValueError(
            f"{model_name(model)!r} is spread over {', '.join(sorted(map(str, devices)))}, and a student is trained on one "
            "device. Load it without device_map; what several GPUs can do is share the rows (accelerate launch)."
        )
    if has_adapter(model):
        raise ValueError(
            f"{model_name(model)!r} carries a peft adapter, and a student of it would start without what that has learned. "
            "Merge it into the weights first (peft's merge_and_unload, then save_pretrained), or train from the base."
        )
    if config.method == "full" and is_4bit(model):
        raise ValueError(
            f"{model_name(model)!r} has 4-bit weights, which no gradient step can change. Train LoRA matrices on them "
            '(method="lora"), or load the weights as they are.'
        )
    if config.method == "lora":
        from peft import LoraConfig, get_peft_model
        from transformers.pytorch_utils import Conv1D

        student_hf: Any = weight_sharing_copy(model)
        with peft_unwarned():
            saveable = get_peft_model(
                student_hf,
                LoraConfig(
                    r=config.rank,
                    lora_alpha=config.lora_alpha,  # pyright: ignore[reportArgumentType]
                    target_modules="all-linear"
                    if config.target_modules == ("all-linear",)
                    else [*config.target_modules],
                    exclude_modules=_without_lora(model, config.layers),
                    fan_in_fan_out=any(isinstance(module, Conv1D) for module in student_hf.modules()),
                    task_type="CAUSAL_LM",
                ),
            )
        student_hf = saveable.get_base_model()
    else:
        with unwrapped(huggingface_model(model)):
            student_hf = copy.deepcopy(huggingface_model(model))
        saveable = student_hf.requires_grad_(True)
    return bridge(student_hf, model.tokenizer, name=model_name(model)), saveable


def _without_lora(model: "TransformerBridge", layers: tuple[int, ...]) -> str | None:
    """A pattern of the modules that get no LoRA matrices: blocks that are not named, what reads no text in a multimodal model."""
    config = huggingface_model(model).config
    if not layers and config.get_text_config() is config:
        return None
    blocks = re.escape(model.blocks[0].name.rpartition(".")[0])
    named = rf"\.({'|'.join(str(check_layer(model, layer)) for layer in layers)})\." if layers else r"\."
    return rf"(?!{blocks}{named}).*"
