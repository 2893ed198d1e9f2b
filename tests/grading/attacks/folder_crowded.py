# Tries: fill the folder with 1,000 files, 200 folders in each other, pipes and circles of links
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
import os
for i in range(1_000):
    (folder / f"{i}.txt").touch()
deep = folder
for _ in range(200):
    deep = deep / "deeper"
deep.mkdir(parents=True)
(deep / "circle").symlink_to(folder)
os.mkfifo(folder / "pipe")
(folder / "circle").symlink_to(folder)
(folder / "autograded").symlink_to(root)
