# Tries: begin with a byte order mark, and end lines as other systems do
# Earns: 5

# %% file
import json
content = json.loads(notebook.read_text())
for cell in content["cells"]:
    cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")
notebook.write_bytes(b"\xef\xbb\xbf" + json.dumps(content, indent=1).replace("\n", "\r\n").encode())
