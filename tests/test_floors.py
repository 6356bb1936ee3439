"""The floors of `docs/architecture.md`: imports go down only, and nowhere in circles."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import derta

PACKAGE = Path(derta.__file__).parent

# From the bottom. What stands on one floor doesn't import its neighbours there either.
FLOORS: Sequence[set[str]] = (
    {"errors", "redaction", "termination", "version"},
    {"attention_masks", "files", "strict", "terminal", "threads"},
    {"names", "run_identity"},
    {"data"},
    {"contexts"},
    {"guard", "tokens"},
    {"generation", "organism"},
    {"method"},
    {"training"},
    {"evaluation"},
    {"report"},
    {"commands"},
    {"cli"},
    {"__init__", "__main__"},
)
FLOORS_OF_EVALUATION: Sequence[set[str]] = (
    {"config", "results"},
    {"judges"},
    {"attacks"},
    {"inputs"},
    {"samples"},
    {"failures", "monitoring", "plan", "rejudge"},
    {"harness", "in_process"},
    {"bias", "callback", "generate", "quality", "run"},
    {"registry"},
)


def imports(package: Path) -> dict[str, set[str]]:
    """Return what each module of a package imports of it, wherever the import stands: lazy ones count."""
    names = {module_name(path, package): path for path in package.rglob("*.py")}
    return {
        name: {module for target in imported(path, name) if (module := nearest(target, names)) and module != name}
        for name, path in names.items()
    }


def module_name(path: Path, package: Path) -> str:
    names = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imported(path: Path, name: str) -> Iterator[str]:
    home = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                ancestors = home.split(".")[: len(home.split(".")) + 1 - level] if level else []
                base = ".".join([*ancestors, *([module] if module else [])])
                yield from (f"{base}.{alias.name}" for alias in aliases)
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def nearest(target: str, names: Mapping[str, Path]) -> str:
    """Return the module that an import reads: `a.b.name` is in `a.b` unless it is a module itself."""
    while target and target not in names:
        target = target.rpartition(".")[0]
    return target


def parts(graph: Mapping[str, set[str]], package: str) -> dict[str, set[str]]:
    """Return what the parts of a package, its folders and files, import of each other."""

    def part(module: str) -> str | None:
        if module == package:
            return "__init__"
        inside = module.startswith(f"{package}.")
        return module.removeprefix(f"{package}.").partition(".")[0] if inside else None

    found: dict[str, set[str]] = {}
    for module, targets in graph.items():
        if own := part(module):
            others = {other for target in targets if (other := part(target)) and other != own}
            found.setdefault(own, set()).update(others)
    return found


def breaches(graph: Mapping[str, set[str]], floors: Sequence[set[str]]) -> list[str]:
    """Return every import that doesn't go down."""
    level = {name: i for i, floor in enumerate(floors) for name in floor}
    assert not (strangers := graph.keys() - level.keys()), f"give {sorted(strangers)} a floor"
    return [f"{name} imports {other}" for name in graph for other in graph[name] if level[other] >= level[name]]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


GRAPH = imports(PACKAGE)


def test_packages_import_only_from_floors_below() -> None:
    assert breaches(parts(GRAPH, "derta"), FLOORS) == []


def test_parts_of_the_evaluation_import_only_from_floors_below() -> None:
    rooms = parts(GRAPH, "derta.evaluation")
    del rooms["__init__"]
    assert breaches(rooms, FLOORS_OF_EVALUATION) == []


def test_every_floor_exists() -> None:
    assert set().union(*FLOORS) == set(parts(GRAPH, "derta"))
    assert set().union(*FLOORS_OF_EVALUATION) == set(parts(GRAPH, "derta.evaluation")) - {"__init__"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(GRAPH) == []


def packages() -> list[str]:
    return sorted(module_name(path, PACKAGE) for path in PACKAGE.rglob("__init__.py"))


@pytest.mark.parametrize("package", packages())
def test_no_parts_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    rooms = parts(GRAPH, package)
    # A package's `__init__` shows what it is made of. That nothing in it reads it back is for modules to say.
    del rooms["__init__"]
    assert circle({name: targets - {"__init__"} for name, targets in rooms.items()}) == []


def build(house: Path, **files: str) -> dict[str, set[str]]:
    """Write a package of modules, `folder__module=text`, and return what they import."""
    for name, text in files.items():
        path = house / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports(house)


@pytest.mark.parametrize(
    "text",
    [
        "from house.attic import thing",
        "from house import attic",
        "import house.attic",
        "import house.attic as up",
        "from .attic import thing",
        "from . import attic",
        "def lazily():\n    from house.attic import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.attic import thing",
        "import importlib\nimportlib.import_module('house.attic')",
    ],
)
def test_an_import_upwards_is_seen_in_every_form(tmp_path: Path, text: str) -> None:
    graph = build(tmp_path / "house", cellar=text, attic="thing = 1")
    found = parts(graph, "house")
    assert "cellar imports attic" in breaches(found, [{"cellar"}, {"attic"}])


def test_neighbours_of_a_floor_do_not_import_each_other(tmp_path: Path) -> None:
    graph = build(tmp_path / "house", left="import house.right", right="")
    assert breaches(parts(graph, "house"), [{"left", "right"}]) == ["left imports right"]


def test_a_part_without_a_floor_is_told(tmp_path: Path) -> None:
    graph = build(tmp_path / "house", left="", shed="")
    with pytest.raises(AssertionError, match=r"give \['shed'\] a floor"):
        breaches(parts(graph, "house"), [{"left"}])


def test_a_lazy_circle_is_a_circle(tmp_path: Path) -> None:
    graph = build(tmp_path / "house", a="import house.b", b="def lazily():\n    import house.c", c="import house.a")
    assert set(circle(graph)) == {"house.a", "house.b", "house.c"}


def test_folders_in_a_circle_are_seen_where_their_modules_are_in_none(tmp_path: Path) -> None:
    graph = build(tmp_path / "house", x__one="import house.y.one", y__one="", y__two="import house.x.two", x__two="")
    assert circle(graph) == []
    assert set(circle(parts(graph, "house"))) == {"x", "y"}


def test_the_package_never_imports_experiments() -> None:
    """`derta train --method NAME` looks a method to compare with up by name; nothing else knows of them."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            assert not any(name.partition(".")[0] == "experiments" for name in names), path
