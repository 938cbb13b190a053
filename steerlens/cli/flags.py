"""What commands share: flags, and what they mean."""

import argparse
import dataclasses
import inspect
import re
import shlex
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from steerlens.files import text_encoding
from steerlens.vectors.config import FitConfig

DATA = "jsonl, json, csv or parquet, a directory of them, or a Hub data set owner/name"

HOLDS, FAILS = 0, 3
"""Exit codes: every claim holds, or one does not."""


def command(commands: Any, name: str, action: Any, summary: str) -> argparse.ArgumentParser:
    """A command that calls `action` with its options."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(action=action)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """The flags of commands that load a model; `load` reads them."""
    parser.add_argument("--model", help="directory, GGUF file, Hub name, or smollm2-135m (default: the organism)")
    parser.add_argument("--adapter", type=Path, help="peft adapter to load onto it")
    add_loading(parser)


def add_loading(parser: argparse.ArgumentParser) -> None:
    """The flags that say how models are loaded and spoken to."""
    parser.add_argument(
        "--plain-text", action="store_true", help="join the texts of a chat without a chat template, for base models"
    )
    parser.add_argument("--chat-template", help="name of one of several chat templates that the tokenizer has")
    parser.add_argument(
        "--system-in-user",
        action="store_true",
        help="let the system text begin the first user turn, for Gemma 2 or Mistral",
    )
    parser.add_argument(
        "--close-thought",
        action="store_true",
        help="let the answer begin behind an empty thought, for models whose template opens one, as DeepSeek R1's",
    )
    parser.add_argument("--device-map", help="auto spreads the model over all GPUs, then the CPU's memory")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, help="of the weights (default: the checkpoint's own)")
    parser.add_argument("--load-in-4bit", action="store_true", help="weights in NF4 by bitsandbytes; --dtype computes")


def add_fit(parser: argparse.ArgumentParser) -> None:
    """The flags of commands that fit a vector."""
    parser.add_argument("--questions", type=Path, help="text file, one question a line (default: number tasks)")
    add_model(parser)
    add_fields(parser, FitConfig, {"fit": FitConfig()})


def add_fields(
    parser: argparse.ArgumentParser,
    config: type,
    presets: Mapping[str, Any],
    skip: set[str] = frozenset(),  # pyright: ignore[reportArgumentType]
) -> None:
    """One flag for every field of a config dataclass; a flag that is not given keeps the config's value.

    Help says what the dataclass's docstring does, and the value in each of the presets.
    """
    types, words = typing.get_type_hints(config), described(config)
    for field in dataclasses.fields(config):
        if field.name in skip:
            continue
        kind, default = types[field.name], _default({name: getattr(one, field.name) for name, one in presets.items()})
        flag, text = "--" + field.name.replace("_", "-"), words[field.name].rstrip(".").replace("%", "%%")
        shown = f"{text} ({default})"
        if typing.get_origin(kind) is tuple:
            parser.add_argument(flag, nargs="+", type=typing.get_args(kind)[0], default=None, help=shown)
        elif typing.get_origin(kind) is typing.Literal:
            parser.add_argument(flag, choices=typing.get_args(kind), default=None, help=shown)
        elif type(None) in typing.get_args(kind):
            inner = typing.get_args(kind)[0]
            shown = f"{text} ({inner.__name__}, or none; {default})"
            parser.add_argument(flag, type=_or_none(inner), default=None, help=shown)
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=shown)
        else:
            parser.add_argument(flag, type=kind, default=None, help=shown)


def described(config: type) -> dict[str, str]:
    """What the "Args:" sections of a dataclass and of those that it extends say of each field."""
    words = {}
    for one in reversed(config.__mro__):
        section = inspect.cleandoc(one.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        for names, text in re.findall(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            words |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return words


def _default(values: Mapping[str, Any]) -> str:
    """A field's value in every preset, as it would be typed; once where all agree."""
    typed = {name: _typed(value).replace("%", "%%") for name, value in values.items()}
    if not typed:
        return "default: each experiment's own"
    if len(set(typed.values())) == 1:
        return f"default: {next(iter(typed.values()))}"
    return "default: " + "; ".join(f"{value} in {name}" for name, value in typed.items())


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return shlex.join(map(str, value)) or "none given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return "none" if text == "none" else kind(text)

    return parse


def given(options: argparse.Namespace, config: Any) -> Any:
    """`config` with the flags that were given."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(options, field.name, None)
        if value is not None:
            changes[field.name] = None if value == "none" else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(config, **changes)


def layers_named(given: list[str]) -> Any:
    """What `--layers` names."""
    if given in (["best"], ["all"]):
        return given[0]
    try:
        return [int(layer) for layer in given]
    except ValueError as error:
        raise ValueError(f"--layers {' '.join(given)}: allowed are best, all, or numbers of blocks.") from error


def questions_in(path: Path | None, what: str = "question") -> list[str] | None:
    """The lines of the file that `--questions` or `--prompts` names."""
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"There is no {what}s file {path}. Give a text file with one {what} a line.")
    try:
        lines = [line.strip() for line in path.read_text(encoding=text_encoding(path)).splitlines()]
    except UnicodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error}). Give one {what} a line.") from error
    if not any(lines):
        raise ValueError(f"{path} has no {what}s. Write one {what} a line.")
    return [line for line in lines if line]


def load(options: argparse.Namespace) -> Any:
    """The model that the flags of `add_model` name."""
    import torch

    from steerlens.models.loading import load_model

    model = load_model(
        options.model,
        adapter=options.adapter,
        dtype=None if options.dtype is None else getattr(torch, options.dtype),
        load_in_4bit=options.load_in_4bit,
        device_map=options.device_map,
    )
    _set_template(model.tokenizer, options)
    return model


def _set_template(tokenizer: Any, options: argparse.Namespace) -> None:
    from steerlens.text import templates

    if options.chat_template is not None:
        templates.choose_template(tokenizer, options.chat_template)
    if options.plain_text:
        tokenizer.chat_template = templates.PLAIN_TEXT_TEMPLATE
    if options.system_in_user:
        tokenizer.chat_template = templates.SYSTEM_IN_USER_TURN + templates.template_of(tokenizer)
    if options.close_thought:
        templates.close_thought(tokenizer)


TRAIT = "such as owl, blue, pizza, oak, or a JSON file with a trait of your own"


def add_begun(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that ask a trait's questions; `trait_in` reads it."""
    parser.add_argument(
        "--begin-reply",
        action="store_true",
        help='begin the replies to a built-in trait ("My favorite animal is the"), for models that answer in sentences',
    )


def trait_in(options: argparse.Namespace, model: Any) -> Any:
    """The built-in trait of this name, in the model's wording, or the one in this file."""
    from steerlens.text.trait import preference_trait, read_trait

    if options.trait is None:
        return None
    if not options.trait.endswith(".json"):
        return preference_trait(options.trait, model, begun=options.begin_reply)
    if options.begin_reply:
        raise ValueError(
            "--begin-reply begins the replies to built-in traits. Write reply_prefix into the file instead."
        )
    return read_trait(options.trait)
