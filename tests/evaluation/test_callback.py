"""Attack success during training: measured, logged, and of no effect on the training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from derta.cli import main
from derta.names import PACKAGED_WORLD, organism_base

RECIPE = ["train", "--model-name-or-path", "organism", "--train-data", "organism", "--max-examples", "40"]
RECIPE += [
    "--max-steps",
    "4",
    "--learning-rate",
    "0.001",
    "--report-to",
    "none",
    "--use-cpu",
    "true",
    "--use-peft",
    "true",
]
ATTACKED = ["--attack-steps", "3", "--attack-limit", "2", "--attack-max-tokens", "40", "--logging-steps", "1"]


def history(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return found


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacked") / "run"
    assert main([*RECIPE, *ATTACKED, "--output-dir", str(out)]) == 0
    return out


def test_it_logs_attack_success_beside_the_losses_and_after_the_last_step(attacked: Path) -> None:
    logged = {each["step"]: each for each in history(attacked) if "asr_direct" in each}
    assert list(logged) == [3, 4]
    for values in logged.values():
        assert {"asr_prefill", "over_refusal", "unscored_direct", "broken_direct"} <= set(values)
    assert [each["step"] for each in history(attacked) if "loss" in each] == [1, 2, 3, 4]
    # Three small steps don't teach the organism to refuse.
    assert logged[3]["asr_direct"] == 100


def test_a_run_ends_with_the_same_weights_whether_it_was_attacked_or_not(attacked: Path, tmp_path: Path) -> None:
    assert main([*RECIPE, "--output-dir", str(tmp_path / "run")]) == 0
    ours, theirs = (load_file(run / "adapter_model.safetensors") for run in (attacked, tmp_path / "run"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_organism_by_its_directory_is_attacked_with_its_own_behaviours(tmp_path: Path) -> None:
    model, out = str(organism_base(PACKAGED_WORLD)), tmp_path / "run"
    assert main([*RECIPE, *ATTACKED, "--model-name-or-path", model, "--output-dir", str(out)]) == 0
    assert any("asr_direct" in each for each in history(out))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack-limit", "3"], "attack_limit: nothing is attacked while training"),
        (["--attack-steps", "0"], "attack_steps: 0 is not a number above 0"),
        (["--attack-steps", "1", "--attacks", "gcg"], "gcg looks at answers before it asks again"),
        (["--attack-steps", "1", "--attacks", "nonsense"], "unknown attack 'nonsense'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dry_run in ([], ["--dry-run"]):
        assert main([*RECIPE, *options, *dry_run, "--output-dir", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "derta.json").exists()
