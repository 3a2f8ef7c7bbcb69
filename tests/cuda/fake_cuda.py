"""A CUDA device in host memory, so that CUDA code runs on a PyTorch without CUDA; README.md says what it shows and what it cannot.

    python tests/cuda/fake_cuda.py pytest tests/cuda        or a script with its arguments, or -m MODULE with its arguments

Compiles fakecuda.cpp once, into build/cuda; without a compiler it says so and ends well.
"""
import collections
import contextlib
import ctypes
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "cuda"


class Unavailable(Exception):
    """The emulated device cannot be had here; the message says why."""


def library() -> Path:
    """The compiled device, for this source and this PyTorch; compiled if it is not there."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    source, compiler = HERE / "fakecuda.cpp", shutil.which("c++") or shutil.which("g++")
    if sys.platform != "linux" or list(torch.glob("lib/libtorch_cuda.*")):
        raise Unavailable("the emulated CUDA device needs Linux and a PyTorch without CUDA (pip install torch --index-url "
                          "https://download.pytorch.org/whl/cpu); where there is a GPU, tests/test_gpu.py runs on it.")
    path = BUILD / f"fakecuda-{sha256(source.read_bytes() + version('torch').encode()).hexdigest()[:16]}.so"
    if not path.exists():
        if not compiler:
            raise Unavailable("the emulated CUDA device needs a C++ compiler, such as Debian's g++; its tests are skipped.")
        BUILD.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        subprocess.run([compiler, "-O1", "-w", "-std=c++20", "-shared", "-fPIC", "-D_GLIBCXX_USE_CXX11_ABI=1", f"-I{torch}/include",
                        f"-I{torch}/include/torch/csrc/api/include", str(source), "-o", str(part), f"-L{torch}/lib", "-ltorch_cpu", "-lc10",
                        f"-Wl,-rpath,{torch}/lib"], check=True)
        part.replace(path)
    return path


def install() -> None:
    """Give PyTorch the device. Only before `import torch`: once it has looked for CUDA and found none, it never looks again."""
    if "torch" in sys.modules:
        raise RuntimeError("install() must come before `import torch`.")
    ctypes.CDLL(str(library()), mode=ctypes.RTLD_GLOBAL)
    import torch

    fake, cuda = torch.ops.fakecuda, torch.cuda
    constant = {"is_available": True, "is_initialized": True, "_is_in_bad_fork": False, "device_count": 1, "current_device": 0,
                "set_device": None, "get_device_name": "an emulated CUDA device", "get_device_capability": (9, 0), "_lazy_init": None,
                "is_bf16_supported": True, "empty_cache": None, "is_current_stream_capturing": False}
    for name, value in constant.items():
        setattr(cuda, name, lambda *_, value=value, **__: value)
    cuda.synchronize = lambda device=None: fake.wait()
    cuda._lazy_call = lambda function, **_: function()
    cuda.memory_allocated = lambda device=None: fake.memory()[0]
    cuda.max_memory_allocated = lambda device=None: fake.memory()[1]
    cuda.reset_peak_memory_stats = lambda device=None: fake.reset_peak()
    cuda.set_sync_debug_mode = lambda mode: fake.sync_mode({"default": 0, "warn": 1, "error": 2}[mode])
    for module in (cuda, cuda.random):
        module.manual_seed = module.manual_seed_all = lambda seed: fake.seed(int(seed) % 2**63)
        module.get_rng_state = lambda device="cuda": fake.state().clone()
        module.set_rng_state = lambda state, device="cuda": fake.set_state(state)
    torch._C._cuda_isCurrentStreamCapturing = lambda: False
    cuda.CUDAGraph, cuda.graph = recording_class(), recording
    cuda.Stream = cuda.current_stream = Stream
    cuda.stream = lambda stream: contextlib.nullcontext()
    torch.real_compile = torch.compile  # for tests that count compilations
    torch.compile = lambda model=None, *, mode=None, **_: Graphed(model) if mode == "reduce-overhead" else model


def waits() -> collections.Counter:
    """What made the host wait since `forget`, and how often."""
    import torch
    return collections.Counter(torch.ops.fakecuda.syncs())


def forget() -> None:
    import torch
    torch.ops.fakecuda.forget()


IN_GRAPHS = [0]  # operations that graphs repeated, less one launch for each graph


def launches() -> int:
    """What the host has sent to the device: operations, and graphs."""
    import torch
    return torch.ops.fakecuda.launches() - IN_GRAPHS[0]


@contextlib.contextmanager
def as_one_launch():
    before = launches()
    yield
    IN_GRAPHS[0] += launches() - before - 1


class Stream:
    """torch.cuda.Stream; all that is sent to the emulated device is done at once, in order."""

    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


def recording_class() -> type:
    """A class that stands for torch.cuda.CUDAGraph, made when torch can be imported.

    It notes operations with the memory they read and wrote, and repeats them there: no Python between them runs again, and numbers
    stay what they were. Recording changes no memory and no generator. What a GPU could not record is refused.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def tensors(value):
        return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]

    class Recording(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.operations, self.generators, self.written = [], [], {}

        def register_generator_state(self, generator):
            self.generators.append(generator)

        def __torch_dispatch__(self, operation, types, args=(), named=None):
            named = named or {}
            given = list(zip(operation._schema.arguments, args, strict=False))  # tensors to write to may also be named out
            given += [(argument, named[argument.name]) for argument in operation._schema.arguments if argument.name in named]
            for argument, value in given:
                # The dispatcher wraps a generator anew: it is known by its seed.
                if isinstance(value, torch.Generator) and value.initial_seed() not in [g.initial_seed() for g in self.generators]:
                    raise RuntimeError("a generator that draws within a CUDA graph must be registered with it.")
                if argument.alias_info and argument.alias_info.is_write:
                    for tensor in tensors(value):
                        self.written.setdefault(tensor.data_ptr(), (tensor.detach(), tensor.detach().clone()))
            out = operation(*args, **named)
            self.operations.append((operation, args, named, out))
            return out

        def replay(self):
            with torch.no_grad(), as_one_launch():
                for operation, args, named, out in self.operations:
                    for kept, new in zip(tensors(out), tensors(operation(*args, **named)), strict=True):
                        if kept.data_ptr() != new.data_ptr():
                            kept.detach().copy_(new)

    return Recording


@contextlib.contextmanager
def recording(graph, stream=None):
    """torch.cuda.graph."""
    import torch

    states = [generator.get_state() for generator in graph.generators]
    own = torch.ops.fakecuda.state().clone()
    torch.ops.fakecuda.sync_mode(2)
    try:
        with as_one_launch(), graph:
            yield
    finally:
        torch.ops.fakecuda.sync_mode(0)
    for generator, state in zip(graph.generators, states, strict=True):
        generator.set_state(state)
    torch.ops.fakecuda.set_state(own)
    for tensor, before in graph.written.values():
        tensor.copy_(before)


class Graphed:
    """Answers as `model` does, in memory that its next call with such inputs overwrites: answers and gradients, as CUDA graphs do."""

    def __init__(self, model):
        import torch

        self.model, self.memory = model, {}
        self.weights = list(model.parameters()) if isinstance(model, torch.nn.Module) else []
        owner = self

        class Pass(torch.autograd.Function):
            @staticmethod
            def forward(ctx, inputs, *weights):
                with torch.enable_grad(), as_one_launch():
                    ctx.out = model(*(v.detach().requires_grad_(v.requires_grad) for v in inputs))
                    return owner.placed(("answer", owner.key(inputs)), ctx.out)

            @staticmethod
            def backward(ctx, grad):
                with as_one_launch():
                    found = torch.autograd.grad(ctx.out, owner.weights, grad, allow_unused=True)
                    return (None, *(g if g is None else owner.placed(("gradient", i), g) for i, g in enumerate(found)))

        self.differentiable = Pass.apply

    @staticmethod
    def key(inputs):
        return tuple((tuple(v.shape), v.dtype) for v in inputs)

    def placed(self, key, value):
        """The value in the memory of `key`, as a tensor of its own, which .grad may keep."""
        kept = self.memory.get(key)
        if kept is None or kept.shape != value.shape or kept.stride() != value.stride():
            self.memory[key] = value.detach().clone()
        self.memory[key].copy_(value.detach())
        return self.memory[key].detach()

    def __call__(self, *inputs, **named):
        import torch

        inputs = (*inputs, *named.values())
        if torch.is_grad_enabled() and any(w.requires_grad for w in self.weights):
            return self.differentiable(inputs, *self.weights)
        return self.placed(("answer", self.key(inputs)), self.model(*inputs))


def main() -> None:
    sys.path[:1] = [str(HERE)]
    import fake_cuda  # the tests' own import of it, not __main__
    try:
        fake_cuda.install()
    except fake_cuda.Unavailable as error:
        print(f"Skipped: {error}")
        return
    if sys.argv[1] == "pytest":
        import pytest
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        sys.exit(pytest.main(["-p", "emulated", *sys.argv[2:]]))
    elif sys.argv[1] == "-m":
        sys.argv = sys.argv[2:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[1:]
        sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
