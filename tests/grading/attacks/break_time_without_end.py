# Tries: stop the run with a minute of thirty digits in the time of submission
# Earns: 5

# %% file
(folder / "timestamp.txt").write_text("12:999999999999999999999999999999")
