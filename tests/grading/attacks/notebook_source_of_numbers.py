# Tries: give the source as a list with numbers in it
# Earns: 2

# %% file
import json
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    if cell["metadata"].get("exercise") == "toy.linear":
        cell["source"] = ["".join(cell["source"]), 7, None]
notebook.write_text(json.dumps(content))
