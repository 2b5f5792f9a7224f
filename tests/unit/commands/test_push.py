"""A push sends what was certified and nothing else, to where it was asked for, and says so when it cannot."""

import json
import logging
import shutil
import traceback
from pathlib import Path

import pytest
from huggingface_hub import constants
from ruamel.yaml import YAML

from fledge.commands.evaluate import Question, evaluate
from fledge.commands.export import export
from fledge.commands.opening import Opening
from fledge.commands.push import Address, Parcel, push
from fledge.errors import FledgeError, ProofError, RunError
from fledge.rundir import locked
from tests.hub_server import serving
from tests.runs import write_rows

TOKEN = "hf_" + "notarealone" * 3
ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "certificate.json"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as server:
        server.add_user("ada", TOKEN)
        server.organisations["acme"] = set()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def made(trained_run, tmp_path_factory):
    """A run with two exports of it, which no test touches."""
    run, folder = trained_run("llama"), tmp_path_factory.mktemp("exports")
    for to in ("adapter", "hf"):
        export(run, folder / to, to=to)
    return run, folder


@pytest.fixture
def run(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / "run"))


@pytest.fixture
def adapter(made, tmp_path):
    return Path(shutil.copytree(made[1] / "adapter", tmp_path / "adapter"))


@pytest.fixture
def merged(made, tmp_path):
    return Path(shutil.copytree(made[1] / "hf", tmp_path / "hf"))


def refused(kind, *arguments, **options) -> str:
    """What a push that must fail says; its words and those of all that led to it hold no token."""
    with pytest.raises(kind) as caught:
        push(*arguments, **options)
    assert isinstance(caught.value, FledgeError)
    (problem,) = caught.value.problems
    assert problem.what and problem.cure
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def writes(hub) -> list[str]:
    """Requests that would change something."""
    return [f"{r.method} {r.path}" for r in hub.requests(r"^(POST|PUT) ") if "validate-yaml" not in r.path]


def test_a_push_makes_a_private_repository_and_shows_everything_in_one_commit(hub, run, adapter):
    told = []
    pushed = push(run, "first", parcel=Parcel(folder=adapter), tell=told.append)
    repo, files = hub.repos["ada/first"], hub.files("ada/first")
    assert repo.is_private and len(repo.commits) == 2, "the hub's first commit, and ours"
    assert pushed.sent.commit == repo.branches["main"] and pushed.sent.is_changed
    assert pushed.sent.url == f"{hub.url}/ada/first" and not pushed.sent.is_public
    assert set(files) >= ADAPTER | {"README.md"}
    for path in adapter.iterdir():
        assert path.name == "certificate.html" or files[path.name] == path.read_bytes(), path.name
    assert "certificate.html" not in files, "nothing vouches for it"
    assert files["README.md"].decode() == pushed.card
    assert not any(request.has_token for request in hub.requests(r"^PUT /storage/")), "the store never sees the token"
    assert any("private" in line for line in told)


def test_a_second_push_of_the_same_sends_nothing_and_commits_nothing(hub, run, adapter):
    first = push(run, "ada/first", parcel=Parcel(folder=adapter))
    uploads = hub.uploads()
    second = push(run, "ada/first", parcel=Parcel(folder=adapter))
    assert hub.uploads() == uploads and len(uploads) == 2
    assert second.sent.commit == first.sent.commit and not second.sent.is_changed
    assert len(hub.repos["ada/first"].commits) == 2


def test_without_a_folder_the_run_is_exported_into_its_own_once(hub, run):
    hub.fail(r"POST .*/commit/", status=503)
    assert "trouble of its own (503)" in refused(RunError, run, "first")
    kept = run / "exports/adapter-last/adapter_model.safetensors"
    written = kept.stat().st_mtime_ns
    told = []
    pushed = push(run, "first", tell=told.append)
    assert kept.stat().st_mtime_ns == written and any("as it was certified" in line for line in told)
    assert len(hub.uploads()) == 2 == len(set(hub.uploads())), "what had arrived was not sent again"
    assert pushed.export == kept.parent.resolve() and pushed.sent.is_changed
    (kept.parent / "tokenizer.json").write_text("{}")
    told.clear()
    push(run, "first", tell=told.append)
    assert kept.stat().st_mtime_ns != written and any("made anew" in line for line in told)
    assert not (run / "exports/adapter-last/README.md").exists()


