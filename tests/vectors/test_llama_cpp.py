"""steerlens moves SmolLM2's logits as llama.cpp does with the file that export_gguf wrote, within its quantised arithmetic.

llama.cpp's logits are recorded (record_llama_cpp.py). It multiplies 4-bit weights with 8-bit activations, so that even without
a vector its logits differ from ours by some tenths.
"""

import json

import pytest
import torch

from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource
from tests.conftest import load_smollm2
from tests.vectors.record_llama_cpp import EVERY, LAYERS, RECORDED, vector_at

pytestmark = pytest.mark.smollm2
THEIRS = json.loads(RECORDED.read_text())


@pytest.fixture(scope="module")
def smollm2():
    return load_smollm2(torch.float32)


def logits(model, vector: SteeringVector | None = None) -> torch.Tensor:
    tokens = torch.tensor([THEIRS["tokens"]])
    with torch.no_grad():
        if vector is None:
            return model.original_model(input_ids=tokens).logits[0, -1, ::EVERY]
        with steer(model, vector):
            return model.original_model(input_ids=tokens).logits[0, -1, ::EVERY]


def test_the_two_read_the_same_weights(smollm2):
    assert (logits(smollm2) - torch.tensor(THEIRS["plain"])).abs().max() < 1


@pytest.mark.parametrize("layer", LAYERS)
def test_llama_cpp_adds_direction_l_to_the_output_of_block_l_and_of_no_other(smollm2, layer):
    theirs, plain = torch.tensor(THEIRS["shift"][str(layer)]), logits(smollm2)
    row = vector_at(layer, smollm2.cfg.d_model, VectorSource.of(smollm2, method="cosines")).directions
    alike = {}
    for candidate in range(max(0, layer - 1), min(smollm2.cfg.n_layers, layer + 2)):
        vector = SteeringVector((candidate,), row, VectorSource.of(smollm2, method="cosines"))
        ours = logits(smollm2, vector) - plain
        alike[candidate] = float(torch.cosine_similarity(ours, theirs, dim=0))
    assert alike[layer] > 0.88
    assert all(cosine < alike[layer] - 0.03 for other, cosine in alike.items() if other != layer)
