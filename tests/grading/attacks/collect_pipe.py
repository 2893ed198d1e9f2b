# Tries: stop the collecting with a pipe among the files, in place of the notebook
# Earns: 0

# %% exchange
folder = inbound / f"{me}+{lesson}+{now}+AAAA"
folder.mkdir(mode=0o755)
os.mkfifo(folder / "toy.ipynb")
