//! `vjp` as another program would call it, against PyTorch's values in `golden`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure is the test's message"
)]

#[path = "../../slides/tests/common/assets.rs"]
mod slide_files;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use candle_core::{DType, Device, Tensor};
use stream_grad_slides::{MicronsPerPixel, Slide, Target};

/// Largest relative L2 error of a tensor: sums of thousands of f64 terms in another order.
const TOLERANCE: f64 = 1e-12;

struct Files {
    folder: tempfile::TempDir,
    golden: HashMap<String, Tensor>,
}

impl Files {
    /// Weights, image and cotangent of the paper's comparison network, as `vjp` takes them.
    fn new() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/numerics.safetensors");
        let golden = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
            golden,
        };
        let weights = files
            .golden
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix("weight/")?, tensor.clone())));
        candle_core::safetensors::save(&weights.collect(), files.path("w.safetensors")).unwrap();
        files.save_input(&files.golden["y_bar"]);
        files
    }

    fn save_input(&self, y_bar: &Tensor) {
        let input = self.golden["input"].to_dtype(DType::F64).unwrap();
        let tensors = HashMap::from([("input", input), ("y_bar", y_bar.clone())]);
        candle_core::safetensors::save(&tensors, self.path("x.safetensors")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn vjp(&self, model: &str, arguments: &[&str]) -> Output {
        let input = ["--input", "x.safetensors", "--output", "g.safetensors"];
        self.vjp_of(model, &[&input, arguments].concat())
    }

    fn vjp_of(&self, model: &str, arguments: &[&str]) -> Output {
        self.command(model, arguments).output().unwrap()
    }

    fn command(&self, model: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stream-grad"));
        command
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .current_dir(self.folder.path())
            .args(["vjp", "--model", model, "--weights", "w.safetensors"])
            .args(arguments);
        command
    }

    /// Files beside the output that are under way, or were.
    fn partial(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with(".g.safetensors."))
            .count()
    }

    /// An image of 1024 x 1024 pixels, of which tiles of 32 save several mebibytes.
    fn save_large_input(&self) {
        let image = Tensor::rand(-1f32, 1.0, (1, 3, 1024, 1024), &Device::Cpu).unwrap();
        let shape = (1, 16, features(1024), features(1024));
        let y_bar = Tensor::rand(-1f32, 1.0, shape, &Device::Cpu).unwrap();
        let tensors = HashMap::from([("input", image), ("y_bar", y_bar)]);
        candle_core::safetensors::save(&tensors, self.path("x.safetensors")).unwrap();
    }
}

/// The edge of the network's features: three times two 3 x 3 convolutions without padding, and pooling by 2.
fn features(edge: usize) -> usize {
    (0..3).fold(edge, |edge, _| (edge - 4) / 2)
}

fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let norm = |tensor: &Tensor| {
        tensor
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .sqrt()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
    };
    norm(&(found - expected).unwrap()) / norm(expected)
}

