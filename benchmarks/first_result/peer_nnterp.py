"""nnterp, after its docs: activations of the last token are collected, and `model.steer` adds their difference in a trace."""

import torch
from nnterp import StandardizedTransformer
from nnterp.nnsight_utils import collect_token_activations_batched
from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, QUESTIONS, told

model = StandardizedTransformer(MODEL)
tokenizer, layer = model.tokenizer, model.num_layers // 2


def rendered(question, *before):
    return tokenizer.apply_chat_template(
        [*before, {"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


system = {"role": "system", "content": PERSONA}
prompted, plain = (
    collect_token_activations_batched(model, [rendered(question, *before) for question in QUESTIONS], 16, [layer])
    for before in ([system], [])
)
vector = (prompted - plain).mean(1)[0]


@torch.no_grad()
def found(factor):
    with model.generate(rendered(QUESTION), max_new_tokens=N_TOKENS, do_sample=False) as tracer:
        with tracer.all():
            model.steer(layers=layer, steering_vector=vector, factor=factor)
        answer = model.generator.output.save()
    with model.trace(rendered(QUESTION) + BEGUN):
        model.steer(layers=layer, steering_vector=vector, factor=factor)
        probabilities = model.next_token_probs.save()
    written = answer[0, len(tokenizer.encode(rendered(QUESTION))) :]
    return probabilities[0, tokenizer.encode(ANSWER)[0]].item(), tokenizer.decode(written, skip_special_tokens=True)


told(found(0), found(1))
