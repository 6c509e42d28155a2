//! Where the real and the broken slides are: the test assets published with the `openslide-rs` crate, which is a dependency
//! and so lies in cargo's registry; nothing is copied into this repository.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `default.svs` (Aperio CMU-1-Small-Region), `boxes.tiff` and the broken files.
fn assets() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let package = in_registry().unwrap_or_else(by_metadata);
        package.join("tests").join("assets")
    })
}

/// Looks where cargo unpacks what it downloads.
fn in_registry() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry").join("src")).ok()?;
    registries
        .flatten()
        .filter_map(|registry| std::fs::read_dir(registry.path()).ok())
        .flat_map(Iterator::flatten)
        .find(|package| {
            package
                .file_name()
                .to_string_lossy()
                .starts_with("openslide-rs-")
        })
        .map(|package| package.path())
}

/// Asks cargo, which works for vendored packages too but may have to download every package of the workspace.
fn by_metadata() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| {
            packages
                .iter()
                .find(|package| package["name"] == "openslide-rs")
        })
        .and_then(|package| package["manifest_path"].as_str())
        .expect("openslide-rs is a dependency");
    Path::new(manifest).with_file_name("")
}

pub(crate) fn asset(name: &str) -> PathBuf {
    let path = assets().join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}
