"""Rows of a ledger, written by hand."""


def row(setting, seed, fd, scale="none", sampler="ddim", steps=10, spacing="quadratic", features="own"):
    return {"data": "cifar10-train", "setting": setting, "scale": scale, "training_seed": str(seed), "sampler": sampler,
            "spacing": spacing, "steps": str(steps), "nfe": str(steps),
            "sampling_seed": "0", "samples": "1024", "features": features, "features_sha256": features, "fd": str(fd)}


def rows(setting, values, **options):
    return [row(setting, seed, value, **options) for seed, value in enumerate(values)]
