"""The block against Algorithms 1-4 written out in NumPy, float64, with explicit loops over heads and tokens."""

import numpy as np
import pytest
import torch

from lookupvivit.models.lookupvit import LookupViTBlock

EPS = 1e-6


class Oracle:
    """One block's weights as NumPy arrays, read by name."""

    def __init__(self, block: LookupViTBlock, heads: int) -> None:
        self.weights = {name: tensor.detach().numpy() for name, tensor in block.state_dict().items()}
        self.heads = heads

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def mlp(self, name, x):
        hidden = self.linear(f"{name}.0", x)
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        return self.linear(f"{name}.2", hidden)

    def heads_of(self, x):
        d = x.shape[-1] // self.heads
        return [x[:, h * d : (h + 1) * d] for h in range(self.heads)]

    @staticmethod
    def softmax_rows(scores):
        rows = []
        for row in scores:
            e = np.exp(row - row.max())
            rows.append(e / e.sum())
        return np.stack(rows)

    def gather(self, zp, zl):  # Algorithm 1
        q = self.norm("gather.q_norm", self.linear("gather.q", zp))
        k = self.norm("gather.k_norm", self.linear("gather.k", zl))
        v = self.linear("gather.v", zl)
        attention, out = [], []
        for qh, kh, vh in zip(*map(self.heads_of, (q, k, v)), strict=True):
            attention.append(self.softmax_rows(qh @ kh.T / np.sqrt(qh.shape[-1])))
            out.append(attention[-1] @ vh)
        return self.linear("gather.out", np.concatenate(out, -1)), np.stack(attention)

    def vit_block(self, zp):  # Algorithm 3
        qkv = np.split(self.linear("refine.attention.qkv", self.norm("refine.attention_norm", zp)), 3, axis=-1)
        out = []
        for qh, kh, vh in zip(*map(self.heads_of, qkv), strict=True):
            out.append(self.softmax_rows(qh @ kh.T / np.sqrt(qh.shape[-1])) @ vh)
        zp = zp + self.linear("refine.attention.out", np.concatenate(out, -1))
        return zp + self.mlp("refine.mlp", self.norm("refine.mlp_norm", zp))

    def infuse(self, zp, attention):  # Algorithm 2, entry by entry: the same A, transposed, not renormalised
        v = self.norm("infuse.v_norm", self.linear("infuse.v", zp))
        out = []
        for a, vh in zip(attention, self.heads_of(v), strict=True):
            received = np.zeros((a.shape[1], vh.shape[1]))
            for n in range(a.shape[1]):
                for m in range(a.shape[0]):
                    received[n] += a[m, n] * vh[m]
            out.append(received)
        return self.linear("infuse.out", np.concatenate(out, -1))

    def block(self, zp, zl):  # Algorithm 4
        update, attention = self.gather(self.norm("gather_norm_compressed", zp), self.norm("gather_norm_lookup", zl))
        zp = self.vit_block(zp + update)
        zl = zl + self.infuse(self.norm("infuse_norm", zp), attention)
        zl = zl + self.mlp("lookup_mlp", self.norm("lookup_mlp_norm", zl))
        return zp, zl, attention


@pytest.mark.parametrize(("m", "n", "width", "heads"), [(5, 12, 24, 3), (9, 9, 16, 1), (1, 7, 32, 4)])
def test_block_equals_the_algorithms(m, n, width, heads):
    torch.manual_seed(m * n)
    block = LookupViTBlock(width, heads).double()
    for parameter in block.parameters():  # trained-looking: every norm and bias does something
        torch.nn.init.normal_(parameter, mean=0.1, std=0.4)
    compressed, lookup = torch.randn(2, m, width).double(), torch.randn(2, n, width).double()

    got = block(compressed, lookup, return_attention=True)

    oracle = Oracle(block, heads)
    for sample in range(2):
        wanted = oracle.block(compressed[sample].numpy(), lookup[sample].numpy())
        for ours, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(ours[sample].detach().numpy(), theirs, rtol=0, atol=1e-9)
