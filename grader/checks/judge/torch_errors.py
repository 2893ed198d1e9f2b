"""What PyTorch's own error messages leave unsaid, for the errors that learners meet most."""

import re

TRANSPOSED = (
    "The second matrix fits if it is transposed. A product sums over the last axis of the first matrix and the first"
    " axis of the second: which axis of your weight has as many numbers as a vector of x?"
)
RESHAPED = (
    "PyTorch suggests reshape, which would run. But both keep the order in memory: view and reshape can split or join"
    " neighbouring axes, and only transpose exchanges two. Which of these does your line have to do?"
)


def hint_for(message: str) -> str:
    """A hint for an exception's message, or an empty string."""
    sizes = re.search(r"shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)", message)
    if sizes and sizes[2] == sizes[4] != sizes[3]:
        return TRANSPOSED
    return RESHAPED if "view size is not compatible" in message else ""
