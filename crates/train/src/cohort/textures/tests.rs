//! Textures repeat, and neither colour nor contrast tells them apart.

use super::*;

fn config() -> TexturesConfig {
    TexturesConfig {
        size: 64,
        train: 3,
        validation: 1,
        ..TexturesConfig::default()
    }
}

fn make(config: &TexturesConfig, folder: &Path) -> bool {
    generate(config, folder, &AtomicBool::new(false), &|_, _| {}).unwrap()
}

#[test]
fn pictures_repeat_and_go_on() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(!generate(&config(), first.path(), &AtomicBool::new(true), &|_, _| {}).unwrap());
    assert!(make(&config(), first.path()) && make(&config(), second.path()));
    for class in CLASSES {
        let name = Path::new("train").join(class).join("0002.jpg");
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        assert!(read(first.path()) == read(second.path()), "{class}");
    }
    let other = TexturesConfig {
        seed: 1,
        ..config()
    };
    let error = generate(&other, first.path(), &AtomicBool::new(false), &|_, _| {});
    assert!(error.unwrap_err().to_string().contains("textures.json"));
    let wrong = TexturesConfig {
        size: 4,
        ..config()
    };
    let error = generate(&wrong, second.path(), &AtomicBool::new(false), &|_, _| {});
    assert!(
        matches!(&error, Err(TrainError::Setting { setting, found, .. }) if setting == "textures.size" && found == "4"),
        "{error:?}"
    );
}

#[test]
fn pictures_of_someone_else_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("train")).unwrap();
    let made = generate(
        &config(),
        folder.path(),
        &AtomicBool::new(false),
        &|_, _| {},
    );
    assert!(made.unwrap_err().to_string().contains("other data"));
}

/// Before noise, every picture of every class has the same share of each grey value: ranks are a permutation.
#[test]
fn every_class_has_the_same_greys() {
    for class in 0..CLASSES.len() {
        let texture = Texture::draw(&mut ChaCha8Rng::seed_from_u64(3));
        let field: Vec<f64> = (0..64 * 64)
            .map(|i| texture.value(class, f64::from(i / 64), f64::from(i % 64)))
            .collect();
        let mut sorted = ranks(&field);
        sorted.sort_by(f64::total_cmp);
        for (place, rank) in (0_i32..).zip(sorted) {
            assert_eq!(rank, f64::from(place) / 4096.0);
        }
    }
}

/// Colours are drawn before anything that depends on the class, so the same picture of two classes has the same colours.
#[test]
fn colours_do_not_depend_on_the_class() {
    let mean = |class: usize| {
        let rgb = paint(&config(), class, 7);
        let sum = |channel: usize| {
            let values = rgb.iter().skip(channel).step_by(3);
            values.map(|value| f64::from(*value)).sum::<f64>() / 4096.0
        };
        [sum(0), sum(1), sum(2)]
    };
    let first = mean(0);
    for class in 1..CLASSES.len() {
        for (a, b) in first.iter().zip(mean(class)) {
            assert!((a - b).abs() < 1.5, "{class}: {a} and {b}");
        }
    }
}
