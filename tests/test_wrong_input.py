"""What is given wrongly is told: what was got, what is wanted, and how to make it. Nothing fails deep inside."""

import inspect
from types import SimpleNamespace

import pytest
import torch

import steerlens as sl
from steerlens.evaluation import TraitScore
from steerlens.models.bridge import huggingface_model
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

pytestmark = pytest.mark.usefixtures("as_users_call")

NAMED = r"model must be a model that steerlens has loaded, got the name 'owl'. Load it: model = steerlens.load_model\('owl'\)"
WRAP = r"got a Hugging Face model \(Olmo2ForCausalLM\). Wrap it: model = steerlens.wrap_model\(model, tokenizer, name=...\)"
LONG = "{} must be a path, got 'a a a.*, in which a name has 6,000 bytes. Files have names of up to 255"
CONFIG = r"config must be a {0}, got \{{.* \(dict\). Make one: steerlens.{0}\(...\)"
VECTOR = r"vector must be a SteeringVector, got .*. Make one: steerlens.fit_prompt_vector\(model, prompt\)"
SAMPLES = r"{} must be a SampleSet.*, got .*. Make one: steerlens.sample_teacher\(model, prompts\)"
ROWS = r"rows must be an AuditRows, got .*. Make one: steerlens.read_rows\(path\)"
TEXTS = r"questions must be several texts or chats, got 'Name an animal.' \(str\). Write questions=\["
CHATS = r"chats must be several chats, got 'Name an animal.' \(str\). Write chats=\[steerlens.as_chat\(question\)"

FITTED = {
    "a name for the model": (lambda g: sl.fit_prompt_vector("owl", "p"), NAMED),
    "a plain model": (lambda g: sl.fit_prompt_vector(g.hf, "p"), WRAP),
    "no model": (
        lambda g: sl.fit_prompt_vector(None, "p"),
        r"got None \(NoneType\). Load one: model = steerlens.load_model\(",
    ),
    "a number for the prompt": (lambda g: sl.fit_prompt_vector(g.model, 3), r"prompt must be a text, got 3 \(int\)"),
    "an empty prompt": (lambda g: sl.fit_prompt_vector(g.model, " "), "prompt is an empty text"),
    "a text for the questions": (lambda g: sl.fit_prompt_vector(g.model, "p", questions="Name an animal."), TEXTS),
    "no questions": (
        lambda g: sl.fit_prompt_vector(g.model, "p", questions=[]),
        "questions is empty. Give at least one",
    ),
    "an empty question": (
        lambda g: sl.fit_prompt_vector(g.model, "p", questions=["a", ""]),
        r"questions\[1\] is an empty text",
    ),
    "a dict for the config": (
        lambda g: sl.fit_prompt_vector(g.model, "p", config={"steps": 3}),
        CONFIG.format("FitConfig"),
    ),
    "the wrong config": (
        lambda g: sl.fit_prompt_vector(g.model, "p", config=sl.TrainConfig()),
        "config must be a FitConfig",
    ),
    "a word for the layers": (
        lambda g: sl.fit_prompt_vector(g.model, "p", layers="worst"),
        "layers='worst' is not known",
    ),
    "half a layer": (lambda g: sl.fit_prompt_vector(g.model, "p", layers=[1.5]), r"layers\[0\] must be a whole number"),
    "a layer too many": (lambda g: sl.fit_prompt_vector(g.model, "p", layers=99), "layer=99 is out of range"),
    "a chat for several": (
        lambda g: sl.diff_in_means(g.model, "p", questions=sl.as_chat("hello")),
        r"questions must be several texts or chats, got a single chat. Write questions=\[chat\]",
    ),
    "a word for the positions": (
        lambda g: sl.diff_in_means(g.model, "p", positions="last"),
        "Allowed: all, prompt, last_prompt",
    ),
    "best for means": (
        lambda g: sl.diff_in_means(g.model, "p", layers="best"),
        r"layers must be several layers, got 'best' \(str\)",
    ),
    "no layers": (lambda g: sl.principal_difference(g.model, "p", layers=[]), "layers is empty"),
    "a student's name": (lambda g: sl.model_shift("owl", g.model, g.chats), "student must be a model"),
    "questions for chats": (lambda g: sl.model_shift(g.model, g.model, "Name an animal."), CHATS),
    "no such trait": (
        lambda g: sl.sweep_layers(g.model, "p", trait="owl"),
        r"trait must be a Trait, got 'owl' \(str\)",
    ),
    "words for strengths": (
        lambda g: sl.sweep_layers(g.model, "p", strengths=["big"]),
        r"strengths\[0\] must be a finite number",
    ),
    "no strengths": (lambda g: sl.sweep_layers(g.model, "p", strengths=[]), "strengths is empty"),
    "one strength": (
        lambda g: sl.sweep_layers(g.model, "p", strengths=2.0),
        r"strengths must be several numbers, got 2.0 \(float\)",
    ),
    "a text for what is unrelated": (
        lambda g: sl.analyze_prompt(g.model, "p", unrelated="hi"),
        "unrelated must be several texts",
    ),
    "a vector for those known": (
        lambda g: sl.analyze_prompt(g.model, "p", known=g.vector),
        "known must map names to results",
    ),
    "names for vectors": (lambda g: sl.mean_centred({"owl": "cat"}), r"vectors\['owl'\] must be a SteeringVector"),
    "a path for a vector": (lambda g: sl.promoted_tokens(g.model, "v.safetensors", g.questions), VECTOR),
    "no tokens": (
        lambda g: sl.promoted_tokens(g.model, g.vector, g.questions, n=0),
        "n=0 is not allowed. It must be a whole number, 1",
    ),
    "a dict for a chat": (lambda g: sl.show_positions(g.model, {"role": "user"}), "chat must be several messages"),
}