def test_what_a_killed_export_left_is_removed_and_two_do_not_meet(hub, run):
    left = run / "exports/.adapter-last.123.tmp"
    left.mkdir(parents=True)
    with locked(run / "exports"):
        assert "another push" in refused(RunError, run, "first")
    assert left.is_dir()
    push(run, "first")
    assert not left.exists()


def test_a_public_push_says_what_else_everybody_will_see(hub, run, adapter):
    edit(adapter, checks={"text": {"answers": [{"prompt": "mine"}] * 4}}, probe={"from": "validation rows"})
    told = []
    push(run, "first", parcel=Parcel(folder=adapter), tell=told.append)
    assert not any("everybody" in line for line in told)
    push(run, "second", parcel=Parcel(folder=adapter), address=Address(is_public=True), tell=told.append)
    revealed = [line for line in told if "everybody" in line]
    assert len(revealed) == 2 and "quotes 4 prompts" in revealed[0] and str(run.parent) not in revealed[0]
    assert "name the base by its path" in revealed[1]


def test_a_merged_model_takes_the_place_of_an_adapter_and_leaves_nothing_to_mix_with(hub, run, adapter, merged):
    push(run, "first", parcel=Parcel(folder=adapter))
    told = []
    pushed = push(
        run, "first", parcel=Parcel("hf", "float32", folder=merged), opening=Opening("last"), tell=told.append
    )
    assert set(pushed.sent.removed) == {"adapter_config.json", "adapter_model.safetensors"}
    names = {path.name for path in merged.iterdir()} - {"certificate.html"}
    assert set(hub.files("ada/first")) == names | {"README.md", ".gitattributes"}
    assert any("adapter_model.safetensors" in line and "history" in line for line in told)
    assert len(hub.repos["ada/first"].commits) == 3


def test_weights_of_somebody_else_are_neither_mixed_with_nor_removed(hub, run, adapter):
    hub.add_repo("ada/theirs", is_private=True, files={"pytorch_model.bin": b"0", "notes.md": b"mine"})
    assert "pytorch_model.bin" in refused(RunError, run, "theirs", parcel=Parcel(folder=adapter))
    assert writes(hub) == []
    hub.add_repo("ada/notes", is_private=True, files={"notes.md": b"mine", "README.md": b"old"})
    push(run, "notes", parcel=Parcel(folder=adapter))
    assert hub.files("ada/notes")["notes.md"] == b"mine"


def test_another_branch_is_made_where_it_is_missing(hub, run, adapter):
    pushed = push(run, "first", parcel=Parcel(folder=adapter), address=Address("v2/small", message="Two\n\nlines"))
    assert set(hub.repos["ada/first"].branches) == {"main", "v2/small"}
    assert set(hub.files("ada/first")) == {".gitattributes"}
    assert set(hub.files("ada/first", "v2/small")) > ADAPTER
    assert pushed.sent.url.endswith("/ada/first/tree/v2/small")
    assert hub.repos["ada/first"].messages[-1] == "Two\n\nlines"
    assert 'from_pretrained("ada/first", revision="v2/small")' in pushed.card


def test_who_may_see_it_is_never_changed_in_silence(hub, run, adapter):
    hub.add_repo("ada/open", is_private=False)
    hub.add_repo("ada/closed", is_private=True)
    parcel, public = Parcel(folder=adapter), Address(is_public=True)
    said = refused(RunError, run, "open", parcel=parcel)
    assert "is public" in said and "--public" in said
    assert "is private" in refused(RunError, run, "closed", parcel=parcel, address=public)
    assert writes(hub) == [] and set(hub.files("ada/open")) == {".gitattributes"}
    assert push(run, "open", parcel=parcel, address=public).sent.is_public
    push(run, "new", parcel=parcel, address=public)
    assert not hub.repos["ada/new"].is_private and not hub.repos["ada/open"].is_private


