"""Vision models around a text model, quantized weights, code that comes with a model, tables of positions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from random_models import random_network
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from expunge.core.errors import UserError
from expunge.core.permission import granted
from expunge.core.progress import Bar
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.generate import decode
from expunge.models.load import load_model, wrap_model
from expunge.models.load_checks import check_kind
from expunge.models.module_names import parameter_names
from expunge.models.prefix import encode_prompts
from expunge.models.save import save_model
from expunge.train.candidates import beam_search

IDS = torch.tensor([[5, 9, 17, 3, 40]])


def change(model: LanguageModel) -> None:
    """Add to the last block's down projection."""
    model.freeze_but(parameter_names(model, [len(model.blocks()) - 1], ["mlp.down_proj"]))
    with torch.no_grad():
        for weight in model.trainable():
            weight.add_(0.1)


def test_the_text_part_of_a_vision_model_changes_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_index=len(tokenizer) - 1)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = load_model(ModelConfig(name=str(tmp_path / "model")))
    assert model.encoder.max_length == 64
    change(model)
    save_model(model, tmp_path / "saved")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "saved"))
    assert any("vision" in name for name in before)
    assert set(before) == set(after)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert [name.rpartition("layers.")[2] for name in moved] == ["1.mlp.down_proj.weight"]
    again = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=IDS).logits, model.base(input_ids=IDS).logits)


def quantization(folder: Path, **settings: Any) -> None:
    content = json.loads((folder / "config.json").read_text()) | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(content))


def test_8_bit_floats_are_read_as_numbers_and_saved_as_such(tiny_folder: Path, tmp_path: Path) -> None:
    """Each matrix has one scale; what is saved is no longer quantized, and says so."""
    plain = load_model(ModelConfig(name=str(tiny_folder)))
    plain.base.save_pretrained(tmp_path / "fp8")
    plain.tokenizer.save_pretrained(tmp_path / "fp8")
    weights = load_file(tmp_path / "fp8" / "model.safetensors")
    stored = dict(weights)
    for name in [name for name in weights if name.endswith("proj.weight")]:
        scale = weights[name].abs().max() / 448
        stored |= {name: (weights[name] / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale.view(1, 1)}
    save_file(stored, tmp_path / "fp8" / "model.safetensors", metadata={"format": "pt"})
    quantization(tmp_path / "fp8", quant_method="fp8", weight_block_size=[512, 512], activation_scheme="dynamic")
    model = load_model(ModelConfig(name=str(tmp_path / "fp8"), device="cpu"))
    name = "model.layers.1.mlp.down_proj.weight"
    expected = stored[name].float() * stored[f"{name}_scale_inv"]
    torch.testing.assert_close(model.base.get_parameter(name).data, expected)
    change(model)
    save_model(model, tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=IDS).logits, model.base(input_ids=IDS).logits)


