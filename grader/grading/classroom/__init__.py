"""A class: its course, its run over all submissions, and what an instructor asks of it."""
