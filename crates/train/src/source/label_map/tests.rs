//! Masks and annotations of slides on disk.

use image::GrayImage;
use stream_grad::Span;
use stream_grad_slides::MicronsPerPixel;
use tempfile::TempDir;

use super::*;
use crate::source::{ImageLoader, ReadSettings};

/// A white slide of 64 x 96 pixels of one micron.
struct Case {
    folder: TempDir,
    loader: SlideLoader,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::from_pixel(96, 64, image::Rgb([255; 3]))
            .save(folder.path().join("slide.png"))
            .unwrap();
        let read = ReadSettings {
            scale_override: Some(1.0),
            decoding_threads: 0,
            ..ReadSettings::default()
        };
        let loader = SlideLoader::new(MicronsPerPixel::new(2.0).unwrap(), read).unwrap();
        Self { folder, loader }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn labels(&self, map: &str, unlabelled: Unlabelled) -> Result<Arc<dyn LabelSource>> {
        let classes = MapClasses {
            names: ClassNames::new(["background", "tumour", "stroma"]).unwrap(),
            ignore_index: 255,
            unlabelled,
        };
        let loader = SlideLabelLoader::new(&self.loader, classes);
        loader.labels(&self.path("slide.png"), &self.path(map))
    }

    fn mask(&self, name: &str, value: impl Fn(u32, u32) -> u8) {
        GrayImage::from_fn(96, 64, |x, y| image::Luma([value(y, x)]))
            .save(self.path(name))
            .unwrap();
    }
}

fn read(labels: &dyn LabelSource, region: Rect) -> Vec<u8> {
    let mut found = vec![99; region.height() * region.width()];
    labels.read(region, &mut found).unwrap();
    found
}

fn whole() -> Rect {
    Rect::whole(32, 48)
}

const XML: &str = r##"<ASAP_Annotations><Annotations>
<Annotation Name="a" Type="Polygon" PartOfGroup="stroma" Color="#F4FA58"><Coordinates>
<Coordinate Order="0" X="0" Y="0" /><Coordinate Order="1" X="40" Y="0" /><Coordinate Order="2" X="40" Y="20" /><Coordinate Order="3" X="0" Y="20" />
</Coordinates></Annotation>
<Annotation Name="b" Type="Polygon" PartOfGroup="tumour" Color="#F4FA58"><Coordinates>
<Coordinate Order="0" X="20" Y="0" /><Coordinate Order="1" X="80" Y="0" /><Coordinate Order="2" X="80" Y="20" /><Coordinate Order="3" X="20" Y="20" />
</Coordinates></Annotation>
</Annotations><AnnotationGroups><Group Name="stroma" PartOfGroup="None" Color="#64FE2E"/><Group Name="tumour" PartOfGroup="None" Color="#64FE2E"/></AnnotationGroups></ASAP_Annotations>"##;

#[test]
fn a_mask_is_read_at_the_scale_of_the_image() {
    let case = Case::new();
    // Pixel (row, column) of the image has its centre at the corner of four of the mask: the lower right one counts.
    case.mask("mask.png", |row, column| {
        u8::try_from((row / 2 + column / 2) % 3).unwrap()
    });
    let labels = case.labels("mask.png", Unlabelled::Background).unwrap();
    assert_eq!(labels.extent(), (32, 48));
    let image = case.loader.load(&case.path("slide.png")).unwrap();
    assert_eq!(image.extent(), labels.extent());
    let region = Rect::new(Span::new(3, 9), Span::new(40, 48));
    let mut found = read(&*labels, region).into_iter();
    for row in region.rows.lo..region.rows.hi {
        for column in region.columns.lo..region.columns.hi {
            assert_eq!(i64::from(found.next().unwrap()), (row + column) % 3);
        }
    }
}

#[test]
fn annotations_are_classes_and_the_rest_is_background_or_ignored() {
    let case = Case::new();
    std::fs::write(case.path("drawn.xml"), XML).unwrap();
    for (unlabelled, none) in [(Unlabelled::Background, 0), (Unlabelled::Ignored, 255)] {
        let labels = case.labels("drawn.xml", unlabelled).unwrap();
        let found = read(&*labels, whole());
        // Where both lie, the higher class counts, whatever the order of the file.
        assert_eq!(found[..10], [2; 10]);
        assert_eq!(found[10..20], [2; 10]);
        assert_eq!(found[20..40], [1; 20]);
        assert_eq!(found[40..48], [none; 8]);
        assert_eq!(found[10 * 48], none);
    }
}

#[test]
fn what_does_not_fit_is_named_with_both() {
    let case = Case::new();
    let said = |map: &str| {
        let labels = case.labels(map, Unlabelled::Background);
        let error = labels.err().unwrap();
        assert!(case.loader.stops_at(&error), "{error}");
        error.to_string()
    };
    GrayImage::new(96, 50).save(case.path("flat.png")).unwrap();
    let message = said("flat.png");
    for part in ["flat.png", "slide.png", "size", "64 x 96", "50 x 96"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    std::fs::write(case.path("typo.xml"), XML.replace("tumour", "tumor")).unwrap();
    let message = said("typo.xml");
    for part in [
        "typo.xml",
        "slide.png",
        "`tumor`",
        "nearest is `tumour`",
        "stroma",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let json = r#"{"type":"Polygon","coordinates":[[[0,0],[9,0],[9,9],[0,0]]]}"#;
    std::fs::write(case.path("bare.geojson"), json).unwrap();
    let message = said("bare.geojson");
    assert!(message.contains("without a class"), "{message}");
}

#[test]
fn a_value_that_is_no_class_is_named_with_its_place() {
    let case = Case::new();
    case.mask("mask.png", |row, column| match (row, column) {
        (21, 31) => 7,
        (0, _) => 255,
        _ => 2,
    });
    let labels = case.labels("mask.png", Unlabelled::Background).unwrap();
    let mut found = vec![0; 32 * 48];
    let error = labels.read(whole(), &mut found).unwrap_err();
    let message = error.to_string();
    for part in [
        "mask.png",
        "slide.png",
        "0 to 2 (background, tumour, stroma)",
        "255 for none",
        "found 7 at row 21, column 31",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    // In whatever it is wrapped, the run stops.
    let wrapped = TrainError::Stream(stream_grad::StreamError::Exchange {
        what: "feature sink",
        image: 0,
        region: Rect::whole(1, 1),
        source: error,
    });
    assert!(case.loader.stops_at(&wrapped), "{wrapped}");
}
