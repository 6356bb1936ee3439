"""What a file that can't be read looks like, and what to do about it."""

import codecs
from pathlib import Path

_BEGINNINGS = (
    (b"PAR1", "a Parquet file", "rename it to {stem}.parquet"),
    (b"\x1f\x8b", "a gzip file", "rename it to {stem}.jsonl.gz, or decompress it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "rename it to {stem}.jsonl.zst, or decompress it"),
    (b"BZh", "a bzip2 file", "decompress it"),
    (b"\xfd7zXZ", "an xz file", "decompress it"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"),
    (b"ARROW1", "an Arrow file", "name the directory that save_to_disk wrote, or save it as Parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "name the directory that save_to_disk wrote, or save it as Parquet"),
    (b"SQLite format 3", "a SQLite database", "write its rows as JSON lines"),
    (b"\x80\x02", "a pickle", "write its rows as JSON lines; pickles are never read"),
    (b"\x80\x04", "a pickle", "write its rows as JSON lines; pickles are never read"),
    (b"\x80\x05", "a pickle", "write its rows as JSON lines; pickles are never read"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with git lfs pull"),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "save it as UTF-8"),
)


def looks_like(path: Path) -> str:
    """Say in a few words what a file seems to hold and how to make it readable, or nothing if it can't be told."""
    try:
        with path.open("rb") as file:
            beginning = file.read(4096)
    except OSError:
        return ""
    stem = path.name.split(".")[0] or path.name
    for magic, what, remedy in _BEGINNINGS:
        if beginning.startswith(magic):
            own = path.suffix.lower() in (".parquet", ".gz", ".zst") and path.suffix.lower() in remedy
            return "" if own else f"it looks like {what}: {remedy.format(stem=stem)}"
    text = beginning.removeprefix(codecs.BOM_UTF8).lstrip().decode("utf-8", "replace")
    if text[:20].lower().startswith(("<!doctype", "<html", "<?xml")):
        return "it looks like a web page: download the data file itself"
    what, extension = _kind_of_text(text)
    if extension and path.suffix.lower() != extension:
        return f"it looks like {what}: rename it to {stem}{extension}"
    return ""


def _kind_of_text(text: str) -> tuple[str, str]:
    """Name what text looks like, and the extension of a file that holds it."""
    first, _, rest = text.partition("\n")
    if text.startswith("{"):
        return ("JSON lines", ".jsonl") if first.rstrip().endswith("}") else ("a JSON document", ".json")
    if text.startswith("["):
        return "a JSON document", ".json"
    for delimiter, what, extension in (("\t", "a table with tabs", ".tsv"), (",", "a table with commas", ".csv")):
        if delimiter in first and delimiter in rest:
            return what, extension
    return "", ""