RUN = {
    "a name to capture": (lambda g: sl.capture_residuals("owl", g.chats, layers=[1]), NAMED),
    "texts to capture": (
        lambda g: sl.capture_residuals(g.model, ["hi"], layers=[1]),
        r"chats\[0\] must be a chat, got 'hi' \(str\). Make one of a question: steerlens.as_chat\('hi'\)",
    ),
    "messages without a role": (
        lambda g: sl.mean_residuals(g.model, [[{"content": "hi"}]], layers=[1]),
        '"role": "user"',
    ),
    "one chat to generate": (
        lambda g: sl.generate(g.model, g.chats[0], max_new_tokens=2),
        "chats must be several chats, got a single one",
    ),
    "no new tokens": (lambda g: sl.generate(g.model, g.chats, max_new_tokens=0), "max_new_tokens=0 is not allowed"),
    "half a token": (
        lambda g: sl.generate(g.model, g.chats, max_new_tokens=2.5),
        r"max_new_tokens must be a whole number, 1 or greater, got 2.5",
    ),
    "below zero degrees": (
        lambda g: sl.generate(g.model, g.chats, max_new_tokens=2, temperature=-1),
        "temperature=-1 is not allowed",
    ),
    "a negative seed": (lambda g: sl.generate(g.model, g.chats, max_new_tokens=2, seed=-1), "seed=-1 is not allowed"),
    "true for a seed": (
        lambda g: sl.generate(g.model, g.chats, max_new_tokens=2, seed=True),
        "seed must be a whole number",
    ),
    "a text for the prompts": (
        lambda g: sl.sample_teacher(g.model, "p"),
        r"prompts must be several texts or chats, got 'p' \(str\). Write prompts=steerlens",
    ),
    "no prompts": (lambda g: sl.sample_teacher(g.model, []), "prompts is empty. Give at least one"),
    "a tensor for a vector": (lambda g: sl.sample_teacher(g.model, ["p"], vector=g.vector.directions), VECTOR),
    "rows of none": (lambda g: sl.sample_teacher(g.model, ["p"], batch_size=0), "batch_size=0 is not allowed"),
    "a list of completions": (lambda g: sl.keep_number_lists(["1, 2"]), SAMPLES.format("samples")),
    "a name to score": (lambda g: sl.score_trait("owl", g.trait), NAMED),
    "a name for a trait": (
        lambda g: sl.score_trait(g.model, "owl"),
        r"trait must be a Trait, got 'owl' \(str\). Make one: steerlens.preference_trait",
    ),
    "a word for the context": (
        lambda g: sl.score_trait(g.model, g.trait, context="naked"),
        "Allowed: bare, after_numbers",
    ),
    "an empty system prompt": (
        lambda g: sl.score_trait(g.model, g.trait, system_prompt=""),
        "system_prompt is an empty text",
    ),
    "fewer samples than none": (
        lambda g: sl.score_trait(g.model, g.trait, samples_per_question=-1),
        "samples_per_question=-1",
    ),
    "rates for scores": (lambda g: sl.compare_log_odds(0.5, 0.1), r"one must be a TraitScore, got 0.5 \(float\)"),
    "percent for a level": (
        lambda g: sl.compare_log_odds(g.score, g.score, level=95),
        "level=95 is not allowed. It must be a finite number, at least 0",
    ),
    "a text for how many": (lambda g: sl.number_prompts("ten", g.model, seed=0), "n must be a whole number"),
    "a name for a wording": (
        lambda g: sl.number_prompts(3, "natural", seed=0),
        "must be a model that steerlens has loaded",
    ),
    "a trait's prompt": (lambda g: sl.preference_trait(None), r"name must be a text, got None"),
}

