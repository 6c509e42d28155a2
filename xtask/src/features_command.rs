//! `cargo xtask features`: each crate by itself, with every set of its features. In the workspace a feature that one crate asks for
//! hides that another one needs it.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use crate::{reenter, setup};

/// Checks every crate of the workspace with every set of its features, warnings denied, and names those that fail. What needs
/// OpenSlide 4 is left out where that is not installed, and this is said.
///
/// # Errors
/// If cargo cannot be started or says nothing that can be read.
pub fn run() -> anyhow::Result<ExitCode> {
    let has_openslide_4 = setup::has_openslide_4();
    if !has_openslide_4 {
        println!("OpenSlide 4 is not installed: sets with the feature openslide4 are left out.");
    }
    let (mut checked, mut failed) = (0, Vec::new());
    for package in packages()? {
        let offered = package.features.iter().map(String::as_str);
        let possible = offered.filter(|name| has_openslide_4 || *name != "openslide4");
        for set in sets(&possible.collect::<Vec<_>>()) {
            let label = format!("{} with features [{set}]", package.name);
            println!("{label}");
            let mut command = reenter::cargo();
            command.args(["clippy", "--locked", "--quiet", "--package", &package.name]);
            command.args(["--no-default-features", "--features", &set]);
            command.args(["--", "--deny", "warnings"]);
            if !command.status().context("starting cargo")?.success() {
                failed.push(label);
            }
            checked += 1;
        }
    }
    if failed.is_empty() {
        println!("All {checked} sets compile.");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("These of {checked} do not compile, or warn:");
    for name in failed {
        eprintln!("    {name}");
    }
    Ok(ExitCode::FAILURE)
}

/// A crate of the workspace.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    features: Vec<String>,
}

fn packages() -> anyhow::Result<Vec<Package>> {
    let mut command = reenter::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1", "--locked"]);
    let output = command.output().context("starting cargo")?;
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "cargo metadata failed: {told}");
    packages_of(&output.stdout)
}

/// The packages that `cargo metadata` lists.
fn packages_of(metadata: &[u8]) -> anyhow::Result<Vec<Package>> {
    let metadata: Value = serde_json::from_slice(metadata).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = |package: &Value| {
        let features = package["features"].as_object().context("no features")?;
        let features = features.keys().filter(|name| *name != "default").cloned();
        Ok(Package {
            name: package["name"].as_str().context("no name")?.to_owned(),
            features: features.collect(),
        })
    };
    packages.iter().map(package).collect()
}

/// Every set of some features, as cargo takes them.
fn sets(features: &[&str]) -> Vec<String> {
    let is_in = |set: usize, place: usize| set >> place & 1 == 1;
    let sets = (0..1_usize << features.len()).map(|set| {
        let chosen = features.iter().enumerate();
        let chosen = chosen.filter(|(place, _)| is_in(set, *place));
        chosen.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
    });
    sets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_all_there_are() {
        assert_eq!(sets(&[]), [""]);
        assert_eq!(sets(&["a", "b"]), ["", "a", "b", "a,b"]);
    }

    #[test]
    fn packages_are_named_with_what_they_offer() {
        let metadata = r#"{"packages": [
            {"name": "plain", "features": {}},
            {"name": "rich", "features": {"default": ["a"], "a": [], "b": ["dep:c"]}}
        ]}"#;
        let package = |name: &str, features: &[&str]| Package {
            name: name.to_owned(),
            features: features.iter().map(|&name| name.to_owned()).collect(),
        };
        let found = packages_of(metadata.as_bytes()).unwrap();
        assert_eq!(found, [package("plain", &[]), package("rich", &["a", "b"])]);
        let error = packages_of(br#"{"packages": [{"name": "plain"}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "no features");
    }
}
