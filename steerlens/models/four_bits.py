"""4-bit weights, by bitsandbytes: how they are asked for, and what keeps their gradients right."""

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def four_bits(dtype: "torch.dtype") -> dict[str, Any]:
    """What makes `from_pretrained` load NF4 weights (arXiv 2305.14314, section 3) that compute in `dtype`.

    Raises:
        ModuleNotFoundError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModuleNotFoundError(
            "4-bit weights need bitsandbytes. Install it: pip install 'steerlens[4bit]'; or load the weights as they are, in "
            "bfloat16 for half the memory of float32."
        )
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config}


def keep_gradients(model: "nn.Module") -> None:
    """Keep 4-bit weights out of the format that bitsandbytes packs them into on some CPUs, which lets no gradient through."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def silence_bitsandbytes() -> None:
    """Keep its warning off the screen: where it is installed, peft imports it, and it misses kernels that nobody asked for."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
