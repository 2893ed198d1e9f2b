# Tries: fetch the answers from the network
# Earns: 2

# %% toy.linear
import urllib.request
exec(urllib.request.urlopen('http://127.0.0.1:PORT/answers', timeout=1).read())
