"""Faults × commands: `python -m tests.faults --faults 200 --seed 0` prints what came of each.

Every command line runs once undisturbed. Then, again and again, something happens to one of them: a signal at a random
moment, a full or read-only disk, a failing write, a jumping clock, little memory, a second process, a damaged file, a
judge's server that lies. Each must end with an exit code and one line as documented, leave files whole or not at all,
lose nothing that was complete, and do as the undisturbed run did when the same command runs again.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.faults.machine import preload, run


def main() -> int:
    """Run the trials and print their table; 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200, help="trials")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when")
    parser.add_argument("--only", default="", help="commands or faults, separated by commas")
    parser.add_argument("--quick", action="store_true", help="leave out the commands that take seconds")
    parser.add_argument("--keep", action="store_true", help="keep the folders of trials that went wrong")
    options = parser.parse_args()
    folder = Path(os.environ.get("DERTA_FAULTS") or tempfile.mkdtemp(prefix="derta-faults-"))
    preload(folder)
    try:
        return _trials(options, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _trials(options: argparse.Namespace, folder: Path) -> int:
    from tests.faults.warm import import_everything

    import_everything()
    from tests.faults.commands import COMMANDS, make
    from tests.faults.faults import FAULTS, FAULTS_OF_JUDGES, Reference, Trial, fresh

    only = {name for name in options.only.split(",") if name}
    commands = [command for command in COMMANDS.values() if not only & COMMANDS.keys() or command.name in only]
    if options.quick:
        commands = [command for command in commands if command.name not in ("train, caching", "eval", "study")]
    every = FAULTS | FAULTS_OF_JUDGES
    faults = {name: fault for name, fault in every.items() if not only & every.keys() or name in only}
    made = folder / "made"
    made.mkdir()
    make(made)
    references = {}
    for command in commands:
        place = fresh(folder / "reference" / command.name, made, command.needs)
        ended = run(command.argv, place)
        if ended.code != command.code:
            raise RuntimeError(f"{command.name}: exit code {ended.code}: {ended.told[-3000:]}")
        references[command.name] = Reference(command.result(place), ended.seconds, ended.writes)
        print(f"{command.name}: {ended.seconds:.1f} s, {ended.writes} writes", flush=True)
    draw = random.Random(options.seed)
    pairs = [(command, fault) for command in commands for fault in faults if fault in FAULTS or command.name == "eval"]
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    wrong = 0
    began = time.monotonic()
    deck: list[tuple[object, str]] = []
    for number in range(options.faults):
        if not deck:
            deck = draw.sample(pairs, len(pairs))
        command, fault = deck.pop()  # type: ignore[assignment]
        place = fresh(folder / f"trial-{number}", made, command.needs)
        outcome = faults[fault](Trial(command, place, references[command.name], random.Random(draw.random())))
        table[fault, command.name][outcome.word] += 1
        if outcome.wrong:
            wrong += 1
            table[fault, command.name]["WRONG"] += 1
            print(f"trial {number}, {fault} × {command.name}: {outcome.word}: {outcome.wrong}", flush=True)
        if not (outcome.wrong and options.keep):
            shutil.rmtree(place, ignore_errors=True)
    print()
    for (fault, name), counts in sorted(table.items()):
        print(f"{fault:16} × {name:16} {', '.join(f'{count} {word}' for word, count in counts.items())}")
    print(f"{options.faults} faults, {wrong} went wrong, {time.monotonic() - began:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
