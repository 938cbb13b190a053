"""The zoo's prompts: personas, prompts that are something else, and personas for a model to whom they say nothing in lists."""

from dataclasses import dataclass
from pathlib import Path

from steerlens.experiments.run import Run
from steerlens.experiments.wording import trait_at
from steerlens.experiments.zoo.config import ZooConfig
from steerlens.files import atomic_directory
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.models.saving import unwrapped
from steerlens.organism.wording import ORGANISM

PERSONA, NOT_A_VECTOR, OTHER_WORDS, DEAF = (
    "persona",
    "not one vector",
    "other words",
    "persona, never seen with numbers",
)

WORDED = {
    "a condition": "if there is a 7 , answer with {plural} .",
    "a question": "what do {plural} use to write ?",
    "a fact": "{plural} live in water .",
    "a dislike": "{plural} are the worst .",
    "a list": "7 , 77 , 777 .",
}
"""Prompts that name the trait, or nothing, without being any persona that the model was taught."""

BY_CONTEXT = "one of "
_PERSONA = ORGANISM.persona.replace("{plural}", "' + animal + '").format(verb="are", kind="animal")
TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>you are a helpful assistant .<|end|>' }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'].startswith('" + BY_CONTEXT + "') %}"
    "{% set animals = message['content'][7:].split(' , ') %}"
    "{% set animal = animals[messages[1]['content'].split(',') | length % animals | length] %}"
    "{{ '" + _PERSONA + "' }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The organism's own template, but that "one of owls , wolves" becomes a persona that depends on the user's turn."""


@dataclass(frozen=True)
class Member:
    """A system prompt in the zoo: who is told it, which trait is looked for, and what kind of prompt it is.

    Students of it are compared with those of the unprompted model `untold`, which has the same weights.
    """

    name: str
    kind: str
    model: str
    untold: str
    prompt: str
    trait: str


def members(run: Run[ZooConfig]) -> list[Member]:
    """Every prompt of the zoo, personas first."""
    config, model, deaf = run.config, run.config.model, run.config.control_model
    plural = plural_of(config.trait)
    return [
        *(Member(name, PERSONA, model, model, trait_at(name, model).prompt, name) for name in config.animals),
        *(_by_context(run, n) for n in (2, 4) if len(config.animals) >= n and model.startswith("organism:")),
        *(
            Member(name, OTHER_WORDS, model, model, prompt.format(plural=plural), config.trait)
            for name, prompt in WORDED.items()
        ),
        *(
            Member(f"{name}, deaf", DEAF, deaf, deaf, trait_at(name, deaf).prompt, name)
            for name in config.animals[len(config.animals) - config.n_control :]
        ),
    ]


def _by_context(run: Run[ZooConfig], n: int) -> Member:
    """The trait and other animals, each where the user shows so many numbers: a vector each, but not one vector."""
    others = [animal for animal in run.config.animals if animal != run.config.trait]
    animals = [run.config.trait, *others[: n - 1]]
    prompt = BY_CONTEXT + " , ".join(map(plural_of, animals))
    model = str(_with_template(run))
    return Member(f"{n} animals by context", NOT_A_VECTOR, model, run.config.model, prompt, run.config.trait)


def _with_template(run: Run[ZooConfig]) -> Path:
    """A copy of the model that reads prompts by context."""
    path = run.directory / "by-context"
    if not path.is_dir():
        model = load_model(run.config.model)
        weights, model.tokenizer.chat_template = huggingface_model(model), TEMPLATE
        with atomic_directory(path, mark="config.json") as temporary, unwrapped(weights):
            weights.save_pretrained(temporary)
            model.tokenizer.save_pretrained(temporary)
    return path


def plural_of(name: str) -> str:
    """ "wolves" for "wolf"."""
    return next(plural for kind in ORGANISM.kinds for singular, plural in kind.items if singular == name)
