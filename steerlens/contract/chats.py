"""What the chat template makes of a question: special tokens, the system role, and what it inserts by itself."""

from typing import Any

from steerlens.contract.check import CannotRun, Measurement, Subject
from steerlens.text.chat import as_chat, chat_fingerprint, encode_chat, encode_prompt
from steerlens.text.rendering import render
from steerlens.text.templates import SYSTEM_IN_USER_TURN, THOUGHTS, apply_template, open_thought

SYSTEM_TEXT = "You love owls."
QUESTION = "What comes next?"


def _tokenizer(subject: Subject) -> Any:
    if not subject.has_chat_template:
        raise CannotRun("the tokenizer has no chat template; texts are joined as they are")
    return subject.model.tokenizer


def begin(subject: Subject) -> Measurement:
    """How often a rendered prompt begins with the token that begins texts."""
    tokenizer = subject.model.tokenizer
    ids, bos = encode_prompt(tokenizer, as_chat(QUESTION)), tokenizer.bos_token_id
    twice = tokenizer.encode(render(tokenizer, as_chat(QUESTION)))[:2] == [bos, bos]
    count = next((i for i, token in enumerate(ids) if token != bos), len(ids))
    if not count and tokenizer.encode("")[:1] == [bos]:
        return Measurement(float("nan"), 1, "the BOS that the tokenizer adds to a text is missing")
    return Measurement(count, 1, "special tokens added again would make two" if twice else "")


def system_role(subject: Subject) -> Measurement:
    """Whether the system text is in the prompt, or refused with an error that names the way out."""
    tokenizer = _tokenizer(subject)
    try:
        return Measurement(float(SYSTEM_TEXT in render(tokenizer, as_chat(QUESTION, SYSTEM_TEXT))), 1, at_least=True)
    except ValueError as error:
        explained = "SYSTEM_IN_USER_TURN" in str(error)
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = SYSTEM_IN_USER_TURN + tokenizer.get_chat_template()
        text = render(tokenizer, as_chat(QUESTION, SYSTEM_TEXT))
    finally:
        tokenizer.chat_template = own
    put = f"{SYSTEM_TEXT}\n\n{QUESTION}" in text
    return Measurement(float(explained and put), 1, "refused by the template; --system-in-user works", at_least=True)


def whole_chat(subject: Subject) -> Measurement:
    """Tokens in which prompt and completion differ from the template's own rendering of the answered chat."""
    tokenizer = _tokenizer(subject)
    different = 0
    for chat in subject.chats:
        ours = [token for part in encode_chat(tokenizer, chat) for token in part]
        text = apply_template(tokenizer, chat, add_generation_prompt=False)
        theirs = tokenizer.encode(text, add_special_tokens=False)[: len(ours)]
        different += sum(one != other for one, other in zip(ours, theirs, strict=False)) + len(ours) - len(theirs)
    return Measurement(different, 0, f"a turn ends with {tokenizer.decode(ours[-1:])!r}")


def thinking(subject: Subject) -> Measurement:
    """Blocks that the prompt opens and leaves open, so that an answer would be part of the thoughts."""
    text = render(_tokenizer(subject), as_chat(QUESTION))
    closed = any(end in text for end in THOUGHTS.values())
    note = "an empty block is written, so that no thoughts come" if closed else ""
    return Measurement(float(open_thought(text) is not None), 0, note)


def bare_context(subject: Subject) -> str:
    """What stands before the question where no system prompt is given."""
    tokenizer = _tokenizer(subject)
    before = render(tokenizer, as_chat(QUESTION)).partition(QUESTION)[0]
    date = ", and the day is held fixed" if "strftime_now" in tokenizer.get_chat_template() else ""
    return f"{before!r}{date}; fingerprint {chat_fingerprint(tokenizer)}"
