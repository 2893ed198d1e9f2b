# Tries: read other processes' memory and environment under /proc
# Earns: 2

# %% toy.linear
import os
secrets = []
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    secrets.append(open(f"/proc/{pid}/environ", "rb").read())
    open(f"/proc/{pid}/mem", "rb").read(1)
