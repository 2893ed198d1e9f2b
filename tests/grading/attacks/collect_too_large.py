# Tries: stop the collecting with a folder of more than 100 MB
# Earns: 5

# %% exchange
folder = inbound / f"{me}+{lesson}+{now}+AAAA"
folder.mkdir(mode=0o755)
for name in ("a", "b"):
    with (folder / name).open("wb") as file:
        file.truncate(60_000_000)
