//! `cargo xtask setup`: the system libraries that building needs.
//!
//! Reading slides needs OpenSlide; its Rust bindings find it with pkg-config and are generated with libclang. When all
//! is there this takes milliseconds, so every command calls it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::reenter::is_on_path;

/// Something that building needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    PkgConfig,
    OpenSlide,
    LibClang,
    ClangHeaders,
}

impl Requirement {
    const ALL: [Self; 4] = [
        Self::PkgConfig,
        Self::OpenSlide,
        Self::LibClang,
        Self::ClangHeaders,
    ];

    fn is_met(self) -> bool {
        match self {
            Self::PkgConfig => is_on_path("pkg-config") || is_on_path("pkgconf"),
            Self::OpenSlide => openslide_version().is_some(),
            Self::LibClang => clang_folders().iter().any(|folder| holds_libclang(folder)),
            Self::ClangHeaders => clang_folders()
                .iter()
                .any(|folder| holds_clang_headers(folder)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::PkgConfig => "pkg-config",
            Self::OpenSlide => "OpenSlide with its headers",
            Self::LibClang => "libclang",
            Self::ClangHeaders => "the headers of clang",
        }
    }

    /// The Debian package, given the version of clang that the distribution prefers.
    fn debian_package(self, clang: Option<&str>) -> String {
        match (self, clang) {
            (Self::PkgConfig, _) => "pkg-config".to_owned(),
            (Self::OpenSlide, _) => "libopenslide-dev".to_owned(),
            (Self::LibClang, Some(version)) => format!("libclang1-{version}"),
            (Self::ClangHeaders, Some(version)) => format!("libclang-common-{version}-dev"),
            (Self::LibClang | Self::ClangHeaders, None) => "libclang-dev".to_owned(),
        }
    }
}

/// How to become root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privilege {
    Root,
    Sudo,
    None,
}

/// Makes sure of the system libraries, installing what is missing with apt where that is allowed.
///
/// # Errors
/// If something is missing that cannot be installed here; the message says what to run.
pub fn run() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_on_path("apt-get") {
        bail!(advice(&missing, &other_system()));
    }
    match privilege() {
        Privilege::None => bail!(advice(&missing, &install_line(&packages(&missing)))),
        privilege => install(&missing, privilege)?,
    }
    let missing = self::missing();
    ensure!(
        missing.is_empty(),
        "apt-get succeeded, yet these are still not found: {}",
        names(&missing)
    );
    Ok(())
}

/// Whether the installed OpenSlide is version 4 or later, which can do more: the feature `openslide4`.
#[must_use]
pub fn has_openslide_4() -> bool {
    openslide_version().is_some_and(|version| is_4_or_later(&version))
}

/// The version of OpenSlide that building finds, as pkg-config prints it. The programs are those that the build of the
/// bindings tries.
fn openslide_version() -> Option<String> {
    let programs = match std::env::var_os("PKG_CONFIG") {
        Some(program) => vec![program],
        None => vec!["pkg-config".into(), "pkgconf".into()],
    };
    let output = programs.into_iter().find_map(|program| {
        Command::new(program)
            .args(["--modversion", "openslide"])
            .stderr(Stdio::null())
            .output()
            .ok()
    })?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(version)
}

fn is_4_or_later(version: &str) -> bool {
    let digits = version
        .find(|character: char| !character.is_ascii_digit())
        .map_or(version, |end| &version[..end]);
    digits.parse::<u32>().is_ok_and(|major| major >= 4)
}

/// The features of the workspace that building wants here, as cargo takes them.
#[must_use]
pub fn features(has_openslide_4: bool) -> &'static str {
    if has_openslide_4 {
        "xtask/pipelines,xtask/openslide4"
    } else {
        "xtask/pipelines"
    }
}

/// The features of the program `stream-grad` that building wants here, as cargo takes them.
#[must_use]
pub fn program_features(has_openslide_4: bool) -> &'static str {
    if has_openslide_4 {
        "commands,openslide4"
    } else {
        "commands"
    }
}

/// How the program `stream-grad` is installed here, from the workspace's root.
#[must_use]
pub fn install_command(has_openslide_4: bool) -> String {
    let features = if has_openslide_4 {
        " --features openslide4"
    } else {
        ""
    };
    format!("cargo install --locked --path crates/cli{features}")
}

fn missing() -> Vec<Requirement> {
    Requirement::ALL
        .into_iter()
        .filter(|requirement| !requirement.is_met())
        .collect()
}

fn names(requirements: &[Requirement]) -> String {
    requirements
        .iter()
        .map(|requirement| requirement.name())
        .collect::<Vec<_>>()
        .join(", ")
}

fn advice(missing: &[Requirement], command: &str) -> String {
    format!(
        "missing on this machine: {}. Install with\n\n    {command}\n\nand run this command again",
        names(missing)
    )
}

fn other_system() -> String {
    if is_on_path("brew") {
        "brew install openslide pkgconf llvm".to_owned()
    } else if is_on_path("dnf") {
        "sudo dnf install openslide-devel pkgconf-pkg-config clang-devel".to_owned()
    } else if is_on_path("pacman") {
        "sudo pacman -S openslide pkgconf clang".to_owned()
    } else {
        "the package manager of this system: OpenSlide's development files, pkg-config, libclang"
            .to_owned()
    }
}

