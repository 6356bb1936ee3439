"""The polarity guard: stops data whose harmful responses stand where the safe ones belong."""

import re
import unicodedata
from dataclasses import dataclass

from derta.data.triples import Example
from derta.errors import InputError

# Below this share a few harmful responses that happen to begin like refusals are noise, not swapped columns.
SWAPPED_SHARE = 0.1

_OPENING = re.compile(
    r"""
    (?: (?: oh | no | hi | hello | well | hmm ) \b [\s,.!]* )*
    (?:
        (?: (?: i ' m | i \s am | we ' re | we \s are ) \s (?: (?: so | very | really | truly | terribly ) \s )? )?
            (?: (?: so | very ) \s )? sorry \b
      | (?: i ' m | i \s am ) \s (?: afraid | unable | not \s (?: able | going | comfortable | willing | allowed ) ) \s
      | (?: i \s )? (?: sincerely \s )? apologi [sz] e \b | (?: my \s )? apologies \b
      | i \s (?: (?: simply | really | absolutely ) \s )?
            (?: cannot | can \s not | can ' t | cant | could \s not | couldn ' t | will \s not | won ' t | would \s not
              | wouldn ' t | decline | refuse | must \s (?: respectfully \s )? (?: decline | refuse )
              | (?: do \s not | don ' t ) \s (?: feel \s comfortable | support | condone | provide | assist ) ) \b
      | as \s (?: an? | your ) \s (?: [\w-]+ \s ){0,3} (?: ai | model | assistant | chatbot ) \b
      | unfortunately \s? ,? \s (?: i | we | it | this | that ) \b
      | (?: it | this | that ) (?: ' s | \s is ) \s
            (?: illegal | unethical | against | not \s (?: appropriate | acceptable | ethical | okay ) ) \b
    )
    """,
    re.VERBOSE,
)
# Quotation marks, list and emphasis marks that may stand before the first word.
_DECORATION = re.compile(r"^[\W_]+")
_APOSTROPHES = str.maketrans({character: "'" for character in "’‘‛ʼ＇`´′"})


def reads_like_refusal(response: str) -> bool:
    """Whether `response` begins like a refusal. A rule of thumb for whole data sets, not a judge of one response."""
    opening = unicodedata.normalize("NFKC", response[:200].translate(_APOSTROPHES)).casefold()
    return _OPENING.match(" ".join(_DECORATION.sub("", opening).split())) is not None


@dataclass
class Polarity:
    """Counts over the triples of one source.

    Attributes:
        triples: how many were seen.
        straight: of these, only `chosen` reads like a refusal.
        reversed: of these, only `rejected` reads like a refusal.
        first_reversed: origin of the first of those.
    """

    triples: int = 0
    straight: int = 0
    reversed: int = 0
    first_reversed: str | None = None

    def add(self, example: Example) -> None:
        """Count one example; anything but a triple says nothing about polarity."""
        if example.chosen is None or example.rejected is None:
            return
        self.triples += 1
        chosen, rejected = reads_like_refusal(example.chosen), reads_like_refusal(example.rejected)
        self.straight += chosen and not rejected
        if rejected and not chosen:
            self.reversed += 1
            self.first_reversed = self.first_reversed or example.origin

    def check(self, *, swap: bool) -> None:
        """Stop when the columns look swapped: more reversed triples than straight ones, and at least a tenth of all.

        Raises:
            InputError: they do; says which flag swaps them.
        """
        if self.reversed <= self.straight or self.reversed < SWAPPED_SHARE * self.triples:
            return
        mend = "drop --swap (in Python: swap=False)" if swap else "pass --swap to swap them (in Python: swap=True)"
        raise InputError(
            f"{self.first_reversed}: rejected reads like a refusal and chosen does not, in {self.reversed} of "
            f"{self.triples} triples: chosen and rejected look swapped; {mend}"
        )
