# Tries: fill the folder with 1,000 files, 200 folders in each other, pipes and circles of links
# Earns: 5

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
