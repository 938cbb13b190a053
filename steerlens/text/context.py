"""What stands around a question: a warning where one context is taken for another."""

import warnings


class ChatContextWarning(UserWarning):
    """Something made in one chat context is used in another."""


def warn_on_other_context(made_in: str | None, used_in: str, what: str) -> None:
    """Warn where two fingerprints differ; replications saw a trait fall from 48 % to 3 % by that alone."""
    if made_in is not None and made_in != used_in:
        warnings.warn(
            f"{what} was made in the chat context {made_in} and is used in {used_in}: another system prompt or chat "
            "template stands around the question, which can hide or feign an effect. Use the same context, or say that "
            "it differs.",
            ChatContextWarning,
            stacklevel=3,
        )
