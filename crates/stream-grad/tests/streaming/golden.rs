//! Every operator against values that PyTorch computed in f64 (`golden/operators.py`), whole and in small tiles.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use serde_json::Value;
use stream_grad::{
    AlignCorners, Conv2d, ConvTranspose2d, CountIncludePad, Gelu, InputGradient, Layer, Net,
    NetBuilder, Padding, PlanRequest, Pool2d,
};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/data")
        .join(name)
}

/// One case of `operators.json` with its tensors.
struct Case {
    name: String,
    operator: String,
    options: Value,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    fn number(&self, option: &str) -> usize {
        usize::try_from(self.options[option].as_u64().unwrap()).unwrap()
    }

    fn numbers(&self, option: &str) -> Vec<usize> {
        let list = self.options[option].as_array().unwrap();
        list.iter()
            .map(|value| usize::try_from(value.as_u64().unwrap()).unwrap())
            .collect()
    }

    fn pair(&self, option: &str) -> [usize; 2] {
        self.numbers(option).try_into().unwrap()
    }

    /// Top, bottom, left, right.
    fn padding(&self) -> Padding {
        let [top, bottom, left, right] = self.numbers("padding").try_into().unwrap();
        Padding {
            top,
            bottom,
            left,
            right,
        }
    }

    /// Average pooling has none.
    fn dilation(&self) -> [usize; 2] {
        match self.options.get("dilation") {
            Some(_) => self.pair("dilation"),
            None => [1, 1],
        }
    }

    fn epsilon(&self) -> f64 {
        self.options["epsilon"].as_f64().unwrap()
    }

    /// The image: the input, and for merges the other input behind it along the channels.
    fn image(&self) -> Tensor {
        match self.tensors.get("other") {
            Some(other) => Tensor::cat(&[&self.tensors["input"], other], 1).unwrap(),
            None => self.tensors["input"].clone(),
        }
    }
}

fn cases() -> Vec<Case> {
    let list: Vec<Value> =
        serde_json::from_slice(&std::fs::read(data("operators.json")).unwrap()).unwrap();
    let all = candle_core::safetensors::load(data("operators.safetensors"), &Device::Cpu).unwrap();
    list.into_iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            let name = text("name");
            let tensors = entry["tensors"].as_array().unwrap().iter().map(|tensor| {
                let tensor = tensor.as_str().unwrap();
                let value = all[&format!("{name}/{tensor}")]
                    .to_dtype(DType::F64)
                    .unwrap();
                (tensor.to_owned(), value)
            });
            Case {
                tensors: tensors.collect(),
                operator: text("operator"),
                options: entry["options"].clone(),
                name,
            }
        })
        .collect()
}

/// Picks `channels` from `first` on by a 1x1 convolution of zeros and ones: exact.
fn pick(
    net: &mut NetBuilder,
    first: usize,
    count: usize,
    total: usize,
    name: &str,
    vb: &VarBuilder<'_>,
) -> Layer {
    let values: Vec<f64> = (0..count * total)
        .map(|index| {
            if index % total == first + index / total {
                1.0
            } else {
                0.0
            }
        })
        .collect();
    let weight = Tensor::from_vec(values, (count, total, 1, 1), &Device::Cpu).unwrap();
    let constants = HashMap::from([(format!("{name}.weight"), weight)]);
    let vb = VarBuilder::from_tensors(constants, vb.dtype(), vb.device());
    net.conv2d(
        net.input(),
        Conv2d::new(total, count, 1).without_bias(),
        vb.pp(name),
    )
    .unwrap()
}

