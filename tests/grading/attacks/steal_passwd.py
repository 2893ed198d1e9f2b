# Tries: read /etc/passwd
# Earns: 2

# %% toy.linear
Linear = open('/etc/passwd').read()
