"""A program made comparable without changing it: the lines by which it is built and called as the reference is."""
