//! What settings are read from and refused for.

use stream_grad::tiling::Reuse;

use super::*;
use crate::optimizer::OptimizerKind;

#[test]
fn defaults_survive_toml_and_pass() {
    let settings = Settings::default();
    let text = settings.to_toml().unwrap();
    assert_eq!(Settings::from_toml(&text).unwrap(), settings);
    assert_eq!(Settings::from_toml("").unwrap(), settings);
    let tables = ["\n[data]", "\n[model]", "\n[train]", "\n[report"];
    let text = format!("\n{text}");
    let places = tables.map(|table| text.find(table).unwrap());
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn unknown_and_illegal_settings_are_named() {
    for (text, part) in [
        ("[train]\nepochs = 0\n", "train.epochs"),
        ("[train]\nbatch_size = 0\n", "train.batch_size"),
        ("[train]\nmax_norm = -1.0\n", "train.max_norm"),
        ("[data]\nmicrons_per_pixel = []\n", "data.microns_per_pixel"),
        (
            "[data]\ntask = { kind = \"classification\", classes = 1 }\n",
            "data.task.classes",
        ),
        (
            "[data]\ntask = { kind = \"segmentation\", classes = 256 }\n",
            "data.task.classes",
        ),
        (
            "[data]\ntask = { kind = \"segmentation\", classes = 2 }\n[train]\nsampling = \"balanced\"\n",
            "train.sampling",
        ),
        ("[data]\nmask_column = \"\"\n", "data.mask_column"),
        ("[data]\nignore_index = 256\n", "256"),
        ("[train]\ndice_weight = -1.0\n", "train.dice_weight"),
        (
            "[data.read]\ndeviation = [0.0, 1.0, 1.0]\n",
            "data.read.deviation",
        ),
        (
            "[data.read]\nscale_override = 0.0\n",
            "data.read.scale_override",
        ),
        ("[data.read]\nbackground = \"paint\"\n", "paint"),
        ("[data.read]\nbackground_color = [1, 2, 256]\n", "256"),
        ("[data.read]\nstain = { kind = \"vahadane\" }\n", "vahadane"),
        (
            "[data.read.stain]\nkind = \"reinhard\"\nreference = { mean = [1.0, 1.0, 1.0], deviation = [1.0, 0.0, 1.0] }\n",
            "data.read.stain.reference",
        ),
        ("[train.optimizer]\nkind = \"adam\"\n", "adam"),
        (
            "[train.optimizer]\nkind = \"sgd\"\nmomentum = -0.9\nweight_decay = 0.0\n",
            "train.optimizer.momentum",
        ),
        (
            "[train.schedule]\nkind = \"one_cycle\"\npct_start = 30.0\ndiv_factor = 25.0\nfinal_div_factor = 1e4\n",
            "train.schedule.pct_start",
        ),
        ("[model]\nthreads = 999999\n", "model.threads"),
        ("[model]\ndtype = \"f16\"\n", "f16"),
        (
            "[data.read]\ndecoding_threads = 4000\n",
            "data.read.decoding_threads",
        ),
    ] {
        let message = Settings::from_toml(text).unwrap_err().to_string();
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

/// Of a table that names its kind, other keys may lack as everywhere.
#[test]
fn kinds_have_defaults() {
    let settings = Settings::from_toml(
        "[train.optimizer]\nkind = \"sgd\"\n[train.schedule]\nkind = \"one_cycle\"\npct_start = 0.1\n",
    )
    .unwrap();
    let OptimizerKind::Sgd {
        momentum,
        weight_decay,
    } = settings.train.optimizer
    else {
        panic!("{:?}", settings.train.optimizer)
    };
    assert_eq!((momentum, weight_decay), (0.9, 0.0));
    let text = "[train.optimizer]\nkind = \"muon\"\n[train.schedule]\nkind = \"one_cycle\"\n";
    let settings = Settings::from_toml(text).unwrap();
    assert_eq!(settings, Settings::default());
}

/// Settings of a larger machine say what is legal on this one.
#[test]
fn thread_counts_are_refused_with_both_numbers() {
    let most = 4 * stream_grad::cores();
    for section in ["[model]\nthreads", "[data.read]\ndecoding_threads"] {
        let with = |threads: usize| Settings::from_toml(&format!("{section} = {threads}\n"));
        with(most).unwrap();
        let message = with(most + 1).unwrap_err().to_string();
        let numbers = [
            format!("at most {most} threads"),
            format!("found {}", most + 1),
        ];
        assert!(
            numbers.iter().all(|number| message.contains(number)),
            "{message}"
        );
    }
}

#[test]
fn stains_are_named_and_their_reference_is_written_down() {
    for kind in ["as_read", "macenko", "reinhard"] {
        let text = format!("[data.read]\nstain = {{ kind = \"{kind}\" }}\n");
        let settings = Settings::from_toml(&text).unwrap();
        let written = settings.to_toml().unwrap();
        assert_eq!(
            written.contains("[data.read.stain.reference]"),
            kind != "as_read"
        );
        assert_eq!(Settings::from_toml(&written).unwrap(), settings);
    }
}

/// Of the settings that a run before this one stored, a background is as it was read.
#[test]
fn a_background_is_as_read_unless_it_is_filled() {
    let read = |text: &str| Settings::from_toml(text).unwrap().data.read;
    assert_eq!(read("").background.reuse(), Reuse::Nothing);
    let text = "[data.read]\nbackground = \"fill\"\nbackground_color = [242, 240, 243]\n";
    let filled = read(text);
    assert_eq!(filled.background.reuse(), Reuse::OneColor);
    assert_eq!(filled.background_color, Some([242, 240, 243]));
    let written = Settings::from_toml(text).unwrap().to_toml().unwrap();
    assert_eq!(read(&written), filled);
}

#[test]
fn files_are_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let message = || Settings::read(&path).unwrap_err().to_string();
    assert!(message().contains(FILE));
    for text in ["colour = 1", "[train]\nepochs = 0", "[train"] {
        std::fs::write(&path, text).unwrap();
        assert!(message().contains(FILE), "{}", message());
    }
    Settings::default().write(&path).unwrap();
    assert_eq!(Settings::read(&path).unwrap(), Settings::default());
}
