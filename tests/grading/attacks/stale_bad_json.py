# Tries: after full marks, hand in something that is no JSON
# Earns: 0
# Earlier: right

# %% file
notebook.write_text('{"cells": [')
