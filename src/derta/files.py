"""Files that a reader sees whole or not at all, and JSON that says one thing."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from derta.errors import InputError, first_line

DRAFT = ".part"
"""How the name of what isn't whole yet ends."""


def cache_directory(option: str | None = None) -> Path | None:
    """Return where data sets and bases of the organism's worlds are cached; `None` where nothing is to be cached.

    Args:
        option (`str`, *optional*): The directory, or `none`; defaults to a folder in that of `datasets`.
    """
    if option is None:
        from datasets.config import HF_DATASETS_CACHE

        return Path(HF_DATASETS_CACHE) / "derta"
    return None if option == "none" else Path(option).expanduser()


def write_text(path: Path, text: str) -> None:
    """Write a text file by renaming."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by renaming: a reader sees the old one or the new one, also after a crash."""
    # Of this process: another one may write the same.
    draft = path.with_name(f".{path.name}.{os.getpid()}{DRAFT}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def written_whole(directory: Path) -> Iterator[Path]:
    """Give a folder to write to, whose files get their places in `directory` when all of them are on the disk.

    A new directory appears as a whole; in one that is there, each file does. What a kill left is written anew.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out`: {directory}: can't be written to: {error.strerror or error}") from error
    draft = directory.with_name(f".{directory.name}{DRAFT}")
    with sole_writer(draft):
        try:
            for left in draft.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield draft
            sync_files(draft)
            if directory.is_dir() and any(directory.iterdir()):
                for path in sorted(draft.rglob("*")):
                    place = directory / path.relative_to(draft)
                    place.mkdir(exist_ok=True) if path.is_dir() else path.replace(place)
            else:
                draft.rename(directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def folder_in(directory: Path, name: str) -> Path:
    """Return the folder of this name in a directory."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(f"{name!r} names no folder of its own in {directory}; give the model's or file's own name")
    return directory / name


def sync_files(directory: Path) -> None:
    """Wait until the files of a directory are on the disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextmanager
def sole_writer(directory: Path, field: str = "out") -> Iterator[None]:
    """Let no other process of derta work in a directory, which is made if it isn't there.

    The lock goes with the process, and leaves no file. Where a file system has no such locks, nobody is kept out.

    Args:
        directory (`Path`): The directory to write to.
        field (`str`, *optional*, defaults to `"out"`): The option that sets it, for the message.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"`{field}`: {directory}: can't be written to: {error.strerror or error}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            os.close(held)
            raise InputError(f"`{field}`: {directory}: another derta is at work in it; wait until it ends") from None
    try:
        yield
    finally:
        # What was stopped before it wrote anything leaves no folder behind.
        with suppress(OSError):
            directory.rmdir()
        os.close(held)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file by renaming."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def parse_json(text: str, origin: str) -> Any:
    """Parse JSON that says one thing: no key twice in an object, no NaN and no Infinity."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin}: not JSON: {first_line(error)}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    document = parse_json(text, str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return document


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON (an `object_pairs_hook`) whose readers can't disagree on what it says."""
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice[:40]!r} occurs twice in one object; rename or drop one of them")
    return document


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def check_apart(out: Path, inputs: Iterable[Path], option: str) -> None:
    """Stop if what is to be written is one of the files that are read."""
    # Unlike `Path.exists`, it takes a name that is too long for one that isn't there.
    if not os.path.exists(out):  # noqa: PTH110
        return
    for path in inputs:
        if path.exists() and out.samefile(path):
            raise InputError(f"`{option}`: {out}: is an input file; write to another one")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def file_digests(directory: Path, *patterns: str) -> dict[str, str]:
    """Return the SHA-256 of files by their names in a directory; drafts are left out.

    Args:
        directory (`Path`): The directory that holds them.
        patterns (`str`, *optional*): Glob patterns; without any, all files count, those of folders too.
    """
    found = {path for pattern in patterns or ("**/*",) for path in directory.glob(pattern)}
    paths = sorted(path for path in found if path.is_file() and path.suffix != DRAFT)
    # One after the other: a thread that has no memory to begin leaves who started it waiting for ever (gh-140746).
    return {path.relative_to(directory).as_posix(): file_digest(path) for path in paths}


MODEL_FILES = (
    *("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "*.index.json"),
    *("config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer*.json", "tokenizer.model", "vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("*.jinja", "chat_template.json"),
)
"""What a saved model consists of."""


def weights_digest(directory: Path) -> str | None:
    """Return a short hash of the model that a directory holds: weights, configurations, tokenizer and template.

    Every byte counts, and so does the base of an adapter where it lies in a directory; `None` if there are no weights.
    """
    files = {path for pattern in MODEL_FILES for path in directory.glob(pattern) if path.is_file()}
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        return None
    adapter = directory / "adapter_config.json"
    if adapter in files:
        base = Path(str(read_json(adapter).get("base_model_name_or_path"))).expanduser()
        if base.is_dir() and not base.samefile(directory):
            files |= {path for pattern in MODEL_FILES for path in base.glob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    # By name and not by place: a model may be moved.
    for path in sorted(files, key=lambda path: (path.parent != directory, path.name)):
        state = path.stat()
        digest.update(f"{path.name} {_digest_once(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _digest_once(path: Path, size: int, changed: int) -> str:
    """Hash a file that may be large once in a process, as long as it stays the same."""
    return file_digest(path)