def test_4_bit_experts_are_read_as_numbers_and_saved_as_such(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """gpt-oss: two numbers a byte and a power of two for every 32; what is saved has the names of plain experts."""
    source, saved = tmp_path / "mxfp4", tmp_path / "saved"
    sizes = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8, "num_hidden_layers": 1}
    network = random_network("GptOss", **sizes)
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(source)
    tokenizer.save_pretrained(source)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = torch.cat([values, -values])
    draw = torch.Generator().manual_seed(0)
    stored, expected = load_file(source / "model.safetensors"), {}
    for name in [name for name in stored if name.endswith(("gate_up_proj", "down_proj"))]:
        num, inputs, outputs = stored.pop(name).shape
        codes = torch.randint(0, 16, (num, outputs, inputs // 32, 32), generator=draw, dtype=torch.uint8)
        powers = torch.randint(122, 126, (num, outputs, inputs // 32), generator=draw, dtype=torch.uint8)
        stored[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
        stored[f"{name}_scales"] = powers
        scaled = values[codes.long()] * torch.exp2(powers - 127.0)[..., None]
        expected[name] = scaled.view(num, outputs, inputs).mT
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    quantization(source, quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    model = load_model(ModelConfig(name=str(source), device="cpu", precision="float32"))
    for name, weight in expected.items():
        assert torch.equal(model.base.get_parameter(name), weight)
    save_model(model, saved)
    again, found = transformers.AutoModelForCausalLM.from_pretrained(
        saved, dtype=torch.float32, output_loading_info=True
    )
    assert not found["missing_keys"] | found["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=IDS).logits, model.base(input_ids=IDS).logits)


@pytest.mark.parametrize(
    ("settings", "package"),
    [({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"), ({"quant_method": "hqq"}, "HQQ")],
)
def test_packed_weights_without_their_package_are_one_line(
    tiny_folder: Path, tmp_path: Path, settings: dict[str, Any], package: str
) -> None:
    for path in tiny_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    quantization(tmp_path, **settings)
    with pytest.raises(UserError, match=rf"quantized by \w+; to unlearn, give the model before .*{package}") as caught:
        load_model(ModelConfig(name=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_model_that_reads_with_an_encoder_is_one_line(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"T5ForConditionalGeneration is no causal language model \(.* type 't5'\)$"):
        load_model(ModelConfig(name=str(tmp_path)))


def test_the_text_part_of_a_larger_model_is_told_from_other_kinds() -> None:
    config = transformers.Emu3TextConfig(architectures=["Emu3ForCausalLM"])
    with pytest.raises(UserError, match=r"type 'emu3_text_model'.* text part of a larger model, give the folder of"):
        check_kind("emu", config)


def test_a_head_that_needs_more_than_final_states_is_one_line(tokenizer: PreTrainedTokenizerBase) -> None:
    sizes = {"hidden_size": 16, "decoder_ffn_dim": 16, "num_decoder_layers": 1, "num_decoder_attention_heads": 2}
    config = transformers.ProphetNetConfig(vocab_size=len(tokenizer), is_decoder=True, **sizes)
    network = transformers.ProphetNetForCausalLM(config)
    with pytest.raises(UserError, match="ProphetNetForCausalLM computes its logits from more than final hidden states"):
        wrap_model(network, tokenizer, ModelConfig(name="prophet"))


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class HomeConfig(LlamaConfig):
    model_type = "home_made"


class HomeModel(LlamaForCausalLM):
    config_class = HomeConfig
"""


def test_a_model_with_code_of_its_own_loads_where_that_is_allowed(
    tiny_folder: Path, tmp_path: Path, examples: dict[str, tuple[Example, ...]]
) -> None:
    for path in tiny_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "home.py").write_text(CODE)
    content = json.loads((tmp_path / "config.json").read_text())
    content |= {"model_type": "home_made", "architectures": ["HomeModel"]}
    content["auto_map"] = {"AutoConfig": "home.HomeConfig", "AutoModelForCausalLM": "home.HomeModel"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"model\.name: cannot load"):
        load_model(ModelConfig(name=str(tmp_path)))
    config = ModelConfig(name=str(tmp_path), trust_remote_code=True)
    with granted(), pytest.raises(UserError, match=r"model\.trust_remote_code: .*--trust"):
        load_model(config)
    with granted({"model": {"trust_remote_code": True}}):
        model = load_model(config)
    assert type(model.base).__name__ == "HomeModel"
    plain = load_model(ModelConfig(name=str(tiny_folder)))
    with torch.no_grad():
        torch.testing.assert_close(model.base(input_ids=IDS).logits, plain.base(input_ids=IDS).logits)
    change(model)
    save_model(model, tmp_path / "saved")
    assert (tmp_path / "saved" / "home.py").read_text() == CODE


def opt(positions: int) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    config = transformers.OPTConfig(
        vocab_size=128, num_attention_heads=4, max_position_embeddings=positions, pad_token_id=0, **sizes
    )
    return transformers.OPTForCausalLM(config)


def test_rows_are_never_longer_than_a_table_of_positions(wrap: Callable[[Any], LanguageModel]) -> None:
    """Whatever the configuration says, which does not know of places that are kept for something else."""
    network = opt(24)
    model = wrap(network)
    assert model.layout.context == model.encoder.max_length == 24
    ids = torch.arange(24)[None] + 3
    assert torch.isfinite(network(input_ids=ids).logits).all()
    network = opt(24)
    network.config.max_position_embeddings = 4096
    assert wrap(network).encoder.max_length == 24


def test_answers_end_where_a_table_of_positions_does(wrap: Callable[[Any], LanguageModel]) -> None:
    """The last token is said at the last position and needs none itself; rows of other lengths go on."""
    network = opt(24)
    model = wrap(network)
    prompts = [list(range(5, 20)), list(range(30, 35)), list(range(40, 64))]
    found = decode(encode_prompts(model, prompts), 40, frozenset())
    assert [len(ids) for ids in found] == [10, 20, 1]
    ids = torch.tensor([prompts[0] + found[0][:-1]])
    assert network(input_ids=ids).logits[0, 14:].argmax(-1).tolist() == found[0]
    (beams,) = beam_search(model, prompts[:1], 2, 40, Bar())
    assert max(len(one.ids) for one in beams) <= 10


@pytest.mark.parametrize("name", ["max_seq_len", "n_positions"])
def test_the_context_has_many_names(wrap: Callable[[Any], LanguageModel], name: str) -> None:
    network = random_network("Llama")
    network.config.max_position_embeddings = 0
    setattr(network.config, name, 40)
    assert wrap(network).encoder.max_length == 40


def test_a_network_over_several_devices_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    network = random_network("Llama")
    network.model.layers[1].to("meta")
    with pytest.raises(UserError, match=r"model: the weights of this network are spread over cpu, meta \(device_map"):
        wrap_model(network, tokenizer, ModelConfig(name="random"))
