# Tries: write a manual score of 77 into the gradebook
# Earns: 2

# %% toy.linear
import sqlite3
for path in ("gradebook.db", "../gradebook.db", "../../gradebook.db", "../../../gradebook.db", "ROOT/gradebook.db"):
    try:
        with sqlite3.connect(path) as db:
            db.execute("UPDATE grade SET manual_score = 77")
    except sqlite3.Error:
        pass
