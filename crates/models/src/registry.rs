//! Models by name.

use std::fmt;
use std::str::FromStr;

use candle_nn::VarBuilder;
use stream_grad::Net;
use stream_grad::tiling::{LostBorder, PerAxis, PublishedBorders};

use crate::convnext::ConvNeXtConfig;
use crate::error::{ModelError, Result};
use crate::fpn::FpnConfig;
use crate::mobilenet::MobileNetV2Config;
use crate::plain::PlainConfig;
use crate::resnet::ResNetConfig;
use crate::sequential::{imagenette, numerics};
use crate::small::SmallConfig;
use crate::unet::UNetConfig;

/// The names that [`ModelName`] is parsed from.
pub const KNOWN_MODELS: [&str; 18] = [
    "resnet18",
    "resnet34",
    "resnet50",
    "convnext_tiny",
    "convnext_small",
    "mobilenet_v2",
    "resnet18_fpn",
    "resnet34_fpn",
    "resnet50_fpn",
    "unet_resnet18-<classes>",
    "unet_resnet34-<classes>",
    "unet_resnet50-<classes>",
    "numerics",
    "imagenette",
    "small",
    "small-<width>x<depth>",
    "plain",
    "plain-<width>x<depth>",
];

/// A model that has a name.
///
/// ```
/// use stream_grad_models::ModelName;
/// let name: ModelName = "small-24x2".parse()?;
/// assert_eq!(name.to_string(), "small-24x2");
/// let error = "resnet19".parse::<ModelName>().unwrap_err();
/// assert!(error.to_string().starts_with("unknown model `resnet19`, expected one of: resnet18, "));
/// # Ok::<(), stream_grad_models::ModelError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelName {
    /// A ResNet.
    ResNet(ResNetName),
    /// A feature pyramid on a ResNet.
    Fpn(ResNetName),
    /// A U-Net on a ResNet.
    UNet {
        /// The encoder.
        encoder: ResNetName,
        /// Logits of each pixel.
        classes: usize,
    },
    /// ConvNeXt-T.
    ConvNeXtTiny,
    /// ConvNeXt-S.
    ConvNeXtSmall,
    /// MobileNetV2.
    MobileNetV2,
    /// The paper's comparison network.
    Numerics,
    /// The streamed part of the paper's Imagenette network.
    Imagenette,
    /// A small residual network for training on CPUs.
    Small(SmallConfig),
    /// A plain network for training on CPUs.
    Plain(PlainConfig),
}

impl ModelName {
    /// Builds the model's network.
    ///
    /// # Errors
    /// A parameter that is missing or misshapen, or a small network with a width or depth of zero.
    pub fn build(self, vb: VarBuilder<'_>) -> Result<Net> {
        match self {
            Self::ResNet(name) => name.config().build(vb),
            Self::Fpn(body) => FpnConfig::new(body.config()).build(vb),
            Self::UNet { encoder, classes } => UNetConfig::new(encoder.config(), classes).build(vb),
            Self::ConvNeXtTiny => ConvNeXtConfig::tiny().build(vb),
            Self::ConvNeXtSmall => ConvNeXtConfig::small().build(vb),
            Self::MobileNetV2 => MobileNetV2Config::default().build(vb),
            Self::Numerics => numerics(vb),
            Self::Imagenette => imagenette(vb),
            Self::Small(config) => config.build(vb),
            Self::Plain(config) => config.build(vb),
        }
    }

    /// The borders that an implementation of the published method was seen to lose with this model, where that was
    /// measured: constants of its own probe, for the published method's cost model only.
    pub fn observed_borders(self) -> Option<ObservedBorders> {
        match self {
            Self::ResNet(ResNetName::ResNet18) => Some(ObservedBorders {
                borders: PublishedBorders {
                    output: PerAxis::both(LostBorder { lo: 7, hi: 6 }),
                    gradient: PerAxis::both(LostBorder { lo: 490, hi: 487 }),
                },
                source: "observed with lightstream 1.0.7",
            }),
            _ => None,
        }
    }
}

/// A ResNet that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResNetName {
    /// ResNet-18.
    ResNet18,
    /// ResNet-34.
    ResNet34,
    /// ResNet-50.
    ResNet50,
}

