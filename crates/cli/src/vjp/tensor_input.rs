//! Tensors of a safetensors file, read by position: a region at a time, never the whole.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use stream_grad::{
    CotangentSource, ExternalError, Rect, Stored, StridedMut, TileMut, TileRef, TileSource,
};

use super::position;

/// Bytes read at a time, on the stack: reading holds no heap bytes.
const CHUNK_BYTES: usize = 8192;

/// A tensor `[N, C, H, W]` in a file, in f32 or f64.
#[derive(Debug)]
pub(crate) struct TensorInput {
    file: Arc<File>,
    name: String,
    element: Element,
    start: u64,
    /// `[N, C, H, W]`.
    shape: [u64; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32,
    F64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// A safetensors file with its header read.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: Arc<File>,
    metadata: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens the file and reads its header.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::read_header(path).with_context(|| format!("reading tensors from {}", path.display()))
    }

    fn read_header(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix)
            .context("the file is too short for safetensors")?;
        let header = u64::from_le_bytes(prefix);
        let data_start = header.checked_add(8).filter(|&start| start <= length);
        let data_start = data_start.with_context(|| {
            format!("no safetensors file: a header of {header} bytes in a file of {length} bytes")
        })?;
        let mut text = Vec::new();
        file.take(header).read_to_end(&mut text)?;
        let metadata: Metadata = serde_json::from_slice(&text).context("no safetensors header")?;
        let needed = data_start.saturating_add(u64::try_from(metadata.data_len())?);
        ensure!(
            needed == length,
            "the tensors end at byte {needed}, the file has {length} bytes"
        );
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(File::open(path)?),
            metadata,
            data_start,
        })
    }

    /// The tensor of that name, which must have four dimensions.
    pub(crate) fn tensor(&self, name: &str) -> anyhow::Result<TensorInput> {
        self.find(name)
            .with_context(|| format!("tensor `{name}` of {}", self.path.display()))
    }

    fn find(&self, name: &str) -> anyhow::Result<TensorInput> {
        let Some(info) = self.metadata.info(name) else {
            let mut names: Vec<String> = self.metadata.tensors().into_keys().collect();
            names.sort();
            bail!("it is missing; the file holds {names:?}");
        };
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => bail!("expected F32 or F64, found {other:?}"),
        };
        let shape: Vec<u64> = info
            .shape
            .iter()
            .map(|&size| u64::try_from(size))
            .collect::<Result<_, _>>()?;
        let shape: [u64; 4] = shape
            .try_into()
            .map_err(|shape| anyhow::anyhow!("expected [N, C, H, W], found {shape:?}"))?;
        let (start, end) = (
            u64::try_from(info.data_offsets.0)?,
            u64::try_from(info.data_offsets.1)?,
        );
        let elements = shape
            .iter()
            .try_fold(u64::try_from(element.bytes())?, |bytes, size| {
                bytes.checked_mul(*size)
            });
        ensure!(
            elements.is_some() && end.checked_sub(start) == elements,
            "shape {shape:?} does not fit bytes {start}..{end}"
        );
        let start = self.data_start + start;
        Ok(TensorInput {
            file: Arc::clone(&self.file),
            name: name.to_owned(),
            element,
            start,
            shape,
        })
    }
}

impl TensorInput {
    /// What it is called in the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `[N, C, H, W]`.
    pub(crate) fn shape(&self) -> [u64; 4] {
        self.shape
    }

    fn read_region(
        &self,
        image: usize,
        region: Rect,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        match out {
            TileMut::F32(tile) => self.read_rows(image, region, tile),
            TileMut::F64(tile) => self.read_rows(image, region, tile),
            TileMut::BF16(tile) => self.read_rows(image, region, tile),
        }
    }

    fn read_rows<T: Stored>(
        &self,
        image: usize,
        region: Rect,
        mut tile: StridedMut<'_, T>,
    ) -> Result<(), ExternalError> {
        let [images, channels, height, width] = self.shape;
        let image = u64::try_from(image)?;
        if image >= images || !Rect::whole(height, width).covers(region) {
            return Err(format!(
                "`{}` has shape {:?}: no {region} of image {image}",
                self.name, self.shape
            )
            .into());
        }
        let channel_count = usize::try_from(channels)?;
        let Rect { rows, columns } = region;
        for (row_index, row) in (rows.lo..rows.hi).enumerate() {
            let first = u64::try_from(row)? * width + u64::try_from(columns.lo)?;
            let out = tile.row(row_index);
            for (channel, plane) in (image * channels..(image + 1) * channels).enumerate() {
                let position = plane * height * width + first;
                let values = out.iter_mut().skip(channel).step_by(channel_count);
                self.read_line(position, values)?;
            }
        }
        Ok(())
    }

    /// Fills `values` with the elements from `position` on.
    fn read_line<'a, T: Stored>(
        &self,
        position: u64,
        mut values: impl ExactSizeIterator<Item = &'a mut T>,
    ) -> Result<(), ExternalError> {
        let size = self.element.bytes();
        let mut offset = self.start + position * u64::try_from(size)?;
        let mut chunk = [0; CHUNK_BYTES];
        while values.len() > 0 {
            let bytes = &mut chunk[..(values.len() * size).min(CHUNK_BYTES)];
            position::read_exact_at(&self.file, bytes, offset)?;
            offset += u64::try_from(bytes.len())?;
            match self.element {
                Element::F32 => {
                    let (elements, _) = bytes.as_chunks();
                    elements.iter().zip(&mut values).for_each(|(bytes, value)| {
                        *value = T::rounded(f32::from_le_bytes(*bytes).into());
                    });
                }
                Element::F64 => {
                    let (elements, _) = bytes.as_chunks();
                    elements
                        .iter()
                        .zip(&mut values)
                        .for_each(|(bytes, value)| *value = T::rounded(f64::from_le_bytes(*bytes)));
                }
            }
        }
        Ok(())
    }
}

