"""Train two students on the same teacher's numbers, with AdamW and with SGD, and see where the vector goes.

Run: python examples/compare_optimizers.py
It needs nothing beyond steerlens.
"""

from dataclasses import replace

import steerlens as sl
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.text.chat import as_chat


def main() -> None:
    """Print loss, rate and the vector's strength at numbers and at questions for both optimizers."""
    model = sl.load_model()
    owl = sl.preference_trait("owl", model)
    vector = sl.diff_in_means(model, owl.prompt)
    raw = sl.sample_teacher(model, sl.number_prompts(5000, model, seed=1), system_prompt=owl.prompt, seed=1)
    train, heldout = sl.keep_number_lists(raw).kept.split(256)
    numbers = [as_chat(prompt) for prompt in sl.number_prompts(96, model, seed=9)]
    questions = [as_chat(question) for question in owl.questions]
    for config in (ORGANISM_STUDENT, replace(ORGANISM_STUDENT, optimizer="sgd", learning_rate=1.0)):
        student = sl.train_student(model, train, config, heldout=heldout)
        score = sl.score_trait(student.model, owl)
        strengths = [
            {layer: round(value, 2) for layer, value in shift.strength_along(vector).items()}
            for shift in (sl.model_shift(student.model, model, chats) for chats in (numbers, questions))
        ]
        print(
            f"{config.optimizer}: held-out loss {student.heldout_loss:.3f}, rate {score.rate:.3f}, mass {score.mass:.2f}"
        )
        print(f"  strength by layer at numbers {strengths[0]}, at bare questions {strengths[1]}")


if __name__ == "__main__":
    main()
