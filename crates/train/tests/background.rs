//! A filled background: one colour where a slide has no tissue, through every augmentation, with the results of computing all of it, and
//! without decoding it.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]
#![allow(clippy::result_large_err, reason = "a loss has the error of its crate")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::tiling::{Recipe, Reuse};
use stream_grad::{
    CheckedSource, Conv2d, Net, NetBuilder, PlanRequest, Pool2d, Rect, Span, StridedMut, TileMut,
    TileSource,
};
use stream_grad_models::seeded;
use stream_grad_slides::{
    BlockCache, Compression, Mask, MicronsPerPixel, OpenOptions, PyramidOptions, PyramidWriter,
    Slide, SlideView, Target, TissueOptions,
};
use stream_grad_train::augment::{Augmentation, Augmented, Axes, Order};
use stream_grad_train::model::{Model, ModelSettings, StreamedModel};
use stream_grad_train::settings::Settings;
use stream_grad_train::source::{Background, ImageLoader, ReadSettings, SlideLoader, SlideSource};

/// Edge of the slide, a micron a pixel.
const EDGE: u64 = 1536;
/// Middle and radius of its tissue.
const MIDDLE: (i64, i64) = (560, 660);
const RADIUS: i64 = 230;
const COLOR: [u8; 3] = [242, 240, 243];

/// Glass that varies from pixel to pixel, with a disc of pink noise.
fn slide(folder: &Path) -> PathBuf {
    let path = folder.join("slide.tif");
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_microns_per_pixel(micron());
    let mut writer = PyramidWriter::create(&path, EDGE, EDGE, &options).unwrap();
    let edge = i64::try_from(EDGE).unwrap();
    let mut rgb = Vec::new();
    for row in 0..edge {
        for column in 0..edge {
            let mixed = (row * 7919 + column * 104_729).wrapping_mul(0x5851_f42d_4c95_7f2d);
            let noise = mixed.to_be_bytes()[1] % 40;
            let (down, across) = (row - MIDDLE.0, column - MIDDLE.1);
            if down * down + across * across < RADIUS * RADIUS {
                rgb.extend([180 + noise, 70 + noise, 140 + noise]);
            } else {
                rgb.extend([238 + noise % 5, 238 + noise % 7, 238 + noise % 3]);
            }
        }
    }
    writer.write_rows(&rgb).unwrap();
    writer.finish().unwrap();
    path
}

fn micron() -> MicronsPerPixel {
    MicronsPerPixel::new(1.0).unwrap()
}

fn settings() -> ReadSettings {
    ReadSettings {
        background: Background::Fill,
        background_color: Some(COLOR),
        ..ReadSettings::default()
    }
}

fn view(path: &Path, cache: u64) -> SlideView {
    let options = OpenOptions::default().with_cache(Arc::new(BlockCache::new(cache)));
    let slide = Slide::open_with(path, &options).unwrap();
    slide.view(Target::MicronsPerPixel(micron())).unwrap()
}

fn read(source: &dyn TileSource, region: Rect) -> Vec<f32> {
    let length = region.width() * 3;
    let mut values = vec![f32::NAN; region.height() * length];
    let tile = StridedMut::new(&mut values, region.height(), length, length).unwrap();
    source.read(0, region, TileMut::F32(tile)).unwrap();
    values
}

/// Squares of `edge` pixels.
fn squares(edge: i64) -> impl Iterator<Item = Rect> {
    let places = move || (0..i64::try_from(EDGE).unwrap()).step_by(usize::try_from(edge).unwrap());
    places().flat_map(move |row| {
        places().map(move |column| {
            Rect::new(Span::new(row, row + edge), Span::new(column, column + edge))
        })
    })
}

