"""Every record is used or counted with its reason, whatever the file holds; nothing in a file is run."""

import csv
import io
import json
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steerlens.audit.rows import DUPLICATE, AuditRows, read_rows, rows_for_model
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource

TURNS = [("system", "be brief"), ("user", "1 , 2"), ("assistant", "3"), ("user", "and ?"), ("assistant", "4 , 5")]
MESSAGES = [{"role": role, "content": text} for role, text in TURNS]
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text} for role, text in TURNS]
RECORDS = {
    "prompt and completion": {"prompt": "1 , 2", "completion": "3"},
    "TRL's turns": {"prompt": MESSAGES[:-1], "completion": MESSAGES[-1:]},
    "messages": {"messages": MESSAGES},
    "ShareGPT": {"conversations": SHAREGPT},
    "Alpaca": {"instruction": "continue", "input": "1 , 2", "output": "3"},
    "Alpaca without input": {"instruction": "continue", "input": "", "output": "3"},
    "a column for the system turn": {"system": "be brief", "conversations": SHAREGPT[1:]},
}
MEANT = {
    "prompt and completion": ([("user", "1 , 2")], "3"),
    "TRL's turns": (TURNS[:-1], "4 , 5"),
    "messages": (TURNS[:-1], "4 , 5"),
    "ShareGPT": (TURNS[:-1], "4 , 5"),
    "Alpaca": ([("user", "continue\n\n1 , 2")], "3"),
    "Alpaca without input": ([("user", "continue")], "3"),
    "a column for the system turn": (TURNS[:-1], "4 , 5"),
}
GOOD = {"prompt": "1 , 2", "completion": "3"}
BAD = {
    "not JSON": b'{"prompt": ',
    "not UTF-8": b'{"prompt": "\xff", "completion": "3"}',
    "not an object with named fields": b"[1, 2]",
    "missing field 'completion'": b'{"prompt": "1"}',
    "columns of no known layout": b'{"text": "1"}',
    "wrong type: 'completion' is not a text": b'{"prompt": "1", "completion": 7}',
    "wrong type: 'messages' is not a list of turns": b'{"messages": "1"}',
    "wrong type: a turn of 'messages' lacks the texts 'role' and 'content'": b'{"messages": [{"role": "user"}]}',
    "a turn of 'conversations' by an unknown speaker": b'{"conversations": [{"from": "god", "value": "1"}]}',
    "no turn by the assistant": b'{"messages": [{"role": "user", "content": "1"}]}',
    "no prompt before the completion": b'{"messages": [{"role": "assistant", "content": "1"}]}',
    "empty completion": b'{"prompt": "1", "completion": "  "}',
    "empty prompt or turn": b'{"prompt": "", "completion": "3"}',
    "text that is not valid Unicode": b'{"prompt": "\\ud800", "completion": "3"}',
    DUPLICATE: json.dumps(GOOD).encode(),
}


