"""From the command line to a hub over HTTP and back: cut off, refused, taken up again, loaded by plain libraries."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import HubServer, serving
from tests.runs import environment, fledge, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

TOKEN = "hf_" + "notarealone" * 3
LOADED = """
{card}
ids = tokenizer("three plus four =", return_tensors="pt").input_ids
logits = model.eval()(input_ids=ids).logits.detach()
assert logits.shape[1] == ids.shape[1] > 4
open(sys.argv[1], "wb").write(logits.numpy().tobytes())
"""
DOWNLOAD = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    base, rows = tiny_folder("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    changes = {"data__validation": {"fraction": 0.2}}
    recipe = write_recipe(folder / "recipe.yaml", recipe_dict(base, rows, folder / "run", **changes))
    fledge("train", str(recipe))
    return folder / "run"


@pytest.fixture
def hub():
    with serving() as server:
        server.add_user("ada", TOKEN)
        yield server


def reach(hub: HubServer, home: Path) -> dict[str, str]:
    """What makes this hub the only one there is."""
    never = {"HTTP_PROXY": "", "http_proxy": "", "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return {**never, **where}


def push(hub: HubServer, home: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    done = fledge("push", *arguments, check=False, **(reach(hub, home) | changes))
    assert "Traceback" not in done.stderr and TOKEN not in done.stdout + done.stderr
    return done


def has_token(*folders: Path) -> list[Path]:
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in found if TOKEN.encode() in path.read_bytes()]


def sha256_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def elsewhere(hub: HubServer, home: Path, code: str, *arguments: str) -> str:
    """A program of somebody who has the hub and the libraries, and nothing of Fledge."""
    program = f"import sys; sys.modules['fledge'] = None\n{code}"
    settings = environment(**reach(hub, home))
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load_as_the_card_says(hub: HubServer, home: Path, card: str, out: Path, *, base: Path) -> bytes:
    """The bytes of the logits that the card's own lines lead to."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    elsewhere(hub, home, LOADED.format(card=code.replace('"base"', repr(str(base)))), str(out))
    return out.read_bytes()


@pytest.mark.slow
def test_an_adapter_goes_to_the_hub_and_comes_back_as_it_was(hub, run, tmp_path):
    told = json.loads(push(hub, tmp_path / "home", str(run), "little", "--json").stdout)
    assert told["repo"] == "ada/little" and not told["is_public"] and told["is_changed"]
    assert told["url"] == f"{hub.url}/ada/little" and len(told["commit"]) == 40
    assert hub.repos["ada/little"].is_private and len(hub.repos["ada/little"].commits) == 2

    back = Path(elsewhere(hub, tmp_path / "other", DOWNLOAD, "ada/little"))
    certificate = json.loads((back / "certificate.json").read_text())
    found = sha256_of(back)
    assert set(certificate["sha256"].items()) <= set(found.items())
    assert (run / "adapter/adapter_model.safetensors").read_bytes() == (back / "adapter_model.safetensors").read_bytes()

    card, base = (back / "README.md").read_text(), run.parent / "base"
    ours = load_as_the_card_says(hub, tmp_path / "other", card, tmp_path / "hub", base=base)
    local = card.replace('"ada/little"', repr(str(run / "adapter")))
    assert ours == load_as_the_card_says(hub, tmp_path / "other", local, tmp_path / "local", base=base)

    again = push(hub, tmp_path / "home", str(run), "little")
    assert "nothing had changed" in again.stdout and told["commit"] in again.stdout
    assert len(hub.uploads()) == len(set(hub.uploads())) == 2
    assert has_token(run, tmp_path) == []


