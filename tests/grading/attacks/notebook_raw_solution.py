# Tries: hide the solution from readers, in a raw cell
# Earns: 5

# %% file
import json
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    if "exercise" in cell["metadata"]:
        cell["cell_type"] = "raw"
        cell.pop("outputs", None), cell.pop("execution_count", None)
notebook.write_text(json.dumps(content))
