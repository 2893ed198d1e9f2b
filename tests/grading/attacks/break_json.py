# Tries: stop the run with a damaged file
# Earns: 0

# %% file
notebook.write_bytes(b'\xff\xfe' + bytes(range(256)) * 100)
