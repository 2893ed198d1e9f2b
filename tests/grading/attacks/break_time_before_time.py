# Tries: stop the run with a time of submission before all times, once it is in UTC
# Earns: 5

# %% file
(folder / "timestamp.txt").write_text("0001-01-01 00:00:00 +2359")