#[test]
fn what_is_far_from_tissue_has_the_colour_and_the_rest_is_as_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = slide(folder.path());
    let filled = SlideSource::new(view(&path, 0), &settings()).unwrap();
    let as_read = SlideSource::new(view(&path, 0), &ReadSettings::default()).unwrap();
    let held = SlideLoader::new(micron(), settings()).unwrap();
    let held = held.load(&path).unwrap();
    let normalised = |channel: usize| {
        let settings = settings();
        let level = f64::from(COLOR[channel]) / 255.0;
        (level - settings.mean[channel]) / settings.deviation[channel]
    };
    let color: Vec<f64> = (0..3).map(normalised).collect();
    let mut counts = [0; 3];
    for region in squares(64) {
        let found = read(&filled, region);
        assert_eq!(found, read(&*held, region), "{region}");
        let told = filled.one_color(0, region).unwrap();
        assert_eq!(told, held.one_color(0, region).unwrap(), "{region}");
        // The corner that is nearest to the middle, and the one that is furthest from it.
        let apart = |span: Span, middle: i64| {
            let (near, far) = (middle.clamp(span.lo, span.hi), (middle - span.lo).abs());
            ((near - middle).abs(), far.max((span.hi - middle).abs()))
        };
        let (down, across) = (
            apart(region.rows, MIDDLE.0),
            apart(region.columns, MIDDLE.1),
        );
        let square = |a: i64, b: i64| a * a + b * b;
        if square(down.0, across.0) > (RADIUS + 150).pow(2) {
            assert_eq!(told.as_ref(), Some(&color), "{region}");
            counts[0] += 1;
        } else if square(down.1, across.1) < (RADIUS + 40).pow(2) {
            assert_eq!(found, read(&as_read, region), "{region}");
            counts[1] += 1;
        } else {
            counts[2] += 1;
        }
        assert_eq!(as_read.one_color(0, region).unwrap(), None);
    }
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
    let whole = Slide::open(&path).unwrap();
    let tissue = Mask::of_tissue(&whole, &TissueOptions::default()).unwrap();
    let share = filled.texture();
    let share = share.numerator() as f64 / share.denominator() as f64;
    assert!(
        share > tissue.share() && share < 2.5 * tissue.share(),
        "{share}"
    );
}

#[test]
fn stains_of_a_filled_background_are_made_alike_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = slide(folder.path());
    let text = "[data.read]\nbackground = \"fill\"\nstain = { kind = \"reinhard\" }\n";
    let settings = Settings::from_toml(text).unwrap().data.read;
    let source = SlideSource::new(view(&path, 0), &settings).unwrap();
    let checked = CheckedSource::new(source, stream_grad::DType::F32);
    let told = squares(64).filter(|&region| checked.one_color(0, region).unwrap().is_some());
    assert!(told.count() > 100);
}

/// A slide in which no tissue is found is shown as it is read.
#[test]
fn a_slide_without_tissue_is_as_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("glass.tif");
    let options = PyramidOptions::default()
        .with_compression(Compression::Deflate)
        .with_microns_per_pixel(micron());
    let mut writer = PyramidWriter::create(&path, 300, 300, &options).unwrap();
    let rgb: Vec<u8> = (0..300 * 300 * 3_u32)
        .map(|at| 240 + u8::try_from(at % 3).unwrap())
        .collect();
    writer.write_rows(&rgb).unwrap();
    writer.finish().unwrap();
    let [filled, as_read] = [settings(), ReadSettings::default()]
        .map(|settings| SlideSource::new(view(&path, 0), &settings).unwrap());
    let region = Rect::whole(300, 300);
    assert_eq!(read(&filled, region), read(&as_read, region));
    assert_eq!(filled.one_color(0, region).unwrap(), None);
}

#[test]
fn turns_crops_and_colour_changes_keep_one_colour() {
    let folder = tempfile::tempdir().unwrap();
    let path = slide(folder.path());
    let source = Arc::new(SlideSource::new(view(&path, 0), &settings()).unwrap());
    for case in 0..8_u32 {
        let order = |bit: u32| match case >> bit & 1 {
            1 => Order::Backward,
            _ => Order::Forward,
        };
        let augmentation = Augmentation {
            crop: Rect::new(Span::new(100, 1400), Span::new(30, 1500)),
            axes: if case > 3 { Axes::Swapped } else { Axes::Kept },
            rows: order(0),
            columns: order(1),
            contrast: [1.1, 0.93, 1.0],
            brightness: [0.03, -0.1, 0.07],
        };
        let augmented = Arc::new(Augmented::new(Arc::clone(&source), augmentation).unwrap());
        let (height, width) = augmented.extent();
        // Two precisions: colours are changed in that of the pixels.
        for dtype in [stream_grad::DType::F32, stream_grad::DType::F64] {
            let checked = CheckedSource::new(Arc::clone(&augmented), dtype);
            let inside = squares(64).filter(|region| Rect::whole(height, width).covers(*region));
            let told = inside.filter(|&region| checked.one_color(0, region).unwrap().is_some());
            assert!(told.count() > 100, "case {case}");
        }
    }
}

