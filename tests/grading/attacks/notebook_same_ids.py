# Tries: give every cell the same id
# Earns: 5

# %% file
import json
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    cell["id"] = "same"
notebook.write_text(json.dumps(content))
