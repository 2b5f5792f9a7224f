"""The hub is asked once, within seconds, and a slow one is one in reach."""

import socket
import threading
import time

import pytest
from huggingface_hub import constants

from fledge import network
from tests.hub_server import serving


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "_UNREACHED", {})
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    network.why_unreached.cache_clear()


def listening() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    return server


def url(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_hub_that_answers_anything_is_in_reach(monkeypatch):
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        assert network.go_offline_unless_reached() is None
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_refuses_is_told_at_once_and_not_asked_again(monkeypatch):
    server = listening()
    monkeypatch.setattr(constants, "ENDPOINT", url(server))
    server.close()
    reason = network.go_offline_unless_reached()
    assert reason is not None and "refused" in reason
    assert constants.HF_HUB_OFFLINE
    assert network.go_offline_unless_reached() == reason


def test_a_hub_that_never_accepts_takes_no_longer_than_the_limit(monkeypatch):
    monkeypatch.setattr(network, "_ask", lambda endpoint: time.sleep(5))
    monkeypatch.setattr(network, "SECONDS", 0.2)
    start = time.monotonic()
    reason = network.why_unreached("http://nowhere")
    assert time.monotonic() - start < 2
    assert reason == f"no connection to it within 0.2 seconds; {network.SLOW}"


def test_a_hub_that_accepts_and_is_slow_to_answer_is_in_reach(monkeypatch):
    server = listening()
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    held: list[socket.socket] = []
    accepting = threading.Thread(target=lambda: held.append(server.accept()[0]))
    accepting.start()
    assert network.why_unreached(url(server)) is None
    accepting.join()
    server.close()
    held[0].close()


def test_who_is_offline_by_his_own_wish_is_asked_nothing(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(network, "_ask", lambda endpoint: pytest.fail("the hub was asked"))
    assert network.go_offline_unless_reached() is None
