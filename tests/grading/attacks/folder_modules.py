# Tries: lay modules beside the notebook that are imported in place of the real ones
# Earns: 5

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias

# %% toy.relu
def relu(x):
    return x.clamp(min=0)

# %% file
code = f"open('{root}/canaries/folder_modules', 'w').close()\nraise SystemExit('taken')\n"
for name in ("torch", "json", "random", "nbformat", "sitecustomize", "usercustomize", "conftest"):
    (folder / f"{name}.py").write_text(code)
for name in ("grader", "nbgrader", "torch"):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
(folder / "mine.pth").write_text(f"import os; os.system('touch {root}/canaries/folder_modules')\n")
