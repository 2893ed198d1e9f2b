# Tries: fill the disk with empty files
# Earns: 2

# %% toy.linear
for i in range(10**7):
    open(f'/tmp/{i}', 'w').close()
