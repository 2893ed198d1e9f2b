# Tries: take the grader's memory and time with 10 MB of outputs
# Earns: 0

# %% file
import json
content = json.loads(notebook.read_text())
content["metadata"]["widgets"] = {"state": "w" * 10_000_000}
notebook.write_text(json.dumps(content))
