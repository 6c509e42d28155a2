//! The patches under a 3x3 window, with which a convolution is one product, for candle's autograd.

use std::ops::AddAssign;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// Patches `[N, 9 * C, H * W]` of images `[N, C, H, W]` under a 3x3 window with padding 1: row `9 * c + 3 * i + j` holds channel `c`,
/// moved by `i - 1` rows and `j - 1` columns.
///
/// `PyTorch`'s `unfold` with `kernel_size=3, padding=1`.
///
/// # Errors
/// A tensor of another rank, or of another dtype than `F32` and `F64`.
pub(crate) fn patches(images: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, channels, height, width) = images.dims4()?;
    images
        .contiguous()?
        .apply_op1(Patches)?
        .reshape((batch, channels * 9, height * width))
}

/// From `[N, C, H, W]` to `[N, C, 9, H, W]`.
struct Patches;

/// The adjoint of [`Patches`]: each value is added where it was taken from.
struct Scatter;

/// A plane's part that has a neighbour `by - 1` places on: where it begins, where the neighbours begin, and its length.
fn overlap(by: usize, length: usize) -> (usize, usize, usize) {
    match by {
        0 => (1, 0, length.saturating_sub(1)),
        1 => (0, 0, length),
        _ => (0, 1, length.saturating_sub(1)),
    }
}

/// Calls `row(patches, plane, length)` with the starts of each run of values of the nine patches of a plane of `height x width`.
fn each_row(height: usize, width: usize, mut row: impl FnMut(usize, usize, usize)) {
    for window in 0..9 {
        let (top, source_top, rows) = overlap(window / 3, height);
        let (left, source_left, columns) = overlap(window % 3, width);
        for r in 0..rows {
            row(
                (window * height + top + r) * width + left,
                (source_top + r) * width + source_left,
                columns,
            );
        }
    }
}

fn gather<T: Copy + Default>(planes: &[T], height: usize, width: usize) -> Vec<T> {
    let area = height * width;
    let mut patches = vec![T::default(); planes.len() * 9];
    if area > 0 {
        for (plane, patches) in planes
            .chunks_exact(area)
            .zip(patches.chunks_exact_mut(9 * area))
        {
            each_row(height, width, |to, from, length| {
                patches[to..to + length].copy_from_slice(&plane[from..from + length]);
            });
        }
    }
    patches
}

fn scatter<T: Copy + Default + AddAssign>(patches: &[T], height: usize, width: usize) -> Vec<T> {
    let area = height * width;
    let mut planes = vec![T::default(); patches.len() / 9];
    if area > 0 {
        for (plane, patches) in planes
            .chunks_exact_mut(area)
            .zip(patches.chunks_exact(9 * area))
        {
            each_row(height, width, |from, to, length| {
                let values = &patches[from..from + length];
                for (sum, &value) in plane[to..to + length].iter_mut().zip(values) {
                    *sum += value;
                }
            });
        }
    }
    planes
}

fn values<'a, T>(data: &'a [T], layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => candle_core::bail!("expected a contiguous tensor, found {layout:?}"),
    }
}

fn unsupported(storage: &CpuStorage) -> candle_core::Error {
    let found = storage.dtype();
    candle_core::Error::Msg(format!("expected dtype F32 or F64, found {found:?}"))
}

impl CustomOp1 for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let patches = match storage {
            CpuStorage::F32(data) => CpuStorage::F32(gather(values(data, layout)?, height, width)),
            CpuStorage::F64(data) => CpuStorage::F64(gather(values(data, layout)?, height, width)),
            other => return Err(unsupported(other)),
        };
        Ok((patches, (batch, channels, 9, height, width).into()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        cotangent: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        cotangent.contiguous()?.apply_op1_no_bwd(&Scatter).map(Some)
    }
}

impl CustomOp1 for Scatter {
    fn name(&self) -> &'static str {
        "patches-adjoint"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, _, height, width) = layout.shape().dims5()?;
        let planes = match storage {
            CpuStorage::F32(data) => CpuStorage::F32(scatter(values(data, layout)?, height, width)),
            CpuStorage::F64(data) => CpuStorage::F64(scatter(values(data, layout)?, height, width)),
            other => return Err(unsupported(other)),
        };
        Ok((planes, (batch, channels, height, width).into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::generator;

    fn generated(name: &str, shape: &[usize]) -> Tensor {
        let values = generator::uniform(name).take(shape.iter().product());
        Tensor::from_vec(values.collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
    }

    /// Each value by its definition, edges of one value included.
    #[test]
    fn a_patch_is_the_image_moved() {
        for (height, width) in [(1, 1), (1, 4), (3, 1), (2, 2), (5, 7)] {
            let image = generated("image", &[2, 3, height, width]);
            let found = patches(&image).unwrap().to_vec3::<f64>().unwrap();
            let planes: Vec<f64> = image.flatten_all().unwrap().to_vec1().unwrap();
            for n in 0..2 {
                for c in 0..3 {
                    for place in 0..9 * height * width {
                        let (window, at) = (place / (height * width), place % (height * width));
                        let row = (at / width + window / 3).checked_sub(1);
                        let column = (at % width + window % 3).checked_sub(1);
                        let expected = match (row, column) {
                            (Some(r), Some(s)) if r < height && s < width => {
                                planes[((n * 3 + c) * height + r) * width + s]
                            }
                            _ => 0.0,
                        };
                        assert_eq!(found[n][c * 9 + window][at].to_bits(), expected.to_bits());
                    }
                }
            }
        }
    }

    /// `<patches(x), y> = <x, adjoint(y)>`, of views that do not lie in one piece too.
    #[test]
    fn the_gradient_is_the_adjoint() {
        for (height, width) in [(1, 1), (1, 4), (3, 2), (6, 5)] {
            let image = generated("image", &[2, 3, width, height]).transpose(2, 3);
            let image = Var::from_tensor(&image.unwrap()).unwrap();
            let cotangent = generated("cotangent", &[2, 27, height * width]);
            let product = (patches(&image).unwrap() * cotangent)
                .unwrap()
                .sum_all()
                .unwrap();
            let gradients = product.backward().unwrap();
            let gradient = gradients.get(&image).unwrap();
            let adjoint = (image.as_tensor() * gradient).unwrap().sum_all().unwrap();
            let [a, b] = [&product, &adjoint].map(|x| x.to_scalar::<f64>().unwrap());
            assert!((a - b).abs() < 1e-12, "{height} x {width}: {a} {b}");
        }
    }

    #[test]
    fn other_tensors_are_refused() {
        let integers = Tensor::zeros((1, 3, 4, 4), DType::U8, &Device::Cpu).unwrap();
        let error = patches(&integers).unwrap_err().to_string();
        assert!(error.contains("F32 or F64, found U8"), "{error}");
        let flat = Tensor::zeros((4, 4), DType::F32, &Device::Cpu).unwrap();
        let error = patches(&flat).unwrap_err().to_string();
        assert!(
            error.starts_with("unexpected rank, expected: 4, got: 2 ([4, 4])"),
            "{error}"
        );
    }
}
