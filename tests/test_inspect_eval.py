"""Inspect's numbers are score_trait's, its log can be read back, and steering changes what it measures."""

from dataclasses import replace

import pytest
import torch

from steerlens.evaluation import score_trait
from steerlens.text.trait import Trait
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means

pytest.importorskip("inspect_ai")

from inspect_ai import eval as run
from inspect_ai.log import read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import system_message

from steerlens.inspect_eval import inspect_model, trait_task

pytestmark = pytest.mark.filterwarnings("default")  # Inspect's own dependencies warn


@pytest.fixture
def few(owl) -> Trait:
    return replace(owl, questions=owl.questions[:4])


def evaluated(task, model, directory, **options):
    (log,) = run(task, model=model, log_dir=str(directory), display="none", **options)
    assert log.status == "success", log.error
    return log


def metrics(log, scorer: str) -> dict[str, float]:
    """By the name of the value and of the metric."""
    return {
        f"{score.name} {name}": metric.value
        for score in log.results.scores
        if score.scorer == scorer
        for name, metric in score.metrics.items()
    }


def test_the_probability_scorer_gives_score_traits_rate_and_mass(organism, few, tmp_path):
    log = evaluated(trait_task(few), inspect_model(organism, max_tokens=4), tmp_path)
    expected = score_trait(organism, few)
    found = metrics(log, "probability")
    assert found["rate mean"] == pytest.approx(expected.rate, abs=1e-6)
    assert found["mass mean"] == pytest.approx(expected.mass, abs=1e-6)


def test_a_system_message_makes_the_prompted_model(organism, few, tmp_path):
    task = trait_task(few, setup=system_message(few.prompt))
    found = metrics(evaluated(task, inspect_model(organism, max_tokens=4), tmp_path), "probability")
    assert found["rate mean"] == pytest.approx(score_trait(organism, few, system_prompt=few.prompt).rate, abs=1e-6)
    assert found["rate mean"] > 0.5


def test_a_steered_model_is_steered_in_both_scores(organism, few, tmp_path):
    vector = diff_in_means(organism, few.prompt).at(2)
    log = evaluated(
        trait_task(few, epochs=3), inspect_model(organism, vector=vector, strength=3.0, max_tokens=8), tmp_path
    )
    with steer(organism, vector, strength=3.0):
        expected = score_trait(organism, few).rate
    assert metrics(log, "probability")["rate mean"] == pytest.approx(expected, abs=1e-6)
    assert metrics(log, "named")["trait mean"] > score_trait(organism, few).rate


def test_the_log_is_read_back_with_every_question_and_answer(organism, few, tmp_path):
    log = evaluated(trait_task(few, epochs=2), inspect_model(organism, max_tokens=8, seed=3), tmp_path)
    back = read_eval_log(log.location)
    assert sorted({sample.input[0].content for sample in back.samples}) == sorted(few.questions)
    answers = {(sample.id, sample.epoch): sample.output.completion for sample in back.samples}
    assert len(answers) == 8
    again = evaluated(trait_task(few, epochs=2), inspect_model(organism, max_tokens=8, seed=3), tmp_path / "again")
    assert answers == {(sample.id, sample.epoch): sample.output.completion for sample in again.samples}
    assert len(set(answers.values())) > 1


def test_the_named_scorer_takes_the_first_whole_word_of_any_model(few, tmp_path):
    texts = ["I love Owls, not cats.", "Cats! And owls.", "Bowls and growls.", "owl"]
    usage = ModelUsage(input_tokens=1, output_tokens=1)  # or Inspect would download a tokenizer to count them
    outputs = [ModelOutput.from_content("mock", text).model_copy(update={"usage": usage}) for text in texts]
    model = get_model("mockllm/model", custom_outputs=outputs)
    log = evaluated(trait_task(few), model, tmp_path, max_connections=1)
    found = metrics(log, "named")
    assert found["trait mean"] == pytest.approx(0.5)
    assert found["any mean"] == pytest.approx(0.75)


def test_the_provider_loads_a_model_and_a_vector_by_name(organism, few, tmp_path):
    vector = diff_in_means(organism, few.prompt).at(2)
    vector.save(tmp_path / "owl.safetensors")
    model = get_model("steerlens/organism:seed-0", vector=str(tmp_path / "owl.safetensors"), strength=3.0, device="cpu")
    log = evaluated(trait_task(few), model, tmp_path / "logs")
    with steer(organism, vector, strength=3.0):
        expected = score_trait(organism, few).rate
    assert metrics(log, "probability")["rate mean"] == pytest.approx(expected, abs=1e-6)
    assert log.eval.model == "steerlens/organism:seed-0"


def test_a_begun_reply_is_begun_in_both_scores(organism, few, tmp_path):
    begun = replace(few, reply_prefix="my favorite animal is the")
    log = evaluated(trait_task(begun), inspect_model(organism, max_tokens=4, temperature=0.0), tmp_path)
    assert metrics(log, "probability")["rate mean"] == pytest.approx(score_trait(organism, begun).rate, abs=1e-6)


def test_a_vector_of_another_model_is_refused(organism, tiny):
    from steerlens.vectors.vector import SteeringVector, VectorSource

    vector = SteeringVector((1,), torch.ones(1, 32), VectorSource.of(tiny, method="by hand"))
    with pytest.raises(ValueError, match="d_model"):
        inspect_model(organism, vector=vector)
