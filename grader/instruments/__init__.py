"""What lessons and authors measure with."""
