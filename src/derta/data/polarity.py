"""The polarity guard: stops data whose harmful responses stand where the safe ones belong."""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

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


# How a refusal begins in other languages, by what `refusal_language` calls them.
_ELSEWHERE = {
    "de": r"""(?: es \s )? tut \s mir \s (?: sehr \s )? leid | leider | entschuldig | verzeihung
        | ich \s (?: kann | darf | werde | möchte ) \s (?: [\w-]+ \s ){0,5} nicht
        | (?: dabei | das ) \s kann \s ich \s (?: [\w-]+ \s ){0,4} nicht""",
    "fr": r"""(?: je \s suis \s )? (?: vraiment \s )? désolée? | je \s m ' excuse | excusez - moi | malheureusement
        | je \s ne \s (?: peux | veux | suis \s pas \s en \s mesure ) | je \s refuse""",
    "es": r"""lo \s (?: siento | lamento ) | no \s (?: puedo | podemos | voy \s a ) | disculp | me \s niego
        | lamentablemente""",
    "it": r"mi \s (?: dispiace | spiace | scuso ) | (?: io \s )? non \s (?: posso | intendo ) | purtroppo | spiacente",
    "pt": r"(?: eu \s )? (?: sinto \s muito | lamento | não \s (?: posso | vou )) | desculp | infelizmente",
    "nl": r"het \s spijt \s me | helaas | ik \s kan \s (?: [\w-]+ \s ){0,5} niet",
    "pl": r"przykro \s mi | przepraszam | niestety | nie \s mogę",
    "ru": r"""извините | простите | прошу \s прощения | к \s сожалению | мне \s (?: очень \s )? жаль
        | я \s не \s (?: могу | буду )""",
    "zh": r"(?: 非常 | 很 | 十分 | 真的 )? (?: 抱歉 | 对不起 | 對不起 | 遗憾 ) | 我 (?: 不能 | 无法 | 無法 | 拒绝 )",
    "ja": r"(?: 大変 | 誠に )? 申し訳 | すみません | ごめんなさい | 恐れ入りますが | 残念ながら | お手伝いできません",
    "ko": r"죄송 | 미안 | 유감 | 도와드릴 \s 수 \s 없",
    "ar": r"عذر | آسف | أعتذر | للأسف | لا \s (?: أستطيع | يمكنني )",
}
_OPENINGS = {"en": _OPENING} | {name: re.compile(words, re.VERBOSE) for name, words in _ELSEWHERE.items()}
# Late in an answer only what nobody says of something else.
_LATE = re.compile(
    r"""
    (?: i ' m | i \s am ) \s (?: (?: so | very | really | truly | afraid | but ) \s )* sorry \b
    | sorry \s? , | i \s apologi [sz] e
    | i \s (?: cannot | can \s not | can ' t | will \s not | won ' t | must \s decline | refuse \s to )
        \s (?: [\w-]+ \s ){0,2}
        (?: help | assist | provide | support | do \s (?: that | this ) | answer | comply | continue )
    | i ' m \s unable \s to | i \s am \s unable \s to
    """,
    re.VERBOSE,
)
_THOUGHT = re.compile(r"\A\s*<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_LATE_SENTENCES, _LATE_CHARACTERS = 8, 1200


def has_thought(response: str) -> bool:
    """Whether `response` begins with a thought between tags."""
    return _THOUGHT.match(response) is not None


def refusal_language(response: str) -> str | None:
    """Return the language in which `response`, a thought before it aside, begins like a refusal; else `None`."""
    opening = _THOUGHT.sub("", response[:20_000]).lstrip()[:200]
    opening = unicodedata.normalize("NFKC", opening.translate(_APOSTROPHES)).casefold()
    opening = " ".join(_DECORATION.sub("", opening).split())
    for language, begins in _OPENINGS.items():
        if begins.match(opening):
            return language
    return None


def first_words(response: str) -> str:
    """Return the two words that a response begins with, as refusals are counted: "I cannot", "Sorry, I"."""
    return " ".join(response.translate(_APOSTROPHES).split()[:2])


def with_refusal(response: str, prefix: str) -> str:
    """Return a refusal that begins with `prefix`; one that does already, or that is no refusal in English, as it is.

    What a refusal excuses itself with is taken off: "I'm sorry, but I can't …" after "Sorry, " is "Sorry, I can't …".
    """
    if response.startswith(prefix.rstrip()) or refusal_language(response) != "en" or has_thought(response):
        return response
    rest = _EXCUSE.sub("", response.lstrip())
    rest = rest if rest.split()[:1] and re.match(r"I\b", rest) else rest[:1].lower() + rest[1:]
    return prefix.rstrip() + " " + rest if rest.strip() else response


_EXCUSE = re.compile(
    r"(?:(?:I['’]m|I am) (?:(?:so|very|really|truly) )?sorry|sorry|(?:I|my) apologi[sz]e(?:s)?|my apologies)\b"
    r"[,.!:]?\s*(?:but\b\s*)?",
    re.IGNORECASE,
)


def reads_like_refusal(response: str) -> bool:
    """Whether `response` begins like a refusal. A rule of thumb for whole data sets, not a judge of one response."""
    return refusal_language(response) is not None


def _refuses_late(response: str) -> bool:
    """Whether one of the sentences after the first refuses."""
    text = _THOUGHT.sub("", response[:20_000])[:_LATE_CHARACTERS]
    sentences = re.split(r"[.!?:;\n]+\s+", unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold())
    return any(_LATE.search(" ".join(sentence.split())) for sentence in sentences[1:_LATE_SENTENCES])


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
class _Side:
    """Which response of triples reads like a refusal: `chosen` alone (straight), or `rejected` alone (reversed)."""

    straight: int = 0
    reversed: int = 0
    first_reversed: str = ""

    @property
    def is_reversed(self) -> bool:
        """Whether so many are reversed that it is no chance."""
        shown = self.straight + self.reversed
        return self.reversed > self.straight and sign_test(self.reversed, shown) < SIGNIFICANCE


@dataclass
class Polarity:
    """Counts over the examples of one source.

    Attributes:
        triples: Number of triples.
        shown: Those in which a response reads like a refusal.
        sides: What the triples show, by the rows' own source and the refusal's language.
        thoughts: Triples whose `chosen` begins with a thought.
        lone: Number of harmful responses for RTO only.
        lone_refusals: Those that read like refusals.
        helpful: Number of helpful examples.
        helpful_refusals: Those that read like refusals.
        complying: Those that answer what reads like a harmful request.
        first_complying: Origin of the first of those.
    """

    triples: int = 0
    shown: int = 0
    sides: dict[tuple[str, str], _Side] = field(default_factory=dict)
    thoughts: int = 0
    lone: int = 0
    lone_refusals: int = 0
    helpful: int = 0
    helpful_refusals: int = 0
    complying: int = 0
    first_complying: str | None = None

    def add(self, example: Example, group: str = "") -> None:
        """Count one example; a safe response after a fixed prefix says nothing.

        Args:
            example: Is counted.
            group: Where the row says that it comes from.
        """
        if example.is_triple:
            self._add_triple(example, group)
        elif example.rejected is not None:
            self.lone += 1
            self.lone_refusals += reads_like_refusal(example.rejected)
        elif example.is_helpful:
            self._add_helpful(example)

    def _add_triple(self, example: Example, group: str) -> None:
        texts = (example.chosen or "", example.rejected or "")
        chosen, rejected = map(refusal_language, texts)
        if chosen is None and rejected is None:
            chosen, rejected = ("late" if _refuses_late(text) else None for text in texts)
        self.triples += 1
        self.thoughts += has_thought(texts[0])
        self.shown += chosen is not None or rejected is not None
        if (chosen is None) == (rejected is None):
            return
        side = self.sides.setdefault((group, chosen or rejected or ""), _Side())
        side.straight += chosen is not None
        if rejected is not None:
            side.reversed += 1
            side.first_reversed = side.first_reversed or example.origin

    def _add_helpful(self, example: Example) -> None:
        refusal = reads_like_refusal(example.chosen or "")
        self.helpful += 1
        self.helpful_refusals += refusal
        if not refusal and reads_like_harmful_request(example.prompt[-1]["content"]):
            self.complying += 1
            self.first_complying = self.first_complying or example.origin

    def _total(self) -> _Side:
        total = _Side()
        for side in self.sides.values():
            total.straight += side.straight
            total.reversed += side.reversed
            total.first_reversed = total.first_reversed or side.first_reversed
        return total

    def lines(self) -> Iterator[str]:
        """Say what is odd, whether or not it stops anything."""
        total = self._total()
        if total.reversed:
            yield (
                f"in {total.reversed} of {self.triples} triples rejected reads like a refusal and chosen does not, "
                f"first at {total.first_reversed}"
            )
        if self.thoughts:
            count = f"in {self.thoughts} of {self.triples} triples"
            yield f"{count} chosen begins with a thought, which is learnt: read some"
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

    def check(self, name: str, *, swap: bool, checked: bool = False) -> None:
        """Stop when the responses of the source called `name` look swapped, or nothing tells whether they are.

        The triples that show a side decide, those of which one response reads like a refusal: more of them are
        reversed than straight, and either a sign test says that this is no chance or they are a tenth of all. The sign
        test is made for each language, and for each source that the rows name, too. Harmful responses for RTO only
        stop when most of them read like refusals.

        Args:
            name: Names the source in messages.
            swap: Whether the sides were swapped already.
            checked: Whether somebody read triples of which none shows a side.

        Raises:
            InputError: They look swapped, or can't be told; says which flag mends it.
        """
        total = self._total()
        many = total.reversed >= SWAPPED_SHARE * self.triples
        found = total.is_reversed or (total.reversed > total.straight and many)
        where = ""
        for (group, language), side in self.sides.items() if not found else ():
            if side.is_reversed:
                total, found = side, True
                where = f" (of those with a refusal in {language!r}{f' and source {group[:40]!r}' if group else ''})"
        if found:
            mend = "drop --swap (in Python: swap=False)" if swap else "pass --swap to swap them (in Python: swap=True)"
            if where:
                mend = "put those rows into a file of their own and swap them there (--swap)"
            raise InputError(
                f"{total.first_reversed}: rejected reads like a refusal and chosen does not, in {total.reversed} of "
                f"{self.triples} triples (the reverse in {total.straight}){where}: chosen and rejected look swapped; "
                f"{mend}"
            )
        if self.triples and not self.shown and not checked:
            raise InputError(
                f"{name}: in none of its {self.triples} triples does chosen or rejected read like a refusal: they may "
                f"be swapped; read some, then pass --polarity-checked (in Python: polarity_checked=True)"
            )
        if 2 * self.lone_refusals > self.lone:
            raise InputError(
                f"{name}: {self.lone_refusals} of {self.lone} harmful responses for RTO read like refusals; give "
                f'harmful ones (in rows of the DeRTa release, safe "true" marks the harmful response)'
            )
