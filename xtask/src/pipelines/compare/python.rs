//! The Python environment of the peers, made on first use.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail, ensure};
use stream_grad_cli::tell;

use super::process;

/// What the environment takes, as measured on Linux.
const COST: &str = if cfg!(target_os = "linux") {
    "2.5 GB to download, 4.5 GB on disk (the registry's PyTorch for Linux comes with CUDA's libraries)"
} else {
    "about 0.2 GB to download"
};
/// There when the environment is complete.
const MARKER: &str = "complete";

/// The folder of the peers' scripts.
pub(crate) fn scripts() -> PathBuf {
    workspace().join("crates/bench/peers")
}

fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// A Python that has the peers' packages.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    pub(crate) program: PathBuf,
    /// Of Python and the packages.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Python {
    /// The given Python, or the environment's, which is made if it is not there.
    pub(crate) fn prepare(given: Option<&Path>, stop: &AtomicBool) -> anyhow::Result<Self> {
        let program = match given {
            Some(program) => program.to_owned(),
            None => environment(&workspace().join(".cache/compare"), stop)?,
        };
        let versions = versions(&program)?;
        Ok(Self { program, versions })
    }

    /// A command that runs one of the scripts with so many threads.
    pub(crate) fn script(&self, name: &str, threads: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(scripts().join(name));
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

fn versions(program: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let output = Command::new(program)
        .arg(scripts().join("versions.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} lacks a package: {}",
        program.display(),
        message.lines().last().unwrap_or("it said nothing")
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the versions that {} tells", program.display()))
}

/// The environment's Python. Its folder is named after the requirements, so that new ones make a new environment.
fn environment(cache: &Path, stop: &AtomicBool) -> anyhow::Result<PathBuf> {
    let requirements = scripts().join("requirements.txt");
    let text = std::fs::read(&requirements)
        .with_context(|| format!("reading {}", requirements.display()))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let folder = cache.join(format!("python-{:016x}", hasher.finish()));
    let program = if cfg!(windows) {
        folder.join("Scripts/python.exe")
    } else {
        folder.join("bin/python")
    };
    if folder.join(MARKER).exists() {
        return Ok(program);
    }
    let system = system_python()?;
    tell(format_args!(
        "Making a Python environment in {}, this once: {COST}.",
        folder.display()
    ));
    if folder.exists() {
        // What an interrupted run left.
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    let mut venv = Command::new(&system);
    venv.args(["-m", "venv"]).arg(&folder);
    run(&mut venv, stop).context(
        "making a virtual environment failed (on Debian and Ubuntu it needs the package python3-venv)",
    )?;
    let mut pip = Command::new(&program);
    pip.args(["-m", "pip", "install", "--no-deps", "--no-cache-dir"]);
    pip.args(["--disable-pip-version-check", "--requirement"]);
    run(pip.arg(&requirements), stop).context(
        "installing the packages failed: it needs Python 3.11 to 3.15, the network and the space",
    )?;
    std::fs::write(folder.join(MARKER), "")
        .with_context(|| format!("writing to {}", folder.display()))?;
    Ok(program)
}

fn system_python() -> anyhow::Result<PathBuf> {
    for name in ["python3", "python"] {
        let found = Command::new(name)
            .args(["-c", "import sys; sys.exit(sys.version_info < (3, 11))"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_ok_and(|status| status.success()) {
            return Ok(name.into());
        }
    }
    bail!("there is no `python3` of version 3.11 or later on the path")
}

/// Runs a command and shows its output on standard error: standard output is for the table.
fn run(command: &mut Command, stop: &AtomicBool) -> anyhow::Result<()> {
    command.stdout(std::io::stderr());
    match process::wait(command, stop)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{status}"),
        None => bail!("stopped"),
    }
}
