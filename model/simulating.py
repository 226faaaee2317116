"""Answers drawn anew: traits of people from a latent regression on their cohorts, and answers from the decoder.

The regression's parameters are those found, and not drawn from their posterior: figures of an extract are then nearer
to the survey's, and read as the survey's are (Reiter & Kinney 2012). Shapes: D drawn people, J items, T traits.
"""

import numpy as np
import numpy.typing as npt
import torch

from model.conditioning import Conditioning, Terms
from model.latent_regression import Parameters
from model.network import ProfileNetwork
from model.plausible import FARTHEST
from model.threads import fix_threads


def draw_answers(
    network: ProfileNetwork, conditioning: Conditioning, parameters: Parameters, terms: Terms, seed: int
) -> npt.NDArray[np.int64]:
    """Codes (D, J) of people who answer everything; of the parameters' draws the first is used."""
    random = np.random.default_rng(seed)
    effects, size = parameters.effects[0], conditioning.size
    middle = effects[terms.effects].sum(axis=1) + effects[size + terms.psu]
    middle += terms.log_weight[:, None] * effects[size - 1]
    traits = middle + random.standard_normal(middle.shape) @ parameters.factors[0].T
    residual = random.standard_normal((len(middle), network.residuals))
    latents = torch.from_numpy(np.concatenate([traits.clip(-FARTHEST, FARTHEST), residual], axis=1)).float()
    generator = torch.Generator().manual_seed(seed)
    with fix_threads(1), torch.no_grad():
        categories = network.items.draw(*network.place(latents), generator)
        return np.asarray(network.categories(categories).numpy(), dtype=np.int64)
