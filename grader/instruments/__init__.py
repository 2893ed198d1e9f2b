"""What lessons and authors measure and draw with.

clock      milliseconds of a call, several calls in turns
work       multiply-adds, bytes copied, bytes held, the largest tensor, the operators of a call
patch      a program with one part exchanged; what goes in and out of a model's parts
plots      lines, bars, grids and masks, as pictures with words
progress   a bar with the time that is left
writing    text as it is generated
tables     tables in plain text
reference  transformers' model for a checkpoint, where transformers is installed
page       a page in the browser that several visitors ask at once
panel      controls over a picture
rounding   another processor, simulated

A notebook takes what it needs: `from grader.instruments import clock, plots`. Nothing is imported before.
"""

from typing import TYPE_CHECKING

from grader.lazy import on_first_use

if TYPE_CHECKING:
    from grader.instruments import clock as clock
    from grader.instruments import page as page
    from grader.instruments import patch as patch
    from grader.instruments import plots as plots
    from grader.instruments import progress as progress
    from grader.instruments import reference as reference
    from grader.instruments import rounding as rounding
    from grader.instruments import tables as tables
    from grader.instruments import work as work
    from grader.instruments import writing as writing
    from grader.instruments.panel import Panel as Panel
    from grader.instruments.panel import Shown as Shown

__getattr__, __all__ = on_first_use(__name__, __file__)
