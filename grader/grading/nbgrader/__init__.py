"""What nbgrader keeps of grading: its gradebook, the autograded notebook, the marks that are exported."""
