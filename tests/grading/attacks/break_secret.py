# Tries: have feedback written elsewhere, by a secret that is a path
# Earns: 5

# %% file
(folder / "submission_secret.txt").write_text("../../../canaries/break_secret")
