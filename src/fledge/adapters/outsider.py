"""Runs by itself: loads adapters with plain peft where Fledge cannot be imported, and writes their logits.

It is what somebody without Fledge would write, so it shares no code with Fledge.
"""

import json
import sys
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def logits_of(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Float32 logits [T,V] of each row of ids, by the row's place."""
    tokenizer = AutoTokenizer.from_pretrained(case["adapter"])
    base = AutoModelForCausalLM.from_pretrained(
        case["base"],
        revision=case["revision"],
        trust_remote_code=case["trust_remote_code"],
        dtype=getattr(torch, case["dtype"]),
        attn_implementation=case["attention"],
    )
    if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PeftModel.from_pretrained(base, case["adapter"]).to(case["device"]).eval()
    found = {}
    with torch.no_grad():
        for place, row in enumerate(case["rows"]):
            ids = torch.tensor([row], device=case["device"])
            found[str(place)] = model(input_ids=ids, use_cache=False).logits[0].float().cpu().contiguous()
    return found


def main() -> None:
    """Work off the cases in the JSON file that is named on the command line."""
    sys.modules["fledge"] = None  # type: ignore[assignment]
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        request = json.load(file)
    torch.set_num_threads(request["threads"])
    for case in request["cases"]:
        save_file(logits_of(case), case["out"])


if __name__ == "__main__":
    main()
