//! The published method's probe of ones against the derived borders.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the tests of networks")]
mod common;

use candle_core::{DType, Device, Tensor};
use common::{network, values};
use stream_grad::PlanRequest;
use stream_grad::tiling::{Axis, Fraction, LostBorder, NodeId, PublishedBorders, ReceptiveField};
use stream_grad_models::{ModelName, ResNetConfig, ResNetName};

const TILE: u64 = 512;

fn resnet18() -> stream_grad::Net {
    // Weights of ones, as in the probe of github.com/DIAGNijmegen/StreamingCNN, scaled to keep values near one. Norms do nothing.
    network(
        |vb| ResNetConfig::resnet18().base_width(1).build(vb),
        |name, shape| {
            let fan_in: usize = shape.iter().skip(1).product();
            let value = match shape.len() {
                4 => 1.0 / f64::from(u32::try_from(fan_in).unwrap()),
                _ if name.ends_with("running_mean") || name.ends_with("bias") => 0.0,
                _ => 1.0,
            };
            Tensor::full(value, shape, &Device::Cpu).unwrap()
        },
    )
}

/// Positions at the beginning and end of a line that differ from its middle by more than rounding.
fn differing(line: &[f64]) -> LostBorder {
    let middle = line[line.len() / 2];
    let clean = |value: &&f64| (*value - middle).abs() <= 1e-13 * middle.abs();
    let inside = line.iter().filter(clean).count();
    let lo = line.iter().take_while(|value| !clean(value)).count();
    let hi = line.iter().rev().take_while(|value| !clean(value)).count();
    assert_eq!(
        lo + inside + hi,
        line.len(),
        "the clean positions are one run: {line:?}"
    );
    assert!(inside > 0 && middle > 0.0);
    LostBorder {
        lo: lo as u64,
        hi: hi as u64,
    }
}

#[test]
fn a_probe_of_ones_sees_the_derived_output_border() {
    let net = resnet18();
    let plan = net
        .plan(PlanRequest::new(TILE, TILE).dtype(DType::F64).tile(128))
        .unwrap();
    let edge = usize::try_from(TILE).unwrap();
    let ones = Tensor::ones((1, 3, edge, edge), DType::F64, &Device::Cpu).unwrap();
    let (y, _) = plan.forward(&ones).unwrap();
    let channel = y.get(0).unwrap().get(0).unwrap();
    let middle = channel.dims()[0] / 2;
    let seen = [
        differing(&values(&channel.narrow(1, middle, 1).unwrap())),
        differing(&values(&channel.get(middle).unwrap())),
    ];
    let sized = net.sized_graph(TILE, TILE).unwrap();
    let derived = PublishedBorders::exact(&sized).output;
    assert_eq!(seen, [derived[Axis::Rows], derived[Axis::Columns]]);
    // Top and left 7, bottom and right 6: what lightstream 1.0.7 loses, too.
    assert_eq!(seen, [LostBorder { lo: 7, hi: 6 }; 2]);
    let observed = ModelName::ResNet(ResNetName::ResNet18)
        .observed_borders()
        .unwrap()
        .borders;
    assert_eq!(observed.output, derived);
}

#[test]
fn the_receptive_field_of_resnet18_is_435() {
    let sized = resnet18().sized_graph(2048, 2048).unwrap();
    let output = NodeId(sized.graph().nodes().len() - 1);
    for axis in Axis::BOTH {
        let field = ReceptiveField::of(&sized, axis, output);
        assert_eq!((field.extent, field.stride), (435, Fraction::new(32, 1)));
    }
    // The exact gradient border is smaller than what the published probe loses.
    let exact = PublishedBorders::exact(&sized).gradient;
    let observed = ModelName::ResNet(ResNetName::ResNet18)
        .observed_borders()
        .unwrap()
        .borders
        .gradient;
    for axis in Axis::BOTH {
        assert!(
            exact[axis].lo < observed[axis].lo && exact[axis].hi < observed[axis].hi,
            "{:?}",
            exact[axis]
        );
    }
}
