"""SelfCipher: a conversation "in cipher" that has no cipher, opened by demonstrations in the clear.

Yuan et al., "GPT-4 Is Too Smart To Be Safe: Stealthy Chat with LLMs via Cipher" (arXiv 2308.06463): a role, the rule to
talk in cipher only, and a few unsafe demonstrations; nothing is enciphered. Yuan et al. (arXiv 2407.09121) use it with
five fixed demonstrations.

Different here: role, rule, demonstrations and query are one user turn (many chat templates refuse a system turn), in
our own words; the demonstrations are the user's, none are packaged. They are the same for every behaviour and stand
before it, so that all prompts share a long beginning. The organism does encipher: its answers are deciphered before
they are judged.
"""

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Opening, plainly, register_attack


def selfcipher(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
    """Ask after the demonstrations.

    Raises:
        InputError: there are no demonstrations.
    """
    demonstrations = context.demonstrations or context.phrases.demonstrations
    if not demonstrations:
        raise InputError(
            "`attacks` selfcipher: it shows unsafe questions and answers before it asks, and none are packaged; give "
            "`demonstrations` FILE with the columns question and answer"
        )
    phrases = context.phrases

    def ask(prompt: str) -> str:
        return phrases.cipher(prompt, demonstrations)

    return [Opening("selfcipher", ask, encode=phrases.encipher, decode=phrases.decipher)]


register_attack(AttackSpec("selfcipher", plainly(selfcipher), family="encoding", opens=selfcipher))
