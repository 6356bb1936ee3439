"""`derta verify`: whether a run's or an evaluation's files are what was written, and its inputs what they were."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from derta.errors import InputError
from derta.evaluation.results.store import (
    COUNTED_FROM,
    RESULTS,
    SETTINGS,
    find_evaluations,
    load_evaluation,
    load_results,
)
from derta.files import MODEL_FILES, file_digest, read_json, weights_digest
from derta.names import GUARDED
from derta.redaction import printable
from derta.run_identity import IDENTITY, check_files, read_identity
from derta.version import code_digest


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Check runs, models, checkpoints and evaluations against the digests that were written with them."
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="D", help="directories of runs or evaluations")


def run(args: Namespace) -> int:
    """Print what differs; return 1 if anything does, and 0 otherwise.

    Raises:
        InputError: A directory holds neither, or its files can't be read.
    """
    differ = 0
    for directory in args.directories:
        if (directory / IDENTITY).is_file():
            checked, wrong, notes = _check_run(directory)
        elif (directory / SETTINGS).is_file() or (directory / RESULTS).is_file():
            checked, wrong, notes = _check_evaluations(directory)
        else:
            raise InputError(f"{directory}: no {IDENTITY} and no {SETTINGS} here: there is nothing to check it against")
        differ += len(wrong)
        for line in (*wrong, *(f"note: {note}" for note in notes)):
            print(printable(line))
        print(printable(f"{directory}: {f'{len(wrong)} differ' if wrong else 'as it was written'}, {checked} checked"))
    return int(differ > 0)


Found = tuple[int, list[str], list[str]]
"""How many things were checked, which differ, and what can't be checked."""


def _check_run(directory: Path) -> Found:
    """Check the model of a run and its checkpoints, file by file."""
    checked, wrong, notes = 0, [], []
    places = [directory, *sorted(path.parent for path in directory.glob(f"checkpoint-*/{IDENTITY}"))]
    for place in places:
        identity = read_identity(place) or {}
        files = identity.get("files")
        if not isinstance(files, dict) or not files:
            notes.append(f"{place}: {'not finished' if place == directory else 'without digests'}")
            continue
        added = {path.name for pattern in (*MODEL_FILES, "adapter_*") for path in place.glob(pattern)} - files.keys()
        wrong += [f"{place / name}: it wasn't saved with the model" for name in sorted(added)]
        for name, digest in files.items():
            checked += 1
            try:
                check_files(place, {"files": {name: digest}})
            except InputError as error:
                wrong.append(str(error).replace("can't be read: ", ""))
    return checked, wrong, notes


def _check_evaluations(directory: Path) -> Found:
    """Check evaluations: their files against each other, and what they were made of against what lies there now."""
    checked = 0
    wrong: list[str] = []
    notes: list[str] = []
    places = find_evaluations(directory)
    for place in places:
        results, settings = read_json(place / RESULTS), read_json(place / SETTINGS)
        of_files, made_of = results.get("counted_from"), results.get("digests", {})
        if not isinstance(of_files, dict) or not _holds_digests(made_of):
            raise InputError(f"{place / RESULTS}: says nothing about digests; evaluate again")
        expected = {place / name: of_files.get(key) for key, name in COUNTED_FROM.items()}
        expected |= {Path(name): digest for name, digest in made_of.get("data", {}).items()}
        for path, digest in expected.items():
            checked += 1
            if not path.is_file():
                (wrong if path.parent == place else notes).append(f"{path}: isn't there")
            elif file_digest(path) != digest:
                wrong.append(f"{path}: isn't the file that {place / RESULTS} was made of")
        for what, differs in _now(settings, made_of):
            checked += 1
            if differs is None:
                notes.append(f"{place}: {what}")
            elif differs:
                wrong.append(f"{place}: {what}")
        if not wrong:
            load_evaluation(place)  # the numbers are those of the responses
    if places != [directory]:
        checked += 1
        if load_results(directory / RESULTS) != [row for place in places for row in load_results(place / RESULTS)]:
            wrong.append(f"{directory / RESULTS}: its rows aren't those of its evaluations")
    return checked, wrong, notes


def _holds_digests(made_of: Any) -> bool:
    return isinstance(made_of, dict) and all(isinstance(made_of.get(name, {}), dict) for name in ("data", "judges"))


def _now(settings: dict[str, Any], made_of: dict[str, Any]) -> Iterator[tuple[str, bool | None]]:
    """Yield what an evaluation was made of and whether it differs by now; `None` where that's only worth a note."""
    from derta.evaluation.judges.version import judge_version

    model = Path(str(settings.get("model")).removesuffix(GUARDED)).expanduser()
    if settings.get("files") is None or not model.is_dir():
        yield "its model isn't in a directory that is there", None
    else:
        yield f"{model}: holds another model than was evaluated", weights_digest(model) != settings["files"]
    for judge, version in made_of.get("judges", {}).items():
        yield f"judge {judge}: another version decides by now", None if judge_version(judge) != version else False
    if "code" in made_of:
        yield "made by other code of derta than this", None if made_of["code"] != code_digest() else False
