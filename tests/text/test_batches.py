"""Rows of token ids keep their tokens, order and positions when they are padded."""

import pytest
import torch

from steerlens.text.batches import pad_rows


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_find_prompt_completion_and_last_prompt_token_on_either_side(tokenizer, side):
    batch = pad_rows(tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]], side=side)
    for row, (prompt, completion) in enumerate([([4, 5, 6], [8]), ([7], [9, 10])]):
        assert batch.tokens[row][batch.prompt_mask[row]].tolist() == prompt
        assert batch.tokens[row][batch.completion_mask[row]].tolist() == completion
        assert batch.tokens[row, batch.last_prompt[row]] == prompt[-1]
        assert batch.position_ids[row][batch.attention_mask[row]].tolist() == list(range(len(prompt + completion)))
        predicted_from = batch.tokens[row][batch.prediction_mask[row]].tolist()
        assert predicted_from == [prompt[-1], *completion[:-1]]


def test_position_masks_partition_the_attended_tokens(tokenizer):
    batch = pad_rows(tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]])
    union = batch.position_mask("prompt") | batch.position_mask("generated")
    assert torch.equal(union, batch.position_mask("all"))
    assert not (batch.position_mask("prompt") & batch.position_mask("generated")).any()
    assert batch.position_mask("last_prompt").sum(-1).tolist() == [1, 1]