def test_a_hub_that_makes_a_public_repository_where_a_private_one_was_asked_for_gets_nothing(hub, run, adapter):
    hub.makes_all_public = True
    assert "is public" in refused(RunError, run, "first", parcel=Parcel(folder=adapter))
    assert hub.uploads() == [] and set(hub.files("ada/first")) == {".gitattributes"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b/c",
        "../x",
        "a..b",
        "-x",
        "x.git",
        "a b",
        "a/b\n",
        "ada/\x1b[31m",
        "x" * 97,
        "https://h/a",
        "a--b",
        "ü/x",
    ],
)
def test_a_name_that_cannot_be_one_is_refused_before_anything(name, hub, run, adapter):
    said = refused(RunError, run, name, parcel=Parcel(folder=adapter))
    assert "OWNER/NAME" in said and "\x1b" not in said and hub.log == []


@pytest.mark.parametrize("revision", ["", "refs/pr/1", "a..b", "/x", "x/", "a b", "-x", "x.lock", "a\nb", "x?y=1"])
def test_a_branch_that_cannot_be_one_is_refused_before_anything(revision, hub, run, adapter):
    said = refused(RunError, run, "first", parcel=Parcel(folder=adapter), address=Address(revision))
    assert "branch" in said and hub.log == []


def edit(folder: Path, **changes) -> None:
    path = folder / "certificate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


