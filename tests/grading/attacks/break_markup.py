# Tries: stop the run with a language whose name is markup that never began, in colour
# Earns: 5

# %% file
import json
content = json.loads(notebook.read_text())
content["metadata"]["kernelspec"] = {"name": "x", "display_name": "x", "language": "[/red]\x1b[31m\u202e"}
notebook.write_text(json.dumps(content))
