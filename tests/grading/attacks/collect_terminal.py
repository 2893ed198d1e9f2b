# Tries: be called what a terminal takes for colours and lines of its own
# Earns: 0

# %% exchange
(inbound / f"\x1b[2J\n5 collected\u202e+{lesson}+{now}+AAAA").mkdir(mode=0o755)
