"""A tuned model's refusals of everyday requests are counted and told."""

from typing import Any

import pytest

from derta.generation import Generation
from derta.terminal import screen
from derta.training import harmless_check
from derta.training.harmless_check import REQUESTS, tell_harmless_refusals


def told(answers: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[float, str]:
    lines: list[str] = []

    def generate(model: Any, tokenizer: Any, requests: list[Any], *rest: Any, **how: Any) -> list[Generation]:
        padded = answers + ["Of course."] * (len(requests) - len(answers))
        return [Generation("", text, 3, True) for text in padded]

    monkeypatch.setattr(harmless_check, "generate", generate)
    monkeypatch.setattr(screen, "say", lambda line, style="": lines.append(line))
    share = tell_harmless_refusals(None, None, "Sorry", None)
    return share, lines[0]


def test_refusals_at_once_and_in_the_middle_count(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["Sorry, I cannot.", "I cannot help with that.", "Take flour and Sorry, I cannot go on."]
    share, line = told(answers, monkeypatch)
    assert share == 3 / len(REQUESTS.splitlines())
    assert "refuses 12% of everyday requests (3 of 24): train on more helpful examples" in line


def test_a_helpful_model_is_told_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(["Sorry, I cannot."], monkeypatch)[1] == "refuses 4% of everyday requests (1 of 24)"
