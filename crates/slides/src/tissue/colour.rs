//! Which colours are tissue, and which are marks of pens.

use image::RgbImage;

use super::PenMarks;
use crate::mask::morphology::Bitmap;
use crate::numbers::{index, nearest_byte};

/// Otsu's threshold is kept in this range, in 255ths of saturation.
const THRESHOLDS: std::ops::RangeInclusive<usize> = 12..=40;

/// Pixels whose saturation is above the threshold and that are no pen marks (unless these are ignored).
pub(super) fn saturated(picture: &RgbImage, pens: PenMarks) -> Bitmap {
    let (height, width) = size(picture);
    let (saturation, marks) = saturation_and_marks(picture, pens);
    let threshold =
        otsu(&histogram(&saturation, &marks)).clamp(*THRESHOLDS.start(), *THRESHOLDS.end());
    let bits = saturation
        .iter()
        .zip(marks.bits())
        .map(|(&value, &mark)| usize::from(value) > threshold && !mark)
        .collect();
    Bitmap::from_bits(height, width, bits)
}

/// Saturation after a 3 x 3 mean, and the marks that are not to count.
fn saturation_and_marks(picture: &RgbImage, pens: PenMarks) -> (Vec<u8>, Bitmap) {
    let (height, width) = size(picture);
    let saturation = picture
        .pixels()
        .map(|pixel| Hsv::of(pixel.0).saturation_byte())
        .collect();
    let marks = match pens {
        PenMarks::Exclude => pen_marks(picture),
        PenMarks::Ignore => Bitmap::new(height, width),
    };
    (blurred(saturation, height, width), marks)
}

fn histogram(saturation: &[u8], marks: &Bitmap) -> [u64; 256] {
    let mut histogram = [0; 256];
    for (&value, &mark) in saturation.iter().zip(marks.bits()) {
        if !mark {
            histogram[usize::from(value)] += 1;
        }
    }
    histogram
}

/// Marks of blue, green and black pens, one pixel wider than seen.
pub(super) fn pen_marks(picture: &RgbImage) -> Bitmap {
    let (height, width) = size(picture);
    let bits = picture
        .pixels()
        .map(|pixel| Hsv::of(pixel.0).is_pen())
        .collect();
    let mut marks = Bitmap::from_bits(height, width, bits);
    // Lone pixels are pigment or noise; strokes are wider.
    marks.open(1);
    marks.dilate(1);
    marks
}

/// Otsu's threshold: the value `t` for which splitting into `<= t` and `> t` has the largest variance between classes;
/// the middle one where several are as good (an empty valley between two peaks).
fn otsu(histogram: &[u64; 256]) -> usize {
    let float = crate::numbers::float;
    let total: u64 = histogram.iter().sum();
    let weighted: u64 = (0_u64..)
        .zip(histogram)
        .map(|(value, &count)| value * count)
        .sum();
    let (mut below, mut below_weighted) = (0, 0);
    let mut best = (0.0, 0, 0);
    for (threshold, (value, &count)) in (0_u64..).zip(histogram).enumerate() {
        below += count;
        below_weighted += value * count;
        let above = total - below;
        if below == 0 || above == 0 {
            continue;
        }
        let difference =
            float(below_weighted) / float(below) - float(weighted - below_weighted) / float(above);
        let variance = float(below) * float(above) * difference * difference;
        if variance > best.0 {
            best = (variance, threshold, threshold);
        } else if variance == best.0 {
            best.2 = threshold;
        }
    }
    usize::midpoint(best.1, best.2)
}

struct Hsv {
    /// Degrees; 0 where there is no colour.
    hue: f32,
    /// From 0 to 1.
    saturation: f32,
    /// From 0 to 1.
    value: f32,
}

impl Hsv {
    fn of([red, green, blue]: [u8; 3]) -> Self {
        let [r, g, b] = [red, green, blue].map(|channel| f32::from(channel) / 255.0);
        let value = r.max(g).max(b);
        let chroma = value - r.min(g).min(b);
        let hue = if chroma == 0.0 {
            0.0
        } else if value == r {
            60.0 * ((g - b) / chroma).rem_euclid(6.0)
        } else if value == g {
            60.0 * ((b - r) / chroma + 2.0)
        } else {
            60.0 * ((r - g) / chroma + 4.0)
        };
        Self {
            hue,
            saturation: if value == 0.0 { 0.0 } else { chroma / value },
            value,
        }
    }

