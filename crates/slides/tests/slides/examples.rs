//! The examples do on the real slide what they say.

use std::path::{Path, PathBuf};

use stream_grad_slides::{Mask, Slide, SlideError, TissueOptions};

#[allow(dead_code, reason = "an example's own `main`")]
#[path = "../../examples/batch.rs"]
mod batch;
#[allow(dead_code, reason = "an example's own `main`")]
#[path = "../../examples/heatmap.rs"]
pub(crate) mod heatmap;
#[allow(dead_code, reason = "an example's own `main`")]
#[path = "../../examples/patches.rs"]
mod patches;
#[allow(dead_code, reason = "an example's own `main`")]
#[path = "../../examples/thumbnail.rs"]
mod thumbnail;
#[allow(dead_code, reason = "an example's own `main`")]
#[path = "../../examples/tissue_mask.rs"]
mod tissue_mask;

fn arguments(given: &[&dyn AsRef<Path>]) -> Vec<String> {
    let text = |path: &&dyn AsRef<Path>| path.as_ref().to_str().unwrap().to_owned();
    given.iter().map(text).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn thumbnail_and_mask_are_pictures_of_the_slide() {
    let folder = tempfile::tempdir().unwrap();
    let slide = crate::common::asset("default.svs");
    let picture = folder.path().join("thumbnail.png");
    thumbnail::run(&arguments(&[&slide, &picture, &"300"])).unwrap();
    let expected = Slide::open(&slide).unwrap().thumbnail(300).unwrap();
    assert_eq!(image::open(&picture).unwrap().into_rgb8(), expected);

    let picture = folder.path().join("mask.png");
    tissue_mask::run(&arguments(&[&slide, &picture])).unwrap();
    let mask = Mask::of_tissue(&Slide::open(&slide).unwrap(), &TissueOptions::default()).unwrap();
    assert_eq!(image::open(&picture).unwrap().into_luma8(), mask.to_image());

    let refused = |given: &[&dyn AsRef<Path>]| thumbnail::run(&arguments(given)).unwrap_err();
    assert_eq!(
        refused(&[&slide]).to_string(),
        "usage: thumbnail SLIDE OUT.png [EDGE]"
    );
    let missing = refused(&[&"no/such.svs", &picture]);
    assert!(
        matches!(missing.downcast_ref(), Some(SlideError::Io { path, .. }) if path == Path::new("no/such.svs")),
        "{missing}"
    );
}

/// By its own name, another path to it, a link and a hard link.
#[test]
fn a_slide_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    image::RgbImage::from_pixel(64, 64, image::Rgb([180, 90, 140]))
        .save(at("slide.png"))
        .unwrap();
    std::fs::create_dir(at("x")).unwrap();
    std::fs::hard_link(at("slide.png"), at("hard.png")).unwrap();
    let mut same = vec![at("slide.png"), at("x/../slide.png"), at("hard.png")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("slide.png", at("link.png")).unwrap();
        same.push(at("link.png"));
    }
    let before = std::fs::read(at("slide.png")).unwrap();
    for output in same {
        for run in [thumbnail::run, tissue_mask::run, heatmap::run] {
            let error = run(&arguments(&[&at("slide.png"), &output])).unwrap_err();
            assert!(
                error.to_string().contains("slide.png, which is read"),
                "{error}"
            );
        }
        assert_eq!(std::fs::read(at("slide.png")).unwrap(), before);
    }
    thumbnail::run(&arguments(&[&at("slide.png"), &at("thumbnail.png")])).unwrap();
}

#[test]
fn a_grid_of_patches_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let slide = crate::common::asset("default.svs");
    let given = arguments(&[&slide, &folder.path(), &"2", &"128", &"0.5"]);
    patches::run(&given).unwrap();
    let of_patches = || -> Vec<PathBuf> {
        let is_patch = |path: &PathBuf| path.extension().is_some_and(|end| end == "png");
        files(folder.path()).into_iter().filter(is_patch).collect()
    };
    let all = of_patches();
    assert!(all.len() > 5, "{}", all.len());
    // One is there, of another picture; one is missing; of one an earlier run left a part.
    std::fs::write(&all[0], b"kept").unwrap();
    let before = std::fs::read(&all[1]).unwrap();
    std::fs::remove_file(&all[1]).unwrap();
    std::fs::write(all[1].with_extension("partial"), &before[..100]).unwrap();
    patches::run(&given).unwrap();
    assert_eq!(of_patches(), all);
    assert_eq!(std::fs::read(&all[0]).unwrap(), b"kept");
    assert_eq!(std::fs::read(&all[1]).unwrap(), before);
    assert!(!all[1].with_extension("partial").exists());
}

#[test]
fn a_heat_map_is_a_pyramid_with_the_scale_and_a_deep_zoom_image() {
    let folder = tempfile::tempdir().unwrap();
    let slide = crate::common::asset("default.svs");
    let (pyramid, zoom) = (folder.path().join("h.tiff"), folder.path().join("h.dzi"));
    heatmap::run(&arguments(&[&slide, &pyramid, &zoom])).unwrap();
    let found = Slide::open(&pyramid).unwrap();
    assert_eq!(found.scale().unwrap().x.get(), 2.0);
    assert!(found.levels().len() > 1);
    assert!(zoom.is_file() && folder.path().join("h_files").is_dir());
}

#[test]
fn a_batch_names_bad_slides_and_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (slides, out) = (folder.path().join("slides"), folder.path().join("out"));
    std::fs::create_dir(&slides).unwrap();
    for name in [
        "small.svs",
        "unopenable.tiff",
        "unreadable.svs",
        "boxes.png",
    ] {
        std::fs::copy(crate::common::asset(name), slides.join(name)).unwrap();
    }
    let given = arguments(&[&slides, &out, &"64"]);
    let error = batch::run(&given).unwrap_err().to_string();
    assert!(
        error.ends_with("unopenable.tiff, unreadable.svs"),
        "{error}"
    );
    let thumbnails = out.join("thumbnails");
    let good = [
        thumbnails.join("boxes.png.png"),
        thumbnails.join("small.svs.png"),
    ];
    assert_eq!(files(&thumbnails), good);
    assert_eq!(files(&out.join("masks")).len(), 2);
    // What is there is not made again, what is mended is made.
    std::fs::write(&good[0], b"kept").unwrap();
    std::fs::remove_file(slides.join("unopenable.tiff")).unwrap();
    std::fs::copy(slides.join("small.svs"), slides.join("unreadable.svs")).unwrap();
    batch::run(&given).unwrap();
    assert_eq!(std::fs::read(&good[0]).unwrap(), b"kept");
    assert_eq!(files(&thumbnails).len(), 3);
    // A table of slides with their scales.
    let table = folder.path().join("slides.csv");
    std::fs::write(&table, "slide,microns_per_pixel\nslides/boxes.png,1\n").unwrap();
    let out = folder.path().join("of_table");
    batch::run(&arguments(&[&table, &out])).unwrap();
    assert_eq!(files(&out.join("thumbnails")).len(), 1);
}
