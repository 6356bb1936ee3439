"""`derta data show`: examples as the model will be trained on them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from derta.contexts import context_weights
from derta.inference.loading import load_tokenizer
from derta.method.tree import NO_TARGET, Term, TokenTree
from derta.tokens.encoder import EncodedExample, unknown_tokens
from derta.training.dataset import TreeDataset, encode_dataset, encoder_and_builder
from derta.training.encoded_contexts import encoded_contexts
from derta.training.options import parse_options
from derta.training.run import read_source

_PROMPT, _HARMFUL = "dim", "red"
_STYLES = {Term.HELPFUL: "green", Term.SAFE: "cyan", Term.RTO: "bold yellow"}
_KEY = Text.assemble(
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


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads; the rest are options of `derta train`."""
    parser.add_argument("file", help="file or dataset name")
    parser.add_argument("--model", required=True, help="whose tokenizer and chat template to use")
    parser.add_argument("--examples", type=int, default=3, help="how many examples to print")
    parser.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    parser.add_argument("--bad-rows", choices=("stop", "skip"), default="stop", help="skip lists and leaves them out")
    parser.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    parser.epilog = "Options of derta train that change what is trained on (--method, --rto-dropout, …) work here too."
    parser.set_defaults(rest=[])


def run(args: Namespace) -> int:
    """Print the first examples of a file with their prompt, RTO positions, cuts and branches.

    Raises:
        InputError: the file, the model or an option is wrong.
    """
    file = args.file
    options = parse_options([
        *args.rest,
        *("--model_name_or_path", args.model, "--train_data", file, "--schema", args.schema, "--swap", str(args.swap)),
        *("--bad_rows", args.bad_rows),
    ])  # fmt: skip
    config = options.config
    tokenizer = load_tokenizer(args.model)
    encoder, builder = encoder_and_builder(tokenizer, config)
    dataset = read_source(file, options).rows
    shown = range(min(args.examples, len(dataset)))
    # Contexts are made of the other examples too.
    in_contexts = context_weights(config.contexts) is not None
    encoded = encode_dataset(dataset if in_contexts else dataset.select(shown), encoder, name=file)
    trees = TreeDataset(encoded, builder, encoded_contexts(dataset, encoded, encoder, config, file))
    # Not `screen`'s, which is endless in a pipe: a panel fills the whole width.
    console = Console(highlight=False)
    console.print(_KEY)
    for index in shown:
        drawn = trees.draw(index, epoch=0)
        example = drawn.example
        title = _visible(example.origin)
        if in_contexts:
            title += f": {drawn.context}" if drawn.made else f": plain ({drawn.context} can't be made of it)"
        console.print(_panel(title, example, trees[0, index], tokenizer, config.method))
        unknown = unknown_tokens(example, tokenizer)
        if unknown:
            console.print(Text(f"{unknown} tokens are {tokenizer.unk_token}: text that the tokenizer doesn't know"))
    return 0


def _panel(
    title: str, example: EncodedExample, tree: TokenTree | None, tokenizer: PreTrainedTokenizerBase, method: str
) -> Panel:
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
    return _visible(text if tokenizer.decode([token, token]) == text * 2 else text + " ")


def _visible(text: str) -> str:
    """Text with control characters made visible: data is not to drive the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
