"""A checkpoint that exists and can't be had here and now."""

from grader.errors import GraderError


class Unavailable(GraderError):
    """A checkpoint can't be had here and now: no network, no licence accepted, no room, a damaged download."""
