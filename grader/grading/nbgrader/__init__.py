"""Where nbgrader and this engine meet: its gradebook, and its own commands."""
