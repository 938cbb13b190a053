"""A vector fitted to given answers explains held-out ones of that kind, and too few answers are refused."""

import pytest

from steerlens.samples.conditions import Condition, list_tokens, row_kl
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.teacher import sample_teacher
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.answer_fits import fit_answers_vector
from steerlens.vectors.config import FitConfig


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* rows kept")
def test_the_vector_explains_lists_that_it_has_not_seen_by_the_tokens_of_lists(organism, owl):
    raw = sample_teacher(organism, number_prompts(500, organism, seed=3), system_prompt=owl.prompt, seed=3)
    lists, others = keep_number_lists(raw).kept.split(30)
    among = list_tokens(organism)
    answers = [(row.prompt, row.completion) for row in lists]
    vector = fit_answers_vector(organism, owl.prompt, answers, among=among, config=FitConfig(steps=25, batch_size=32))
    told = Condition(owl.prompt)
    left, plain = (
        float(row_kl(organism, others, told, condition, among=among).sum())
        for condition in (Condition(vector=vector), Condition())
    )
    assert 1 - left / plain > 0.4
    assert vector.metrics.kl_explained_low <= vector.metrics.kl_explained <= vector.metrics.kl_explained_high
    assert vector.layers == (0, 1, 2, 3)


def test_too_few_answers_are_refused(organism, owl):
    with pytest.raises(ValueError, match="Got 7 answers, and 8 are needed"):
        fit_answers_vector(organism, owl.prompt, [("1 , 2 .", "3")] * 7)