TRAINED = {
    "a name to train": (lambda g: sl.train_student("owl", g.samples), NAMED),
    "a path of samples": (lambda g: sl.train_student(g.model, "samples.jsonl"), SAMPLES.format("samples")),
    "a dict to train": (lambda g: sl.train_student(g.model, g.samples, {"rank": 8}), CONFIG.format("TrainConfig")),
    "a list held out": (lambda g: sl.train_student(g.model, g.samples, heldout=[1]), SAMPLES.format("heldout")),
    "a recorder's result": (
        lambda g: sl.train_student(g.model, g.samples, on_start=3),
        r"on_start must be a function, got 3 \(int\)",
    ),
    "a word for a rate": (
        lambda g: sl.TrainConfig(learning_rate="high"),
        r"learning_rate must be a finite number, got 'high' \(str\)",
    ),
    "a text for steps": (
        lambda g: sl.TrainConfig(epochs="3"),
        "epochs='3' is not allowed. It must be a whole number, 1 or greater",
    ),
    "a share as a text": (
        lambda g: sl.TrainConfig(warmup_share="5 %"),
        r"warmup_share must be a finite number, got '5 %' \(str\)",
    ),
    "a rank of none": (lambda g: sl.TrainConfig(rank=None), "rank=None is not allowed"),
    "a name of scales": (lambda g: sl.adam_scales(g.model, "samples"), SAMPLES.format("samples")),
    "a name to trace": (lambda g: sl.trace_gradients(g.model, "owl"), VECTOR),
    "a list of probes": (lambda g: sl.trace_steps(g.model, g.vector, g.chats), "probes must map names to chats"),
    "no probes": (lambda g: sl.trace_steps(g.model, g.vector, {}), "probes"),
    "steps of none": (lambda g: sl.trace_steps(g.model, g.vector, {"a": g.chats}, every=0), "every=0 is not allowed"),
    "no control": (
        lambda g: sl.pooled_difference_cosine(g.model, g.samples, None, g.vector),
        SAMPLES.format("control"),
    ),
    "one size": (
        lambda g: sl.pooled_difference_cosine(g.model, g.samples, g.samples, g.vector, sizes=3),
        "sizes must be several",
    ),
    "a name to prevent": (lambda g: sl.preventative_steering("owl"), VECTOR),
    "a name to take out": (lambda g: sl.without_component("owl"), VECTOR),
}

