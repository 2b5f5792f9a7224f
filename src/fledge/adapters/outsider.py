"""Runs by itself: loads adapters with plain peft where Fledge cannot be imported, and writes their logits.

It is what somebody without Fledge would write, so it shares no code with Fledge.
"""

import json
import sys
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer


def logits_of(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Float32 logits [T,V] of each row of ids, by its place; of an encoder-decoder those of what it has written."""
    tokenizer = AutoTokenizer.from_pretrained(case["adapter"])
    where = {"revision": case["revision"], "trust_remote_code": case["trust_remote_code"]}
    is_pair = AutoConfig.from_pretrained(case["base"], **where).is_encoder_decoder
    base = (AutoModelForSeq2SeqLM if is_pair else AutoModelForCausalLM).from_pretrained(
        case["base"],
        **where,
        dtype=getattr(torch, case["dtype"]),
        attn_implementation=case["attention"],
    )
    if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PeftModel.from_pretrained(base, case["adapter"]).to(case["device"]).eval()
    found = {}
    with torch.no_grad():
        for place, row in enumerate(case["rows"]):
            inputs = {"input_ids": torch.tensor([row], device=case["device"])}
            if is_pair:
                inputs["decoder_input_ids"] = torch.tensor([case["written"][place]], device=case["device"])
            found[str(place)] = model(**inputs, use_cache=False).logits[0].float().cpu().contiguous()
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
