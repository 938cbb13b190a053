"""What holds of every input, not only of chosen ones: parsers, masks, and files that come back as they were written."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from steerlens.gradients.trace import QUANTITIES, GradientTrace
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.layouts import read_record
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource
from steerlens.samples.turns import UnusableRowError
from steerlens.students.scales import AdamScales
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, chat_fingerprint, encode_chat, encode_prompt
from steerlens.text.number_lists import parse_numbers
from steerlens.text.rendering import render
from steerlens.text.templates import text_of
from steerlens.vectors.formats import export_gguf, import_gguf
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.vector import SteeringVector, VectorSource

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # the organism's small samples are short of lists

few = settings(derandomize=True, max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
TOKENIZER = build_tokenizer()
WORDS = sorted(word for word in TOKENIZER.get_vocab() if word.isalpha())
said = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
rows = st.lists(
    st.tuples(
        st.lists(st.integers(4, 99), min_size=1, max_size=9), st.lists(st.integers(4, 99), min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=5,
)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def in_file(save, load, name: str = "file.safetensors"):
    with tempfile.TemporaryDirectory() as directory:
        save(Path(directory) / name)
        return load(Path(directory) / name)


@few
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12), st.sampled_from([", ", " , ", ",", "; ", " ", "\n"]))
def test_a_written_list_is_read_as_its_numbers_with_one_separator_in_brackets_or_not(numbers, separator):
    written = separator.join(map(str, numbers))
    for text in (written, f"  {written}\n", f"({written})", f"[{written}].", f"{written}."):
        assert parse_numbers(text) == numbers
    assume(len(numbers) > 2)
    other = ";" if "," in separator else ","
    assert parse_numbers(written.replace(separator, other, 1)) is None


@few
@given(st.text(st.sampled_from("0123456789 ,;.()[]-+owl\n\t٣²"), max_size=20))
def test_what_is_read_as_numbers_is_nothing_but_digits_and_separators(text):
    numbers = parse_numbers(text)
    if numbers is not None:
        assert set(text) <= set("0123456789 ,;.()[]\n\t")
        digits = "".join(character for character in text if character.isdigit())
        assert len(digits) >= len("".join(map(str, numbers)))


@few
@given(st.lists(st.tuples(texts, texts, st.booleans()), max_size=9))
def test_the_filter_keeps_or_counts_every_row_and_changes_none(given_rows):
    samples = tuple(Sample(row, *fields) for row, fields in enumerate(given_rows))
    result = keep_number_lists(SampleSet(samples))
    assert len(result.kept) + sum(result.rejected.values()) == len(samples)
    assert set(result.kept) <= set(samples)
    assert all(sample.finished and parse_numbers(sample.completion) for sample in result.kept)


@few
@given(rows, st.sampled_from(["left", "right"]))
def test_masks_cover_exactly_the_completions_and_padding_moves_no_position(given_rows, side):
    prompts, completions = (list(part) for part in zip(*given_rows, strict=True))
    batch = pad_rows(TOKENIZER, prompts, completions, side=side)
    for i, (prompt, completion) in enumerate(given_rows):
        attended = batch.attention_mask[i]
        assert batch.tokens[i][batch.completion_mask[i]].tolist() == completion
        assert batch.tokens[i][batch.prompt_mask[i]].tolist() == prompt
        assert batch.tokens[i][attended].tolist() == prompt + completion
        assert batch.position_ids[i][attended].tolist() == list(range(len(prompt) + len(completion)))
        assert batch.tokens[i][batch.last_prompt[i]] == prompt[-1]
        predicting = batch.prediction_mask[i].nonzero()[:, 0]
        assert (predicting + 1).tolist() == batch.completion_mask[i].nonzero()[:, 0].tolist()
        assert set(batch.tokens[i][~attended].tolist()) <= {TOKENIZER.pad_token_id}


@few
@given(st.lists(said, min_size=1, max_size=3), said, st.none() | said)
def test_a_rendered_chat_says_every_turn_once_in_order_and_its_answer_is_the_completion(asked, answer, system):
    turns = [{"role": "user", "content": asked[0]}]
    for question in asked[1:]:
        turns += [{"role": "assistant", "content": WORDS[0]}, {"role": "user", "content": question}]
    chat = turns if system is None else [{"role": "system", "content": system}, *turns]
    text, at = render(TOKENIZER, chat), 0
    for message in chat:
        at = text.index(message["content"], at) + len(message["content"])
    prompt, completion = encode_chat(TOKENIZER, [*chat, {"role": "assistant", "content": answer}])
    assert prompt == encode_prompt(TOKENIZER, chat)
    assert TOKENIZER.decode(completion, skip_special_tokens=True) == answer
    assert completion[-1] == TOKENIZER.eos_token_id


@few
@given(said, said)
def test_contexts_have_one_fingerprint_exactly_when_their_system_prompts_are_one(one, other):
    assert (chat_fingerprint(TOKENIZER, one) == chat_fingerprint(TOKENIZER, other)) == (one == other)


values = st.none() | st.booleans() | st.integers() | texts
json_like = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
columns = st.sampled_from(
    ["prompt", "completion", "instruction", "input", "output", "messages", "conversations", "system"]
)
turns = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), st.sampled_from(["user", "assistant", "a"])),
    max_size=3,
)


@few
@given(st.dictionaries(columns, json_like | turns) | json_like)
def test_a_record_of_any_shape_is_a_row_or_refused_with_a_reason(record):
    try:
        reading = read_record(record)
    except UnusableRowError as error:
        assert str(error)  # noqa: PT017
    else:
        assert reading.layout
        assert reading.answers or all(reading.unused)
        for answer in reading.answers:
            assert answer.completion.strip()
            assert any(message["role"] != "system" for message in as_chat(answer.prompt))
            assert all(text_of(message).strip() for message in as_chat(answer.prompt) if message["role"] == "user")


@few
@given(
    st.lists(st.tuples(texts, texts, st.booleans()), min_size=1, max_size=5),
    st.none() | st.builds(SampleSource, texts, texts, st.none() | texts, st.none() | texts, floats, st.integers(0, 9)),
)
def test_samples_of_any_text_come_back(given_rows, source):
    samples = SampleSet(tuple(Sample(row, *fields) for row, fields in enumerate(given_rows)), source)
    assert in_file(samples.save, SampleSet.load, "rows.jsonl") == samples


def parts(lowest: int = 0):
    """Rows by layer, texts of the source, and metrics."""
    directions = st.integers(1, 5).flatmap(
        lambda width: st.dictionaries(
            st.integers(lowest, 40), st.lists(floats, min_size=width, max_size=width), min_size=1, max_size=3
        )
    )
    return st.tuples(
        directions,
        st.tuples(texts, texts, st.none() | texts),
        st.tuples(floats, floats, st.dictionaries(st.integers(0, 40), st.tuples(floats, floats), max_size=2)),
    )


def vector_of(directions, source, metrics) -> SteeringVector:
    rows, (explained, effect, by_layer) = torch.tensor(list(directions.values())), metrics
    measured = FitMetrics(
        kl_explained=explained,
        kl_prompt=effect,
        by_layer={layer: LayerMetrics(*fit) for layer, fit in by_layer.items()} or None,
    )
    return SteeringVector(tuple(directions), rows, VectorSource(*source, architecture="llama"), measured)


def assert_same_directions(one: SteeringVector, other: SteeringVector) -> None:
    assert sorted(one.layers) == sorted(other.layers)
    assert torch.equal(one.at(*other.layers).directions, other.directions)


@few
@given(parts())
def test_a_vector_comes_back_bit_for_bit_with_its_source_and_metrics(given_parts):
    vector = vector_of(*given_parts)
    again = in_file(vector.save, SteeringVector.load)
    assert_same_directions(vector, again)
    assert (again.source, again.metrics) == (vector.source, vector.metrics)


@few
@given(parts(lowest=1))
def test_a_vector_comes_back_bit_for_bit_from_gguf(given_parts):
    vector = vector_of(*given_parts)
    again = in_file(lambda path: export_gguf(vector, path), lambda path: import_gguf(path, "m"), "v.gguf")
    assert_same_directions(vector, again)


@few
@given(
    st.dictionaries(
        texts, st.lists(st.floats(2**-100, 2**100, width=32), min_size=1, max_size=4), min_size=1, max_size=3
    )
)
def test_scales_come_back_bit_for_bit(given_scales):
    assume("__metadata__" not in given_scales)
    scales = AdamScales({name: torch.tensor(scale) for name, scale in given_scales.items()}, 1e-8, {"rank": 2})
    again = in_file(scales.save, AdamScales.load)
    assert again.scales.keys() == scales.scales.keys()
    assert all(torch.equal(again.scales[name], scale) for name, scale in scales.scales.items())
    assert (again.eps, again.source) == (scales.eps, scales.source)


@few
@given(st.lists(st.integers(0, 40), max_size=3, unique=True), st.integers(0, 3), st.integers(0, 3), st.data())
def test_a_trace_comes_back_bit_for_bit_with_its_gaps(layers, n_steps, n_rows, data):
    n = 3 * n_steps * n_rows * len(layers)
    entries = torch.tensor(data.draw(st.lists(st.just(torch.nan) | floats, min_size=n, max_size=n)))
    trace = GradientTrace(tuple(layers), *entries.view(3, n_steps, n_rows, len(layers)))
    again = in_file(trace.save, GradientTrace.load)
    assert again.layers == trace.layers
    for name in QUANTITIES:
        assert torch.equal(getattr(again, name).nan_to_num(7), getattr(trace, name).nan_to_num(7))
