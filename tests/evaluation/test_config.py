"""What an evaluation can't be asked for."""

from typing import Any

import pytest

from derta.errors import InputError
from derta.evaluation.config import Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": 0}, "`limit`: 0 behaviours of each kind are too few"),
        ({"limit": -5}, "`limit`: -5 behaviours of each kind are too few"),
        ({"search_limit": -1}, "`search_limit`: -1 behaviours are too few"),
        ({"epochs": 0}, "`epochs`: 0: take each sample"),
        ({"temperature": -0.1}, "`temperature`: -0.1"),
        ({"temperature": float("nan")}, "`temperature`: nan"),
        ({"temperature": float("inf")}, "`temperature`: inf"),
    ],
)
def test_a_number_out_of_range_is_told_before_anything_is_read(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Options(tasks={"gsm8k": "nowhere.jsonl"}, **options)