    fn saturation_byte(&self) -> u8 {
        // Nearly black pixels have any saturation at all: noise.
        if self.value < 0.1 {
            0
        } else {
            nearest_byte(f64::from(self.saturation * 255.0))
        }
    }

    /// Haematoxylin and eosin lie between blue-violet and red; inks of pens are greener, or black.
    fn is_pen(&self) -> bool {
        let green = (70.0..190.0).contains(&self.hue) && self.saturation > 0.2;
        let blue = (190.0..238.0).contains(&self.hue) && self.saturation > 0.4;
        let black = self.value < 0.3 && self.saturation < 0.4;
        green || blue || black
    }
}

/// 3 x 3 means, edges repeated.
fn blurred(values: Vec<u8>, height: usize, width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len());
    for row in 0..height {
        let rows = [row.saturating_sub(1), row, (row + 1).min(height - 1)];
        for column in 0..width {
            let columns = [
                column.saturating_sub(1),
                column,
                (column + 1).min(width - 1),
            ];
            let sum: u16 = rows
                .iter()
                .flat_map(|r| columns.iter().map(move |c| r * width + c))
                .map(|index| u16::from(values[index]))
                .sum();
            out.push(u8::try_from((sum + 4) / 9).unwrap_or(u8::MAX));
        }
    }
    out
}

fn size(picture: &RgbImage) -> (usize, usize) {
    (index(picture.height()), index(picture.width()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otsu_splits_two_peaks_in_the_middle_of_the_valley() {
        let mut histogram = [0; 256];
        histogram[20] = 100;
        histogram[80] = 50;
        assert_eq!(otsu(&histogram), 49);
    }

    #[test]
    fn otsu_agrees_with_its_definition_on_a_spread_histogram() {
        let mut histogram = [0; 256];
        for (value, count) in histogram.iter_mut().enumerate() {
            *count = u64::try_from((value * 7919) % 97 + usize::from(value > 100) * 40).unwrap();
        }
        let between = |threshold: usize| {
            let mean = |part: &[u64], offset: usize| {
                let count: u64 = part.iter().sum();
                let sum: f64 = part
                    .iter()
                    .enumerate()
                    .map(|(i, &c)| (i + offset) as f64 * c as f64)
                    .sum();
                (count as f64, sum / count as f64)
            };
            let ((n0, m0), (n1, m1)) = (
                mean(&histogram[..=threshold], 0),
                mean(&histogram[threshold + 1..], threshold + 1),
            );
            n0 * n1 * (m0 - m1).powi(2)
        };
        let best = (0..255).map(between).fold(0.0, f64::max);
        assert!((between(otsu(&histogram)) - best).abs() <= best * 1e-12);
    }

    #[test]
    fn otsu_agrees_with_scikit_image_on_a_slide() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/slides/data");
        let text = std::fs::read_to_string(format!("{folder}/tissue.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (picture, pens, name) in [
            ("overview.png", PenMarks::Ignore, "otsu"),
            ("overview_pens.png", PenMarks::Exclude, "otsu_pens"),
        ] {
            let picture = image::open(format!("{folder}/{picture}"))
                .unwrap()
                .into_rgb8();
            let (saturation, marks) = saturation_and_marks(&picture, pens);
            let found = u64::try_from(otsu(&histogram(&saturation, &marks))).unwrap();
            assert_eq!(Some(found), golden[name].as_u64(), "{name}");
        }
    }

    #[test]
    fn inks_are_pens_and_stains_are_not() {
        for ink in [[30, 60, 180], [20, 140, 70], [20, 20, 25], [0, 120, 60]] {
            assert!(Hsv::of(ink).is_pen(), "{ink:?}");
        }
        for stain in [
            [220, 130, 180],
            [120, 80, 160],
            [90, 60, 140],
            [240, 240, 242],
            [200, 60, 90],
        ] {
            assert!(!Hsv::of(stain).is_pen(), "{stain:?}");
        }
    }
}
