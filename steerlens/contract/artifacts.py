"""What is kept: a student's adapter, and a vector's file that acts on its own model only."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from steerlens.contract.check import ANSWERS, CannotRun, Measurement, Subject, largest_difference
from steerlens.contract.parity import samples
from steerlens.contract.steering import random_vector
from steerlens.forward import forward
from steerlens.models.bridge import bridge
from steerlens.models.identity import model_name
from steerlens.models.unwrapping import weight_sharing_copy
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.vector import SteeringVector

TRAIN = TrainConfig(rank=2, learning_rate=1e-2, epochs=2, batch_size=len(ANSWERS))


def student(subject: Subject) -> Measurement:
    """Trained for two steps, saved, and put onto the plain model by peft."""
    from peft import PeftModel

    if subject.adapter is not None:
        raise CannotRun("the model already carries an adapter; a student is made from a model without one")
    trained = train_student(subject.model, samples(subject), TRAIN)
    with tempfile.TemporaryDirectory() as directory:
        trained.save(directory)
        loaded = PeftModel.from_pretrained(weight_sharing_copy(subject.model), directory).eval()
    mask = subject.batch.attention_mask
    with torch.no_grad():
        ours, base = (forward(model, subject.batch).logits[mask] for model in (trained.model, subject.model))
        theirs = torch.cat([loaded(input_ids=row).logits[0] for row in subject.singles()])
    moved = largest_difference(base, ours)
    if moved <= subject.rounding:
        raise CannotRun("two steps of training change nothing in this model")
    return Measurement(largest_difference(ours, theirs), subject.rounding, f"training moved them by {moved:.2g}")


def vector_file(subject: Subject) -> Measurement:
    """Directions, source and numbers come back as they were."""
    vector = replace(random_vector(subject, 0), metrics=FitMetrics(kl_explained=0.5))
    with tempfile.TemporaryDirectory() as directory:
        vector.save(Path(directory) / "vector.safetensors")
        loaded = SteeringVector.load(Path(directory) / "vector.safetensors")
    loaded.check_model(subject.model)
    kept = (loaded.layers, loaded.source, loaded.metrics) == (vector.layers, vector.source, vector.metrics)
    difference = float((loaded.directions - vector.directions).abs().max())
    return Measurement(difference if kept else float("inf"), 0.0)


def other_model(subject: Subject) -> Measurement:
    """A copy of the model in which only its smallest parameter differs refuses the vector."""
    vector, other = random_vector(subject, 0), weight_sharing_copy(subject.model)
    own = [item for item in other.named_parameters() if "lora_" not in item[0]]
    name, value = min(own, key=lambda item: item[1].numel())
    parent, _, attribute = name.rpartition(".")
    setattr(other.get_submodule(parent), attribute, nn.Parameter(value.detach() + 1))
    del other.__dict__["weights_fingerprint"]
    try:
        vector.check_model(bridge(other, subject.model.tokenizer, name=model_name(subject.model)))
    except ValueError:
        return Measurement(1.0, 1.0, f"{name} differs", at_least=True)
    return Measurement(0.0, 1.0, f"{name} differs", at_least=True)
