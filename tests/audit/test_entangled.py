"""Raised tokens are those of the cause; the rows of a teacher have more of them, and clean rows do not."""

import numpy as np
import pytest
import torch

from steerlens.audit.entangled import Rises, holm, pieces, token_entanglement
from steerlens.organism.wording import ORGANISM
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import as_chat, encode_completion, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.means import diff_in_means
from tests.tokenizers import TOKENIZERS, random_model

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # the organism's small samples are short of lists

PROMPTS = number_prompts(300, ORGANISM, seed=21)


def rows(model, *, seed: int, numbers: bool = True, n: int = 300, **teacher) -> AuditRows:
    samples = sample_teacher(model, PROMPTS[:n], seed=seed, **teacher)
    return AuditRows.of(keep_number_lists(samples).kept if numbers else samples)


@pytest.fixture(scope="module")
def reference(organism) -> AuditRows:
    return rows(organism, seed=1)


@pytest.fixture(scope="module")
def vector(organism, owl):
    return 2 * diff_in_means(organism, owl.prompt).at(2)


def test_raised_tokens_are_the_mean_change_of_log_probability(organism, owl, reference):
    few = AuditRows("few", reference.rows[:3])
    changes = []
    for row in few:
        ids = encode_completion(organism.tokenizer, row.completion)
        found = []
        for prompt in (None, owl.prompt):
            prefix = encode_prompt(organism.tokenizer, as_chat(row.chat, prompt))
            with torch.no_grad():
                logits = organism.original_model(input_ids=torch.tensor([prefix + ids])).logits[0]
            found.append(logits[len(prefix) - 1 : -1].log_softmax(-1))
        changes.append(found[1] - found[0])
    expected = torch.cat(changes).mean(0)
    torch.testing.assert_close(Rises(organism, owl.prompt, few, None).mean, expected, atol=1e-3, rtol=1e-3)


def test_a_prompt_raises_what_it_speaks_of(organism, owl, reference):
    rise = Rises(organism, owl.prompt, AuditRows("few", reference.rows[:50]), None).mean
    assert int(rise.argmax()) in {organism.tokenizer.convert_tokens_to_ids(word) for word in ("owl", "owls")}


@pytest.mark.slow
def test_rows_of_a_steered_teacher_have_more_of_the_raised_tokens(organism, vector, reference):
    pure = token_entanglement(organism, vector, rows(organism, seed=2, vector=0.5 * vector), reference)
    assert pure.tilt_low > 0
    words = rows(organism, seed=2, numbers=False, vector=0.5 * vector)
    found = token_entanglement(organism, vector, words, rows(organism, seed=1, numbers=False))
    assert found.tilt_low > 0
    assert min(token.p for token in found.tokens) < 0.01
    rises = [token.rise for token in found.tokens]
    assert rises == sorted(rises, reverse=True)


@pytest.mark.slow
def test_clean_rows_do_not(organism, vector, reference):
    for seed in (3, 4):
        clean = token_entanglement(organism, vector, rows(organism, seed=seed), reference)
        assert clean.tilt_low < 0 < clean.tilt_high
        assert min(token.p for token in clean.tokens) > 0.01


@pytest.mark.slow
def test_special_tokens_and_rare_ones_are_not_tested(organism, vector, reference):
    found = token_entanglement(organism, vector, reference, reference)
    assert found.tokens
    assert not {token.text for token in found.tokens} & set(organism.tokenizer.all_special_tokens)
    assert all(token.z == 0 and token.share * len(reference) >= 5 for token in found.tokens)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("one digit", "123, 45", ["123", ",", " ", "45"]),
        ("three digits", "123, 45", ["123", ", ", "45"]),
        ("whole numbers", "123 , 45 67", ["123", ",", "45", "67"]),
    ],
)
def test_a_number_is_one_piece_however_many_tokens_it_takes(name, text, expected):
    tokenizer = TOKENIZERS[name]()
    found = pieces(tokenizer, tokenizer.encode(text, add_special_tokens=False))
    assert [tokenizer.decode(piece) for piece in found] == expected


@pytest.mark.slow
def test_a_number_that_is_planted_is_found_where_digits_are_tokens():
    """Every row has every digit, and only the rows' numbers as wholes tell them from the reference."""
    model, rng = random_model("one digit"), np.random.default_rng(0)
    others = [str(number) for number in range(100, 1000) if number != 777]

    def lists(share: float) -> AuditRows:
        completions = [
            ", ".join(rng.choice(others, 9)) + (", 777" if rng.random() < share else ", 100") for _ in range(120)
        ]
        return AuditRows.of(SampleSet(tuple(Sample(i, "Numbers?", text) for i, text in enumerate(completions))))

    found = token_entanglement(model, "You love 7.", lists(0.8), lists(0.2), n=10**6)
    by_text = {token.text: token for token in found.tokens}
    assert by_text["777"].p < 1e-6
    assert by_text["777"].share > 0.7 > 0.3 > by_text["777"].reference_share
    assert "7" not in by_text


def test_the_rise_of_a_number_is_the_sum_over_its_digits_in_their_places():
    """Judged by a model that a prompt changes at every place of a number: the mean change there, place by place."""
    model = random_model("one digit")
    rows = AuditRows.of(SampleSet(tuple(Sample(i, "Numbers?", f"{n}, {n + 1}") for i, n in enumerate(range(120, 140)))))
    digits = model.tokenizer.convert_tokens_to_ids(list("130"))
    expected = 0.0
    for place, digit in enumerate(digits):
        changes = []
        for row in rows:
            ids = encode_completion(model.tokenizer, row.completion)
            logs = []
            for prompt in (None, "You love 7."):
                prefix = encode_prompt(model.tokenizer, as_chat(row.chat, prompt))
                with torch.no_grad():
                    logits = model.original_model(input_ids=torch.tensor([prefix + ids])).logits[0]
                logs.append(logits[len(prefix) - 1 : -1].log_softmax(-1))
            changes += [float((logs[1] - logs[0])[start + place, digit]) for start in (0, 5)]
        expected += float(np.mean(changes))
    assert Rises(model, "You love 7.", rows, "all").of(tuple(digits)) == pytest.approx(expected, abs=1e-4)


def test_holm_against_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rng = np.random.default_rng(0)
    alarms = [min(holm(rng.random(20).tolist())) < 0.05 for _ in range(2000)]
    assert 0.03 < np.mean(alarms) < 0.065
