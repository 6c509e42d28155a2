//! The real slide (Aperio CMU-1-Small-Region), against bare OpenSlide.

use openslide_rs::{Address, OpenSlide, Region as BareRegion, Size};
use stream_grad_slides::{
    Extent, Level, Mask, MicronsPerPixel, OpenOptions, Region, ReinhardProfile, Rgb, Slide,
    SlideError, StainMethod, StainProfile, Target, TissueOptions,
};

/// What OpenSlide returns, laid over white in f64.
fn bare(slide: &OpenSlide, x: u32, y: u32, w: u32, h: u32) -> Vec<u8> {
    let argb = slide
        .read_region(&BareRegion {
            size: Size { w, h },
            level: 0,
            address: Address { x, y },
        })
        .unwrap();
    argb.chunks_exact(4)
        .flat_map(|pixel| {
            let [alpha, rest @ ..] = u32::from_ne_bytes(pixel.try_into().unwrap()).to_be_bytes();
            rest.map(|value| {
                (f64::from(value) + 255.0 * (1.0 - f64::from(alpha) / 255.0)).round() as u8
            })
        })
        .collect()
}

#[test]
fn the_slide_says_what_it_is() {
    let slide = Slide::open(crate::common::asset("default.svs")).unwrap();
    assert_eq!(
        slide.extent(),
        Extent {
            height: 2967,
            width: 2220
        }
    );
    let properties = slide.properties();
    assert_eq!(properties.vendor.as_deref(), Some("aperio"));
    assert_eq!(properties.objective_power, Some(20.0));
    assert_eq!(properties.scale.unwrap().x.get(), 0.499);
    assert_eq!(properties.background, Rgb::WHITE);
    assert_eq!(properties.raw["aperio.AppMag"], "20");
    let mut names = slide.associated_image_names().unwrap();
    names.sort();
    assert_eq!(names, ["label", "macro", "thumbnail"]);
    let label = slide.associated_image("label").unwrap();
    assert_eq!(label.dimensions(), (387, 463));
    assert!(
        matches!(slide.associated_image("barcode"), Err(SlideError::NoSuchImage { known, .. }) if known.len() == 3)
    );
}

#[test]
fn level_pixels_are_those_of_openslide() {
    let path = crate::common::asset("default.svs");
    let (slide, reference) = (Slide::open(&path).unwrap(), OpenSlide::new(&path).unwrap());
    for (x, y, w, h) in [
        (0, 0, 700, 300),
        (500, 1000, 30, 600),
        (1500, 2300, 720, 667),
        (2219, 2966, 1, 1),
    ] {
        let mut rgb = vec![0; w as usize * h as usize * 3];
        let region = Region::new(
            i64::from(y)..i64::from(y + h),
            i64::from(x)..i64::from(x + w),
        );
        slide.read_level(Level(0), &region, &mut rgb).unwrap();
        assert!(rgb == bare(&reference, x, y, w, h), "{region}");
        let view = slide
            .view(Target::MicronsPerPixel(
                MicronsPerPixel::new(0.499).unwrap(),
            ))
            .unwrap();
        assert!(view.is_exact());
        let mut again = vec![0; rgb.len()];
        view.read(&region, &mut again).unwrap();
        assert!(again == rgb, "{region}");
    }
}

#[test]
fn half_the_scale_is_the_mean_of_four() {
    let path = crate::common::asset("default.svs");
    let (slide, reference) = (Slide::open(&path).unwrap(), OpenSlide::new(&path).unwrap());
    let view = slide
        .view(Target::MicronsPerPixel(
            MicronsPerPixel::new(0.998).unwrap(),
        ))
        .unwrap();
    assert_eq!(
        view.extent(),
        Extent {
            height: 1484,
            width: 1110
        }
    );
    let mut rgb = vec![0; 100 * 300 * 3];
    view.read(&Region::new(1000..1100, 800..1100), &mut rgb)
        .unwrap();
    let fine = bare(&reference, 1600, 2000, 600, 200);
    for row in 0..100 {
        for column in 0..300 {
            for channel in 0..3 {
                let at = |r: usize, c: usize| {
                    f64::from(fine[((row * 2 + r) * 600 + column * 2 + c) * 3 + channel])
                };
                let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
                let found = f64::from(rgb[(row * 300 + column) * 3 + channel]);
                // Half-way values may go either way: the filter works in f32.
                assert!(
                    (found - mean).abs() <= 0.5 + 1e-4,
                    "({row}, {column}): {found} and {mean}"
                );
            }
        }
    }
}

