"""The study on real language models: data, cells, and the page that is written from their rows."""
