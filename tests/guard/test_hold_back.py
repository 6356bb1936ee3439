"""What may leave and what may not, whatever comes."""

import math

from hypothesis import given
from hypothesis import strategies as st

from derta.guard.hold_back import HoldBack

PROBABILITIES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=40)
THRESHOLD = 0.5


def run(probabilities, window, ended):
    """Push tokens 0, 1, …, and return what left after each, and at the end."""
    hold: HoldBack[int] = HoldBack(THRESHOLD, window)
    left = [hold.push(token, [p]) for token, p in enumerate(probabilities)]
    return hold, left, hold.end([ended] if ended is not None else [])


def is_calm(p):
    return p <= THRESHOLD


@given(PROBABILITIES, st.integers(0, 12), st.none() | st.floats(0, 1))
def test_nothing_leaves_that_an_alarm_within_the_window_would_have_held(probabilities, window, ended):
    hold, left, rest = run(probabilities, window, ended)
    places = [*probabilities, *([] if ended is None else [ended])]
    alarm = next((place for place, p in enumerate(places) if not is_calm(p)), None)
    released = [token for each in left for token in each] + rest
    assert hold.stopped_at == alarm
    if alarm is None:
        assert released == list(range(len(probabilities)))
    else:
        assert released == list(range(max(0, alarm - window)))
    assert hold.released == len(released)


@given(PROBABILITIES, st.integers(0, 12))
def test_a_calm_token_leaves_as_soon_as_its_window_is_over(probabilities, window):
    calm = [p for p in probabilities if is_calm(p)]
    _, left, _ = run(calm, window, None)
    assert left == [[place - window] if place >= window else [] for place in range(len(calm))]


@given(st.lists(st.lists(st.floats(0, 1), max_size=4), max_size=15), st.integers(0, 6))
def test_pieces_of_several_tokens_leave_whole_and_no_earlier_than_token_by_token(pieces, window):
    hold: HoldBack[int] = HoldBack(THRESHOLD, window)
    left = [item for index, piece in enumerate(pieces) for item in hold.push(index, piece)]
    rest = hold.end()
    ends, count = [], 0
    for piece in pieces:
        count += len(piece)
        ends.append(count)
    flat = [p for piece in pieces for p in piece]
    alarm = next((place for place, p in enumerate(flat) if not is_calm(p)), None)
    if alarm is None:
        assert left + rest == list(range(len(pieces)))
    else:
        assert rest == []
        assert all(ends[index] <= max(0, alarm - window) for index in left)


def test_after_a_stop_nothing_leaves_any_more():
    hold: HoldBack[str] = HoldBack(THRESHOLD, 1)
    assert hold.push("a", [0.1]) == []
    assert hold.push("b", [0.1]) == ["a"]
    assert hold.push("c", [0.9]) == hold.push("d", [0.0]) == hold.end() == []
    assert (hold.stopped_at, hold.released) == (2, 1)
