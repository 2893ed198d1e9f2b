# Tries: print without end
# Earns: 2

# %% toy.linear
while True:
    print('x' * 1_000_000)
