"""diffusers both ways: its `UNet2DModel` as a denoiser here, and a network from here as a `DDPMPipeline` folder there.

    denoiser = as_denoiser(DDPMPipeline.from_pretrained("google/ddpm-cifar10-32").unet)
    save_pipeline(model, schedule, "folder")     # DDPMPipeline.from_pretrained("folder") loads it
    model, schedule = load_pipeline("folder")
    shrunk = shrink_pipeline(pipeline, 1 / 1.017)  # any pipeline of a UNet2DModel, its ε multiplied when sampling; no training

To fine-tune a pipeline's network with S²-DM, of whatever architecture, and to give the result back to diffusers:

    python -m s2dm_mini train --preset diffusers --start google/ddpm-cifar10-32 --images 100000 --evaluate 10 --out runs/tuned
    python -m s2dm_mini export runs/tuned/model.safetensors runs/tuned/pipeline

`UNet` and `UNet2DModel` give their parameters the same names, so only the configuration needs translating. Other architectures stay
diffusers' own code, in a `DiffusersDenoiser`; checkpoints then hold diffusers' configuration in the place of ours. diffusers is
imported here and nowhere else in the package: `pip install diffusers`. Folders are read as data: safetensors and bounded JSON, by the
names that `save_pretrained` gives them; nothing is unpickled, and no class is looked up by a name in a file.
"""
from .folders import load_pipeline, open_pipeline, save_pipeline
from .network import DiffusersConfig, DiffusersDenoiser, ShrunkUNet2D, as_denoiser, shrink_pipeline, without_weights
from .translate import from_diffusers, to_diffusers

__all__ = ["DiffusersConfig", "DiffusersDenoiser", "ShrunkUNet2D", "as_denoiser", "from_diffusers", "load_pipeline", "open_pipeline",
           "save_pipeline", "shrink_pipeline", "to_diffusers", "without_weights"]
