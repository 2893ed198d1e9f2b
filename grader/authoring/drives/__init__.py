"""Pieces of drives: caches, models and measurements with which a drive uses a solution as a decoder would.

A drive's source travels in the recording, with that of every piece from here that it names, and runs beside the
solution; `grader.authoring.drive_sources` puts it together. So a piece uses nothing but other pieces, ``torch``, ``nn``
and ``Tensor``.
"""
