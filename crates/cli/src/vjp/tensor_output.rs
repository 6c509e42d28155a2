//! A safetensors file that is written by position, so that no tensor in it has to exist as a whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use candle_core::{DType, Tensor};
use serde_json::json;
use stream_grad::{ExternalError, FeatureSink, InputGradientSink, Rect, Stored, Strided, TileRef};
use stream_grad_files::{FileError, NewFile};

use super::position;

/// Elements written at a time.
const CHUNK: usize = 1024;

/// Name, type and shape of a tensor to be written.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

impl Declared {
    fn bytes(&self) -> anyhow::Result<u64> {
        let elements = self
            .shape
            .iter()
            .try_fold(self.dtype.size_in_bytes(), |bytes, &size| {
                bytes.checked_mul(size)
            });
        let bytes = elements
            .with_context(|| format!("`{}` with shape {:?} is too large", self.name, self.shape))?;
        Ok(u64::try_from(bytes)?)
    }
}

/// A safetensors file under construction, beside its final place until it is complete.
///
/// The file has its whole length from the start, but the disk gives room only as values are written: a full disk shows then.
#[derive(Debug)]
pub(crate) struct TensorOutput {
    file: NewFile,
    /// Each tensor with its first byte.
    tensors: Vec<(Declared, u64)>,
}

impl TensorOutput {
    /// Makes the file, with zeros as the values of all its tensors.
    pub(crate) fn create(path: &Path, tensors: Vec<Declared>) -> anyhow::Result<Self> {
        let mut header = serde_json::Map::new();
        let mut placed = Vec::with_capacity(tensors.len());
        let mut end = 0_u64;
        for tensor in tensors {
            let start = end;
            end = end
                .checked_add(tensor.bytes()?)
                .context("the tensors are too large for one file")?;
            let dtype = match tensor.dtype {
                DType::F64 => "F64",
                DType::F32 => "F32",
                other => anyhow::bail!("`{}`: expected F32 or F64, found {other:?}", tensor.name),
            };
            let entry =
                json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
            ensure!(
                header.insert(tensor.name.clone(), entry).is_none(),
                "there are two tensors `{}`",
                tensor.name
            );
            placed.push((tensor, start));
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let length = u64::try_from(header.len())?;
        let mut file = NewFile::create(path)?;
        file.write_all(&length.to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .and_then(|()| file.file().set_len(8 + length + end))
            .map_err(|source| failed(path, source))?;
        for (_, start) in &mut placed {
            *start += 8 + length;
        }
        Ok(Self {
            file,
            tensors: placed,
        })
    }

    /// Writes a whole tensor, which is converted to the declared type.
    pub(crate) fn write(&self, name: &str, tensor: &Tensor) -> anyhow::Result<()> {
        let (declared, start) = self.find(name)?;
        ensure!(
            tensor.dims() == declared.shape,
            "`{name}`: expected shape {:?}, found {:?}",
            declared.shape,
            tensor.dims()
        );
        let values = tensor.flatten_all()?;
        let bytes: Vec<u8> = match declared.dtype {
            DType::F64 => values
                .to_dtype(DType::F64)?
                .to_vec1::<f64>()?
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            _ => values
                .to_dtype(DType::F32)?
                .to_vec1::<f32>()?
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        };
        position::write_all_at(self.file.file(), &bytes, start)
            .map_err(|source| failed(self.file.path(), source))
            .with_context(|| format!("writing `{name}`"))
    }

    /// A sink for the tensor `[N, C, H, W]` of that name.
    pub(crate) fn map(&self, name: &str) -> anyhow::Result<MapOutput> {
        let (declared, start) = self.find(name)?;
        let shape = declared
            .shape
            .iter()
            .map(|&size| u64::try_from(size))
            .collect::<Result<Vec<_>, _>>()?;
        let shape = shape
            .try_into()
            .map_err(|shape| anyhow::anyhow!("`{name}`: expected [N, C, H, W], found {shape:?}"))?;
        Ok(MapOutput {
            path: self.file.path().to_owned(),
            file: self
                .file
                .file()
                .try_clone()
                .map_err(|source| failed(self.file.path(), source))?,
            start,
            shape,
        })
    }

    /// A sink for the features of all outputs, each a tensor `[N, C, H, W]` of the name in its place.
    pub(crate) fn features(&self, names: &[String]) -> anyhow::Result<FeatureOutput> {
        let maps = names.iter().map(|name| self.map(name));
        Ok(FeatureOutput(maps.collect::<anyhow::Result<_>>()?))
    }

    /// Puts the file in its place.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        Ok(self.file.commit()?)
    }

    fn find(&self, name: &str) -> anyhow::Result<(&Declared, u64)> {
        let found = self
            .tensors
            .iter()
            .find(|(declared, _)| declared.name == name);
        found
            .map(|(declared, start)| (declared, *start))
            .with_context(|| format!("no tensor `{name}` was declared"))
    }
}

/// An error that names the file.
fn failed(path: &Path, source: io::Error) -> FileError {
    let path = path.to_owned();
    FileError::Io { path, source }
}

/// A tensor `[N, C, H, W]` in a file that takes regions as they come.
#[derive(Debug)]
pub(crate) struct MapOutput {
    path: PathBuf,
    file: File,
    start: u64,
    shape: [u64; 4],
}

/// Whether a region replaces or adds to what the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Combine {
    Replace,
    Add,
}

