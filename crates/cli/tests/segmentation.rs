//! `train` and `predict` of a segmentation: slides with masks in, maps and outlines out.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use std::path::Path;
use std::process::Command;

use stream_grad_slides::{
    AnnotationOptions, Annotations, ColorModel, Compression, Extent, GeoJsonFrame, Level,
    MicronsPerPixel, PyramidOptions, PyramidWriter, Reduction, Region, Slide,
};

const EDGE: u64 = 64;

/// Whether a pixel of slide `index` is of the dark square.
fn is_dark(index: u64, row: u64, column: u64) -> bool {
    let (top, left) = (8 + index * 5 % 24, 8 + index * 11 % 24);
    (top..top + 24).contains(&row) && (left..left + 24).contains(&column)
}

/// Slide `index` of 64 x 64 pixels of one micron, and its mask, whose first row has no class.
fn write_slide(folder: &Path, index: u64) {
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_microns_per_pixel(MicronsPerPixel::new(1.0).unwrap());
    let slide = folder.join(format!("slide_{index}.tif"));
    let mut pixels = PyramidWriter::create(slide, EDGE, EDGE, &options).unwrap();
    let options = options
        .with_color(ColorModel::Gray)
        .with_reduction(Reduction::Nearest);
    let mask = folder.join(format!("mask_{index}.tif"));
    let mut classes = PyramidWriter::create(mask, EDGE, EDGE, &options).unwrap();
    for row in 0..EDGE {
        let rgb = (0..EDGE).flat_map(|column| {
            let noise = u8::try_from((row * 31 + column * 17 + index * 7) % 23).unwrap();
            let dark = [110 + noise, 60 + noise, 120 + noise];
            let light = [220 + noise, 190 + noise, 225 + noise];
            if is_dark(index, row, column) {
                dark
            } else {
                light
            }
        });
        pixels.write_rows(&rgb.collect::<Vec<u8>>()).unwrap();
        let class = |column| match row {
            0 => 255,
            _ => u8::from(is_dark(index, row, column)),
        };
        classes
            .write_rows(&(0..EDGE).map(class).collect::<Vec<u8>>())
            .unwrap();
    }
    pixels.finish().unwrap();
    classes.finish().unwrap();
}

/// A folder with six slides, and `cases.csv`.
fn write_cases(folder: &Path) {
    let mut table = "slide,mask,split\n".to_owned();
    for (index, split) in (0..).zip(["train", "train", "train", "train", "validation", "test"]) {
        write_slide(folder, index);
        table += &format!("slide_{index}.tif,mask_{index}.tif,{split}\n");
    }
    std::fs::write(folder.join("cases.csv"), table).unwrap();
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stream-grad"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(!messages.contains("panicked"), "{messages}");
    (output.status.code(), messages)
}

const TRAIN: [&str; 20] = [
    "train",
    "--csv",
    "cases.csv",
    "--task",
    "segmentation",
    "--classes",
    "background,dark",
    "--model",
    "unet_resnet18-2",
    "--mpp",
    "1",
    "--epochs",
    "4",
    "--batch-size",
    "2",
    "--learning-rate",
    "0.001",
    "--output",
    "out",
    "--set",
];

/// A column of a table.
fn column(path: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let place = lines.next().unwrap().position(|found| found == name);
    let place = place.ok_or_else(|| format!("{name} in {text}")).unwrap();
    lines.filter_map(|mut line| line.nth(place)).collect()
}

