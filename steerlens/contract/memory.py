"""What the model takes, and what work on it will."""

import torch
from transformers.pytorch_utils import Conv1D

from steerlens.contract.check import Subject
from steerlens.contract.parity import weight_bytes
from steerlens.memory import free_bytes
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.models.identity import weights_dtype
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig
from steerlens.vectors.objectives import WHOLE_VOCABULARY


def memory(subject: Subject) -> str:
    """Gigabytes of the weights, of a LoRA student with Adam, and of the targets of a fit, each at its default size."""
    hf, device = huggingface_model(subject.model), parameters_device(subject.model)
    d_vocab, fit = hf.config.get_text_config().vocab_size, FitConfig()
    kept = 4 * d_vocab if d_vocab <= WHOLE_VOCABULARY else 12 * fit.top_k
    length = fit.completion_length(subject.model.tokenizer)
    lora = TrainConfig().rank * sum(map(sum, _linear_maps(subject)))
    student = 16 * lora  # weight, gradient and Adam's two moments; peft keeps them in float32
    return (
        f"{weight_bytes(subject) / 1e9:.3g} GB of weights in {weights_dtype(subject.model)} on {device}, "
        f"{free_bytes(device) / 1e9:.1f} GB free; a LoRA student adds {student / 1e9:.2g} GB and activations, "
        f"a fit keeps up to {fit.n_rows * length * kept / 1e9:.2g} GB of targets"
    )


def _linear_maps(subject: Subject) -> list[tuple[int, int]]:
    """Width in and width out of the blocks' linear maps, however their weights are packed."""
    blocks = [subject.block(layer) for layer in range(subject.model.cfg.n_layers)]
    modules = [item for block in blocks for item in block.named_modules() if "lora_" not in item[0]]
    linear = [(module.in_features, module.out_features) for _, module in modules if isinstance(module, torch.nn.Linear)]
    return linear + [(module.nx, module.nf) for _, module in modules if isinstance(module, Conv1D)]
