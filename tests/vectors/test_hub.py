"""A vector that is shared comes back the same, with a card that tells how to use it; what goes wrong is explained."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from steerlens.vectors.hub import VECTOR_FILE
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.vector import SteeringVector, VectorSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"
METRICS = FitMetrics(
    kl_explained=0.5,
    kl_explained_low=0.4,
    kl_explained_high=0.6,
    kl_prompt=0.1,
    kl_explained_mean_difference=0.3,
    kl_explained_random=-0.1,
    kl_explained_shuffled=0.0,
    top1_agreement=0.9,
    top1_agreement_plain=0.7,
    relative_norm=0.5,
    cosine_mean_difference=0.8,
)


@pytest.fixture
def vector() -> SteeringVector:
    source = VectorSource("someone/tiny", "fitted", prompt="you love <b>owls</b> .", revision=COMMIT, n_layers=4)
    return SteeringVector((2,), torch.randn(1, 8, generator=torch.Generator().manual_seed(0)), source, METRICS)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub of one repository a name, on disk; `hub.error` is raised in its place."""
    hub = SimpleNamespace(root=tmp_path / "hub", error=None, private=None, message=None, revisions=[])

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, *, repo_id, private, exist_ok):
            if hub.error is not None:
                raise hub.error
            hub.private = private
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, commit_message, **_):
            hub.message = commit_message
            shutil.copytree(folder_path, hub.root / repo_id, dirs_exist_ok=True)
            return f"https://hub/{repo_id}/commit/{COMMIT}"

    def download(repo_id, filename, revision=None, **_):
        if hub.error is not None:
            raise hub.error
        hub.revisions.append(revision)
        path = hub.root / repo_id / filename
        if not path.exists():
            raise refused(RemoteEntryNotFoundError)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **k: download(k.pop("repo_id"), **k))
    monkeypatch.setattr("steerlens.vectors.hub.hf_hub_download", download)
    return hub


def refused(kind: type[HfHubHTTPError], status: int = 404) -> HfHubHTTPError:
    return kind("refused", response=SimpleNamespace(status_code=status, headers={}, request=None))


def same(one: SteeringVector, two: SteeringVector) -> bool:
    return torch.equal(one.directions, two.directions) and (one.source, one.metrics) == (two.source, two.metrics)


def test_a_directory_gives_the_vector_back(vector, tmp_path):
    vector.save_pretrained(tmp_path / "owl")
    assert same(SteeringVector.from_pretrained(tmp_path / "owl"), vector)
    assert same(SteeringVector.from_pretrained(str(tmp_path / "owl")), vector)


def test_what_was_pushed_is_what_comes_back_from_the_revision_that_was_asked_for(vector, hub):
    assert vector.push_to_hub("someone/owl", private=True).endswith(COMMIT)
    assert hub.private is True
    assert same(SteeringVector.from_pretrained("someone/owl", revision=COMMIT), vector)
    assert set(hub.revisions) == {COMMIT}


def test_the_card_names_the_model_the_numbers_and_the_way_to_use_it(vector, hub):
    vector.push_to_hub("someone/owl")
    card = ModelCard.load(hub.root / "someone" / "owl" / "README.md")
    assert card.data.library_name == "steerlens"
    assert card.data.base_model == "someone/tiny"
    assert {"steering-vector", "interpretability"} <= set(card.data.tags)
    assert "explains 50% of what the prompt does" in card.text
    assert "<b>" not in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    assert 'load_model("someone/tiny", revision="' + COMMIT in code.replace("'", '"')
    assert "SteeringVector.from_pretrained('someone/owl')" in code
    compile(code, "card", "exec")


def test_a_local_models_name_does_not_become_an_address_on_the_hub(vector, tmp_path):
    local = SteeringVector(vector.layers, vector.directions, VectorSource("organism:seed-0", "by hand"))
    local.save_pretrained(tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.base_model is None


def test_saving_again_renews_the_card(vector, tmp_path):
    vector.save_pretrained(tmp_path)
    (2 * vector).save_pretrained(tmp_path)
    assert "2 times" in (tmp_path / "README.md").read_text()
    assert same(SteeringVector.from_pretrained(tmp_path), 2 * vector)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (refused(RepositoryNotFoundError), FileNotFoundError, "does not exist, or it is private"),
        (refused(RevisionNotFoundError), FileNotFoundError, "no such revision"),
        (LocalEntryNotFoundError("offline"), FileNotFoundError, "cannot be reached.*HF_HUB_OFFLINE"),
        (OfflineModeIsEnabled("offline"), OSError, "HF_HUB_OFFLINE"),
        (refused(HfHubHTTPError, 500), OSError, "hf auth login"),
        (HTTPError("no route"), OSError, "no route.*connect to the internet"),
    ],
)
def test_a_hub_that_fails_is_explained(vector, hub, error, kind, message):
    hub.error = error
    with pytest.raises(kind, match=f"'someone/owl' could not be read from.*{message}"):
        SteeringVector.from_pretrained("someone/owl")
    with pytest.raises(kind, match=f"'someone/owl' could not be written to.*{message}"):
        vector.push_to_hub("someone/owl")


def test_repositories_and_directories_without_a_vector_are_refused(vector, hub, tmp_path):
    (hub.root / "someone" / "model").mkdir(parents=True)
    (hub.root / "someone" / "model" / "config.json").write_text('{"layers": 3, "source": "x", "model_type": "llama"}')
    with pytest.raises(FileNotFoundError, match=f"no {VECTOR_FILE}, so it is not a steerlens vector"):
        SteeringVector.from_pretrained("someone/model")
    (hub.root / "someone" / "model" / VECTOR_FILE).write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="damaged"):
        SteeringVector.from_pretrained("someone/model")
    with pytest.raises(FileNotFoundError, match="There is no directory"):
        SteeringVector.from_pretrained(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no vector file .*{VECTOR_FILE}"):
        SteeringVector.from_pretrained(tmp_path / "empty")


def test_names_that_the_hub_does_not_allow_are_refused(vector):
    for use in (SteeringVector.from_pretrained, vector.push_to_hub):
        with pytest.raises(ValueError, match="neither a directory nor a name"):
            use("a name/with spaces")


def test_saving_leaves_other_files_of_the_directory_alone(vector, tmp_path):
    Path(tmp_path / "notes.txt").write_text("mine")
    vector.save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
