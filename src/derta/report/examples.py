"""Training examples for the terminal: what is read, what is learnt, and where."""

from collections.abc import Sequence

from rich.markup import escape
from rich.panel import Panel
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from derta.method.tree import NO_TARGET, Term, TokenTree
from derta.redaction import visible_text
from derta.tokens.encoder import EncodedExample

_PROMPT, _HARMFUL = "dim", "red"
_STYLES = {Term.HELPFUL: "green", Term.SAFE: "cyan", Term.RTO: "bold yellow"}
KEY = Text.assemble(
    ("prompt", _PROMPT),
    "  ",
    ("harmful response, only read", _HARMFUL),
    "  ",
    ("‹RTO target after this token›", _STYLES[Term.RTO]),
    "  ",
    ("safe response, learnt", _STYLES[Term.SAFE]),
    "  ",
    ("helpful response, learnt", _STYLES[Term.HELPFUL]),
)


def example_panel(
    title: str, example: EncodedExample, tree: TokenTree | None, tokenizer: PreTrainedTokenizerBase, method: str
) -> Panel:
    """Return an example with its prompt, RTO positions, cuts and branches, and its targets counted.

    Args:
        title: Heads it.
        example: Holds its tokens.
        tree: Is what is trained on of it; `None` if that is nothing.
        tokenizer: Spells the tokens.
        method: Names the method, where nothing is trained on.
    """
    if tree is None:
        return Panel(Text(f"no targets under method {method}"), title=escape(title), title_align="left")
    body = Text()
    for segment in range(max(tree.segments) + 1):
        indices = [i for i, s in enumerate(tree.segments) if s == segment]
        if segment:
            cut = tree.position_ids[indices[0]] + 1 - len(example.prompt)
            body.append(f"\n\ncut {cut}: after {cut} of {len(example.rejected)} harmful tokens\n", style="bold")
            _append_targets(body, tree, indices, tokenizer)
        else:
            _append_trunk(body, tree, indices, len(example.prompt), tokenizer)
    counts = {term: tree.terms.count(term) for term in Term if term in tree.terms}
    summary = ", ".join(f"{count} {term.name}" for term, count in counts.items())
    body.append(f"\n\n{len(tree)} tokens, targets: {summary}", style="bold")
    if example.num_truncated:
        body.append(f"; {example.num_truncated} tokens did not fit", style="bold")
    return Panel(body, title=escape(title), title_align="left")


def _append_trunk(
    body: Text, tree: TokenTree, indices: Sequence[int], prompt: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Append the prompt, and r̂ with a mark after each token that RTO follows, or the response that is learnt."""
    for index in indices:
        text = _token(tree.input_ids[index], tokenizer)
        style = _PROMPT if index < prompt else _HARMFUL
        if tree.terms[index] == Term.RTO:
            word = text.rstrip(" ")
            body.append(word, style=style)
            body.append(f"‹{_token(tree.targets[index], tokenizer).strip()}›", style=_STYLES[Term.RTO])
            body.append(text[len(word) :])
        else:
            body.append(text, style=style)
        if tree.terms[index] in (Term.HELPFUL, Term.SAFE):
            _append_targets(body, tree, indices[index:], tokenizer)
            return


def _append_targets(body: Text, tree: TokenTree, indices: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    for index in indices:
        if tree.targets[index] != NO_TARGET:
            body.append(_token(tree.targets[index], tokenizer), style=_STYLES[Term(tree.terms[index])])


def _token(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    piece = str(tokenizer.convert_ids_to_tokens(token))
    text = str(tokenizer.decode([token]))
    # Decoders drop the space that a piece begins with, or that stands between words.
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text
    return visible_text(text if tokenizer.decode([token, token]) == text * 2 else text + " ", keep="\n")
