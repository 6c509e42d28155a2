//! Whether two paths lead to one file.

use std::fs;
use std::path::{Path, PathBuf};

use same_file::Handle;

use crate::destination::{folder_of, follow};
use crate::error::{FileError, Result};

/// Refuses an output that is one of the inputs, whatever it is called: by another path, a link or a hard link.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let weights = folder.path().join("weights.safetensors");
/// std::fs::write(&weights, "")?;
/// let same = folder.path().join("./weights.safetensors");
/// let error = stream_grad_files::refuse_input(&same, [&weights]).unwrap_err();
/// assert!(error.to_string().contains("weights.safetensors, which is read"));
/// assert!(stream_grad_files::refuse_input(&folder.path().join("gradients.safetensors"), [&weights]).is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// [`FileError::Input`]. Inputs that are not there are passed over: reading them says so.
pub fn refuse_input<P: AsRef<Path>>(
    output: &Path,
    inputs: impl IntoIterator<Item = P>,
) -> Result<()> {
    // What is not there yet is none of the inputs; a device is not replaced.
    if !fs::metadata(output).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let there = Handle::from_path(output).map_err(FileError::io(output))?;
    for input in inputs {
        let input = input.as_ref();
        // A pipe would wait for its writer if it were opened.
        if !fs::metadata(input).is_ok_and(|found| found.is_file()) {
            continue;
        }
        if Handle::from_path(input).is_ok_and(|input| input == there) {
            return Err(FileError::Input {
                output: output.to_path_buf(),
                input: input.to_path_buf(),
            });
        }
    }
    Ok(())
}

/// Whether two outputs would be one file, whether that is there or not.
#[must_use]
pub fn is_same_place(a: &Path, b: &Path) -> bool {
    if refuse_input(a, [b]).is_err() {
        return true;
    }
    matches!((place(a), place(b)), (Some(a), Some(b)) if a == b)
}

/// Where a file would stand, with nothing in the path that has two names.
fn place(path: &Path) -> Option<PathBuf> {
    let path = follow(path).ok()?;
    let folder = fs::canonicalize(folder_of(&path)).ok()?;
    Some(folder.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_known_by_any_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("x")).unwrap();
        for name in ["a", "b"] {
            fs::write(at(name), "").unwrap();
        }
        fs::hard_link(at("a"), at("hard")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        #[cfg(not(unix))]
        fs::hard_link(at("a"), at("link")).unwrap();
        for name in ["a", "x/../a", "./a", "hard", "link"] {
            let error = refuse_input(&at(name), [at("missing"), at("b"), at("a")]).unwrap_err();
            let FileError::Input { output, input } = error else {
                panic!("{error}");
            };
            assert_eq!((output, input), (at(name), at("a")));
        }
        for name in ["b", "c", "x"] {
            refuse_input(&at(name), [at("a"), at("missing")]).unwrap();
        }
    }

    #[test]
    fn outputs_meet_before_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("x")).unwrap();
        assert!(is_same_place(&at("a"), &at("x/../a")));
        assert!(!is_same_place(&at("a"), &at("x/a")));
        assert!(!is_same_place(&at("missing/a"), &at("missing/b")));
        let device = Path::new("/dev/null");
        assert!(!is_same_place(device, device));
    }
}
