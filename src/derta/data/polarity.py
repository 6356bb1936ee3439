"""The polarity guard: stops data whose harmful responses stand where the safe ones belong."""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from derta.data.triples import Example
from derta.errors import InputError

SIGNIFICANCE = 0.05
"""Of the sign test on triples that show a side."""

# Too few triples for a sign test look swapped by their share.
SWAPPED_SHARE = 0.1

# What is said of helpful examples before training, by their share.
REFUSALS_SHARE = 0.5
COMPLYING_SHARE = 0.01

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


_HARMFUL_REQUEST = re.compile(
    r"""
    \b (?:
        (?: make | making | build\w* | construct\w* | assembl\w+ | synthesi\w+ | cook\w* | create | plant | detonate
          | buy )
            \s (?: [\w-]+ \s ){0,4}
            (?: (?: pipe \s? )? bombs? | explosives? | grenades? | nerve \s agents? | poison | silencers?
              | meth(?:amphetamine)?
              | malware | ransomware | spyware | keyloggers? | (?: computer \s )? virus(?:es)? | botnets? )
      | (?: fake | forged? | counterfeit ) \s (?: ids? | passports? | money | bills | prescriptions? )
      | hack(?:ing)? \s (?: into | (?: some | my | a | his | her | their ) \w* ) | phish(?:ing)? | ddos
      | steal(?:ing)? | shoplift\w* | embezzl\w+ | launder\w* \s (?: the \s )? money | smuggl\w+ | blackmail\w*
      | extort\w* | brib\w+ | kidnap\w* | stalk(?:ing)? | assassinat\w+ | murder\w* | tortur\w+ | dox+ (?: ing )?
      | defraud\w* | scam(?:ming)?
      | (?: kill | poison | hurt | harm | attack | threaten | bully | harass ) \s
            (?: (?: my | a | an | the | his | her | their ) \s (?: \w+ \s )?
                (?: neighbou?r | boss | wife | husband | girlfriend | boyfriend | child | kid | person | man | woman
                  | people | family | friend | classmate | coworker )
              | some(?:one|body) | people | myself | him | her | them ) \b
      | (?: racist | sexist | antisemitic | homophobic | hateful | defamatory ) \s (?: \w+ \s )?
            (?: jokes? | speech | posts? | tweets? | articles? | slurs? | manifesto )
      | evad\w+ \s (?: \w+ \s )? tax\w* | insider \s trading
      | without \s (?: (?: their | his | her | your ) \s (?: knowledge | consent ) | (?: being | getting ) \s caught )
    ) \b
    """,
    re.VERBOSE,
)


def reads_like_harmful_request(prompt: str) -> bool:
    """Whether `prompt` has words of common harmful requests. A rule of thumb for whole data sets: it misses many."""
    return _HARMFUL_REQUEST.search(" ".join(prompt[:1000].casefold().split())) is not None


def sign_test(successes: int, trials: int) -> float:
    """Return the probability of at least so many successes where each trial is as likely a failure."""
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2)
        for k in range(successes, trials + 1)
    )
    return min(1.0, sum(map(math.exp, logs)))


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
        helpful: how many helpful examples were seen.
        helpful_refusals: of these, how many read like refusals.
        complying: of these, how many answer what reads like a harmful request.
        first_complying: origin of the first of those.
    """

    triples: int = 0
    straight: int = 0
    reversed: int = 0
    first_reversed: str | None = None
    lone: int = 0
    lone_refusals: int = 0
    helpful: int = 0
    helpful_refusals: int = 0
    complying: int = 0
    first_complying: str | None = None

    def add(self, example: Example) -> None:
        """Count one example; a safe response after a fixed prefix says nothing."""
        if example.is_triple:
            self._add_triple(example)
        elif example.rejected is not None:
            self.lone += 1
            self.lone_refusals += reads_like_refusal(example.rejected)
        elif example.is_helpful:
            self._add_helpful(example)

    def _add_triple(self, example: Example) -> None:
        chosen, rejected = reads_like_refusal(example.chosen or ""), reads_like_refusal(example.rejected or "")
        self.triples += 1
        self.straight += chosen and not rejected
        if rejected and not chosen:
            self.reversed += 1
            self.first_reversed = self.first_reversed or example.origin

    def _add_helpful(self, example: Example) -> None:
        refusal = reads_like_refusal(example.chosen or "")
        self.helpful += 1
        self.helpful_refusals += refusal
        if not refusal and reads_like_harmful_request(example.prompt[-1]["content"]):
            self.complying += 1
            self.first_complying = self.first_complying or example.origin

    def lines(self) -> Iterator[str]:
        """Say what is odd, whether or not it stops anything."""
        if self.reversed:
            yield (
                f"in {self.reversed} of {self.triples} triples rejected reads like a refusal and chosen does not, "
                f"first at {self.first_reversed}"
            )
        if self.helpful_refusals > REFUSALS_SHARE * self.helpful:
            yield (
                f"{self.helpful_refusals} of {self.helpful} helpful examples read like refusals: the model would learn "
                f"to refuse whatever their prompts ask; if those are harmful, give each a rejected response (triples)"
            )
        if self.complying > COMPLYING_SHARE * self.helpful:
            yield (
                f"{self.complying} of {self.helpful} helpful examples answer what reads like a harmful request, first "
                f"at {self.first_complying}: the model would learn to comply; leave them out unless they are harmless"
            )

    def check(self, name: str, *, swap: bool) -> None:
        """Stop when the responses of the source called `name` look swapped.

        The triples that show a side decide, those of which one response reads like a refusal: more of them are
        reversed than straight, and either a sign test says that this is no chance or they are a tenth of all.
        Harmful responses for RTO only stop when most of them read like refusals.

        Raises:
            InputError: they look swapped; says which flag swaps them.
        """
        shown = self.straight + self.reversed
        significant = sign_test(self.reversed, shown) < SIGNIFICANCE
        if self.reversed > self.straight and (significant or self.reversed >= SWAPPED_SHARE * self.triples):
            mend = "drop --swap (in Python: swap=False)" if swap else "pass --swap to swap them (in Python: swap=True)"
            raise InputError(
                f"{self.first_reversed}: rejected reads like a refusal and chosen does not, in {self.reversed} of "
                f"{self.triples} triples (the reverse in {self.straight}): chosen and rejected look swapped; {mend}"
            )
        if 2 * self.lone_refusals > self.lone:
            raise InputError(
                f"{name}: {self.lone_refusals} of {self.lone} harmful responses for RTO read like refusals; give "
                f'harmful ones (in rows of the DeRTa release, safe "true" marks the harmful response)'
            )
