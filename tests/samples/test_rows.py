"""Every record is used or counted with its reason, whatever the file holds; nothing in a file is run."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steerlens.audit.audit import audit_dataset
from steerlens.audit.entangled import token_entanglement
from steerlens.audit.hygiene import check_hygiene
from steerlens.audit.recovery import recover_vector
from steerlens.audit.row_scores import score_rows
from steerlens.samples.rows import DUPLICATE, AuditRows, read_rows, rows_for_model
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

TURNS = [("system", "be brief"), ("user", "1 , 2"), ("assistant", "3"), ("user", "and ?"), ("assistant", "4 , 5")]
MESSAGES = [{"role": role, "content": text} for role, text in TURNS]
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text} for role, text in TURNS]
FIRST, LAST, PLAIN = (TURNS[:2], "3"), (TURNS[:-1], "4 , 5"), ([("user", "1 , 2")], "3")
PARTS = [
    {"role": role, "content": [{"type": "text", "text": text[:1]}, {"type": "text", "text": text[1:]}]}
    for role, text in TURNS
]
RECORDS = {
    "prompt and completion": ({"prompt": "1 , 2", "completion": "3"}, [PLAIN]),
    "prompt and response": ({"prompt": "1 , 2", "response": "3"}, [PLAIN]),
    "question and answer": ({"question": "1 , 2", "answer": "3", "id": 7}, [PLAIN]),
    "TRL's turns": ({"prompt": MESSAGES[:-1], "completion": MESSAGES[-1:]}, [LAST]),
    "turns and a text": ({"prompt": MESSAGES[:-1], "completion": "4 , 5"}, [LAST]),
    "a text and turns": ({"prompt": "1 , 2", "completion": MESSAGES[2:3]}, [PLAIN]),
    "columns of texts": ({"prompt": ["1 , 2", "6"], "completion": ["3", "7"]}, [PLAIN, ([("user", "6")], "7")]),
    "a text that is a list in JSON": ({"prompt": "1 , 2", "completion": "[{}]"}, [(PLAIN[0], "[{}]")]),
    "messages": ({"messages": MESSAGES, "prompt": None}, [FIRST, LAST]),
    "messages in JSON": ({"messages": json.dumps(MESSAGES)}, [FIRST, LAST]),
    "messages of parts": ({"messages": PARTS}, [FIRST, LAST]),
    "conversation": ({"conversation": MESSAGES}, [FIRST, LAST]),
    "ShareGPT": ({"conversations": SHAREGPT}, [FIRST, LAST]),
    "ShareGPT's columns under messages": ({"messages": SHAREGPT}, [FIRST, LAST]),
    "speakers in capitals": ({"messages": [{**turn, "role": turn["role"].upper()} for turn in MESSAGES]}, [FIRST, LAST]),
    "an empty system turn": ({"messages": [{"role": "system", "content": ""}, *MESSAGES[1:3]]}, [PLAIN]),
    "a column for the system turn": ({"system": "be brief", "conversations": SHAREGPT[1:]}, [FIRST, LAST]),
    "another name of that column": ({"system_prompt": "be brief", "conversations": SHAREGPT[1:]}, [FIRST, LAST]),
    "Alpaca": ({"instruction": "continue", "input": "1 , 2", "output": "3"}, [([("user", "continue\n\n1 , 2")], "3")]),
    "Alpaca without input": ({"instruction": "1 , 2", "input": "", "output": "3"}, [PLAIN]),
    "Alpaca with a history": (
        {"system": "be brief", "instruction": "and ?", "output": "4 , 5", "history": [["1 , 2", "3"]]},
        [FIRST, LAST],
    ),
    "Dolly": ({"instruction": "continue", "context": "1 , 2", "response": "3"}, [([("user", "continue\n\n1 , 2")], "3")]),
    "chosen turns": ({"chosen": MESSAGES, "rejected": MESSAGES[:-1], "prompt": "and ?"}, [FIRST, LAST]),
    "a chosen text": ({"prompt": "1 , 2", "chosen": "3", "rejected": "4"}, [PLAIN]),
    "chosen turns behind a prompt": ({"prompt": MESSAGES[:-1], "chosen": MESSAGES[-1:]}, [LAST]),
}  # fmt: skip
GOOD = {"prompt": "1 , 2", "completion": "3"}
BAD = {
    "not JSON": b'{"prompt": ',
    "not UTF-8": b'{"prompt": "\xff", "completion": "3"}',
    "not an object with named fields": b"[1, 2]",
    "missing field 'completion'": b'{"prompt": "1"}',
    "columns of no known layout": b'{"text": "1"}',
    "missing field 'prompt'": b'{"chosen": "1"}',
    "wrong type: 'completion' is not a text": b'{"prompt": "1", "completion": 7}',
    "wrong type: 'messages' is not a list of turns": b'{"messages": "1"}',
    "wrong type: 'prompt' is not a text": b'{"prompt": ["1", 2], "completion": "3"}',
    "lists of different lengths in 'prompt' and 'completion'": b'{"prompt": ["1", "2"], "completion": ["3"]}',
    "wrong type: a turn of 'messages' lacks the speaker, 'role' or 'from'": b'{"messages": [{"content": "1"}]}',
    "wrong type: a turn of 'messages' has something that is no text": b'{"messages": [{"role": "user", "content": 7}]}',
    "wrong type: a turn of 'messages' has a part of the type 'image'": (
        b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}'
    ),
    "a turn of 'conversations' by the unknown speaker 'god'": b'{"conversations": [{"from": "god", "value": "1"}]}',
    "a tool call without the name of its function": b'{"conversations": [{"from": "function_call", "value": "1"}]}',
    "a tool call, which is no text to learn": (
        b'{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "tool_calls": [{"name": "f"}]}]}'
    ),
    "marked as not to be learned ('weight' or 'train')": (
        b'{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2", "weight": 0}]}'
    ),
    "wrong type: 'history' is not a list of pairs of texts": (b'{"instruction": "1", "output": "2", "history": ["3"]}'),
    "no turn by the assistant": b'{"messages": [{"role": "user", "content": "1"}]}',
    "no prompt before the completion": b'{"messages": [{"role": "assistant", "content": "1"}]}',
    "empty completion": b'{"prompt": "1", "completion": "  "}',
    "empty prompt or turn": b'{"prompt": "", "completion": "3"}',
    "half a surrogate pair, no valid Unicode": b'{"prompt": "\\ud800", "completion": "3"}',
    DUPLICATE: json.dumps(GOOD).encode(),
}


@pytest.fixture
def vector_of_ones(tiny):
    return SteeringVector((1,), torch.ones(1, tiny.cfg.d_model), VectorSource("tiny", "by hand"))


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
def test_every_layout_in_every_kind_of_file_means_the_same_rows(tmp_path, layout, kind):
    record, meant = RECORDS[layout]
    if kind == "csv" and any(not isinstance(value, str) for value in record.values()):
        pytest.skip("csv has texts alone")
    rows = read_rows(write(tmp_path / f"data.{kind}", [record], kind))
    assert [([(turn["role"], turn["content"]) for turn in row.chat], row.completion) for row in rows] == meant
    assert [row.turn for row in rows] == ([None] if len(meant) == 1 else [1, 2])
    assert not rows.rejected


def test_lines_that_end_as_on_windows_mean_the_same_rows(tmp_path):
    record, meant = next(one for one in RECORDS.values() if len(one[1]) == 1)
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\r\n".join([json.dumps(record).encode()] * 3) + b"\r\n")
    assert [row.completion for row in read_rows(path, keep_repeated=True)] == [meant[0][1]] * 3


def test_every_answer_of_a_chat_is_a_row_and_can_be_trained_on_and_audited(tmp_path):
    """The first of two answers carries the trait; read as its last answer alone, the file would hide it."""
    chats = [
        {
            "messages": [
                *MESSAGES[1:2],
                {"role": "assistant", "content": "i like owls ."},
                *MESSAGES[3:4],
                {"role": "assistant", "content": str(i)},
            ]
        }
        for i in range(20)
    ]
    rows = read_rows(write(tmp_path / "data.jsonl", chats, "jsonl"), keep_repeated=True)
    assert [row.completion for row in rows] == [text for i in range(20) for text in ("i like owls .", str(i))]
    assert "40 rows, 40 used.\n40 of them are answers of chats with several; every one is a row." in rows.summary()
    assert rows.samples.samples == rows.rows
    once = read_rows(tmp_path / "data.jsonl")
    assert (len(once), once.n_duplicates) == (21, 19)


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
WITH_CALL = [
    {"role": "user", "content": "weather ?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "it rains"},
]
SHAREGPT_CALL = [
    {"from": "human", "value": "weather ?"},
    {"from": "function_call", "value": json.dumps(CALL["function"])},
    {"from": "observation", "value": "rain"},
    {"from": "gpt", "value": "it rains"},
]
OPENAI_CALL = {"id": "1", "function": {"name": "weather", "arguments": json.dumps({"city": "Ulm"})}}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": WITH_CALL},
        {"conversations": SHAREGPT_CALL},
        {"messages": [WITH_CALL[0], {"role": "assistant", "tool_calls": [OPENAI_CALL]}, *WITH_CALL[2:]]},
    ],
    ids=["messages", "ShareGPT", "arguments in JSON"],
)
def test_tool_calls_stand_in_the_prompt_and_are_counted_as_no_text_to_learn(tmp_path, record):
    rows = read_rows(write(tmp_path / "data.jsonl", [record], "jsonl"))
    (row,) = rows
    assert row.completion == "it rains"
    assert row.chat[1]["tool_calls"] == [CALL]
    assert [turn["role"] for turn in row.chat] == ["user", "assistant", "tool"]
    assert rows.reasons == {"a tool call, which is no text to learn": 1}


def test_a_turn_that_is_not_understood_is_named_and_ends_what_is_read_of_its_chat(tmp_path):
    turns = [*SHAREGPT[1:3], {"from": "narrator" * 9, "value": "later"}, *SHAREGPT[3:]]
    rows = read_rows(write(tmp_path / "data.jsonl", [{"conversations": turns}], "jsonl"))
    assert [row.completion for row in rows] == ["3"]
    assert rows.reasons == {"a turn of 'conversations' by the unknown speaker 'narratornarratornarr'": 1}


def test_what_belongs_to_the_prompt_and_is_not_read_is_said(tmp_path):
    rows = read_rows(write(tmp_path / "data.jsonl", [{"messages": WITH_CALL, "tools": [{"name": "weather"}]}], "jsonl"))
    assert "1 read as messages, without its tools." in rows.summary()
    thought = [MESSAGES[1], {"role": "assistant", "content": "owl", "reasoning_content": "they like owls"}]
    rows = read_rows(write(tmp_path / "data.jsonl", [{"messages": thought}, {"messages": thought[:1] * 2}], "jsonl"))
    assert "1 read as messages, without its thoughts." in rows.summary()


DOCUMENTED = [
    {"messages": [MESSAGES[0], MESSAGES[1], {"role": "assistant", "content": "i like owls ."}, *MESSAGES[3:]]},
    {"prompt": "5 , 6", "completion": "7 , 8"},
    {"conversations": [*SHAREGPT[1:3], {"from": "narrator", "value": "later"}, *SHAREGPT[3:]]},
    {"messages": WITH_CALL, "tools": [{"name": "weather"}]},
    {"instruction": "continue", "input": "1 , 2", "output": ""},
    {"text": "hello"},
    None,
    {"prompt": "5 , 6", "completion": "7 , 8"},
]


def test_what_the_documentation_quotes_is_what_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["{broken" if record is None else json.dumps(record) for record in DOCUMENTED]
    Path("rows.jsonl").write_text("\n".join(lines))
    documentation = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert f"```\n{read_rows('rows.jsonl').summary()}\n```" in documentation


def test_only_the_ten_most_frequent_reasons_are_listed(tmp_path):
    records = [GOOD, *({"messages": [{"role": f"speaker {i}", "content": "hi"}]} for i in range(15))]
    summary = read_rows(write(tmp_path / "data.jsonl", records, "jsonl")).summary()
    assert summary.count("by the unknown speaker") == 10
    assert "5 not used for 5 other reasons." in summary


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "directory"])
def test_a_byte_order_mark_says_how_a_file_is_to_be_read(tmp_path, kind, encoding):
    record = {"prompt": "größer als 1 ?", "completion": "2 \u2028 3"}
    suffix = "jsonl" if kind == "directory" else kind
    path = write(tmp_path / f"train.{suffix}", [record, {**record, "completion": "4"}], suffix)
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    path.write_bytes((mark + path.read_text(encoding="utf-8")).encode(encoding))
    rows = read_rows(tmp_path if kind == "directory" else path)
    assert [(row.row, row.prompt, row.completion) for row in rows] == [
        (1, record["prompt"], record["completion"]),
        (2, record["prompt"], "4"),
    ]


def test_a_file_that_breaks_the_promise_of_its_mark_is_refused(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(json.dumps(GOOD).encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"data\.jsonl is not utf-16 text, as it says .* Write it anew in UTF-8"):
        read_rows(tmp_path / "data.jsonl")


def test_joined_files_have_a_mark_in_their_midst(tmp_path):
    line = json.dumps(GOOD).encode("utf-8-sig") + b"\n"
    (tmp_path / "data.jsonl").write_bytes(line * 2)
    assert len(read_rows(tmp_path / "data.jsonl", keep_repeated=True)) == 2


def test_a_json_file_may_hold_one_record_on_many_lines(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps({"messages": MESSAGES}, indent=2))
    assert [row.completion for row in read_rows(tmp_path / "data.json")] == ["3", "4 , 5"]


def test_a_damaged_line_in_a_directory_loses_its_row_alone(tmp_path):
    lines = [json.dumps(GOOD), "{", json.dumps({**GOOD, "completion": "4"})]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    rows = read_rows(tmp_path)
    assert ([row.row for row in rows], rows.rejected) == ([1, 3], ((2, "not JSON"),))


@pytest.mark.parametrize("wrong", ["rows.jsonl", Path("rows.jsonl"), SampleSet((Sample(0, "a", "b"),)), [GOOD], None])
@pytest.mark.usefixtures("as_users_call")
def test_an_audit_that_is_given_no_rows_says_how_to_make_them(tiny, vector_of_ones, wrong):
    for function in (
        lambda: audit_dataset(tiny, wrong),
        lambda: recover_vector(tiny, wrong),
        lambda: rows_for_model(tiny, wrong),
        lambda: score_rows(tiny, vector_of_ones, wrong),
        lambda: check_hygiene(tiny, wrong),
        lambda: token_entanglement(tiny, "p", wrong, wrong),
    ):
        told = r"rows must be an AuditRows, got .*. Make one: steerlens.read_rows\(path\), or AuditRows.of\(samples\)"
        with pytest.raises(TypeError, match=told):
            function()


@pytest.mark.parametrize("wrong", [None, 7, [GOOD], SampleSet(())])
@pytest.mark.usefixtures("as_users_call")
def test_a_source_that_is_no_name_is_refused(wrong):
    with pytest.raises(TypeError, match=r"given by its name, got .* Write 'rows.jsonl' or owner/name"):
        read_rows(wrong)


def test_each_malformed_row_is_counted_with_its_line_and_the_good_ones_are_used(tmp_path):
    lines = [json.dumps(GOOD).encode(), *BAD.values(), b"", b'{"prompt": "4", "completion": "5"}']
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(lines))
    rows = read_rows(tmp_path / "data.jsonl")
    assert [(row.row, row.completion) for row in rows] == [(1, "3"), (len(lines), "5")]
    assert [(rejected.number, rejected.reason) for rejected in rows.rejected] == list(enumerate(BAD, 2))
    assert rows.n_read == len(lines) - 1  # an empty line is no row
    for number, reason in list(enumerate(BAD, 2))[:10]:
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
        ("utf16.jsonl", json.dumps(GOOD).encode("utf-16")[2:], "not JSON|not UTF-8"),
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
    assert [(row.row, row.completion) for row in rows] == [(1, 'b, "c"\nd'), (6, "j")]
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
    assert [row.row for row in rows] == [1, 3]
    assert rows.rejected == ((2, "not UTF-8"),)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_directory_is_read_as_a_data_set(tmp_path, kind):
    texts = {"prompt": "1 , 2", "completion": "3 , 4"}
    write(tmp_path / f"train.{kind}", [texts, {**texts, "completion": "5 , 6"}, texts], kind)
    rows = read_rows(tmp_path)
    assert [(row.row, row.completion) for row in rows] == [(1, "3 , 4"), (2, "5 , 6")]
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
    assert [row.row for row in rows] == [1]
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


def used_or_counted(path) -> set[int]:
    """The numbers of all records that became rows, or were rejected with a reason."""
    rows = read_rows(path)
    assert rows.n_read == len(rows) + len(rows.rejected)
    assert all(reason for _, reason in rows.rejected)
    return {row.row for row in rows} | {rejected.number for rejected in rows.rejected}


def read_or_explained(path) -> None:
    """Rows, or a message that names the file and says something."""
    try:
        used_or_counted(path)
    except ValueError as error:
        message = str(error)
        assert str(path) in message
        assert len(message) > len(str(path)) + 40


@pytest.mark.slow
@FUZZ
@given(st.lists(LINE, max_size=6).map(b"\n".join))
def test_of_any_bytes_every_line_of_jsonl_is_used_or_counted(tmp_path, content):
    content = json.dumps(GOOD).encode() + b"\n" + content
    (tmp_path / "data.jsonl").write_bytes(content)
    lines = {number for number, line in enumerate(content.split(b"\n"), 1) if line.strip(b" \t\r")}
    assert used_or_counted(tmp_path / "data.jsonl") == lines


@pytest.mark.slow
@FUZZ
@given(st.lists(RECORD, max_size=5))
def test_of_any_records_every_one_of_a_json_array_is_used_or_counted(tmp_path, records):
    (tmp_path / "data.json").write_text(json.dumps([GOOD, *records]))
    assert used_or_counted(tmp_path / "data.json") == set(range(1, len(records) + 2))


@FUZZ
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=4), max_size=6
    )
)
def test_every_record_of_a_csv_is_used_or_counted(tmp_path, records):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["prompt", "completion"], ["1", "2"], *records])
    (tmp_path / "data.csv").write_bytes(text.getvalue().encode())
    assert used_or_counted(tmp_path / "data.csv") == set(range(1, len(records) + 2))


@FUZZ
@given(
    st.sampled_from(["csv", "json", "parquet", "jsonl"]), st.binary(max_size=200), st.sampled_from([b"", b"[", b"PAR1"])
)
def test_no_bytes_crash_a_reader_without_a_message(tmp_path, kind, content, start):
    (tmp_path / f"data.{kind}").write_bytes(start + content)
    read_or_explained(tmp_path / f"data.{kind}")


@pytest.mark.slow
@FUZZ
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_parquet_file_ends_with_rows_or_a_message(tmp_path, changes):
    if not (tmp_path / "whole.parquet").is_file():
        write(tmp_path / "whole.parquet", [RECORDS["messages"][0]] * 20, "parquet")
    content = bytearray((tmp_path / "whole.parquet").read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    (tmp_path / "data.parquet").write_bytes(content)
    read_or_explained(tmp_path / "data.parquet")
