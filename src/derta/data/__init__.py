from derta.data.mixing import mix
from derta.data.sources import load_triples
from derta.data.triples import Example, Message, as_example

__all__ = ["Example", "Message", "as_example", "load_triples", "mix"]
