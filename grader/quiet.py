"""transformers without its log, its progress bars and its warnings."""

import contextlib
import warnings
from collections.abc import Iterator

SILENT = 50  # above every level at which transformers logs


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Run without what transformers says and shows: of configs that are small, of files that it converts."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(SILENT)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
