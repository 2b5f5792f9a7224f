"""Whether the hub is in reach: asked once, so that without a network nothing is tried again for a minute."""

import os
import threading
from functools import cache

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError

SECONDS = 6.0
"""How long the hub may take to accept a connection, where HF_HUB_ETAG_TIMEOUT names no other time. A lost packet is
sent again after one and after three seconds.
"""
_UNREACHED: dict[str, str] = {}
"""Why, by the hub's address."""
SLOW = "on a slow network set HF_HUB_ETAG_TIMEOUT to more seconds"


def go_offline_unless_reached() -> str | None:
    """Why the hub is out of reach; then its libraries use what is kept on this machine, or fail at once.

    None where the hub is in reach, or where nobody is to ask it (HF_HUB_OFFLINE). A hub that accepts the connection is
    in reach, however long it takes to answer.
    """
    if not constants.is_offline_mode():
        reason = why_unreached(constants.ENDPOINT)
        if reason is not None:
            _UNREACHED[constants.ENDPOINT] = reason
            constants.HF_HUB_OFFLINE = True  # what HF_HUB_OFFLINE sets; the library reads it at each request
    return _UNREACHED.get(constants.ENDPOINT)


@cache
def why_unreached(endpoint: str) -> str | None:
    """Why no connection to the hub at this address can be had; None where it can."""
    told: list[str | None] = []
    # in a thread, for a name server that does not answer, or eight addresses that do not, keep to no time limit
    asking = threading.Thread(target=lambda: told.append(_ask(endpoint)), daemon=True)
    asking.start()
    seconds = float(constants.HF_HUB_ETAG_TIMEOUT) if os.environ.get("HF_HUB_ETAG_TIMEOUT") else SECONDS
    asking.join(seconds)
    return told[0] if told else f"no connection to it within {seconds:g} seconds; {SLOW}"


def _ask(endpoint: str) -> str | None:
    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT, follow_redirects=False)
    except HTTPError as error:
        # httpx's names: these come before a connection stands, all others after it
        if type(error).__name__ not in ("ConnectError", "ConnectTimeout", "ProxyError"):
            return None
        return str(error) or type(error).__name__
    except Exception:  # no address at all, say: what asks next meets the same and says it
        return None
    return None
