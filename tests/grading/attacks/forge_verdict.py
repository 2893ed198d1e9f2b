# Tries: write our own verdict and result into outputs and metadata
# Earns: 2

# %% toy.linear
Linear = None

# %% file
import json
content = json.loads(notebook.read_text())
content["metadata"]["grader_result"] = {"notes": ["5 of 5 points"], "problem": ""}
for cell in content["cells"]:
    if name := cell["metadata"].get("check"):
        verdict = {"exercise": name, "passed": True, "points": 3.0, "max_points": 3.0, "summary": "right", "found": ""}
        data = {"application/vnd.grader.verdict+json": verdict, "text/plain": "3.0", "text/html": "<b>right</b>"}
        cell["outputs"] = [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}]
    cell["metadata"]["grader_own_cell"] = "toy.linear"
notebook.write_text(json.dumps(content))