/// Gradients of this network go through activations near 0 and through maxima that are nearly equal: rounding to three digits decides many
/// of them the other way, in PyTorch as here.
#[test]
fn in_bf16_errors_are_those_of_pytorchs_autocast() {
    let files = Files::new();
    let arguments = ["--dtype", "bf16", "--input-gradient", "--threads", "2"];
    let output = files.vjp("numerics", &[&arguments[..], &["--tile", "24"]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let found = candle_core::safetensors::load(files.path("g.safetensors"), &Device::Cpu).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/autocast.json");
    let text = std::fs::read_to_string(path).unwrap();
    let autocast: HashMap<String, f64> = serde_json::from_str(&text).unwrap();
    assert_eq!(found.len(), autocast.len(), "{:?}", found.keys());
    let mut ratios = Vec::new();
    for (name, tensor) in &found {
        assert_eq!(tensor.dtype(), DType::F32, "{name}");
        let golden = if name == "y" || name == "x_bar" {
            name.clone()
        } else {
            format!("gradient/{name}")
        };
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        let error = relative_error(&tensor, &files.golden[&golden]);
        let ratio = error / autocast[&golden];
        assert!(error > 1e-5 && ratio < 1.05, "{name}: {error:e}, {ratio}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[ratios.len() / 2] < 1.01, "{ratios:?}");
}

#[test]
fn features_and_gradients_are_those_of_pytorch_within_the_promised_memory() {
    let files = Files::new();
    for cut in [
        &["--tile", "8"][..],
        &["--tile", "24", "--block", "32"],
        &["--memory", "64MiB"],
        &["--tile", "8", "--offload", "."],
    ] {
        let common = [
            "--dtype",
            "f64",
            "--input-gradient",
            "--threads",
            "2",
            "--report",
            "r.json",
        ];
        let output = files.vjp("numerics", &[&common, cut].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );

        let found =
            candle_core::safetensors::load(files.path("g.safetensors"), &Device::Cpu).unwrap();
        assert_eq!(found.len(), 2 + 12, "{:?}", found.keys());
        for (name, tensor) in &found {
            let golden = if name == "y" || name == "x_bar" {
                name.clone()
            } else {
                format!("gradient/{name}")
            };
            let error = relative_error(tensor, &files.golden[&golden]);
            assert!(
                error < TOLERANCE,
                "{name} differs by {error:e} with {cut:?}"
            );
        }

        let report = std::fs::read_to_string(files.path("r.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let number = |key: &str| {
            report[key]
                .as_u64()
                .unwrap_or_else(|| panic!("{key} is missing in {report}"))
        };
        for key in [
            "blocks",
            "segments",
            "tiles",
            "flops",
            "threads",
            "measured_peak_bytes",
        ] {
            assert!(number(key) > 0, "{key} is 0 in {report}");
        }
        assert!(
            number("measured_peak_bytes") <= number("planned_peak_bytes"),
            "{report}"
        );
        assert!(report["compute_ratio"].as_f64().unwrap() >= 1.0, "{report}");
    }
}

#[test]
fn bad_input_is_named_and_nothing_is_written() {
    let files = Files::new();
    let fails = |model: &str, arguments: &[&str], expected: &[&str]| {
        let output = files.vjp(model, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && !message.contains("panicked"),
            "{message}"
        );
        for part in expected {
            assert!(message.contains(part), "{message} lacks {part}");
        }
        assert!(
            !files.path("g.safetensors").exists(),
            "an output was written"
        );
    };
    fails(
        "resnet19",
        &[],
        &["`resnet19`", "resnet18", "numerics", "imagenette"],
    );
    fails("imagenette", &[], &["w.safetensors"]);
    fails("numerics", &["--memory", "1KiB"], &["1024"]);
    fails("numerics", &["--tile", "0"], &["--tile"]);
    fails("numerics", &["--offload", "missing"], &["missing"]);
    fails(
        "numerics",
        &["--offload", "w.safetensors"],
        &["w.safetensors"],
    );
    let transposed = files.golden["y_bar"]
        .transpose(2, 3)
        .unwrap()
        .contiguous()
        .unwrap();
    files.save_input(&transposed);
    fails(
        "numerics",
        &[],
        &["`y_bar`", "[1, 16, 4, 3]", "[1, 16, 3, 4]"],
    );
    std::fs::remove_file(files.path("x.safetensors")).unwrap();
    fails("numerics", &[], &["x.safetensors"]);
}

#[test]
fn no_output_is_written_over_an_input_or_the_other_output() {
    let files = Files::new();
    let slide = files.path("slide.svs");
    std::fs::copy(slide_files::asset("default.svs"), &slide).unwrap();
    std::fs::create_dir(files.path("x")).unwrap();
    std::fs::hard_link(files.path("w.safetensors"), files.path("hard.safetensors")).unwrap();
    let content = |name: &str| std::fs::read(files.path(name)).unwrap();
    let inputs = ["x.safetensors", "w.safetensors", "slide.svs"];
    let before = inputs.map(content);
    let tensors = ["--input", "x.safetensors"];
    let slide = ["--slide", "slide.svs", "--mpp", "8"];
    let cases: [(&[&str], &[&str], [&str; 2]); 7] = [
        (
            &tensors,
            &["--output", "x.safetensors"],
            ["x.safetensors", "read"],
        ),
        (
            &tensors,
            &["--output", "x/../w.safetensors"],
            ["w.safetensors", "read"],
        ),
        (
            &tensors,
            &["--output", "hard.safetensors"],
            ["w.safetensors", "read"],
        ),
        (&slide, &["--output", "./slide.svs"], ["slide.svs", "read"]),
        (
            &slide,
            &["--output", "w.safetensors"],
            ["w.safetensors", "read"],
        ),
        (
            &tensors,
            &["--output", "g.safetensors", "--report", "w.safetensors"],
            ["w.safetensors", "read"],
        ),
        (
            &tensors,
            &[
                "--output",
                "g.safetensors",
                "--report",
                "x/../g.safetensors",
            ],
            ["--output", "--report"],
        ),
    ];
    for (source, outputs, parts) in cases {
        let run = files.vjp_of("numerics", &[source, outputs].concat());
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(
            !run.status.success() && !message.contains("panicked"),
            "{message}"
        );
        for part in parts {
            assert!(message.contains(part), "{message} lacks {part}");
        }
        assert!(
            inputs.map(content) == before,
            "{outputs:?} changed an input"
        );
        assert!(
            !files.path("g.safetensors").exists(),
            "an output was written"
        );
    }
}

#[test]
fn a_slide_is_the_image_that_a_tensor_of_its_pixels_would_be() {
    let files = Files::new();
    let path = slide_files::asset("default.svs");
    let microns = MicronsPerPixel::new(8.0).unwrap();
    let view = Slide::open(&path).unwrap();
    let view = view.view(Target::MicronsPerPixel(microns)).unwrap();
    let (height, width) = (view.extent().height, view.extent().width);
    let mut rgb = vec![0; usize::try_from(height * width * 3).unwrap()];
    view.read(&view.extent().region(), &mut rgb).unwrap();
    let (rows, columns) = (
        usize::try_from(height).unwrap(),
        usize::try_from(width).unwrap(),
    );
    let pixels: Vec<f64> = rgb.iter().map(|&level| f64::from(level) / 255.0).collect();
    let image = Tensor::from_vec(pixels, (1, rows, columns, 3), &Device::Cpu).unwrap();
    let image = image.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    let shape = (1, 16, features(rows), features(columns));
    let ones = Tensor::ones(shape, DType::F64, &Device::Cpu).unwrap();
    let tensors = HashMap::from([("input", image), ("y_bar", ones)]);
    candle_core::safetensors::save(&tensors, files.path("x.safetensors")).unwrap();

    let slide = path.to_str().unwrap();
    let sources = [
        (
            &[
                "--slide",
                slide,
                "--mpp",
                "8",
                "--output",
                "slide.safetensors",
            ][..],
            "slide.safetensors",
        ),
        (
            &["--input", "x.safetensors", "--output", "tensor.safetensors"],
            "tensor.safetensors",
        ),
    ];
    let [from_slide, from_tensor] = sources.map(|(source, output)| {
        let common = ["--tile", "48", "--dtype", "f64", "--input-gradient"];
        let run = files.vjp_of("numerics", &[source, &common].concat());
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{message}");
        candle_core::safetensors::load(files.path(output), &Device::Cpu).unwrap()
    });
    assert_eq!(from_slide.len(), from_tensor.len());
    let values = |tensor: &Tensor| -> Vec<f64> { tensor.flatten_all().unwrap().to_vec1().unwrap() };
    for (name, tensor) in &from_slide {
        assert_eq!(values(tensor), values(&from_tensor[name]), "{name}");
    }
}

/// In one tile, and in tiles of which those of one colour are computed once.
#[test]
fn a_filled_background_gives_the_same_however_it_is_cut() {
    let files = Files::new();
    let slide = slide_files::asset("default.svs");
    let slide = slide.to_str().unwrap();
    let [whole, tiles] = [("4096", "whole"), ("32", "tiles")].map(|(tile, name)| {
        let (output, report) = (format!("{name}.safetensors"), format!("{name}.json"));
        let arguments = [
            "--slide",
            slide,
            "--mpp",
            "4",
            "--background",
            "fill",
            "--dtype",
            "f64",
            "--input-gradient",
            "--tile",
            tile,
            "--output",
            &output,
            "--report",
            &report,
        ];
        let run = files.vjp_of("numerics", &arguments);
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{message}");
        let report = std::fs::read_to_string(files.path(&report)).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(
            report["recipe"].as_str().unwrap().contains("one colour"),
            "{report}"
        );
        let bytes = |key: &str| report[key].as_u64().unwrap();
        assert!(
            bytes("measured_peak_bytes") <= bytes("planned_peak_bytes"),
            "{report}"
        );
        candle_core::safetensors::load(files.path(&output), &Device::Cpu).unwrap()
    });
    let values = |tensor: &Tensor| -> Vec<f64> { tensor.flatten_all().unwrap().to_vec1().unwrap() };
    assert_eq!(values(&tiles["y"]), values(&whole["y"]));
    for (name, tensor) in &tiles {
        let error = relative_error(tensor, &whole[name]);
        assert!(error < TOLERANCE, "{name} differs by {error:e}");
    }
}

#[test]
fn reading_a_slide_is_within_the_budget() {
    let files = Files::new();
    let slide = slide_files::asset("default.svs");
    let arguments = ["--mpp", "2", "--memory", "48MiB", "--report", "r.json"];
    let output = [
        "--output",
        "g.safetensors",
        "--slide",
        slide.to_str().unwrap(),
    ];
    let run = files.vjp_of("numerics", &[&output[..], &arguments].concat());
    let message = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{message}");
    let report = std::fs::read_to_string(files.path("r.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let bytes = |key: &str| report[key].as_u64().unwrap();
    let (planned, measured) = (bytes("planned_peak_bytes"), bytes("measured_peak_bytes"));
    assert!(
        measured <= planned && planned <= 48 << 20,
        "{measured}, {planned}"
    );

    let fails = |arguments: &[&str], expected: &str| {
        let output = ["--output", "none.safetensors"];
        let run = files.vjp_of("numerics", &[&output, arguments].concat());
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(
            !run.status.success() && message.contains(expected),
            "{message}"
        );
        assert!(!message.contains("panicked"), "{message}");
        assert!(
            !files.path("none.safetensors").exists(),
            "an output was written"
        );
    };
    fails(&["--slide", "nowhere.svs"], "nowhere.svs");
    fails(&["--slide", slide.to_str().unwrap(), "--mpp", "-1"], "-1");
    fails(
        &["--slide", slide.to_str().unwrap(), "--memory", "2MiB"],
        "needs",
    );
}

/// What `vjp` needs to stream the large input through a file in the folder `offloaded`.
const SPILLED: [&str; 6] = [
    "--input",
    "x.safetensors",
    "--tile",
    "32",
    "--offload",
    "offloaded",
];

#[test]
fn processes_that_share_an_offload_folder_give_what_one_in_memory_gives() {
    let files = Files::new();
    files.save_large_input();
    std::fs::create_dir(files.path("offloaded")).unwrap();
    let names = ["a.safetensors", "b.safetensors", "memory.safetensors"];
    let runs = names.map(|name| {
        // The last one has no file.
        let given = if name == names[2] { 4 } else { 6 };
        let output = [&SPILLED[..given], &["--output", name]].concat();
        let mut command = files.command("numerics", &output);
        command.stderr(Stdio::null()).spawn().unwrap()
    });
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    let [a, b, memory] =
        names.map(|name| candle_core::safetensors::load(files.path(name), &Device::Cpu).unwrap());
    let bits = |tensor: &Tensor| -> Vec<u32> {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        values.iter().map(|value| value.to_bits()).collect()
    };
    assert_eq!(memory.len(), 13);
    for (name, tensor) in &memory {
        assert!(bits(&a[name]) == bits(tensor), "{name} differs");
        assert!(bits(&b[name]) == bits(tensor), "{name} differs");
    }
    let left = std::fs::read_dir(files.path("offloaded")).unwrap().count();
    assert_eq!(left, 0, "a file was left");
}

#[cfg(target_os = "linux")]
#[test]
fn an_offload_folder_that_fills_up_is_named_and_nothing_is_written() {
    let files = Files::new();
    files.save_large_input();
    std::fs::create_dir(files.path("offloaded")).unwrap();
    // A limit on the size of files stands for a full disk: the output is smaller, what is saved is larger.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    let streamed = files.command(
        "numerics",
        &[&SPILLED[..], &["--output", "g.safetensors"]].concat(),
    );
    let mut limited = Command::new("bash");
    limited.args(["-c", script]).arg(streamed.get_program());
    limited
        .args(streamed.get_args())
        .current_dir(files.folder.path());
    let run = limited.output().unwrap();
    let message = String::from_utf8_lossy(&run.stderr);
    assert!(
        !run.status.success() && message.contains("offloaded"),
        "{message}"
    );
    assert!(!message.contains("panicked"), "{message}");
    assert!(
        !files.path("g.safetensors").exists(),
        "an output was written"
    );
}

/// A limit on the size of files stands for a full disk.
#[cfg(unix)]
#[test]
fn a_disk_without_room_for_the_output_is_told_with_its_name() {
    let files = Files::new();
    let streamed = files.command(
        "numerics",
        &["--input", "x.safetensors", "--output", "g.safetensors"],
    );
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(streamed.get_program())
        .args(streamed.get_args())
        .current_dir(files.folder.path());
    let run = limited.output().unwrap();
    let message = String::from_utf8_lossy(&run.stderr);
    assert!(
        !run.status.success() && message.contains("g.safetensors: File too large"),
        "{message}"
    );
    assert!(!message.contains("panicked"), "{message}");
    assert!(!files.path("g.safetensors").exists() && files.partial() == 0);
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_of_a_process_that_is_killed() {
    let files = Files::new();
    files.save_large_input();
    std::fs::create_dir(files.path("offloaded")).unwrap();
    let arguments = [&SPILLED[..], &["--output", "g.safetensors"]].concat();
    let mut command = files.command("numerics", &arguments);
    let mut run = command.stderr(Stdio::null()).spawn().unwrap();
    let open = format!("/proc/{}/fd", run.id());
    let folder = files.path("offloaded").canonicalize().unwrap();
    let offloads = || {
        let links = std::fs::read_dir(&open).into_iter().flatten().flatten();
        links
            .filter_map(|link| std::fs::read_link(link.path()).ok())
            .any(|target| target.starts_with(&folder))
    };
    while !offloads() {
        let ended = run.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before it offloaded: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "a file was left"
    );
    // What was written of the output is removed by the next run.
    assert_eq!(files.partial(), 1);
    files.save_input(&files.golden["y_bar"]);
    assert!(files.vjp("numerics", &[]).status.success());
    assert_eq!(files.partial(), 0);
}
