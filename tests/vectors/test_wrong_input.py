"""Wrong arguments are told what they are, what is wanted and how to make it."""

import pytest
import torch

from steerlens.vectors.interventions import steer
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


def vector_for(model) -> SteeringVector:
    return SteeringVector((1,), torch.ones(1, model.cfg.d_model), VectorSource.of(model, method="by hand"))


STEER = {
    "a path": ({"vector": "owl.safetensors"}, r"got 'owl.safetensors' \(str\). Read a file with SteeringVector.load"),
    "a tensor": ({"vector": torch.ones(32)}, r"got a tensor of shape \(32,\). Make one with steerlens.import_tensor"),
    "a dict": (
        {"vector": {"owl": 1}},
        r"vector must be a SteeringVector, or several in a list, got \{'owl': 1\} \(dict\)",
    ),
    "a list of numbers": ({"vector": [1.0]}, r"vector must be a SteeringVector, or several in a list, got \[1.0\]"),
    "no vectors": ({"vector": []}, "Got no vectors. Give at least one"),
    "nothing": ({"vector": None}, r"vector must be a SteeringVector.*got None"),
    "an unknown mode": ({"mode": "ablate"}, r"mode='ablate' is not known. Allowed: add, project_out, replace"),
    "a strength in words": ({"strength": "2"}, r"strength must be a number.*got '2' \(str\)"),
    "a list of strengths": (
        {"strength": [1.0, 2.0]},
        r"strength must be a number, or a tensor.*torch.tensor\(\[0.5, 1.0\]\)",
    ),
    "an infinite strength": ({"strength": float("inf")}, "strength=inf is not a finite number"),
    "no number": ({"strength": float("nan")}, "strength=nan is not a finite number"),
    "integer strengths": ({"strength": torch.tensor([1, 2])}, "one finite float for each prompt, got torch.int64"),
    "strengths a token": (
        {"strength": torch.ones(2, 3)},
        r"float for each prompt, got torch.float32 of shape \(2, 3\)",
    ),
    "a strength of a direction alone": ({"mode": "project_out", "strength": 2.0}, r"uses the vector's direction alone"),
    "an unknown name": (
        {"positions": "last"},
        r"positions='last' is not known. Allowed: all, prompt, last_prompt, generated",
    ),
    "a role": ({"positions": "user"}, r"positions=steerlens.turn_mask\(model, chats, 'user'\)"),
    "places": (
        {"positions": [0, -1]},
        r"positions must be a name \(.*\) or a bool tensor \[prompt, token\], got \[0, -1\]",
    ),
    "a mask of one row": (
        {"positions": torch.ones(4).bool()},
        r"shape \[prompt, token\].*Write mask.bool\(\), and mask\[None\]",
    ),
    "a mask of numbers": ({"positions": torch.ones(1, 4)}, r"got torch.float32 of shape \(1, 4\). Write mask.bool\(\)"),
}


@pytest.mark.parametrize("case", STEER)
def test_steer_refuses(tiny, as_users_call, case):
    options, message = STEER[case]
    with pytest.raises(ValueError, match=message), steer(tiny, **{"vector": vector_for(tiny), **options}):
        pass
