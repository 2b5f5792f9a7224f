"""Each tracker writes what it was told, with no network."""

import json
import socket
import struct
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from fledge.events import Event, Finished, Resumed, StepDone, TrainStarted, Validated
from fledge.observe.trackers import open_trackers
from fledge.observe.wandb import choose_mode
from fledge.rundir import RunDir

RECIPE = "model: {name_or_path: builtin:nestling}\ndata: {train: {path: rows.jsonl, format: text}}\n"


def events(first: int, last: int, *, loss: float) -> list[Event]:
    return [
        StepDone(step=n, loss=loss + n, grad_norm=0.5, learning_rate=0.1, tokens=10, supervised_tokens=5, seconds=0.5)
        for n in range(first, last + 1)
    ]


def started(run: RunDir) -> TrainStarted:
    return TrainStarted(
        run=str(run.root), total_steps=4, world_size=1, trainable_parameters=4, base_parameters=400, device="cpu"
    )


def tell(run: RunDir, name: str, told: list[Event]) -> None:
    (observer,) = open_trackers((name,), run)
    for event in told:
        observer(event)
    observer.close()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "a run")
    run.root.mkdir()
    run.recipe.write_text(RECIPE)
    return run


def test_tensorboard_has_every_number_and_after_a_resume_the_last_telling(run: RunDir) -> None:
    validated = Validated(step=3, loss=0.25, tokens=10, is_best=True, seconds=0.1)
    tell(run, "tensorboard", [started(run), *events(1, 3, loss=10), validated])
    tell(run, "tensorboard", [started(run), Resumed(from_step=2), *events(3, 4, loss=20)])
    accumulator = EventAccumulator(str(run.trackers / "tensorboard"))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert set(tags) == {
        "train/loss", "train/grad_norm", "train/learning_rate", "train/tokens_per_second", "validation/loss",
    }  # fmt: skip
    losses = [(scalar.step, scalar.value) for scalar in accumulator.Scalars("train/loss")]
    assert losses == [(1, 11.0), (2, 12.0), (3, 23.0), (4, 24.0)]
    assert accumulator.Scalars("train/tokens_per_second")[0].value == 20.0


def test_wandb_offline_writes_every_number_and_a_resume_goes_on_in_the_same_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")

    def no_internet(self: socket.socket, address: object) -> None:
        # wandb talks to its own process through this machine's loopback
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost"), address
        connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", no_internet)
    finished = Finished(step=4, adapter_sha256="f" * 64, seconds=1.0)
    tell(run, "wandb", [started(run), *events(1, 2, loss=10)])
    tell(run, "wandb", [started(run), Resumed(from_step=2), *events(3, 4, loss=10), finished])
    folders = sorted((run.trackers / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    run_id = (run.trackers / "wandb_id").read_text()
    assert all(f"-{run_id}" in folder.name for folder in folders)
    logged = list[dict[str, float]]()
    deadline = time.monotonic() + 20  # wandb's own process writes the last bytes a little after `finish`
    while len(logged) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
        logged = [record for folder in folders for record in history(folder)]
    assert [(record["step"], record["train/loss"]) for record in logged] == [(1, 11.0), (2, 12.0), (3, 13.0), (4, 14.0)]


def history(folder: Path) -> list[dict[str, float]]:
    """The history records of an offline run."""
    items = [record.history.item for record in read(folder) if record.WhichOneof("record_type") == "history"]
    return [{(one.key or "/".join(one.nested_key)): json.loads(one.value_json) for one in item} for item in items]


def read(folder: Path) -> list[wandb_internal_pb2.Record]:
    """The records of an offline run: after 7 bytes, blocks of 32 KB as in LevelDB's log."""
    content = next(folder.glob("*.wandb")).read_bytes()
    assert len(content) < 32768, "one block"
    records, position = [], 7
    while position < len(content):
        length = struct.unpack_from("<H", content, position + 4)[0] if position + 7 <= len(content) else 0
        if position + 7 + length > len(content):
            break
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content[position + 7 : position + 7 + length])
        position += 7 + length
        records.append(record)
    return records


@pytest.mark.parametrize(
    ("output", "variables", "project", "name"),
    [
        ("", {}, "fledge", "a run"),
        ("", {"WANDB_PROJECT": "birds", "WANDB_NAME": "first"}, "birds", "first"),
        ("wandb_project: fish, wandb_name: second", {"WANDB_PROJECT": "birds", "WANDB_NAME": "x"}, "fish", "second"),
        ("wandb_project: fish", {"WANDB_NAME": "first"}, "fish", "first"),
    ],
)
def test_wandb_gets_the_recipes_names_or_its_own_variables(
    output: str,
    variables: dict[str, str],
    project: str,
    name: str,
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in ({"WANDB_MODE": "offline"} | variables).items():
        monkeypatch.setenv(variable, value)
    run.recipe.write_text(f"{RECIPE}output: {{trackers: [wandb], {output}}}\n" if output else RECIPE)
    tell(run, "wandb", [started(run), *events(1, 1, loss=1)])
    (folder,) = (run.trackers / "wandb").glob("offline-run-*")
    deadline = time.monotonic() + 20
    found = list[wandb_internal_pb2.RunRecord]()
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = [record.run for record in read(folder) if record.WhichOneof("record_type") == "run"]
    assert (found[0].project, found[0].display_name) == (project, name)


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "x" * 40}, "online"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_wandb_goes_online_only_where_the_user_has_logged_in(
    environment: dict[str, str], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_mode() == mode
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert choose_mode() == (mode if environment else "online")
