"""Other tools' files keep their layers' meaning on the way in and out, and no file runs code or ends in a traceback."""

import os
import pickle
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

from steerlens.forward import forward
from steerlens.models.bridge import huggingface_model
from steerlens.text.batches import pad_rows
from steerlens.text.chat import encode_prompt
from steerlens.vectors.formats import export_gguf, import_gguf, import_paper, import_tensor
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource


@pytest.fixture
def vector(tiny) -> SteeringVector:
    directions = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((3, 1, 2), directions, VectorSource.of(tiny, method="by hand", prompt="you love owls ."))


def test_a_control_vector_is_what_the_gguf_package_and_llama_cpp_expect(vector, tmp_path):
    export_gguf(vector, tmp_path / "v.gguf")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 3
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {"direction.1", "direction.2", "direction.3"}
    for layer in (1, 2, 3):
        tensor = tensors[f"direction.{layer}"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert np.array_equal(tensor.data, vector.at(layer).directions[0].numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["v.gguf"]


@pytest.mark.filterwarnings("ignore:Vectors are added at 3 layers")
def test_steering_does_what_llama_cpp_does_with_the_exported_file(tiny, vector, chats, tmp_path):
    """llama.cpp's loader packs direction.1.. from offset 0, and block il (from 0) adds the row at offset il - 1."""
    export_gguf(vector, tmp_path / "v.gguf")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "v.gguf").tensors}
    buffer = np.stack([tensors.get(f"direction.{i}", np.zeros(32, np.float32)) for i in range(1, 4)])
    ids = encode_prompt(tiny.tokenizer, chats[0])
    with torch.no_grad(), steer(tiny, vector):
        ours = forward(tiny, pad_rows(tiny.tokenizer, [ids])).logits
    handles = [
        huggingface_model(tiny)
        .model.layers[il]
        .register_forward_hook(lambda _m, _i, output, il=il: output + torch.tensor(buffer[il - 1]))
        for il in range(1, tiny.cfg.n_layers)
    ]
    with torch.no_grad():
        theirs = huggingface_model(tiny)(input_ids=torch.tensor([ids])).logits
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(ours, theirs)


def test_a_control_vector_comes_back_with_the_same_layers(tiny, vector, tmp_path):
    export_gguf(vector, tmp_path / "v.gguf")
    back = import_gguf(tmp_path / "v.gguf", tiny)
    assert back.layers == (1, 2, 3)
    for layer in back.layers:
        assert torch.equal(back.at(layer).directions, vector.at(layer).directions)
    back.check_model(tiny)
    assert import_gguf(tmp_path / "v.gguf", "someone/llama").source.model == "someone/llama"


def test_layer_0_is_refused_since_llama_cpp_has_no_place_for_it(tiny, vector, tmp_path):
    with_0 = replace(vector, layers=(0, 1, 2))
    with pytest.raises(ValueError, match=r"refuses direction.0.*vector.at\(1, 2\)"):
        export_gguf(with_0, tmp_path / "v.gguf")
    with pytest.raises(ValueError, match="Make the vector at layer 1 or above"):
        export_gguf(with_0.at(0), tmp_path / "v.gguf")
    assert list(tmp_path.iterdir()) == []


def test_repengs_direction_0_is_block_0s_output(tiny, tmp_path):
    write_gguf(tmp_path / "v.gguf", {"direction.0": np.ones(32, np.float32), "direction.2": np.zeros(32, np.float32)})
    assert import_gguf(tmp_path / "v.gguf", tiny).layers == (0, 2)


def test_a_family_that_is_not_known_must_be_said(vector, tmp_path):
    unknown = replace(vector, source=VectorSource("someone/llama", "by hand"))
    with pytest.raises(ValueError, match="model_hint='llama'"):
        export_gguf(unknown, tmp_path / "v.gguf")
    export_gguf(unknown, tmp_path / "v.gguf", model_hint="qwen2")
    assert gguf.GGUFReader(tmp_path / "v.gguf").get_field("controlvector.model_hint").contents() == "qwen2"


def test_a_failed_export_leaves_the_old_file(vector, tmp_path, monkeypatch):
    export_gguf(vector, tmp_path / "v.gguf")
    before = (tmp_path / "v.gguf").read_bytes()

    def full_disk(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full_disk)
    with pytest.raises(OSError, match="Free some space"):
        export_gguf(2 * vector, tmp_path / "v.gguf")
    assert (tmp_path / "v.gguf").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["v.gguf"]


def write_gguf(path, tensors, architecture="controlvector") -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "llama")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ROW = np.ones(32, np.float32)


@pytest.mark.parametrize(
    ("tensors", "architecture", "message"),
    [
        ({"direction.1": ROW}, "llama", "architecture 'llama', not 'controlvector'"),
        ({"direction.1": ROW}, "steeringvector", "architecture 'steeringvector'"),
        ({}, "controlvector", "no tensors"),
        ({"weight": ROW}, "controlvector", "no tensors"),
        ({"direction.one": ROW}, "controlvector", "unusable tensor 'direction.one'"),
        ({"direction.1": ROW.astype(np.float16)}, "controlvector", "unusable tensor"),
        ({"direction.1": np.ones((2, 32), np.float32)}, "controlvector", "unusable tensor"),
        ({"direction.1": ROW, "direction.2": ROW[:16]}, "controlvector", "different lengths"),
        ({"direction.1": ROW * np.nan}, "controlvector", "NaN or infinity"),
        ({"direction.1": ROW[:16]}, "controlvector", "d_model=16.*d_model=32"),
        ({"direction.9": ROW}, "controlvector", r"layers \(9,\).*layers 0..3"),
    ],
)
def test_other_gguf_files_are_refused(tiny, tmp_path, tensors, architecture, message):
    write_gguf(tmp_path / "v.gguf", tensors, architecture)
    with pytest.raises(ValueError, match=message):
        import_gguf(tmp_path / "v.gguf", tiny)


