"""A lesson as files: its cells, the exercises that it declares, and its notebook run from the top."""