/// An element as it lies in a file.
trait FileElement: Copy + std::ops::AddAssign {
    const BYTES: usize;
    fn get(bytes: &[u8]) -> Self;
    fn put(self, bytes: &mut [u8]);
}

macro_rules! file_element {
    ($float:ty) => {
        impl FileElement for $float {
            const BYTES: usize = size_of::<$float>();

            fn get(bytes: &[u8]) -> Self {
                bytes
                    .first_chunk()
                    .map_or(Self::NAN, |bytes| Self::from_le_bytes(*bytes))
            }

            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    };
}

file_element!(f32);
file_element!(f64);

impl MapOutput {
    fn take(
        &self,
        image: usize,
        region: Rect,
        tile: TileRef<'_>,
        combine: Combine,
    ) -> Result<(), ExternalError> {
        match tile {
            TileRef::F32(tile) => self.take_rows(image, region, tile, combine),
            TileRef::F64(tile) => self.take_rows(image, region, tile, combine),
            TileRef::BF16(tile) => self.take_rows(image, region, tile, combine),
        }
    }

    fn take_rows<E: Stored<Compute: FileElement>>(
        &self,
        image: usize,
        region: Rect,
        tile: Strided<'_, E>,
        combine: Combine,
    ) -> Result<(), ExternalError> {
        let [_, channels, height, width] = self.shape;
        let image = u64::try_from(image)?;
        let stride = usize::try_from(channels)?;
        let Rect { rows, columns } = region;
        for (row_index, row) in (rows.lo..rows.hi).enumerate() {
            let first = u64::try_from(row)? * width + u64::try_from(columns.lo)?;
            let values = tile.row(row_index);
            for (channel, plane) in (image * channels..(image + 1) * channels).enumerate() {
                let position = plane * height * width + first;
                let offset = self.start + position * u64::try_from(E::Compute::BYTES)?;
                let values = values.iter().skip(channel).step_by(stride);
                let values = values.map(|value| value.widen());
                self.take_line(offset, values, combine)?;
            }
        }
        Ok(())
    }

    fn take_line<T: FileElement>(
        &self,
        mut offset: u64,
        mut values: impl ExactSizeIterator<Item = T>,
        combine: Combine,
    ) -> Result<(), ExternalError> {
        // On the stack, so that writing holds no heap bytes.
        let mut chunk = [0; CHUNK * size_of::<f64>()];
        while values.len() > 0 {
            let bytes = &mut chunk[..values.len().min(CHUNK) * T::BYTES];
            if combine == Combine::Add {
                position::read_exact_at(&self.file, bytes, offset)
                    .map_err(|source| failed(&self.path, source))?;
            }
            for (bytes, mut value) in bytes.chunks_exact_mut(T::BYTES).zip(&mut values) {
                if combine == Combine::Add {
                    value += T::get(bytes);
                }
                value.put(bytes);
            }
            position::write_all_at(&self.file, bytes, offset)
                .map_err(|source| failed(&self.path, source))?;
            offset += u64::try_from(bytes.len())?;
        }
        Ok(())
    }
}

/// The features of a network: each output has a tensor of its own.
#[derive(Debug)]
pub(crate) struct FeatureOutput(Vec<MapOutput>);

impl FeatureSink for FeatureOutput {
    fn write(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        features: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        let map = self.0.get(output).ok_or("no such output")?;
        map.take(image, region, features, Combine::Replace)
    }
}

impl InputGradientSink for MapOutput {
    fn add(
        &mut self,
        image: usize,
        region: Rect,
        gradient: TileRef<'_>,
    ) -> Result<(), ExternalError> {
        self.take(image, region, gradient, Combine::Add)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use stream_grad::Span;

    use super::*;

    fn declared(name: &str, dtype: DType, shape: &[usize]) -> Declared {
        Declared {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn regions_and_tensors_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.safetensors");
        let shape = [1, 2, 3, 1500];
        let tensors = vec![
            declared("y", DType::F32, &shape),
            declared("weight", DType::F64, &[2, 2]),
            declared("x_bar", DType::F64, &shape),
        ];
        let output = TensorOutput::create(&path, tensors).unwrap();
        let weight = Tensor::new(&[[1.5f64, -2.0], [0.25, 4.0]], &Device::Cpu).unwrap();
        output.write("weight", &weight).unwrap();
        let region = Rect::new(Span::new(1, 3), Span::new(2, 1500));
        let row = region.width() * 2;
        let values: Vec<f64> = (0..2 * row)
            .map(|index| f64::from(u32::try_from(index).unwrap()))
            .collect();
        #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
        let singles: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        output
            .features(&["y".to_owned()])
            .unwrap()
            .write(
                0,
                0,
                region,
                TileRef::F32(Strided::new(&singles, 2, row, row).unwrap()),
            )
            .unwrap();
        let mut gradient = output.map("x_bar").unwrap();
        for _ in 0..2 {
            gradient
                .add(
                    0,
                    region,
                    TileRef::F64(Strided::new(&values, 2, row, row).unwrap()),
                )
                .unwrap();
        }
        assert!(!path.exists(), "an incomplete file is in place");
        output.finish().unwrap();

        let read = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(
            read["weight"].to_vec2::<f64>().unwrap(),
            weight.to_vec2::<f64>().unwrap()
        );
        let (y, x_bar) = (&read["y"], &read["x_bar"]);
        for channel in 0..2 {
            for (row_index, row) in (0..3).zip([None, Some(0), Some(1)]) {
                let y: Vec<f32> = y
                    .get(0)
                    .unwrap()
                    .get(channel)
                    .unwrap()
                    .get(row_index)
                    .unwrap()
                    .to_vec1()
                    .unwrap();
                let x_bar: Vec<f64> = x_bar
                    .get(0)
                    .unwrap()
                    .get(channel)
                    .unwrap()
                    .get(row_index)
                    .unwrap()
                    .to_vec1()
                    .unwrap();
                for column in 0..1500 {
                    let expected = match row {
                        Some(row) if column >= 2 => {
                            values[(row * region.width() + column - 2) * 2 + channel]
                        }
                        _ => 0.0,
                    };
                    assert_eq!(f64::from(y[column]), expected);
                    assert_eq!(x_bar[column], 2.0 * expected);
                }
            }
        }
    }

    /// A device that is always full: features fail as they are written, gradients as they are written back.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_with_the_file() {
        let full = File::options()
            .read(true)
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut output = MapOutput {
            path: "folder/g.safetensors".into(),
            file: full,
            start: 8,
            shape: [1, 1, 1, 2],
        };
        let region = Rect::whole(1, 2);
        let values = [1_f32, 2.0];
        let tile = || TileRef::F32(Strided::new(&values, 1, 2, 2).unwrap());
        for error in [
            output
                .take(0, region, tile(), Combine::Replace)
                .unwrap_err(),
            output.add(0, region, tile()).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(
                message.contains("folder/g.safetensors") && message.contains("No space left"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.safetensors");
        let twice = vec![
            declared("a", DType::F32, &[1]),
            declared("a", DType::F32, &[1]),
        ];
        assert!(format!("{:#}", TensorOutput::create(&path, twice).unwrap_err()).contains("`a`"));
        let output = TensorOutput::create(&path, vec![declared("a", DType::F32, &[1])]).unwrap();
        let error = output
            .write("a", &Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("[1]") && error.contains("[2]"), "{error}");
        for (name, told) in [
            ("a", "`a`: expected [N, C, H, W], found [1]"),
            ("b", "no tensor `b` was declared"),
        ] {
            assert_eq!(output.map(name).err().unwrap().to_string(), told);
        }
        let nowhere = folder.path().join("missing").join("g.safetensors");
        let error = TensorOutput::create(&nowhere, Vec::new()).err().unwrap();
        assert!(format!("{error:#}").contains("missing"), "{error:#}");
    }
}
