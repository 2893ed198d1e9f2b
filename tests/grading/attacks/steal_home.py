# Tries: read the instructor's home
# Earns: 2

# %% toy.linear
import os
from pathlib import Path
assert list(Path('/root').glob('.*')) or list(Path('/home').glob('*/.*'))
