"""What the reference did, in a file: tasks, answers and traces."""
