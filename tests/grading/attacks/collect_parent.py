# Tries: be called .., so that the course's own folder is written to
# Earns: 0

# %% exchange
(inbound / f"..+{lesson}+{now}+AAAA").mkdir(mode=0o755)
