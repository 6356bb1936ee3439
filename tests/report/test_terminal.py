"""The terminal's table: the rows' numbers, and no control over the terminal."""

import io
import re
import sys

import pytest
from rich.console import Console

from derta.evaluation.results.metrics import MetricRow
from derta.report.terminal import indented, results_table
from derta.terminal import Screen


def row(metric, attack, value, model="m", unit="%", judge="organism", n=40, digest=None, method=None):
    return MetricRow(
        model,
        digest,
        method,
        None,
        attack.split("@")[0],
        attack if "@" in attack else None,
        metric,
        value,
        n,
        1.25,
        30.0,
        judge,
        unit,
    )


def printed(rows, **options):
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    console.print(results_table(rows, **options))
    return file.getvalue()


def test_values_stand_with_their_intervals():
    text = printed([row("asr", "prefill", 12.345), row("asr", "prefill@5", None), row("over_refusal", "direct", 7.0)])
    assert "12.3 [1.2, 30.0]" in text
    assert "7.0 [1.2, 30.0]" in text
    assert "@5" in text
    assert "–" in text


@pytest.mark.parametrize("columns", [None, "200", "80", "20"])
def test_no_model_and_no_number_is_lost_in_a_narrow_terminal_or_a_pipe(columns, monkeypatch, capsys):
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    attacks = ("direct", "codeattack@string+prefill@affirmative")
    values = [
        (attack, round(99.9 - 4 * model - place, 1)) for model in range(12) for place, attack in enumerate(attacks)
    ]
    rows = [row("asr", attack, value, f"runs/m{number // 2}") for number, (attack, value) in enumerate(values)]
    Screen().console().print(results_table(rows))
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    assert {f"m{model}" for model in range(12)} <= set(shown.split())
    assert {f"{value:.1f}" for _, value in values} <= set(shown.split())
    assert shown.split().count("30.0]") == len(values)
    if columns is None:
        assert "99.9 [1.2, 30.0]" in shown


def test_unscored_samples_show_up_when_there_are_any():
    assert "unscored" not in printed([row("asr", "direct", 1.0), row("unscored", "direct", 0.0, unit="samples")])
    assert "3 of 40" in printed([row("asr", "direct", 1.0), row("unscored", "direct", 3.0, unit="samples")])


def test_the_organism_and_smoke_runs_are_named_as_such():
    assert "Model organism" in printed([row("asr", "direct", 1.0)])
    assert "Model organism" not in printed([row("asr", "direct", 1.0, judge="other")])
    assert "means nothing" in printed([row("asr", "direct", 1.0)], note="It means nothing.")


def test_a_models_name_does_not_reach_the_terminal_raw():
    text = printed([row("asr", "direct", 1.0, model="\x1b[2J[bold]<script>\x07")])
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "[bold]<script>" in text


def test_two_models_of_one_method_are_two_columns_named_by_their_directories():
    models = {"runs/first": 10.0, "runs/second": 20.0}
    text = printed([row("asr", "direct", value, model, method="derta") for model, value in models.items()])
    for said in ("first", "second", "10.0 [1.2, 30.0]", "20.0 [1.2, 30.0]"):
        assert said in text
    apart = printed(
        [row("asr", "direct", 10.0, "a", method="vanilla"), row("asr", "direct", 20.0, "b", method="derta")]
    )
    assert "vanilla" in apart


def test_other_weights_at_the_same_path_are_another_column():
    text = printed([row("asr", "direct", value, "runs/m", digest=d) for d, value in (("f00d", 10.0), ("beef", 20.0))])
    for said in ("f00d", "beef", "10.0", "20.0"):
        assert said in text


def test_judges_stand_side_by_side_the_first_one_first():
    text = printed([row("asr", "direct", value, judge=judge) for judge, value in (("first", 10.0), ("other", 20.0))])
    assert text.index("by first") < text.index("by other")
    assert text.index("10.0") < text.index("20.0")


def test_broken_output_shows_up_when_there_is_any():
    assert "broken output" in printed([row("asr", "direct", 2.0), row("broken", "direct", 12.0)])
    assert "broken output" not in printed([row("asr", "direct", 2.0), row("broken", "direct", 0.0)])


def test_variants_of_a_composition_are_told_apart() -> None:
    labels = ("codeattack@stack+prefill@20", "codeattack@stack+prefill@affirmative", "template+prefill@20", "direct")
    assert [indented(label) for label in labels] == [
        " @stack+prefill@20",
        " @stack+prefill@affirmative",
        " @20",
        "direct",
    ]
