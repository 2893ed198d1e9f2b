# Tries: name the notebook in bytes that are no text, with an end of line, colours and another direction
# Earns: 5

# %% file
import os
os.rename(os.fsencode(notebook), os.fsencode(folder) + b"/a\nb\x1b[31m\xe2\x80\xae<script>[red]\xff.ipynb")
