"""For instructors: grade a class's notebooks, each in a jail, and store the results through nbgrader."""
