//! What a slide says about itself: typed where it matters, raw for the rest.

use std::collections::BTreeMap;

use crate::geometry::{MicronsPerPixel, PixelScale, Region, Rgb};

/// Coarser pixels than this are taken for a screen or print resolution, not for a microscope's.
const COARSEST_BELIEVED_RESOLUTION: f64 = 50.0;

/// Properties of a slide.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// The scanner's format as OpenSlide names it, such as `aperio`; none for plain images.
    pub vendor: Option<String>,
    /// Scale of the finest level: the caller's if given, else the file's.
    pub scale: Option<PixelScale>,
    /// Magnification of the objective, such as 20 or 40.
    pub objective_power: Option<f64>,
    /// The part of level 0 that was scanned, in level-0 pixels, where the file says so in `openslide.bounds-*`. As the file
    /// says it: it may leave the slide. None where one of the numbers is missing or no whole number, or the size not above
    /// zero.
    pub bounds: Option<Region>,
    /// What shows where nothing was scanned.
    pub background: Rgb,
    /// Every property of the file, as text, by name.
    pub raw: BTreeMap<String, String>,
}

impl Properties {
    /// Reads the typed properties out of the raw ones.
    pub(crate) fn from_raw(raw: BTreeMap<String, String>) -> Self {
        let text = |name: &str| raw.get(name).map(|value| value.trim());
        let number = |name: &str| parse_positive(text(name)?);
        let vendor = text("openslide.vendor").map(str::to_owned);
        let is_plain_tiff = vendor.as_deref() == Some("generic-tiff");
        // OpenSlide 4 makes microns of whatever resolution a plain TIFF states.
        let stated = |axis: &str| {
            MicronsPerPixel::new(number(&format!("openslide.mpp-{axis}"))?)
                .ok()
                .filter(|edge| !is_plain_tiff || edge.get() <= COARSEST_BELIEVED_RESOLUTION)
        };
        // Only a plain TIFF's own resolution is a scale: scanners leave print resolutions in theirs.
        let from_tiff = |axis: &str| {
            if !is_plain_tiff {
                return None;
            }
            let unit = ResolutionUnit::from_name(text("tiff.ResolutionUnit")?)?;
            tiff_resolution(number(&format!("tiff.{axis}Resolution"))?, unit)
        };
        let scale = match (stated("x"), stated("y")) {
            (Some(x), Some(y)) => Some(PixelScale { x, y }),
            (Some(edge), None) | (None, Some(edge)) => Some(PixelScale::square(edge)),
            (None, None) => from_tiff("X")
                .zip(from_tiff("Y"))
                .map(|(x, y)| PixelScale { x, y }),
        };
        Self {
            scale,
            objective_power: number("openslide.objective-power"),
            bounds: bounds(&raw),
            background: text("openslide.background-color")
                .and_then(parse_colour)
                .unwrap_or(Rgb::WHITE),
            vendor,
            raw,
        }
    }
}

/// Units in which TIFF counts pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResolutionUnit {
    Inch,
    Centimetre,
}

impl ResolutionUnit {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "inch" => Some(Self::Inch),
            "centimeter" => Some(Self::Centimetre),
            _ => None,
        }
    }

    const fn microns(self) -> f64 {
        match self {
            Self::Inch => 25_400.0,
            Self::Centimetre => 10_000.0,
        }
    }
}

/// Microns per pixel from pixels per unit; none where that is plainly not a microscope's.
pub(crate) fn tiff_resolution(
    pixels_per_unit: f64,
    unit: ResolutionUnit,
) -> Option<MicronsPerPixel> {
    MicronsPerPixel::new(unit.microns() / pixels_per_unit)
        .ok()
        .filter(|edge| edge.get() <= COARSEST_BELIEVED_RESOLUTION)
}

fn parse_positive(text: &str) -> Option<f64> {
    // Some scanners write a decimal comma.
    let value: f64 = text.replace(',', ".").parse().ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

fn parse_colour(text: &str) -> Option<Rgb> {
    if text.len() != 6 || !text.is_ascii() {
        return None;
    }
    let value = u32::from_str_radix(text, 16).ok()?;
    let [_, red, green, blue] = value.to_be_bytes();
    Some(Rgb([red, green, blue]))
}

fn bounds(raw: &BTreeMap<String, String>) -> Option<Region> {
    let number = |name: &str| -> Option<i64> {
        raw.get(&format!("openslide.bounds-{name}"))?
            .trim()
            .parse()
            .ok()
    };
    let (x, y) = (number("x")?, number("y")?);
    let (width, height) = (number("width")?, number("height")?);
    (width > 0 && height > 0)
        .then(|| Region::new(y..y.saturating_add(height), x..x.saturating_add(width)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Properties {
        let raw = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Properties::from_raw(raw)
    }

    #[test]
    fn stated_scale_wins_and_one_axis_serves_both() {
        let both = parse(&[("openslide.mpp-x", "0.25"), ("openslide.mpp-y", "0,5")])
            .scale
            .unwrap();
        assert_eq!((both.x.get(), both.y.get()), (0.25, 0.5));
        let one = parse(&[("openslide.mpp-y", "0.5")]).scale.unwrap();
        assert_eq!((one.x.get(), one.y.get()), (0.5, 0.5));
    }

    #[test]
    fn a_plain_tiff_states_pixels_per_unit() {
        let tiff = |unit: &str, resolution: &str| {
            parse(&[
                ("openslide.vendor", "generic-tiff"),
                ("tiff.ResolutionUnit", unit),
                ("tiff.XResolution", resolution),
                ("tiff.YResolution", resolution),
            ])
            .scale
            .map(|scale| scale.x.get())
        };
        assert_eq!(tiff("centimeter", "40000"), Some(0.25));
        assert_eq!(tiff("inch", "50800"), Some(0.5));
        assert_eq!(tiff("inch", "72"), None, "a screen's resolution");
        // As OpenSlide 4 says it.
        let micrometres = |vendor: &str, edge: &str| {
            parse(&[
                ("openslide.vendor", vendor),
                ("openslide.mpp-x", edge),
                ("openslide.mpp-y", edge),
            ])
            .scale
            .map(|scale| scale.x.get())
        };
        assert_eq!(micrometres("generic-tiff", "352.77777777777777"), None);
        assert_eq!(micrometres("generic-tiff", "0.5"), Some(0.5));
        assert_eq!(micrometres("aperio", "60"), Some(60.0));
        assert_eq!(tiff("none", "40000"), None);
        assert_eq!(tiff("centimeter", "0"), None);
    }

    #[test]
    fn nonsense_is_no_property() {
        let none = parse(&[
            ("openslide.mpp-x", "NaN"),
            ("openslide.objective-power", "-20"),
            ("openslide.background-color", "é0000"),
            ("openslide.bounds-x", "1"),
        ]);
        assert_eq!(
            (none.scale, none.objective_power, none.bounds),
            (None, None, None)
        );
        assert_eq!(none.background, Rgb::WHITE);
    }

    #[test]
    fn bounds_and_background() {
        let found = parse(&[
            ("openslide.bounds-x", "10"),
            ("openslide.bounds-y", "20"),
            ("openslide.bounds-width", "30"),
            ("openslide.bounds-height", "40"),
            ("openslide.background-color", "F0e1D2"),
        ]);
        assert_eq!(found.bounds, Some(Region::new(20..60, 10..40)));
        assert_eq!(found.background, Rgb([0xf0, 0xe1, 0xd2]));
    }
}
