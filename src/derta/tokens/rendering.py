"""Chat templates, rendered within bounds: a template is a program of whoever made the model, and may never end.

transformers keeps templates in a sandbox, which bounds neither time nor memory. So they are rendered in a fork of this
process, which may take so long and no more memory, and is killed otherwise.
"""

import atexit
import json
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from derta.data.triples import Message
from derta.errors import InputError, first_line

SECONDS = 20.0
"""What a template may take, and a hundredth of a second more for each conversation."""
_MEMORY = 2**30
_CHARACTERS = 2**24
_MOST_RENDERERS = 4


def render(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    origins: Sequence[str],
    *,
    add_generation_prompt: bool = True,
    options: dict[str, Any] | None = None,
) -> list[str]:
    """Render conversations with the tokenizer's chat template, as transformers does.

    Args:
        tokenizer: Has the template.
        conversations: Are the messages of each.
        origins: Says of each where it comes from, for messages.
        add_generation_prompt: Ends each text where an answer begins.
        options: Go to the template.

    Raises:
        InputError: The template refuses a conversation, or takes too long, too much memory or writes too much.
    """
    messages = [[{"role": each["role"], "content": each["content"]} for each in turns] for turns in conversations]
    how = {"add_generation_prompt": add_generation_prompt, **(options or {})}
    with _LOCK:
        answers = _renderer(tokenizer).ask({"messages": messages, "how": how}, SECONDS + len(messages) / 100)
    if answers is None:
        bounds = f"{SECONDS:.0f} s, or more than {_MEMORY >> 30} GB"
        raise InputError(
            f"{tokenizer.name_or_path or 'tokenizer'}: the chat template takes more than {bounds}; it may never end"
        )
    for origin, (_, reason) in zip(origins, answers, strict=True):
        if reason is not None:
            raise InputError(f"{origin}: prompt: the chat template refuses these messages: {reason}")
    return [text for text, _ in answers]


class _Renderer:
    """A fork that renders with one tokenizer, as it is now."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.owner = os.getpid()
        asked, self._ask = os.pipe()
        self._answer, answered = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                os.close(self._ask)
                os.close(self._answer)
                _serve(tokenizer, asked, answered)
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answered)

    def ask(self, question: dict[str, Any], seconds: float) -> list[tuple[str, str | None]] | None:
        """Return the text of each conversation, or why there is none; `None` where there is no answer in time."""
        ends = time.monotonic() + seconds
        try:
            _send(self._ask, question)
            answer = b""
            while not answer.endswith(b"\n"):
                ready, _, _ = select.select([self._answer], [], [], max(0.0, ends - time.monotonic()))
                part = os.read(self._answer, 2**20) if ready else b""
                if not part:
                    raise TimeoutError
                answer += part
        except OSError:  # a broken pipe, too: it was killed for its memory
            _end_all()
            return None
        except BaseException:
            # An answer that nobody waits for would be taken for the next one.
            _end_all()
            raise
        found: list[tuple[str, str | None]] = json.loads(answer)
        return found

    def end(self) -> None:
        """End the fork."""
        os.close(self._ask)
        os.close(self._answer)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


_LOCK = threading.Lock()
_RENDERERS: dict[Any, _Renderer] = {}
"""Those of this process, by their tokenizer and what of it a template sees."""


def _renderer(tokenizer: PreTrainedTokenizerBase) -> _Renderer:
    key = (id(tokenizer), str(tokenizer.chat_template), str(tokenizer.special_tokens_map))
    found = _RENDERERS.get(key)
    # A fork of this process would share its parent's.
    if found is None or found.owner != os.getpid():
        if any(each.owner != os.getpid() for each in _RENDERERS.values()):
            _RENDERERS.clear()
        while len(_RENDERERS) >= _MOST_RENDERERS:
            _RENDERERS.pop(next(iter(_RENDERERS))).end()
        _RENDERERS[key] = found = _Renderer(tokenizer)
    return found


@atexit.register
def _end_all() -> None:
    for renderer in _RENDERERS.values():
        if renderer.owner == os.getpid():
            renderer.end()
    _RENDERERS.clear()


def _send(pipe: int, value: Any) -> None:
    # In ASCII lone surrogates get through as well.
    data = memoryview(json.dumps(value).encode() + b"\n")
    while data:
        data = data[os.write(pipe, data) :]


def _serve(tokenizer: PreTrainedTokenizerBase, asked: int, answered: int) -> None:
    """Answer until nobody asks any more."""
    os.setsid()  # Ctrl-C is for the one who asks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(silence, stream)
    # Locks of the one who asks must not outlive it.
    low, high = sorted((asked, answered))
    for first, last in ((3, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first, last)
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        most = int(statistics.read_text().split()[0]) * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with os.fdopen(asked, encoding="ascii") as questions:
        for line in questions:
            question = json.loads(line)
            _send(answered, [_render_one(tokenizer, turns, question["how"]) for turns in question["messages"]])


def _render_one(tokenizer: PreTrainedTokenizerBase, messages: Any, how: dict[str, Any]) -> tuple[str, str | None]:
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, **how))
    except MemoryError:
        return "", "it takes too much memory"
    except Exception as error:  # jinja2's own errors, and whatever a template calls
        return "", " ".join(str(error).split()) or first_line(error)
    return (text, None) if len(text) <= _CHARACTERS else ("", f"it writes more than {_CHARACTERS:,} characters")
