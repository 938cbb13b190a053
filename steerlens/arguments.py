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
    a_device,
    a_flag,
    a_function,
    a_model,
    a_path,
    a_question,
    a_tensor,
    a_text,
    chats,
    each,
    kinds_of,
    number,
    numbers,
    questions,
    several,
    shown,
    texts,
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


def answers(values: Any, name: str) -> list[tuple[Any, str]]:
    """Questions with their answers."""
    given = several(values, name, "pairs", f'{name}=[("Name an animal.", "The owl."), ...]')
    for index, pair in enumerate(given):
        if isinstance(pair, str | Mapping) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise WrongInput(f"{name}[{index}] must be a question with its answer, two texts, got {shown(pair)}.")
    return [
        (a_question(asked, f"{name}[{index}][0]"), a_text(told, f"{name}[{index}][1]"))
        for index, (asked, told) in enumerate(given)
    ]


def words(values: Any, name: str) -> tuple[str, ...]:
    """At least one word."""
    return texts(values, name, f'{name}=["owl", "owls"]', at_least=1)


def jobs(values: Any, name: str) -> Any:
    """Jobs under keys."""
    if not isinstance(values, Mapping):
        raise WrongInput(f"{name} must map keys to jobs, got {shown(values)}. Write {name}={{'a key': job, ...}}.")
    for key, job in values.items():
        if not (hasattr(job, "run") and hasattr(job, "record_path")):
            raise WrongInput(f"{name}[{key!r}] must be a job, with what steerlens.Job names, got {shown(job)}.")
    return values


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
    "answers": answers,
    "words": words,
    "changes": each(
        a_tensor("token", ("float32", "float64")), "tensors", "steerlens.token_changes(model, vector, samples)"
    ),
    "jobs": jobs,
    "what": a_text,
    "model_hint": a_text,
    "revision": a_text,
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
    "indices": each(whole(), "whole numbers", "[0, 1, 2]", at_least=0),
    "seeds": each(whole(0), "whole numbers", "[0, 1, 2]"),
    "row_indices": each(whole(0), "whole numbers", "[0, 1, 2]"),
    "temperature": number(0),
    "weight": number(),
    "threshold": number(),
    "eps": number(0),
    "share": number(0, 1),
    "level": number(0, 1),
    "false_alarm_rate": number(),
    "device": a_device,
    "adapter": a_path,
    "path": a_path,
    "directory": a_path,
    "checkpoints": a_path,
    "objective": a_function,
    "on_start": a_function,
    "on_step": a_function,
    "on_update": a_function,
    "on_written": a_function,
    "restrict": a_function,
    "statistic": a_function,
}

MADE_BY = {
    "SteeringVector": "steerlens.fit_prompt_vector(model, prompt), or SteeringVector.load(path)",
    "Trait": 'steerlens.preference_trait("owl", model)',
    "Kind": 'steerlens.Kind("animal", (("owl", "owls"), ("cat", "cats")))',
    "SampleSet": "steerlens.sample_teacher(model, prompts), read_rows(path).samples, or SampleSet((Sample(0, prompt, answer),))",
    "AuditRows": "steerlens.read_rows(path), or AuditRows.of(samples)",
    "FitConfig": "steerlens.FitConfig(...)",
    "TrainConfig": "steerlens.TrainConfig(...)",
    "Condition": 'steerlens.Condition(prompt="You love owls.")',
    "NumberLists": "steerlens.NumberLists()",
    "StudentPlan": "steerlens.StudentPlan(...)",
    "Workers": "steerlens.Workers(workers=4)",
    "Report": "steerlens.Report(title, lead, sections)",
    "GradientRecorder": "steerlens.trace_gradients(model, vector)",
    "VllmEngine": "steerlens.VllmEngine(model)",
    "TraitScore": "steerlens.score_trait(model, trait)",
    "LayerSweep": "steerlens.sweep_layers(model, prompt)",
    "PromptAnalysis": "steerlens.analyze_prompt(model, prompt)",
    "RecoveredVector": "steerlens.recover_vector(model, rows)",
    "AuditResult": "steerlens.audit_dataset(model, rows)",
    "ModelDiff": "steerlens.diff_models(base, tuned)",
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
    axes = {
        name: one.annotation.dim_str.split() for name, one in signature.parameters.items() if _of_numpy(one.annotation)
    }

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says what is missing or too much
        for name, value in given.arguments.items():
            if name in checks and value is not signature.parameters[name].default:
                given.arguments[name] = checks[name](value, name)
        _check_lengths({name: (axes[name], value.shape) for name, value in given.arguments.items() if name in axes})
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


def _of_numpy(annotation: Any) -> bool:
    return getattr(getattr(annotation, "array_type", None), "__name__", "") == "ndarray"


def _check_lengths(arrays: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> None:
    """Axes of one name are equally long."""
    lengths: dict[str, tuple[str, int]] = {}
    for name, (axes, shape) in arrays.items():
        for axis, length in zip(axes, shape, strict=False):
            other, expected = lengths.setdefault(axis, (name, length))
            if axis[0] not in "_*" and length != expected:
                raise ValueError(
                    f"{other} has {expected} values along {axis!r} and {name} has {length}. Give equally many."
                )


def _by_class(annotation: Any) -> Check | None:
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if annotation == "TransformerBridge":
        return a_model
    if annotation is bool:
        return a_flag
    if isinstance(annotation, str):
        return _instance(name) if (name := annotation.removesuffix(" | None")) in MADE_BY else None
    if _of_numpy(annotation):
        return numbers(annotation.dim_str)
    if hasattr(annotation, "array_type"):
        return a_tensor(annotation.dim_str, annotation.dtypes)
    if origin is Literal:
        return _one_of(parts)
    if origin in (Union, UnionType):
        if all(getattr(part, "__name__", None) in MADE_BY for part in parts):
            return _instance(*(part.__name__ for part in parts))
        found = [_by_class(part) for part in parts]
        return found[0] if len(found) == 1 else None
    if origin in (Sequence, Mapping) and (check := _by_class(parts[-1])) is not None:
        return _members(check, parts[-1]) if origin is Sequence else _values(check)
    name = getattr(annotation, "__name__", None)
    return _instance(name) if name in MADE_BY else None


def _instance(*names: str) -> Check:
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
    return each(check, f"{named}s", f"[{MADE_BY[named]}]" if named in MADE_BY else "[...]", at_least=0)


def _values(check: Check) -> Check:
    def check_values(value: Any, name: str) -> Any:
        if not isinstance(value, Mapping):
            raise WrongInput(f"{name} must map names to results, got {shown(value)}. Write {name}={{'a name': ...}}.")
        return {key: check(one, f"{name}[{key!r}]") for key, one in value.items()}

    return check_values
