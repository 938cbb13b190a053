"""The vector that does most of what the prompt does, by steerlens, as its README fits it on a real model."""

import steerlens as sl
from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, told

model = sl.load_model(MODEL)
config = sl.FitConfig.of_budget("quick")
vector = sl.fit_prompt_vector(model, PERSONA, questions=sl.NATURAL.open_questions, config=config)
owl = sl.Trait("owl", PERSONA, questions=(QUESTION,), answers={"owl": (ANSWER,)}, reply_prefix=BEGUN)


def found():
    answer = sl.generate(model, [sl.as_chat(QUESTION)], max_new_tokens=N_TOKENS, temperature=0)[0]
    return sl.score_trait(model, owl).mass, model.tokenizer.decode(answer, skip_special_tokens=True)


plain = found()
with sl.steer(model, vector):
    steered = found()
told(plain, steered, vector.summary())
