//! The choice of instructions, made when a kernel runs.

#[cfg(not(test))]
use pulp::Arch;
use pulp::WithSimd;

/// Runs `work` compiled for the best instructions of this processor.
#[inline(always)]
pub(crate) fn dispatch<Work: WithSimd>(work: Work) -> Work::Output {
    #[cfg(test)]
    return tests::dispatch(work);
    #[cfg(not(test))]
    return Arch::new().dispatch(work);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pulp::{Arch, Scalar, Simd, WithSimd};

    use crate::{
        Activation, Convolution, DataGradientWeights, Element, Epilogue, Existing, ForwardWeights,
        Image, ImageMut, Position, Region, Window, Windows, conv_data_gradient, conv_forward,
        conv_weight_gradient,
    };

    /// What `dispatch` uses: an index of the processor's instruction sets, the best first.
    static CHOICE: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn dispatch<Work: WithSimd>(work: Work) -> Work::Output {
        match CHOICE.load(Ordering::SeqCst) {
            0 => Arch::new().dispatch(work),
            #[cfg(target_arch = "x86_64")]
            1 if pulp::x86::V3::try_new().is_some() => pulp::x86::V3::try_new()
                .map(|simd| Simd::vectorize(simd, work))
                .unwrap(),
            _ => Simd::vectorize(Scalar, work),
        }
    }

    fn values<T: Element>(count: usize, step: u32) -> Vec<T> {
        (0_u32..)
            .take(count)
            .map(|i| T::from_f64(f64::from((i * step) % 1009) / 504.0 - 1.0))
            .collect()
    }

    /// Forward pass, data gradient and weight gradient as bits.
    fn results<T: Element>(convolution: &Convolution) -> [Vec<u64>; 3] {
        let (height, width, rows, columns) = (17, 19, 9, 10);
        let (inputs, outputs) = (convolution.in_channels, convolution.out_channels);
        let weights = values::<T>(convolution.weight_count().unwrap(), 17);
        let input = values::<T>(height * width * inputs, 29);
        let cotangent = values::<T>(rows * columns * outputs, 31);
        let bias = values::<T>(outputs, 7);
        let input = Image::new(&input, height, width, inputs).unwrap();
        let cotangent = Image::new(&cotangent, rows, columns, outputs).unwrap();
        let windows = Windows::new(Region::whole(rows, columns), Position::new(-1, -1));
        let mut scratch = vec![T::ZERO; convolution.scratch_len::<T>().unwrap()];

        let mut output = vec![T::ZERO; rows * columns * outputs];
        conv_forward(
            convolution,
            &ForwardWeights::pack(convolution, &weights).unwrap(),
            input,
            windows,
            ImageMut::new(&mut output, rows, columns, outputs).unwrap(),
            Epilogue {
                bias: Some(&bias),
                residual: None,
                activation: Activation::Relu,
            },
            &mut scratch,
        )
        .unwrap();
        let mut gradient = vec![T::ONE; height * width * inputs];
        conv_data_gradient(
            convolution,
            &DataGradientWeights::pack(convolution, &weights).unwrap(),
            cotangent,
            windows,
            ImageMut::new(&mut gradient, height, width, inputs).unwrap(),
            Existing::Add,
            &mut scratch,
        )
        .unwrap();
        let mut sums = vec![1.0; weights.len()];
        conv_weight_gradient(
            convolution,
            input,
            windows,
            cotangent,
            &mut sums,
            &mut scratch,
        )
        .unwrap();
        let bits = |values: &[T]| {
            values
                .iter()
                .map(|value| value.to_f64().to_bits())
                .collect()
        };
        [
            bits(&output),
            bits(&gradient),
            sums.iter().map(|sum| sum.to_bits()).collect(),
        ]
    }

    /// Every instruction set does the same fused multiply-adds in the same order.
    #[test]
    fn instruction_sets_agree_to_the_bit() {
        let window = Window::new([3, 3]).stride([2, 2]);
        for convolution in [
            Convolution::new(window, 5, 70),
            Convolution::new(window, 70, 20),
            Convolution::new(window, 21, 35),
            Convolution::new(window, 12, 20).groups(4),
            Convolution::new(window, 37, 37).groups(37),
            Convolution::new(Window::new([7, 7]), 37, 37).groups(37),
            Convolution::new(Window::new([3, 5]), 37, 37).groups(37),
            Convolution::new(Window::new([7, 7]).stride([2, 2]), 3, 64),
            Convolution::new(Window::new([3, 3]), 37, 70),
            Convolution::new(Window::new([3, 3]), 140, 40),
        ] {
            let best = (results::<f32>(&convolution), results::<f64>(&convolution));
            for choice in [1, 2] {
                CHOICE.store(choice, Ordering::SeqCst);
                let found = (results::<f32>(&convolution), results::<f64>(&convolution));
                CHOICE.store(0, Ordering::SeqCst);
                for pass in 0..3 {
                    let what = ["forward", "data gradient", "weight gradient"][pass];
                    assert!(
                        found.0[pass] == best.0[pass],
                        "{what}, f32, {choice}: {convolution:?}"
                    );
                    assert!(
                        found.1[pass] == best.1[pass],
                        "{what}, f64, {choice}: {convolution:?}"
                    );
                }
            }
        }
    }
}
