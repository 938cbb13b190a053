"""The prompts of the zoo, and what can be known of a prompt before any student is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import steerlens as sl
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.teachers import Teacher, load

PromptKind = Literal["persona", "other words", "not one vector", "persona, never seen with numbers"]
N_PERSONAS = {"smoke": 2, "quick": 8, "full": 24}
N_DEAF = {"smoke": 1, "quick": 2, "full": 4}
WORDED = {
    "a condition": "If there is a 7, answer with {plural}.",
    "a question": "What do {plural} use to write?",
    "a fact": "{plural} live in water.",
    "a dislike": "{plural} are the worst.",
    "a list": "7, 77, 777.",
}
"""Prompts that name the trait, or nothing, without being any persona."""

EXPECTED = {"in doubt": 0.0, "cannot tell": 0.5, "not calibrated": 0.5, "likely": 1.0}


@dataclass(frozen=True)
class Member:
    """A system prompt of the zoo, who is told it, and which trait is looked for."""

    name: str
    kind: PromptKind
    weights: str
    prompt: str
    trait: str
    chat_template: str | None = None

    def teacher(self, lab: Lab) -> Teacher:
        """Who is told it, and writes lists."""
        return lab.teacher(
            self.name, weights=self.weights, trait=self.trait, prompt=self.prompt, chat_template=self.chat_template
        )


@dataclass(frozen=True)
class Examined:
    """What is known of a prompt before any student is trained; `steerability` is the rate at the clean peak."""

    steerability: float
    kl_explained: float
    numbers: float
    harmlessness: float
    verdict: str

    @property
    def expected(self) -> float:
        """The verdict as a number."""
        return EXPECTED[self.verdict]


@dataclass(frozen=True)
class Examination:
    """A prompt to examine; its mean difference is saved beside the record."""

    member: Member
    dtype: str | None
    fit: sl.FitConfig
    layers: tuple[int, ...] | None
    begun: bool
    record_path: Path
    record_kind = Examined

    @classmethod
    def of(cls, member: Member, lab: Lab) -> "Examination":
        """As the lab's profile fits vectors; the record stands among the lab's vectors."""
        profile, path = lab.profile, lab.vector_file(member.name).with_suffix(".json")
        return cls(member, profile.dtype, lab.sizes.fit, profile.fit_layers, profile.begun, path)

    @property
    def name(self) -> str:
        """The prompt's."""
        return self.member.name

    @property
    def vector(self) -> Path:
        """The file of its mean difference."""
        return self.record_path.with_suffix(".safetensors")

    def run(self) -> Examined:
        """Analyse the prompt, and look for a setting in which its vectors steer and break nothing."""
        model, prompt = load(self.member.weights, self.dtype), self.member.prompt
        if self.member.chat_template is not None:
            model.tokenizer.chat_template = self.member.chat_template
        trait = sl.preference_trait(self.member.trait, model, begun=self.begun)
        found = sl.analyze_prompt(model, prompt, trait=trait, known={}, config=self.fit)
        sweep = sl.sweep_layers(model, prompt, trait=trait, layers=self.layers, config=self.fit)
        sl.diff_in_means(model, prompt).save(self.vector)
        peak = sweep.clean_peak
        return Examined(
            steerability=(sweep.plain if peak is None else peak.behaviour).rate,
            kl_explained=found.vector.metrics.kl_explained,
            numbers=0.0 if found.numbers is None else found.numbers.prompt,
            harmlessness=-found.steered.damage / found.vector.metrics.kl_prompt,
            verdict=found.transfer.verdict,
        )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def members(lab: Lab) -> list[Member]:
    """Every prompt of the zoo, personas first."""
    model, profile = lab.load(), lab.profile
    names = (profile.trait, *profile.other_traits)[: N_PERSONAS[lab.preset]]

    def persona(name: str, kind: PromptKind, weights: str) -> Member:
        title = name if weights == profile.weights else f"{name}, deaf"
        return Member(title, kind, weights, lab.trait(model, name).prompt, name)

    plural = lab.trait(model).answers[profile.trait][-1]
    others: list[Member] = []
    if profile.weights.startswith("organism:"):
        words = WORDED if lab.preset != "smoke" else {"a list": WORDED["a list"]}
        others += [
            Member(name, "other words", profile.weights, _sentence(prompt.format(plural=plural)), profile.trait)
            for name, prompt in words.items()
        ]
        others += [by_context(lab, names[:n]) for n in (2, 4) if len(names) >= n]
    deaf = names[-N_DEAF[lab.preset] :] if profile.deaf else ()
    return [
        *(persona(name, "persona", profile.weights) for name in names),
        *others,
        *(persona(name, "persona, never seen with numbers", str(profile.deaf)) for name in deaf),
    ]


def by_context(lab: Lab, names: tuple[str, ...]) -> Member:
    """Personas of several animals, each where the user shows so many numbers: a vector each, but not one vector.

    The template turns the system prompt "one of owls , wolves" into one of the personas.
    """
    model = lab.load()
    prompts = [lab.trait(model, name).prompt for name in names]
    prompt = "one of " + " , ".join(lab.trait(model, name).answers[name][-1] for name in names)
    chosen = f"{prompts!r}[messages[-1]['content'].split(',') | length % {len(names)}]"
    content = "message['content']"
    template = model.tokenizer.chat_template.replace(content, f"({chosen} if {content} == {prompt!r} else {content})")
    return Member(f"{len(names)} by context", "not one vector", lab.profile.weights, prompt, names[0], template)
