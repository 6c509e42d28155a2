//! A family of plain networks for training on CPUs: convolutions of stride 2 and ReLUs, nothing else.

use candle_nn::VarBuilder;
use stream_grad::{Conv2d, Net, NetBuilder};

use crate::error::{Result, check_range};
use crate::initialise::uniform_conv2d;

/// The widest convolution, in multiples of the first.
const WIDEST: usize = 4;

/// A plain network, up to and without the global pooling; total stride `2^depth`.
///
/// `depth` convolutions (`convs.<i>`, 3x3, stride 2, padding 1), each followed by ReLU, with `width`, twice and from then on four
/// times `width` channels. Without norms it streams as it is. With PyTorch's initial weights, standardised pooled features
/// (see [`Standardisation`](crate::Standardisation)) and steps by Muon four of them learn as well as with batch norm and AdamW.
///
/// ```
/// use stream_grad_models::PlainConfig;
/// assert_eq!(PlainConfig::default().output_channels(), 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainConfig {
    /// Channels of the first convolution.
    pub width: usize,
    /// Convolutions.
    pub depth: usize,
}

impl Default for PlainConfig {
    fn default() -> Self {
        Self {
            width: 16,
            depth: 4,
        }
    }
}

impl PlainConfig {
    /// Channels of the features.
    pub const fn output_channels(&self) -> usize {
        self.width
            .saturating_mul(multiple(self.depth.saturating_sub(1)))
    }

    /// Builds the network for images of three channels.
    ///
    /// # Errors
    /// A width or depth outside 1 to 65536 or 1 to 16, or a parameter that is missing or misshapen.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<Net> {
        check_range(
            "plain network's width",
            self.width,
            1..=65_536,
            "1 to 65536",
        )?;
        check_range("plain network's depth", self.depth, 1..=16, "1 to 16")?;
        let mut net = NetBuilder::new(3);
        let convs = vb.pp("convs");
        let mut x = net.input();
        for place in 0..self.depth {
            let channels = self.width * multiple(place);
            let (inputs, vb) = (net.channels(x)?, convs.pp(place));
            uniform_conv2d([channels, inputs, 3, 3], &vb)?;
            let conv = Conv2d::new(inputs, channels, 3).stride(2).padding(1);
            x = net.conv2d(x, conv, vb)?;
            x = net.relu(x)?;
        }
        Ok(net.build(x)?)
    }
}

/// Width of convolution `place`, in multiples of the first.
const fn multiple(place: usize) -> usize {
    if place >= 2 { WIDEST } else { 1 << place }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    #[test]
    fn widths_double_up_to_four() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let net = PlainConfig { width: 2, depth: 5 }
            .build(vb.clone())
            .unwrap();
        let shapes: Vec<(String, usize)> = net
            .parameters()
            .iter()
            .filter(|parameter| parameter.name.ends_with("weight"))
            .map(|parameter| (parameter.name.clone(), parameter.tensor.dims()[0]))
            .collect();
        let expected = [2, 4, 8, 8, 8];
        for (place, (name, channels)) in shapes.iter().enumerate() {
            assert_eq!(*name, format!("convs.{place}.weight"));
            assert_eq!(*channels, expected[place]);
        }
        assert_eq!(shapes.len(), 5);
        assert!(net.output_channels().eq([8]));
        assert_eq!(net.output_extent(64, 33).unwrap(), (2, 2));
        let refused = |width, depth| {
            let net = PlainConfig { width, depth }.build(vb.clone());
            net.unwrap_err().to_string()
        };
        assert_eq!(
            refused(2, 0),
            "plain network's depth: expected 1 to 16, found 0"
        );
        assert_eq!(
            refused(0, 4),
            "plain network's width: expected 1 to 65536, found 0"
        );
    }
}
