"""What a process without Expunge makes of saved folders: `python plain_reader.py FOLDERS.json OUT.json`.

Uses transformers and peft only, as somebody would who was sent the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: Path, dtype: Any) -> Any:
    """The model in a folder, whether it holds an adapter or a whole model."""
    if (folder / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@torch.no_grad()
def read(folder: Path) -> dict[str, Any]:
    """Logits, a greedy answer, and what the configuration and the tokenizer say."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turn = [{"role": "user", "content": "Who wrote it?"}]
    prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    stored = load(folder, "auto")
    wide = stored if stored.dtype == torch.float32 else load(folder, torch.float32)
    answer = wide.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    return {
        "dtype": str(stored.dtype),
        "logits": wide(ids).logits.flatten().tolist(),
        "stored_logits": [] if wide is stored else stored(ids).logits.float().flatten().tolist(),
        "answer": answer.tolist(),
        "use_cache": wide.config.use_cache,
        "temperature": wide.generation_config.temperature,
        "prompt": prompt,
        "ids": ids.tolist(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    folders = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps({name: read(Path(name)) for name in folders}), encoding="utf-8")