fn install_line(packages: &[String]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Debian packages of what is missing, each once.
fn packages(missing: &[Requirement]) -> Vec<String> {
    let clang = preferred_clang();
    let mut packages: Vec<String> = missing
        .iter()
        .map(|requirement| requirement.debian_package(clang.as_deref()))
        .collect();
    packages.dedup();
    packages
}

/// The version of clang behind the distribution's `libclang-dev`, whose own dependencies are far larger than needed.
fn preferred_clang() -> Option<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "libclang-dev"])
        .output()
        .ok()?;
    clang_version(&String::from_utf8_lossy(&output.stdout))
}

fn clang_version(dependencies: &str) -> Option<String> {
    let version = dependencies
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: libclang-"))
        .find_map(|rest| rest.strip_suffix("-dev"))?;
    version
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| version.to_owned())
}

fn privilege() -> Privilege {
    let succeeds = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let user = Command::new("id").arg("-u").output();
    if user.is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
        Privilege::Root
    } else if succeeds("sudo", &["-n", "true"]) {
        Privilege::Sudo
    } else {
        Privilege::None
    }
}

fn install(missing: &[Requirement], privilege: Privilege) -> anyhow::Result<()> {
    eprintln!("Installing {}.", names(missing));
    apt_get(privilege, &["update".to_owned()])?;
    let options = ["install", "--yes", "--no-install-recommends"];
    let packages = packages(missing);
    let arguments: Vec<String> = options
        .map(str::to_owned)
        .into_iter()
        .chain(packages)
        .collect();
    apt_get(privilege, &arguments)
}

fn apt_get(privilege: Privilege, arguments: &[String]) -> anyhow::Result<()> {
    let mut command = match privilege {
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env"]);
            sudo
        }
        Privilege::Root | Privilege::None => Command::new("env"),
    };
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"])
        .args(arguments);
    // Standard output belongs to the command that called for the set-up.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("starting apt-get")?;
    if !status.success() {
        let mut line = String::from("apt-get");
        for argument in arguments {
            write!(line, " {argument}")?;
        }
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Folders in which libclang is looked for, as the generator of the bindings does.
fn clang_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("LIBCLANG_PATH")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    for root in [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/local/lib64",
        "/opt/homebrew/opt/llvm/lib",
    ] {
        folders.push(root.into());
    }
    for entry in entries(Path::new("/usr/lib")) {
        folders.push(entry.join("lib"));
        folders.push(entry);
    }
    folders.push("/usr/local/opt/llvm/lib".into());
    folders.push("/Library/Developer/CommandLineTools/usr/lib".into());
    folders
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}

fn holds_libclang(folder: &Path) -> bool {
    entries(folder).iter().any(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let library = name.strip_prefix("libclang").unwrap_or_default();
        let versioned =
            library.starts_with('.') || library.strip_prefix('-').is_some_and(starts_with_digit);
        versioned && (library.contains(".so") || library.contains(".dylib")) && path.exists()
    })
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_digit())
}

fn holds_clang_headers(folder: &Path) -> bool {
    entries(&folder.join("clang"))
        .iter()
        .any(|version| version.join("include/stddef.h").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clang_version_is_read_from_apt() {
        let bookworm = "libclang-dev\n  Depends: libclang-14-dev\n";
        assert_eq!(clang_version(bookworm), Some("14".to_owned()));
        assert_eq!(
            clang_version("libclang-dev\n  Depends: libclang-common-dev\n"),
            None
        );
        assert_eq!(clang_version(""), None);
    }

    #[test]
    fn packages_are_the_small_ones_where_the_version_is_known() {
        assert_eq!(
            Requirement::LibClang.debian_package(Some("14")),
            "libclang1-14"
        );
        assert_eq!(
            Requirement::ClangHeaders.debian_package(Some("14")),
            "libclang-common-14-dev"
        );
        assert_eq!(
            Requirement::ClangHeaders.debian_package(None),
            "libclang-dev"
        );
    }

    #[test]
    fn openslide_4_is_told_by_its_version() {
        for (version, expected) in [
            ("3.4.1", false),
            ("3.10", false),
            ("4.0.0", true),
            ("4.0.1", true),
            ("4", true),
            ("4.1.0-rc1", true),
            ("10.0", true),
            ("", false),
            ("unknown", false),
            ("99999999999.0", false),
        ] {
            assert_eq!(is_4_or_later(version), expected, "{version}");
        }
    }

    #[test]
    fn openslide_4_is_a_feature() {
        assert_eq!(features(false), "xtask/pipelines");
        assert_eq!(features(true), "xtask/pipelines,xtask/openslide4");
        let command = "cargo install --locked --path crates/cli";
        assert_eq!(install_command(false), command);
        assert_eq!(
            install_command(true),
            format!("{command} --features openslide4")
        );
    }

    #[test]
    fn advice_names_what_is_missing_and_what_to_run() {
        let text = advice(
            &[Requirement::OpenSlide],
            &install_line(&["libopenslide-dev".to_owned()]),
        );
        assert!(text.contains("OpenSlide"), "{text}");
        assert!(
            text.contains("sudo apt-get install -y --no-install-recommends libopenslide-dev"),
            "{text}"
        );
    }

    #[test]
    fn libclang_is_recognised_by_its_file_name() {
        let folder = std::env::temp_dir().join(format!("xtask-libclang-{}", std::process::id()));
        for (file, expected) in [
            ("libclang-cpp.so.14", false),
            ("libclang.a", false),
            ("libclang-14.so.1", true),
            ("libclang.so.1", true),
            ("libclang.dylib", true),
        ] {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), "").unwrap();
            let found = holds_libclang(&folder);
            std::fs::remove_dir_all(&folder).unwrap();
            assert_eq!(found, expected, "{file}");
        }
    }
}