AUDITED = {
    "a path to audit": (lambda g: sl.audit_dataset(g.model, "rows.jsonl"), ROWS),
    "samples to audit": (lambda g: sl.audit_dataset(g.model, g.samples), ROWS),
    "a path to recover from": (lambda g: sl.recover_vector(g.model, "rows.jsonl"), ROWS),
    "rows to score": (lambda g: sl.score_rows(g.model, g.vector, [1, 2]), ROWS),
    "rows that entangle": (lambda g: sl.token_entanglement(g.model, g.vector, "a", "b"), ROWS),
    "a vector for what was recovered": (
        lambda g: sl.probe_behaviour(g.model, g.vector),
        "recovered must be a RecoveredVector",
    ),
    "a path to check": (lambda g: sl.check_hygiene(g.model, "rows.jsonl"), ROWS),
    "rows for a model": (lambda g: sl.rows_for_model(g.model, "rows.jsonl"), ROWS),
    "samples that change": (lambda g: sl.token_changes(g.model, g.vector, []), SAMPLES.format("samples")),
    "more than all rows": (lambda g: sl.drop_rows(g.samples, [torch.ones(1)], share=2.0), "share=2.0 is not allowed"),
    "a name to weigh by": (lambda g: sl.importance_weighted(g.model, "owl"), VECTOR),
    "no number for a threshold": (
        lambda g: sl.without_changed_tokens(g.model, g.vector, "big"),
        "threshold must be a finite number",
    ),
    "no number for a weight": (lambda g: sl.annealed_kl(g.model, float("nan")), "weight=nan is not allowed"),
}

SEEN = {
    "a dict of nothing": (lambda g: sl.plot_prompt_fit(3), "Give what fit_prompt_vector or analyze_prompt returned"),
    "a vector without metrics": (lambda g: sl.plot_prompt_fit(g.vector), "layers were not compared"),
    "controls of a mean difference": (
        lambda g: sl.plot_controls(g.vector),
        "kl_explained_low was not measured of this vector",
    ),
    "words for tokens": (
        lambda g: sl.plot_tokens("owl"),
        r"Got 'owl' \(str\). Give what promoted_tokens, analyze_prompt or audit_dataset",
    ),
    "numbers for tokens": (lambda g: sl.plot_tokens([1, 2]), r'Got 1 \(int\) for a token. Write \("owl", 2.5\)'),
    "one number a cosine": (
        lambda g: sl.plot_cosines({"owl": 0.5}),
        "Give what analyze_prompt returned, vectors by name",
    ),
    "no cosines": (lambda g: sl.plot_cosines({}), "nothing was compared"),
    "a vector for a sweep": (
        lambda g: sl.plot_sweep(g.vector),
        r"sweep must be a LayerSweep, got .*. Make one: steerlens.sweep_layers",
    ),
    "a name for an audit": (lambda g: sl.plot_gain("rows.jsonl"), "result must be an AuditResult"),
    "a vector for row scores": (
        lambda g: sl.plot_row_scores(g.vector),
        "must be what score_rows or audit_dataset returned",
    ),
    "a name for traits": (lambda g: sl.plot_traits("owl"), "traits must be several triples"),
    "vectors for traces": (
        lambda g: sl.plot_gradient_projection({"a": [g.vector]}, layer=1),
        "Give a GradientTrace, one for each name",
    ),
    "a path for steps": (lambda g: sl.plot_steps("steps.safetensors", layer=1), "Give a StepTrace"),
    "a vector for cosines": (lambda g: sl.plot_pooled_cosine(g.vector, layer=1), "pooled must be a PooledCosine"),
    "a text for groups": (lambda g: sl.plot_rates("owl", None), "groups must map names"),
    "records of nothing": (lambda g: sl.plot_strengths({"a": [1]}), "groups"),
}

