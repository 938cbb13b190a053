"""AISteer360, after its notebook on contrastive activation addition: the middle layer, and its default strength."""

import torch
from aisteer360.algorithms.core.internals import ContrastivePairs
from aisteer360.algorithms.core.steering_pipeline import SteeringPipeline
from aisteer360.algorithms.state_control._common.specs import VectorTrainSpec
from aisteer360.algorithms.state_control.caa.control import CAA
from task import ANSWER, BEGUN, MODEL, N_TOKENS, PERSONA, QUESTION, QUESTIONS, told
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(MODEL)


def rendered(question, *before):
    return tokenizer.apply_chat_template(
        [*before, {"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


system = {"role": "system", "content": PERSONA}
pairs = ContrastivePairs(
    positives=[rendered(question, system) for question in QUESTIONS],
    negatives=[rendered(question) for question in QUESTIONS],
)
spec = VectorTrainSpec(method="mean_diff", accumulate="last_token", prompt_format="raw")


@torch.no_grad()
def found(controls):
    pipeline = SteeringPipeline(model_name_or_path=MODEL, controls=controls)
    pipeline.steer()
    inputs = tokenizer(rendered(QUESTION), return_tensors="pt")
    answer = pipeline.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)[0]
    begun = tokenizer(rendered(QUESTION) + BEGUN, return_tensors="pt")["input_ids"]
    probability = pipeline.compute_logprobs(
        input_ids=begun, ref_output_ids=tokenizer(ANSWER, return_tensors="pt")["input_ids"]
    )
    return probability[0, 0].exp().item(), tokenizer.decode(answer, skip_special_tokens=True)


told(found([]), found([CAA(data=pairs, train_spec=spec, layer_id=15, token_scope="all")]))
