# Tries: start threads without end, that never end
# Earns: 2

# %% toy.linear
import threading, time
def spin():
    while True:
        try:
            threading.Thread(target=spin).start()
        except BaseException:
            time.sleep(0.01)
spin()
