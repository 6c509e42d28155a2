//! Label maps turned and cropped as their images are.

use stream_grad::{ExternalError, Rect};

use super::{Augmentation, Axes, place};
use crate::source::LabelSource;

/// Labels seen through the geometry of an augmentation; colours have none.
#[derive(Debug)]
pub struct AugmentedLabels<S> {
    labels: S,
    augmentation: Augmentation,
}

impl<S: LabelSource> AugmentedLabels<S> {
    /// Shows `labels` through `augmentation`, which was checked when the image was [shown](super::Augmented::new) through it.
    #[must_use]
    pub const fn new(labels: S, augmentation: Augmentation) -> Self {
        Self {
            labels,
            augmentation,
        }
    }
}

impl<S: LabelSource> LabelSource for AugmentedLabels<S> {
    fn extent(&self) -> (u64, u64) {
        self.augmentation.extent()
    }

    fn read(&self, region: Rect, labels: &mut [u8]) -> Result<(), ExternalError> {
        let augmentation = &self.augmentation;
        let origin = augmentation.origin(region);
        if augmentation.keeps_orientation() {
            return self.labels.read(origin, labels);
        }
        let mut found = vec![0; origin.height() * origin.width()];
        self.labels.read(origin, &mut found)?;
        let (height, width) = (region.height(), region.width());
        for (row, line) in labels.chunks_exact_mut(width.max(1)).enumerate() {
            let row = place(row, height, augmentation.rows);
            for (column, label) in line.iter_mut().enumerate() {
                let column = place(column, width, augmentation.columns);
                *label = found[match augmentation.axes {
                    Axes::Kept => row * origin.width() + column,
                    Axes::Swapped => column * origin.width() + row,
                }];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use stream_grad::{Span, StridedMut, TileMut, TileSource};

    use super::super::{AugmentationSettings, Augmented};
    use super::*;

    /// Labels that are the values of an image's one channel.
    struct Values(Vec<u8>);

    const HEIGHT: u64 = 9;
    const WIDTH: u64 = 14;

    impl LabelSource for Values {
        fn extent(&self) -> (u64, u64) {
            (HEIGHT, WIDTH)
        }

        fn read(&self, region: Rect, labels: &mut [u8]) -> Result<(), ExternalError> {
            let mut labels = labels.iter_mut();
            for row in region.rows.lo..region.rows.hi {
                for column in region.columns.lo..region.columns.hi {
                    let place = usize::try_from(row * i64::try_from(WIDTH)? + column)?;
                    *labels.next().ok_or("too few")? = self.0[place];
                }
            }
            Ok(())
        }
    }

    /// Image and labels of one content stay together, however they are turned and cropped.
    #[test]
    fn labels_lie_where_the_image_lies() {
        let values: Vec<u8> = (0..126).collect();
        let image: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let image = Tensor::from_vec(image, (1, 1, 9, 14), &Device::Cpu).unwrap();
        let settings = AugmentationSettings {
            crop: 0.7,
            contrast: 0.0,
            brightness: 0.0,
            ..AugmentationSettings::strong()
        };
        let mut swapped = 0;
        for index in 0..64 {
            let augmentation = settings.draw((HEIGHT, WIDTH), 1, 0, index);
            swapped += u32::from(augmentation.axes == Axes::Swapped);
            let labels = AugmentedLabels::new(Values(values.clone()), augmentation.clone());
            let image = Augmented::new(image.clone(), augmentation).unwrap();
            assert_eq!(labels.extent(), image.extent());
            let (height, width) = image.extent();
            for region in [
                Rect::whole(height, width),
                Rect::new(
                    Span::new(1, i64::try_from(height).unwrap() - 1),
                    Span::new(2, 4),
                ),
            ] {
                let (rows, columns) = (region.height(), region.width());
                let mut pixels = vec![f64::NAN; rows * columns];
                let tile = StridedMut::new(&mut pixels, rows, columns, columns).unwrap();
                image.read(0, region, TileMut::F64(tile)).unwrap();
                let mut found = vec![0; rows * columns];
                labels.read(region, &mut found).unwrap();
                let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                assert_eq!(found, pixels);
            }
        }
        assert!((16..48).contains(&swapped), "{swapped}");
    }
}
