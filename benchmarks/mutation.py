"""How much of a change for the worse the tests see: mutation testing of the parts that results depend on.

    python benchmarks/mutation.py --out benchmarks/results/mutation.json     # 60 mutants of each area
    python benchmarks/mutation.py --areas method --mutants 20 --seed 3

A mutant is the code with one thing wrong: a comparison, an operator, a constant, a condition, a returned value, a
statement left out. It is killed if a test of its area fails or can't be read, timed out if the tests take ten times as
long; otherwise it survives. Mutants are drawn from all that the operators can make, so a survival rate has an interval
(Wilson, 95 %). Mutants that no test could tell from the code are named in `benchmarks/equivalent_mutants.yaml` and
counted apart.

Each mutant lives in a process forked from one that has run the tests once and imported the libraries: it costs what
its tests cost. Tests that start processes of their own see the code as it is: only an area's own folder counts, and
those of the commands that run in the process.
"""

import argparse
import ast
import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
AREAS = {
    "method": ("src/derta/method", "tests/method"),
    "judges": ("src/derta/evaluation/judges", "tests/evaluation/judges"),
    "results": (
        "src/derta/evaluation/results",
        "tests/evaluation/results",
        "tests/invariant/test_gate_command.py",
        "tests/invariant/test_compare_command.py",
    ),
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: dotted name.
        path: file of the module, relative to the repository.
        line: where the change is.
        number: which of the module's mutants it is.
        change: what stood there and what stands there now.
    """

    module: str
    path: str
    line: int
    number: int
    change: str


Change = tuple[ast.AST, str, Callable[[], None]]
"""The node that changes, what it becomes in words, and what changes it in place."""


def changes(tree: ast.AST) -> Iterator[Change]:
    """Yield every change that the operators make, in the order of the text.

    Docstrings, annotations, decorators, imports, `__all__` and what an error says stay as they are.
    """
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or is_left_alone(node):
                continue
            for new in replacements(node):
                yield node, f"{show(node)} → {show(new)}", put(tree, name, index, new)
            if not isinstance(node, ast.Raise):
                yield from changes(node)


def is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()) | ast.JoinedStr():
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.Subscript(value=ast.Name(id="Literal" | "Callable")):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def put(tree: ast.AST, name: str, index: int, new: ast.AST) -> Callable[[], None]:
    def change() -> None:
        value = getattr(tree, name)
        if isinstance(value, list):
            value[index] = new
        else:
            setattr(tree, name, new)

    return change


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.Compare(left=left, ops=[operator, *more], comparators=others):
            yield ast.Compare(left, [COMPARISONS[type(operator)](), *more], others)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.AugAssign(target=target, op=operator, value=value) if type(operator) in OPERATORS:
            yield ast.AugAssign(target, OPERATORS[type(operator)](), value)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)):
            yield ast.Constant(f"XX{value}")
        case ast.Return(value=ast.AST() as value) if not is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.If(test=_, body=body, orelse=orelse):
            yield ast.If(ast.Constant(True), body, orelse)
            yield ast.If(ast.Constant(False), body, orelse)
        case ast.IfExp(test=_, body=chosen, orelse=other):
            yield chosen
            yield other
        case ast.comprehension(ifs=[_, *more]):
            yield ast.comprehension(node.target, node.iter, more, node.is_async)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in CALLS:
            kept = [] if CALLS[name] == "list" else keywords
            yield ast.Call(ast.Name(CALLS[name], ast.Load()), args, kept)


def is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def show(node: ast.AST) -> str:
    """Return a node as one short line of code."""
    if isinstance(node, ast.If):
        node = ast.If(node.test, [ast.Expr(ast.Constant(...))], [])
    if isinstance(node, ast.comprehension):
        return f"for {ast.unparse(node.target)} in … if {' and '.join(map(ast.unparse, node.ifs)) or 'True'}"
    line = " ".join(ast.unparse(ast.fix_missing_locations(deepcopy(node))).split())
    return line if len(line) <= 90 else f"{line[:89]}…"


def mutants(folder: str) -> list[Mutant]:
    """Return every mutant of the modules below a folder of sources."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        names = path.relative_to(ROOT / "src").with_suffix("").parts
        module = ".".join(names[:-1] if names[-1] == "__init__" else names)
        for number, (node, change, _) in enumerate(changes(ast.parse(path.read_text("utf-8")))):
            line = getattr(node, "lineno", 0) or getattr(getattr(node, "target", None), "lineno", 0)
            found.append(Mutant(module, str(path.relative_to(ROOT)), line, number, change))
    return found


class Mutated(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module with its change."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        super().__init__(mutant.module, str(ROOT / mutant.path))

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        """Take the place of the file's own loader."""
        if fullname != self.mutant.module:
            return None
        return spec_from_file_location(fullname, self.path, loader=self, submodule_search_locations=self.folders())

    def folders(self) -> list[str] | None:
        """Where a package's modules lie."""
        return [str(Path(self.path).parent)] if Path(self.path).name == "__init__.py" else None

    def get_code(self, fullname: str) -> Any:
        """Compile the changed module."""
        tree = ast.parse(Path(self.path).read_text("utf-8"))
        list(changes(tree))[self.mutant.number][2]()
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


def in_fork(work: Callable[[], int], seconds: float) -> int | None:
    """Return the exit code of `work` in a forked process; `None` if it was killed, for one, after CPU `seconds`."""
    child = os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException):
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silence, stream)
            code = work()
        os._exit(code)
    # A deadlock takes no CPU time.
    end = time.monotonic() + 60 + 10 * seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> int:
    """Run tests in this process until one fails."""
    import pytest

    if mutant:
        sys.meta_path.insert(0, Mutated(mutant))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-W", "ignore"]
    return int(pytest.main([*options, *tests]))


