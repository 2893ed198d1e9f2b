"""Feedback: the page that a student gets back, made anew whenever what it shows has changed."""
