"""LoRA training as one writes it with transformers and peft alone: labels, `model(...).loss`, clip, step."""

import copy
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

import steerlens as sl
from steerlens.models.bridge import huggingface_model
from steerlens.models.saving import unwrapped
from steerlens.students.optimizers import make_schedule


def train(
    model: Any, rows: sl.SampleSet, config: sl.TrainConfig, targets: list[str] | str, layers: list[int] | None = None
) -> list[float]:
    """The losses of the same training: rows in the same order, the same initial matrices and rates.

    peft keeps LoRA's matrices in float32 whatever the dtype of the weights, as its documentation recommends.
    """
    encoded = [_encoded(model.tokenizer, row) for row in rows]
    with unwrapped(huggingface_model(model)):
        plain = copy.deepcopy(huggingface_model(model))
    torch.manual_seed(config.seed)
    student = get_peft_model(
        plain,
        LoraConfig(
            r=config.rank, lora_alpha=int(config.lora_alpha), target_modules=targets, layers_to_transform=layers
        ),
    )
    student.train()
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    order = torch.Generator().manual_seed(config.seed)
    batches = [
        batch
        for _ in range(config.epochs)
        for batch in torch.randperm(len(encoded), generator=order).split(config.batch_size)
    ]
    schedule, losses = make_schedule(optimizer, len(batches), config.warmup_share), []
    for indices in batches:
        ids, labels = zip(*(encoded[i] for i in indices.tolist()), strict=True)
        tokens, masks = _padded(ids, 0), _padded([[1] * len(row) for row in ids], 0)
        loss = student(input_ids=tokens, attention_mask=masks, labels=_padded(labels, -100), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or torch.inf)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _encoded(tokenizer: Any, row: Any) -> tuple[list[int], list[int]]:
    chat = [{"role": "user", "content": row.prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer.encode(text, add_special_tokens=False)
    answer = [*tokenizer.encode(row.completion, add_special_tokens=False), tokenizer.eos_token_id]
    return prompt + answer, [-100] * len(prompt) + answer


def _padded(rows: Any, fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])
