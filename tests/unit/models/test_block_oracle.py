"""The block against Algorithms 1-4, written in NumPy and float64 with explicit loops over heads and tokens."""

import numpy as np
import pytest
import torch

from lookupvivit.models.lookupvit import LookupViTBlock

EPS = 1e-6


class Oracle:
    """The algorithms, with the weights of a block read by name; zp (M, D) and zl (N, D) as in the paper."""

    def __init__(self, block: LookupViTBlock, num_heads: int) -> None:
        self.weights = {name: tensor.detach().numpy() for name, tensor in block.state_dict().items()}
        self.num_heads = num_heads

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

    def split_heads(self, x):
        d = x.shape[-1] // self.num_heads
        return [x[:, h * d : (h + 1) * d] for h in range(self.num_heads)]

    @staticmethod
    def attention(queries, keys):
        rows = []
        for scores in queries @ keys.T / np.sqrt(queries.shape[-1]):
            exponentials = np.exp(scores - scores.max())
            rows.append(exponentials / exponentials.sum())
        return np.stack(rows)

    def gather(self, zp, zl):
        """Algorithm 1: the update of zp, and A (H, M, N)."""
        q = self.norm("gather.q_norm", self.linear("gather.q", zp))
        k = self.norm("gather.k_norm", self.linear("gather.k", zl))
        v = self.linear("gather.v", zl)
        attention, gathered = [], []
        for q_head, k_head, v_head in zip(*map(self.split_heads, (q, k, v)), strict=True):
            attention.append(self.attention(q_head, k_head))
            gathered.append(attention[-1] @ v_head)
        return self.linear("gather.out", np.concatenate(gathered, -1)), np.stack(attention)

    def infuse(self, zp, attention):
        """Algorithm 2: the update of zl; the same A, transposed, not renormalised."""
        v = self.norm("infuse.v_norm", self.linear("infuse.v", zp))
        infused = []
        for a, v_head in zip(attention, self.split_heads(v), strict=True):
            received = np.zeros((a.shape[1], v_head.shape[1]))
            for n in range(a.shape[1]):
                for m in range(a.shape[0]):
                    received[n] += a[m, n] * v_head[m]
            infused.append(received)
        return self.linear("infuse.out", np.concatenate(infused, -1))

    def vit_block(self, zp):
        """Algorithm 3."""
        qkv = np.split(self.linear("refine.attention.qkv", self.norm("refine.attention_norm", zp)), 3, axis=-1)
        heads = zip(*map(self.split_heads, qkv), strict=True)
        mixed = [self.attention(q_head, k_head) @ v_head for q_head, k_head, v_head in heads]
        zp = zp + self.linear("refine.attention.out", np.concatenate(mixed, -1))
        return zp + self.mlp("refine.mlp", self.norm("refine.mlp_norm", zp))

    def block(self, zp, zl):
        """Algorithm 4: zp, zl and A."""
        update, attention = self.gather(self.norm("gather_norm_compressed", zp), self.norm("gather_norm_lookup", zl))
        zp = self.vit_block(zp + update)
        zl = zl + self.infuse(self.norm("infuse_norm", zp), attention)
        zl = zl + self.mlp("lookup_mlp", self.norm("lookup_mlp_norm", zl))
        return zp, zl, attention


@pytest.mark.parametrize(("m", "n", "width", "num_heads"), [(5, 12, 24, 3), (9, 9, 16, 1), (1, 7, 32, 4)])
def test_block_equals_the_algorithms(m, n, width, num_heads):
    torch.manual_seed(m * n)
    block = LookupViTBlock(width, num_heads).double()
    for parameter in block.parameters():  # as after training: every norm and bias has an effect
        torch.nn.init.normal_(parameter, mean=0.1, std=0.4)
    compressed, lookup = torch.randn(2, m, width).double(), torch.randn(2, n, width).double()
    outputs = block(compressed, lookup, return_attention=True)
    oracle = Oracle(block, num_heads)
    for sample in range(2):
        expected = oracle.block(compressed[sample].numpy(), lookup[sample].numpy())
        for output, exact in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output[sample].detach().numpy(), exact, rtol=0, atol=1e-9)
