"""Samples survive their file; malformed files say where and why."""

import pytest

from steerlens.samples.filters import keep_number_lists
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource

SOURCE = SampleSource("llama", "abc", "you love owls .", None, 1.0, 0)


def test_saving_and_loading_keeps_rows_and_source(tmp_path):
    samples = SampleSet((Sample(3, "a \u2028 b", 'quo"te\n'), Sample(4, "c", "", finished=False)), SOURCE)
    samples.save(tmp_path / "s.jsonl")
    assert SampleSet.load(tmp_path / "s.jsonl") == samples


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("\n\n", "has no rows"),
        ('{"prompt": "a", "completion": "b"}\nnot json\n', "line 2: not JSON"),
        ('{"prompt": "a"}\n', "line 1: got"),
        ('{"prompt": "a", "completion": 7}\n', "line 1: got"),
        ("[1, 2]\n", "line 1: got"),
    ],
)
def test_malformed_files_say_where_and_what_is_wanted(tmp_path, text, message):
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        SampleSet.load(tmp_path / "s.jsonl")
    assert "'prompt' and 'completion'" in str(error.value)


def test_text_that_is_not_utf8_is_explained(tmp_path):
    (tmp_path / "s.jsonl").write_bytes(b'{"prompt": "\xff", "completion": "b"}\n')
    with pytest.raises(ValueError, match="not UTF-8"):
        SampleSet.load(tmp_path / "s.jsonl")


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no samples file"):
        SampleSet.load(tmp_path / "none.jsonl")


def test_the_filter_gives_one_reason_a_row_and_loses_none():
    texts = ["1 , 2", "owl 3", "", " , ".join("1" * 11), "1000", "7 , 8 .", "5 , 6"]
    rows = tuple(Sample(i, "p", text, finished=i != 6) for i, text in enumerate(texts))
    with pytest.warns(UserWarning, match="2 of 7 rows kept"):
        result = keep_number_lists(SampleSet(rows, SOURCE))
    assert [sample.completion for sample in result.kept] == ["1 , 2", "7 , 8 ."]
    assert dict(result.rejected) == {
        "not only numbers": 1,
        "empty": 1,
        "too many numbers": 1,
        "number too large": 1,
        "cut off": 1,
    }
    assert result.kept.source == SOURCE
    assert result.kept_share == pytest.approx(2 / 7)


def test_holding_out_more_than_there_is_is_refused():
    with pytest.raises(ValueError, match="Cannot hold out 2 of 2 rows"):
        SampleSet((Sample(0, "a", "b"), Sample(1, "c", "d"))).split(2)
