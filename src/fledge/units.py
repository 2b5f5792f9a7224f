"""What people read: bytes, seconds and counts as they say them, text without what would command a terminal."""

import unicodedata

_BYTE_UNITS = ("B", "KB", "MB", "GB", "TB")


def format_bytes(count: float) -> str:
    """`1234567` as `1.2 MB` (powers of 1,000, as disks and GPU data sheets count)."""
    for unit in _BYTE_UNITS:
        if abs(count) < 1000 or unit == _BYTE_UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def format_seconds(seconds: float) -> str:
    """`3725` as `1:02:05`, `65` as `1:05`, `3.21` as `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_count(count: float) -> str:
    """`52002` as `52,002`; a million and more as `1.2 M`."""
    if abs(count) >= 1_000_000_000:
        return f"{count / 1_000_000_000:.1f} B"
    if abs(count) >= 1_000_000:
        return f"{count / 1_000_000:.1f} M"
    return f"{count:,.0f}"


def for_terminal(text: str) -> str:
    """Text whose control characters are U+FFFD, for they would move the cursor or worse; new line and tab stay."""
    return "".join(sign if sign in "\n\t" or unicodedata.category(sign) != "Cc" else "\ufffd" for sign in text)
