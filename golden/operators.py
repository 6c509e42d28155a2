"""Single operators in f64: value and vector-Jacobian product for a generated cotangent, on tiny awkward shapes."""

import itertools

import torch
import torch.nn.functional as F

import generator


def generated(name, shape):
    return torch.from_numpy(generator.uniform(name, shape))


def pad(x, padding, value=0.0):
    """Pads by [top, bottom, left, right]."""
    top, bottom, left, right = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def case(cases, tensors, name, operator, options, inputs, function, special=None):
    """Runs one case. `inputs` maps names to shapes, `special` replaces entries: {tensor: [(index, value), ...]}."""
    values = {}
    for tensor, shape in inputs.items():
        value = generated(f"operators/{name}/{tensor}", shape)
        if tensor == "running_var":
            value = 1.0 + 0.5 * value
        for index, replacement in (special or {}).get(tensor, []):
            value[index] = replacement
        values[tensor] = value
    constant = {"running_mean", "running_var"}
    leaves = {tensor: value.clone().requires_grad_(tensor not in constant) for tensor, value in values.items()}
    y = function(**leaves)
    y_bar = generated(f"operators/{name}/y_bar", tuple(y.shape))
    wanted = [tensor for tensor in leaves if tensor not in constant]
    gradients = torch.autograd.grad(y, [leaves[tensor] for tensor in wanted], y_bar)
    values["y"], values["y_bar"] = y.detach(), y_bar
    values.update({f"{tensor}_bar": gradient for tensor, gradient in zip(wanted, gradients, strict=True)})
    cases.append({"name": name, "operator": operator, "options": options, "tensors": sorted(values)})
    tensors.update({f"{name}/{tensor}": value.clone(memory_format=torch.contiguous_format) for tensor, value in values.items()})


