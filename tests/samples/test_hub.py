"""Rows come back from the datasets library, a directory and the Hub as they went, with how they were made."""

import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from steerlens.samples import hub
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource

datasets = pytest.importorskip("datasets")

SOURCE = SampleSource("llama", "abc", "you love owls .\n| `x` <b>", "owl vector | 2", 1.0, 7, max_new_tokens=32)


@pytest.fixture
def rows() -> SampleSet:
    samples = [Sample(i, f"continue 1 , {i} . ü", f"2 , {i}", finished=i != 2) for i in range(4)]
    return SampleSet(tuple(samples), SOURCE)


def test_a_dataset_has_the_columns_and_comes_back_with_its_source(rows, tmp_path):
    dataset = rows.to_datasets()
    assert dataset["prompt"][1] == "continue 1 , 1 . ü"
    assert dataset["finished"][2] is False
    assert SampleSet.from_datasets(dataset) == rows
    dataset.save_to_disk(tmp_path / "data")
    assert SampleSet.from_datasets(datasets.load_from_disk(tmp_path / "data")) == rows


def test_data_sets_of_others_have_no_source_and_their_bad_rows_are_named():
    other = datasets.Dataset.from_list([{"prompt": "a", "completion": "b"}])
    assert SampleSet.from_datasets(other).source is None
    with pytest.raises(ValueError, match="line 1"):
        SampleSet.from_datasets(datasets.Dataset.from_list([{"text": "a"}]))


def test_a_directory_is_read_by_datasets_and_by_us(rows, tmp_path):
    rows.save_dataset(tmp_path / "rows")
    assert SampleSet.from_hub(tmp_path / "rows") == rows
    loaded = datasets.load_dataset(str(tmp_path / "rows"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["completion"] == [sample.completion for sample in rows]


def test_the_card_says_how_the_rows_were_made_and_escapes_it(rows, tmp_path):
    rows.save_dataset(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "4 prompts with a model's answers, 3 of them finished." in card
    for said in ("| temperature | 1.0 |", "| max new tokens | 32 |", "had a system prompt", "It was steered."):
        assert said in card
    assert "<b>" not in card
    assert r"you love owls .<br>\| \`x\` &lt;b&gt;" in card
    SampleSet(rows.samples).save_dataset(tmp_path / "unknown")
    assert "| source | not known |" in (tmp_path / "unknown" / "README.md").read_text()


class Hub:
    """A Hub that is a directory."""

    def __init__(self, root: Path):
        self.root = root

    def __call__(self, **_options) -> "Hub":
        return self

    def create_repo(self, repo_id: str, **options) -> None:
        (self.root / repo_id).mkdir(parents=True)
        self.created = options

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str, **_options) -> str:
        for path in Path(folder_path).iterdir():
            (self.root / repo_id / path.name).write_bytes(path.read_bytes())
        return f"commit: {commit_message}"

    def download(self, repo_id: str, name: str, **_options) -> str:
        path = self.root / repo_id / name
        if not path.parent.is_dir():
            import httpx

            response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
            raise RepositoryNotFoundError("404", response=response)
        if not path.is_file():
            raise huggingface_hub.errors.EntryNotFoundError(f"404: {name}")
        return str(path)


@pytest.fixture
def local_hub(tmp_path, monkeypatch) -> Hub:
    there = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub, "HfApi", there)
    monkeypatch.setattr(hub, "hf_hub_download", there.download)
    return there


@pytest.mark.parametrize("source", [SOURCE, None])
def test_what_is_pushed_is_what_is_read(rows, local_hub, source):
    pushed = SampleSet(rows.samples, source)
    assert pushed.push_to_hub("user/owls", private=True) == "commit: Push rows."
    assert local_hub.created["private"] is True
    assert local_hub.created["repo_type"] == "dataset"
    assert SampleSet.from_hub("user/owls") == pushed


def test_names_that_are_not_there_are_refused_with_a_remedy(local_hub):
    with pytest.raises(FileNotFoundError, match=r"'user/none' could not be read from.*hf auth login"):
        SampleSet.from_hub("user/none")


def test_without_datasets_the_extra_is_named(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"steerlens\[audit\]"):
        rows.to_datasets()
