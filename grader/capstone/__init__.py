"""An architecture that exists nowhere, drawn from a seed: a task at the end of the course."""