def test_a_gguf_file_that_is_cut_anywhere_is_refused(tiny, vector, tmp_path):
    export_gguf(vector, tmp_path / "v.gguf")
    whole = (tmp_path / "v.gguf").read_bytes()
    for length in (*range(0, len(whole), 37), len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no gguf file, or a damaged one"):
            import_gguf(tmp_path / "cut.gguf", tiny)
    (tmp_path / "cut.gguf").write_text("not a gguf file at all, but a text")
    with pytest.raises(ValueError, match="no gguf file"):
        import_gguf(tmp_path / "cut.gguf", tiny)


def paper_file(path, raw, **meta) -> None:
    norm = raw.norm(dim=-1)
    torch.save({"raw": raw, "unit": raw / norm.clamp(min=1e-12)[:, None], "norm": norm, "meta": meta}, path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_papers_slot_l_plus_1_is_the_output_of_block_l(tiny, tmp_path, dtype):
    raw = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    paper_file(tmp_path / "v.pt", raw, trait="owl", layers=[1, 2], alpha=0.6)
    for model in (tiny, "someone/llama"):
        vector = import_paper(tmp_path / "v.pt", model)
        assert vector.layers == (0, 1, 2, 3)
        for layer in range(4):
            assert torch.equal(vector.at(layer).directions[0], raw[layer + 1].float())
    assert vector.source.model == "someone/llama"


class Touch:
    """What a malicious pickle is made of."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_file_that_would_run_code_is_refused_and_does_not(tiny, tmp_path, save):
    save({"raw": torch.ones(5, 32), "meta": Touch(tmp_path / "ran")}, tmp_path / "v.pt")
    with pytest.raises(ValueError, match=r"could run code when read, and is refused.*import_tensor\(raw\[1:\]"):
        import_paper(tmp_path / "v.pt", tiny)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(5, 32), "no tensor 'raw'.*got Tensor"),
        ({"unit": torch.ones(5, 32)}, "no tensor 'raw'"),
        ({"raw": torch.ones(32)}, r"got shape \(32,\)"),
        ({"raw": [1.0]}, "no tensor 'raw'"),
        ({"raw": torch.ones(4, 32)}, "4 slots, but 'llama' has 4 blocks and so needs 5"),
        ({"raw": torch.ones(5, 16)}, "d_model=16"),
        ({"raw": torch.full((5, 32), torch.nan)}, "NaN or infinity"),
    ],
)
def test_other_torch_files_are_refused(tiny, tmp_path, value, message):
    torch.save(value, tmp_path / "v.pt")
    with pytest.raises(ValueError, match=message):
        import_paper(tmp_path / "v.pt", tiny)


def test_a_torch_file_that_is_cut_anywhere_is_refused(tiny, tmp_path):
    paper_file(tmp_path / "v.pt", torch.ones(5, 32))
    whole = (tmp_path / "v.pt").read_bytes()
    for content in [whole[:length] for length in range(0, len(whole), 97)] + [b"a text", whole[::-1]]:
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(ValueError, match="no torch file"):
            import_paper(tmp_path / "cut.pt", tiny)


@pytest.mark.parametrize("read", [import_gguf, import_paper])
def test_files_that_do_not_exist_are_named(tiny, tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"no file .*none"):
        read(tmp_path / "none", tiny)


def test_tensors_take_the_layers_that_are_said(tiny):
    tensor = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert import_tensor(tensor, tiny).layers == (0, 1, 2, 3)
    one = import_tensor(tensor[2].half(), tiny, layers=2)
    assert torch.equal(one.at(2).directions[0], tensor[2].half().float())
    assert torch.equal(import_tensor(tensor[:2], tiny, layers=[3, 1]).at(3).directions[0], tensor[0])
    assert import_tensor(tensor[0], "someone/llama", layers=7).source == VectorSource(
        "someone/llama", "imported from a tensor"
    )


@pytest.mark.parametrize(
    ("tensor", "layers", "message"),
    [
        (torch.ones(32), None, "Got 1 rows for 4 blocks.*layers="),
        (torch.ones(5, 32), None, r"first row is the embeddings', pass tensor\[1:\]"),
        (torch.ones(4, 16), None, "d_model=16"),
        (torch.ones(1, 1, 32), 0, "Give floats"),
        (torch.ones(2, 32), [1], "one distinct layer each"),
        (torch.ones(32), 4, "layers 0..3"),
        (torch.full((32,), torch.inf), 1, "NaN or infinity"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tiny, tensor, layers, message):
    with pytest.raises(ValueError, match=message):
        import_tensor(tensor, tiny, layers=layers)


def test_rows_of_a_model_that_is_only_named_need_their_layers():
    with pytest.raises(ValueError, match=r"only named.*layers="):
        import_tensor(torch.ones(4, 32), "someone/llama")
