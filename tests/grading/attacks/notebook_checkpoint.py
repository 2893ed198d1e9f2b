# Tries: hand in the notebook in Jupyter's folder of checkpoints alone
# Earns: 0

# %% file
(folder / ".ipynb_checkpoints").mkdir()
notebook.rename(folder / ".ipynb_checkpoints" / "toy-checkpoint.ipynb")
