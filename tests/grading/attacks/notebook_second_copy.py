# Tries: hand in a right notebook beside a half-right one
# Earns: 2

# %% file
import json, shutil
for name in ("toy-final.ipynb", "00.ipynb", "toy (1).ipynb"):
    shutil.copy(notebook, folder / name)
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    if cell["metadata"].get("exercise") == "toy.linear":
        cell["source"] = "Linear = None"
notebook.write_text(json.dumps(content))