#[test]
fn slides_with_masks_are_trained_on_and_their_maps_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_cases(path);
    let more = [
        "train.checkpoint_every=0",
        "--set",
        "train.keep_checkpoints=1",
    ];
    let (code, messages) = run(path, &[&TRAIN[..], &more].concat());
    assert_eq!(code, Some(0), "{messages}");
    let results = path.join("out/1-microns");
    let losses = column(&results.join("epochs.csv"), "train_loss");
    let losses: Vec<f64> = losses.iter().map(|loss| loss.parse().unwrap()).collect();
    assert!(losses[3] < losses[0], "{losses:?}");
    for name in ["dice", "iou"] {
        for value in column(&results.join("steps.csv"), name) {
            let value: f64 = value.parse().unwrap();
            assert!((0.0..=1.0).contains(&value), "{name}: {value}");
        }
    }
    let pixels: u64 = ["pixels_0_0", "pixels_0_1", "pixels_1_0", "pixels_1_1"]
        .iter()
        .flat_map(|name| column(&results.join("predictions.csv"), name))
        .map(|count| count.parse::<u64>().unwrap())
        .sum();
    // Two slides, each without its first row.
    assert_eq!(pixels, 2 * EDGE * (EDGE - 1));
    let summary = std::fs::read_to_string(path.join("out/summary.json")).unwrap();
    assert!(summary.contains("\"dice\""), "{summary}");
    let report = std::fs::read_to_string(path.join("out/report.html")).unwrap();
    for part in ["Classes of pixels", "IoU", "dark"] {
        assert!(report.contains(part), "{part}");
    }

    let model = results.join("model.safetensors");
    let predict = [
        "predict",
        model.to_str().unwrap(),
        "--csv",
        "cases.csv",
        "--output",
        "found.csv",
    ];
    let (code, messages) = run(path, &predict);
    assert_eq!(code, Some(0), "{messages}");
    let table = std::fs::read_to_string(path.join("found.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 6, "{table}");
    for index in 0..6 {
        let map = Slide::open(path.join(format!("found/slide_{index}.classes.tiff"))).unwrap();
        let extent = Extent {
            height: EDGE,
            width: EDGE,
        };
        assert_eq!(map.extent(), extent);
        let scale = map.scale().unwrap();
        assert!((scale.x.get() - 1.0).abs() < 1e-6, "{scale:?}");
        let mut rgb = vec![9; 64 * 64 * 3];
        map.read_level(Level(0), &Region::new(0..64, 0..64), &mut rgb)
            .unwrap();
        let dark: Vec<bool> = rgb.chunks_exact(3).map(|pixel| pixel[0] == 1).collect();
        assert!(rgb.iter().all(|value| *value < 2));

        // The outlines hold what the map has.
        let slide = Slide::open(path.join(format!("slide_{index}.tif"))).unwrap();
        let frame = GeoJsonFrame::bounds_of(&slide);
        let outlines = path.join(format!("found/slide_{index}.geojson"));
        let outlines = Annotations::read(outlines, &AnnotationOptions::new(frame)).unwrap();
        let view = slide
            .view(stream_grad_slides::Target::Level(Level(0)))
            .unwrap();
        let labels = outlines.annotations.label_map(&view, &[(Some("dark"), 1)]);
        let mut found = vec![0; 64 * 64];
        labels.read(&Region::new(0..64, 0..64), &mut found).unwrap();
        assert!(found.iter().zip(&dark).all(|(a, b)| (*a == 1) == *b));
    }

    // What is there is not predicted again.
    let map = path.join("found/slide_0.classes.tiff");
    std::fs::write(&map, "kept").unwrap();
    let (code, messages) = run(path, &predict);
    assert_eq!(code, Some(0), "{messages}");
    assert_eq!(std::fs::read_to_string(&map).unwrap(), "kept");
}

#[test]
fn wrong_networks_and_masks_are_named_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_cases(path);
    let train = |model: &str, table: &str, output: &str| {
        let mut arguments = TRAIN[..19].to_vec();
        (arguments[2], arguments[8], arguments[18]) = (table, model, output);
        run(path, &arguments)
    };
    for (model, parts) in [
        ("resnet18", ["gives 2 logits for each pixel", "`resnet18`"]),
        (
            "unet_resnet18-5",
            ["gives 2 logits for each pixel", "which gives 5"],
        ),
    ] {
        let (code, messages) = train(model, "cases.csv", "none");
        assert_eq!(code, Some(1), "{messages}");
        for part in parts {
            assert!(messages.contains(part), "{part} in {messages}");
        }
        assert!(!path.join("none").exists());
    }
    // A mask that is not there.
    let table = std::fs::read_to_string(path.join("cases.csv")).unwrap();
    std::fs::write(path.join("lost.csv"), table.replace("mask_3", "mask_9")).unwrap();
    let (code, messages) = train("unet_resnet18-2", "lost.csv", "none");
    assert_eq!(code, Some(1), "{messages}");
    assert!(messages.contains("1 of 6 masks"), "{messages}");
    // The mask of another slide.
    let options = PyramidOptions::default()
        .with_color(ColorModel::Gray)
        .with_compression(Compression::Deflate);
    let mut other = PyramidWriter::create(path.join("wide.tif"), 64, 80, &options).unwrap();
    other.write_rows(&[0; 64 * 80]).unwrap();
    other.finish().unwrap();
    std::fs::write(
        path.join("wide.csv"),
        table.replace("mask_3.tif", "wide.tif"),
    )
    .unwrap();
    let (code, messages) = train("unet_resnet18-2", "wide.csv", "wide");
    assert_eq!(code, Some(1), "{messages}");
    for part in ["wide.tif", "slide_3.tif", "64 x 80", "64 x 64"] {
        assert!(messages.contains(part), "{part} in {messages}");
    }
    // A class that there is not, which is seen when it is read.
    let mut other = PyramidWriter::create(path.join("seven.tif"), 64, 64, &options).unwrap();
    other.write_rows(&[7; 64 * 64]).unwrap();
    other.finish().unwrap();
    std::fs::write(
        path.join("seven.csv"),
        table.replace("mask_0.tif", "seven.tif"),
    )
    .unwrap();
    let (code, messages) = train("unet_resnet18-2", "seven.csv", "seven");
    assert_eq!(code, Some(1), "{messages}");
    for part in ["seven.tif", "slide_0.tif", "background, dark", "found 7 at"] {
        assert!(messages.contains(part), "{part} in {messages}");
    }
}
