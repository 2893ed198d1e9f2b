# Tries: read /etc/passwd
# Earns: 2

# %% toy.linear
Linear = open('/etc/passwd').read()

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
