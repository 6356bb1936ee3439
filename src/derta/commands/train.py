"""`derta train`: one run from a recipe to a saved model."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Leave every option to the trainer's own parser: they are fields of dataclasses."""
    parser.add_argument("-h", "--help", action="store_true")
    parser.set_defaults(rest=[])


def run(args: Namespace) -> int:
    """Train, or say how to.

    Raises:
        InputError: an option, the model, the data or the directory is wrong.
    """
    from derta.training.run import train_command

    return train_command([*args.rest, *(["--help"] if args.help else [])])
