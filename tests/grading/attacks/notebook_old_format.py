# Tries: hand in a notebook of a format that has no names of cells
# Earns: 0

# %% file
import json
content = json.loads(notebook.read_text())
worksheets = [{"cells": [dict(cell, input=cell["source"]) for cell in content["cells"]], "metadata": {}}]
notebook.write_text(json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": worksheets}))
