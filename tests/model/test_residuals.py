import pytest
import torch

from model.likelihood import GradedItems
from model.network import ProfileNetwork
from model.residuals import ResidualShift
from tests.model.simulation import make_spec

SPEC = make_spec((4, 3, 2), loose=2)


def random_shift(seed: int = 0) -> tuple[ResidualShift, torch.Tensor]:
    torch.manual_seed(seed)
    shift, items = ResidualShift(3, len(SPEC.traits), len(SPEC.items)).double(), GradedItems(SPEC).double()
    with torch.no_grad():
        torch.nn.init.normal_(shift.out.weight)
        torch.nn.init.normal_(shift.out.bias)
        items.log_discrimination += torch.randn_like(items.log_discrimination)
        return shift, items.discriminations()


@pytest.mark.parametrize("seed", range(3))
def test_no_residual_stands_in_for_a_trait(seed):
    shift, slopes = random_shift(seed)
    with torch.no_grad():
        found, spread = shift(torch.randn(40, 5, 3, dtype=torch.float64), slopes)
    assert found.shape == spread.shape == (40, 5, len(SPEC.items))
    weighted = found @ slopes.T
    torch.testing.assert_close(weighted, torch.zeros_like(weighted), atol=1e-12, rtol=0)
    assert found.abs().mean() > 0.3 and (spread > 0).all()


def test_what_is_taken_out_is_the_traits_direction_alone():
    shift, slopes = random_shift()
    residual = torch.randn(10, 3, dtype=torch.float64)
    with torch.no_grad():
        raw = shift.out(torch.cat([torch.tanh(shift.hidden(residual)), residual], dim=1))[:, : len(SPEC.items)]
        found, _ = shift(residual, slopes)
        taken = raw - found
        along = torch.linalg.lstsq(slopes.T, taken.T).solution
    torch.testing.assert_close(slopes.T @ along, taken.T)
    loose = slopes.sum(dim=0) == 0
    assert loose.sum() == 2
    torch.testing.assert_close(found[:, loose], raw[:, loose])


def test_what_scales_share_moves_their_items_as_the_trait_would():
    shift, slopes = random_shift()
    residual = torch.randn(10, 3, dtype=torch.float64)
    with torch.no_grad():
        before, _ = shift(residual, slopes)
        torch.nn.init.normal_(shift.along)
        after, _ = shift(residual, slopes)
    torch.testing.assert_close(after - before, (residual @ shift.along.T) @ slopes)
    assert shift.penalty() > 1_000


def test_what_goes_straight_has_no_end():
    shift, slopes = random_shift()
    loose = slopes.sum(dim=0) == 0
    far = torch.tensor([[1e5, 0, 0], [2e5, 0, 0], [3e5, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        steps = shift(far, slopes)[0][:, loose].diff(dim=0)
    torch.testing.assert_close(steps[0], steps[1])
    assert steps.abs().min() > 1


def test_with_one_trait_nothing_is_shared():
    assert not ResidualShift(3, 1, 5).along.requires_grad and ResidualShift(3, 2, 5).along.requires_grad


def test_silent_at_the_start():
    torch.manual_seed(1)
    network, plain = ProfileNetwork(SPEC, residuals=4), ProfileNetwork(SPEC)
    latents = torch.randn(6, 7)
    with torch.no_grad():
        location, spread = network.place(latents)
        torch.testing.assert_close(location, plain.items.locations(latents[:, :3]))
        assert (spread == 1).all() and plain.place(latents[:, :3])[1] is None


def test_far_residuals_leave_probabilities_that_sum_to_one():
    torch.manual_seed(1)
    network = ProfileNetwork(SPEC, residuals=3).requires_grad_(False)
    torch.nn.init.normal_(network.shift.out.weight)
    location, spread = network.place(20 * torch.randn(500, 6))
    assert spread.min() < 0.06 and spread.max() > 18
    probability = network.items.probabilities(location, spread)
    torch.testing.assert_close(probability.sum(dim=-1), torch.ones(500, len(SPEC.items)), atol=1e-5, rtol=0)
    every = [network.items.log_prob(location, spread, torch.full(location.shape, k)) for k in range(3)]
    loose = torch.logsumexp(torch.stack(every), dim=0)[:, -2:]
    torch.testing.assert_close(loose, torch.zeros_like(loose), atol=1e-4, rtol=0)
