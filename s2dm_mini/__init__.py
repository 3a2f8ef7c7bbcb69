"""A small, readable library for Skip-Step Diffusion Models and fast diffusion sampling."""
