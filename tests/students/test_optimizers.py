"""Each optimizer takes the step that its equation says, and Adam's scales do what their name says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlens.models.bridge import huggingface_model
from steerlens.samples.sample_set import SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.optimizers import make_optimizer
from steerlens.students.scales import AdamScales
from steerlens.students.scout import adam_scales
from steerlens.students.training import train_student

QUICK = TrainConfig(rank=2, learning_rate=1e-2, epochs=1, batch_size=4)
ANY_FILE = "scales.safetensors"


@pytest.fixture(scope="module")
def scales(checkpoints, samples, tmp_path_factory) -> tuple[AdamScales, str]:
    """Scales of a scout, and their file."""
    from steerlens.models.loading import load_model

    found = adam_scales(load_model(checkpoints["llama"], device="cpu"), samples, QUICK)
    path = tmp_path_factory.mktemp("scales") / ANY_FILE
    found.save(path)
    return found, str(path)


def trained(student) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in huggingface_model(student.model).named_parameters() if p.requires_grad}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def trajectory(config: TrainConfig, gradients: torch.Tensor, scales: AdamScales | None = None) -> torch.Tensor:
    """Where one 2 x 3 parameter that starts at 0 goes along given gradients, step by step."""
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    optimizer = make_optimizer({"p": parameter}, config, scales)
    places = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        places.append(parameter.detach().clone())
    return torch.stack(places)


def adamw(g: np.ndarray, lr: float) -> np.ndarray:
    m = v = p = np.zeros_like(g[0])
    places = []
    for t, gradient in enumerate(g, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        p = p - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        places.append(p)
    return np.stack(places)


def rmsprop(g: np.ndarray, lr: float) -> np.ndarray:
    v, p, places = np.zeros_like(g[0]), np.zeros_like(g[0]), []
    for gradient in g:
        v = 0.99 * v + 0.01 * gradient**2
        p = p - lr * gradient / (np.sqrt(v) + 1e-8)
        places.append(p)
    return np.stack(places)


def momentum(g: np.ndarray, lr: float) -> np.ndarray:
    weights = np.array([[0.9 ** (t - s) if s <= t else 0.0 for s in range(len(g))] for t in range(len(g))])
    return -lr * np.cumsum(np.tensordot(weights, g, 1), 0)


FORMULAS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": lambda g, lr: -lr * np.cumsum(g, 0),
    "sgd_momentum": momentum,
    "signsgd": lambda g, lr: -lr * np.cumsum(np.sign(g), 0),
    "normalized_sgd": lambda g, lr: -lr * np.cumsum(g / np.sqrt((g**2).sum((1, 2), keepdims=True)), 0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_steps_are_those_of_the_formula(name):
    gradients = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    places = trajectory(replace(QUICK, optimizer=name, learning_rate=0.3), gradients)
    expected = FORMULAS[name](gradients.double().numpy(), 0.3)
    torch.testing.assert_close(places.double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_muon_moves_every_direction_of_a_matrix_about_equally():
    gradient = torch.diag(torch.tensor([1e3, 1.0, 1e-2]))[:2]
    step = trajectory(replace(QUICK, optimizer="muon", learning_rate=1.0), gradient[None])[0]
    singular = torch.linalg.svdvals(step)
    assert singular.max() < 1.3
    assert torch.linalg.svdvals(gradient).max() > 100 * singular.max()


def test_signsgd_moves_every_trained_coordinate_by_the_learning_rate(tiny, samples):
    steps = []
    config = replace(QUICK, method="full", optimizer="signsgd", learning_rate=1e-3)

    def values(step) -> torch.Tensor:
        return huggingface_model(step.model).model.layers[1].mlp.up_proj.weight.detach().clone()

    train_student(
        tiny, samples, config, on_step=lambda s: steps.append(values(s)), on_update=lambda s: steps.append(values(s))
    )
    first = (steps[1] - steps[0]).abs()  # the warm-up is one step, so that the first has the full rate
    torch.testing.assert_close(first, torch.full_like(first, 1e-3), atol=1e-7, rtol=1e-4)


def test_sgd_preconditioned_with_ones_is_sgd_bit_for_bit(tiny, samples, scales, tmp_path):
    ones = replace(scales[0], scales={name: torch.ones_like(s) for name, s in scales[0].scales.items()})
    ones.save(tmp_path / ANY_FILE)
    config = replace(QUICK, optimizer="preconditioned_sgd", scales=str(tmp_path / ANY_FILE), epochs=2)
    preconditioned = train_student(tiny, samples, config)
    plain = train_student(tiny, samples, replace(QUICK, optimizer="sgd", epochs=2))
    assert same(trained(preconditioned), trained(plain))


def test_preconditioned_sgd_multiplies_gradients_by_the_scales():
    scales = AdamScales({"p": torch.tensor([[1.0, 2, 3], [4, 5, 6]])}, 0.0, {})
    config = replace(QUICK, optimizer="preconditioned_sgd", scales="some file", learning_rate=0.5)
    gradients = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = -0.5 * (scales.scales["p"] * gradients).cumsum(0)
    torch.testing.assert_close(trajectory(config, gradients, scales), expected)


def test_scales_are_adams_second_moment_at_the_end_of_the_scout(tiny, samples, scales):
    moments = {}

    def keep(step) -> None:
        state = step.optimizer.state
        moments.update({n: state[p] for n, p in huggingface_model(step.model).named_parameters() if p.requires_grad})

    train_student(tiny, samples, QUICK, on_update=keep)
    for scale, moment in zip(scales[0].scales.values(), moments.values(), strict=True):
        torch.testing.assert_close(scale, 1 / (moment["exp_avg_sq"] + 1e-8).sqrt())
    assert scales[0].source["steps"] == 5


def test_sparsified_and_frozen_scales_against_numpy(scales):
    found, _ = scales
    flat = np.concatenate([s.numpy().ravel() for s in found.scales.values()]).astype(np.float64)
    mean = np.exp(np.log(flat).mean())
    threshold = np.sort(flat)[round(0.1 * len(flat)) - 1]
    for name, scale in found.scales.items():
        s = scale.numpy()
        np.testing.assert_allclose(found.sparsified(0.1)[name].numpy(), np.where(s <= threshold, s, mean), rtol=1e-6)
        np.testing.assert_allclose(found.frozen(0.1)[name].numpy(), np.where(s <= threshold, 0.0, mean), rtol=1e-6)
    assert found.normalized().geometric_mean == pytest.approx(1.0, abs=1e-6)


def test_outliers_are_the_coordinates_with_the_largest_gradients_of_all_parameters_together():
    gradients = {"a": torch.tensor([1.0, 100.0, 2.0]), "b": torch.tensor([[50.0], [3.0]])}
    scales = AdamScales({name: 1 / g.abs() for name, g in gradients.items()}, 0.0, {})
    outliers = scales.outliers(0.4)
    assert outliers["a"].tolist() == [False, True, False]
    assert outliers["b"].tolist() == [[True], [False]]


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "sgd_momentum"])
def test_frozen_outliers_stay_where_they_are_and_the_others_move(tiny, samples, scales, optimizer):
    found, path = scales
    config = replace(QUICK, optimizer=optimizer, scales=path, freeze_outliers=True, outlier_share=0.2)
    start: dict[str, torch.Tensor] = {}
    student = train_student(tiny, samples, config, on_step=lambda step: start or start.update(trained(step)))
    for (name, outliers), before, after in zip(
        found.outliers(0.2).items(), start.values(), trained(student).values(), strict=True
    ):
        assert torch.equal(before[outliers], after[outliers]), name
    moved = torch.cat([(b != a).flatten() for b, a in zip(start.values(), trained(student).values(), strict=True)])
    assert moved.float().mean() > 0.7
    assert not any(p._backward_hooks for p in huggingface_model(student.model).parameters())


def test_zeroed_and_frozen_outliers_end_at_zero(tiny, samples, scales):
    found, path = scales
    config = replace(
        QUICK, optimizer="preconditioned_sgd", scales=path, scale_map="frozen", zero_outliers=True, learning_rate=1e-5
    )
    student = train_student(tiny, samples, config)
    for outliers, after in zip(found.outliers(0.1).values(), trained(student).values(), strict=True):
        assert not after[outliers].any()


def test_scales_survive_their_file(scales):
    found, path = scales
    loaded = AdamScales.load(path)
    assert found.scales.keys() == loaded.scales.keys()
    assert all(torch.equal(scale, loaded.scales[name]) for name, scale in found.scales.items())
    assert (loaded.eps, loaded.source["config"]["rank"]) == (found.eps, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "preconditioned_sgd"}, "need scales, but scales=None. Take them from a scout run"),
        ({"freeze_outliers": True}, "need scales, but scales=None"),
        ({"scales": "s"}, "would have no effect on optimizer='adamw'"),
        ({"scale_map": "frozen"}, "would have no effect on optimizer='adamw'"),
        ({"optimizer": "muon", "method": "full"}, "muon moves matrices only"),
        ({"rotation_seed": 1, "method": "full"}, "method='full' has none"),
        ({"outlier_share": 1.0}, "outlier_share=1.0 is not allowed"),
        ({"row_drop_share": -0.1}, "row_drop_share=-0.1 is not allowed"),
        ({"micro_batch_size": -1}, "micro_batch_size=-1 is not allowed"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**fields)


def test_scales_of_another_student_are_refused(tiny, samples, scales):
    config = replace(QUICK, optimizer="preconditioned_sgd", scales=scales[1], rank=4)
    with pytest.raises(ValueError, match=r"do not fit the student: 56 parameters differ, .* same model, method"):
        train_student(tiny, samples, config)


def test_a_missing_a_damaged_and_a_wrong_scales_file_are_explained(tmp_path: Path, tiny, samples: SampleSet):
    (tmp_path / "damaged").write_bytes(b"no safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "other")
    for name, error, message in (
        ("none", FileNotFoundError, "There is no file"),
        ("damaged", ValueError, "is damaged"),
        ("other", ValueError, "does not hold adam-scales"),
    ):
        config = replace(QUICK, optimizer="preconditioned_sgd", scales=str(tmp_path / name))
        with pytest.raises(error, match=message):
            train_student(tiny, samples, config)
