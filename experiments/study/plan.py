"""What a study consists of: a YAML file that says which variants are trained in which worlds with which seeds.

    recipe: organism                 what every variant starts from
    worlds: [4, 5, 6]
    seeds: [1, 2, 3]
    evaluate: {attacks: "all,combined", limit: 60}
    variants:
      paper: {method: derta}
      door: {baseline: door}
      recommended: {recipe: organism-recommended}
      tampered: {after: recommended, max_steps: 50}
    tables:
      - {title: Methods, variants: [paper, door, recommended], against: paper}

A cell is one world, variant and seed: one run directory and its evaluation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from derta.errors import InputError, did_you_mean, first_invalid
from derta.evaluation.attacks import attack_names
from derta.strict import STRICT, read_yaml
from experiments.study.claims import Attacks, Claim, Metric

_STRICT = ConfigDict(**STRICT, frozen=True)
_OF_A_CELL = {
    "train": ("model_name_or_path", "seed", "output_dir", "config", "overwrite", "dry_run"),
    "evaluate": ("model", "out", "dry_run", "quiet"),
}
"""Options that are a cell's own, or would keep it from having numbers."""


def _check_options(what: str, options: Mapping[str, Any]) -> None:
    for option in options:
        if option.replace("-", "_") in _OF_A_CELL[what]:
            raise ValueError(f"{option} isn't a variant's to say; leave it out")


def _names_a_directory(name: str) -> str:
    if not name or set(name) & set("/\\") or name.startswith("."):
        raise ValueError(f"{name!r} can't name a directory")
    return name


def _evaluation_options(options: dict[str, Any]) -> dict[str, Any]:
    _check_options("evaluate", options)
    return options


def _all_different(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("a number stands twice; leave one out")
    return values


_Places = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), AfterValidator(_all_different)]
"""Worlds or seeds."""


class Table(BaseModel):
    """One table of a study's page, with its figure.

    Attributes:
        title: Heads it.
        text: Says what it shows, in a sentence or two.
        variants: Names its rows; a mapping gives each its place on the figure's axis.
        axis: Names that axis.
        against: Names the variant from which the others' paired differences are taken.
        attacks: Names the attacks (or their variants: `prefill@20`) that are columns of their own.
        metric: Is shown of these attacks, and nothing else; left out, their success is, beside the usual columns.
    """

    model_config = _STRICT

    title: str
    text: str = ""
    variants: list[str] | dict[str, float]
    axis: str | None = None
    against: str | None = None
    attacks: Attacks = Field(default_factory=list)
    metric: Metric | None = None

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        if self.metric and not self.attacks:
            raise ValueError(f"{self.title!r} shows {self.metric} of no attack; name some, `attacks`")
        return self


_Evaluate = Annotated[dict[str, Any], AfterValidator(_evaluation_options)]


class _Entry(BaseModel):
    """A variant as it stands in the file: what a study itself reads; the rest are options of training."""

    model_config = ConfigDict(**{**_STRICT, "extra": "allow"})

    recipe: str | None = None
    baseline: str | None = None
    after: str | None = None
    train: bool = True
    evaluate: _Evaluate = Field(default_factory=dict)
    worlds: _Places | None = None
    seeds: _Places | None = None

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        options = self.model_extra or {}
        _check_options("train", options)
        if not self.train and (options or self.after is None):
            raise ValueError("without training it is another variant's model: say which, `after`")
        return self


class _File(BaseModel):
    """A study's file as it stands."""

    model_config = _STRICT

    title: str
    text: str = ""
    recipe: str
    worlds: _Places
    seeds: _Places
    evaluate: _Evaluate
    variants: dict[Annotated[str, AfterValidator(_names_a_directory)], _Entry | None] = Field(min_length=1)
    tables: list[Table] = Field(default_factory=list)
    claims: list[Claim] = Field(default_factory=list)


