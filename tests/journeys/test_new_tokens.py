"""A chat template's own tokens on a base without them: added, trained, saved, and loaded by plain peft."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fledge.commands.open_run import load_tuned, open_run
from fledge.commands.train import train
from tests.runs import environment, load, recipe_dict
from tests.tiny_models import VOCABULARY, tiny_folder

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
PLAIN = """
import sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
assert "fledge" not in sys.modules
base, adapter, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
model = PeftModel.from_pretrained(model, adapter).eval()
turn = [{"role": "user", "content": "ka lo"}]
ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
assert tokenizer.convert_tokens_to_ids("<|im_start|>") in ids
with torch.no_grad():
    torch.save(model(torch.tensor([ids])).logits, out)
print(len(tokenizer), ids)
"""


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_chatml_on_a_base_without_it_is_trained_and_loads_in_plain_peft(architecture, tmp_path):
    base = tiny_folder(architecture, tmp_path / "base")
    content = recipe_dict(
        base,
        SAMPLES / "chat.jsonl",
        tmp_path / "run",
        data__chat_template="chatml",
        data__max_length=512,
        train__max_steps=3,
    )
    content["data"]["train"]["format"] = "chat"
    result = train(load(tmp_path / "recipe", content))
    tensors = load_file(result.run / "adapter" / "adapter_model.safetensors")
    rows = {name: tensor for name, tensor in tensors.items() if "trainable_tokens" in name}
    assert rows and all(tensor.shape[0] == 2 for tensor in rows.values())
    out = tmp_path / "logits.pt"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(base), str(result.run / "adapter"), str(out)],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{VOCABULARY + 2} ")
    opened = open_run(result.run)
    messages = [{"role": "user", "content": "ka lo"}]
    ids = opened.tokenizer.encode_batch([opened.tokenizer.render(messages, add_generation_prompt=True)])[0].ids
    with torch.no_grad():
        ours = load_tuned(opened).model(torch.tensor([ids])).logits
    torch.testing.assert_close(ours, torch.load(out, weights_only=True), rtol=0, atol=1e-5)
