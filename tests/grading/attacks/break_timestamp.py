# Tries: stop the run with a time of submission that is none
# Earns: 5

# %% file
(folder / 'timestamp.txt').write_text('the day before yesterday')
