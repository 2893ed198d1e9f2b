# Tries: stop the compiler with null bytes, form feeds and separators in the source
# Earns: 2

# %% file
import json
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    if cell["metadata"].get("exercise") == "toy.linear":
        cell["source"] = "".join(cell["source"]).replace("return", "\x0c\u2028\x00return")
notebook.write_text(json.dumps(content))
