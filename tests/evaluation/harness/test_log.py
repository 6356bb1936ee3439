"""Why a sample has no response, as Inspect's logs keep it."""

import pytest

from derta.errors import InputError
from derta.evaluation.harness.log import SampleError
from derta.inference import ContextFullError


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