fn build(case: &Case, vb: &VarBuilder<'_>) -> Net {
    let channels = case.tensors["input"].dims()[1];
    let total = case.image().dims()[1];
    let mut net = NetBuilder::new(total);
    let x = net.input();
    let vb = vb.clone();
    let y = match case.operator.as_str() {
        "conv" => {
            let same = case.options["padding"] == "same";
            let config = Conv2d {
                in_channels: channels,
                out_channels: case.number("out_channels"),
                kernel: case.pair("kernel"),
                stride: case.pair("stride"),
                dilation: case.pair("dilation"),
                padding: if same {
                    Padding::all(0)
                } else {
                    case.padding()
                },
                groups: case.number("groups"),
                bias: case.tensors.contains_key("bias"),
            };
            let config = if same { config.padding_same() } else { config };
            net.conv2d(x, config, vb)
        }
        "conv_transpose" => {
            let config = ConvTranspose2d {
                in_channels: channels,
                out_channels: case.number("out_channels"),
                kernel: case.pair("kernel"),
                stride: case.pair("stride"),
                dilation: case.pair("dilation"),
                padding: case.padding(),
                output_padding: case.pair("output_padding"),
                groups: case.number("groups"),
                bias: case.tensors.contains_key("bias"),
            };
            net.conv_transpose2d(x, config, vb)
        }
        "max_pool" | "avg_pool" => {
            let pool = Pool2d {
                kernel: case.pair("kernel"),
                stride: case.pair("stride"),
                dilation: case.dilation(),
                padding: case.padding(),
                ceil_mode: case.options["ceil_mode"] == true,
            };
            match case.options["count_include_pad"].as_bool() {
                None => net.max_pool2d(x, pool),
                Some(true) => net.avg_pool2d(x, pool, CountIncludePad::Yes),
                Some(false) => net.avg_pool2d(x, pool, CountIncludePad::No),
            }
        }
        "relu" => net.relu(x),
        "relu6" => net.relu6(x),
        "sigmoid" => net.sigmoid(x),
        "silu" => net.silu(x),
        "gelu" if case.options["approximate"] == "none" => net.gelu(x, Gelu::Exact),
        "gelu" => net.gelu(x, Gelu::Tanh),
        "layer_norm" => net.layer_norm(x, case.epsilon(), vb),
        "frozen_batch_norm" => net.frozen_batch_norm(x, case.epsilon(), vb),
        "scale" => net.scale(x, 1.0, vb),
        "layer_scale" => net.layer_scale(x, 1.0, vb),
        "add" | "multiply" | "concat" => {
            let left = pick(&mut net, 0, channels, total, "left", &vb);
            let right = pick(&mut net, channels, total - channels, total, "right", &vb);
            match case.operator.as_str() {
                "add" => net.add(left, right),
                "multiply" => net.multiply(left, right),
                _ => net.concat(&[left, right]),
            }
        }
        "upsample_nearest" => net.upsample_nearest(x, case.number("factor")),
        "upsample_bilinear" => {
            let aligned = case.options["align_corners"].as_bool().unwrap();
            let corners = if aligned {
                AlignCorners::Yes
            } else {
                AlignCorners::No
            };
            net.upsample_bilinear(x, case.number("factor"), corners)
        }
        other => panic!("{}: no test for operator {other}", case.name),
    };
    net.build(y.unwrap()).unwrap()
}

fn assert_equal(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(
        found.elem_count(),
        expected.elem_count(),
        "{what}: sizes differ"
    );
    let list = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for (index, (found, expected)) in list(found).iter().zip(&list(expected)).enumerate() {
        let same = (found.is_nan() && expected.is_nan())
            || found == expected
            || (found - expected).abs() <= 1e-12 * (1.0 + expected.abs());
        assert!(same, "{what}[{index}]: expected {expected}, found {found}");
    }
}

#[test]
fn every_operator_agrees_with_pytorch_whole_and_streamed() {
    let cases = cases();
    assert!(cases.len() > 120, "only {} golden cases", cases.len());
    for case in &cases {
        let variables = VarMap::new();
        for (name, value) in &case.tensors {
            if matches!(
                name.as_str(),
                "weight" | "bias" | "running_mean" | "running_var" | "layer_scale"
            ) {
                let var = candle_core::Var::from_tensor(value).unwrap();
                variables.data().lock().unwrap().insert(name.clone(), var);
            }
        }
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
        let net = build(case, &vb);
        let image = case.image();
        let (batch, _, height, width) = image.dims4().unwrap();
        let request = PlanRequest::new(height as u64, width as u64)
            .batch(batch)
            .dtype(DType::F64)
            .input_gradient(InputGradient::Wanted);
        for tile in [1 << 20, 5, 3, 1] {
            let plan = net.plan(request.clone().tile(tile)).unwrap();
            let what = |part: &str| format!("{}, tile {tile}: {part}", case.name);
            let (y, residuals) = plan.forward(&image).unwrap();
            assert_equal(&what("y"), &y, &case.tensors["y"]);
            let (store, x_bar) = plan
                .vjp_with_input(residuals, &[case.tensors["y_bar"].clone()])
                .unwrap();
            let expected = match case.tensors.get("other_bar") {
                Some(other) => Tensor::cat(&[&case.tensors["input_bar"], other], 1).unwrap(),
                None => case.tensors["input_bar"].clone(),
            };
            assert_equal(&what("input_bar"), &x_bar, &expected);
            for parameter in net
                .parameters()
                .iter()
                .filter(|parameter| parameter.trainable)
            {
                let gradient = store.get(&parameter.tensor).unwrap();
                let name = format!("{}_bar", parameter.name);
                assert_equal(&what(&name), gradient, &case.tensors[&name]);
            }
        }
    }
}
