"""The worked notebooks of the course, a folder for each lesson: `grader solution EXERCISE` shows one exercise."""
