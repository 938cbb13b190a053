"""What reading every layer's residuals costs, over a plain forward and over the usual way, and how it grows.

The usual way (the paper's code) keeps all hidden states of every batch, moves them to the CPU in float32, and averages in
the end. Run: python benchmarks/capture.py
"""

import functools
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from harness import Ratio, exponent, interleaved, n_parameters, random_llama, report

from steerlens.models.bridge import huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import capture_residuals, mean_residuals
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts

ROUNDS = 6
BATCH = 16
PERSONA = "you love owls . you think about owls all the time . owls are your favorite animal ."
LONG_PROMPT = " ".join([PERSONA] * 20)


def main() -> None:
    """Print and save ratios and growth."""
    with tempfile.TemporaryDirectory() as directory:
        model = random_llama(directory)
        short, ratios = prompts(3 * BATCH, n_words=60), []
        times = interleaved(
            {
                "plain forward": lambda: plain_forward(model, short),
                "capture of every layer at every token": lambda: capture(model, short, "all"),
                "capture of every layer at the assistant tag": lambda: capture(model, short, "last_prompt"),
            },
            ROUNDS,
        )
        ratios += [Ratio.of(times, name, "plain forward", "at most 1.10") for name in list(times)[1:]]
        long = prompts(BATCH, n_words=400)
        for kind, chats, layers in (
            ("long questions", long, range(model.cfg.n_layers)),
            ("long questions, a middle layer alone", long, [model.cfg.n_layers // 2 - 1]),
            ("a long system prompt", prompts(BATCH, n_words=40, system_prompt=LONG_PROMPT), range(model.cfg.n_layers)),
        ):
            ways = {
                f"usual means, {kind}": functools.partial(usual_means, model, chats, layers),
                f"our means, {kind}": functools.partial(mean_residuals, model, chats, layers=layers, batch_size=BATCH),
            }
            torch.testing.assert_close(*(way() for way in ways.values()), atol=1e-4, rtol=1e-4)
            times = interleaved(ways, ROUNDS)
            ratios.append(Ratio.of(times, *times, target="at least 1.50"))
        report("capture", ratios, model=n_parameters(model), growth=growth())


def prompts(n: int, *, n_words: int, system_prompt: str | None = None) -> list[Chat]:
    """Chats of about `n_words` tokens each, of unequal length."""
    texts = (" ".join(number_prompts(60, ORGANISM, seed=i)).split() for i in range(n))
    return [as_chat(" ".join(words[: n_words - i % 8]), system_prompt) for i, words in enumerate(texts)]


def capture(model: Any, chats: list[Chat], positions: Any) -> torch.Tensor:
    """Every layer, by the library."""
    return capture_residuals(model, chats, layers=range(model.cfg.n_layers), positions=positions, batch_size=BATCH)


@torch.no_grad()
def plain_forward(model: Any, chats: list[Chat], **options: Any) -> list[Any]:
    """Tokenize, pad, run; one position's logits, as capture does."""
    options = {"logits_to_keep": 1} | options
    rows, outputs = [encode_prompt(model.tokenizer, chat) for chat in chats], []
    for start in range(0, len(rows), BATCH):
        batch = pad_rows(model.tokenizer, rows[start : start + BATCH])
        outputs.append(
            huggingface_model(model)(
                input_ids=batch.tokens,
                attention_mask=batch.attention_mask.long(),
                position_ids=batch.position_ids,
                use_cache=False,
                **options,
            )
        )
    return outputs


def usual_means(model: Any, chats: list[Chat], layers: Sequence[int]) -> torch.Tensor:
    """Hidden states of all layers to the CPU in float32; the mean over rows at the last token in the end.

    So it does where only some `layers` are wanted. The last block's output is read by a hook, since the last hidden state
    is behind the final norm.
    """
    last: list[torch.Tensor] = []
    block = model.blocks[model.cfg.n_layers - 1].hook_out
    handle = block.register_forward_hook(lambda _module, _inputs, resid: last.append(resid))
    try:
        outputs = plain_forward(model, chats, output_hidden_states=True, logits_to_keep=0)
    finally:
        handle.remove()
    kept = [torch.stack([*out.hidden_states[1:-1], end]).float().cpu() for out, end in zip(outputs, last, strict=True)]
    return torch.cat([resid[:, :, -1] for resid in kept], dim=1).mean(1)[list(layers)]


def growth() -> dict[str, Any]:
    """CPU seconds of capture at the assistant tag while one size doubles, with the exponent of the growth."""
    curves = {}
    for what, values in {
        "batch": (4, 8, 16, 32),
        "length": (50, 100, 200, 400),
        "layers": (2, 4, 8, 16),
        "d_model": (160, 320, 640),
    }.items():
        ways: dict[str, Callable[[], Any]] = {}
        with tempfile.TemporaryDirectory() as directory:
            for value in values:
                sizes = {"batch": 8, "length": 100, "layers": 4, "d_model": 160} | {what: value}
                model = random_llama(directory, d_model=sizes["d_model"], n_layers=sizes["layers"])
                chats = prompts(sizes["batch"], n_words=sizes["length"])
                ways[str(value)] = lambda model=model, chats=chats: capture(model, chats, "last_prompt")
            seconds = {name: min(times) for name, times in interleaved(ways, 3).items()}
        curves[what] = {
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "exponent": round(exponent(values, list(seconds.values())), 2),
        }
    return curves


if __name__ == "__main__":
    main()
