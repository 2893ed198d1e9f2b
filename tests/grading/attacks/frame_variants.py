# Tries: answer what is asked beside a case with 100,000 answers, each in another and of the wrong type
# Earns: 2

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        import json, os
        inner = {"output": None, "problem": None, "alone": None, "varied": 7}
        varied = [{**inner, "output": "0"}, [], 7, inner] * 25_000
        cases = ["a batch of vectors", "one vector"]
        body = [{"case": case, "output": "0", "varied": varied[: 20_000]} for case in cases]
        tensors = {"0": ["float32", [6, 5]]}
        header = json.dumps({"body": body, "tensors": tensors}).encode()
        content = len(header).to_bytes(4, "big") + header + bytes(120)
        os.write(3, len(content).to_bytes(8, "big") + content)
        return x @ self.weight.T + self.bias
