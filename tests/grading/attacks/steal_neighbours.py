# Tries: hand in another student's solution, read from their submission
# Earns: 2

# %% toy.linear
import glob, json
paths = [p for root in ("..", "../..", "../../..", "ROOT/submitted") for p in glob.glob(root + "/*/00-toy/toy.ipynb")]
for cell in json.load(open(paths[0]))["cells"]:
    if cell["metadata"].get("exercise") == "toy.linear":
        exec("".join(cell["source"]))
