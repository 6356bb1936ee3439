"""A study's numbers: what each cell measured, means over cells, and differences in pairs.

The unit is the cell. Every interval is Student's t over worlds × seeds: samples within a cell share a model, so they
add no certainty about the method. Cells of one world share a base; where worlds differ more than seeds, the intervals
are too narrow, which the values by world show.
"""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mean

from pydantic import TypeAdapter, ValidationError

from derta.errors import InputError, first_invalid, first_line
from derta.evaluation.results.correction import METRICS
from derta.evaluation.results.intervals import student_t
from derta.evaluation.results.metrics import UNITS, MetricRow
from derta.files import write_bytes
from derta.strict import validated
from experiments.study.cells import CELL, read_cell, settings_of
from experiments.study.plan import Cell, Study

ASR = "asr"


@dataclass(frozen=True)
class Number:
    """One number of one cell, a line of `rows.csv`; `settings` is what [`settings_of`] its cell gave then."""

    world: int
    seed: int
    variant: str
    attack: str
    label: str
    metric: str
    value: float
    n: int
    settings: str

    @property
    def cell(self) -> Cell:
        """The cell that it was measured in."""
        return Cell(self.seed, self.world, self.variant)


@dataclass(frozen=True)
class Estimate:
    """A mean over cells, with its 95 % interval; one cell has none.

    Attributes:
        value: The mean.
        low: The interval's lower end.
        high: Its upper end.
        cells: How many cells it is taken over.
        of: What it is the mean of, where that was chosen: the worst attack's name.
    """

    value: float
    low: float | None
    high: float | None
    cells: int
    of: str = ""


@dataclass(frozen=True)
class Measure:
    """Makes one figure of a cell's values by (label, metric).

    Attributes:
        of: Makes it; `None` where the cell has none.
        most: Is the most that it can be: a share is of 100, samples and tokens are of no number.
    """

    of: Callable[[Mapping[tuple[str, str], float]], float | None]
    most: float = 100.0


@dataclass(frozen=True)
class Numbers:
    """All numbers of a study.

    Attributes:
        cells: Each cell's values, by the attack's or variant's label and the metric.
        attacks: The attacks' names, in the order of their appearance.
    """

    cells: Mapping[Cell, Mapping[tuple[str, str], float]]
    attacks: tuple[str, ...]

    @classmethod
    def of(cls, numbers: Iterable[Number]) -> "Numbers":
        """Group numbers by cell."""
        cells: dict[Cell, dict[tuple[str, str], float]] = {}
        attacks: dict[str, None] = {}
        for number in numbers:
            cells.setdefault(number.cell, {})[number.label, number.metric] = number.value
            if number.metric == ASR:
                attacks[number.attack] = None
        return cls(cells, tuple(attacks))

    def values(self, variant: str, measure: Measure, against: str | None = None) -> dict[tuple[int, int], float]:
        """Return a figure of every cell of a variant by (world, seed); less that of `against` in the same place."""
        found = {}
        for cell, values in self.cells.items():
            if cell.variant != variant:
                continue
            value = measure.of(values)
            other = measure.of(self.cells.get(Cell(cell.seed, cell.world, against), {})) if against else 0.0
            if value is not None and other is not None:
                found[cell.world, cell.seed] = value - other
        return found

    def estimate(self, variant: str, measure: Measure, against: str | None = None) -> Estimate | None:
        """Return the mean of a figure over a variant's cells; `None` if no cell has it."""
        values = list(self.values(variant, measure, against).values())
        if not values:
            return None
        low, high = student_t(values)
        if low is not None and high is not None and against is None:
            low, high = max(low, 0.0), min(high, measure.most)
        return Estimate(mean(values), low, high, len(values))

    def count(self, variant: str, against: str | None = None) -> int:
        """Return how many cells a variant has, of those that `against` has as well."""
        return sum(
            cell.variant == variant and (against is None or Cell(cell.seed, cell.world, against) in self.cells)
            for cell in self.cells
        )

    def lacking(self, variant: str, labels: Iterable[str], metric: str, against: str | None = None) -> list[str]:
        """Return the attacks of which a variant's cells don't all have a figure: nothing is known of the worst."""
        whole = max(self.count(variant, against), 1)
        return [label for label in labels if len(self.values(variant, value_of(label, metric), against)) < whole]

    def worst(
        self, variant: str, labels: Sequence[str], metric: str, against: str | None = None, *, least: bool = False
    ) -> Estimate | None:
        """Return the attack whose mean over cells is highest (or lowest), with its own interval.

        `None` where a cell lacks one of them: that one may be the worst.
        """
        if self.lacking(variant, labels, metric, against):
            return None
        estimates = {label: self.estimate(variant, value_of(label, metric), against) for label in labels}
        found = [replace(estimate, of=label) for label, estimate in estimates.items() if estimate is not None]
        choose = min if least else max
        return choose(found, key=lambda each: each.value) if found else None


