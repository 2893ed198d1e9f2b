# Tries: never end
# Earns: 2

# %% toy.linear
while True:
    pass
