"""`derta data schemas`: the columns that are understood, with an example of each."""

import json
from argparse import ArgumentParser, Namespace

from rich.text import Text

from derta.data.schemas import SCHEMAS
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare nothing: the command has no options."""
    parser.epilog = "A Python file with a SCHEMA (derta.data.schemas.Schema) adds one: --schema FILE.py."


def run(args: Namespace) -> int:
    """Print each schema: its name, what it is, its columns, and rows that have it."""
    console = screen.console()
    for schema in SCHEMAS:
        optional = f" (and {', '.join(schema.optional)})" if schema.optional else ""
        console.print(Text.assemble((schema.name, "bold"), f": {schema.about}"), soft_wrap=True)
        console.print(Text(f"  columns {', '.join(schema.required)}{optional}"), soft_wrap=True)
        for row in schema.example:
            console.print(Text(f"  {json.dumps(row, ensure_ascii=False)}"), soft_wrap=True)
    return 0
