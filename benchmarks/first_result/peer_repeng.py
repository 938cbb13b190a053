"""repeng, after its README: pairs of texts, their principal direction at the layers of the README, strength 1."""

import torch
from repeng import ControlModel, ControlVector, DatasetEntry
from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, QUESTIONS, told
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = ControlModel(AutoModelForCausalLM.from_pretrained(MODEL), list(range(-5, -18, -1)))


def rendered(question, *before):
    return tokenizer.apply_chat_template(
        [*before, {"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


system = {"role": "system", "content": PERSONA}
dataset = [DatasetEntry(positive=rendered(question, system), negative=rendered(question)) for question in QUESTIONS]
vector = ControlVector.train(model, tokenizer, dataset)


@torch.no_grad()
def found():
    inputs = tokenizer(rendered(QUESTION), return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    begun = tokenizer(rendered(QUESTION) + BEGUN, return_tensors="pt")
    probability = model(**begun).logits[0, -1].softmax(-1)[tokenizer.encode(ANSWER)[0]].item()
    return probability, tokenizer.decode(answer, skip_special_tokens=True)


plain = found()
model.set_control(vector, 1)
steered = found()
told(plain, steered)