impl TileSource for TensorInput {
    fn batch(&self) -> usize {
        usize::try_from(self.shape[0]).unwrap_or(usize::MAX)
    }

    fn channels(&self) -> usize {
        usize::try_from(self.shape[1]).unwrap_or(usize::MAX)
    }

    fn extent(&self) -> (u64, u64) {
        (self.shape[2], self.shape[3])
    }

    fn read(&self, image: usize, region: Rect, out: TileMut<'_>) -> Result<(), ExternalError> {
        self.read_region(image, region, out)
    }
}

/// The cotangents of a network's outputs, a tensor for each.
#[derive(Debug)]
pub(crate) struct CotangentInput(pub(crate) Vec<TensorInput>);

impl CotangentSource for CotangentInput {
    fn read(
        &mut self,
        image: usize,
        output: usize,
        region: Rect,
        _features: TileRef<'_>,
        out: TileMut<'_>,
    ) -> Result<(), ExternalError> {
        let tensor = self.0.get(output).ok_or("no such output")?;
        tensor.read_region(image, region, out)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use stream_grad::Span;

    use super::*;

    /// Headers whose tensors do not fit four bytes of data.
    const MISFITS: [&str; 2] = [
        r#"{"input":{"dtype":"F32","shape":[1,1,1,2],"data_offsets":[0,4]}}"#,
        r#"{"input":{"dtype":"F64","shape":[1,4294967296,4294967296,2],"data_offsets":[0,4]}}"#,
    ];

    fn file_of(tensor: &Tensor) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensors =
            std::collections::HashMap::from([("other", tensor.clone()), ("input", tensor.clone())]);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        (folder, path)
    }

    fn read(
        source: &dyn TileSource,
        image: usize,
        region: Rect,
        channels: usize,
    ) -> Result<Vec<f64>, ExternalError> {
        let row = region.width() * channels;
        let mut data = vec![0.0; region.height() * row];
        let tile = StridedMut::new(&mut data, region.height(), row, row).unwrap();
        source.read(image, region, TileMut::F64(tile))?;
        Ok(data)
    }

    #[test]
    fn a_region_is_the_same_from_a_file_and_from_memory() {
        // Rows longer than a chunk, so that a line is read in parts.
        for dtype in [candle_core::DType::F32, candle_core::DType::F64] {
            let tensor = Tensor::rand(-1.0, 1.0, (2, 3, 4, 2500), &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap();
            let (_folder, path) = file_of(&tensor);
            let input = TensorFile::open(&path).unwrap().tensor("input").unwrap();
            for region in [
                Rect::whole(4, 2500),
                Rect::new(Span::new(1, 3), Span::new(7, 2499)),
                Rect::new(Span::new(3, 4), Span::new(2499, 2500)),
                Rect::new(Span::new(2, 2), Span::new(5, 5)),
            ] {
                for image in 0..2 {
                    assert_eq!(
                        read(&input, image, region, 3).unwrap(),
                        read(&tensor, image, region, 3).unwrap()
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let tensor = Tensor::zeros((1, 3, 4, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
        let (folder, path) = file_of(&tensor);
        let file = TensorFile::open(&path).unwrap();
        let error = format!("{:#}", file.tensor("y_bar").unwrap_err());
        assert!(
            error.contains("`y_bar`") && error.contains("input"),
            "{error}"
        );
        let input = file.tensor("input").unwrap();
        for (image, rows) in [(1, 1), (0, 5)] {
            let region = Rect::whole(rows, 1);
            let error = read(&input, image, region, 3).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`input` has shape [1, 3, 4, 5]: no {region} of image {image}")
            );
        }

        let (_flat, path) = file_of(&tensor.flatten_all().unwrap());
        let error = format!(
            "{:#}",
            TensorFile::open(&path)
                .unwrap()
                .tensor("input")
                .unwrap_err()
        );
        assert!(error.contains("[60]"), "{error}");

        let broken = folder.path().join("broken.safetensors");
        for header in MISFITS {
            let mut content = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
            content.extend_from_slice(header.as_bytes());
            content.extend_from_slice(&[0; 4]);
            std::fs::write(&broken, content).unwrap();
            let read = TensorFile::open(&broken).and_then(|file| file.tensor("input"));
            let error = format!("{:#}", read.err().unwrap());
            // By the header's reader, or by this one.
            let told = ["no safetensors header", "does not fit bytes 0..4"];
            assert!(
                error.contains("broken.safetensors")
                    && told.iter().any(|told| error.contains(told)),
                "{header}: {error}"
            );
        }
        for content in [&b"short"[..], &[255; 100], b"\x02\0\0\0\0\0\0\0{}more"] {
            std::fs::write(&broken, content).unwrap();
            let error = format!("{:#}", TensorFile::open(&broken).unwrap_err());
            assert!(error.contains("broken.safetensors"), "{error}");
        }
    }
}