def convolutions(cases, tensors):
    one, none = [1, 1], [0, 0, 0, 0]
    table = [  # name, [N, C, H, W], out_channels, kernel, stride, dilation, padding (top, bottom, left, right), groups, bias
        ("conv_1x1", [2, 3, 5, 4], 4, [1, 1], one, one, none, 1, True),
        ("conv_1x1_stride2", [1, 3, 6, 5], 4, [1, 1], [2, 2], one, none, 1, False),
        ("conv_3x3", [1, 3, 7, 6], 5, [3, 3], one, one, none, 1, True),
        ("conv_3x3_pad1", [2, 2, 6, 9], 3, [3, 3], one, one, [1, 1, 1, 1], 1, False),
        ("conv_3x3_stride2_pad1", [1, 4, 9, 8], 3, [3, 3], [2, 2], one, [1, 1, 1, 1], 1, True),
        ("conv_7x7_stride2_pad3", [1, 3, 13, 11], 4, [7, 7], [2, 2], one, [3, 3, 3, 3], 1, False),
        ("conv_rectangular", [1, 2, 8, 9], 3, [2, 5], [3, 1], one, [0, 0, 2, 2], 1, True),
        ("conv_column", [1, 2, 9, 4], 3, [5, 1], [1, 2], [2, 1], [4, 4, 0, 0], 1, False),
        ("conv_dilated", [1, 2, 11, 12], 2, [3, 3], one, [2, 3], [2, 2, 3, 3], 1, True),
        ("conv_dilated_strided", [1, 2, 14, 13], 2, [3, 2], [2, 3], [3, 2], [1, 2, 0, 3], 1, False),
        ("conv_asymmetric", [1, 3, 6, 7], 2, [4, 4], one, one, [2, 1, 0, 3], 1, True),
        ("conv_asymmetric_strided", [2, 2, 7, 8], 3, [3, 4], [2, 3], one, [0, 1, 3, 1], 1, True),
        ("conv_stride_exceeds_kernel", [1, 2, 11, 10], 3, [2, 2], [4, 3], one, none, 1, True),
        ("conv_kernel_exceeds_image", [1, 2, 2, 3], 3, [5, 5], one, one, [2, 2, 2, 2], 1, True),
        ("conv_window_all_padding", [1, 2, 3, 3], 2, [2, 2], one, one, [3, 0, 0, 3], 1, True),
        ("conv_groups", [1, 6, 6, 7], 4, [3, 3], one, one, [1, 1, 1, 1], 2, True),
        ("conv_groups_strided", [1, 6, 7, 6], 9, [3, 3], [2, 2], one, [1, 0, 1, 0], 3, False),
        ("conv_depthwise", [1, 5, 7, 6], 5, [3, 3], one, one, [1, 1, 1, 1], 5, True),
        ("conv_depthwise_multiplier", [1, 3, 7, 8], 6, [5, 3], [2, 1], [1, 2], [2, 2, 2, 2], 3, False),
        ("conv_one_pixel", [1, 3, 1, 1], 4, [1, 1], one, one, none, 1, True),
        ("conv_17_to_33", [1, 17, 5, 6], 33, [2, 3], one, one, [1, 0, 1, 1], 1, True),
    ]
    for name, shape, out_channels, kernel, stride, dilation, padding, groups, bias in table:
        options = {
            "out_channels": out_channels, "kernel": kernel, "stride": stride, "dilation": dilation,
            "padding": padding, "groups": groups, "bias": bias,
        }  # fmt: skip
        inputs = {"input": shape, "weight": [out_channels, shape[1] // groups, *kernel]}
        if bias:
            inputs["bias"] = [out_channels]

        def function(input, weight, bias=None, p=padding, s=stride, d=dilation, g=groups):
            return F.conv2d(pad(input, p), weight, bias, stride=s, dilation=d, groups=g)

        case(cases, tensors, name, "conv", options, inputs, function)
    for name, kernel, dilation in [("even", [4, 2], [1, 1]), ("odd", [3, 5], [1, 1]), ("dilated", [2, 3], [3, 2])]:
        options = {"out_channels": 2, "kernel": kernel, "stride": one, "dilation": dilation, "padding": "same", "groups": 1, "bias": False}  # fmt: skip

        def same(input, weight, d=dilation):
            return F.conv2d(input, weight, padding="same", dilation=d)

        case(cases, tensors, f"conv_same_{name}", "conv", options, {"input": [1, 2, 5, 6], "weight": [2, 2, *kernel]}, same)


def transposed_convolutions(cases, tensors):
    one, none = [1, 1], [0, 0]
    table = [  # name, [N, C, H, W], out_channels, kernel, stride, dilation, padding, output_padding, groups, bias
        ("conv_transpose_2x2_stride2", [2, 3, 4, 5], 4, [2, 2], [2, 2], one, none, none, 1, True),
        ("conv_transpose_3x3", [1, 3, 5, 4], 2, [3, 3], one, one, [1, 1], none, 1, False),
        ("conv_transpose_4x4_stride2_pad1", [1, 2, 4, 5], 3, [4, 4], [2, 2], one, [1, 1], none, 1, True),
        ("conv_transpose_output_padding", [1, 2, 4, 3], 3, [3, 3], [2, 2], one, [1, 1], [1, 0], 1, True),
        ("conv_transpose_rectangular", [1, 2, 3, 5], 3, [1, 4], [1, 3], one, [0, 2], none, 1, False),
        ("conv_transpose_dilated", [1, 2, 4, 4], 2, [3, 2], [2, 1], [2, 3], [1, 0], [1, 2], 1, True),
        ("conv_transpose_groups", [1, 4, 3, 4], 6, [3, 3], [2, 2], one, [1, 1], [1, 1], 2, True),
        ("conv_transpose_depthwise", [1, 3, 4, 3], 3, [2, 3], [2, 2], one, none, none, 3, False),
        ("conv_transpose_stride_exceeds_kernel", [1, 2, 3, 4], 2, [2, 1], [3, 2], one, none, [1, 1], 1, True),
        ("conv_transpose_one_pixel", [1, 3, 1, 1], 2, [2, 2], [2, 2], one, none, none, 1, True),
        ("conv_transpose_18_to_17", [1, 18, 3, 4], 17, [2, 2], [2, 2], one, none, none, 1, True),
    ]
    for name, shape, out_channels, kernel, stride, dilation, padding, output_padding, groups, bias in table:
        options = {
            "out_channels": out_channels, "kernel": kernel, "stride": stride, "dilation": dilation,
            "padding": [padding[0], padding[0], padding[1], padding[1]], "output_padding": output_padding, "groups": groups,
            "bias": bias,
        }  # fmt: skip
        inputs = {"input": shape, "weight": [shape[1], out_channels // groups, *kernel]}
        if bias:
            inputs["bias"] = [out_channels]

        def function(input, weight, bias=None, s=stride, p=padding, o=output_padding, d=dilation, g=groups):
            return F.conv_transpose2d(input, weight, bias, stride=s, padding=p, output_padding=o, groups=g, dilation=d)

        case(cases, tensors, name, "conv_transpose", options, inputs, function)


def max_pools(cases, tensors):
    nan, low = float("nan"), float("-inf")
    ties = [((0, 0), torch.tensor([[1.0, 1, 1, 0, 2], [1, 1, 1, 2, 2], [0, 0, 0, 0, 0], [3, -1, 3, -0.0, 0], [3, 3, 3, 0, -0.0]]))]
    table = [  # name, shape, kernel, stride, dilation, padding, replaced entries of the input
        ("max_pool_2x2", [2, 3, 6, 4], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], []),
        ("max_pool_2x2_ragged", [1, 2, 7, 5], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], []),
        ("max_pool_3x3_stride2_pad1", [1, 3, 9, 8], [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], []),
        ("max_pool_overlapping", [1, 2, 6, 7], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], []),
        ("max_pool_rectangular", [1, 2, 8, 9], [1, 4], [2, 3], [1, 1], [0, 0, 2, 2], []),
        ("max_pool_dilated", [1, 2, 9, 8], [3, 2], [2, 1], [2, 3], [1, 1, 1, 1], []),
        ("max_pool_asymmetric", [1, 2, 6, 7], [3, 3], [2, 2], [1, 1], [0, 1, 1, 0], []),
        ("max_pool_stride_exceeds_kernel", [1, 2, 9, 10], [2, 2], [3, 4], [1, 1], [0, 0, 0, 0], []),
        ("max_pool_ties", [1, 1, 5, 5], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], ties),
        ("max_pool_ties_2x2", [1, 1, 5, 5], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], ties),
        ("max_pool_nan", [1, 2, 6, 7], [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [((0, 0, 2, 3), nan), ((0, 1, 0, 0), nan)]),
        ("max_pool_several_nan", [1, 1, 5, 5], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], [((0, 0, 1, 1), nan), ((0, 0, 1, 2), nan), ((0, 0, 2, 1), nan)]),
        ("max_pool_infinities", [1, 1, 6, 6], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], [((0, 0, slice(0, 3), slice(0, 4)), low), ((0, 0, 4, 5), -low), ((0, 0, 5, 5), -low)]),
    ]  # fmt: skip
    for name, shape, kernel, stride, dilation, padding, replaced in table:
        symmetric = padding[0] == padding[1] and padding[2] == padding[3]

        def function(input, k=kernel, s=stride, d=dilation, p=padding, symmetric=symmetric):
            if symmetric:
                return F.max_pool2d(input, k, stride=s, padding=(p[0], p[2]), dilation=d)
            return F.max_pool2d(pad(input, p, float("-inf")), k, stride=s, dilation=d)

        options = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
        case(cases, tensors, name, "max_pool", options, {"input": shape}, function, {"input": replaced})


