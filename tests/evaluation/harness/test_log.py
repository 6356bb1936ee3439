"""Inspect's logs: why a sample has no response, and what was damaged."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, write_eval_log

from derta.errors import InputError
from derta.evaluation.harness.log import SampleError, check_logs
from derta.generation import ContextFullError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("a field is wrong"), "input"),
        # The model's own answers filled it: the sample is unscored, and the others count.
        (ContextFullError("a prompt of 417 tokens and 96 new ones don't fit"), "model"),
        (TimeoutError("no answer"), "model"),
    ],
)
def test_what_the_user_can_mend_stops_an_evaluation_and_all_else_its_sample(error: Exception, kind: str) -> None:
    found = SampleError.of(error)
    assert found.kind == kind
    assert str(error) in found.message
    assert SampleError.from_metadata(found.to_metadata()) == found


def test_a_log_of_which_any_part_was_damaged_is_named(tmp_path: Path) -> None:
    log = tmp_path / "prefill.eval"
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00", task="t", dataset=EvalDataset(), model="m", config=EvalConfig()
    )
    write_eval_log(EvalLog(eval=spec), str(log))
    check_logs(tmp_path)
    whole = log.read_bytes()
    with ZipFile(log) as archive:
        first = archive.infolist()[0]
    begins = first.header_offset + 30 + len(first.filename)
    named = 0
    for at in range(begins, begins + first.compress_size):
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            check_logs(tmp_path)
        except InputError:
            named += 1
    # A bit that means nothing leaves the content as it was.
    assert named >= 0.9 * first.compress_size