COMPARED = {
    "a name to ask": (lambda g: sl.ask("owl", g.trait), NAMED),
    "a name for what is asked": (lambda g: sl.ask(g.model, "owl"), "trait must be a Trait, got 'owl'"),
    "a name to explain": (lambda g: sl.explained(g.model, "owl", "p"), VECTOR),
    "answers without questions": (
        lambda g: sl.fit_answers_vector(g.model, "p", ["owl"]),
        r"answers\[0\] must be a question with its answer, two texts, got 'owl'",
    ),
    "float tokens": (
        lambda g: sl.row_losses(g.model, g.samples, among=torch.ones(2)),
        r"among must be a tensor of whole numbers \[token\], got a tensor of torch.float32 and shape \(2,\)",
    ),
    "a prompt for a condition": (lambda g: sl.row_losses(g.model, g.samples, "p"), "condition must be a Condition"),
    "a name in a condition": (lambda g: sl.Condition(vector="owl"), "vector must be a SteeringVector or None"),
    "one word": (lambda g: sl.tokens_without(g.model, "owl"), "words must be several texts, got 'owl'"),
    "a name to merge": (lambda g: sl.merge_vector(g.model, "owl"), VECTOR),
    "a student to save": (
        lambda g: sl.save_model(type("Student", (), {})(), "d"),
        r"got a Student. Give its model: student.model",
    ),
    "a word for yes": (
        lambda g: sl.save_model(g.model, "d", merge_adapter="no"),
        "merge_adapter must be True or False",
    ),
    "a device of no kind": (lambda g: sl.load_model(device="gpu"), r"device must be the name of a device.*got 'gpu'"),
    "a map of no kind": (lambda g: sl.load_model(device_map="all"), "device_map must be 'auto', 'balanced'"),
    "a model for an adapter": (lambda g: sl.load_model(adapter=g.hf), "adapter must be a path, got Olmo2"),
    "no name": (lambda g: sl.load_model(""), "name_or_path is an empty text"),
    "a text for a model's path": (lambda g: sl.load_model("a " * 3000), LONG.format("name_or_path")),
    "a text for an adapter's path": (lambda g: sl.load_model(adapter="a " * 3000), LONG.format("adapter")),
    "a text for rows": (lambda g: sl.read_rows("a " * 3000), LONG.format("source")),
    "another budget": (
        lambda g: sl.FitConfig.of_budget("small"),
        r"budget='small' is not known\. Allowed: quick, default, thorough",
    ),
    "a text for a vector": (lambda g: sl.SteeringVector.load("a " * 3000), LONG.format("path")),
    "a text for samples": (lambda g: sl.SampleSet.load("a " * 3000), LONG.format("path")),
    "the older class": (
        lambda g: sl.score_trait(type("HookedTransformer", (), {})(), g.trait),
        r"got a HookedTransformer, the older class of TransformerLens. Load the same weights anew",
    ),
    "one shift": (
        lambda g: sl.similarity_floors(g.vector, g.vector, others={}, control=[], layer=1),
        "shifts must be several",
    ),
    "no shifts": (lambda g: sl.similarity_floors([], g.vector, others={}, control=[], layer=1), "shifts is empty"),
    "another layer": (
        lambda g: sl.similarity_floors([g.vector], g.vector, others={}, control=[], layer=2),
        r"layer=2 is not a layer of all the vectors. They share \[1\]",
    ),
    "texts for numbers": (lambda g: sl.mean_interval(["a", "b"]), r"values must be an array of numbers \[student\]"),
    "a number for numbers": (
        lambda g: sl.mean_interval(0.5),
        r"values must be an array of numbers \[student\], got 0.5",
    ),
    "numbers of unlike length": (
        lambda g: sl.brier([0.1, 0.2, 0.3], [True, False]),
        "probabilities has 3 values along 'n' and happened has 2",
    ),
    "nothing to resample": (lambda g: sl.bootstrap_interval(max), "Give at least one array"),
    "a list of norms": (
        lambda g: sl.gini([1.0, 2.0]),
        r"values must be a tensor of float.*Write torch.tensor\(\[...\]\)",
    ),
    "fewer indices than chats": (
        lambda g: sl.generate(g.model, g.chats, max_new_tokens=2, row_indices=[0, 1]),
        "row_indices has 2 numbers for 1 chats",
    ),
    "a number for a system prompt": (lambda g: sl.as_chat("hi", 3), "system_prompt must be a text, got 3"),
    "rows of texts": (
        lambda g: sl.import_vector({"a": "b"}, g.model),
        "A vector maps block numbers to rows of numbers",
    ),
    "a plan of nothing": (lambda g: sl.train_grid({"a": 1}, "d", seeds=[0]), "must be a StudentPlan, got 1"),
    "one seed": (lambda g: sl.train_grid({}, "d", seeds=0), "seeds must be several whole numbers, got 0"),
    "jobs of nothing": (lambda g: sl.run_jobs({"a": 1}, sl.Workers()), r"jobs\['a'\] must be a job"),
    "workers in words": (lambda g: sl.Workers(workers="2"), "workers must be a whole number, got '2'"),
    "a record of nothing": (
        lambda g: sl.as_json("owl"),
        "A record is a dataclass such as steerlens.StudentRecord, got <class 'str'>",
    ),
    "a list for a report": (lambda g: sl.write_report("r.html", []), "report must be a Report, got"),
    "a vector for a figure": (lambda g: sl.save_figure(g.vector, "f.pdf"), "fig must be a plotly Figure"),
    "no traces": (lambda g: sl.plot_steps({}), "There are no traces to plot"),
    "no tokens to plot": (lambda g: sl.plot_tokens([]), "There are no tokens to plot"),
    "no groups": (lambda g: sl.plot_strengths({}), "There are no groups to plot"),
    "pairs for triples": (lambda g: sl.plot_traits([("owl", 0.5)]), "traits has .* in it. Write"),
    "an answer of none": (lambda g: sl.Sample(0, "a prompt", None), "completion must be a text, got None"),
    "a prompt of none": (lambda g: sl.Sample(0, None, "owl"), "prompt must be several messages, got None"),
    "names of a kind": (lambda g: sl.Kind("animal", ("owl", "cat")), r"items\[0\] must be several texts, got 'owl'"),
    "a word for its number": (lambda g: sl.NumberLists(n_numbers="10"), "n_numbers must be a whole number, got '10'"),
    "one module": (
        lambda g: sl.TrainConfig(target_modules="q_proj"),
        "target_modules must be several texts, got 'q_proj'",
    ),
    "a word for no": (lambda g: sl.TrainConfig(autocast="no"), "autocast must be True or False, got 'no'"),
    "a word for a fit's rate": (lambda g: sl.FitConfig(learning_rate="high"), "learning_rate must be a finite number"),
}

