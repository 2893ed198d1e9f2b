# Tries: stop the collecting with a time that is none
# Earns: 0

# %% exchange
(inbound / f"{me}+{lesson}+yesterday").mkdir(mode=0o755)
