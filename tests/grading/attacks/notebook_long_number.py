# Tries: stop the run with a number of 100,000 digits
# Earns: 0

# %% file
import json
content = json.loads(notebook.read_text())
content["metadata"]["long"] = "@"
notebook.write_text(json.dumps(content).replace('"@"', "7" * 100_000))
