# Tries: fill the disk
# Earns: 2

# %% toy.linear
import tempfile
with tempfile.NamedTemporaryFile(delete=False) as f:
    while True:
        f.write(bytes(1 << 20))