@pytest.mark.slow
def test_a_merged_model_whose_push_is_killed_in_the_middle_goes_on_where_it_was(hub, run, tmp_path):
    exported = tmp_path / "export"
    fledge("export", str(run), str(exported), "--to", "hf")
    weights = hashlib.sha256((exported / "model.safetensors").read_bytes()).hexdigest()
    rule = hub.hold(f"PUT /storage/{weights}", after=20_000)
    arguments = [str(run), "ada/merged", "--export", str(exported)]
    settings = environment(**reach(hub, tmp_path / "home"))
    process = subprocess.Popen([sys.executable, "-m", "fledge", "push", *arguments], env=settings)
    assert rule.held.wait(240), "the upload of the weights has begun"
    process.kill()
    assert process.wait() == -9
    rule.hold.set()
    assert set(hub.files("ada/merged")) == {".gitattributes"}, "nothing half is seen"

    before = hub.uploads()
    told = json.loads(push(hub, tmp_path / "home", *arguments, "--json").stdout)
    assert hub.uploads()[len(before) :].count(weights) == 1
    assert len(hub.uploads()) == len(set(hub.uploads())) == 2, "what had arrived was not sent again"
    assert len(hub.repos["ada/merged"].commits) == 2 and hub.repos["ada/merged"].branches["main"] == told["commit"]
    files = {name: hashlib.sha256(content).hexdigest() for name, content in hub.files("ada/merged").items()}
    certified = json.loads((exported / "certificate.json").read_text())["sha256"]
    assert "model.safetensors" in certified and set(certified.items()) <= set(files.items())

    back = Path(elsewhere(hub, tmp_path / "other", DOWNLOAD, "ada/merged"))
    card = (back / "README.md").read_text()
    ours = load_as_the_card_says(hub, tmp_path / "other", card, tmp_path / "hub", base=run)
    local = card.replace('"ada/merged"', repr(str(exported)))
    assert ours == load_as_the_card_says(hub, tmp_path / "other", local, tmp_path / "local", base=run)


@pytest.mark.slow
def test_a_connection_that_keeps_breaking_loses_nothing(hub, run, tmp_path):
    hub.part_bytes = 8000
    exported = tmp_path / "export"
    fledge("export", str(run), str(exported), "--to", "adapter")
    weights = hashlib.sha256((exported / "adapter_model.safetensors").read_bytes()).hexdigest()
    hub.drop(f"PUT /storage/{weights}/2", after=2000, times=6)
    arguments = [str(run), "little", "--export", str(exported)]
    first = push(hub, tmp_path / "home", *arguments)
    assert first.returncode == 2 and "connection broke" in first.stderr
    assert "run the same command again" in first.stderr and "Signature" not in first.stderr
    assert set(hub.files("ada/little")) == {".gitattributes"}, "nothing half is seen"
    arrived, so_far = set(hub.storage), len(hub.log)
    assert arrived and weights not in arrived

    second = push(hub, tmp_path / "home", *arguments)
    assert second.returncode == 0
    sent = [request.path for request in hub.log[so_far:] if request.path.startswith("/storage/")]
    assert sent and all(weights in path for path in sent), "what had arrived was not sent again"
    assert hub.files("ada/little")["adapter_model.safetensors"] == (exported / "adapter_model.safetensors").read_bytes()
    assert len(hub.repos["ada/little"].commits) == 2
    assert has_token(run, tmp_path) == []


@pytest.mark.slow
def test_a_refused_token_is_one_sentence_and_is_nowhere_to_be_found(hub, run, tmp_path):
    hub.tokens.clear()
    refused = push(hub, tmp_path / "home", str(run), "little", "--json", HF_DEBUG="1")
    assert refused.returncode == 2 and hub.requests("POST ") == []
    (problem,) = json.loads(refused.stdout)["problems"]
    assert "does not accept the token (401)" in problem["what"] and "HF_TOKEN" in problem["cure"]
    assert has_token(run, tmp_path) == []
    without = push(hub, tmp_path / "home", str(run), "little", HF_TOKEN="")
    assert without.returncode == 2 and "there is no token" in without.stderr
    offline = push(hub, tmp_path / "home", str(run), "little", HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "HF_HUB_OFFLINE" in offline.stderr
    uncertified = push(hub, tmp_path / "home", str(run), "little", "--export", str(run / "adapter"))
    assert uncertified.returncode == 1 and "no certificate" in uncertified.stderr


def test_the_token_has_no_option_of_its_own():
    shown = fledge("push", "--help").stdout
    assert "--token" not in shown and "HF_TOKEN" in shown
    assert os.environ.get("HF_TOKEN", "never") not in shown
