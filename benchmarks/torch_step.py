"""A worker that times training steps of the same network in PyTorch, at its best.

It needs nothing but PyTorch, so any Python that has it can run it, without the course:
`python benchmarks/torch_step.py --dtype bfloat16 --compiled`. Channels last, autocast for
bfloat16, the fused Adam. The last layer computes in float32, as in the labs.
"""

import argparse
import itertools
import json
import sys
import time

import torch
from torch import nn


class Network(nn.Module):
    """The network of chapter 4: (3, 32, 32) -> logits of 10 classes."""

    def __init__(self, share: float = 1.0):
        super().__init__()
        widths = [3, *(int(width * share) for width in (64, 128, 256, 128, 64))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3) for before, after in itertools.pairwise(widths)
        )
        self.hidden = nn.Linear(49 * widths[-1], 64)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images with values in [0, 1]."""
        x = 2.0 * x - 1.0
        for number, convolution in enumerate(self.convolutions):
            x = torch.relu(convolution(x))
            if number == 0:
                x = nn.functional.max_pool2d(x, 2)
        x = self.dropout(torch.relu(self.hidden(torch.flatten(x, 1))))
        with torch.autocast("cpu", enabled=False):
            return self.output(x.float())


def make_step(dtype: str, compiled: bool, batch_size: int, share: float, n_batches: int = 8):
    """Return a function that trains one step, taking the batches in turn."""
    torch.manual_seed(0)
    model = Network(share).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    forward = torch.compile(model) if compiled else model
    images = [
        torch.rand(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
        for _ in range(n_batches)
    ]
    labels = [torch.randint(0, 10, (batch_size,)) for _ in range(n_batches)]
    bfloat16 = dtype == "bfloat16"

    def step(number: int) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = forward(images[number % n_batches])
        loss = nn.functional.cross_entropy(logits, labels[number % n_batches])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step.parameters = sum(p.numel() for p in model.parameters())
    return step


def main() -> None:
    """Prepare the asked variant, then answer every line with the seconds of one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    step = make_step(options.dtype, options.compiled, options.batch_size, options.share)
    for number in range(options.steps):
        step(number)
    about = {"version": torch.__version__, "parameters": step.parameters}
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        for number in range(options.steps):
            step(number)
        print(json.dumps({"seconds": (time.perf_counter() - begin) / options.steps}), flush=True)


if __name__ == "__main__":
    main()
