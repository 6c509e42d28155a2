//! Pseudo-random numbers that Python and Rust make bit for bit alike.
//!
//! Every value is a function of a name, so golden files need not hold the inputs. `golden/README.md` in the repository
//! defines the generator; `golden/generator.py` is the reference.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;

const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// 64-bit FNV-1a hash of the name's bytes.
pub const fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut state = FNV_OFFSET;
    let mut index = 0;
    while index < bytes.len() {
        state = (state ^ bytes[index] as u64).wrapping_mul(FNV_PRIME);
        index += 1;
    }
    state
}

/// The 64-bit integers of a name, in order, without end: splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom
/// Number Generators", OOPSLA 2014) from the name's hash.
///
/// ```
/// use stream_grad_models::generator::integers;
/// assert_eq!(integers("resnet18/conv1.weight").next(), Some(0xb99c_9a75_ce62_5f53));
/// ```
pub fn integers(name: &str) -> impl Iterator<Item = u64> + use<> {
    let mut state = hash(name);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(GOLDEN_RATIO);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Multiples of 2^-23 in [-1, 1), exact in `f32`.
pub fn uniform(name: &str) -> impl Iterator<Item = f64> + use<> {
    const UNIT: f64 = 8_388_608.0;
    #[expect(clippy::cast_precision_loss, reason = "24 bits are exact")]
    integers(name).map(|integer| ((integer >> 40) as f64 - UNIT) / UNIT)
}

/// `count` positions in a vector of `length` values, repeats allowed; empty where `length` is 0.
pub fn indices(name: &str, length: usize, count: usize) -> Vec<usize> {
    let modulus = length as u64;
    integers(name)
        .take(if length == 0 { 0 } else { count })
        .map(|integer| usize::try_from(integer % modulus).unwrap_or(0))
        .collect()
}

/// [`uniform`] as a tensor of `shape` in `f64`, filled in the order of memory.
///
/// # Errors
/// A shape whose product overflows.
pub fn uniform_tensor(name: &str, shape: &[usize]) -> Result<Tensor> {
    let length = shape.iter().product();
    let values: Vec<f64> = uniform(name).take(length).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The golden files' value of a network's parameter or running statistic, in `f32`.
///
/// `network` is the golden files' name of the network (`resnet18`, `resnet18_eighth`, `numerics`, …), `name` the
/// parameter's (`layer1.0.conv1.weight`). Four-dimensional weights are `[out, in / groups, rows, columns]`.
///
/// # Errors
/// A shape whose product overflows.
pub fn parameter(network: &str, name: &str, shape: &[usize]) -> Result<Tensor> {
    let uniform = uniform(&format!("{network}/{name}"));
    #[expect(
        clippy::cast_precision_loss,
        reason = "a kernel has fewer than 2^53 values"
    )]
    let fan_in = shape.iter().skip(1).product::<usize>() as f64;
    let published = network == "numerics";
    let value = |u: f64| match shape.len() {
        4 if published => 2.5 * u / fan_in.sqrt(),
        _ if published => 0.0,
        4 => u * (6.0 / fan_in).sqrt(),
        _ if name.ends_with("running_var") => 1.0 + 0.5 * u,
        _ if name.ends_with("weight") => 1.0 + 0.25 * u,
        _ => 0.1 * u,
    };
    let values: Vec<f64> = uniform.take(shape.iter().product()).map(value).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of `golden/README.md`.
    #[test]
    fn agrees_with_the_reference() {
        let name = "resnet18/conv1.weight";
        let expected = [
            0xb99c_9a75_ce62_5f53,
            0x595a_bf98_2fcf_b4cb,
            0x7f9c_1e8a_e6bc_4881,
        ];
        assert!(integers(name).take(3).eq(expected));
        let scaled: Vec<f64> = uniform(name).take(3).map(|u| u * 8_388_608.0).collect();
        assert_eq!(scaled, [3_775_642.0, -2_532_673.0, -25_570.0]);
        assert_eq!(hash(""), FNV_OFFSET);
    }

    #[test]
    fn positions_lie_in_the_vector() {
        assert!(indices("any", 0, 5).is_empty());
        assert_eq!(indices("any", 1, 3), [0, 0, 0]);
        assert!(indices("any", 7, 100).iter().all(|&index| index < 7));
    }
}