TABLE = {**FITTED, **RUN, **TRAINED, **AUDITED, **SEEN, **COMPARED}
NOT_LOOKED_AT = {"mean_difference", "steer"}
"""A statistic, which scipy calls thousands of times; and what looks at its arguments where the `with` begins."""
FUNCTIONS = {
    name: one for name in sl.__all__ if inspect.isfunction(one := getattr(sl, name)) and name not in NOT_LOOKED_AT
}


@pytest.fixture(scope="module")
def given(organism):
    """Right things to give, among which one is wrong."""
    vector = SteeringVector((1,), torch.ones(1, organism.cfg.d_model), VectorSource.of(organism, method="by hand"))
    trait = sl.preference_trait("owl", organism)
    return SimpleNamespace(
        model=organism,
        hf=huggingface_model(organism),
        vector=vector,
        trait=trait,
        samples=SampleSet((Sample(0, "name an animal .", "owl"),)),
        questions=["name an animal ."],
        chats=[sl.as_chat("name an animal .")],
        score=TraitScore("owl", ("owl", "cat"), "bare", "abc", vector.directions[:1, :2] / 4),
    )


@pytest.mark.parametrize(("call", "told"), TABLE.values(), ids=TABLE.keys())
def test_a_wrong_argument_is_told_with_the_way_to_give_it_right(call, told, given):
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match=told):
        call(given)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_public_function_goes_on_with_things_of_no_kind(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    needed = [one for one in parameters if one.default is inspect.Parameter.empty or one.name == "name_or_path"]
    named = {one.name: object() for one in needed if one.kind is inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises((TypeError, ValueError), match=r"[Gg]ot .*object"):
        FUNCTIONS[name](*(object() for _ in range(len(needed) - len(named))), **named)
