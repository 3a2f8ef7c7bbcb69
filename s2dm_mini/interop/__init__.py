"""Exchange with diffusers: its `UNet2DModel` as a denoiser here, and a network from here as a `DDPMPipeline` folder.

    denoiser = as_denoiser(DDPMPipeline.from_pretrained("google/ddpm-cifar10-32").unet)
    save_pipeline(model, schedule, "folder")       # DDPMPipeline.from_pretrained("folder") loads it
    shrunk = shrink_pipeline(pipeline, 1 / 1.017)  # any pipeline of a UNet2DModel, its ε multiplied when sampling; no training

`UNet` and `UNet2DModel` name their parameters alike, so only the configuration is translated. Diffusers' networks run in its own code,
wrapped in a `DiffusersDenoiser`. Only this package imports diffusers (`pip install diffusers`). Folders are untrusted input: only
safetensors and JSON of limited size are read, nothing is unpickled, and no class is looked up by a name in a file.
"""
from .folders import open_pipeline, save_pipeline
from .network import DiffusersConfig, DiffusersDenoiser, ShrunkUNet2D, as_denoiser, shrink_pipeline, to_diffusers, without_weights

__all__ = ["DiffusersConfig", "DiffusersDenoiser", "ShrunkUNet2D", "as_denoiser", "open_pipeline", "save_pipeline", "shrink_pipeline",
           "to_diffusers", "without_weights"]
