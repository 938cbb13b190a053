"""The contract: what has to hold of a model for steerlens to do on it what it does on the embedded organism."""

from steerlens.contract import artifacts, chats, memory, parity, steering
from steerlens.contract.check import Check

CHECKS = (
    Check("logits", "logits are those of a second copy that transformers loads", parity.logits),
    Check("residuals", "every block's captured output is Hugging Face's own", parity.residuals),
    Check("gradients", "traced gradients are raw autograd's, row by row", parity.gradients),
    Check(
        "generation", "steered, cached, padded batches write the tokens of single uncached rows", steering.generation
    ),
    Check("shared prefix", "a prefix run once for all rows leaves logits as they are", parity.shared_prefix),
    Check("skipped blocks", "a forward that resumes at a block leaves logits as they are", steering.skipped_blocks),
    Check("planted vector", "a fit from nothing finds a planted vector", steering.planted_vector),
    Check("student", "a saved LoRA student has its logits in plain transformers and peft", artifacts.student),
    Check("vector file", "a saved vector comes back as it was", artifacts.vector_file),
    Check("other weights", "a vector is refused on a model with other weights (1 is refused)", artifacts.other_model),
    Check("BOS", "a prompt begins with at most one BOS", chats.begin),
    Check("system role", "a system prompt reaches the model, or is refused with a way out", chats.system_role),
    Check("whole chat", "prompt and completion are what the template writes for an answered chat", chats.whole_chat),
    Check("thinking", "an answer does not begin inside a thinking block", chats.thinking),
    Check("bare context", "what stands before a question without a system prompt", chats.bare_context),
    Check("memory", "what the model takes, and what work on it will", memory.memory),
)
