from tscope_format.tensors import table

from tscope.analyses.layers import layers


def test_parameters_are_grouped_by_the_module_that_holds_them():
    names = ["scale", "net.0.weight", "net.0.bias", "head.weight"]
    entries = table((name, (2,), "float32", (), True) for name in names)
    assert layers(entries) == {
        "scale": ("scale",),
        "net.0": ("net.0.weight", "net.0.bias"),
        "head": ("head.weight",),
    }


def test_a_tied_parameter_belongs_to_its_first_name():
    entries = table([("embed.weight", (2,), "float32", ("head.weight",), True)])
    assert layers(entries) == {"embed": ("embed.weight",)}
