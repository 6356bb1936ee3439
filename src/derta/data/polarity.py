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
    """Counts over the examples of one source.

    Attributes:
        triples: how many triples were seen.
        straight: of these, only `chosen` reads like a refusal.
        reversed: of these, only `rejected` reads like a refusal.
        first_reversed: origin of the first of those.
        lone: how many harmful responses for RTO only were seen.
        lone_refusals: of these, how many read like refusals.
    """

    triples: int = 0
    straight: int = 0
    reversed: int = 0
    first_reversed: str | None = None
    lone: int = 0
    lone_refusals: int = 0

    def add(self, example: Example) -> None:
        """Count one example; one without a harmful response says nothing about polarity."""
        if example.rejected is None:
            return
        rejected = reads_like_refusal(example.rejected)
        if example.chosen is None:
            self.lone += 1
            self.lone_refusals += rejected
            return
        self.triples += 1
        chosen = reads_like_refusal(example.chosen)
        self.straight += chosen and not rejected
        if rejected and not chosen:
            self.reversed += 1
            self.first_reversed = self.first_reversed or example.origin

    def check(self, name: str, *, swap: bool) -> None:
        """Stop when the responses of the source called `name` look swapped.

        Triples do when more are reversed than straight, and at least a tenth of all; harmful responses for RTO only
        when most of them read like refusals.

        Raises:
            InputError: they look swapped; says which flag swaps them.
        """
        if self.reversed > self.straight and self.reversed >= SWAPPED_SHARE * self.triples:
            mend = "drop --swap (in Python: swap=False)" if swap else "pass --swap to swap them (in Python: swap=True)"
            raise InputError(
                f"{self.first_reversed}: rejected reads like a refusal and chosen does not, in {self.reversed} of "
                f"{self.triples} triples: chosen and rejected look swapped; {mend}"
            )
        if 2 * self.lone_refusals > self.lone:
            raise InputError(
                f"{name}: {self.lone_refusals} of {self.lone} harmful responses for RTO read like refusals; give "
                f'harmful ones (in rows of the DeRTa release, safe "true" marks the harmful response)'
            )