def average_pools(cases, tensors):
    table = [  # name, shape, kernel, stride, padding
        ("2x2", [2, 3, 6, 4], [2, 2], [2, 2], [0, 0, 0, 0]),
        ("2x2_ragged", [1, 2, 7, 5], [2, 2], [2, 2], [0, 0, 0, 0]),
        ("3x3_stride2_pad1", [1, 2, 7, 8], [3, 3], [2, 2], [1, 1, 1, 1]),
        ("overlapping", [1, 2, 5, 6], [3, 2], [1, 1], [1, 1, 1, 1]),
        ("asymmetric", [1, 2, 6, 7], [3, 4], [2, 3], [0, 2, 3, 1]),
        ("stride_exceeds_kernel", [1, 2, 9, 10], [2, 2], [3, 4], [0, 0, 0, 0]),
    ]
    for (name, shape, kernel, stride, padding), divisor in itertools.product(table, ["window_area", "valid_count"]):

        def function(input, k=kernel, s=stride, p=padding, divisor=divisor):
            mean = F.avg_pool2d(pad(input, p), k, stride=s)
            if divisor == "window_area":
                return mean
            return mean / F.avg_pool2d(pad(torch.ones_like(input), p), k, stride=s)

        options = {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": divisor == "window_area"}
        case(cases, tensors, f"avg_pool_{name}_{divisor}", "avg_pool", options, {"input": shape}, function)


def ceil_pools(cases, tensors):
    table = [  # name, shape, kernel, stride, padding
        ("2x2", [2, 2, 5, 7], [2, 2], [2, 2], [0, 0]),
        ("3x3_stride2", [1, 2, 6, 8], [3, 3], [2, 2], [0, 0]),
        ("3x3_stride2_pad1", [1, 2, 6, 7], [3, 3], [2, 2], [1, 1]),
        ("begins_in_the_padding", [1, 2, 4, 5], [2, 2], [3, 3], [1, 1]),
        ("rectangular", [1, 2, 8, 9], [2, 4], [3, 3], [0, 2]),
        ("leaves_nothing_over", [1, 2, 6, 4], [2, 2], [2, 2], [0, 0]),
    ]
    for name, shape, kernel, stride, padding in table:
        sides = [padding[0], padding[0], padding[1], padding[1]]
        options = {"kernel": kernel, "stride": stride, "dilation": [1, 1], "padding": sides, "ceil_mode": True}

        def maximum(input, k=kernel, s=stride, p=padding):
            return F.max_pool2d(input, k, stride=s, padding=p, ceil_mode=True)

        case(cases, tensors, f"max_pool_ceil_{name}", "max_pool", options, {"input": shape}, maximum)
        for divisor in ["window_area", "valid_count"]:

            def mean(input, k=kernel, s=stride, p=padding, include=divisor == "window_area"):
                return F.avg_pool2d(input, k, stride=s, padding=p, ceil_mode=True, count_include_pad=include)

            name_of_case = f"avg_pool_ceil_{name}_{divisor}"
            counts = {**options, "count_include_pad": divisor == "window_area"}
            case(cases, tensors, name_of_case, "avg_pool", counts, {"input": shape}, mean)


def pointwise(cases, tensors):
    kinks = [((0, 0, 0, 0), 0.0), ((0, 0, 0, 1), -0.0), ((0, 0, 0, 2), float("nan")), ((0, 0, 1, 0), float("inf")), ((0, 0, 1, 1), float("-inf"))]  # fmt: skip
    case(cases, tensors, "relu", "relu", {}, {"input": [1, 2, 4, 5]}, lambda input: F.relu(input), {"input": kinks})
    wide = [((0, 0, 0, slice(None)), torch.tensor([-30.0, -6.0, -3.0, 0.0, 30.0])), ((0, 0, 1, slice(None)), torch.tensor([3.0, 6.0, 1e-9, -1e-9, float("nan")]))]  # fmt: skip
    bends = [*kinks, ((0, 0, 1, 2), 6.0), ((0, 0, 1, 3), 7.5), ((0, 0, 1, 4), 5.5)]
    case(cases, tensors, "relu6", "relu6", {}, {"input": [1, 2, 4, 5]}, lambda input: F.relu6(input), {"input": bends})
    for name, function in [("sigmoid", torch.sigmoid), ("silu", F.silu)]:
        case(cases, tensors, name, name, {}, {"input": [1, 2, 4, 5]}, lambda input, f=function: f(input), {"input": wide})
    for approximate in ["none", "tanh"]:

        def gelu(input, approximate=approximate):
            return F.gelu(input, approximate=approximate)

        options = {"approximate": approximate}
        case(cases, tensors, f"gelu_{approximate}", "gelu", options, {"input": [1, 2, 4, 5]}, gelu, {"input": wide})
    for channels, epsilon in [(1, 1e-5), (3, 1e-5), (16, 1e-3), (37, 1e-6)]:

        def layer_norm(input, weight, bias, epsilon=epsilon):
            channels_last = input.permute(0, 2, 3, 1)
            return F.layer_norm(channels_last, weight.shape, weight, bias, epsilon).permute(0, 3, 1, 2)

        inputs = {"input": [2, channels, 3, 4], "weight": [channels], "bias": [channels]}
        case(cases, tensors, f"layer_norm_{channels}", "layer_norm", {"epsilon": epsilon}, inputs, layer_norm)

    def batch_norm(input, weight, bias, running_mean, running_var):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training=False, eps=1e-5)

    inputs = {"input": [2, 5, 3, 4], **{key: [5] for key in ["weight", "bias", "running_mean", "running_var"]}}
    case(cases, tensors, "batch_norm", "frozen_batch_norm", {"epsilon": 1e-5}, inputs, batch_norm)
    shape = [1, 3, 4, 5]
    case(cases, tensors, "scale", "scale", {}, {"input": shape, "weight": [1]}, lambda input, weight: input * weight)
    case(cases, tensors, "layer_scale", "layer_scale", {}, {"input": shape, "layer_scale": [3, 1, 1]}, lambda input, layer_scale: input * layer_scale)  # fmt: skip
    case(cases, tensors, "multiply", "multiply", {}, {"input": shape, "other": shape}, lambda input, other: input * other)
    case(cases, tensors, "add", "add", {}, {"input": shape, "other": shape}, lambda input, other: input + other)
    case(cases, tensors, "concat", "concat", {}, {"input": shape, "other": [1, 2, 4, 5]}, lambda input, other: torch.cat([input, other], 1))  # fmt: skip


