"""steering-vectors, after its docs (basic usage): pairs of texts, a mean difference, applied at the same layer."""

import torch
from steering_vectors import train_steering_vector
from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, QUESTIONS, told
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)


def rendered(question, *before):
    return tokenizer.apply_chat_template(
        [*before, {"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


system = {"role": "system", "content": PERSONA}
training_samples = [(rendered(question, system), rendered(question)) for question in QUESTIONS]
steering_vector = train_steering_vector(
    model, tokenizer, training_samples, layers=[model.config.num_hidden_layers // 2]
)


@torch.no_grad()
def found():
    inputs = tokenizer(rendered(QUESTION), return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    begun = tokenizer(rendered(QUESTION) + BEGUN, return_tensors="pt")
    probability = model(**begun).logits[0, -1].softmax(-1)[tokenizer.encode(ANSWER)[0]].item()
    return probability, tokenizer.decode(answer, skip_special_tokens=True)


plain = found()
with steering_vector.apply(model):
    steered = found()
told(plain, steered)