def most(metric: str) -> float:
    """Return the most that a metric can be."""
    return math.inf if metric in UNITS else 100.0


def value_of(label: str, metric: str) -> Measure:
    """Return the measure that is a number as it stands."""
    return Measure(lambda values: values.get((label, metric)), most(metric))


def mean_of(labels: Sequence[str], metric: str) -> Measure:
    """Return the measure that is the mean over attacks; a cell that lacks one has none."""

    def measure(values: Mapping[tuple[str, str], float]) -> float | None:
        found = [values.get((label, metric)) for label in labels]
        known = [value for value in found if value is not None]
        return mean(known) if known and len(known) == len(found) else None

    return Measure(measure, most(metric))


def unscored_of(labels: Sequence[str]) -> Measure:
    """Return the measure that counts samples without a verdict; a cell that doesn't say it of an attack has none."""

    def measure(values: Mapping[tuple[str, str], float]) -> float | None:
        found = [values.get((label, "unscored")) for label in labels if (label, ASR) in values]
        known = [value for value in found if value is not None]
        return sum(known) if len(known) == len(found) else None

    return Measure(measure, math.inf)


def collect(study: Study, out: Path) -> list[Number]:
    """Return the numbers of every finished cell of a study; those of other settings than now aren't its own."""
    numbers = []
    for cell in study.cells():
        document = read_cell(study, cell, out)
        if document is None:
            continue
        try:
            rows = [validated(MetricRow, row) for row in document["rows"]]
        except (KeyError, TypeError, ValueError) as error:
            path = out / cell.directory / CELL
            raise InputError(f"{path}: not a cell's numbers: {error}; delete it and run the study again") from error
        place = (cell.world, cell.seed, cell.variant)
        numbers += [
            Number(*place, row.attack, row.label, row.metric, round(row.value, 4), row.n, document["settings"])
            for row in rows
            if row.value is not None and row.unit in ("%", "tokens", "samples")
        ]
    return numbers


def save_numbers(path: Path, numbers: Sequence[Number]) -> None:
    """Write numbers as CSV, a line each; compressed where the name ends in `.gz`."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Number)], lineterminator="\n")
    table.writeheader()
    table.writerows(map(asdict, numbers))
    content = text.getvalue().encode()
    # Without the time in it, the same numbers give the same file.
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def load_numbers(path: Path, study: Study) -> list[Number]:
    """Read what [`save_numbers`] wrote of a study.

    Raises:
        InputError: The file is missing, or isn't such a table: a value is impossible or stands twice, or is of no cell
            of the study, or of one with other settings than now.
    """
    planned = {cell: settings_of(study, cell) for cell in study.cells()}
    number_of = TypeAdapter(Number)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if rows.fieldnames is None:
                raise ValueError("it is empty")
            numbers: dict[tuple[object, ...], Number] = {}
            for row in rows:
                try:
                    number = number_of.validate_python(row)
                except ValidationError as error:
                    raise ValueError(f"line {rows.line_num}: {first_invalid(error)}") from None
                key = (number.cell, number.label, number.metric)
                wrong = " stands twice" if key in numbers else _find_wrong(number, planned)
                if wrong:
                    what = f"{number.metric} of {number.label} in {number.cell.directory}"
                    raise ValueError(f"line {rows.line_num}: {what}{wrong}")
                numbers[key] = number
            return list(numbers.values())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: can't be read as a study's numbers: {first_line(error)}") from error


def _find_wrong(number: Number, planned: Mapping[Cell, str]) -> str | None:
    """Return what is wrong with a number, given the settings of the cells that there are."""
    if not 0 <= number.value <= most(number.metric) or math.isinf(number.value) or number.n < 0:
        return f": {number.value} of {number.n} can't be"
    if number.metric not in METRICS:
        return ": there is no such metric"
    if not number.n and number.metric not in UNITS:
        return f": {number.value} of no sample can't be"
    if number.cell not in planned:
        return " is no cell of the study; write the rows again"
    if number.settings != planned[number.cell]:
        return " was measured with other settings than now; measure it again"
    return None
