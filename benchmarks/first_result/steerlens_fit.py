"""The vector that does most of what the prompt does, by steerlens, as notebook 09 fits it: with controls, on held-out rows."""

from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, told

import steerlens as sl

model = sl.load_model(MODEL)
config = sl.FitConfig(n_train=24, n_validation=12, n_heldout=24, max_new_tokens=12, batch_size=8)
middle, questions = model.cfg.n_layers // 2, sl.NATURAL.open_questions
vector = sl.fit_prompt_vector(model, PERSONA, layers=middle, questions=questions, config=config)
owl = sl.Trait("owl", PERSONA, questions=(QUESTION,), answers={"owl": (ANSWER,)}, reply_prefix=BEGUN)


def found():
    answer = sl.generate(model, [sl.as_chat(QUESTION)], max_new_tokens=N_TOKENS, temperature=0)[0]
    return sl.score_trait(model, owl).mass, model.tokenizer.decode(answer, skip_special_tokens=True)


plain = found()
with sl.steer(model, vector):
    steered = found()
told(plain, steered, vector.summary())
