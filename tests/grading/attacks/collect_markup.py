# Tries: be called what the lecturer's formgrader takes for a picture with a script
# Earns: 0

# %% exchange
(inbound / f"<img src=x onerror=alert(1)>+{lesson}+{now}+AAAA").mkdir(mode=0o755)