impl ResNetName {
    /// Its settings.
    #[must_use]
    pub const fn config(self) -> ResNetConfig {
        match self {
            Self::ResNet18 => ResNetConfig::resnet18(),
            Self::ResNet34 => ResNetConfig::resnet34(),
            Self::ResNet50 => ResNetConfig::resnet50(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [Self::ResNet18, Self::ResNet34, Self::ResNet50];
        all.into_iter().find(|one| one.name() == name)
    }
}

/// Borders that were measured, not derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedBorders {
    /// The borders.
    pub borders: PublishedBorders,
    /// Where the figures come from.
    pub source: &'static str,
}

impl FromStr for ModelName {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || ModelError::UnknownModel {
            found: name.to_owned(),
            known: KNOWN_MODELS.join(", "),
        };
        Ok(match name {
            "convnext_tiny" => Self::ConvNeXtTiny,
            "convnext_small" => Self::ConvNeXtSmall,
            "mobilenet_v2" => Self::MobileNetV2,
            "numerics" => Self::Numerics,
            "imagenette" => Self::Imagenette,
            "small" => Self::Small(SmallConfig::default()),
            "plain" => Self::Plain(PlainConfig::default()),
            _ => {
                if let Some(resnet) = ResNetName::parse(name) {
                    return Ok(Self::ResNet(resnet));
                }
                if let Some(body) = name.strip_suffix("_fpn") {
                    return ResNetName::parse(body).map(Self::Fpn).ok_or_else(unknown);
                }
                let (family, size) = name.split_once('-').ok_or_else(unknown)?;
                if let Some(encoder) = family.strip_prefix("unet_") {
                    let encoder = ResNetName::parse(encoder).ok_or_else(unknown)?;
                    let classes = size.parse().map_err(|_| unknown())?;
                    return Ok(Self::UNet { encoder, classes });
                }
                let (width, depth) = size.split_once('x').ok_or_else(unknown)?;
                let number = |text: &str| text.parse::<usize>().map_err(|_| unknown());
                let (width, depth) = (number(width)?, number(depth)?);
                match family {
                    "small" => Self::Small(SmallConfig { width, depth }),
                    "plain" => Self::Plain(PlainConfig { width, depth }),
                    _ => return Err(unknown()),
                }
            }
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResNet(name) => f.write_str(name.name()),
            Self::Fpn(body) => write!(f, "{}_fpn", body.name()),
            Self::UNet { encoder, classes } => write!(f, "unet_{}-{classes}", encoder.name()),
            Self::ConvNeXtTiny => f.write_str("convnext_tiny"),
            Self::ConvNeXtSmall => f.write_str("convnext_small"),
            Self::MobileNetV2 => f.write_str("mobilenet_v2"),
            Self::Numerics => f.write_str("numerics"),
            Self::Imagenette => f.write_str("imagenette"),
            Self::Small(config) if *config == SmallConfig::default() => f.write_str("small"),
            Self::Small(SmallConfig { width, depth }) => write!(f, "small-{width}x{depth}"),
            Self::Plain(config) if *config == PlainConfig::default() => f.write_str("plain"),
            Self::Plain(PlainConfig { width, depth }) => write!(f, "plain-{width}x{depth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for name in [
            "resnet18",
            "resnet34",
            "resnet50",
            "convnext_tiny",
            "convnext_small",
            "mobilenet_v2",
            "resnet34_fpn",
            "unet_resnet18-5",
            "numerics",
            "imagenette",
            "small",
            "small-8x3",
            "plain",
            "plain-8x3",
        ] {
            assert_eq!(name.parse::<ModelName>().unwrap().to_string(), name);
        }
        assert_eq!(
            "small-16x1".parse::<ModelName>().unwrap(),
            "small".parse().unwrap()
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        for name in [
            "resnet19",
            "",
            "small-",
            "small-3",
            "small-x",
            "small--1x2",
            "plain-3",
            "large-3x4",
            "resnet19_fpn",
            "unet_resnet18",
            "unet_resnet18-two",
            "unet_vgg-2",
            "ResNet18",
        ] {
            let message = name.parse::<ModelName>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{name}`")), "{message}");
            for known in KNOWN_MODELS {
                assert!(message.contains(known), "{message} lacks {known}");
            }
        }
    }

    #[test]
    fn a_network_of_no_width_is_refused() {
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let error = "small-0x1"
            .parse::<ModelName>()
            .unwrap()
            .build(vb)
            .unwrap_err();
        assert!(error.to_string().contains("width"), "{error}");
    }
}
