# Tries: hand in a link to another student's folder
# Earns: 0

# %% file
import shutil
shutil.rmtree(folder)
folder.symlink_to(root / 'submitted' / 'honest-1' / '00-toy')