HARM = {
    "no certificate": lambda folder: (folder / "certificate.json").unlink(),
    "torn certificate": lambda folder: (folder / "certificate.json").write_text('{"passed": tr'),
    "not an object": lambda folder: (folder / "certificate.json").write_text("[true]"),
    "not passed": lambda folder: edit(folder, passed=False),
    "passed by a word": lambda folder: edit(folder, passed="true"),
    "another form": lambda folder: edit(folder, version=99),
    "checks of a wrong type": lambda folder: edit(folder, checks=[]),
    "no adapter": lambda folder: edit(folder, adapter=None),
    "no files": lambda folder: edit(folder, sha256={}),
    "files of a wrong type": lambda folder: edit(folder, sha256={"tokenizer.json": None}),
    "a file outside": lambda folder: edit(folder, sha256={"../run/recipe.yaml": "0" * 64}),
    "changed": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "one bit": lambda folder: flip(folder / "adapter_model.safetensors"),
    "missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "extra": lambda folder: (folder / "notes.txt").write_text("hello"),
    "extra and hidden": lambda folder: (folder / ".env").write_text("SECRET=1"),
    "extra and below": lambda folder: (folder / "sub").mkdir() or (folder / "sub/x.py").write_text("1"),
    "a link": lambda folder: (folder / "link").symlink_to(folder.parent / "run"),
    "a link to the same": lambda folder: relink(folder / "tokenizer.json"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def relink(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere.json")
    path.symlink_to(path.parent.parent / "elsewhere.json")


@pytest.mark.parametrize("harm", HARM)
def test_what_is_not_as_it_was_certified_is_refused_before_the_hub_is_asked(harm, hub, run, adapter):
    HARM[harm](adapter)
    refused(ProofError, run, "first", parcel=Parcel(folder=adapter))
    assert hub.log == [] and ProofError.exit_code == 1


def test_an_export_of_another_run_is_refused(hub, trained_run, adapter):
    other = trained_run("llama", train__max_steps=3)
    assert "another adapter" in refused(ProofError, other, "first", parcel=Parcel(folder=adapter))
    assert hub.log == []


def test_what_is_said_of_an_export_must_be_true_of_it(hub, run, adapter, merged):
    said = refused(RunError, run, "first", parcel=Parcel("hf", folder=adapter))
    assert "--to says hf" in said and "is adapter" in said
    assert "--dtype" in refused(RunError, run, "first", parcel=Parcel(dtype="bfloat16", folder=merged))
    assert "--which" in refused(RunError, run, "first", parcel=Parcel(folder=adapter), opening=Opening("best"))
    assert "no effect" in refused(RunError, run, "first", parcel=Parcel(dtype="bfloat16"))
    assert "its own recipe" in refused(FledgeError, run, "first", opening=Opening(recipe="recipe.yaml"))
    assert hub.log == []


STATUSES = {
    401: "does not accept the token",
    402: "refuses (402)",
    403: "may not write",
    409: "by somebody else",
    412: "by somebody else",
    413: "refuses (413)",
    429: "asks for patience",
    500: "trouble of its own",
    503: "trouble of its own",
}


@pytest.mark.parametrize("status", STATUSES)
def test_each_refusal_is_one_sentence_without_the_token_even_where_the_hub_repeats_it(status, hub, run, adapter):
    hub.fail(r"POST .*/commit/", status=status, body=f"no: Bearer {TOKEN} at http://x:y@host/a?sig=1 \x1b[31m")
    said = refused(RunError, run, "first", parcel=Parcel(folder=adapter))
    assert STATUSES[status] in said and "(token)" in said
    assert "sig=1" not in said and "x:y@" not in said and "\x1b" not in said
    assert push(run, "first", parcel=Parcel(folder=adapter)).sent.is_changed
    assert len(hub.uploads()) == 2, "nothing was sent twice"


def test_a_token_that_is_refused_or_may_only_read_says_so_at_once(hub, run, adapter, monkeypatch):
    parcel = Parcel(folder=adapter)
    hub.add_user("eve", "hf_" + "readerreader", role="read")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "readerreader")
    assert "may only read" in refused(RunError, run, "first", parcel=parcel)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "unknownunknown")
    said = refused(RunError, run, "first", parcel=parcel)
    assert "does not accept the token" in said and "unknownunknown" not in said
    for strange in ("hf_a\x0bb" + "c" * 9, "hf_ünknown", "hf_two words"):
        monkeypatch.setenv("HF_TOKEN", strange)
        assert strange not in refused(RunError, run, "first", parcel=parcel)
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in refused(RunError, run, "first", parcel=parcel)
    assert writes(hub) == []


def test_a_namespace_of_others_is_refused_and_nothing_is_sent(hub, run, adapter):
    said = refused(RunError, run, "acme/first", parcel=Parcel(folder=adapter))
    assert "may not write to acme/first (403)" in said and hub.uploads() == []
    hub.add_repo("acme/secret", is_private=True)
    assert "(403)" in refused(RunError, run, "acme/secret", parcel=Parcel(folder=adapter))
    hub.organisations["acme"].add("ada")
    push(run, "acme/first", parcel=Parcel(folder=adapter))
    assert set(hub.files("acme/first")) > ADAPTER


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "http://hub.invalid", "not-an-address", "http://[::1", "ftp://x"]
)
def test_a_hub_out_of_reach_is_said_with_its_address(address, hub, run, adapter, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    said = refused(RunError, run, "first", parcel=Parcel(folder=adapter))
    assert address in said or "HF_ENDPOINT" in said


def test_offline_mode_says_so(hub, run, adapter, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(RunError, run, "first", parcel=Parcel(folder=adapter))
    assert hub.log == []


ADDRESSES = ["whoami-v2", "repos/create", "models/ada/first$", "preupload", "objects/batch", "verify$", "commit/main"]


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", "{}", '{"objects": [{}], "files": [{}]}'])
def test_something_else_than_a_hub_is_no_traceback(body, hub, run, adapter):
    for address in ADDRESSES:
        hub.fail(rf"(GET|POST) .*{address}", status=200, body=body)
    for _ in range(2 * len(ADDRESSES)):
        try:
            push(run, "first", parcel=Parcel(folder=adapter))
        except (RunError, ProofError) as error:
            assert TOKEN not in "".join(traceback.format_exception(error))
    assert set(hub.files("ada/first")) > ADAPTER, "and then it works"
    assert not any(rule.times for rule in hub.rules)


@pytest.mark.parametrize("part_bytes", [None, 5000])
def test_a_connection_that_drops_once_in_the_middle_of_a_file_is_made_anew(part_bytes, hub, run, adapter):
    hub.part_bytes = part_bytes
    told = []
    hub.drop(r"PUT /storage/", after=3000)
    push(run, "first", parcel=Parcel(folder=adapter), tell=told.append)
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    assert hub.files("ada/first")["adapter_model.safetensors"] == weights
    assert any("Retrying" in line for line in told)
    assert not any("Signature" in line for line in told), "an address that is signed is a secret too"
    assert bool(hub.requests(r"^POST /complete/")) == (part_bytes is not None)


def test_a_file_that_the_hub_leaves_out_is_noticed(hub, run, adapter):
    hub.ignored.add("generation_config.json")
    said = refused(ProofError, run, "first", parcel=Parcel(folder=adapter))
    assert "generation_config.json" in said


def test_somebody_elses_commit_in_the_meantime_is_not_written_over(hub, run, adapter):
    hub.add_repo("ada/first", is_private=True)

    def meddle(line: str) -> None:
        if line.startswith("sending"):
            hub.repos["ada/first"].commit("main", hub.files("ada/first") | {"theirs.txt": b"1"}, "theirs")

    assert "by somebody else" in refused(RunError, run, "first", parcel=Parcel(folder=adapter), tell=meddle)
    push(run, "first", parcel=Parcel(folder=adapter))
    assert hub.files("ada/first")["theirs.txt"] == b"1" and len(hub.uploads()) == 2


def test_the_token_is_in_no_log_at_any_level(hub, run, adapter, caplog, capfd, monkeypatch):
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    hub.drop(r"PUT /storage/", after=3000)
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "httpx", "httpcore", "fledge")]
    propagates = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = True
        caplog.set_level(logging.DEBUG, logger.name)
    try:
        push(run, "first", parcel=Parcel(folder=adapter))
    finally:
        for logger, was in zip(loggers, propagates, strict=True):
            logger.propagate = was
    shown = capfd.readouterr()
    assert caplog.records
    assert not any(TOKEN in record.getMessage() for record in caplog.records)
    assert TOKEN not in shown.out + shown.err
    assert not any(TOKEN.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def with_test(run: Path, rows: Path | None) -> Path:
    """The run, whose recipe names `rows` as data.test."""
    recipe = run / "recipe.yaml"
    tree = YAML(typ="safe").load(recipe.read_text())
    tree["data"]["test"] = None if rows is None else {"path": str(rows), "format": "completion"}
    recipe.write_text(json.dumps(tree))
    return run


def test_a_card_quotes_only_results_of_the_rows_that_the_recipe_means(hub, run, adapter, tmp_path):
    first, second = write_rows(tmp_path / "first.jsonl", count=6), write_rows(tmp_path / "second.jsonl", count=3)
    evaluate(run, question=Question(max_rows=5))
    result = evaluate(with_test(run, first), question=Question("test"))

    def card(rows: Path | None) -> tuple[str, list[str]]:
        told: list[str] = []
        pushed = push(with_test(run, rows), "first", parcel=Parcel(folder=adapter), tell=told.append)
        return pushed.card, [line for line in told if "left out of the card" in line]

    text, notes = card(first)
    named = f"test, 6 rows of first.jsonl (sha256 of all its rows {result.rows_sha256[:12]})"
    assert named in text and "validation, 5 rows of rows.jsonl" in text and notes == []
    text, [note] = card(second)
    assert "test, 6 rows" not in text and "validation, 5 rows" in text
    assert "is of other rows than data.test has now" in note
    assert f"`fledge evaluate {run} --on test` measures again" in note
    first.write_text(first.read_text().replace("one", "two"))
    assert "is of other rows" in card(first)[1][0]
    first.unlink()
    assert named in card(first)[0], "rows that are gone are those that the result names"
    assert "is of another data set than data.test names now" in card(None)[1][0]
    assert evaluate(with_test(run, second), question=Question("test")).fuller is None
    assert "test, 3 rows of second.jsonl" in card(second)[0]


def test_a_result_of_an_older_version_is_quoted_without_the_name_of_a_data_set(hub, run, adapter):
    path = evaluate(run, question=Question(max_rows=5)).folder / "result.json"
    told = json.loads(path.read_text())
    older = {name: value for name, value in told.items() if name not in ("source", "rows_sha256")}
    path.write_text(json.dumps(older))
    assert "validation, 5 rows, of a data set that was not noted" in push(run, "a", parcel=Parcel(folder=adapter)).card
    path.write_text(json.dumps(told | {"rows_sha256": "0" * 64}))
    assert "validation, 5 rows" not in push(run, "b", parcel=Parcel(folder=adapter)).card
    path.write_text("{")
    lines: list[str] = []
    assert "validation, 5 rows" not in push(run, "c", parcel=Parcel(folder=adapter), tell=lines.append).card
    assert any("result.json cannot be read" in line for line in lines)