@dataclass(frozen=True)
class Variant:
    """One way of training, or of attacking what another variant trained.

    Attributes:
        name: Names it in tables.
        train: Holds options of `derta train` that differ from the recipe's.
        recipe: Names the recipe.
        baseline: Names one of `derta train --method`; `None`: `derta train`.
        after: Names the variant whose model it starts from; `None`: the world's base.
        trained: Whether it is trained at all, or is `after`'s model under another evaluation.
        evaluate: Holds options of `derta eval`.
        worlds: Lists the worlds that it is trained in.
        seeds: Lists the seeds that it is trained with.
    """

    name: str
    recipe: str
    train: Mapping[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    after: str | None = None
    trained: bool = True
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    worlds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def attacks(self) -> list[str]:
        """Return the attacks that it is attacked with, where the study names them."""
        named = self.evaluate.get("attacks")
        return attack_names(str(named)) if named else []


@dataclass(frozen=True, order=True)
class Cell:
    """One run of a study."""

    seed: int
    world: int
    variant: str

    @property
    def directory(self) -> Path:
        """Where it lies in the study's directory."""
        return Path(f"world-{self.world}", self.variant, f"seed-{self.seed}")


@dataclass(frozen=True)
class Study:
    """What a study consists of.

    Attributes:
        path: Its file.
        title: Heads its page.
        text: Says what it asks.
        variants: By name; each comes after the one it starts from.
        tables: The page's tables.
        claims: What is claimed of the numbers, and checked.
    """

    path: Path
    title: str
    text: str
    variants: Mapping[str, Variant]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]

    def start_of(self, cell: Cell) -> Cell | None:
        """Return the cell whose model a cell starts from; `None`: its world's base."""
        after = self.variants[cell.variant].after
        return Cell(cell.seed, cell.world, after) if after else None

    def count(self, variant: str, against: str | None = None) -> int:
        """Return how many cells a variant has, or how many of them another has, too."""
        one, other = self.variants[variant], self.variants[against or variant]
        return len({*one.worlds} & {*other.worlds}) * len({*one.seeds} & {*other.seeds})

    def cells(self) -> Iterator[Cell]:
        """Yield the cells, seed by seed and world by world: what is done so far compares every variant."""
        seeds = dict.fromkeys(seed for variant in self.variants.values() for seed in variant.seeds)
        worlds = dict.fromkeys(world for variant in self.variants.values() for world in variant.worlds)
        for seed in seeds:
            for world in worlds:
                for variant in self.variants.values():
                    if seed in variant.seeds and world in variant.worlds:
                        yield Cell(seed, world, variant.name)


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        InputError: The file can't be read, a field is unknown or missing, or a variant starts from none that there is.
    """
    try:
        file = _File.model_validate(read_yaml(path, "study")[0])
    except ValidationError as error:
        raise InputError(f"{path}: {first_invalid(error)}") from error
    variants = {name: _variant(name, entry or _Entry(), file) for name, entry in file.variants.items()}
    _check_starts(variants, path)
    for table in file.tables:
        for name in [*table.variants, *([table.against] if table.against else [])]:
            _check_known(name, variants, f"{path}: the table {table.title!r}")
    for claim in file.claims:
        for name in filter(None, (claim.variant, claim.against)):
            _check_known(name, variants, f"{path}: the claim {claim.claim!r}")
    starts = {name: [variant.after] if variant.after else [] for name, variant in variants.items()}
    ordered = {name: variants[name] for name in TopologicalSorter(starts).static_order()}
    return Study(path, file.title, file.text, ordered, tuple(file.tables), tuple(file.claims))


def _variant(name: str, entry: _Entry, file: _File) -> Variant:
    return Variant(
        name,
        recipe=file.recipe if entry.recipe is None else entry.recipe,
        baseline=entry.baseline,
        after=entry.after,
        trained=entry.train,
        train=entry.model_extra or {},
        evaluate={**file.evaluate, **entry.evaluate},
        worlds=tuple(entry.worlds or file.worlds),
        seeds=tuple(entry.seeds or file.seeds),
    )


def _check_starts(variants: Mapping[str, Variant], path: Path) -> None:
    for variant in variants.values():
        if variant.after is None:
            continue
        _check_known(variant.after, variants, f"{path}: variants.{variant.name}.after")
        start = variants[variant.after]
        if set(variant.worlds) - set(start.worlds) or set(variant.seeds) - set(start.seeds):
            raise InputError(
                f"{path}: variants.{variant.name}: in worlds or with seeds that {start.name} isn't trained in"
            )
    try:
        TopologicalSorter({v.name: [v.after] if v.after else [] for v in variants.values()}).prepare()
    except CycleError as error:
        raise InputError(f"{path}: variants start from each other: {' → '.join(error.args[1])}") from error


def _check_known(name: str, variants: Mapping[str, Variant], where: str) -> None:
    if name not in variants:
        raise InputError(f"{where}: no variant {name!r}{did_you_mean(name, variants)}")
