# Tries: end the main thread alone, and answer from another
# Earns: 2

# %% toy.linear
import ctypes, os, platform, threading, time
exit_thread = 60 if platform.machine() == "x86_64" else 93
def answer():
    time.sleep(0.05)
    os.write(3, b"nonsense" * 100)
    time.sleep(60)
threading.Thread(target=answer).start()
ctypes.CDLL(None).syscall(exit_thread, 0)
