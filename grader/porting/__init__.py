"""A small reference of any architecture, to compare a port of it with."""
