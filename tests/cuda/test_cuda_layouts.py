"""In which order a picture lies in memory, as PyTorch's compiler traces a training step; and that the kernels written out are right.

cuDNN multiplies fastest with the channels innermost, NHWC. A convolution given a picture in NCHW, or an operation that makes one, costs a
copy of it: some of the longest operations of a step, since they only move bytes.
"""
from collections import Counter

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

from s2dm_mini import UNet, unet


def order(value) -> str | None:
    """NHWC, NCHW or another order of a picture with several channels and rows; None for other values."""
    if not isinstance(value, torch.Tensor) or value.ndim != 4 or value.shape[0] != 3 or min(value.shape[1:]) < 4:
        return None
    _, channel, row, _ = value.stride()
    return "NHWC" if channel == 1 else "NCHW" if value.is_contiguous() else "another"


def traced_step(model: nn.Module, x: torch.Tensor, t: torch.Tensor) -> list[torch.fx.Graph]:
    """The graphs of a forward and a backward pass in bf16, as the compiler sees them before it makes kernels."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph.graph)
        return lambda given: graph.forward(*given)

    keep_boxed = lambda graph, inputs: boxed(keep(graph, inputs))  # noqa: E731
    compiled = torch.real_compile(model, backend=aot_autograd(fw_compiler=keep_boxed, bw_compiler=keep_boxed,
                                                              decompositions=select_decomp_table()))
    with torch.autocast("cuda", torch.bfloat16):
        compiled(x, t).square().mean().backward()
    return graphs


def boxed(call):
    call._boxed_call = True
    return call


def copies_of_a_step(monkeypatch, config) -> Counter:
    """Pictures into convolutions by their order, forward and backward, and copies from NHWC to NCHW."""
    # The emulated device has no cuDNN; this is what cuDNN answers where weights have the channels innermost.
    monkeypatch.setattr(torch._C, "_conv_determine_backend_memory_format", lambda x, weight, backend:
                        torch.channels_last if x.ndim == 4 else torch.contiguous_format)
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, found = UNet(config).cuda().train(), Counter()
    for graph in traced_step(model, torch.randn(3, *config.shape).cuda(), torch.tensor([1, 500, 999]).cuda()):
        for node in (node for node in graph.nodes if node.op == "call_function"):
            given = [order(arg.meta.get("val")) for arg in node.args if isinstance(arg, torch.fx.Node)]
            if "convolution" in str(node.target):
                found.update(o for o in given if o)
            elif order(node.meta.get("val")) == "NCHW" and "NHWC" in given and node.target != torch.ops.aten.permute.default:  # a view
                found["copies"] += 1
    torch._dynamo.reset()
    return found


CONFIG = unet.UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.1)


def test_a_step_copies_no_picture(monkeypatch):
    found = copies_of_a_step(monkeypatch, CONFIG)
    assert found["NHWC"] > 60 and found["NCHW"] == found["copies"] == 0, found


def test_pytorchs_own_group_norm_would_copy(monkeypatch):
    """Else the test above sees nothing."""
    monkeypatch.setattr(unet, "GroupNorm", nn.GroupNorm)
    found = copies_of_a_step(monkeypatch, CONFIG)
    assert found["NCHW"] > 20 and found["copies"] > 20, found


@pytest.mark.parametrize("shape", [(3, 8, 6, 6), (3, 8, 10)], ids=["picture", "signal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_group_norm_written_out_is_group_norm(shape, dtype):
    norm = unet.GroupNorm(4, 8, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(shape, requires_grad=True)
    wanted = norm(x)
    wanted.square().sum().backward()
    there = x.detach().cuda().to(dtype).requires_grad_()
    found = norm.cuda().to(dtype)(there)
    found.float().square().sum().backward()
    within = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.2}
    assert found.dtype == dtype
    torch.testing.assert_close(found.float().cpu(), wanted, **within)
    torch.testing.assert_close(there.grad.float().cpu(), x.grad, **within)
