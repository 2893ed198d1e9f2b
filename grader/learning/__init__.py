"""A learner's folder: started, brought up to date without losing work, and where its owner is in the course."""
