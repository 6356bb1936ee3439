"""Which model answers."""

from derta.evaluation.harness.models import fingerprint
from tests.inference.tiny import make_model, make_tokenizer


def test_fingerprints_tell_checkpoints_apart():
    size = len(make_tokenizer())
    assert fingerprint(make_model(size)) == fingerprint(make_model(size))
    assert fingerprint(make_model(size)) != fingerprint(make_model(size, seed=1))
