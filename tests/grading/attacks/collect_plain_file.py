# Tries: stop the collecting with a file where a folder should be
# Earns: 5

# %% exchange
(inbound / f"{me}+{lesson}+{now}+AAAA").write_text("no folder")
