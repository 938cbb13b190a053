"""The mean difference of residuals, by steerlens: every layer is read, and the middle one is steered."""

from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, QUESTIONS, told

import steerlens as sl

model = sl.load_model(MODEL)
vector = sl.diff_in_means(model, PERSONA, questions=QUESTIONS)
owl = sl.Trait("owl", PERSONA, questions=(QUESTION,), answers={"owl": (ANSWER,)}, reply_prefix=BEGUN)


def found():
    answer = sl.generate(model, [sl.as_chat(QUESTION)], max_new_tokens=N_TOKENS, temperature=0)[0]
    return sl.score_trait(model, owl).mass, model.tokenizer.decode(answer, skip_special_tokens=True)


plain = found()
with sl.steer(model, vector.at(model.cfg.n_layers // 2)):
    steered = found()
told(plain, steered)
