"""Harmless prompts that look harmful, made from a user's own harmful ones.

Two kinds, both harmless by construction: of a harmful prompt nothing is kept but its manner and single words.

- *frames*: the words in which harmful prompts ask ("Give me detailed instructions on how to") around an everyday act,
  many of them with a verb that is violent elsewhere ("crack open a coconut");
- *words*: the words that tell harmful prompts from harmless ones, asked about as words, or as a matter of history, law,
  fiction or protection.

A model that sees them answered learns to refuse for what is asked, not for how. XSTest measures that, so it is not for
training; OR-Bench-80K (arXiv 2405.20947), PHTest (arXiv 2409.00598) and the harmless half of WildJailbreak (arXiv
2406.18510) hold more such prompts.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

ACTS = """\
arrange flowers in a vase; assemble a bookshelf; bake sourdough bread; blow glass beads
bleed the brakes of a bicycle; boil eggs so that they peel easily; break an egg with one hand
break a record in swimming; brew ginger tea; burn a music CD; burn wood in a stove without smoke
capture a waterfall in a photo; carve a spoon; catch a ball; choose running shoes; clean a camera lens
clear a blocked drain; corner well on a motorbike; crack open a coconut; cross-stitch a name
crush ice for drinks; cut bangs; cut down on sugar; cut glass for a window; decorate a cake
deliver a killer presentation; destroy an opponent's castle in a board game; draw a horse; dress a salad
drop a bass line; drown out traffic noise at home; dry herbs; execute a cartwheel
explode a drawing into its parts; explode a view in a CAD program; fix a flat tyre; fillet a trout
fire clay in a kiln; fire up a barbecue; fold a paper crane; force a tulip bulb to bloom early; freeze berries
get away for a weekend on a budget; get rid of ants in the kitchen; get rid of hiccups; grill vegetables
grind coffee; grow tomatoes on a balcony; hack through thick brambles; hang a painting; hang wallpaper
hit a forehand; hold a baby; hook a rug; inject icing into doughnuts
invade a neighbour's territory in a strategy game; iron a shirt; jump-start a car; keep a diary
kick a bad habit; kick a penalty; kill time at an airport; kill the engine of a boat; knock down a plaster wall
knock out a short poem; launch a model rocket; learn the alphabet in sign language; light a candle in the wind
lock a bicycle well; make a birthday card; make paper; make yoghurt; mash potatoes; mount a shelf
murder a karaoke song and laugh about it; nail the last chorus of a song; open a stuck jar; pack a suitcase
paint a fence; peel garlic; pick a lock of wool clean; pick a ripe melon; pick apples; plan a picnic
plant a bomb of colour in a flower bed; play dead in a theatre scene; poach an egg; polish silver
pound spices in a mortar; prune roses; pull off a surprise party; punch holes in leather; put out a campfire
raid the pantry for a quick dinner; read music; repair a zip; ride a horse; roast a chicken
roast a friend in a kind toast; roll dough; rob an opponent of the ball in basketball; run a marathon
season a pan; sew a button; shoot a free throw; shoot a short film on a phone
shoot for the stars in a job interview; sharpen a kitchen knife; skin a tomato; slash my electricity bill
slaughter the competition in a pub quiz; slice an onion; smash a world record in darts; smoke a salmon
smuggle vegetables into a child's dinner; sneak more fibre into a breakfast; stab holes in a potato
stalk a deer with a camera; start a book club; steal the show at a talent contest; stop a tap from dripping
store winter clothes; strike a match; strike up a conversation; strip paint from a door; strip wallpaper
swim butterfly; tackle a long to-do list; take a nap; take down a tent; tan leather; tap maple syrup
target an audience for a blog; tear down an old shed; tie a bow tie; tie up a boat
torch the sugar on a creme brulee; train a puppy; trap heat in a tent; trick my brain into waking early
trigger a camera from a distance; tune a guitar; turn a heel when knitting; wash a wool jumper; water a cactus
wax a surfboard; whip egg whites; wipe a whiteboard clean; write a thank-you note"""
"""Everyday acts, each harmless on its own, however violent its verb may sound."""

OF_WORDS = (
    'What does the word "{word}" mean?',
    'Where does the word "{word}" come from?',
    'Use the word "{word}" in a short sentence about a garden.',
    'How do you say "{word}" in Spanish?',
    'Which words rhyme with "{word}"?',
)
OF_THINGS = (
    "Which well-known novel or film has to do with {word}?",
    "What is the history of laws about {word}?",
    "How can people protect themselves from {word}?",
    "Why do people worry about {word}?",
    "What role can {word} play in a video game?",
    "What do historians write about {word}?",
    "How do journalists report on {word} responsibly?",
    "How does a museum explain {word} to visitors?",
    "Who can I call when I am worried about {word}?",
)
_ASKING_WORDS = """
    a an and by can clear complete could describe detailed do easiest exact explain for full give guide help how i
    in instructions list me need of offer on plan please precise provide share show simple some step steps suggest
    teach tell the to tutorial us want way ways what is are best with write you know would like
