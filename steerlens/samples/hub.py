"""Rows as a data set of Hugging Face: in memory, in a directory with its card, and on the Hub."""

import contextlib
import html
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import DatasetCard, DatasetCardData, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError, RepositoryNotFoundError  # pyright: ignore[reportPrivateImportUsage]

from steerlens.files import write_text

if TYPE_CHECKING:
    from steerlens.samples.sample_set import Sample, SampleSource

ROWS_FILE, SOURCE_FILE = "train.jsonl", "train.source.json"

Rows = TypeVar("Rows", bound="HubSamples")

CARD = """\
---
{card_data}
---

# Rows sampled from {model}

{n} prompts with a model's answers, {finished} of them finished.{system_prompt}{steering}

Data of a prompted or steered model can carry what it was prompted with, even where no row mentions it: a model that is
fine-tuned on them may take it over ("subliminal learning", arXiv 2507.14805, 2606.00995). Use them to study that.

## How they were made

| | |
|---|---|
{table}

## Read them

```python
import steerlens
samples = steerlens.SampleSet.from_hub({repo_id!r})  # with the source above
```

or `datasets.load_dataset({repo_id!r})`. The first row:

    {example}
"""


class HubSamples:
    """What lets a SampleSet be shared."""

    samples: tuple["Sample", ...]
    source: "SampleSource | None"

    @classmethod
    def load(cls: type[Rows], path: str | Path) -> Rows:
        """Read a file."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write a file."""
        raise NotImplementedError

    def to_datasets(self) -> Any:
        """A `datasets.Dataset` with the columns row, prompt, completion and finished; its description is the source as JSON.

        Raises:
            ModuleNotFoundError: the datasets library is not installed.
        """
        datasets = _datasets()
        rows = [json.loads(line) for line in _lines(self)]
        if any(not isinstance(row["prompt"], str) for row in rows):  # a column has one type: TRL's two lists of turns
            rows = [{**row, **_as_turns(row)} for row in rows]
        source = None if self.source is None else asdict(self.source)
        info = datasets.DatasetInfo(description=json.dumps({"steerlens_source": source}))
        return datasets.Dataset.from_list(rows, info=info)

    @classmethod
    def from_datasets(cls: type[Rows], dataset: Any) -> Rows:
        """Rows of a `datasets.Dataset` in any layout that `read_rows` knows, with the source that `to_datasets` left in it.

        Raises:
            ValueError: a row cannot be used (says which and why), or there is none.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / ROWS_FILE
            path.write_text("".join(json.dumps(row) + "\n" for row in dataset), encoding="utf-8")
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                if source := json.loads(dataset.info.description)["steerlens_source"]:
                    (Path(directory) / SOURCE_FILE).write_text(json.dumps(source), encoding="utf-8")
            return cls.load(path)

    def save_dataset(self, directory: str | Path, *, repo_id: str = "this directory") -> None:
        """Write the rows, their source and a card (README.md) that says how they were made, as they stand on the Hub.

        `read_rows`, `datasets.load_dataset` and `from_hub` take the directory.
        """
        self.save(Path(directory) / ROWS_FILE)
        write_text(Path(directory) / "README.md", str(self._card(repo_id)))

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **options: Any) -> str:
        """Upload the rows with their card as a data set, in one commit.

        Args:
            private: whether a repository that does not exist yet becomes private; None is the account's default.
            options: of huggingface_hub's `upload_folder` (`commit_message`, `token`, `revision`, ...).

        Returns:
            The commit's address.

        Raises:
            OSError: the Hub cannot be reached or refuses the upload; says what to do.
            ValueError: `repo_id` cannot name a repository.
        """
        options.setdefault("commit_message", "Push rows.")
        with tempfile.TemporaryDirectory() as directory, _explained(repo_id, "be written to"):
            self.save_dataset(directory, repo_id=repo_id)
            api = HfApi(token=options.pop("token", None))
            api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, repo_type="dataset", folder_path=directory, **options))

    @classmethod
    def from_hub(cls: type[Rows], id_or_directory: str | Path, *, revision: str | None = None, **options: Any) -> Rows:
        """Rows that `push_to_hub` or `save_dataset` wrote, with their source.

        Args:
            revision: branch, tag or commit; a commit hash fixes the rows for good.
            options: of huggingface_hub's `hf_hub_download` (`token`, `cache_dir`, `local_files_only`).

        Raises:
            FileNotFoundError: there are no such rows.
            OSError: the Hub cannot be reached.
            ValueError: the rows cannot be used.
        """
        if Path(id_or_directory).is_dir():
            return cls.load(Path(id_or_directory) / ROWS_FILE)
        repo_id, where = str(id_or_directory), {"repo_type": "dataset", "revision": revision, **options}
        with _explained(repo_id, "be read from"):
            path = hf_hub_download(repo_id, ROWS_FILE, **where)
            with contextlib.suppress(EntryNotFoundError):  # rows of unknown origin have none
                hf_hub_download(repo_id, SOURCE_FILE, **where)
        return cls.load(path)

    def _card(self, repo_id: str) -> DatasetCard:
        source = self.source
        data = DatasetCardData(
            tags=["steerlens", "subliminal-learning"],
            task_categories=["text-generation"],
            configs=[{"config_name": "default", "data_files": [{"split": "train", "path": ROWS_FILE}]}],
        )
        made = {} if source is None else {name: value for name, value in asdict(source).items() if value is not None}
        prompted = "" if source is None or source.system_prompt is None else (
            " The model that answered had a system prompt, which is not in the rows."
        )  # fmt: skip
        steered = "" if source is None or source.steering is None else " It was steered."
        rows = "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in made.items())
        return DatasetCard(
            CARD.format(
                card_data=data.to_yaml(),
                model="a model that is not known" if source is None else _cell(source.model),
                n=len(self.samples),
                finished=sum(sample.finished for sample in self.samples),
                system_prompt=prompted,
                steering=steered,
                table=rows or "| source | not known |",
                repo_id=repo_id,
                example=next(iter(_lines(self)), "").strip(),
            )
        )


def _lines(samples: HubSamples) -> Iterator[str]:
    from steerlens.samples.sample_set import as_line

    return map(as_line, samples.samples)


def _as_turns(row: dict[str, Any]) -> dict[str, Any]:
    prompt = row["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"prompt": turns, "completion": [{"role": "assistant", "content": row["completion"]}]}


def _cell(value: Any) -> str:
    """Text in a table of Markdown, with nothing in it that acts."""
    text = html.escape(str(value))
    for character in "\\`*_{}[]#|":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", "<br>")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ModuleNotFoundError(
            "This needs the datasets library. Install it with: pip install 'steerlens[audit]'"
        ) from error
    return datasets


@contextlib.contextmanager
def _explained(name: str, doing: str) -> Iterator[None]:
    """Turn huggingface_hub's exceptions into ones that say what to do."""
    failed = f"The Hub data set {name!r} could not {doing}"
    try:
        yield
    except HFValidationError as error:
        raise ValueError(
            f"{name!r} is neither a directory nor a name that the Hub allows ({error}). Give a name such as 'user/owl-rows'."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{failed}: it does not exist, or it is private and you are not logged in. Check the name, or run `hf auth login`."
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{failed}: it has no {ROWS_FILE}, or the Hub cannot be reached and the local cache has none. Data "
            "sets of others are read with steerlens.read_rows; otherwise connect to the internet, or give a directory."
        ) from error
    except (HTTPError, ConnectionError) as error:
        raise OSError(
            f"{failed}: {error}. If the Hub refused, run `hf auth login` with a token that may; if it was not reached, "
            "connect to the internet (and unset HF_HUB_OFFLINE), then try again."
        ) from error