def upsamples(cases, tensors):
    for (height, width), factor in itertools.product([(4, 5), (1, 3), (7, 1), (1, 1)], [1, 2, 3]):
        shape, suffix = [1, 2, height, width], f"{height}x{width}_by{factor}"

        def nearest(input, factor=factor):
            return F.interpolate(input, scale_factor=factor, mode="nearest")

        case(cases, tensors, f"upsample_nearest_{suffix}", "upsample_nearest", {"factor": factor}, {"input": shape}, nearest)  # fmt: skip
        for align_corners in [False, True]:
            size = (height * factor, width * factor)

            def bilinear(input, size=size, align_corners=align_corners):
                return F.interpolate(input, size=size, mode="bilinear", align_corners=align_corners)

            name = f"upsample_bilinear_{suffix}_{'corners' if align_corners else 'centres'}"
            options = {"factor": factor, "align_corners": align_corners}
            case(cases, tensors, name, "upsample_bilinear", options, {"input": shape}, bilinear)


def make():
    """All cases: their descriptions and their tensors, named `<case>/<tensor>`."""
    cases, tensors = [], {}
    for group in [convolutions, transposed_convolutions, max_pools, average_pools, ceil_pools, pointwise, upsamples]:
        group(cases, tensors)
    return cases, tensors
