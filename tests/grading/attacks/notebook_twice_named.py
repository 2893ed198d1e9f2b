# Tries: show one source and hand in another, by a key that is there twice
# Earns: 2

# %% file
import json
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    if cell["metadata"].get("exercise") == "toy.linear":
        cell["source@"] = "Linear = None"
notebook.write_text(json.dumps(content).replace("source@", "source"))
