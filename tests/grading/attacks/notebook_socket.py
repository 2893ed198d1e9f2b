# Tries: hand in a socket called toy.ipynb
# Earns: 0

# %% file
import os, socket
notebook.unlink()
here = os.getcwd()
os.chdir(folder)
socket.socket(socket.AF_UNIX).bind("toy.ipynb")
os.chdir(here)
