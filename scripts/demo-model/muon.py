"""The optimisers: Muon (orthogonalised momentum, Jordan et al. 2024) for the hidden matrices, AdamW for the rest.

Invariant: matrices of one shape are orthogonalised together, so that a step costs few kernel calls.
"""

from collections import defaultdict

import torch


def orthogonalise(g):
    """Five Newton-Schulz steps on a stack of matrices [n, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = g.shape[-2] > g.shape[-1]
    x = (g.mT if flip else g).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        m = x @ x.mT
        x = a * x + (b * m + c * m @ m) @ x
    return (x.mT if flip else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            stacks = defaultdict(list)
            for p in group["params"]:
                stacks[p.shape].append(p)
            for shape, params in stacks.items():
                moved = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    moved.append(p.grad.lerp(buffer, group["momentum"]))
                updates = orthogonalise(torch.stack(moved))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def optimisers(model, lr_matrices, lr_rest):
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embd" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embd" in n]
    return [Muon(matrices, lr_matrices, weight_decay=0.03), torch.optim.AdamW(rest, lr=lr_rest, betas=(0.9, 0.97), weight_decay=0.0)]
