# Tries: hand in a notebook in UTF-16
# Earns: 0

# %% file
notebook.write_bytes(notebook.read_text().encode("utf-16"))
