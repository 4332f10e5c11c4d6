"""What ``skmm.nets`` exports exists."""

from fusion_modules import FUSION_MODULES

from skmm import nets


def test_public_names_exist():
    assert len(nets.__all__) == len(set(nets.__all__))
    for name in nets.__all__:
        assert hasattr(nets, name)


def test_the_table_of_the_tests_holds_every_network_of_a_strategy():
    exported = [getattr(nets, name) for name in nets.__all__]
    networks = {
        value
        for value in exported
        if isinstance(value, type) and issubclass(value, nets.FusionModule)
    }
    assert networks - {nets.FusionModule} == set(FUSION_MODULES.values())
