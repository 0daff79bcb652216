"""Spline-linear layers: the splines, the grid that follows the data, and the curves that stay."""

from __future__ import annotations

import pytest
import torch
from scipy.interpolate import BSpline

from monai_spine.networks.architectures import build_network
from monai_spine.networks.kan import SplineLinear


def spread(count: int, low: float, high: float, inputs: int = 3) -> torch.Tensor:
    return torch.linspace(low, high, count)[:, None].repeat(1, inputs)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_splines_sum_to_one_on_the_grid_and_vanish_far_from_it(order: int) -> None:
    layer = SplineLinear(3, 2, order=order)
    layer.update_grid(torch.randn(50, 3))
    ends = layer.knots[:, [order, -order - 1]]
    inside = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * torch.linspace(0, 0.999, 40)
    basis = layer.basis(inside.T)
    assert basis.shape == (40, 3, 5 + order)
    assert (basis >= 0).all()
    torch.testing.assert_close(basis.sum(dim=2), torch.ones(40, 3))
    assert not layer.basis(torch.full((1, 3), 100.0)).any()


def test_splines_are_scipy_s() -> None:
    layer = SplineLinear(2, 1, intervals=4)
    layer.update_grid(torch.randn(50, 2))
    at = spread(30, -2, 2, inputs=2)
    for index in range(2):
        knots = layer.knots[index].double().numpy()
        for place in range(7):
            element = BSpline.basis_element(knots[place : place + 5], extrapolate=False)(at[:, index].double().numpy())
            expected = torch.from_numpy(element).nan_to_num().float()
            torch.testing.assert_close(layer.basis(at)[:, index, place], expected, rtol=1e-4, atol=1e-5)


def test_a_layer_is_silu_and_curves_and_a_bias() -> None:
    layer = SplineLinear(3, 2, intervals=4, order=2)
    assert sum(weight.numel() for weight in layer.parameters()) == 3 * 2 * (4 + 2) + 3 * 2 + 2
    x = torch.rand(5, 3) - 0.5
    curves = torch.einsum("nib,oib->no", layer.basis(x), layer.coefficients)
    expected = torch.nn.functional.silu(x) @ layer.base.weight.T + layer.base.bias + curves
    torch.testing.assert_close(layer.eval()(x), expected)


def test_the_grid_lies_where_the_data_lie_and_is_denser_where_they_are() -> None:
    layer = SplineLinear(1, 1, intervals=4)
    data = torch.cat((torch.linspace(2, 3, 90), torch.linspace(3, 10, 10)))[:, None]
    layer.update_grid(data)
    grid = layer.knots[0, 3:-3]
    assert grid[0] < 2 < 10 < grid[-1]
    assert grid[-1] - grid[0] < 10
    assert grid.diff()[0] < 0.5 * grid.diff()[-1]


def test_a_new_grid_keeps_a_cubic_and_nearly_keeps_any_curve() -> None:
    torch.manual_seed(0)
    layer, at = SplineLinear(3, 2).eval(), spread(100, -0.9, 0.9)
    cubic = (at - 0.5 * at**3)[:, 0]
    fitted = torch.linalg.lstsq(layer.basis(at)[:, 0], cubic[:, None]).solution[:, 0]
    with torch.no_grad():
        layer.coefficients.copy_(fitted.expand(2, 3, -1))
        before = layer(at)
        layer.update_grid(0.6 * torch.rand(200, 3) - 0.2)
        inside = at[(at[:, 0] > -0.2) & (at[:, 0] < 0.4)]
        torch.testing.assert_close(layer(inside), before[(at[:, 0] > -0.2) & (at[:, 0] < 0.4)], rtol=1e-3, atol=1e-4)

        layer = SplineLinear(3, 2).eval()
        layer.coefficients.normal_()
        before = layer(at)
        layer.update_grid(at)
        assert not torch.equal(layer.knots, SplineLinear(3, 2).knots)
        assert (layer(at) - before).pow(2).mean().sqrt() < 0.1 * before.std()


def test_the_grid_moves_in_training_at_powers_of_two_and_never_at_work() -> None:
    layer = SplineLinear(2, 2, updates=3)
    moved = []
    for step in range(1, 10):
        before = layer.knots.clone()
        layer(torch.randn(20, 2))
        moved += [step] * (not torch.equal(before, layer.knots))
    assert moved == [1, 2, 4]
    before = layer.knots.clone()
    layer.eval()(torch.randn(20, 2))
    assert torch.equal(before, layer.knots)
    again = SplineLinear(2, 2)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.knots, before)
    assert int(again.steps) == 9


@pytest.mark.parametrize("data", [torch.zeros(4, 2), torch.ones(1, 2), torch.full((3, 2), -50.0)])
def test_data_without_spread_leave_a_grid_that_can_be_used(data: torch.Tensor) -> None:
    layer = SplineLinear(2, 2)
    layer.update_grid(data)
    assert (layer.knots.diff(dim=1) > 0).all()
    assert layer.eval()(data).isfinite().all()


def test_a_grid_follows_in_mixed_precision_with_all_its_digits() -> None:
    layer, x = SplineLinear(4, 2), torch.randn(30, 4)
    other = SplineLinear(4, 2)
    other.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    other(x)
    assert torch.equal(layer.knots, other.knots)
    torch.testing.assert_close(layer.coefficients, other.coefficients, atol=1e-5, rtol=0)  # half precision: 1e-3 off


def test_a_layer_without_a_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 interval and order 1, got 0 and 3"):
        SplineLinear(2, 2, intervals=0)


def test_what_the_splines_of_ckan_are_given_keeps_its_scale_however_large_the_weights_before_them() -> None:
    network = build_network("ckan", shape=[32, 32], spatial_dims=2, out_channels=3, dropout_prob=0.0).eval()
    seen: list[torch.Tensor] = []
    spline = next(module for module in network.modules() if isinstance(module, SplineLinear))
    spline.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    linear = next(module for module in network.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        linear.weight *= 50
        network(torch.rand(2, 1, 32, 32))
    torch.testing.assert_close(seen[0].std(dim=1, correction=0), torch.ones(2), rtol=0.01, atol=0.0)
