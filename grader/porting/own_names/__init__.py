"""A program under its own names: which of its tensors is which of the reference's, and in what layout."""
