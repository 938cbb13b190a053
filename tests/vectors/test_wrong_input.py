"""Wrong arguments are told what they are, what is wanted and how to make it."""

import pytest
import torch

from steerlens.models.bridge import huggingface_model
from steerlens.vectors.formats import export_gguf, import_gguf, import_paper, import_tensor
from steerlens.vectors.interventions import steer
from steerlens.vectors.show import show_positions
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector, mean_centred


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
    "a bare model": ({"model": "organism"}, r"got str. Load it: steerlens.load_model\('organism'\)"),
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
    with pytest.raises(ValueError, match=message), steer(**{"model": tiny, "vector": vector_for(tiny), **options}):
        pass


SOURCE = VectorSource("model", "by hand")
CONSTRUCTOR = {
    "one layer": (
        (1, torch.ones(1, 8), SOURCE),
        r"layers must be block numbers in a tuple, such as \(12,\), got 1 \(int\)",
    ),
    "layers in words": ((("1",), torch.ones(1, 8), SOURCE), r"layers must be block numbers in a tuple.*got \('1',\)"),
    "a list of numbers": (((1,), [[1.0]], SOURCE), r"directions must be a tensor \[layer, d_model\], got \[\[1.0\]\]"),
    "one direction": (((1,), torch.ones(8), SOURCE), r"shape \(8,\).*write directions\[None\] for a single one"),
    "no layers": (((), torch.ones(0, 8), SOURCE), r"at least one layer"),
    "too many layers": (((1, 2), torch.ones(1, 8), SOURCE), r"layers \(1, 2\) for 1 directions"),
    "a negative layer": (((-1,), torch.ones(1, 8), SOURCE), "0 and up; none is negative"),
    "a name for the source": (
        ((1,), torch.ones(1, 8), "model"),
        r"source must be a VectorSource, got 'model'.*VectorSource.of",
    ),
    "no metrics": (((1,), torch.ones(1, 8), SOURCE, None), "metrics must be a FitMetrics, got None"),
}


@pytest.mark.parametrize("case", CONSTRUCTOR)
def test_a_vector_refuses(as_users_call, case):
    arguments, message = CONSTRUCTOR[case]
    with pytest.raises(ValueError, match=message):
        SteeringVector(*arguments)


ONE = SteeringVector((1, 3), torch.ones(2, 32), SOURCE)
METHODS = {
    "no layer": (lambda _: ONE.at(), r"Got no layer. The vector has layers \(1, 3\); write vector.at\(1\)"),
    "a list of layers": (lambda _: ONE.at([1, 3]), r"no direction at layer \[1, 3\].*Write vector.at\(1, 2\) for several"),
    "a layer in words": (lambda _: ONE.at("1"), "no direction at layer '1'"),
    "an infinite factor": (lambda _: ONE * float("inf"), "cannot be multiplied by inf"),
    "a cosine with a tensor": (lambda _: ONE.cosine(torch.ones(2, 32)), "other vector must be a SteeringVector, got tensor"),
    "along a name": (lambda _: ONE.along("owl"), r"other vector must be a SteeringVector, got 'owl' \(str\)"),
    "for a name": (lambda _: ONE.for_model("organism"), r"got str. Load it: steerlens.load_model\('organism'\)"),
    "a bare model": (lambda tiny: ONE.check_model(huggingface_model(tiny)), "LlamaForCausalLM. Wrap.*steerlens.wrap_model"),
    "vectors in a list": (lambda _: mean_centred([ONE, ONE]), r"vectors must map names to results.*vectors=\{'a name': ...\}"),
    "names for vectors": (lambda _: mean_centred({"owl": "path"}), r"vectors\['owl'\] must be a SteeringVector, got 'path'"),
    "a list for a tensor": (lambda tiny: import_tensor([1.0], tiny), r"tensor must be a torch tensor.*got \[1.0\] \(list\)"),
    "layers as text": (lambda tiny: import_tensor(torch.ones(32), tiny, layers="1"), "layers must be a block number or several"),
    "no model": (lambda _: import_tensor(torch.ones(32), None, layers=1), "what steerlens.load_model returns, got NoneType"),
    "a layer out of range": (lambda tiny: import_tensor(torch.ones(32), tiny, layers=9), r"layers 0\.\.3"),
    "a gguf without model": (lambda _: import_gguf("owl.gguf", 3), "must be what steerlens.load_model returns, got int"),
    "a number for a file": (lambda tiny: import_paper(3, tiny), r"path must be a path, got 3 \(int\)"),
    "a path to export": (lambda _: export_gguf("owl.gguf", "owl"), r"vector must be a SteeringVector, got 'owl.gguf'"),
    "shown places": (lambda tiny: show_positions(tiny, "owls .", 3), r"positions must be a name"),
    "a shown mask of words": (lambda tiny: show_positions(tiny, "the owls .", torch.ones(1, 2).bool()), "The mask has 2 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", METHODS)
def test_methods_and_formats_refuse(tiny, as_users_call, case):
    call, message = METHODS[case]
    with pytest.raises(ValueError, match=message):
        call(tiny)


def test_a_directory_is_told_from_a_vectors_file(tmp_path):
    with pytest.raises(ValueError, match=r"is a directory. Read it with SteeringVector.from_pretrained"):
        SteeringVector.load(tmp_path)
