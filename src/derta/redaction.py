"""What must not be written or shown: keys, passwords, logins in URLs, and what moves a terminal's cursor."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
# By the last word of a name: a `key` is one, `max_tokens` and `tokenizer` aren't.
_SECRET = re.compile(
    r"(?:^|[_\-. ])(?:api_?key|key|token|secret|password|passwd|passphrase|authorization|cookie)$", re.I
)
_HOLDS_SECRETS = re.compile(r"headers?$|credentials?$|^auth$|^cookies$", re.I)
_LOGIN = re.compile(r"(?<=://)[^/?#\s@'\"]+@")
_IN_QUERY = re.compile(r"(?<=[?&])([\w.\-]*(?:key|token|secret|password|signature|sig)=)[^&#\s'\"]+", re.I)


def redacted_text(text: str) -> str:
    """Return a text without the logins and keys of the URLs in it."""
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))


def printable(text: str) -> str:
    """Return a text as one line: what would move a terminal's cursor, break the line or not encode is escaped."""
    return visible_text(text, keep="")


def visible_text(text: str, keep: str = "\n\t") -> str:
    """Return a text whose characters that can't be seen, or that steer a terminal or text's direction, are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def redacted(value: Any, name: str = "") -> Any:
    """Return settings with `***` for what is secret, by its name or in a URL.

    Args:
        value (`Any`): A setting, or mappings and lists of them.
        name (`str`, *optional*): The setting's own name.
    """
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        inside = _HOLDS_SECRETS.search(name)
        return {key: HIDDEN if inside else redacted(each, str(key)) for key, each in value.items()}
    if _HOLDS_SECRETS.search(name):
        return HIDDEN
    if isinstance(value, list | tuple):
        return type(value)(redacted(each) for each in value)
    return redacted_text(value) if isinstance(value, str) else value
