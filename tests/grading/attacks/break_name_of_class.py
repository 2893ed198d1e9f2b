# Tries: be a class whose name can't be asked for, and no module
# Earns: 2

# %% toy.linear
class Nameless(type):
    def __getattribute__(cls, name):
        if name in ("__name__", "__qualname__", "__module__"):
            raise KeyboardInterrupt
        return super().__getattribute__(name)
class Linear(metaclass=Nameless):
    pass