"""
_ASKING = frozenset(_ASKING_WORDS.split())
"""All words that a frame may have: none of them says what is asked for."""
_FRAME = re.compile(r"^[^.?!]{0,80}?\b(?:how to|how do i|how can i|how would i|how could i|ways? to|steps to)\b", re.I)
_PLAIN_FRAMES = ("How do I", "How can I", "What is the best way to", "Tell me how to", "Explain how to")
_BEFORE_NOUN = r"\b(?:a|an|the|my|some|of|for|with|using|about)\s+"
_AFTER_NOUN = r"(?=\s*(?:$|[.,?!;:])|\s+(?:and|or|to|in|on|for|from|with|at|that|by|of|without|so|while)\b)"
_SHORTEST_WORD = 4


def borderline_prompts(
    harmful: Sequence[str], harmless: Sequence[str], count: int, *, hold_out: Iterable[str] = (), seed: int = 0
) -> list[str]:
    """Make harmless prompts that look like the harmful ones.

    Args:
        harmful (`Sequence[str]`):
            Prompts that ask for harm.
        harmless (`Sequence[str]`):
            Prompts that don't, in the user's own data: words that are common there tell nothing.
        count (`int`):
            How many to make; fewer where there aren't so many.
        hold_out (`Iterable[str]`, *optional*):
            Prompts of an evaluation, none of which is made.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.

    Returns:
        `list[str]`: Distinct prompts, two of three in a frame, the others about a word.
    """
    draw = random.Random(seed)
    acts = [act.strip() for act in re.split(r"[;\n]", ACTS)]
    frames = [*_PLAIN_FRAMES, *_PLAIN_FRAMES, *_frames(harmful)]
    framed = [
        _ask(draw.choice(frames), act) for _ in range(1 + count // len(acts)) for act in draw.sample(acts, len(acts))
    ]
    text = "\n".join(harmful).lower()
    about = []
    for word in telling_words(harmful, harmless):
        is_thing = re.search(_BEFORE_NOUN + word + _AFTER_NOUN, text, re.M)
        questions = (*OF_WORDS, *OF_THINGS) if is_thing else OF_WORDS
        about += [question.format(word=word) for question in draw.sample(questions, 3)]
    draw.shuffle(about)
    taken = {_normal(prompt) for prompt in hold_out}
    made: list[str] = []
    for index in range(len(framed) + len(about)):
        source = about if index % 3 == 2 and about else framed
        if not source:
            continue
        prompt = source.pop()
        if _normal(prompt) not in taken:
            taken.add(_normal(prompt))
            made.append(prompt)
    return made[:count]


def telling_words(harmful: Sequence[str], harmless: Sequence[str], most: int = 150) -> list[str]:
    """Return the words that harmful prompts have and harmless ones haven't, those that tell most first."""
    here, there = _frequencies(harmful), _frequencies(harmless)
    scores = {}
    for word, count in here.items():
        ratio = (count + 0.5) / len(harmful) / ((there[word] + 0.5) / max(1, len(harmless)))
        if ratio > 2 and not word.endswith("ly"):
            scores[word] = math.log(ratio) + 0.5 * math.log(count)
    return sorted(scores, key=lambda word: (-scores[word], word))[:most]


def _frequencies(prompts: Sequence[str]) -> Counter[str]:
    """Count the prompts that each word stands in."""
    counts: Counter[str] = Counter()
    for prompt in prompts:
        counts.update({word for word in re.findall(r"[^\W\d_]+", prompt.lower()) if len(word) >= _SHORTEST_WORD})
    return counts


def _frames(harmful: Sequence[str]) -> list[str]:
    """Return the words in which prompts ask how to do something, up to the act itself."""
    found = [_FRAME.match(prompt.strip()) for prompt in harmful]
    frames = [match.group() for match in found if match]
    return [frame for frame in frames if _ASKING.issuperset(re.findall(r"[^\W_]+", frame.lower()))]


def _ask(frame: str, act: str) -> str:
    question = frame.lower().startswith(("how do", "how can", "how would", "how could", "what"))
    return f"{frame} {act}{'?' if question else '.'}"


def _normal(prompt: str) -> str:
    return " ".join(re.findall(r"\w+", prompt.lower()))
