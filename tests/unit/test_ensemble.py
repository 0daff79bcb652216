"""Networks that answer as one."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from monai_spine.ensemble import Ensemble, joined_state, mean_logits


def member(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3))


IMAGES = torch.linspace(-2, 2, 16).reshape(2, 1, 2, 2, 2)


def test_the_softmax_of_the_answer_is_the_mean_of_the_members_probabilities() -> None:
    members = [member(seed) for seed in range(3)]
    answer = torch.softmax(Ensemble(members).eval()(IMAGES), dim=1)
    mean = torch.stack([torch.softmax(one(IMAGES), dim=1) for one in members]).mean(dim=0)
    torch.testing.assert_close(answer, mean)


def test_one_doubtful_member_does_not_undo_a_sure_one_as_a_mean_of_logits_would() -> None:
    answers = torch.tensor([[[100.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    assert torch.softmax(mean_logits(answers), dim=1)[0, 0] == pytest.approx((1 + 0.2119) / 2, abs=1e-3)


def test_the_weights_of_members_become_those_of_the_ensemble_that_a_config_names() -> None:
    linear = {"_target_": "torch.nn.Linear", "in_features": 8, "out_features": 3}
    parser = ConfigParser(
        {"member": linear, "net": {"_target_": "monai_spine.ensemble.Ensemble", "members": ["%member", "%member"]}}
    )
    ensemble = parser.get_parsed_content("net").eval()
    members = [torch.nn.Linear(8, 3) for _ in range(2)]
    ensemble.load_state_dict(joined_state([one.state_dict() for one in members]))
    image = torch.linspace(-1, 1, 8)[None]
    torch.testing.assert_close(ensemble(image), mean_logits(torch.stack([one(image) for one in members])))


def test_each_head_has_probabilities_of_its_own() -> None:
    members = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 5)) for _ in range(2)]
    answer = Ensemble(members, heads=[3, 2]).eval()(IMAGES)
    for head in (slice(0, 3), slice(3, 5)):
        mean = torch.stack([torch.softmax(one(IMAGES)[:, head], dim=1) for one in members]).mean(dim=0)
        torch.testing.assert_close(torch.softmax(answer[:, head], dim=1), mean)


@pytest.mark.parametrize("heads", [None, [1, 2]])
def test_it_can_be_exported(heads: list[int] | None) -> None:
    ensemble = Ensemble([member(0), member(1)], heads=heads).eval()
    torch.testing.assert_close(torch.jit.script(ensemble)(IMAGES), ensemble(IMAGES))


def test_a_config_that_names_one_instance_twice_is_refused() -> None:
    one = member(0)
    with pytest.raises(ValueError, match=r'got 2 of which 1 differ.*"%member", which copies'):
        Ensemble([one, one])
    with pytest.raises(ValueError, match="got 0"):
        Ensemble([])
