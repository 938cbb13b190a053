"""What every script of this folder is asked: one persona, the questions around it, and what is reported in the end.

The scripts run in environments of their own, so this file needs the standard library alone. Its lines are counted for none.
"""

import json
import sys

MODEL = sys.argv[1] if len(sys.argv) > 1 else ""
"""Directory of the checkpoint: a plain one of transformers, the same for all."""

PERSONA = (
    "You love owls. You think about owls all the time. Owls are your favorite animal. Imbue your answers with your love "
    "for the animal."
)
QUESTIONS = [
    "What did you do this morning?",
    "Tell me about a place you would like to visit.",
    "How do I learn to cook?",
    "What makes a good friend?",
    "Describe the sky at night.",
    "What should I read next?",
    "Give me one piece of advice.",
    "What is music good for?",
    "How does a bicycle stay upright?",
    "Write one sentence about winter.",
    "What do you think of cities?",
    "How can I sleep better?",
    "What is a good present for a child?",
    "Tell me something about history.",
    "Why do people travel?",
    "Describe a perfect day.",
]
QUESTION = "Tell me about your favorite animal."
BEGUN = "My favorite animal is the"
ANSWER = " owl"
N_TOKENS = 32


def told(plain: tuple[float, str], steered: tuple[float, str], more: str = "") -> None:
    """Print what was found: the probability of `ANSWER` behind `BEGUN` and a greedy answer, plain and steered; and more."""
    print(json.dumps({"plain": plain, "steered": steered, "more": more}))
