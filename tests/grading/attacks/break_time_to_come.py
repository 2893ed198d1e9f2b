# Tries: hand in at the end of all times
# Earns: 5

# %% file
(folder / "timestamp.txt").write_text("9999-12-31 23:59:59.999999 UTC" + " " * 1_000_000)
