# Tries: take the grader's memory with a notebook of empty objects
# Earns: 0

# %% file
notebook.write_text('{"nbformat": 4, "cells": [' + '{},' * 2_500_000 + '{}]}')