#[test]
fn a_given_scale_overrides_the_file() {
    let options = OpenOptions::default().with_microns_per_pixel(MicronsPerPixel::new(1.0).unwrap());
    let slide = Slide::open_with(crate::common::asset("default.svs"), &options).unwrap();
    assert_eq!(slide.scale().unwrap().x.get(), 1.0);
    let view = slide
        .view(Target::MicronsPerPixel(MicronsPerPixel::new(2.0).unwrap()))
        .unwrap();
    assert_eq!(view.downsample(), (2.0, 2.0));
}

#[test]
fn a_thumbnail_fits_and_shows_the_slide() {
    let slide = Slide::open(crate::common::asset("default.svs")).unwrap();
    let thumbnail = slide.thumbnail(200).unwrap();
    assert_eq!(thumbnail.dimensions(), (150, 200));
    let mean =
        |pixels: &[u8]| pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / pixels.len() as f64;
    let mut whole = vec![0; 2967 * 2220 * 3];
    slide
        .read_level(Level(0), &slide.extent().region(), &mut whole)
        .unwrap();
    let (small, large) = (mean(thumbnail.as_raw()), mean(&whole));
    assert!((small - large).abs() < 0.5, "mean {small} and {large}");
    assert_eq!(
        slide.thumbnail(0).unwrap_err().to_string(),
        "the edge of a thumbnail or an overview must be at least 1, found 0"
    );
}

#[test]
fn tissue_is_where_the_slide_is_dark() {
    let slide = Slide::open(crate::common::asset("default.svs")).unwrap();
    let mask = Mask::of_tissue(&slide, &TissueOptions::default()).unwrap();
    let edge = MicronsPerPixel::new(8.0).unwrap();
    let picture = slide
        .view(Target::MicronsPerPixel(edge))
        .unwrap()
        .to_image()
        .unwrap();
    assert_eq!(
        mask.extent(),
        Extent {
            height: 185,
            width: 138
        }
    );
    // Both stains absorb green; glass does not. The slide's dark part holds some holes that a mask fills.
    let (mut both, mut either) = (0.0, 0.0);
    for (x, y, pixel) in picture.enumerate_pixels() {
        let dark = pixel.0[1] < 205;
        let tissue = mask.is_set(u64::from(y), u64::from(x));
        both += f64::from(u8::from(dark && tissue));
        either += f64::from(u8::from(dark || tissue));
    }
    assert!(both / either > 0.85, "overlap over union {}", both / either);
    let bounds = mask.bounding_box().unwrap();
    assert!(
        bounds.rows.end == 185 && bounds.rows.start < 20,
        "the section runs off the lower edge: {bounds}"
    );
}

#[test]
fn the_reference_of_reinhards_method_is_this_slide() {
    let slide = Slide::open(crate::common::asset("default.svs")).unwrap();
    let StainProfile::Reinhard(found) =
        StainProfile::of_slide(&slide, StainMethod::Reinhard).unwrap()
    else {
        panic!("another method");
    };
    let reference = ReinhardProfile::REFERENCE;
    for (found, stated) in [
        (found.mean, reference.mean),
        (found.deviation, reference.deviation),
    ] {
        for (found, stated) in found.iter().zip(stated) {
            assert!((found - stated).abs() < 0.051, "{found}, not {stated}");
        }
    }
}
