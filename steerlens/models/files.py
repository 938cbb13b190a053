"""What is said of model files that are missing or damaged."""

from collections.abc import Collection
from pathlib import Path

from steerlens.memory import is_out_of_memory


def unusable(source: str, what: str, error: Exception, four_bits_on: object = None) -> Exception:
    """The error that a failed load ends with; short memory is not the files' fault, nor may a device without 4 bits be."""
    if is_out_of_memory(error):
        return error
    reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.') or 'no reason given'}"
    if "weights_only" in reason:  # torch's advice to run a pickle
        reason = "its weights are pickled, with more than tensors among them"
    if four_bits_on is not None:
        return ValueError(
            f"{source!r} could not be loaded in 4 bits on {four_bits_on} ({reason}). Give a device "
            "that bitsandbytes supports and that all of the model fits on, or load the weights as they are."
        )
    return ValueError(
        f"{source!r} could not be loaded as a {what} ({reason}). Its files may be damaged or belong "
        "to another one: get them anew. Code that comes with a model is never run."
    )


def lacks_weights(source: str, missing: Collection[str]) -> ValueError:
    """The error for a checkpoint that leaves weights out, which transformers would draw at random."""
    names = sorted(missing)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ValueError(
        f"{source!r} has no weights for {', '.join(names[:3])}{more}, and random ones would stand in for them. Its files are "
        "incomplete or belong to another model: get them anew."
    )


def require_files(directory: Path, *files: str, what: str) -> None:
    """Refuse a directory that lacks a file.

    Raises:
        FileNotFoundError: there is no such directory, or a file is missing in it.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"There is no directory {str(directory)!r}, where a {what} should be.")
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{str(directory)!r} is not a {what}: {', '.join(missing)} is missing.")
