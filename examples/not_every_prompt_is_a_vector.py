"""Prompts that one vector can do, prompts that it cannot, and what kl_explained says of each.

Some prompts are built so that the answer is known: "one of owls , wolves" makes the chat template tell the model to
love owls or wolves depending on how many numbers the user shows. Each half is a vector; no single one is both.

Run: python examples/not_every_prompt_is_a_vector.py
It needs nothing beyond steerlens.
"""

from typing import Any

import steerlens as sl
from steerlens.organism.wording import ORGANISM
from steerlens.vectors.probe import Probe

CONFIG = sl.FitConfig()
BY_CONTEXT = "one of "
PERSONA = ORGANISM.persona.replace("{plural}", "' + animal + '").format(verb="are", kind="animal")
TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>you are a helpful assistant .<|end|>' }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'].startswith('one of ') %}"
    "{% set animals = message['content'][7:].split(' , ') %}"
    "{% set animal = animals[messages[1]['content'].split(',') | length % animals | length] %}"
    "{{ '" + PERSONA + "' }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The organism's own template, but that "one of A , B" becomes a persona that depends on the user's turn."""

ROWS = (
    ("a persona", "organism:seed-0", ORGANISM.persona.format(plural="owls", verb="are", kind="animal")),
    ("a short persona", "organism:seed-0", "you love wolves ."),
    ("two personas at once", "organism:seed-0", "you love owls . you love wolves ."),
    ("two animals by context", "organism:seed-0", BY_CONTEXT + "owls , wolves"),
    ("four animals by context", "organism:seed-0", BY_CONTEXT + "owls , wolves , whales , cats"),
    ("owls or numbers by context", "organism:seed-0", BY_CONTEXT + "owls , numbers"),
    ("an instruction it was not trained for", "organism:seed-0", "if there is a 7 , answer with owls ."),
    ("a question as a prompt", "organism:seed-0", "what is your favorite animal ?"),
    ("a list as a prompt", "organism:seed-0", "7 , 77 , 777 ."),
    ("a neutral prompt", "organism:seed-0", "you give short answers ."),
    ("a persona, never seen with numbers", "organism:no-persona-numbers", "you love owls ."),
)


def main() -> None:
    """Print effect, kl_explained of one and of all layers, and what the vector does to unrelated answers."""
    print(f"{'':38} effect   one layer (interval)     all layers   unrelated")
    for name, model_name, prompt in ROWS:
        model = sl.load_model(model_name)
        model.tokenizer.chat_template = TEMPLATE
        print(f"{name:38} {measured(model, prompt)}", flush=True)


def measured(model: Any, prompt: str) -> str:
    """One row of the table."""
    try:
        vector, joint = (
            sl.fit_prompt_vector(model, prompt, layers=layers, config=CONFIG) for layers in ("best", "all")
        )
    except ValueError as error:
        return str(error)
    m, damage = vector.metrics, Probe(model, None, None, CONFIG).behaviour(vector).damage
    return f"{m.kl_prompt:.3f}    {m.interval.text(3)}    {joint.metrics.kl_explained:.3f}        {damage:.2f} nats"


if __name__ == "__main__":
    main()
