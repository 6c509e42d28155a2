//! How far a contender's gradients are from those in f64.

use std::path::Path;

use anyhow::{Context, ensure};
use candle_core::{DType, Device, Tensor};

use super::measured::{GradientError, median};

/// Compares two files of gradients by parameter name. The contender's may lack some, but not hold others.
pub(crate) fn compare(reference: &Path, found: &Path) -> anyhow::Result<GradientError> {
    let load = |path: &Path| {
        candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| format!("reading {}", path.display()))
    };
    let (reference, found) = (load(reference)?, load(found)?);
    let mut errors = Vec::with_capacity(found.len());
    for (name, found) in &found {
        let reference = reference
            .get(name)
            .with_context(|| format!("`{name}` is no parameter of the network"))?;
        ensure!(
            reference.dims() == found.dims(),
            "gradient of `{name}`: expected shape {:?}, found {:?}",
            reference.dims(),
            found.dims()
        );
        errors.push((relative(reference, found)?, name.clone()));
    }
    errors.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (worst, worst_parameter) = errors
        .last()
        .cloned()
        .context("no gradients were written")?;
    Ok(GradientError {
        median: median(errors.iter().map(|(error, _)| *error)).unwrap_or(worst),
        worst,
        worst_parameter,
        compared: errors.len(),
        parameters: reference.len(),
    })
}

/// The norm of the difference over that of the reference; of a reference of zeros, 0 if it is met and else infinity.
fn relative(reference: &Tensor, found: &Tensor) -> anyhow::Result<f64> {
    let norm = |tensor: &Tensor| tensor.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>();
    let reference = reference.to_dtype(DType::F64)?;
    let difference = norm(&(&reference - found.to_dtype(DType::F64)?)?)?;
    let norm = norm(&reference)?;
    Ok(if difference == 0.0 {
        0.0
    } else {
        difference / norm
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn file(folder: &Path, name: &str, tensors: &[(&str, &[f64])]) -> std::path::PathBuf {
        let tensors: BTreeMap<String, Tensor> = tensors
            .iter()
            .map(|(name, values)| {
                let tensor = Tensor::new(*values, &Device::Cpu).unwrap();
                ((*name).to_owned(), tensor)
            })
            .collect();
        let path = folder.join(name);
        stream_grad_models::save_tensors(&path, &tensors).unwrap();
        path
    }

    #[test]
    fn the_worst_is_named_and_what_lacks_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let reference = [("a", &[3.0, 4.0][..]), ("b", &[0.0]), ("c", &[1.0])];
        let reference = file(folder.path(), "reference.safetensors", &reference);
        let found = file(
            folder.path(),
            "found.safetensors",
            &[("a", &[3.0, 4.5]), ("b", &[0.0])],
        );
        let error = compare(&reference, &found).unwrap();
        assert_eq!((error.worst, error.worst_parameter.as_str()), (0.1, "a"));
        assert_eq!((error.compared, error.parameters), (2, 3));

        let other = file(folder.path(), "other.safetensors", &[("d", &[1.0])]);
        let error = compare(&reference, &other).unwrap_err().to_string();
        assert!(error.contains("`d`"), "{error}");
        let not_zero = file(folder.path(), "zero.safetensors", &[("b", &[1.0])]);
        assert!(compare(&reference, &not_zero).unwrap().worst.is_infinite());
        let nan = file(folder.path(), "nan.safetensors", &[("a", &[1.0, f64::NAN])]);
        assert!(compare(&reference, &nan).unwrap().worst.is_nan());
    }
}