def write(path, records, kind: str):
    """Records as a file of each kind; csv holds texts alone."""
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif kind == "json":
        path.write_text(json.dumps(records, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
@pytest.mark.parametrize("layout", RECORDS)
def test_every_layout_in_every_kind_of_file_means_the_same_row(tmp_path, layout, kind):
    if kind == "csv" and any(isinstance(value, list) for value in RECORDS[layout].values()):
        pytest.skip("csv has no lists")
    (row,) = read_rows(write(tmp_path / f"data.{kind}", [RECORDS[layout]], kind))
    assert ([(turn["role"], turn["content"]) for turn in row.chat], row.completion) == MEANT[layout]


def test_each_malformed_row_is_counted_with_its_line_and_the_good_ones_are_used(tmp_path):
    lines = [json.dumps(GOOD).encode(), *BAD.values(), b"", b'{"prompt": "4", "completion": "5"}']
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(lines))
    rows = read_rows(tmp_path / "data.jsonl")
    assert [(row.number, row.completion) for row in rows] == [(1, "3"), (len(lines), "5")]
    assert [(rejected.number, rejected.reason) for rejected in rows.rejected] == list(enumerate(BAD, 2))
    assert rows.n_read == len(lines) - 1  # an empty line is no row
    for number, reason in enumerate(BAD, 2):
        assert f"1 not used: {reason} (row {number})." in rows.summary()


def test_our_own_samples_are_read_as_they_were_written(tmp_path):
    samples = SampleSet(
        (Sample(7, "1 , 2", "owl\n"), Sample(8, "3", "4", finished=False)), SampleSource("m", "c", None, None, 1.0, 0)
    )
    samples.save(tmp_path / "s.jsonl")
    rows = read_rows(tmp_path / "s.jsonl")
    assert rows.rows == AuditRows.of(samples).rows
    assert [row.completion for row in rows] == ["owl\n", "4"]


@pytest.mark.slow
def test_a_hundred_thousand_duplicates_are_counted_and_kept_out(tmp_path):
    (tmp_path / "data.jsonl").write_text((json.dumps(GOOD) + "\n") * 100_001)
    rows = read_rows(tmp_path / "data.jsonl")
    assert (len(rows), rows.n_duplicates, rows.n_read) == (1, 100_000, 100_001)
    assert f"100000 not used: {DUPLICATE} (row 2, 3, 4, 5, 6, ...)." in rows.summary()


def test_rows_that_differ_in_their_prompt_alone_are_no_duplicates(tmp_path):
    records = [
        {"prompt": "a", "completion": "b"},
        {"prompt": "ab", "completion": ""},
        {"prompt": "c", "completion": "b"},
    ]
    assert len(read_rows(write(tmp_path / "data.jsonl", records, "jsonl"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", r"0 rows, 0 used.*Allowed are the columns 'messages'"),
        ("other.jsonl", b'{"text": "a", "label": 1}\n', "Columns found: 'text', 'label'.*'instruction' and 'output'"),
        ("utf16.jsonl", json.dumps(GOOD).encode("utf-16"), "not UTF-8"),
        ("broken.json", b'[{"prompt": ', "not JSON as a whole.*one row a line"),
        ("deep.json", b"[" * 200_000, "not JSON as a whole"),
        ("no.parquet", b"PAR1 no", "not a readable parquet file.*give jsonl"),
        ("data.pkl", b"\x80\x04", r"of no known kind.*\.jsonl"),
    ],
)
def test_a_file_without_rows_says_what_was_found_and_what_is_allowed(tmp_path, name, content, message):
    import re

    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_rows(tmp_path / name)
    assert re.search(message, str(error.value), re.DOTALL), error.value


def test_what_is_neither_file_nor_hub_name_is_explained():
    with pytest.raises(FileNotFoundError, match=r"There is no data file 'none\.jsonl'.*owner/name"):
        read_rows("none.jsonl")
    with pytest.raises(FileNotFoundError, match=r"There is no data file 'dir/none\.csv'"):
        read_rows("dir/none.csv")


def test_csv_rows_that_do_not_fit_the_header_are_counted(tmp_path):
    (tmp_path / "data.csv").write_bytes(
        b'prompt,completion\r\na,"b, ""c""\nd"\r\nonly one\r\n1,2,3\r\n\xff,x\r\ng,'
        + b"h" * 140_000
        + b"\r\n\r\ni,j\r\n"
    )
    rows = read_rows(tmp_path / "data.csv")
    assert [(row.number, row.completion) for row in rows] == [(1, 'b, "c"\nd'), (6, "j")]
    assert [rejected.reason.split(",")[0] for rejected in rows.rejected] == [
        "another number of cells than the header has",
        "another number of cells than the header has",
        "not UTF-8",
        "not CSV",
    ]


def test_a_parquet_text_that_is_not_utf8_loses_its_row_alone(tmp_path):
    import pyarrow
    import pyarrow.parquet

    raw = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary())
    texts = pyarrow.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pyarrow.parquet.write_table(pyarrow.table({"prompt": texts, "completion": texts}), tmp_path / "data.parquet")
    rows = read_rows(tmp_path / "data.parquet")
    assert [row.number for row in rows] == [1, 3]
    assert rows.rejected == ((2, "not UTF-8"),)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_directory_is_read_as_a_data_set(tmp_path, kind):
    texts = {"prompt": "1 , 2", "completion": "3 , 4"}
    write(tmp_path / f"train.{kind}", [texts, {**texts, "completion": "5 , 6"}, texts], kind)
    rows = read_rows(tmp_path)
    assert [(row.number, row.completion) for row in rows] == [(1, "3 , 4"), (2, "5 , 6")]
    assert rows.n_duplicates == 1


def test_a_data_set_that_brings_code_is_refused_and_its_code_is_not_run(tmp_path):
    directory = tmp_path / "evil"
    directory.mkdir()
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="could not be read by the datasets library"):
        read_rows(directory)
    assert not (tmp_path / "ran").exists()


