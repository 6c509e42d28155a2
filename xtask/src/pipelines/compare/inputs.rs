//! Weights and images as files, the same for all contenders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use stream_grad::Net;
use stream_grad_cli::image_size::ImageSize;
use stream_grad_models::{ModelName, generator, save_map, save_tensors, seeded};

use super::pixels::Noise;

/// Seed of the weights.
const SEED: u64 = 0;

/// Writes the weights under torchvision's names, unless they are there.
pub(crate) fn weights(folder: &Path, model: ModelName) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{model}.safetensors"));
    if !path.exists() {
        let variables = VarMap::new();
        let builder = seeded(&variables, SEED, DType::F32, &Device::Cpu);
        model.build(builder)?;
        save_map(&path, &variables)?;
    }
    Ok(path)
}

/// Writes an image of noise and a cotangent of the features, unless they are there.
pub(crate) fn image(folder: &Path, net: &Net, size: ImageSize) -> anyhow::Result<PathBuf> {
    let channels: Vec<usize> = net.output_channels().collect();
    let [channels] = *channels else {
        bail!(
            "expected a network with one output, found {}",
            channels.len()
        );
    };
    let (rows, columns) = net.output_extent(size.height, size.width)?;
    let shape = [
        1,
        channels,
        usize::try_from(rows)?,
        usize::try_from(columns)?,
    ];
    let path = folder.join(format!("{}x{size}.safetensors", shape[1]));
    if path.exists() {
        return Ok(path);
    }
    let mut values = Vec::new();
    let count = size
        .height
        .checked_mul(size.width)
        .and_then(|pixels| pixels.checked_mul(3));
    let count = usize::try_from(count.context("the image is too large")?)?;
    values
        .try_reserve_exact(count)
        .with_context(|| format!("an image of {size} pixels does not fit in memory"))?;
    for channel in 0..3 {
        for row in 0..size.height {
            values.extend((0..size.width).map(|column| Noise::value(row, column, channel)));
        }
    }
    let (height, width) = (usize::try_from(size.height)?, usize::try_from(size.width)?);
    let image = Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu)?;
    let tensors = BTreeMap::from([
        ("input".to_owned(), image),
        ("y_bar".to_owned(), cotangent(shape)?),
    ]);
    save_tensors(&path, &tensors)?;
    Ok(path)
}

/// The cotangent of features under a linear layer after global averaging: the same at every position.
///
/// Cotangents that differ from position to position nearly cancel in the gradients, so that a few activations whose sign
/// f32 decides the other way would outweigh all rounding.
fn cotangent(shape: [usize; 4]) -> anyhow::Result<Tensor> {
    let [_, channels, rows, columns] = shape;
    let values = generator::uniform_tensor("compare/y_bar", &[1, channels, 1, 1])?;
    let values = (values / (rows * columns) as f64)?;
    Ok(values
        .broadcast_as(&shape)?
        .contiguous()?
        .to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stream_grad_cli::model;

    #[test]
    fn the_files_hold_what_every_contender_loads() {
        let folder = tempfile::tempdir().unwrap();
        let name: ModelName = "resnet18".parse().unwrap();
        let path = weights(folder.path(), name).unwrap();
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        // torchvision's state_dict without the 20 `num_batches_tracked`, and the linear layer's two tensors.
        assert_eq!(tensors.len(), 122 - 20 - 2);

        let (_, net) = model::build("resnet18", DType::F32).unwrap();
        stream_grad_models::load_net(&path, &net).unwrap();
        let size = ImageSize {
            height: 64,
            width: 96,
        };
        let path = image(folder.path(), &net, size).unwrap();
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(tensors["input"].dims(), [1, 3, 64, 96]);
        assert_eq!(tensors["y_bar"].dims(), [1, 512, 2, 3]);
        let cotangent = tensors["y_bar"].get(0).unwrap().to_vec3::<f32>().unwrap();
        assert!(cotangent[7][1][2] == cotangent[7][0][0] && cotangent[7] != cotangent[8]);
        let values = tensors["input"].get(0).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(values[2][5][7], Noise::value(5, 7, 2));
    }
}
