"""Vectors on the Hugging Face Hub: a directory with one safetensors file and a model card, pushed and read back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx's or httpx2's, by version
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from steerlens.checks import a_path
from steerlens.files import write_json
from steerlens.vectors.source import VectorSource

VECTOR_FILE = "vector.safetensors"

Vector = TypeVar("Vector", bound="HubVector")

CARD = """\
---
{card_data}
---

# Steering vector for {model}

{summary}

## Use it

```python
from steerlens import SteeringVector, generate, load_model, steer

model = load_model({loaded})
vector = SteeringVector.from_pretrained({repo_id!r})
with steer(model, vector):
    generate(model, [[{{"role": "user", "content": "..."}}]], max_new_tokens=50)
```

`{file}` holds one direction a layer, `layer.<l>`, in units of the residual stream. Layer l is the output of block l
(resid_post), counted from 0, without a slot for the embeddings.

| made on | |
|---|---|
{table}
"""


class HubVector(ModelHubMixin, library_name="steerlens", tags=["steering-vector", "interpretability"]):
    """What lets SteeringVector be shared, through huggingface_hub's mixin."""

    _hub_mixin_config: ClassVar[Any] = {"library_name": "steerlens", "file": VECTOR_FILE}
    source: VectorSource

    def save(self, path: str | Path) -> None:
        """Write the vector's file."""
        raise NotImplementedError

    @classmethod
    def load(cls: type[Vector], path: str | Path) -> Vector:
        """Read the vector's file."""
        raise NotImplementedError

    def summary(self) -> str:
        """The vector in words."""
        raise NotImplementedError

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **options: Any) -> str:
        """Upload the vector with its model card, in one commit.

        Args:
            private: whether a repository that does not exist yet becomes private; None is the account's default.
            options: huggingface_hub's own (`commit_message`, `token`, `branch`, ...).

        Returns:
            The commit's address.

        Raises:
            OSError: the Hub cannot be reached or refuses the upload; says what to do.
            ValueError: `repo_id` cannot name a repository.
        """
        options.setdefault("commit_message", "Push a steering vector.")
        with _explained(repo_id, "be written to"):
            return super().push_to_hub(repo_id, private=private, model_card_kwargs={"repo_id": repo_id}, **options)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls: type[Vector], id_or_directory: str | Path, *, revision: str | None = None, **options: Any
    ) -> Vector:
        """Read a vector from the Hub, or from a directory that `save_pretrained` wrote.

        Args:
            revision: branch, tag or commit; a commit hash fixes the vector for good.
            options: huggingface_hub's own (`token`, `cache_dir`, `local_files_only`, `force_download`).

        Raises:
            FileNotFoundError: there is no such directory, repository or revision, or no vector in it.
            OSError: the Hub cannot be reached.
            ValueError: the name cannot be a repository's, or the file is not a steering vector.
        """
        path = Path(a_path(id_or_directory, "id_or_directory"))
        if path.is_dir():
            return cls.load(path / VECTOR_FILE)
        if isinstance(id_or_directory, Path) or str(id_or_directory).startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"There is no directory {str(path)!r}. Give one that save_pretrained() wrote, or a Hub name."
            )
        with _explained(str(id_or_directory), "be read from"):
            return super().from_pretrained(id_or_directory, revision=revision, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / VECTOR_FILE)
        write_json(save_directory / "config.json", self._hub_mixin_config)
        (save_directory / "README.md").unlink(missing_ok=True)  # the mixin keeps an older vector's card otherwise

    @classmethod
    def _from_pretrained(
        cls: type[Vector],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_keys_of_another_librarys_config: Any,
    ) -> Vector:
        path = hf_hub_download(
            model_id,
            VECTOR_FILE,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cls.load(path)

    def generate_model_card(
        self, *_args: Any, repo_id: str = "this repository or its directory", **_: Any
    ) -> ModelCard:
        """The README: what the vector is, how well it does, how to use it."""
        info, source = self._hub_mixin_info.model_card_data, self.source
        base = source.model if source.revision is not None else None  # a local model's name is no Hub address
        data = ModelCardData(library_name=info.library_name, tags=info.tags, base_model=base)
        made_on = {
            "model": source.model,
            "revision": source.revision,
            "weights' fingerprint": source.weights,
            "dtype": source.dtype,
            "layers of the model": source.n_layers,
            "bridge": source.bridge,
            "chat context": source.chat_fingerprint,
            "fitted to act at": None if source.positions is None else f"{source.positions} tokens",
        }
        return ModelCard(
            CARD.format(
                card_data=data.to_yaml(),
                model=source.model,
                loaded=repr(source.model) + (f", revision={source.revision!r}" if base else ""),
                summary=_as_markdown(self.summary()),
                repo_id=repo_id,
                file=VECTOR_FILE,
                table="\n".join(f"| {name} | {value} |" for name, value in made_on.items() if value is not None),
            )
        )


def _as_markdown(text: str) -> str:
    """Plain text, a paragraph a line, with nothing in it that Markdown or HTML would act on."""
    for character in "\\`*_{}[]<>#|":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", "\n\n")


@contextlib.contextmanager
def _explained(name: str, doing: str) -> Iterator[None]:
    """Turn huggingface_hub's exceptions into ones that say what to do."""
    failed = f"The Hub repository {name!r} could not {doing}"
    try:
        yield
    except HFValidationError as error:
        raise ValueError(
            f"{name!r} is neither a directory nor a name that the Hub allows ({error}). "
            "Give a directory, or a Hub name such as 'user/owl-vector'."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{failed}: it does not exist, or it is private and you are not logged in. "
            "Check the name (a directory of that name does not exist either), or run `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{failed}: it has no such revision. Give a branch, a tag or a commit of it."
        ) from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{failed}: the Hub cannot be reached, and the vector is not in the local cache. "
            "Connect to the internet (and unset HF_HUB_OFFLINE), or give a directory."
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{failed}: it has no {VECTOR_FILE}, so it is not a steerlens vector. "
            "Download its file, and read it with steerlens.import_tensor, import_paper or import_gguf."
        ) from error
    except (HTTPError, ConnectionError) as error:
        raise OSError(
            f"{failed}: {error}. If the Hub refused, run `hf auth login` with a token that may; if it was not reached, "
            "connect to the internet (and unset HF_HUB_OFFLINE), then try again."
        ) from error
