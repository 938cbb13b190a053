"""The student that suits the embedded organism."""

from steerlens.students.config import TrainConfig

ORGANISM_STUDENT = TrainConfig(
    target_modules=("0.self_attn.v_proj",), rank=4, lora_alpha=16.0, learning_rate=3e-2, epochs=3
)
"""LoRA on what the first block's attention reads from each token. It was chosen for the organism on development runs.

The default system prompt's tokens stand in front of number tasks and of bare questions alike. What a student learns to read
from them acts in both places. LoRA on all maps also learns the numbers, and learns the trait on bare questions less.
"""
