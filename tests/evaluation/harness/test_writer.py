"""What a model's own words are cut to."""

from derta.evaluation.harness.writer import whole_sentences


def test_a_cut_answer_ends_at_its_last_whole_sentence_or_line() -> None:
    assert whole_sentences("Take flour. Add milk and") == "Take flour."
    assert whole_sentences('He said "stop." Then he') == 'He said "stop."'
    assert whole_sentences("Steps:\n1. Take flour\n2. Add") == "Steps:\n1. Take flour"
    assert whole_sentences("2. Add") == ""
    assert whole_sentences("a cut one") == ""
