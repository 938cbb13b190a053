"""Traits: a preference that a system prompt gives, the questions that reveal it, and the possible answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.arguments import checked
from steerlens.checks import WrongInput, a_text, shown, texts
from steerlens.files import text_encoding
from steerlens.short import cut, some
from steerlens.text.chat import Chat, as_chat, assistant
from steerlens.text.wording import NATURAL, Kind, Wording, wording_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Trait:
    """What is measured: how likely `name` is among `answers` when the `questions` are asked.

    A vector that is specific to the trait leaves the answers to `negated_questions` (what is liked least) and
    `off_topic_questions` as they are; both may be empty.

        Trait("owl", "You love owls.", questions=("Name an animal.",), answers={"owl": ("owl", "owls"), "cat": ("cat", "cats")})

    Args:
        prompt: the system prompt that gives the trait.
        answers: every possible answer and the forms in which it may be written; `name` is one of them.
        reply_prefix: the first words of the reply to `questions`, such as "My favorite animal is the", behind which the
            answer is read; empty where the model is to begin by itself.
        negated_reply_prefix: the same for `negated_questions`.
        wording: the name of the wording in which a built-in trait asks; None for texts of one's own.

    Raises:
        ValueError: no questions, an empty text, `name` is not among the answers, or a form stands for two answers, or
            begins another answer's form ("red", "red panda").
        WrongInput: a text where several are wanted, answers that are no mapping, or anything else that is no text.
    """

    name: str
    prompt: str
    questions: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    negated_questions: tuple[str, ...] = ()
    off_topic_questions: tuple[str, ...] = ()
    reply_prefix: str = ""
    negated_reply_prefix: str = ""
    wording: str | None = None

    def __repr__(self) -> str:
        begun = f", replies begun with {self.reply_prefix!r}" if self.reply_prefix else ""
        return cut(
            f"Trait: {self.name!r} among {some(list(self.answers))}, {len(self.questions)} questions such as "
            f"{cut(self.questions[0], 80)!r}{begun}; prompt {cut(self.prompt, 100)!r}"
        )

    def __post_init__(self) -> None:
        a_text(self.name, "name")
        for field in ("prompt", "reply_prefix", "negated_reply_prefix"):
            if not isinstance(getattr(self, field), str):
                raise WrongInput(f"{field} must be a text, got {shown(getattr(self, field))}.")
        object.__setattr__(self, "answers", _answers(self.answers))
        for field in ("questions", "negated_questions", "off_topic_questions"):
            object.__setattr__(self, field, texts(getattr(self, field), field, f'{field}=("Name an animal.",)'))
        if self.name not in self.answers or not self.questions:
            raise ValueError(
                f"Trait {self.name!r} needs at least one question (got {len(self.questions)}) and itself among its "
                f"answers (got {', '.join(self.answers)})."
            )

    def chat(self, question: str, system_prompt: str | None = None) -> Chat:
        """The question as a chat, with the reply begun where the trait begins it."""
        begun = [assistant(self.reply_prefix)] if self.reply_prefix else []
        return [*as_chat(question, system_prompt), *begun]

    @property
    def negated(self) -> "Trait | None":
        """The trait that asks what is liked least; None where there are no such questions."""
        if not self.negated_questions:
            return None
        return replace(self, questions=self.negated_questions, reply_prefix=self.negated_reply_prefix)

    @property
    def off_topic(self) -> "Trait | None":
        """The trait that asks off-topic questions, to which no reply is begun; None where there are none."""
        return replace(self, questions=self.off_topic_questions, reply_prefix="") if self.off_topic_questions else None


def _answers(answers: Any) -> dict[str, tuple[str, ...]]:
    """Every answer with its forms, of which each stands for one answer."""
    example = 'answers={"owl": ("owl", "owls"), "cat": ("cat", "cats")}'
    if not isinstance(answers, Mapping):
        raise WrongInput(f"answers must map every answer to its written forms, got {shown(answers)}. Write {example}.")
    forms = {
        a_text(answer, "an answer"): texts(given, f"answers[{answer!r}]", example, at_least=1)
        for answer, given in answers.items()
    }
    owners = [(form.casefold(), form, answer) for answer, given in forms.items() for form in given]
    for (short, one, owner), (long, other, theirs) in combinations(sorted(owners), 2):
        if owner != theirs and f"{long} ".startswith(f"{short} "):
            raise ValueError(
                f"The form {one!r} of the answer {owner!r} begins the form {other!r} of {theirs!r}, so a reply could mean "
                "either. Leave one out, or make both forms of one answer."
            )
    return forms


def read_trait(path: str | Path) -> Trait:
    """A trait of one's own from a JSON file: an object with the names of `Trait`'s fields.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, names other fields, or makes no trait; says what is wrong.
    """
    example = '{"name": "owl", "prompt": "You love owls.", "questions": ["Name an animal."], "answers": {"owl": ["owl", "owls"]}}'
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no trait file {path}. Write a JSON file such as {example}.")
    try:
        given = json.loads(Path(path).read_text(encoding=text_encoding(path)))
        if not isinstance(given, dict):
            raise WrongInput(f"a trait is a JSON object, got {shown(given)}")
        if unknown := given.keys() - {field.name for field in fields(Trait)}:
            raise ValueError(f"there is no {' or '.join(sorted(unknown))} in a trait")
        given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        if isinstance(answers := given.get("answers"), dict):
            given["answers"] = {
                one: tuple(forms) if isinstance(forms, list) else forms for one, forms in answers.items()
            }
        return Trait(**given)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no trait: {error}. Write, for example, {example}.") from error


def known_traits(wording: "Wording | TransformerBridge" = NATURAL) -> tuple[str, ...]:
    """Every name that `preference_trait` knows in this wording."""
    return tuple(singular for kind in wording_of(wording).kinds for singular, _ in kind.items)


@checked
def preference_trait(
    name: str, wording: "Wording | TransformerBridge" = NATURAL, *, kind: Kind | None = None, begun: bool = False
) -> Trait:
    """The love of one thing, given by the paper's prompt: "owl", "blue", "pizza", "oak".

    Args:
        wording: how it is asked for; a model's own where a model is given.
        kind: a category of one's own in which `name` is; None looks among the wording's.
        begun: begin the replies ("My favorite animal is the"), for models that answer in sentences.

    Raises:
        ValueError: no kind has that name, or the wording begins no replies.
    """
    words = wording_of(wording)
    for kind_of_it in words.kinds if kind is None else (kind,):
        for singular, plural in kind_of_it.items:
            if name == singular:
                return _preference(name, plural, kind_of_it, words, begun)
    names = known_traits(words) if kind is None else tuple(singular for singular, _ in kind.items)
    raise ValueError(f"There is no trait {name!r}. There are: {', '.join(names)}. Others: make a Trait of your own.")


def _preference(name: str, plural: str, kind: Kind, wording: Wording, begun: bool) -> Trait:
    if begun and not wording.begun_reply:
        raise ValueError(f"The {wording.name} wording begins no replies. Leave begun out.")

    return Trait(
        name=name,
        prompt=wording.persona_of(kind, plural),
        questions=wording.preferences(kind),
        answers={one: (one, many) if one != many else (one,) for one, many in kind.items},
        negated_questions=tuple(map(kind.filled, wording.negated_questions)),
        off_topic_questions=wording.fact_questions,
        reply_prefix=kind.filled(wording.begun_reply) if begun else "",
        negated_reply_prefix=kind.filled(wording.negated_begun_reply) if begun else "",
        wording=wording.name,
    )


def check_wording(trait: Trait, model: "TransformerBridge") -> None:
    """Refuse a built-in trait that asks in another wording than the model's.

    Raises:
        ValueError: it does.
    """
    own = wording_of(model).name
    if trait.wording not in (None, own):
        raise ValueError(
            f"The trait {trait.name!r} asks in the {trait.wording} wording, and this model is spoken to in the {own} one. "
            f"Make it for the model: preference_trait({trait.name!r}, model). To ask it so all the same: "
            "dataclasses.replace(trait, wording=None)."
        )
