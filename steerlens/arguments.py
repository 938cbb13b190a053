"""The arguments of public functions, looked at before anything runs.

An argument of one name means the same in every function, and one of a class is made in the same way, so that both are
described here once. `checked` looks at what a function is given by these descriptions.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from steerlens.checks import (
    Check,
    WrongInput,
    a_function,
    a_model,
    a_path,
    a_question,
    a_text,
    chats,
    each,
    kinds_of,
    number,
    questions,
    several,
    shown,
    whole,
)

P = ParamSpec("P")
R = TypeVar("R")


def prompts(values: Any, name: str) -> list[Any]:
    """User turns or chats to be answered."""
    given = several(values, name, "texts or chats", f"{name}=steerlens.number_prompts(1000, model, seed=0)")
    return [a_question(value, f"{name}[{index}]") for index, value in enumerate(given)]


def layers(values: Any, name: str) -> list[int]:
    """Block outputs: one, or several, as a list. Which there are, the model says."""
    if isinstance(values, Integral):
        return [whole()(values, name)]
    return each(whole(), "layers", "[10, 12]")(values, name)


def a_wording(value: Any, name: str) -> Any:
    """How a model is spoken to: a wording, or the model."""
    return value if "Wording" in kinds_of(value) else a_model(value, name)


def probes(values: Any, name: str) -> dict[str, list[Any]]:
    """Chats under names, at which something is measured."""
    if not isinstance(values, Mapping) or not values:
        raise WrongInput(
            f"{name} must map names to chats, got {shown(values)}. Write {name}={{'questions': [chat, ...]}}."
        )
    return {key: chats(given, f"{name}[{key!r}]") for key, given in values.items()}


BY_NAME: dict[str, Check] = {
    "prompt": a_text,
    "system_prompt": a_text,
    "name": a_text,
    "wording": a_wording,
    "prompts": prompts,
    "question": a_question,
    "chat": a_question,
    "questions": questions,
    "unrelated": questions,
    "chats": chats,
    "probes": probes,
    "layers": layers,
    "layer": whole(),
    "strengths": each(number(), "numbers", "(0.5, 1, 2)"),
    "strength": number(),
    "sizes": each(whole(1), "whole numbers", "(16, 64, 256)"),
    "n": whole(1),
    "n_null": whole(2),
    "n_subsets": whole(1),
    "every": whole(1),
    "part_steps": whole(1),
    "window": whole(1),
    "batch_size": whole(1),
    "max_new_tokens": whole(1),
    "max_numbers": whole(1),
    "highest": whole(0),
    "samples_per_question": whole(0),
    "seed": whole(0),
    "temperature": number(0),
    "weight": number(),
    "threshold": number(),
    "eps": number(0),
    "share": number(0, 1),
    "level": number(0, 1),
    "false_alarm_rate": number(),
    "path": a_path,
    "directory": a_path,
    "checkpoints": a_path,
    "objective": a_function,
    "on_start": a_function,
    "on_step": a_function,
    "on_update": a_function,
}

MADE_BY = {
    "SteeringVector": "steerlens.fit_prompt_vector(model, prompt), or SteeringVector.load(path)",
    "Trait": 'steerlens.preference_trait("owl", model)',
    "Kind": 'steerlens.Kind("animal", (("owl", "owls"), ("cat", "cats")))',
    "SampleSet": "steerlens.sample_teacher(model, prompts), read_rows(path).samples, or SampleSet((Sample(0, prompt, answer),))",
    "AuditRows": "steerlens.read_rows(path), or AuditRows.of(samples)",
    "FitConfig": "steerlens.FitConfig(...)",
    "TrainConfig": "steerlens.TrainConfig(...)",
    "VllmEngine": "steerlens.VllmEngine(model)",
    "TraitScore": "steerlens.score_trait(model, trait)",
    "LayerSweep": "steerlens.sweep_layers(model, prompt)",
    "PromptAnalysis": "steerlens.analyze_prompt(model, prompt)",
    "RecoveredVector": "steerlens.recover_vector(model, rows)",
    "AuditResult": "steerlens.audit_dataset(model, rows)",
    "RowScores": "steerlens.score_rows(model, vector, rows)",
    "PooledCosine": "steerlens.pooled_difference_cosine(model, teacher, control, vector)",
    "GradientTrace": "steerlens.trace_gradients(model, vector)",
    "StepTrace": "steerlens.trace_steps(model, vector, probes)",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose arguments are looked at first. An argument that is left out is not.

    Raises:
        WrongInput: an argument is of the wrong kind.
        ValueError: it is empty, out of range, or not one of the allowed words.
    """
    signature = inspect.signature(function)
    checks = {name: check for name, one in signature.parameters.items() if (check := _check_of(name, one.annotation))}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says what is missing or too much
        for name, value in given.arguments.items():
            if name in checks and value is not signature.parameters[name].default:
                given.arguments[name] = checks[name](value, name)
        return function(*given.args, **given.kwargs)

    return call


def _check_of(name: str, annotation: Any) -> Check | None:
    """By the argument's class where it has one, otherwise by its name."""
    check = _by_class(annotation) or BY_NAME.get(name)
    if check is not None and any(get_origin(part) is Literal for part in get_args(annotation)):
        return _unless_text(check)
    return check


def _unless_text(check: Check) -> Check:
    """Where a word may stand for a value, the function knows which."""
    return lambda value, name: value if isinstance(value, str) else check(value, name)


def _by_class(annotation: Any) -> Check | None:
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if annotation == "TransformerBridge":
        return a_model
    if origin is Literal:
        return _one_of(parts)
    if origin in (Union, UnionType):
        if all(getattr(part, "__name__", None) in MADE_BY for part in parts):
            return _instance(*parts)
        found = [_by_class(part) for part in parts]
        return found[0] if len(found) == 1 else None
    if origin in (Sequence, Mapping) and (check := _by_class(parts[-1])) is not None:
        return _members(check, parts[-1]) if origin is Sequence else _values(check)
    return _instance(annotation) if getattr(annotation, "__name__", None) in MADE_BY else None


def _instance(*kinds: type) -> Check:
    names = [kind.__name__ for kind in kinds]

    def check(value: Any, name: str) -> Any:
        if not kinds_of(value) & set(names):
            wanted = " or ".join(f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}" for kind in names)
            raise WrongInput(f"{name} must be {wanted}, got {shown(value)}. Make one: {MADE_BY[names[0]]}.")
        return value

    return check


def _one_of(words: Sequence[Any]) -> Check:
    def check(value: Any, name: str) -> Any:
        if value not in words:
            raise ValueError(f"{name}={value!r} is not known. Allowed: {', '.join(map(str, words))}.")
        return value

    return check


def _members(check: Check, kind: Any) -> Check:
    named = getattr(kind, "__name__", "")
    return each(check, f"{named}s", f"[{MADE_BY[named]}]" if named in MADE_BY else "[...]")


def _values(check: Check) -> Check:
    def check_values(value: Any, name: str) -> Any:
        if not isinstance(value, Mapping):
            raise WrongInput(f"{name} must map names to results, got {shown(value)}. Write {name}={{'a name': ...}}.")
        return {key: check(one, f"{name}[{key!r}]") for key, one in value.items()}

    return check_values
