use super::*;
use crate::numbers::centre;
use crate::options::OpenOptions;
use crate::slide::Slide;
use crate::view::Target;

fn view(height: u64, width: u64, downsample: f64) -> SlideView {
    let length = usize::try_from(height * width * 3).unwrap();
    let extent = Extent { height, width };
    let slide = Slide::from_rgb("x", extent, vec![200; length], &OpenOptions::default()).unwrap();
    slide.view(Target::Downsample(downsample)).unwrap()
}

#[test]
fn colour_maps_are_those_of_matplotlib() {
    // matplotlib.colormaps["viridis"]([0, 128, 255], bytes=True), and so on.
    for (map, colors) in [
        (
            ColorMap::Viridis,
            [[68, 1, 84], [33, 145, 140], [253, 231, 37]],
        ),
        (
            ColorMap::Inferno,
            [[0, 0, 4], [188, 55, 84], [252, 255, 164]],
        ),
        (
            ColorMap::Magma,
            [[0, 0, 4], [183, 55, 121], [252, 253, 191]],
        ),
    ] {
        for (value, expected) in [0.0, 128.0 / 255.0, 1.0].into_iter().zip(colors) {
            let Rgb(found) = map.color(value);
            let far = found.iter().zip(expected).any(|(a, b)| a.abs_diff(b) > 1);
            assert!(!far, "{map:?}({value}): {found:?}, not {expected:?}");
        }
    }
    assert_eq!(ColorMap::Turbo.color(f64::NAN), ColorMap::Turbo.color(-3.0));
}

#[test]
fn values_are_bilinear_between_the_centres_of_cells() {
    let view = view(8, 8, 1.0);
    let map = Heatmap::over(
        &view,
        Extent {
            height: 2,
            width: 2,
        },
        vec![0.0, 1.0, 2.0, 3.0],
    )
    .unwrap();
    for row in 0..8 {
        for column in 0..8 {
            let part = |index: i64| ((centre(index) / 4.0 - 0.5).clamp(0.0, 1.0), index);
            let ((down, _), (across, _)) = (part(row), part(column));
            let value = map.value_at(&view, row, column).unwrap();
            assert!(
                (value - (across + 2.0 * down)).abs() < 1e-12,
                "({row}, {column}): {value}"
            );
        }
    }
    assert_eq!(map.value_at(&view, -1, 0), None);
    assert_eq!(map.value_at(&view, 0, 8), None);
}

#[test]
fn nothing_known_shows_the_slide_and_does_not_spread() {
    let view = view(4, 12, 1.0);
    let map = Heatmap::over(
        &view,
        Extent {
            height: 1,
            width: 3,
        },
        vec![1.0, f32::NAN, 0.5],
    )
    .unwrap();
    let mut rgb = vec![0; 4 * 12 * 3];
    let style = HeatmapStyle {
        opacity: 1.0,
        ..HeatmapStyle::default()
    };
    map.draw_over(&view, &view.extent().region(), &mut rgb, &style)
        .unwrap();
    let yellow = ColorMap::Viridis.color(1.0).0;
    for column in 0..12 {
        let pixel = <[u8; 3]>::try_from(&rgb[column * 3..column * 3 + 3]).unwrap();
        match column {
            0..4 => assert_eq!(pixel, yellow),
            4..8 => assert_eq!(pixel, [200; 3]),
            _ => assert_eq!(pixel, ColorMap::Viridis.table()[128].0),
        }
    }
    // Coordinates alone decide: a part, and a part of a crop.
    let cropped = view.cropped(&Region::new(1..4, 3..12)).unwrap();
    let mut part = vec![0; 2 * 4 * 3];
    map.draw_over(&cropped, &Region::new(0..2, 0..4), &mut part, &style)
        .unwrap();
    assert_eq!(part[..12], rgb[(12 + 3) * 3..(12 + 7) * 3]);
}

#[test]
fn senseless_maps_and_styles_are_refused() {
    let view = view(4, 4, 1.0);
    let extent = Extent {
        height: 1,
        width: 2,
    };
    let empty = Extent {
        height: 0,
        width: 2,
    };
    for (extent, values) in [(extent, vec![0.0]), (empty, Vec::new())] {
        let count = values.len();
        let refused = Heatmap::over(&view, extent, values).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "the number of values of a heat map must be height x width, at least 1, found {count} for {extent}"
            )
        );
    }
    let map = Heatmap::over(&view, extent, vec![0.0, 1.0]).unwrap();
    let region = Region::new(0..1, 0..1);
    let default = HeatmapStyle::default;
    for style in [
        HeatmapStyle {
            opacity: 1.5,
            ..default()
        },
        HeatmapStyle {
            opacity: f64::NAN,
            ..default()
        },
        HeatmapStyle {
            values: 1.0..=1.0,
            ..default()
        },
        HeatmapStyle {
            values: 0.0..=f32::INFINITY,
            ..default()
        },
    ] {
        let refused = map.draw_over(&view, &region, &mut [0; 3], &style);
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!(
                "the style of a heat map must be an opacity from 0 to 1, and a finite range that is not empty, \
                 found {style:?}"
            )
        );
    }
    let refused = map.draw_over(&view, &region, &mut [0; 4], &default());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "a buffer of RGB, in bytes (height x width x 3), needs 3, found 4"
    );
}
