"""Speaks with a model hub: the token stays with the library, and what goes wrong becomes one sentence with a cure."""

import contextlib
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, get_token

# HTTPError is httpx's, by the name under which this library hands it on
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OIDCError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from fledge.errors import FledgeError, RunError
from fledge.network import why_unreached

Tell = Callable[[str], None]
"""Told a line for a person."""
Clean = Callable[[str], str]

AGAIN = "run the same command again: files that have arrived are not sent twice"
_LOG_IN = "set HF_TOKEN to a token with write access, or log in with `hf auth login`"
_RETRIES, _REMARKS = "huggingface_hub.utils._http", "huggingface_hub.hf_api"
"""Loggers of the library: of the first a person hears, what the second says is said here in other words."""
_LONGEST_WORDS = 300
_SHORTEST_SECRET = 6
_BROKEN = (HTTPError, ConnectionError, TimeoutError)
_TROUBLES = (HTTPError, OIDCError, OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
"""What the library lets through: httpx's errors, the file system's, and what it stumbles over in a strange answer."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub that has accepted the token. The token itself is not in here: the library reads it for each request."""

    api: HfApi
    user: str
    clean: Clean
    """Any text of the hub or the library without the token, without signed addresses, and on one line."""
    tell: Tell
    shows_bars: bool

    @property
    def endpoint(self) -> str:
        """The hub's address, a password in it left out."""
        return self.clean(self.api.endpoint)

    @contextlib.contextmanager
    def in_words(self, repo: str) -> Iterator[None]:
        """Whatever the hub or the way to it refuses becomes a RunError about `repo`.

        What the library remarks meanwhile, such as a request that is tried again, goes to `tell`.
        """
        with _listening(self.clean, self.tell, shows_bars=self.shows_bars), _in_words(self.clean, repo):
            yield


def open_hub(tell: Tell, *, shows_bars: bool) -> Hub:
    """The hub of HF_ENDPOINT with the token of HF_TOKEN or of the library's own login, asked who the token's owner is.

    The library's bars are drawn only where `shows_bars`. Raises RunError without a token, where the hub does not
    accept it or it may only read, in offline mode, and where the hub is out of reach.
    """
    address = constants.ENDPOINT
    _check_reachable(address)
    with _in_words(cleaner(""), address):
        token = get_token()
    if token is None:
        raise RunError("there is no token for the hub", where="HF_TOKEN", cure=_LOG_IN)
    if not (token.isascii() and token.isprintable()) or " " in token:
        # said here because the library would quote it in its own error
        raise RunError("what is set as the hub's token holds signs that no token has", where="HF_TOKEN", cure=_LOG_IN)
    clean, api = cleaner(token), HfApi(token=True, library_name="fledge")
    reason = why_unreached(address)
    if reason is not None:
        raise RunError(f"the hub is out of reach: {clean(reason)}", where=clean(address), cure=AGAIN)
    with _listening(clean, tell, shows_bars=shows_bars), _in_words(clean, address):
        about = api.whoami()
        user, role = str(about["name"]), about.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise RunError("this token may only read", where="HF_TOKEN", cure=_LOG_IN)
    return Hub(api, user, clean, tell, shows_bars)


def _check_reachable(address: str) -> None:
    """Raises RunError in offline mode and where HF_ENDPOINT is no address."""
    if constants.is_offline_mode():
        raise RunError("offline mode is on", where="HF_HUB_OFFLINE", cure="unset HF_HUB_OFFLINE to push")
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        cure = "set it to the hub's address, such as https://huggingface.co, or unset it"
        raise RunError("this is not the address of a hub", where="HF_ENDPOINT", cure=cure)


def cleaner(token: str) -> Clean:
    """What makes a text fit to be shown: no token, no password or signature in an address, one short line."""
    patterns = [
        (re.compile(r"(?i)\bbearer\s+[^\s'\"]+"), "Bearer (token)"),
        (re.compile(r"\bhf_\w{6,}"), "(token)"),
        (re.compile(r"(?i)(https?://)[^/\s@]+@"), r"\1"),
        (re.compile(r"(?i)(https?://[^\s?'\"]+)\?[^\s'\"]*"), r"\1"),
    ]

    def clean(text: str) -> str:
        if len(token) >= _SHORTEST_SECRET:
            text = text.replace(token, "(token)")
        for pattern, plain in patterns:
            text = pattern.sub(plain, text)
        shown = "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in text)
        return " ".join(shown.split())[:_LONGEST_WORDS]

    return clean


@contextlib.contextmanager
def _listening(clean: Clean, tell: Tell, *, shows_bars: bool) -> Iterator[None]:
    """What the library tries again and warns of goes to `tell`, cleaned; its bars are as wished for this long."""

    def pass_on(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING and record.name == _RETRIES:
            tell(clean(record.getMessage()))
        return False

    were_disabled = are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in (_RETRIES, _REMARKS)]
    for logger in loggers:
        logger.addFilter(pass_on)
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            if not shows_bars and not were_disabled:
                disable_progress_bars()
            yield
        for remark in remarks:
            if issubclass(remark.category, UserWarning):
                tell(clean(str(remark.message)))
    finally:
        for logger in loggers:
            logger.removeFilter(pass_on)
        if not shows_bars and not were_disabled:
            enable_progress_bars()


@contextlib.contextmanager
def _in_words(clean: Clean, repo: str) -> Iterator[None]:
    try:
        yield
    except FledgeError:
        raise
    except _TROUBLES as error:
        # the library's own words may quote what was sent, so they do not go along as the cause
        raise _told(error, repo, clean) from None


def _told(error: BaseException, repo: str, clean: Clean) -> RunError:
    """One sentence for what the library raised, however deep the reason lies."""
    chain = list(_causes(error))
    if any(isinstance(each, OfflineModeIsEnabled) for each in chain):
        return RunError("offline mode is on", where="HF_HUB_OFFLINE", cure="unset HF_HUB_OFFLINE to push")
    answer = next((each for each in chain if isinstance(each, HfHubHTTPError)), None)
    where = clean(repo)
    if answer is not None:
        what, cure = _refusal(answer.response.status_code, where)
        said = clean(answer.server_message or "")
        return RunError(f"{what}: {said}" if said else what, where=where, cure=cure)
    broken = next((each for each in reversed(chain) if isinstance(each, _BROKEN)), None)
    if broken is not None:
        reason = clean(str(broken)) or type(broken).__name__
        if "xet-write-token" in reason:
            what, cure = "this hub gives no way into xet storage", f"set HF_HUB_DISABLE_XET=1, and {AGAIN}"
            return RunError(f"{what}: {reason}", where=where, cure=cure)
        return RunError(f"the hub is out of reach, or the connection broke: {reason}", where=where, cure=AGAIN)
    own = next((each for each in chain if isinstance(each, OSError) and each.filename is not None), None)
    if own is not None:
        what = f"{Path(str(own.filename)).name} cannot be read: {own.strerror}"
        return RunError(what, where=where, cure="make it readable, then " + AGAIN)
    reason = clean(" ".join(str(each) for each in chain)) or type(error).__name__
    return RunError(f"the hub and its library do not understand each other: {reason}", where=where, cure=AGAIN)


def _refusal(status: int, repo: str) -> tuple[str, str]:
    """What an answer of the hub means, and what to do about it."""
    if status == 401:
        return "the hub does not accept the token (401)", _LOG_IN
    if status == 403:
        cure = "use a token with write access there, or a repository of your own: REPO is NAME or OWNER/NAME"
        return f"this token may not write to {repo} (403)", cure
    if status == 404:
        cure = "check owner, name and revision; an organisation must be there already"
        return f"the hub has no {repo}, or does not show it to this token (404)", cure
    if status in (409, 412):
        return f"{repo} was made or changed by somebody else meanwhile ({status})", AGAIN
    if status == 429:
        return "the hub asks for patience (429)", f"wait some minutes, then {AGAIN}"
    if status >= 500:
        return f"the hub has trouble of its own ({status})", f"wait a little, then {AGAIN}"
    return f"the hub refuses ({status})", "see what it says; `fledge push --help` says what can be chosen"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came of, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
