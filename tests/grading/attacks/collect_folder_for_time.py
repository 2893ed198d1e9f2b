# Tries: have a folder where the time of submission should be
# Earns: 0

# %% exchange
folder = inbound / f"{me}+{lesson}+{now}+AAAA"
shutil.copytree(mine, folder)
(folder / "timestamp.txt").unlink()
(folder / "timestamp.txt").mkdir()