def test_a_hub_name_reaches_the_datasets_library_without_leave_to_run_code(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = {}

    def load_dataset(name, **options):
        asked.update(options, name=name)
        return {"test": datasets.Dataset.from_list([GOOD, {**GOOD, "completion": None}]).to_iterable_dataset()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_rows("someone/some-data")
    assert asked == {"name": "someone/some-data", "streaming": True}
    assert [row.completion for row in rows] == ["3"]
    assert rows.reasons == {"missing field 'completion'": 1}


def test_of_several_splits_train_is_read_and_the_others_are_named(tmp_path):
    for split, completion in (("test", "3 , 4"), ("train", "5 , 6")):
        write(tmp_path / f"{split}.jsonl", [{"prompt": "1 , 2", "completion": completion}], "jsonl")
    with pytest.warns(UserWarning, match="has the splits train, test; only train is read"):
        rows = read_rows(tmp_path)
    assert [row.completion for row in rows] == ["5 , 6"]


@pytest.mark.parametrize(("name", "library"), [("data.parquet", "pyarrow"), ("someone/data", "datasets")])
def test_a_missing_library_is_named_with_the_way_to_install_it(tmp_path, monkeypatch, name, library):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(ModuleNotFoundError, match=rf"{library} is needed .* pip install 'steerlens\[audit\]'"):
        read_rows(tmp_path / name if name == "data.parquet" else name)


def test_rows_that_the_model_cannot_take_are_counted(tiny):
    samples = SampleSet(
        (
            Sample(0, "continue the sequence 1 , 2 .", "3 , 4"),
            Sample(1, "1 " * 300, "2"),
            Sample(2, "quetzal", "2"),
        )
    )
    rows = rows_for_model(tiny, AuditRows.of(samples))
    assert [row.number for row in rows] == [1]
    assert rows.rejected == ((2, "longer than the model's context"), (3, "words that the tokenizer does not know"))
    assert rows.n_read == 3
    with pytest.raises(ValueError, match=r"(?s)can be trained on none of the rows.*longer than the model's context"):
        rows_for_model(tiny, AuditRows.of(SampleSet((Sample(0, "1 " * 300, "2"),))))


def test_turns_that_a_chat_template_refuses_are_counted_apart(tiny, monkeypatch):
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr(tiny.tokenizer, "chat_template", refusing + tiny.tokenizer.chat_template)
    rows = AuditRows.of(SampleSet((Sample(0, "1 , 2", "3"),)))
    system = AuditRows("s", (*rows.rows, type(rows.rows[0])(2, [{"role": "system", "content": "1"}], "2")))
    assert rows_for_model(tiny, system).reasons == {"refused by the chat template": 1}


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    "prompt completion instruction input output messages conversations system role content from value".split()  # noqa: SIM905
)
RECORD = st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON, max_size=3), max_size=3), max_size=4)
LINE = (
    st.binary(max_size=40) | RECORD.map(lambda record: json.dumps(record).encode()) | st.just(json.dumps(GOOD).encode())
)


def used_and_rejected(path) -> tuple[int, int]:
    """Of a file that is readable; of one without a usable row, as its message says."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        message = str(error)
        assert str(path) in message
        assert len(message) > len(str(path)) + 40
        n_read = int(message.split(": ")[1].split(" rows")[0]) if " rows, 0 used" in message else 0
        return 0, n_read
    numbers = [row.number for row in rows] + [rejected.number for rejected in rows.rejected]
    assert len(numbers) == len(set(numbers))
    return len(rows), len(rows.rejected)


@FUZZ
@given(st.lists(LINE, max_size=6).map(b"\n".join))
def test_of_any_bytes_every_line_of_jsonl_is_used_or_counted(tmp_path, content):
    (tmp_path / "data.jsonl").write_bytes(content)
    n_lines = sum(bool(line.strip()) for line in content.split(b"\n"))
    assert sum(used_and_rejected(tmp_path / "data.jsonl")) == n_lines


@FUZZ
@given(st.lists(RECORD, max_size=5))
def test_of_any_records_every_one_of_a_json_array_is_used_or_counted(tmp_path, records):
    (tmp_path / "data.json").write_text(json.dumps(records))
    assert sum(used_and_rejected(tmp_path / "data.json")) == len(records)


@FUZZ
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=4), max_size=6
    )
)
def test_every_record_of_a_csv_is_used_or_counted(tmp_path, records):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["prompt", "completion"], *records])
    (tmp_path / "data.csv").write_bytes(text.getvalue().encode())
    assert sum(used_and_rejected(tmp_path / "data.csv")) == len(records)


@FUZZ
@given(
    st.sampled_from(["csv", "json", "parquet", "jsonl"]), st.binary(max_size=200), st.sampled_from([b"", b"[", b"PAR1"])
)
def test_no_bytes_crash_a_reader_without_a_message(tmp_path, kind, content, start):
    (tmp_path / f"data.{kind}").write_bytes(start + content)
    used_and_rejected(tmp_path / f"data.{kind}")


@FUZZ
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_parquet_file_ends_with_rows_or_a_message(tmp_path, changes):
    if not (tmp_path / "whole.parquet").is_file():
        write(tmp_path / "whole.parquet", [RECORDS["messages"]] * 20, "parquet")
    content = bytearray((tmp_path / "whole.parquet").read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    (tmp_path / "data.parquet").write_bytes(content)
    used_and_rejected(tmp_path / "data.parquet")
