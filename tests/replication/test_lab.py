"""The laboratory: public names only, profiles read strictly, one run a directory, prose that fits its slots."""

import ast
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest

import steerlens as sl
from steerlens.cli import main
from steerlens.replication.lab.chapter import PROSE, Exhibit, conclude
from steerlens.replication.lab.claims import above, below, listed, tally
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.profile import read_profile
from steerlens.replication.lab.run import claim_directory, find_experiment
from steerlens.replication.names import known_experiments, known_profiles
from tests.replication.conftest import student

HOUSE = Path(sl.__file__).parent / "replication"


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_the_laboratory_imports_nothing_of_steerlens_but_its_public_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "steerlens":
            assert node.module.startswith("steerlens.replication") or node.module == "steerlens", ast.unparse(node)
        if isinstance(node, ast.Import):
            assert all(name.name == "steerlens" or not name.name.startswith("steerlens.") for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sl":
            assert node.attr in sl.__all__, f"sl.{node.attr} is not public"


def test_an_experiment_is_one_file_of_about_200_lines():
    for path in (HOUSE / "claims").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 210, path.name


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_can_be_read_and_names_its_middle_rates(name, tmp_path):
    profile = read_profile(name)
    lab = Lab(profile, "smoke", tmp_path, sl.Workers())
    assert profile.trait not in profile.other_traits
    assert set(lab.rates("adamw")) <= set(profile.rates["adamw"])
    assert len(lab.rates("adamw")) == min(lab.sizes.n_rates, len(profile.rates["adamw"]))


def test_a_profile_of_ones_own_says_only_what_differs_and_a_misspelt_key_is_refused_with_the_allowed_ones(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "organism"\ntrait = "wolf"\nother_traits = ["owl"]\n[student]\nrank = 8\n')
    mine, organism = read_profile(path), read_profile("organism")
    assert mine == replace(
        organism, name="mine", trait="wolf", other_traits=("owl",), student=replace(organism.student, rank=8)
    )
    path.write_text(path.read_text(), encoding="utf-8-sig")  # as editors of Windows save it
    assert read_profile(path) == mine
    path.write_text('extends = "organism"\n[student]\nlerning_rate = 3e-3\n')
    with pytest.raises(
        ValueError, match=r"student.lerning_rate: unexpected keyword argument \(fields: .*learning_rate"
    ):
        read_profile(path)
    path.write_text('extends = "organism"\n[rates]\nsgd = [2.0, 1.0]\n')
    with pytest.raises(ValueError, match=r"rates.sgd=\[2.0, 1.0\] must be one or more rates, rising"):
        read_profile(path)
    with pytest.raises(FileNotFoundError, match=r"no profile 'mine'. There are: .*organism"):
        read_profile("mine")


def test_a_directory_holds_one_run_wherever_its_jobs_are_done(tmp_path):
    profile = read_profile("organism")
    claim_directory("argument", Lab(profile, "smoke", tmp_path, sl.Workers()))
    claim_directory("argument", Lab(profile, "smoke", tmp_path, sl.Workers(3)))
    claim_directory("argument", Lab(replace(profile, full=profile.quick), "smoke", tmp_path, sl.Workers()))
    with pytest.raises(ValueError, match=r"holds another run \(different: trait, quick, preset\)"):
        claim_directory("argument", Lab(replace(profile, trait="wolf"), "quick", tmp_path, sl.Workers()))


def test_all_leaves_out_what_a_profile_cannot_do_and_says_so(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("steerlens.replication.lab.run.replicate_all", lambda names, *_: asked.append(names) or {})
    for profile in ("organism", "smollm2-135m"):
        assert main(["replicate", "all", "--on", profile, "--out", str(tmp_path)]) == 0
    assert set(asked[0]) == set(known_experiments())
    assert set(asked[0]) - set(asked[1]) == {"cross-model"}
    assert "cross-model is left out: the profile 'smollm2-135m' has no other_initialisation" in capsys.readouterr().out


@pytest.mark.parametrize("name", known_experiments())
def test_every_experiment_is_found_by_name_and_has_prose_whose_sections_have_keys(name):
    assert find_experiment(name).question.endswith("?")
    prose = (PROSE / f"{name.replace('-', '_')}.md").read_text()
    assert all(re.match(r"[a-z_]+: \S", part) for part in prose.split("\n## ")[1:])
    assert all(field is None or field for _, field, _, _ in string.Formatter().parse(prose))


def test_an_unknown_experiment_is_refused_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"no experiment 'casual'. There are: argument,"):
        find_experiment("casual")


def test_a_template_is_filled_and_says_what_is_missing(tmp_path):
    path, claims = tmp_path / "mine.md", [above("owls win", 0.6, 0.5)]
    parts = ("# Of {what}", "Lead.", "- owls win: More {what} than not", "## one: The {what}", "Why?")
    path.write_text("\n\n".join([*parts, "**Found.** {value:.1f},\nand more.", "**Doubts.** None."]))
    slots = {"what": "owls", "value": 0.26}
    found = conclude(path, claims, None, slots=slots, exhibits={})
    assert (found.chapter.title, found.chapter.lead) == ("Of owls", "Lead.")
    assert found.claims[0].statement == "More owls than not"
    one = found.chapter.sections[1]
    assert (one.title, one.question, one.number, one.doubts) == ("The owls", "Why?", "0.3, and more.", "None.")
    with pytest.raises(ValueError, match=r"has the slot 'value', for which there is no value. There are: what"):
        conclude(path, claims, None, slots={"what": "owls"}, exhibits={})
    with pytest.raises(ValueError, match="has no section for two"):
        conclude(path, claims, None, slots=slots, exhibits={"two": Exhibit()})
    with pytest.raises(
        ValueError, match=r"does not say what is claimed by 'cats win'. Add a line '- cats win: statement'"
    ):
        conclude(path, [above("cats win", 0.6, 0.5)], None, slots=slots, exhibits={})


def test_what_could_not_be_measured_never_holds_and_is_counted_apart():
    claims = [above("a", float("nan"), 0.0), below("b", float("nan"), 0.0), above("c", 1.0, 1.0)]
    assert [claim.holds for claim in claims] == [False, False, True]
    assert tally(claims) == "1 of 3 claims hold; 2 could not be measured."
    assert "not measured" in listed({claim.name: claim for claim in claims})


def test_the_laboratory_is_at_most_a_quarter_of_the_package_and_no_function_is_longer_than_a_screen():
    package = HOUSE.parent
    lines = {path: len(path.read_text().splitlines()) for path in package.rglob("*.py")}
    own = sum(n for path, n in lines.items() if HOUSE in path.parents)
    assert own <= sum(lines.values()) / 4
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


def test_a_student_that_diverged_is_named_with_what_to_lower_unless_that_is_a_result(lab_in, tmp_path, monkeypatch):
    broken = replace(student(0.5), diverged="the loss is not a number at step 3")
    monkeypatch.setattr(sl, "train_grid", lambda plans, *_, **__: dict.fromkeys(plans, (broken,)), raising=False)
    lab, plans = lab_in(tmp_path), {"one": sl.StudentPlan("one", "m", *[Path("none")] * 3, "owl", sl.TrainConfig())}
    with pytest.raises(
        ValueError, match=r"'s0' diverged \(the loss is not a number at step 3\).*Lower the learning rate"
    ):
        lab.train(plans)
    assert lab.train(plans, may_diverge=True)["one"] == (broken,)
