"""The gradients of a training step as one launch: recorded once as a CUDA graph, then repeated. `record_step` in TrainConfig.

A CUDA graph repeats the same kernels on the same memory, and no Python. So all that changes from step to step must lie in memory that the
graph reads: here the indices of the images, the weights, and the seeds of the generators. Adam and the averages, whose learning rate and
decay Python computes, stay outside. As PyTorch's notes on CUDA say, some steps on another stream come first. Tested on an emulated device
only, which repeats operations as a graph does; never recorded on a GPU.
"""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3  # steps before the recording, in which the compiler and cuDNN choose their kernels


class Recorded:
    """gradients(index), from its fourth call on as one launch.

    gradients must leave its answers in the weights' `.grad`, none of which is there before, or add them to tensors that exist already.
    Its random numbers must come from the generators given here, or from PyTorch's own.
    """

    def __init__(self, gradients: Callable[[Tensor], None], weights: Sequence[Tensor], generators: Sequence[torch.Generator]):
        self.gradients, self.weights, self.warmed_up = gradients, weights, 0
        self.graph, self.stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(weights[0].device)
        self.index, self.found = None, []
        for generator in generators:
            self.graph.register_generator_state(generator)

    def __call__(self, index: Tensor) -> None:
        """index: (B,), the images of the step."""
        if self.warmed_up < WARM_UP:
            self.warmed_up += 1
            now = torch.cuda.current_stream(index.device)
            self.stream.wait_stream(now)
            with torch.cuda.stream(self.stream):
                self.gradients(index)
            now.wait_stream(self.stream)
            return
        if self.index is None:
            self.index = index.clone()
            with torch.cuda.graph(self.graph, stream=self.stream):  # notes the kernels, runs none
                self.gradients(self.index)
            self.found = [weight.grad for weight in self.weights]
        self.index.copy_(index)
        self.graph.replay()
        for weight, grad in zip(self.weights, self.found, strict=True):
            weight.grad = grad  # zero_grad took it away
