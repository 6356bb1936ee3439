"""`derta data show`: examples as the model will be trained on them."""

from argparse import ArgumentParser, Namespace

from rich.console import Console
from rich.text import Text

from derta.redaction import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads; the rest are options of `derta train`."""
    parser.add_argument("file", help="file or dataset name")
    parser.add_argument("--model", required=True, help="whose tokenizer and chat template to use")
    parser.add_argument("--examples", type=int, default=3, help="how many examples to print")
    parser.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    parser.add_argument("--bad-rows", choices=("stop", "skip"), default="stop", help="skip lists and leaves them out")
    parser.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    parser.add_argument("--polarity-checked", action="store_true", help="you read triples: chosen is the safe one")
    # Declared here so that its value is never taken for the file, wherever it stands.
    parser.add_argument("--config", help="recipe to take the options of training from")
    parser.epilog = "Options of derta train that change what is trained on (--method, --rto-dropout, …) work here too."
    parser.set_defaults(rest=[])


def run(args: Namespace) -> int:
    """Print the first examples of a file with their prompt, RTO positions, cuts and branches.

    Raises:
        InputError: the file, the model or an option is wrong.
    """
    from derta.contexts import context_weights
    from derta.generation.loading import load_tokenizer
    from derta.report.examples import KEY, example_panel
    from derta.tokens.encoder import unknown_tokens
    from derta.training.dataset import TreeDataset, encode_dataset, encoder_and_builder
    from derta.training.encoded_contexts import encoded_contexts
    from derta.training.options import parse_options
    from derta.training.run import read_source

    file = args.file
    options = parse_options([
        *args.rest,
        *(("--config", args.config) if args.config else ()),
        *("--model_name_or_path", args.model, "--train_data", file, "--schema", args.schema, "--swap", str(args.swap)),
        *("--bad_rows", args.bad_rows, "--polarity_checked", str(args.polarity_checked)),
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
    console.print(KEY)
    for index in shown:
        drawn = trees.draw(index, epoch=0)
        example = drawn.example
        title = printable(example.origin)
        if in_contexts:
            title += f": {drawn.context}" if drawn.made else f": plain ({drawn.context} can't be made of it)"
        console.print(example_panel(title, example, trees[0, index], tokenizer, config.method))
        unknown = unknown_tokens(example, tokenizer)
        if unknown:
            console.print(Text(f"{unknown} tokens are {tokenizer.unk_token}: text that the tokenizer doesn't know"))
    return 0
