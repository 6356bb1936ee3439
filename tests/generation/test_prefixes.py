"""Shared beginnings: found where they save more than they cost, and prompts that begin alike made neighbours."""

from derta.generation.prefixes import arrange

LONG = list(range(300))


def test_prompts_that_share_nothing_go_longest_first() -> None:
    arrangement = arrange([[1] * 3, [2] * 9, [3] * 5])
    assert arrangement.order == [1, 2, 0]
    assert arrangement.shared == [[], [], []]


def test_a_long_beginning_is_shared_and_its_prompts_are_neighbours() -> None:
    arrangement = arrange([[*LONG, 1], [7] * 400, [*LONG, 2, 3], [7, 8]])
    assert arrangement.shared == [[300], [], [300], []]
    assert arrangement.order.index(1) == 0
    assert abs(arrangement.order.index(0) - arrangement.order.index(2)) == 1


def test_beginnings_nest() -> None:
    deeper = [*LONG, *[5] * 300]
    arrangement = arrange([[*LONG, 1], [*deeper, 1], [*deeper, 2]])
    assert arrangement.shared == [[300], [300, 600], [300, 600]]


def test_the_last_token_of_a_prompt_is_never_shared() -> None:
    assert arrange([LONG, LONG]).shared == [[299], [299]]
    assert arrange([LONG, [*LONG, 1]]).shared == [[299], [299]]


def test_a_beginning_that_saves_little_is_not_shared() -> None:
    assert arrange([[*LONG[:200], 1], [*LONG[:200], 2]]).shared == [[], []]
    assert arrange([[*LONG[:200], number + 500] for number in range(3)]).shared == [[200]] * 3
    assert arrange([[*LONG[:15], number + 500] for number in range(99)]).shared == [[]] * 99


def test_earlier_prompts_count_and_are_not_arranged() -> None:
    arrangement = arrange([[*LONG, 1]], others=[[*LONG, 2], [9]])
    assert arrangement.order == [0]
    assert arrangement.shared == [[300]]


def test_no_prompts() -> None:
    assert arrange([]).order == []
