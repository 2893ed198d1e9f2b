# Tries: hand in an empty folder in another student's name
# Earns: 0

# %% exchange
(inbound / f"{victim}+{lesson}+{now}+AAAA").mkdir(mode=0o755)