/// Two strided convolutions and a pooling.
fn net() -> (Net, VarMap) {
    let variables = VarMap::new();
    let vb: VarBuilder<'_> = seeded(&variables, 3, DType::F64, &Device::Cpu);
    let mut net = NetBuilder::new(3);
    let conv = |from, to| Conv2d::new(from, to, 3).padding(1).stride(2);
    let x = net.conv2d(net.input(), conv(3, 4), vb.pp("a")).unwrap();
    let x = net.max_pool2d(x, Pool2d::new(2)).unwrap();
    let x = net.conv2d(x, conv(4, 6), vb.pp("b")).unwrap();
    (net.build(x).unwrap(), variables)
}

fn list(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.to_dtype(DType::F64).unwrap();
    values.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_filled_background_is_not_decoded_and_changes_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = slide(folder.path());
    let (net, _variables) = net();
    let step = |reuse: Reuse| {
        let view = view(&path, 1 << 30);
        let cache = Arc::clone(view.slide().cache());
        let source = SlideSource::new(view, &settings()).unwrap();
        // Tissue was found at a coarser level.
        let before = cache.bytes();
        let request = PlanRequest::new(EDGE, EDGE).dtype(DType::F64).tile(64);
        let plan = net.plan(request.reuse(reuse)).unwrap();
        let checked = CheckedSource::new(source, stream_grad::DType::F64);
        let source: &dyn TileSource = match reuse {
            Reuse::Nothing => checked.source(),
            Reuse::OneColor => &checked,
        };
        let (features, residuals) = plan.forward(source).unwrap();
        let loss = features.sqr().unwrap().mean_all().unwrap();
        let gradients = plan.backward(residuals, &features, &loss).unwrap();
        let parameters = net.parameters().iter();
        let parameters = parameters.map(|known| list(gradients.get(&known.tensor).unwrap()));
        (
            list(&features),
            parameters.collect::<Vec<_>>(),
            cache.bytes() - before,
        )
    };
    let (expected, gradients, decoded) = step(Reuse::Nothing);
    let (found, reused, decoded_too) = step(Reuse::OneColor);
    assert!(found == expected);
    for (found, expected) in reused.iter().zip(&gradients) {
        let scale = expected
            .iter()
            .fold(0.0_f64, |most, value| most.max(value.abs()));
        let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(error.fold(0.0, f64::max) <= 1e-12 * scale);
    }
    // Of 3 x 3 blocks of 512 pixels, those that tissue and its margin meet: the first two of each row and column.
    for decoded in [decoded, decoded_too] {
        assert_eq!(decoded, 4 * 512 * 512 * 3);
    }
}

#[test]
fn a_model_trains_and_predicts_the_same_with_tiles_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = slide(folder.path());
    let loader = SlideLoader::new(micron(), settings()).unwrap();
    let image = loader.load(&path).unwrap();
    let model = |reuse: Reuse| {
        let settings = ModelSettings {
            memory_bytes: 64 << 20,
            ..ModelSettings::small()
        };
        StreamedModel::new(&settings, 1, 5).unwrap().reuse(reuse)
    };
    let step = |reuse: Reuse| {
        let model = model(reuse);
        let loss = |logits: &Tensor| Ok(logits.sqr()?.sum_all()?);
        let predicted = model.predict(&*image).unwrap();
        let found = model.gradients(&*image, &loss).unwrap();
        assert_eq!(model.recipes()[0].reuse, reuse);
        (predicted, found, model.recipes())
    };
    let (expected, all, _) = step(Reuse::Nothing);
    let (found, once, recipes) = step(Reuse::OneColor);
    assert_eq!(found, expected);
    assert_eq!(once.logits, all.logits);
    let (mut size, mut difference) = (0.0, 0.0);
    for (name, _) in model(Reuse::Nothing).variables() {
        let expected = list(all.gradients.get(&name).unwrap());
        let found = list(once.gradients.get(&name).unwrap());
        size += expected.iter().map(|value| value * value).sum::<f64>();
        let squares = expected.iter().zip(&found).map(|(a, b)| (a - b).powi(2));
        difference += squares.sum::<f64>();
    }
    assert!(
        size > 0.0 && difference <= 1e-10 * size,
        "{difference:e} of {size:e}"
    );
    // A run stores what it began with.
    let text = serde_json::to_string(&recipes).unwrap();
    let stored: Vec<Recipe> = serde_json::from_str(&text).unwrap();
    let resumed = model(Reuse::Nothing);
    resumed.load_recipes(stored);
    assert_eq!(
        resumed
            .gradients(&*image, &|logits| Ok(logits.sqr()?.sum_all()?))
            .unwrap()
            .loss,
        once.loss
    );
    assert_eq!(resumed.recipes(), recipes);
}