def warm_up(tests: Sequence[str]) -> float:
    """Run the tests in this process, which imports the libraries they need; return the CPU seconds of a second run.

    Raises:
        SystemExit: the tests fail as the code is.
    """
    if run_tests(tests) != 0:
        sys.exit(f"{' '.join(tests)}: these tests fail, or there are none, before anything is changed")
    for name in list(sys.modules):
        if name.partition(".")[0] in ("derta", "tests"):
            del sys.modules[name]
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    in_fork(lambda: run_tests(tests), 3600)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before


def fate(mutant: Mutant, tests: Sequence[str], seconds: float) -> str:
    """Run the tests of a mutant's own module, then the rest of its area's."""
    mirror = [test for test in tests if Path(test).stem == f"test_{Path(mutant.path).stem}"]
    ordered = [*mirror, *(test for test in tests if test not in mirror)]
    code = in_fork(lambda: run_tests(ordered, mutant), 20 + 10 * seconds)
    return "survived" if code == 0 else "killed" if code is not None else "timed out"


def measure(area: str, count: int, seed: int, console: Console) -> dict[str, Any]:
    """Return what became of a sample of an area's mutants."""
    folder, *places = AREAS[area]
    paths = [ROOT / place for place in places]
    found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("test_*.py"))]
    tests = sorted(str(path.relative_to(ROOT)) for path in found)
    possible = mutants(folder)
    sample = random.Random(f"{seed} {area}").sample(possible, min(count, len(possible)))
    seconds = warm_up(tests)
    console.print(f"{area}: {len(possible)} possible mutants, the tests take {seconds:.0f} CPU seconds")
    equivalent = {(row["path"], row["change"]): row["why"] for row in yaml.safe_load(EQUIVALENT.read_text()) or []}
    outcomes = []
    for number, mutant in enumerate(sample, 1):
        outcome = fate(mutant, tests, seconds)
        why = equivalent.get((mutant.path, mutant.change)) if outcome == "survived" else None
        outcomes.append({**vars(mutant), "outcome": "equivalent" if why else outcome})
        if outcome == "survived":
            mark = f" (equivalent: {why})" if why else ""
            console.print(
                f"{area} {number}/{len(sample)} {mutant.path}:{mutant.line}: {mutant.change}{mark}", markup=False
            )
    return {"area": area, "possible": len(possible), "cpu_seconds_of_tests": round(seconds, 1), "mutants": outcomes}


def main() -> None:
    """Measure the areas, print survivors and a table, and write the raw outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--areas", nargs="+", choices=list(AREAS), default=list(AREAS))
    parser.add_argument("--mutants", type=int, default=60, help="drawn from each area (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file for the raw outcomes")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    console = Console(width=160, soft_wrap=True)
    measured = []
    for area in options.areas:
        measured.append(measure(area, options.mutants, options.seed, console))
        if options.out:
            document = {"seed": options.seed, "areas": measured}
            options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    console.print(survival_table(measured))


def survival_table(measured: Sequence[dict[str, Any]]) -> Table:
    """Return a table of areas × outcomes."""
    # Only now: a module that is imported already can't be changed.
    from derta.evaluation.results.intervals import wilson

    table = Table("area", "mutants", "killed", "timed out", "survived", "equivalent", "survival, %", "95 % interval")
    for area in measured:
        outcomes = [row["outcome"] for row in area["mutants"]]
        survived, total = outcomes.count("survived"), len(outcomes) - outcomes.count("equivalent")
        low, high = wilson(survived, total)
        table.add_row(
            area["area"],
            f"{len(outcomes)} of {area['possible']}",
            *(str(outcomes.count(name)) for name in ("killed", "timed out", "survived", "equivalent")),
            f"{100 * survived / total:.0f}" if total else "–",
            f"{100 * low:.0f} to {100 * high:.0f}",
        )
    return table


if __name__ == "__main__":
    main()
