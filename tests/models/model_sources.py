"""One tiny taught model supplied in every way there is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from expunge.models.pull import cache_dir, embedded

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "somebody/tiny"
OTHER_TEMPLATE = (
    "{% for m in messages %}{{ 'ASK ' if m['role'] == 'user' else 'SAY ' }}{{ m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'SAY ' }}{% endif %}"
)


def plain(folder: Path, out: Path) -> str:
    """A copy with files that a saved model must take over, and some that it must not."""
    shutil.copytree(folder, out)
    (out / "tokenizer.model").write_bytes(bytes(range(256)))
    (out / "LICENSE").write_text("Apache-2.0\r\n", encoding="utf-8")
    (out / "README.md").write_text("# The original", encoding="utf-8")
    (out / "modeling_own.py").write_text("raise RuntimeError\n", encoding="utf-8")
    (out / "generation_config.json").write_text('{"eos_token_id": 0, "temperature": 0.9}', encoding="utf-8")
    (out / "assets").mkdir()
    (out / "assets" / "notes.txt").write_text("kept", encoding="utf-8")
    for old in ("pytorch_model.bin", "model.gguf", "consolidated.safetensors", "onnx/model.onnx", "optimizer.pt"):
        (out / old).parent.mkdir(exist_ok=True)
        (out / old).write_bytes(b"\x80\x02 old weights \xff")
    return str(out)


def halved(dtype: torch.dtype) -> Callable[[Path, Path], str]:
    """The same in a 16-bit dtype."""

    def build(folder: Path, out: Path) -> str:
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(out)
        AutoTokenizer.from_pretrained(folder).save_pretrained(out)
        return str(out)

    return build


def untied(folder: Path, out: Path) -> str:
    """A head of its own."""
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return str(out)


def sharded(folder: Path, out: Path) -> str:
    """Several files and an index."""
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(out, max_shard_size="300KB")
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    assert len(list(out.glob("*.safetensors"))) > 2
    return str(out)


def hub(folder: Path, out: Path) -> str:
    """The layout of the hub's cache: links to blobs. `HF_HUB_CACHE` must be `out`."""
    repo = out / "models--somebody--tiny"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for path in folder.iterdir():
        shutil.copyfile(path, repo / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    return HUB_ID


def embedded_name(folder: Path, out: Path) -> str:
    """The user's cache as if it had been pulled."""
    name = "smollm2-135m"
    shutil.copytree(folder, cache_dir() / f"{name}-{embedded()[name].sha256[:12]}")
    return name


def adapted(folder: Path, **options: Any) -> PeftModel:
    """A peft model with an adapter that does something."""
    torch.manual_seed(1)
    options = {"target_modules": ["q_proj", "down_proj"], **options}
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name or "lora_embedding" in name:
                weight.normal_(std=0.05)
    return network


def adapter(folder: Path, out: Path, **options: Any) -> str:
    """An adapter folder with a tokenizer of its own."""
    adapted(folder, **options).save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = OTHER_TEMPLATE
    tokenizer.save_pretrained(out)
    return str(out)


def on_tied_head(folder: Path, out: Path) -> str:
    """An adapter on a head that shares its weight with the embedding."""
    return adapter(folder, out, target_modules=["q_proj", "lm_head"])


def longer(folder: Path, out: Path) -> str:
    """An adapter with two tokens more than its base."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<note>", "</note>"])
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return str(out)


def on_adapter(folder: Path, out: Path) -> str:
    """An adapter whose base is an adapter folder."""
    first = adapter(folder, out / "first")
    adapter(folder, out / "second", target_modules=["v_proj"])
    path = out / "second" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": first}))
    return str(out / "second")


def gguf(folder: Path, out: Path) -> str:
    """One file of another program."""
    import gguf as format_

    out.mkdir()
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    words = json.loads((folder / "tokenizer.json").read_text())
    writer = format_.GGUFWriter(out / "tiny.gguf", "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in sorted(words["model"]["vocab"].items(), key=lambda item: item[1])])
    writer.add_token_merges([" ".join(pair) for pair in words["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for name, tensor in tensors.items():
        array = tensor.numpy()
        for kind, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if f"{kind}.weight" in name:  # llama.cpp interleaves the two halves of a head
                split = array.reshape(config[heads], 2, -1, array.shape[1])
                array = numpy.ascontiguousarray(split.swapaxes(1, 2).reshape(array.shape))
        writer.add_tensor(_gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(out / "tiny.gguf")


def _gguf_name(name: str) -> str:
    for old, new in (
        ("model.embed_tokens", "token_embd"),
        ("model.layers", "blk"),
        ("model.norm", "output_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ):
        name = name.replace(old, new)
    return name


NAMED: dict[str, Callable[[Path, Path], str]] = {
    "folder": plain,
    "bfloat16": halved(torch.bfloat16),
    "float16": halved(torch.float16),
    "untied": untied,
    "sharded": sharded,
    "hub": hub,
    "embedded": embedded_name,
    "gguf": gguf,
    "adapter": adapter,
    "adapter on a tied head": on_tied_head,
    "adapter with more tokens": longer,
    "adapter on an adapter": on_adapter,
}
"""Ways to supply a model by name: each builds it from the tiny folder at a path and gives the name."""
