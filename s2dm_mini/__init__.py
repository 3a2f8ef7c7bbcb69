"""A small, readable library for Skip-Step Diffusion Models (S²-DM, arXiv 2401.01520) and fast diffusion sampling."""
from .checkpoints import load_pretrained
from .data.cifar10 import cifar10
from .data.shapes import shapes
from .denoisers import GaussianDenoiser, MixtureDenoiser, Shrunk
from .guidance import Guided
from .losses import s2dm_loss, shrinkage, simple_loss, skip_step_loss
from .samplers import SAMPLERS, sample, trajectory
from .schedule import NoiseSchedule, timesteps
from .training.config import TrainConfig
from .training.loop import train
from .unet import PRESETS, UNet, UNetConfig, for_sampling

__version__ = "0.2.0"
__all__ = ["GaussianDenoiser", "Guided", "MixtureDenoiser", "NoiseSchedule", "PRESETS", "SAMPLERS", "Shrunk", "TrainConfig", "UNet",
           "UNetConfig", "cifar10", "explore", "for_sampling", "load_pretrained", "s2dm_loss", "sample", "shapes", "shrinkage",
           "simple_loss", "skip_step_loss", "timesteps", "train", "trajectory"]


def explore(hide=(), story=(), **setting):
    """The latent explorer as a notebook widget; keywords as in `explorer.setting.Setting`, such as skip=9, tau=0.97, steps=20.

    For lessons, hide leaves parts out, such as hide=["map", "more"], and story shows cards with a question and the changes that each
    starts from: story=[("What does τ = 1 mean?", {"tau": 1.0}), ...]. Both as in `explorer.widget.Explorer`.
    """
    from .explorer.setting import Setting, changed
    from .explorer.widget import Explorer  # here, because ipywidgets is slow to import

    return Explorer(changed(Setting(), setting), hide, story)
